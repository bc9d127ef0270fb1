//! Containers, removed by the only program that knows how: the copy's own containerd.
//!
//! It runs chrooted into the copy, as the first process of a PID namespace, without network, with mounts, IPC and host name of its
//! own, and without the capabilities that it has no use for: it is a program from a disk that tenants wrote to. When that first
//! process ends the kernel kills all others in there, and it dies with the thread that started it.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::fs::FileType;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, UnshareFlags, remove_capability_from_bounding_set};

use super::beneath::Beneath;
use super::error::CleanError;
use super::loops::make_node;
use super::mounts::unshare;
use super::patience::Patience;
use super::programs::{FOLDER, bounded, complaint, plain, program_folders};
use crate::model::Containerd;

/// containerd opens its databases and starts within a second; a busy disk may take far longer.
const START_MAX: Duration = Duration::from_mins(1);
/// For all containers together: removing one is a transaction and the removal of its files.
const REMOVE_MAX: Duration = Duration::from_mins(10);
/// An orderly stop closes the databases.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Removed in one call of `ctr`.
const BATCH: usize = 50;

/// The name of what we make in containerd to remove it again.
const OURS: &str = "kamino-wf";
const SOCKET: &str = "/run/kamino-wf/containerd.sock";
/// containerd's own database, below its root; there from its first start on.
pub(super) const META_DB: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// The copy's own configuration is left aside: it may name plugins, roots and imports that do not belong here. The CRI plugin would
/// look for a network; nothing else is needed to remove containers.
const CONFIG: &str = r#"version = 2
state = "/run/kamino-wf/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs"]
[grpc]
address = "/run/kamino-wf/containerd.sock"
"#;

/// What containerd had.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Removed {
    pub(super) containers: u64,
    pub(super) images: u64,
}

/// Removes all containers and their writable layers from the copy mounted at `copy`; images stay.
pub(super) fn remove_containers(copy: &Path, containerd: &Containerd) -> Result<Removed, CleanError> {
    // A containerd that never ran has no containers, and starting it would only add files.
    let beneath = Beneath::new(copy).map_err(CleanError::part_way("open the copy"))?;
    if !beneath.exists(&format!("{}/{META_DB}", containerd.root)).map_err(CleanError::Path)? {
        return Ok(Removed::default());
    }
    let (copy, containerd) = (copy.to_path_buf(), containerd.clone());
    // A thread of its own: a thread cannot leave the PID namespace and the chroot that its children are to be born into.
    let thread = std::thread::Builder::new().name("runtime".into()).spawn(move || removal(&copy, &containerd));
    let thread = thread.map_err(CleanError::part_way("start the thread of the runtime"))?;
    thread.join().unwrap_or_else(|_| Err(failure("its thread panicked")))
}

fn removal(copy: &Path, containerd: &Containerd) -> Result<Removed, CleanError> {
    enter(copy, &containerd.root)
        .map_err(CleanError::part_way("shut the copy's containerd into namespaces of its own"))?;
    let mut daemon = Daemon::start(&program("containerd", &containerd.programs)?)?;
    let client = Client::of(SOCKET, containerd)?;
    let mut removed = Removed::default();
    for space in client.spaces()? {
        removed.containers += client.remove_all(&space)?;
        removed.images += client.list(&space, &["images", "ls", "-q"])?.len() as u64;
    }
    daemon.stop()?;
    Ok(removed)
}

