//! What an operator would notice of the store: kills, power, full disks, damage, two processes.
//!
//! The real sled on a real file system. Whoever must be killed is this very binary, started again as `helper`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper may panic; clippy only knows #[test] functions"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use kamino_wf::store::{
    Batch, ByteTree, Entry, Fence, Holder, Journal, NewRecord, Revision, StoreError, StoreGuard, TreeError, Visitor,
    check_dir, open_dir,
};
use serde_json::{Value, json};
use uuid::Uuid;

#[path = "support/strace.rs"]
mod strace;

/// Newest acknowledged revision of each run.
type Acked = BTreeMap<Uuid, u64>;

fn holder() -> Holder {
    Holder {
        pid: std::process::id(),
        since: jiff::Timestamp::UNIX_EPOCH,
        socket: Some("/run/kamino-wf.sock".into()),
        release: "1.2.3".into(),
    }
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn run_id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

/// Known from run and sequence alone, so that whoever reads it back can tell.
fn payload(run: Uuid, seq: u64, bytes: usize) -> Value {
    json!({ "run": run, "seq": seq, "filling": "x".repeat(bytes) })
}

async fn append(journal: &Journal, run: Uuid, revision: u64, bytes: usize) -> Result<u64, StoreError> {
    let record = NewRecord { kind: "asked", payload: payload(run, revision + 1, bytes) };
    let summary = json!({ "step": revision + 1 });
    journal.commit(run, Revision(revision), Fence(1), vec![record], summary).await.map(|revision| revision.0)
}

/// Every acknowledged record is there, and right. More may be there: a kill between sync and acknowledgement.
async fn assert_all_there(journal: &Journal, acked: &Acked) {
    for (run, newest) in acked {
        let (head, records) =
            journal.load(*run).await.expect("it reads").unwrap_or_else(|| panic!("run {run} is gone"));
        assert!(head.revision.0 >= *newest, "run {run}: {newest} acknowledged, {} there", head.revision);
        assert_eq!(records.len() as u64, head.revision.0);
        for (record, seq) in records.iter().zip(1..) {
            assert_eq!((record.seq, record.kind.as_str()), (seq, "asked"));
            assert_eq!((&record.payload["run"], &record.payload["seq"]), (&json!(run), &json!(seq)));
        }
    }
}

fn close(journal: Journal, guard: StoreGuard) {
    drop(journal);
    guard.close().expect("nothing failed");
}

/// A store of `runs` runs with `records` records each, closed.
fn filled(dir: &Path, runs: u128, records: u64) -> Acked {
    let (journal, guard) = open_dir(dir, &holder()).expect("a new store");
    let acked = block_on(async {
        let mut acked = Acked::new();
        for revision in 0..records {
            for run in (0..runs).map(run_id) {
                acked.insert(run, append(&journal, run, revision, 200).await.expect("nothing fails"));
            }
        }
        journal.put_facts(Fence(1), vec![("serial".into(), Some(json!(7)))]).await.expect("nothing fails");
        acked
    });
    close(journal, guard);
    acked
}

// The helper process.

const DIR: &str = "KAMINO_WF_TEST_STORE";
const MODE: &str = "KAMINO_WF_TEST_MODE";

fn helper_command(dir: &Path, mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(["--ignored", "--exact", "--nocapture", "helper"]).env(DIR, dir).env(MODE, mode);
    command
}

/// One line, one system call.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

#[test]
#[ignore = "not a test: the process that other tests start, trace and kill"]
fn helper() {
    let (Some(dir), Ok(mode)) = (std::env::var_os(DIR).map(PathBuf::from), std::env::var(MODE)) else { return };
    match mode.as_str() {
        "until-killed" => {
            let (journal, _guard) = open_dir(&dir, &holder()).expect("the store opens after every kill");
            say("OPEN");
            block_on(futures_util::future::join_all((0..6).map(|n| commit_for_ever(&journal, run_id(n)))));
        }
        "twenty-commits" => {
            let (journal, guard) = open_dir(&dir, &holder()).expect("a new store");
            block_on(twenty_commits(&journal));
            close(journal, guard);
        }
        "until-poisoned" => {
            let (journal, guard) = open_dir(&dir, &holder()).expect("faults come later");
            block_on(tries(&journal));
            drop(journal);
            let error = guard.close().expect_err("whoever waits for the committer learns of it");
            say(&format!("END {}", error.code()));
        }
        "twenty-commits-plain-sled" => {
            let (journal, committer) = Journal::open(Box::new(PlainSled::open(&dir)), run_id(0))
                .expect("plain sled works, until the power fails");
            let commits = async move { twenty_commits(&journal).await };
            let ended = block_on(async { tokio::join!(commits, committer.run()).1 });
            ended.expect("nothing failed");
        }
        other => panic!("no such mode: {other}"),
    }
}

async fn commit_for_ever(journal: &Journal, run: Uuid) {
    let mut revision = journal.load(run).await.expect("it reads").map_or(0, |(head, _)| head.revision.0);
    loop {
        // Every seventh is large enough to be cut into chunks.
        let bytes = if revision % 7 == 6 { 9000 } else { 300 };
        revision = append(journal, run, revision, bytes).await.expect("nothing fails");
        say(&format!("ACK {run} {revision}"));
    }
}

async fn twenty_commits(journal: &Journal) {
    for revision in 0..20 {
        append(journal, run_id(1), revision, 300).await.expect("nothing fails");
        say(&format!("ACK {revision}"));
    }
}

/// strace counts in each thread, and sled writes from several: so many that one of them gets to the fault.
const TRIES: u64 = 200;

/// Goes on after errors, as nobody should.
async fn tries(journal: &Journal) {
    let run = run_id(1);
    for revision in 0..TRIES {
        match append(journal, run, revision, 300).await {
            Ok(revision) => say(&format!("ACK {run} {revision}")),
            Err(error) => say(&format!("ERR {}", error.code())),
        }
    }
}

// Kills.

/// Reads until the pipe closes: what was written before the kill is in it.
fn acks_of(child: &mut Child) -> (mpsc::Receiver<()>, std::thread::JoinHandle<Acked>) {
    let out = child.stdout.take().expect("it is piped");
    let (tell, opened) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acked = Acked::new();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if line == "OPEN" {
                // Not everybody waits for it.
                let _ = tell.send(());
            }
            let mut words = line.split(' ');
            if let (Some("ACK"), Some(run), Some(revision)) = (words.next(), words.next(), words.next())
                && let (Ok(run), Ok(revision)) = (run.parse(), revision.parse())
            {
                acked.insert(run, revision);
            }
        }
        acked
    });
    (opened, reader)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a process lives before it is killed is what is varied")]
