//! SIGKILL, wherever: one sound store is there, the one before or the one after.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{Desk, assert_tidy, copy_dir, filled, histories, sum};
use crate::{strace, support::binary::PRODUCT};

const KILLS: u32 = 20;

fn product(store: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PRODUCT);
    command.args(arguments).arg("--store").arg(store);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Is killed when so many parts of the whole have passed, or has ended before: then the whole is that much, for the kills that
/// follow. Says whether it was killed.
#[expect(clippy::disallowed_methods, reason = "how long a process lives before it is killed is what is varied")]
fn killed_within(mut command: Command, kill: u32, whole: &mut Duration) -> bool {
    let life = *whole * kill / KILLS;
    let mut child = command.spawn().expect("the binary starts");
    std::thread::sleep(life);
    let was_running = child.try_wait().expect("it is ours").is_none();
    let _ = child.kill();
    child.wait().expect("it is ours");
    if !was_running {
        *whole = life;
    }
    was_running
}

/// How long it takes undisturbed: kills are spread over that.
fn undisturbed(mut command: Command) -> Duration {
    let began = tokio::time::Instant::now();
    assert!(command.status().expect("the binary starts").success());
    began.elapsed()
}

#[test]
fn a_killed_compaction_leaves_one_sound_store() {
    let desk = Desk::new();
    filled(&desk.store(), 20, 10);
    let (sound, before) = (sum(&desk.store()), histories(&desk.store()));
    let compact = || product(&desk.store(), desk.folder.path(), &["store", "compact"]);
    let mut whole = undisturbed(compact());
    let mut killed = 0;
    for kill in 0..KILLS {
        killed += u32::from(killed_within(compact(), kill, &mut whole));
        if kill % 4 == 3 {
            assert_eq!(sum(&desk.store()), sound, "kill {kill}");
        }
    }
    assert!(killed >= KILLS / 2, "only {killed} of {KILLS} were killed");
    assert_eq!(histories(&desk.store()), before);
    assert_tidy(&desk.store());
}

#[test]
fn a_killed_import_leaves_no_store_or_all_of_it() {
    let desk = Desk::new();
    filled(&desk.at("source"), 20, 10);
    let (sound, before) = (sum(&desk.at("source")), histories(&desk.at("source")));
    let export = desk.at("export.jsonl");
    let name = export.to_str().expect("a plain name");
    undisturbed(product(&desk.at("source"), desk.folder.path(), &["store", "export", name]));
    let import = |store: &Path| product(store, desk.folder.path(), &["store", "import", name]);
    let mut whole = undisturbed(import(&desk.at("rehearsal")));
    let (mut killed, mut none, mut all) = (0, 0, 0);
    for kill in 0..KILLS {
        let store = desk.at(&format!("store-{kill}"));
        killed += u32::from(killed_within(import(&store), kill, &mut whole));
        // Whatever was left, the next one makes a whole store of it, or finds one.
        let again = import(&store).status().expect("the binary starts");
        match again.code() {
            Some(0) => none += 1,
            Some(5) => all += 1,
            code => panic!("kill {kill}: {code:?}"),
        }
        assert_eq!(sum(&store), sound, "kill {kill}");
        assert_tidy(&store);
        if kill % 5 == 0 {
            assert_eq!(histories(&store), before, "kill {kill}");
        }
        fs::remove_dir_all(&store).expect("it was this test's");
    }
    eprintln!("{killed} of {KILLS} imports were killed: {none} had left nothing, {all} all of it");
    assert!(killed >= KILLS / 2, "only {killed} of {KILLS} were killed");
}

/// At each name that changes, not only at some: in the main thread, the only one that renames or removes.
#[test]
fn a_compaction_killed_at_any_name_leaves_one_sound_store() {
    if !strace::available() {
        return;
    }
    let desk = Desk::new();
    filled(&desk.at("fresh"), 3, 3);
    let sound = sum(&desk.at("fresh"));
    let mut names = 0;
    for calls in ["rename,renameat,renameat2", "unlink,unlinkat,rmdir", "mkdir,mkdirat", "fsync"] {
        for nth in 1..=40 {
            let store = desk.at("store");
            copy_dir(&desk.at("fresh"), &store);
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
            command.args(["-e", &format!("inject={calls}:signal=KILL:when={nth}"), "--"]);
            command.arg(PRODUCT).args(["store", "compact", "--store"]).arg(&store);
            command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", desk.folder.path());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let done = command.status().expect("strace runs").success();
            assert_eq!(sum(&store), sound, "killed at {calls} number {nth}");
            assert_tidy(&store);
            fs::remove_dir_all(&store).expect("it was this test's");
            if done {
                break;
            }
            names += 1;
        }
    }
    eprintln!("killed at {names} system calls");
    assert!(names > 20, "only {names}");
}
