//! `credential: rebootstrap`: a donor that is cleaned from inside loses the credential of its kubelet, and comes back with a new one;
//! its image holds neither, and what it asked with is dead.

use std::{collections::BTreeSet, fs, time::Duration};

use kamino_wf::{
    cluster::{
        DonorCleaning,
        kubernetes::{Access, KubernetesCluster},
    },
    model::{Class, Credential, Profile},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    in_place::{Ended, Place, import_product, pull_the_cord},
    is_somebody_new,
    machine::Identity,
    never_speaks_for, plant_beside,
    pool::{JOINS, Joined, Lab, line_of_key, since},
    raw,
    stop::{FORMER, IDENTITY, RECORD, guard_said, is_the_proof},
    support::installed::until,
    tenant,
};

const CONFIG: &str = "etc/kubernetes/kubelet.conf";
const ASKS: &str = "etc/kubernetes/bootstrap-kubelet.conf";
const KEYS: &str = "var/lib/kubelet/pki";
const READ_KEY: &str = "cat /var/lib/kubelet/pki/kubelet-client-current.pem";

#[tokio::test]
async fn a_donor_comes_back_with_a_new_credential_and_its_image_holds_none() {
    let Some(lab) = Lab::new(Profile::Kubeadm).await else { return };
    let place = Place::make(&lab).await;
    place.gives_credentials(&lab).await;
    let identity =
        Identity { name: "pool-000300", uuid: "21111111-2222-4333-8444-000000000300", address: "10.88.0.180" };
    let clone = Identity { name: "pool-000307", uuid: "21111111-2222-4333-8444-000000000307", address: "10.88.0.187" };
    let began = Instant::now();
    let machine = lab.boot(identity, lab.base("renewed.img"), lab.for_new_machines()).await;
    let donor = lab.joined(machine).await;
    import_product(&donor.machine);
    lab.tenant(&donor.machine).await;
    since(began, "the donor has joined, and a tenant works on it");

    let mut planted = tenant::WORDS.map(str::to_owned).to_vec();
    planted.extend(plant_beside(&donor.machine));
    planted.retain(|word| !IDENTITY.contains(&word.as_str()) || word == "PLANT-kubelet-pki");
    let key = donor.machine.shell(READ_KEY);
    planted.push(line_of_key(&key));
    raw::all_readable(&donor.machine, &planted);

    let want = request(&place, &lab, &donor);
    place.lets_live(&want).await;
    place.start(&want).await;
    let ended = place.ended(&want, &donor.machine).await;
    let Ended::Proved(proof) = ended else { panic!("refused: {ended:?}; {}", donor.machine.diagnosis()) };
    is_the_proof(&proof, &want);
    let asks: Value = serde_json::from_str(&donor.machine.read(ASKS)).expect("JSON");
    let token = asks["users"][0]["user"]["token"].as_str().expect("a token").to_owned();
    assert!(!donor.machine.path(KEYS).exists() && !donor.machine.path(CONFIG).exists());
    let Joined { machine, uid, info, node } = donor;
    let disk = pull_the_cord(&lab, machine).await;
    let copy = disk.copy_as("renewed-copy.img");
    assert_eq!(raw::readable(&copy, &planted), BTreeSet::new(), "readable in the raw disk after cleaning");
    assert!(
        !raw::readable(&copy, std::slice::from_ref(&token)).is_empty(),
        "control: the token is what the image holds"
    );
    place.take_pod_away(&want).await;
    since(began, "it is cleaned and off, and its disk is copied");

    let machine = lab.boot(identity, disk, lab.for_new_machines()).await;
    let again = lab.joined_in_another_boot(machine, &info.boot_id).await;
    assert_eq!((&again.uid, &again.info.machine_id), (&uid, &info.machine_id), "itself");
    assert_eq!(again.node["spec"], node["spec"]);
    let said = guard_said(&again.machine).await;
    assert!(said.contains("the donor itself: nothing to do"), "{said}");
    let new = again.machine.shell(READ_KEY);
    assert_ne!(line_of_key(&new), line_of_key(&key));
    let subject = again.machine.shell(&format!("{READ_KEY} | openssl x509 -noout -subject"));
    assert_eq!(subject, format!("subject=O = system:nodes, CN = system:node:{}\n", identity.name));
    since(began, "the donor is back as itself, with a new credential");

    let holder = holder_of(&lab, &token).await;
    assert_eq!(holder.lacking_to_bootstrap().await.expect("it lives"), [""; 0]);
    place.lets_die(&want).await;
    until("the token to be dead", async || holder.lacking_to_bootstrap().await.is_err()).await;
    let dead = holder.lacking_to_bootstrap().await.expect_err("dead");
    assert_eq!(dead.class(), Class::Denied, "{dead}");

    let machine = lab.boot(clone, copy, lab.for_clones()).await;
    let clone = lab.joined(machine).await;
    is_somebody_new(&lab, &clone, &again).await;
    assert!(clone.machine.path(FORMER).exists() && !clone.machine.path(RECORD).exists());
    let left = clone.machine.shell(&format!("cat /{ASKS} 2> /dev/null || true"));
    assert!(!left.contains(&token), "the copy still has the donor's token");
    never_speaks_for(&lab.cluster.audit().await, &clone, &again);
    since(began, "a machine of the copy has joined as somebody new");
    an_image_of_an_image(&lab, &place, clone).await;
    comes_back_whenever_the_power_goes(&lab, &place, again).await;
}

