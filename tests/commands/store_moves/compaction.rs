//! Room comes back, and nothing else changes.

use std::{fs, path::Path};

use kamino_wf::store::{Fence, Place, StoreError, compact_dir};
use serde_json::json;

use super::{
    Desk, assert_tidy, filled, full_disk::Volume, full_disk::in_own_namespace, histories, holder, opened, sum,
};
use crate::strace;

/// Facts that come and go: nothing in this file counts any more.
fn churn(dir: &Path, times: u32) {
    opened(dir, async |journal| {
        for n in 0..times {
            let facts = (0..40).map(|key| (format!("fact/{key}"), Some(json!(format!("{n}{}", "y".repeat(3900))))));
            journal.put_facts(Fence(7), facts.collect()).await.expect("nothing fails");
        }
        let gone = (0..40).map(|key| (format!("fact/{key}"), None));
        journal.put_facts(Fence(7), gone.collect()).await.expect("nothing fails");
    });
}

#[tokio::test]
async fn the_room_of_what_is_gone_comes_back_and_nothing_else_changes() {
    let desk = Desk::new();
    filled(&desk.store(), 5, 4);
    churn(&desk.store(), 120);
    let (before, histories_before) = (sum(&desk.store()), histories(&desk.store()));
    let report = desk.binary.run(&["store", "compact", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(report["kind"], "StoreCompaction", "{report}");
    let bytes = |name: &str| report[name].as_u64().expect("a number");
    // How much of it sled had used again by itself is chance; the file has whole segments.
    assert!(bytes("after_bytes") * 2 <= bytes("before_bytes"), "{report}");
    assert_tidy(&desk.store());
    assert_eq!(sum(&desk.store()), before);
    assert_eq!(histories(&desk.store()), histories_before);
    desk.binary.run(&["store", "compact"]).await.assert(0, &["5 runs, 20 records"]);
}

#[tokio::test]
async fn what_is_no_store_is_not_compacted() {
    let desk = Desk::new();
    desk.binary.run(&["store", "compact"]).await.assert(1, &["there is no database in it", "KW0110"]);
    assert!(!desk.store().exists(), "one was made");
}

/// Whoever has no room for two is told how much it takes, and nothing is begun.
#[test]
fn without_room_for_a_second_one_nothing_is_begun() {
    if !in_own_namespace("store_moves::compaction::without_room_for_a_second_one_nothing_is_begun") {
        return;
    }
    let volume = Volume::mount(64);
    let store = volume.path().join("store");
    filled(&store, 3, 3);
    volume.fill_but(2 << 20);
    let error = compact_dir(&Place::from(&store), &holder()).expect_err("there is no room");
    assert!(matches!(error, StoreError::NoRoom { .. } | StoreError::Full), "{error}");
    volume.empty();
    assert_eq!(sum(&store).runs, 3);
    compact_dir(&Place::from(&store), &holder()).expect("there is room again");
}

/// The order of system calls is what a power cut sees: what takes the place of a store is on disk before it does.
#[test]
fn nothing_takes_the_place_of_a_store_before_the_disk_has_it() {
    if !strace::available() {
        return;
    }
    let desk = Desk::new();
    filled(&desk.store(), 3, 3);
    let (store, log) = (desk.store(), desk.at("log"));
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "200", "-o"]).arg(&log).args(["-e"]);
    command
        .arg("trace=write,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir");
    command.arg("--").arg(crate::support::binary::PRODUCT).args(["store", "compact", "--store"]).arg(&store);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", desk.folder.path());
    assert!(command.status().expect("strace runs").success());
    let calls = strace::parse(&fs::read_to_string(&log).expect("strace wrote its log"));
    let name = |path: &Path| path.display().to_string();
    let rename = |from: &str, to: &str| {
        let (from, to) = (format!("\"{}\"", name(&store.join(from))), format!("\"{}\"", name(&store.join(to))));
        let found = calls
            .iter()
            .find(|it| it.name.starts_with("rename") && it.arguments.contains(&from) && it.arguments.contains(&to));
        found.unwrap_or_else(|| panic!("no rename of {from} to {to}"))
    };
    let (ready, away, in_place) = (rename("new", "ready"), rename("db", "old"), rename("ready/db", "db"));
    // What was built is durable before it is called ready.
    for file in ["new/db/db", "new/db/conf", "new/mark", "new/over"] {
        let file = name(&store.join(file));
        let ours: Vec<_> = calls.iter().filter(|it| it.file == file && it.began < ready.began).collect();
        let newest = ours.iter().filter(|it| it.writes()).map(|it| it.began).max().expect("it was written");
        let synced = ours.iter().any(|it| it.syncs() && it.began > newest);
        assert!(synced, "{file} was not on disk when it was called ready");
    }
    // Each name is durable before the next changes, and the old one goes last.
    let synced_between = |from: usize, to: usize| {
        calls.iter().any(|it| it.syncs() && it.file == name(&store) && it.began > from && it.ended < Some(to))
    };
    assert!(synced_between(ready.began, away.began), "ready was not durable when the old one was moved");
    assert!(synced_between(away.began, in_place.began), "the old one's new name was not durable");
    let removed = |it: &&strace::Call| it.name.starts_with("unlink") && it.arguments.contains("old");
    let removal = calls
        .iter()
        .find(|it| it.name.starts_with("unlink") && it.arguments.contains("\"db\"") && it.began > in_place.began);
    let removal = removal.or_else(|| calls.iter().filter(|it| it.began > in_place.began).find(removed));
    let removal = removal.expect("the old one is removed");
    assert!(synced_between(in_place.began, removal.began), "the old one went before the new one's name was durable");
}
