//! `capture: stop`, its story's end: a donor that works is cleaned from inside by our container, switched off and copied; it comes back
//! as itself, and a machine that boots from the copy joins as somebody new.

use std::{collections::BTreeSet, time::Duration};

use kamino_wf::model::{Bootstrap, Profile};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    guest::Disk,
    in_place::{Ended, Place, import_product, pull_the_cord},
    is_somebody_new,
    machine::{Identity, Machine},
    never_speaks_for, plant_beside,
    pool::{Joined, Lab, since},
    raw,
    support::installed::until,
    tenant,
};

/// What a donor keeps, as it is what makes it this node: it is still to be read in a copy that has not booted yet. See docs/cleaning.md.
pub(crate) const IDENTITY: &[&str] = &[
    "PLANT-checkpoint",
    "PLANT-waagent-key",
    "PLANT-waagent-pem",
    "PLANT-extension-settings",
    "PLANT-extension-status",
    "PLANT-kubelet-pki",
    "PLANT-credential-secret",
    "PLANT-dhcp-lease",
];
const GUARD: &str = "usr/local/sbin/kamino-wf-guard";
pub(crate) const RECORD: &str = "var/lib/kamino-wf/donor.json";
pub(crate) const FORMER: &str = "var/lib/kamino-wf/cloned.json";

#[tokio::test]
async fn a_kubeadm_donor_cleaned_in_place_comes_back_and_its_copy_is_somebody_new() {
    let Some(lab) = Lab::new(Profile::Kubeadm).await else { return };
    let donor = Identity { name: "pool-000100", uuid: "21111111-2222-4333-8444-000000000100", address: "10.88.0.150" };
    let clone = Identity { name: "pool-000107", uuid: "21111111-2222-4333-8444-000000000107", address: "10.88.0.157" };
    let copy = the_story(&lab, donor, clone).await;

    // The first three fields of the same machine's UUID, as other firmware shows them.
    let swapped =
        Identity { name: "pool-000100", uuid: "11111121-2222-3343-8444-000000000100", address: "10.88.0.150" };
    // The donor itself is off by now: it is the same machine.
    let machine = lab.boot(swapped, copy.copy_as("swapped.img"), lab.for_new_machines()).await;
    let said = guard_said(&machine).await;
    assert!(said.contains("the donor itself: nothing to do"), "{said}");
    assert!(machine.path(RECORD).exists());
    drop(machine);

    fails_closed_without_its_guard(&lab, &copy).await;
    becomes_somebody_new_whenever_the_power_goes(&lab, copy).await;
}

#[tokio::test]
async fn an_aks_engine_donor_cleaned_in_place_comes_back_and_its_copy_is_somebody_new() {
    let Some(lab) = Lab::new(Profile::AksEngine).await else { return };
    let donor =
        Identity { name: "k8s-pool1-vmss000100", uuid: "65555555-6666-4777-8888-000000000100", address: "10.88.0.160" };
    let clone =
        Identity { name: "k8s-pool1-vmss000107", uuid: "65555555-6666-4777-8888-000000000107", address: "10.88.0.167" };
    the_story(&lab, donor, clone).await;
}

#[tokio::test]
async fn a_donor_whose_cleaner_is_killed_comes_back_as_itself() {
    let Some(lab) = Lab::new(Profile::Kubeadm).await else { return };
    let place = Place::make(&lab).await;
    let identity =
        Identity { name: "pool-000200", uuid: "21111111-2222-4333-8444-000000000200", address: "10.88.0.170" };
    let began = Instant::now();
    let machine = lab.boot(identity, lab.base("killed.img"), lab.for_new_machines()).await;
    let mut donor = lab.joined(machine).await;
    import_product(&donor.machine);
    lab.tenant(&donor.machine).await;
    since(began, "the donor has joined, and a tenant works on it");
    for after in [0, 700, 1600] {
        let want = place.request(&lab, &donor);
        place.start(&want).await;
        // Never blocking for long: what carries the kubelet's words to the API server is on this thread as well.
        let unit = format!("kamino-wf-clean-{}.service", want.run);
        until("the cleaner to run", async || {
            donor.machine.command(&["systemctl", "--quiet", "is-active", &unit]).status().expect("systemctl").success()
        })
        .await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        // It may have ended by now.
        donor.machine.shell(&format!("systemctl kill --signal KILL {unit} || true"));
        place.take_pod_away(&want).await;
        donor = back(&lab, donor).await;
        since(began, &format!("killed {after} ms after its start, the donor is back"));
    }
    // A pod of an earlier boot, or for another machine, touches nothing.
    let tasks = || donor.machine.shell("ctr --namespace k8s.io tasks ls --quiet");
    until("the tenant to work again", async || tasks().lines().count() >= 2).await;
    let containers = tasks();
    let mut want = place.request(&lab, &donor);
    want.boot_id = "00000000-0000-4000-8000-000000000000".into();
    refused(&place, &want, &donor, "its boot id is").await;
    let mut want = place.request(&lab, &donor);
    want.product_uuid = "99999999-2222-4333-8444-000000000200".into();
    refused(&place, &want, &donor, "its product UUID is").await;
    // An upgrade caught half-way: no image is made of that.
    donor.machine.shell("touch /var/lib/dpkg/updates/0001");
    refused(&place, &place.request(&lab, &donor), &donor, "a package upgrade was caught half-way").await;
    donor.machine.shell("rm /var/lib/dpkg/updates/0001; systemctl is-active kubelet containerd");
    for container in containers.lines() {
        assert!(
            donor.machine.shell("ctr --namespace k8s.io tasks ls --quiet").contains(container),
            "{container} is gone"
        );
    }
    let now = lab.node(identity.name).await.expect("its node");
    assert_eq!(now, donor.node, "its Node, but for what changes all the time");
}

