//! The story's end, on machines that boot: a Debian node with cloud-init, the Azure agent, containerd and a kubelet joins a real
//! control plane and works; its disk is copied while it does; our cleaner cleans the copy; a machine that boots from it joins as
//! somebody new, and the donor has not noticed.
//!
//! Needs root, loop devices, Debian's systemd-container, containerd, runc and CNI plugins, and what `scripts/cluster-binaries` and
//! `scripts/guest-root` make; says `SKIPPED:` where something is missing, and fails there in CI.
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../cleaner/guest.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod guest;
#[path = "../cleaner/plant.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod plant;
#[path = "../support/mod.rs"]
mod support;

mod aks_engine;
mod in_place;
mod kubeadm;
mod kubelet;
mod machine;
mod pool;
mod raw;
mod renewed;
mod seed;
mod stop;
mod tenant;

use std::{collections::BTreeSet, fs};

use kamino_wf::{cluster::PodPhase, model::Profile};
use machine::{Identity, Machine};
use pool::{Joined, Lab, since};
use support::{cluster::AuditEntry, node::servers::NODE};
use tokio::time::Instant;

#[tokio::test]
async fn a_machine_of_a_kubeadm_pools_image_joins_as_somebody_new() {
    let Some(lab) = Lab::new(Profile::Kubeadm).await else { return };
    let donor = Identity { name: "pool-000000", uuid: "11111111-2222-4333-8444-000000000000", address: "10.88.0.130" };
    let clone = Identity { name: "pool-000007", uuid: "11111111-2222-4333-8444-000000000007", address: "10.88.0.137" };
    let donor = the_story(&lab, donor, clone).await;

    // Control: without the cleaner, it is not somebody new. It has the donor's machine id and speaks with the donor's certificate.
    let impostor =
        Identity { name: "pool-000009", uuid: "11111111-2222-4333-8444-000000000009", address: "10.88.0.139" };
    let began = Instant::now();
    let uncleaned = donor.machine.snapshot("uncleaned.img");
    let impostor = lab.boot(impostor, uncleaned, lab.for_clones()).await;
    let user = format!("system:node:{}", donor.machine.identity.name);
    let refused =
        |entry: &AuditEntry| entry.from == impostor.identity.address && entry.user == user && entry.code == 403;
    while !lab.cluster.audit().await.iter().any(refused) {
        assert!(began.elapsed() < pool::JOINS, "it does not even speak as the donor: {}", impostor.diagnosis());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert!(lab.node(impostor.identity.name).await.is_none(), "it joined");
    assert_eq!(impostor.read("etc/machine-id"), donor.machine.read("etc/machine-id"));
    since(began, "an uncleaned copy was refused");
}

#[tokio::test]
async fn a_machine_of_an_aks_engine_pools_image_joins_as_somebody_new() {
    let Some(lab) = Lab::new(Profile::AksEngine).await else { return };
    let donor =
        Identity { name: "k8s-pool1-vmss000000", uuid: "55555555-6666-4777-8888-000000000000", address: "10.88.0.140" };
    let clone =
        Identity { name: "k8s-pool1-vmss000007", uuid: "55555555-6666-4777-8888-000000000007", address: "10.88.0.147" };
    the_story(&lab, donor, clone).await;
}

/// Gives back the donor, which still works.
async fn the_story(lab: &Lab, donor: Identity, clone: Identity) -> Joined {
    let began = Instant::now();
    let machine = lab.boot(donor, lab.base("donor.img"), lab.for_new_machines()).await;
    let donor = lab.joined(machine).await;
    since(began, "the donor has joined");
    let tenant = lab.tenant(&donor.machine).await;
    since(began, "a tenant works on it");

    let mut planted = tenant::WORDS.map(str::to_owned).to_vec();
    planted.extend(plant_beside(&donor.machine));
    planted.extend(lab.secrets(&donor.machine));
    let copy = donor.machine.snapshot("copy.img");
    let missing: BTreeSet<&str> = planted.iter().map(String::as_str).collect();
    let missing: Vec<_> = missing.difference(&raw::readable(&copy, &planted)).copied().collect();
    assert!(missing.is_empty(), "control: not readable before cleaning: {missing:?}");
    since(began, "its disk is copied");

    let (ended, report) = lab.cluster.clean_by_pod(&copy.image, lab.profile.clone()).await;
    assert_eq!((&ended.phase, &report["verdict"]), (&PodPhase::Succeeded, &"clean".into()), "{ended:?}");
    assert_eq!(ended.node.as_deref(), Some(NODE), "in a container of the control plane's own node");
    assert_eq!(raw::readable(&copy, &planted), BTreeSet::new(), "readable in the raw disk after cleaning");
    since(began, "the copy is clean");

    let clone = lab.joined(lab.boot(clone, copy, lab.for_clones()).await).await;
    since(began, "a machine of it has joined");
    is_somebody_new(lab, &clone, &donor).await;
    lab.has_cached_images(&clone.machine).await;
    since(began, "and runs a pod of the cached image");

    let audit = lab.cluster.audit().await;
    never_speaks_for(&audit, &clone, &donor);
    has_noticed_nothing(lab, &donor, &tenant).await;
    since(began, "the donor has noticed nothing");
    // Off before what its disk lies on goes, and so that disks need no more room than they must.
    let disk = clone.machine.disk.image.clone();
    drop(clone);
    fs::remove_file(disk).expect("the clone's disk");
    donor
}

/// What others would have left on the disk by now, where the node itself has left nothing.
fn plant_beside(machine: &Machine) -> Vec<String> {
    let root = machine.path("");
    let mut words = Vec::new();
    for (name, path) in plant::FILES {
        // The agent waits for this file, and would take it for Azure's.
        if fs::symlink_metadata(root.join(path)).is_err() && *name != "ovf-env" {
            plant::write(&root, path, &plant::lines(name));
            words.push(format!("PLANT-{name}"));
        }
    }
    assert!(words.len() >= 20, "{words:?}");
    // Deleted before the copy is made.
    plant::write(&root, "root/deleted", &plant::lines("deleted-file"));
    machine.shell("sync /root/deleted; rm /root/deleted");
    words.push("PLANT-deleted-file".to_owned());
    words
}

async fn is_somebody_new(lab: &Lab, clone: &Joined, donor: &Joined) {
    assert_ne!(clone.uid, donor.uid);
    assert_ne!(clone.info.boot_id, donor.info.boot_id);
    assert_ne!(clone.info.machine_id, donor.info.machine_id);
    for joined in [clone, donor] {
        let identity = joined.machine.identity;
        assert_eq!(joined.info.system_uuid, identity.uuid, "as the platform says");
        assert_eq!(joined.machine.read("etc/machine-id").trim(), joined.info.machine_id);
        assert_eq!(joined.machine.shell("hostname; cat /etc/hostname"), format!("{0}\n{0}\n", identity.name));
        assert_eq!(joined.machine.read("var/lib/cloud/data/instance-id").trim(), identity.uuid);
    }
    let key = "etc/ssh/ssh_host_ed25519_key.pub";
    assert_ne!(clone.machine.read(key), donor.machine.read(key));
    assert_eq!(clone.machine.shell("ctr --namespace k8s.io containers ls --quiet"), "", "containers of the donor");
    lab.has_credentials_of_its_own(&clone.machine, &donor.machine).await;
}

/// By all that the API server was asked: the clone asked for nothing of the donor's, and nobody but the donor did as the donor.
fn never_speaks_for(audit: &[AuditEntry], clone: &Joined, donor: &Joined) {
    let (name, address) = (donor.machine.identity.name, donor.machine.identity.address);
    let user = format!("system:node:{name}");
    let of_clone: Vec<_> = audit.iter().filter(|entry| entry.from == clone.machine.identity.address).collect();
    assert!(of_clone.len() > 10, "the log does not tell who asks: {of_clone:?}");
    for entry in of_clone {
        assert_ne!(entry.user, user, "{entry:?}");
        assert!(!entry.name.contains(name) && !entry.uri.contains(name), "{entry:?}");
    }
    assert!(audit.iter().any(|entry| entry.from == address && entry.uri.contains(name)), "control");
    assert!(audit.iter().all(|entry| entry.user != user || entry.from == address));
}

async fn has_noticed_nothing(lab: &Lab, donor: &Joined, tenant: &tenant::Seen) {
    let now = lab.node(donor.machine.identity.name).await.expect("the donor's node");
    assert_eq!(now, donor.node, "its Node, but for what changes all the time");
    assert_eq!(donor.machine.read("proc/sys/kernel/random/boot_id").trim(), donor.info.boot_id);
    let later = tenant::working(&lab.client().await, tenant).await;
    assert_eq!((&later.uid, &later.container), (&tenant.uid, &tenant.container), "the very same container");
    assert_eq!(later.restarts, 0);
    let lines =
        || donor.machine.shell("cat /var/log/pods/*/tenant/0.log | wc -l").trim().parse::<u64>().expect("a number");
    let before = lines();
    let began = Instant::now();
    while lines() <= before {
        assert!(began.elapsed() < pool::JOINS, "the tenant works no more");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