/// Namespaces, file systems, root and capabilities of this thread and all that it starts.
fn enter(copy: &Path, containerd_root: &str) -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    unshare(flags | UnshareFlags::NEWUTS | UnshareFlags::FS)?;
    rustix::thread::set_no_new_privs(true)?;
    std::env::set_current_dir(copy)?;
    rustix::process::chroot(".")?;
    let private = MountFlags::NOSUID | MountFlags::NODEV;
    mount("run", "/run", "tmpfs", private, c"size=64m,mode=755")?;
    mount("tmp", "/tmp", "tmpfs", private, c"size=64m,mode=700")?;
    mount("dev", "/dev", "tmpfs", MountFlags::NOSUID, c"size=1m,mode=755")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        make_node(&Path::new("/dev").join(name), FileType::CharacterDevice, 1, minor)?;
    }
    fs::create_dir(FOLDER)?;
    fs::write(Path::new(FOLDER).join("config.toml"), format!("root = \"{containerd_root}\"\n{CONFIG}"))?;
    for capability in CapabilitySet::all() - needed() {
        match remove_capability_from_bounding_set(capability) {
            // Kernels know fewer capabilities than the library, or more.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Files of any owner, and mounts: the overlay snapshotter tries one when it starts.
fn needed() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SYS_ADMIN
}

/// The snapshotters that have anything; containerd's default one always.
fn snapshotters(root: &str) -> Result<Vec<String>, CleanError> {
    let look = || CleanError::part_way(format!("look for snapshotters in {root}"));
    let mut found = vec!["overlayfs".to_owned()];
    for entry in fs::read_dir(root).map_err(look())? {
        let name = entry.map_err(look())?.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix("io.containerd.snapshotter.v1.")) else {
            continue;
        };
        let snapshots = format!("{root}/io.containerd.snapshotter.v1.{name}/snapshots");
        if name != "overlayfs" && fs::read_dir(snapshots).is_ok_and(|mut snapshots| snapshots.next().is_some()) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// A program of the copy; this thread is chrooted, so the path cannot lead out of it.
fn program(name: &str, besides: &[String]) -> Result<PathBuf, CleanError> {
    let folders = || program_folders(besides);
    let found = folders().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let folders = folders().collect::<Vec<_>>().join(", ");
        failure(&format!("the copy has containers' data but no {name} in {folders}"))
    })
}