fn no_acknowledged_record_is_lost_by_kill_9() {
    const KILLS: u64 = 40;
    let root = temporary();
    let dir = root.path().join("store");
    let mut chance = fastrand::Rng::with_seed(1);
    let (mut all, mut during_open) = (Acked::new(), 0);
    for kill in 0..KILLS {
        let mut command = helper_command(&dir, "until-killed");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("this binary starts");
        let (opened, reader) = acks_of(&mut child);
        if kill % 3 == 0 {
            std::thread::sleep(Duration::from_millis(chance.u64(1..60)));
            during_open += u64::from(opened.try_recv().is_err());
        } else {
            opened.recv_timeout(Duration::from_mins(1)).expect("the store opens after every kill");
            std::thread::sleep(Duration::from_millis(chance.u64(1..150)));
        }
        child.kill().expect("it is ours");
        // Not waited for before the next one opens: that one must bear with a lock that a dying process still holds.
        all.extend(reader.join().expect("the reader does not panic"));
        if kill % 4 == 3 {
            let (journal, guard) = open_dir(&dir, &holder()).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
            block_on(assert_all_there(&journal, &all));
            close(journal, guard);
        }
        child.wait().expect("it was killed");
    }
    let report = check_dir(&dir).expect("the store is sound");
    let acked: u64 = all.values().sum();
    eprintln!("{KILLS} kills, {during_open} before the store was open, {acked} records acknowledged, {report:?}");
    assert!(during_open >= KILLS / 8, "only {during_open} of {KILLS} kills hit the opening");
    assert!(acked > KILLS, "only {acked} records were acknowledged");
    assert!(report.records >= acked);
}

