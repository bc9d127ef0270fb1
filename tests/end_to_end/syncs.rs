//! Seen from outside: whatever the binary tells anybody, what it has written to its store is on the disk by then.

use std::{fs, path::Path};

use crate::{
    START,
    strace::{self, Call},
    support::{
        binary::Running,
        cluster::shared,
        world::{Plan, Site},
    },
};

/// Anything that leaves the process: to Azure and the API server, and to the person who watches.
fn tells_somebody(call: &Call) -> bool {
    let sends = matches!(call.name.as_str(), "write" | "writev" | "sendto" | "sendmsg");
    sends && ["socket:", "TCP:", "pipe:"].iter().any(|kind| call.file.starts_with(kind))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_to_anybody_before_the_store_is_on_the_disk() {
    let Some(cluster) = shared() else { return };
    if !strace::available() {
        return;
    }
    let site = Site::new(cluster, Plan::default()).await;
    let log = site.folder.path().join("strace.log");
    let ended = Running::spawn(strace::traced(&site.binary.plain_command(START), &log)).ended().await;
    ended.assert(0, &["done: new nodes are made from the new image"]);

    let text = fs::read_to_string(&log).expect("strace wrote its log");
    let store = site.store.canonicalize().expect("it is there");
    for file in ["db/db", "mark"] {
        let file = store.join(file);
        let (writes, acks, violations) = judged(&text, &file);
        eprintln!(
            "{}: {writes} writes, {acks} times somebody was told, {} too early",
            file.display(),
            violations.len()
        );
        assert!(writes > 40, "{writes} writes to {}: has the file another name?", file.display());
        assert!(acks > 100, "only {acks} times was somebody told: are sockets called otherwise?");
        assert!(violations.is_empty(), "{}: {:#?}", file.display(), violations.first());

        // The check can fail: the same trace without the syncs of this file.
        let name = format!("<{}>", file.display());
        let doctored: Vec<&str> =
            text.lines().filter(|line| !(line.contains("sync(") && line.contains(&name))).collect();
        assert!(doctored.len() < text.lines().count(), "there were syncs to take out");
        let (_, _, violations) = judged(&doctored.join("\n"), &file);
        assert!(violations.len() > 100, "the check does not see that {} was never synced", file.display());
    }
}

fn judged(text: &str, file: &Path) -> (usize, usize, Vec<strace::Violation>) {
    let calls = strace::parse(text);
    let writes = calls.iter().filter(|call| call.writes() && Path::new(&call.file) == file).count();
    let acks = calls.iter().filter(|call| tells_somebody(call)).count();
    (writes, acks, strace::unsynced_acks(&calls, file, tells_somebody))
}
