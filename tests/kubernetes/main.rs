//! The Kubernetes adapter against a real API server, with the rights of the product's own service account and no others.
//!
//! All tests share one cluster and meet nowhere in it: each has namespaces of its own.
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../support/mod.rs"]
mod support;

mod anchors;
mod cleaning;
mod drain;
mod drain_parity;
mod drain_stage;
mod errors;
#[cfg(feature = "sim")]
mod leftovers;
mod nodes;
mod plugin;
mod rights;
mod rivals;
mod stand_in;
mod stop_rights;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::CleaningSpec,
    model::{DiskId, Profile, Region},
};
use support::installed::Installed;

/// What a run would ask for, under names of its own.
fn spec(installed: &Installed) -> CleaningSpec {
    let run = SystemClock.new_run();
    let name = format!("kwf-pool1-{run}");
    CleaningSpec {
        namespace: installed.at.clean_namespace.clone(),
        run,
        disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &[&name]).expect("an id"),
        name,
        region: Region("West Europe".into()),
        zone: Some("1".into()),
        size_gib: 1,
        image: "registry.example/kamino-wf:test".into(),
        at: None,
        profile: Profile::Kubeadm,
        nonce: "8f14e45f".into(),
    }
}

/// A program to run in the place of the cleaner, and an empty disk.
fn cleaner_and_disk(folder: &Path, script: &str) -> (PathBuf, PathBuf) {
    let (cleaner, disk) = (folder.join("cleaner"), folder.join("disk.img"));
    fs::write(&cleaner, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&cleaner, fs::Permissions::from_mode(0o755)).expect("an executable script");
    fs::write(&disk, vec![0; 1 << 20]).expect("a disk");
    (cleaner, disk)
}