// Power.

fn is_ack(call: &strace::Call) -> bool {
    call.name == "write" && call.arguments.contains("\"ACK ")
}

fn trace(dir: &Path, mode: &str, log: &Path) -> Vec<strace::Call> {
    let status = strace::traced(&helper_command(dir, mode), log).stdout(Stdio::null()).status().expect("strace runs");
    assert!(status.success(), "{mode}: {status}");
    strace::parse(&fs::read_to_string(log).expect("strace wrote its log"))
}

#[test]
fn nothing_is_acknowledged_before_the_disk_has_it() {
    if !strace::available() {
        return;
    }
    let root = temporary();
    let root = root.path().canonicalize().expect("it is there");
    let dir = root.join("store");
    let calls = trace(&dir, "twenty-commits", &root.join("log"));
    assert_eq!(calls.iter().filter(|call| is_ack(call)).count(), 20, "every acknowledgement was seen");
    for file in ["db/db", "mark"].map(|name| dir.join(name)) {
        let writes = calls.iter().filter(|call| call.writes() && Path::new(&call.file) == file).count();
        assert!(writes >= 20, "{writes} writes to {} for 20 commits: has the file another name?", file.display());
        let violations = strace::unsynced_acks(&calls, &file, is_ack);
        assert!(violations.is_empty(), "{}: {:#?}", file.display(), violations.first());
    }
    let mark_after_data = |ack: &strace::Call| ack.writes() && Path::new(&ack.file) == dir.join("mark");
    let violations = strace::unsynced_acks(&calls, &dir.join("db/db"), mark_after_data);
    assert!(violations.is_empty(), "the mark was raised before the data was durable: {:#?}", violations.first());
    for name in [dir.join("db/conf"), dir.join("db"), dir.clone(), root.clone()] {
        let synced = calls.iter().any(|call| call.syncs() && Path::new(&call.file) == name);
        assert!(synced, "{} was never synced, so a power cut can take its names", name.display());
    }
}

/// The guard above must be able to fail: sled as its documentation shows it does.
#[test]
fn the_order_check_catches_plain_sled() {
    if !strace::available() {
        return;
    }
    let root = temporary();
    let root = root.path().canonicalize().expect("it is there");
    let dir = root.join("store");
    let calls = trace(&dir, "twenty-commits-plain-sled", &root.join("log"));
    let violations = strace::unsynced_acks(&calls, &dir.join("db"), is_ack);
    assert_eq!(violations.len(), 20, "sled has learned to sync? then say so in docs/adr/0002");
}

/// sled without our `fdatasync`.
struct PlainSled {
    db: sled::Db,
    marks: [Option<Vec<u8>>; 2],
}

impl PlainSled {
    fn open(dir: &Path) -> Self {
        let db = sled::Config::new().path(dir).flush_every_ms(None).open().expect("sled opens");
        Self { db, marks: [None, None] }
    }
}

fn broken(error: impl std::fmt::Display) -> TreeError {
    TreeError::Broken(error.to_string())
}

