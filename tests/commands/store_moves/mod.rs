//! What an operator does with a whole store, and what happens to it meanwhile: exports, imports, compaction, quarantine, a
//! full disk; with the real binary, killed.

mod compaction;
mod exports;
mod full_disk;
mod kills;
mod quarantine;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::binary::Binary;
use kamino_wf::{
    clock::{Clock as _, SystemClock},
    store::{CheckReport, Fence, Holder, Journal, NewRecord, Revision, StoreGuard, check_dir, open_dir},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// A folder with settings that name a store, and the binary.
struct Desk {
    folder: TempDir,
    binary: Binary,
}

impl Desk {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut settings = json!({ "store": folder.path().join("store") });
        change(&mut settings);
        let config = folder.path().join("config.yaml");
        fs::write(&config, settings.to_string()).expect("a settings file");
        let binary = Binary::new(folder.path(), &config);
        Self { folder, binary }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.at("store")
    }

    /// The store of a directory that is not the settings' own.
    fn on(&self, store: &Path) -> Binary {
        self.binary.with("KAMINO_STORE", store.to_str().expect("a plain name"))
    }
}

fn holder() -> Holder {
    Holder { pid: std::process::id(), since: SystemClock.now(), socket: None, release: "1.2.3".into() }
}

fn run_id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

/// A store at work, for the time of `body`; on a thread of its own, since a test may be within a runtime.
fn opened<T: Send>(dir: &Path, body: impl AsyncFnOnce(&Journal) -> T + Send) -> T {
    let work = || {
        let (journal, guard): (Journal, StoreGuard) = open_dir(dir, &holder()).expect("it opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let result = runtime.block_on(body(&journal));
        drop(journal);
        guard.close().expect("nothing failed");
        result
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("the store works"))
}

async fn append(journal: &Journal, run: Uuid, revision: u64, payload: Value) {
    let record = NewRecord { kind: "asked", payload };
    let summary = json!({ "step": revision + 1, "why": "süß" });
    journal.commit(run, Revision(revision), Fence(7), vec![record], summary).await.expect("nothing fails");
}

/// Numbers that need not come out as they went in: `serde_json` reads these quickly, and not quite.
const SHARES: [f64; 4] = [0.1, 1.0 / 3.0, 2.225_073_858_507_201e-308, 123_456_789.123_456_79];

/// A store of some runs, some of whose payloads are awkward.
fn filled(dir: &Path, runs: u128, records: u64) {
    opened(dir, async |journal| {
        for revision in 0..records {
            for run in (0..runs).map(run_id) {
                let payload = json!({ "n": revision, "filling": "x".repeat(300), "share": SHARES[usize::try_from(revision).expect("a few") % SHARES.len()] });
                append(journal, run, revision, payload).await;
            }
        }
        let facts = vec![("throttled/a".into(), Some(json!({ "until": 5 }))), ("serial".into(), Some(json!(41)))];
        journal.put_facts(Fence(7), facts).await.expect("nothing fails");
    });
}

/// Everything that the store says of itself, but what it takes on disk.
fn sum(dir: &Path) -> CheckReport {
    let mut report = check_dir(dir).expect("the store is sound");
    report.file_bytes = 0;
    report.mark = None;
    report
}

/// A run, how many records it has, and the end of the chain through them.
type History = (Uuid, u64, [u8; 32]);

/// All runs with their digests, and all facts: equal for equal histories.
fn histories(dir: &Path) -> (Vec<History>, Vec<(String, Value)>) {
    opened(dir, async |journal| {
        let heads = journal.heads().await.expect("it reads");
        let heads = heads.into_iter().map(|head| (head.run, head.revision.0, head.digest)).collect();
        (heads, journal.facts("").await.expect("it reads"))
    })
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("it reads") {
        let entry = entry.expect("it reads");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("it copies");
        }
    }
}

/// Nothing but what belongs to a store lies there.
fn assert_tidy(dir: &Path) {
    for entry in fs::read_dir(dir).expect("it reads") {
        let name = entry.expect("it reads").file_name().to_string_lossy().into_owned();
        assert!(["LOCK", "db", "mark", "ballast"].contains(&name.as_str()), "{name} was left in {}", dir.display());
    }
}
