//! The real binary, as users start it, against Azure's loopback face, a real API server and a kubelet that runs the real cleaner.
//!
//! All tests share one cluster and its nodes; each has a world, an installation and a store of its own. Needs root, loop
//! devices and the binaries of `scripts/cluster-binaries`; says `SKIPPED:` where they are missing, and fails there in CI.
#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../cleaner/guest.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod guest;
#[path = "../cleaner/plant.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod plant;
#[path = "../support/strace.rs"]
#[expect(dead_code, reason = "the store's own tests use the rest")]
mod strace;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/trial.rs"]
mod trial;

mod attached;
mod control;
mod doctor;
mod full_disk;
mod images;
mod kills;
mod plan;
mod refusals;
mod rescue;
mod restore;
mod serve;
mod syncs;
mod throttle;
mod update;

use serde_json::Value;
use support::{binary::Ended, world::Site};

/// What users type, and type again after a kill.
const START: &[&str] = &["start", "--pool", "pool1", "--adopt", "--wait"];

/// The run that `start` names first on its stdout, as `describe` sees it.
async fn described(site: &Site, started: &Ended) -> Value {
    let run = started.stdout.lines().next().expect("the run's id").to_owned();
    let ended = site.binary.run(&["describe", &run, "-o", "json"]).await;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    ended.json()
}