impl ByteTree for PlainSled {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError> {
        let mut entries = Vec::new();
        self.visit(prefix, &mut |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    fn visit(&self, prefix: &[u8], each: &mut Visitor<'_>) -> Result<(), TreeError> {
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(broken)?;
            if each(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        self.db.get(key).map(|value| value.map(|value| value.to_vec())).map_err(broken)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError> {
        let mut changes = sled::Batch::default();
        batch.puts.iter().for_each(|(key, value)| changes.insert(key.as_slice(), value.as_slice()));
        batch.deletes.iter().for_each(|key| changes.remove(key.as_slice()));
        self.db.apply_batch(changes).map_err(broken)
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        self.db.flush().map(drop).map_err(broken)
    }

    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError> {
        Ok(self.marks.clone())
    }

    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError> {
        self.marks[slot] = Some(bytes.to_vec());
        Ok(())
    }
}

/// The disk fails once, under the real sled, and then works again.
#[test]
fn after_one_failed_system_call_nothing_is_acknowledged() {
    if !strace::available() {
        return;
    }
    // Late enough that no thread gets there while the store is made: that is another story.
    let faults = [
        ("db/db", "fdatasync:error=EIO:when=5"),
        ("db/db", "pwrite64:error=EIO:when=8"),
        ("db/db", "pwrite64:error=ENOSPC:when=10"),
        ("db/db", "sync_file_range:error=EIO:when=8"),
        ("mark", "fdatasync:error=EIO:when=4"),
        ("mark", "pwrite64:error=ENOSPC:when=5"),
    ];
    for (file, fault) in faults {
        let root = temporary();
        let dir = root.path().canonicalize().expect("it is there").join("store");
        let helper = helper_command(&dir, "until-poisoned");
        let mut command = strace::with_fault(&helper, &dir.join(file), fault);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("strace runs");
        let out = child.stdout.take().expect("it is piped");
        let lines: Vec<String> = BufReader::new(out).lines().map_while(Result::ok).collect();
        child.wait().expect("it ends by itself");
        let said = |start: &'static str| lines.iter().filter(move |line| line.starts_with(start));
        let acked = said("ACK ").count() as u64;
        eprintln!("{fault} of {file}: {acked} acknowledged before it");
        assert!(acked > 0 && acked < TRIES, "{fault}: {lines:#?}");
        assert_eq!(said("ERR KW0108").count() as u64, TRIES - acked, "{fault}: {lines:#?}");
        assert_eq!(said("END KW0108").count(), 1, "{fault}: {lines:#?}");
        let (journal, guard) = open_dir(&dir, &holder()).expect("the disk works again");
        block_on(assert_all_there(&journal, &Acked::from([(run_id(1), acked)])));
        close(journal, guard);
    }
}

// Damage.

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("it reads") {
        let entry = entry.expect("it reads");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it copies");
        }
    }
}

/// sled writes one whenever it opens; in a new store there is only `conf`.
fn snapshot(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).expect("it reads").map(|entry| entry.expect("it reads").path());
    let snapshot = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap."));
    entries.into_iter().find(snapshot).unwrap_or_else(|| dir.join("db/conf"))
}

#[test]
fn one_flipped_bit_is_never_silent() {
    let root = temporary();
    // sled replays its log from the newest snapshot. Before it wrote one, nearly every bit of the file counts.
    let (young, old) = (root.path().join("young"), root.path().join("old"));
    let acked = filled(&young, 10, 30);
    copy_dir(&young, &old);
    let (journal, guard) = open_dir(&old, &holder()).expect("it opens");
    close(journal, guard);
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..60 {
        let mut chance = fastrand::Rng::with_seed(seed);
        let dir = root.path().join(format!("seed-{seed}"));
        copy_dir(if seed % 2 == 0 { &young } else { &old }, &dir);
        let file = match seed % 10 {
            7 | 8 => snapshot(&dir),
            9 => dir.join("mark"),
            _ => dir.join("db/db"),
        };
        let mut bytes = fs::read(&file).expect("it reads");
        // Most of the file was never used; flipping there shows nothing.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = used[chance.usize(..used.len())];
        bytes[at] ^= 1 << chance.u8(..8);
        fs::write(&file, &bytes).expect("it writes");
        match open_dir(&dir, &holder()) {
            Err(error) => {
                assert!(matches!(error.code(), "KW0104" | "KW0105"), "seed {seed}: {error}");
                assert!(fs::read(&file).expect("it reads") == bytes, "seed {seed}: the evidence was changed");
                refused += 1;
            }
            Ok((journal, guard)) => {
                block_on(async {
                    assert_all_there(&journal, &acked).await;
                    assert_eq!(journal.facts("").await.expect("it reads"), [("serial".to_owned(), json!(7))]);
                });
                close(journal, guard);
                harmless += 1;
            }
        }
        fs::remove_dir_all(&dir).expect("it was a copy");
    }
    eprintln!("60 flipped bits: {refused} refused, {harmless} harmless");
    assert!(refused >= 10, "only {refused} of 60 flips were noticed: were the right bytes flipped?");
}

#[test]
fn a_snapshot_that_a_killed_process_left_half_written_is_no_obstacle() {
    let dir = temporary();
    let acked = filled(dir.path(), 2, 3);
    let leftover = dir.path().join("db/snap.FFFFFFFFFFFFFFF0.generating");
    fs::write(&leftover, "").expect("it writes");
    let (journal, guard) = open_dir(dir.path(), &holder()).expect("it opens");
    block_on(assert_all_there(&journal, &acked));
    assert!(!leftover.exists());
    close(journal, guard);
}

#[test]
fn a_database_that_is_gone_is_not_made_anew() {
    let dir = temporary();
    filled(dir.path(), 1, 3);
    fs::remove_dir_all(dir.path().join("db")).expect("somebody tidied up");
    for _ in 0..2 {
        let error = open_dir(dir.path(), &holder()).expect_err("four acknowledged commits are gone");
        assert!(matches!(error, StoreError::WentBack { tree: 0, mark: 5 }), "{error:?}");
    }
}

#[test]
fn an_older_copy_of_the_database_is_refused() {
    let root = temporary();
    let dir = root.path().join("store");
    filled(&dir, 1, 3);
    copy_dir(&dir.join("db"), &root.path().join("backup"));
    let (journal, guard) = open_dir(&dir, &holder()).expect("it opens");
    block_on(append(&journal, run_id(0), 3, 10)).expect("nothing fails");
    close(journal, guard);
    fs::remove_dir_all(dir.join("db")).expect("it goes");
    copy_dir(&root.path().join("backup"), &dir.join("db"));
    let error = open_dir(&dir, &holder()).expect_err("it went back in time");
    assert!(matches!(error, StoreError::WentBack { tree: 5, mark: 6 }), "{error:?}");
    assert!(matches!(check_dir(&dir), Err(StoreError::WentBack { .. })));
}

#[test]
fn a_store_of_a_newer_release_is_refused() {
    let dir = temporary();
    filled(dir.path(), 1, 1);
    // The store's own entry as a release with schema 2 would write it; see src/store/frame.rs.
    let payload = json!({ "store": run_id(0) }).to_string();
    let mut frame = vec![b'K', 1, 1, 0, 2];
    frame.extend([0; 33]);
    frame.extend(u32::try_from(payload.len()).expect("it is short").to_be_bytes());
    frame.extend(payload.as_bytes());
    let crc = [&[0_u8][..], &frame].concat();
    frame.extend(crc32fast::hash(&crc).to_be_bytes());
    let db = sled::open(dir.path().join("db")).expect("sled opens");
    db.insert([0, 0, 0], [&[0, 1][..], &frame].concat()).expect("it writes");
    drop(db);
    let error = open_dir(dir.path(), &holder()).expect_err("we cannot know what schema 2 means");
    assert!(matches!(error, StoreError::Newer { schema: 2, supported: 1 }), "{error:?}");
}

// Company.

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let dir = temporary();
    let (journal, guard) = open_dir(dir.path(), &holder()).expect("a new store");
    let error = check_dir(dir.path()).expect_err("it is in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    let error = open_dir(dir.path(), &holder()).expect_err("it is in use").to_string();
    let me = format!("process {}", std::process::id());
    assert!(error.contains(&me) && error.contains("/run/kamino-wf.sock") && error.contains("1.2.3"), "{error}");
    close(journal, guard);
    let (journal, guard) = open_dir(dir.path(), &holder()).expect("it is free again");
    close(journal, guard);
}

#[test]
fn only_its_owner_can_read_a_new_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = temporary();
    let dir = root.path().join("store");
    filled(&dir, 1, 1);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("db"))), (0o700, 0o700));
    for file in ["LOCK", "mark", "db/db", "db/conf"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
}