async fn refused(place: &Place, want: &kamino_wf::cluster::DonorCleaning, donor: &Joined, reason: &str) {
    place.start(want).await;
    let Ended::Refused(report) = place.ended(want, &donor.machine).await else { panic!("it cleaned") };
    assert_eq!(report["verdict"], "refused", "{report}");
    assert!(report["reason"].as_str().is_some_and(|it| it.contains(reason)), "{report}");
    place.take_pod_away(want).await;
}

/// Gives back a disk that was copied from the donor after its cleaning; the donor is off.
async fn the_story(lab: &Lab, identity: Identity, clone: Identity) -> Disk {
    let began = Instant::now();
    let place = Place::make(lab).await;
    let machine = lab.boot(identity, lab.base("stopped.img"), lab.for_new_machines()).await;
    let donor = lab.joined(machine).await;
    import_product(&donor.machine);
    lab.tenant(&donor.machine).await;
    since(began, "the donor has joined, and a tenant works on it");

    let mut planted = tenant::WORDS.map(str::to_owned).to_vec();
    planted.extend(plant_beside(&donor.machine));
    planted.retain(|word| !IDENTITY.contains(&word.as_str()));
    assert!(planted.len() >= 20, "{planted:?}");
    raw::all_readable(&donor.machine, &planted);

    let want = place.request(lab, &donor);
    place.start(&want).await;
    let ended = place.ended(&want, &donor.machine).await;
    let Ended::Proved(proof) = ended else { panic!("refused: {ended:?}; {}", donor.machine.diagnosis()) };
    is_the_proof(&proof, &want);
    since(began, "its disk is clean");
    assert_eq!(donor.machine.shell("systemctl is-active kubelet containerd || true"), "inactive\ninactive\n");
    let kept = Kept::of(lab, &donor.machine);

    let Joined { machine, uid, info, node } = donor;
    let disk = pull_the_cord(lab, machine).await;
    let copy = disk.copy_as("stopped-copy.img");
    assert_eq!(raw::readable(&copy, &planted), BTreeSet::new(), "readable in the raw disk after cleaning");
    place.take_pod_away(&want).await;
    since(began, "it is off, and its disk is copied");

    let machine = lab.boot(identity, disk, lab.for_new_machines()).await;
    let again = lab.joined_in_another_boot(machine, &info.boot_id).await;
    assert_eq!((&again.uid, &again.info.machine_id), (&uid, &info.machine_id), "itself");
    assert_eq!(again.node["spec"], node["spec"]);
    assert_eq!(Kept::of(lab, &again.machine), kept);
    let said = guard_said(&again.machine).await;
    assert!(said.contains("the donor itself: nothing to do"), "{said}");
    since(began, "the donor is back as itself");

    let machine = lab.boot(clone, copy.copy_as("clone.img"), lab.for_clones()).await;
    let clone = lab.joined(machine).await;
    since(began, "a machine of the copy has joined");
    is_somebody_new(lab, &clone, &again).await;
    assert!(clone.machine.path(FORMER).exists() && !clone.machine.path(RECORD).exists());
    lab.has_cached_images(&clone.machine).await;
    never_speaks_for(&lab.cluster.audit().await, &clone, &again);
    since(began, "and it has never spoken as the donor");
    let disk = pull_the_cord(lab, clone.machine).await;
    std::fs::remove_file(disk.image).expect("the clone's disk");
    pull_the_cord(lab, again.machine).await;
    copy
}