/// A running containerd; killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(program: &Path) -> Result<Self, CleanError> {
        let mut command = plain(program);
        command.args(["--config", "/run/kamino-wf/config.toml", "--log-level", "error"]);
        let log =
            fs::File::create(Path::new(FOLDER).join("log")).map_err(CleanError::part_way("write containerd's log"))?;
        command.stderr(log);
        let child = first_process(&mut command).spawn().map_err(CleanError::part_way("start the copy's containerd"))?;
        let mut daemon = Self(child);
        let patience = Patience::for_at_most(START_MAX);
        while UnixStream::connect(SOCKET).is_err() {
            if let Ok(Some(status)) = daemon.0.try_wait() {
                return Err(failure(&format!("containerd ended with {status}: {}", complaint(&log_text()))));
            }
            if !patience.wait() {
                return Err(failure(&format!("no answer for {} s: {}", START_MAX.as_secs(), complaint(&log_text()))));
            }
        }
        Ok(daemon)
    }

    /// Asks it to end, and waits: what it has not written yet must not be missed.
    fn stop(&mut self) -> Result<(), CleanError> {
        let stop = || CleanError::part_way("stop the copy's containerd");
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(io::Error::from).map_err(stop())?;
        }
        let patience = Patience::for_at_most(STOP_MAX);
        while self.0.try_wait().map_err(stop())?.is_none() {
            if !patience.wait() {
                return Err(failure(&format!("containerd did not stop in {} s", STOP_MAX.as_secs())));
            }
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command line client of containerd, from the copy as well: it speaks the same protocol.
pub(super) struct Client {
    program: PathBuf,
    /// Where its containerd listens.
    address: &'static str,
    /// Where that has its data.
    root: String,
    patience: Patience,
}

impl Client {
    /// Of the containerd that listens there, on the system that is this thread's root.
    pub(super) fn of(address: &'static str, containerd: &Containerd) -> Result<Self, CleanError> {
        let program = program("ctr", &containerd.programs)?;
        Ok(Self { program, address, root: containerd.root.clone(), patience: Patience::for_at_most(REMOVE_MAX) })
    }

    /// containerd's namespaces.
    pub(super) fn spaces(&self) -> Result<Vec<String>, CleanError> {
        self.list("default", &["namespaces", "ls", "-q"])
    }

    fn remove_all(&self, space: &str) -> Result<u64, CleanError> {
        let containers = self.list(space, &["containers", "ls", "-q"])?;
        for batch in containers.chunks(BATCH) {
            let names = batch.iter().map(String::as_str);
            self.run(space, &["containers", "rm"].into_iter().chain(names).collect::<Vec<_>>())?;
        }
        for snapshotter in snapshotters(&self.root)? {
            self.remove_layers(space, &snapshotter)?;
        }
        // A lease removed with `--sync` waits for the garbage collector: it is what removes the layers' files.
        self.run(space, &["leases", "create", "--id", OURS]).or_else(|error| self.known_lease(space, error))?;
        self.run(space, &["leases", "delete", "--sync", OURS])?;
        let left = self.list(space, &["containers", "ls", "-q"])?;
        if left.is_empty() { Ok(containers.len() as u64) } else { Err(failure(&format!("left: {}", left.join(", ")))) }
    }

    /// Writable layers whose container is gone, as after a kill between the two, and then whatever lies in the snapshotter's folder
    /// without being known to it: the collector only looks there when a snapshot was removed, so one is made to be removed.
    fn remove_layers(&self, space: &str, snapshotter: &str) -> Result<(), CleanError> {
        let snapshots = ["snapshots", "--snapshotter", snapshotter];
        let run = |args: &[&str]| self.run(space, &[&snapshots, args].concat());
        // KEY, PARENT (may be empty), KIND
        let table = run(&["ls"])?;
        let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let writable = rows.filter(|row| row.last().is_some_and(|kind| *kind == "Active" || *kind == "View"));
        for layer in writable.filter_map(|row| row.first().copied().map(ToOwned::to_owned)) {
            run(&["rm", &layer])?;
        }
        run(&["prepare", OURS])?;
        run(&["rm", OURS])?;
        Ok(())
    }

    /// A killed predecessor may have left its lease.
    fn known_lease(&self, space: &str, error: CleanError) -> Result<String, CleanError> {
        let leases = self.list(space, &["leases", "ls", "-q"])?;
        if leases.iter().any(|lease| lease == OURS) { Ok(String::new()) } else { Err(error) }
    }

    pub(super) fn list(&self, space: &str, args: &[&str]) -> Result<Vec<String>, CleanError> {
        Ok(self.run(space, args)?.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
    }

    pub(super) fn run(&self, space: &str, args: &[&str]) -> Result<String, CleanError> {
        let asked = || format!("ctr {} in namespace {space}", args[..args.len().min(4)].join(" "));
        let mut command = plain(&self.program);
        command.args(["--address", self.address, "--namespace", space]).args(args);
        let output = bounded(&mut command, &self.patience).map_err(CleanError::part_way(asked()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = complaint(&String::from_utf8_lossy(&output.stderr));
        Err(failure(&format!("{} ended with {}: {text}", asked(), output.status)))
    }
}

/// Makes the command the init of its PID namespace: with `/proc` of that namespace, and dying with the thread that starts it.
#[expect(unsafe_code, reason = "the child must act between fork and exec, and there is no safe way to say so")]
fn first_process(command: &mut Command) -> &mut Command {
    let hook = || -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount(c"proc", c"/proc", c"proc", flags, None)?)
    };
    // SAFETY: two system calls with arguments that need no allocation.
    unsafe { command.pre_exec(hook) }
}

fn log_text() -> String {
    let mut text = String::new();
    if let Ok(file) = fs::File::open(Path::new(FOLDER).join("log")) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    text
}

fn failure(what: &str) -> CleanError {
    CleanError::Runtime { what: what.to_owned() }
}
