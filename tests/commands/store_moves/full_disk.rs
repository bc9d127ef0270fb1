//! A volume without room, in a mount namespace of the test's own: what is there can be read, and what is refused says why.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use kamino_wf::store::{Fence, NewRecord, Revision, StoreError, open_dir};
use serde_json::json;

use super::{Desk, filled, holder, run_id};

const INSIDE: &str = "KAMINO_WF_TEST_INSIDE";

/// Starts this very test again in a mount namespace; true there. Whatever is mounted in it goes with it.
pub(crate) fn in_own_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe().expect("its own path"));
    let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().expect("unshare is there");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // A name that is no test's would do nothing, and well.
    let worked = output.status.success() && said.contains("1 passed");
    if !worked && !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no mount namespace: {said}");
        // Not `eprintln`: the test harness would keep that to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: only root has mount namespaces");
        return false;
    }
    assert!(worked, "{test}: {said}");
    false
}

/// A small tmpfs.
pub(crate) struct Volume(tempfile::TempDir);

impl Volume {
    pub(crate) fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let size = std::ffi::CString::new(format!("size={mib}m")).expect("no zero in it");
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", rustix::mount::MountFlags::NOSUID, size.as_c_str())
            .expect("a tmpfs in a namespace of our own");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room but so much.
    pub(crate) fn fill_but(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(self.path()).expect("it can be looked at");
        let free = stat.f_bavail * stat.f_frsize;
        let mut file = fs::File::options().append(true).create(true).open(self.filler()).expect("it is made");
        let mut left = free.saturating_sub(bytes);
        while left > 0 {
            let piece = usize::try_from(left.min(64 << 10)).expect("it is small");
            match file.write(&vec![1; piece]) {
                Ok(0) | Err(_) => break,
                Ok(written) => left -= written as u64,
            }
        }
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).expect("it was ours");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn what_is_on_a_full_disk_can_be_read_and_new_runs_are_refused() {
    if !in_own_namespace("store_moves::full_disk::what_is_on_a_full_disk_can_be_read_and_new_runs_are_refused") {
        return;
    }
    let volume = Volume::mount(64);
    let store = volume.path().join("store");
    filled(&store, 3, 5);
    assert!(store.join("ballast").exists(), "room was set aside");
    let desk = Desk::with(|settings| settings["store"] = json!(store));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let run = |arguments: &[&str]| runtime.block_on(desk.binary.run(arguments));

    // Quite full: nothing can be written any more, not even a byte.
    volume.fill_but(0);
    assert!(fs::write(volume.path().join("more"), [1; 4096]).is_err(), "there is room still");
    let _ = fs::remove_file(volume.path().join("more"));
    run(&["store", "check"]).assert(0, &["is sound: 3 runs, 15 records"]);
    let export = run(&["store", "export", "-"]).assert(0, &["exported 3 runs"]).stdout.clone();
    assert_eq!(export.lines().count(), 1 + 3 + 15 + 2 + 1);
    // These summaries are none of the engine's, so `list` shows what it can't read; that it reads at all is what is shown.
    assert!(store.join("ballast").exists(), "reading gives nothing up");

    // Whoever writes gives the ballast up first, and then the runs under way go on while no new one is begun.
    let (journal, guard) = open_dir(&store, &holder()).expect("it opens");
    runtime.block_on(async {
        let record = || vec![NewRecord { kind: "asked", payload: json!("x".repeat(2000)) }];
        for revision in 5..40 {
            journal
                .commit(run_id(1), Revision(revision), Fence(7), record(), json!({}))
                .await
                .unwrap_or_else(|error| panic!("a run under way, record {revision}: {error}"));
        }
        assert!(guard.low_on_room() && !store.join("ballast").exists(), "the ballast went");
        let error = journal.commit(run_id(9), Revision(0), Fence(7), record(), json!({})).await.expect_err("a new run");
        assert!(matches!(error, StoreError::LowOnRoom), "{error}");
        assert_eq!(error.code(), "KW0118");
        assert!(error.to_string().contains("free space on it or enlarge it"), "{error}");
        // Room comes back, and with it the ballast; nobody has to be started again.
        volume.empty();
        journal.commit(run_id(9), Revision(0), Fence(7), record(), json!({})).await.expect("there is room again");
        assert!(store.join("ballast").exists() && !guard.low_on_room());
    });
    drop(journal);
    guard.close().expect("nothing failed");
    run(&["store", "check"]).assert(0, &["is sound: 4 runs, 51 records"]);
}