/// Without its cable, and started again: itself, whatever was done to it.
async fn back(lab: &Lab, donor: Joined) -> Joined {
    let identity = donor.machine.identity;
    let kept = Kept::of(lab, &donor.machine);
    let Joined { machine, uid, info, node } = donor;
    let disk = pull_the_cord(lab, machine).await;
    let machine = lab.boot(identity, disk, lab.for_new_machines()).await;
    let again = lab.joined_in_another_boot(machine, &info.boot_id).await;
    assert_eq!((&again.uid, &again.info.machine_id), (&uid, &info.machine_id), "itself");
    assert_eq!(again.node["spec"], node["spec"]);
    assert_eq!(Kept::of(lab, &again.machine), kept);
    again
}

/// A copy that has lost its guard must not come up as the donor.
async fn fails_closed_without_its_guard(lab: &Lab, copy: &Disk) {
    let disk = copy.copy_as("unguarded.img");
    std::fs::remove_file(disk.mount("rw").path().join(GUARD)).expect("the guard was there");
    let identity =
        Identity { name: "pool-000108", uuid: "21111111-2222-4333-8444-000000000108", address: "10.88.0.158" };
    let machine = lab.boot(identity, disk, lab.for_clones()).await;
    let state = machine.settled().await;
    assert_eq!(state, "degraded", "{}", machine.diagnosis());
    let states = machine.shell("systemctl is-active kamino-wf-guard kubelet cloud-init-local || true");
    assert_eq!(states, "failed\ninactive\ninactive\n");
    let audit = lab.cluster.audit().await;
    assert!(audit.iter().all(|entry| entry.from != identity.address), "it spoke to the API server");
    std::fs::remove_file(pull_the_cord(lab, machine).await.image).expect("its disk");
}

async fn becomes_somebody_new_whenever_the_power_goes(lab: &Lab, mut disk: Disk) {
    let began = Instant::now();
    let identity =
        Identity { name: "pool-000109", uuid: "21111111-2222-4333-8444-000000000109", address: "10.88.0.159" };
    for after in [100, 200, 300, 500] {
        let machine = lab.boot(identity, disk, lab.for_clones()).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        let done = !machine.path(RECORD).exists();
        disk = pull_the_cord(lab, machine).await;
        since(began, &format!("the power went {after} ms after its start; somebody new by then: {done}"));
    }
    let machine = lab.joined(lab.boot(identity, disk, lab.for_clones()).await).await.machine;
    assert!(machine.path(FORMER).exists() && !machine.path(RECORD).exists());
    assert_eq!(machine.shell("hostname; cat /etc/hostname"), format!("{0}\n{0}\n", identity.name));
    let mut speaks = lab.cluster.audit().await;
    speaks.retain(|entry| entry.from == identity.address && entry.user.starts_with("system:node:"));
    assert!(!speaks.is_empty(), "control: the log does not tell who asks");
    let own = format!("system:node:{}", identity.name);
    assert!(speaks.iter().all(|entry| entry.user == own), "{speaks:?}");
}

pub(crate) fn is_the_proof(proof: &Value, want: &kamino_wf::cluster::DonorCleaning) {
    assert_eq!(proof["verdict"], "clean", "{proof}");
    for (field, value) in [("nonce", &want.nonce), ("bootId", &want.boot_id), ("nodeUid", &want.node_uid)] {
        assert_eq!(proof[field], value.as_str(), "{field}: {proof}");
    }
    let report = &proof["report"];
    assert_eq!(report["discard"], "honoured", "{report}");
    assert!(report["containers"].as_u64() >= Some(2) && report["images"].as_u64() >= Some(2), "{report}");
}

/// What makes a machine the node that it is.
#[derive(Debug, PartialEq, Eq)]
struct Kept(Vec<String>);

impl Kept {
    fn of(lab: &Lab, machine: &Machine) -> Self {
        let paths =
            ["etc/machine-id", "etc/hostname", "etc/ssh/ssh_host_ed25519_key", "var/lib/cloud/data/instance-id"];
        let mut kept: Vec<String> = paths.iter().map(|path| machine.read(path)).collect();
        kept.push(match lab.profile.bootstrap() {
            Bootstrap::Model => {
                machine.shell("cat /var/lib/kubelet/pki/kubelet-client-current.pem; cat /etc/kubernetes/kubelet.conf")
            }
            // Written by a script of the user's, once.
            Bootstrap::Disk => machine
                .shell("stat --format %y /opt/azure/containers/provision.complete; cat /etc/kubernetes/azure.json"),
        });
        kept.push(machine.shell("ip -4 -oneline address show dev eth0 | tr --squeeze-repeats ' ' | cut -d ' ' -f 4"));
        Self(kept)
    }
}

/// What the guard said at this boot.
pub(crate) async fn guard_said(machine: &Machine) -> String {
    machine.settled().await;
    machine.shell("journalctl --no-pager --boot --unit kamino-wf-guard.service")
}