/// A machine that was made from an image is the next donor: its guard has been at work there once before.
async fn an_image_of_an_image(lab: &Lab, place: &Place, donor: Joined) {
    let began = Instant::now();
    let third = Identity { name: "pool-000308", uuid: "21111111-2222-4333-8444-000000000308", address: "10.88.0.188" };
    import_product(&donor.machine);
    let want = request(place, lab, &donor);
    place.lets_live(&want).await;
    let key = line_of_key(&donor.machine.shell(READ_KEY));
    place.start(&want).await;
    let ended = place.ended(&want, &donor.machine).await;
    let Ended::Proved(_) = ended else { panic!("refused: {ended:?}; {}", donor.machine.diagnosis()) };
    let Joined { machine, info, uid, .. } = donor;
    let identity = machine.identity;
    let disk = pull_the_cord(lab, machine).await;
    let copy = disk.copy_as("third.img");
    assert_eq!(raw::readable(&copy, std::slice::from_ref(&key)), BTreeSet::new());
    place.take_pod_away(&want).await;
    let again = lab.joined_in_another_boot(lab.boot(identity, disk, lab.for_clones()).await, &info.boot_id).await;
    assert_eq!((&again.uid, &again.info.machine_id), (&uid, &info.machine_id), "itself");
    place.lets_die(&want).await;
    let third = lab.joined(lab.boot(third, copy, lab.for_clones()).await).await;
    is_somebody_new(lab, &third, &again).await;
    never_speaks_for(&lab.cluster.audit().await, &third, &again);
    since(began, "a machine of an image of a machine of an image is somebody new");
    for machine in [third.machine, again.machine] {
        fs::remove_file(pull_the_cord(lab, machine).await.image).expect("its disk");
    }
}

/// What is on the disk at any moment: the way to a new credential, and of the old one all, half or nothing.
async fn comes_back_whenever_the_power_goes(lab: &Lab, place: &Place, mut donor: Joined) {
    let began = Instant::now();
    let identity = donor.machine.identity;
    for half in [true, false] {
        let want = request(place, lab, &donor);
        place.lets_live(&want).await;
        let (key, config) = (donor.machine.shell(READ_KEY), donor.machine.read(CONFIG));
        place.start(&want).await;
        let asked = Instant::now();
        while donor.machine.path(CONFIG).exists() {
            assert!(asked.elapsed() < JOINS, "it was not cleaned; {}", donor.machine.diagnosis());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let Joined { machine, uid, info, node } = donor;
        let disk = pull_the_cord(lab, machine).await;
        if half {
            // Its keys are put aside first.
            fs::write(disk.mount("rw").path().join(CONFIG), config).expect("the old configuration");
        }
        place.take_pod_away(&want).await;
        donor = lab.joined_in_another_boot(lab.boot(identity, disk, lab.for_new_machines()).await, &info.boot_id).await;
        assert_eq!((&donor.uid, &donor.info.machine_id), (&uid, &info.machine_id), "itself");
        assert_eq!(donor.node["spec"], node["spec"]);
        assert_ne!(line_of_key(&donor.machine.shell(READ_KEY)), line_of_key(&key));
        place.lets_die(&want).await;
        since(began, "the power went, and it is back with a new credential");
    }
    pull_the_cord(lab, donor.machine).await;
}

fn request(place: &Place, lab: &Lab, donor: &Joined) -> DonorCleaning {
    DonorCleaning { credential: Credential::Rebootstrap, ..place.request(lab, donor) }
}

/// Whoever has read the token in an image.
async fn holder_of(lab: &Lab, token: &str) -> KubernetesCluster {
    let mut config: Value =
        serde_saphyr::from_str(&fs::read_to_string(lab.cluster.kubeconfig()).expect("the administrator's"))
            .expect("a kubeconfig");
    config["users"][0]["user"] = serde_json::json!({ "token": token });
    let path = lab.cluster.folder.join("holder.kubeconfig");
    fs::write(&path, config.to_string()).expect("the folder can be written");
    KubernetesCluster::connect(&Access::Kubeconfig { path: Some(path), context: None }).await.expect("a kubeconfig")
}
