//! A machine of the pool: systemd as the first process of a disk, at an address of the cluster's network.
//!
//! Its identity is what a platform gives: the product UUID below `/sys/class/dmi`, a boot id of each start (by systemd-nspawn), the
//! address, and the seed that cloud-init reads. Everything else is the disk's. It ends with the cluster, or when it is dropped.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::{
    guest::{Disk, Form, GPT_OFFSET, run, text},
    support::node::{namespace::first_child, real_cluster::RealCluster},
};

/// From power on until its first process runs. Half a second on an idle machine.
const STARTS: Duration = Duration::from_mins(1);
/// From there until nothing is under way any more: cloud-init has done what user data say. Seven seconds on an idle machine.
const SETTLES: &str = "180";

/// What a platform knows of a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) name: &'static str,
    /// In the form of a product UUID; the instance id of cloud-init as well.
    pub(crate) uuid: &'static str,
    /// Below the pods' addresses, see `support/node/namespace.rs`.
    pub(crate) address: &'static str,
}

/// A machine that is on.
pub(crate) struct Machine {
    pub(crate) identity: Identity,
    pub(crate) disk: Disk,
    child: Child,
    /// As this machine numbers them: what ends everything when killed, the first process and the one of the guest.
    ending: Pid,
    outer: i32,
    guest: i32,
    folder: PathBuf,
}

impl Machine {
    /// Switches it on, with a disk that is nobody else's. `seed` is where cloud-init asks.
    pub(crate) async fn boot(cluster: &RealCluster, identity: Identity, disk: Disk, seed: &str) -> Self {
        assert_eq!(disk.form, Form::Gpt, "as Azure's images are");
        let folder = disk.image.with_extension("machine");
        fs::create_dir(&folder).expect("a folder for the machine");
        let log = File::create(disk.image.with_extension("console")).expect("a file for the console");
        let errors = log.try_clone().expect("a second handle");
        let group = cluster.folder.file_name().expect("a name");
        let mut command = cluster.inside("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private", "--"]);
        command.args(["/bin/sh", "-c", include_str!("machine.sh"), "machine"]).arg(&folder).arg(&disk.image);
        command.args([&GPT_OFFSET.to_string(), identity.name, identity.uuid, identity.address, seed]).arg(group);
        let child = command.stdout(log).stderr(errors).spawn().expect("the machine is switched on");
        let found = async {
            let ending = eventually(|| first_child(child.id())).await;
            let outer = eventually(|| first_child(ending.unsigned_abs())).await;
            let guest = eventually(|| first_child(outer.unsigned_abs()).filter(|it| is_first(*it))).await;
            (ending, outer, guest)
        };
        let Ok((ending, outer, guest)) = tokio::time::timeout(STARTS, found).await else {
            panic!("{} does not start: {}", identity.name, end_of(&disk.image.with_extension("console")));
        };
        let ending = Pid::from_raw(ending).expect("a process id");
        Self { identity, disk, child, ending, outer, guest, folder }
    }

    /// Waits until systemd has nothing left to start. What it then says of the state.
    pub(crate) async fn settled(&self) -> String {
        let since = Instant::now();
        // Before its bus is there, nothing can be asked.
        while !self.path("run/systemd/private").exists() {
            assert!(since.elapsed() < STARTS, "{}", self.diagnosis());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // In a thread of its own: the same runtime has other things to see to.
        let mut command = self.command(&["timeout", SETTLES, "systemctl", "is-system-running", "--wait"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a process in the guest");
        while child.try_wait().expect("its state").is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut said = String::new();
        child.stdout.take().expect("its output").read_to_string(&mut said).expect("text");
        said.trim().to_owned()
    }

    /// A program of the guest's, in it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.guest.to_string(), "--"]).args(words).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command
    }

    /// Runs a script in the guest; what it said.
    pub(crate) fn shell(&self, script: &str) -> String {
        text(&run(&mut self.command(&["/bin/sh", "-euc", script])))
    }

    /// Loads an archive of a container image, as a node that pulled it would have it.
    pub(crate) fn import(&self, archive: &Path) {
        let mut command = self.command(&["ctr", "--namespace", "k8s.io", "images", "import", "-"]);
        run(command.stdin(File::open(archive).expect("the archive")));
    }

    /// Where the test finds a path of the guest's. Absolute links in it would lead out of the guest.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.guest)).join(inside)
    }

    pub(crate) fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}; {}", self.diagnosis()))
    }

    /// A copy of the disk as it is at one point in time, as a snapshot is. The machine goes on.
    pub(crate) fn snapshot(&self, name: &str) -> Disk {
        let disk = format!("/proc/{}/root{}", self.outer, self.folder.join("disk").display());
        let copy = self.disk.image.with_file_name(name);
        // The shell thaws it whatever happens to the copy.
        let script = r#"fsfreeze --freeze "$1"; trap 'fsfreeze --unfreeze "$1"' EXIT; cp --sparse=always "$2" "$3""#;
        run(Command::new("/bin/sh").args(["-euc", script, "snapshot", &disk]).args([&self.disk.image, &copy]));
        Disk { image: copy, form: self.disk.form }
    }

    /// What there is to know when something does not come about.
    pub(crate) fn diagnosis(&self) -> String {
        let mut words = format!("{}:\n", self.identity.name);
        let script = "systemctl --failed --no-legend --plain; systemctl list-jobs --no-legend; \
                      journalctl --no-pager --boot --grep 'ordering cycle|kamino-wf'; \
                      tail -n 15 /var/log/cloud-init-output.log; journalctl --no-pager --lines=15 --unit=kubelet";
        let asked = self.command(&["timeout", "20", "/bin/sh", "-c", script]).output();
        let asked = asked.map(|Output { stdout, .. }| String::from_utf8_lossy(&stdout).into_owned());
        let _ = writeln!(words, "{}", asked.unwrap_or_else(|error| error.to_string()));
        let _ = writeln!(words, "its console: {}", end_of(&self.disk.image.with_extension("console")));
        words
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = kill_process(self.ending, Signal::KILL);
        let _ = self.child.wait();
    }
}

async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process is the first of three process namespaces, the cluster's, the machine's and the guest's, and is systemd by now.
fn is_first(process: i32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
    let status = read("status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|it| it.split_whitespace().next_back() == Some("1")) && read("comm").trim() == "systemd"
}

fn end_of(file: &Path) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