// Room.

#[test]
fn the_largest_values_stay_in_the_one_file_that_is_synced() {
    let dir = temporary();
    let (journal, guard) = open_dir(dir.path(), &holder()).expect("a new store");
    let acked = block_on(async {
        let mut acked = Acked::new();
        for revision in 0..20 {
            for run in (0..3).map(run_id) {
                acked.insert(run, append(&journal, run, revision, 65_000).await.expect("nothing fails"));
                // Heads shrink and grow, so chunks come and go.
                let summary = json!("s".repeat(if revision % 2 == 0 { 16_000 } else { 1 }));
                journal.commit(run, Revision(revision + 1), Fence(1), vec![], summary).await.expect("nothing fails");
            }
            let fact = |n| (format!("fact/{n}"), Some(json!("f".repeat(4000))));
            journal.put_facts(Fence(1), (0..40).map(fact).collect()).await.expect("nothing fails");
        }
        acked
    });
    close(journal, guard);
    let blobs = fs::read_dir(dir.path().join("db/blobs")).expect("sled makes it").count();
    assert_eq!(blobs, 0, "sled never syncs these");
    let (journal, guard) = open_dir(dir.path(), &holder()).expect("it opens");
    block_on(assert_all_there(&journal, &acked));
    close(journal, guard);
}

/// A small tmpfs, unmounted when dropped.
struct Volume(tempfile::TempDir);

impl Volume {
    fn mount(mib: u32) -> Option<Self> {
        let dir = temporary();
        let size = std::ffi::CString::new(format!("size={mib}m")).expect("no zero in it");
        let flags = rustix::mount::MountFlags::NOSUID;
        match rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, size.as_c_str()) {
            Ok(()) => Some(Self(dir)),
            Err(errno) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot mount a tmpfs: {errno}");
                // Not `eprintln`: the test harness would keep that to itself.
                let _ = writeln!(std::io::stderr(), "SKIPPED: a full disk: only root can mount a tmpfs ({errno})");
                None
            }
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_refuses_commits_and_keeps_what_was_acknowledged() {
    let Some(volume) = Volume::mount(64) else { return };
    let dir = volume.0.path().join("store");
    let (journal, guard) = open_dir(&dir, &holder()).expect("a new store");
    let acked = block_on(async {
        let (mut acked, mut low) = (Acked::new(), false);
        assert!(!guard.low_on_room());
        let error = 'full: loop {
            low |= guard.low_on_room();
            for run in (0..4).map(run_id) {
                let revision = acked.get(&run).copied().unwrap_or(0);
                match append(&journal, run, revision, 30_000).await {
                    Ok(revision) => acked.insert(run, revision),
                    Err(error) => break 'full error,
                };
            }
        };
        assert!(matches!(error, StoreError::Full), "{error:?}");
        assert!(low, "the ballast went first");
        assert!(acked.values().sum::<u64>() > 100, "{acked:?}");
        let error = append(&journal, run_id(1), acked[&run_id(1)], 30_000).await.expect_err("still full");
        assert!(matches!(error, StoreError::Full), "{error:?}");
        let error = append(&journal, run_id(9), 0, 30_000).await.expect_err("no room for a new run");
        assert!(matches!(error, StoreError::LowOnRoom), "{error:?}");
        assert_all_there(&journal, &acked).await;
        acked
    });
    close(journal, guard);

    // Nearly full: it opens, it reads.
    let (journal, guard) = open_dir(&dir, &holder()).expect("it opens");
    block_on(assert_all_there(&journal, &acked));
    close(journal, guard);
    let filler = volume.0.path().join("filler");
    let mut file = fs::File::create(&filler).expect("it is made");
    while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    // Quite full: sled opens if it happens to need no room.
    match open_dir(&dir, &holder()) {
        Err(error) => assert!(matches!(error, StoreError::Full), "{error:?}"),
        Ok((journal, guard)) => {
            block_on(assert_all_there(&journal, &acked));
            close(journal, guard);
        }
    }
    fs::remove_file(&filler).expect("it was ours");
    let (journal, guard) = open_dir(&dir, &holder()).expect("there is room again");
    block_on(assert_all_there(&journal, &acked));
    close(journal, guard);
}
