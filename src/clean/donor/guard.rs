//! What stays on the donor's disk, and acts at the first boot of a copy.
//!
//! A unit and this program. The unit runs before whatever reads the identity of the machine, and cloud-init's first part and the
//! kubelet require it: if it fails they do not start, and a machine that is no node is better than one that speaks as another. It
//! says nothing and does nothing on the donor. On any other machine it takes away what made the disk the donor's, and removes its
//! record of the donor last: a power cut on the way has it begin again at the next boot.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::syncfs;
use rustix::thread::UnshareFlags;

use super::{DonorRequest, machine};
use crate::clean::beneath::Beneath;
use crate::clean::cleaning::{Errand, apart, apply};
use crate::clean::error::CleanError;
use crate::clean::manifest::Manifest;
use crate::clean::mounts::{Workbench, unshare};
use crate::clean::programs::FOLDER;
use crate::clean::report::Report;
use crate::clean::verify;

const UNIT: &str = "kamino-wf-guard.service";
/// Where programs have the label with which an enforcing system lets systemd start them.
const PROGRAM: &str = "usr/local/sbin/kamino-wf-guard";
/// Whose disk this is. The unit starts only where it is there.
const RECORD: &str = "var/lib/kamino-wf/donor.json";
/// What it was, on a copy that has become somebody new.
const FORMER: &str = "var/lib/kamino-wf/cloned.json";
const MACHINE_ID: &str = "etc/machine-id";
/// A random UUID at each read.
const NEW_ID: &str = "/proc/sys/kernel/random/uuid";
const VERSION: u32 = 1;

const UNIT_TEXT: &str = "# Written by kamino-wf when it cleaned this node's disk. Does nothing on that node itself.
[Unit]
Description=kamino-wf: a copy of a node becomes somebody new
Documentation=https://github.com/kamino-wf/kamino-wf/blob/main/docs/cleaning.md
DefaultDependencies=no
ConditionPathExists=/var/lib/kamino-wf/donor.json
After=systemd-remount-fs.service
Before=systemd-journald.service systemd-udevd.service systemd-random-seed.service systemd-networkd.service systemd-resolved.service
Before=NetworkManager.service cloud-init-local.service cloud-init.service walinuxagent.service waagent.service
Before=ssh.service sshd.service dbus.service containerd.service kubelet.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/kamino-wf-guard clean --guard
";

/// Who needs it, as `systemctl enable` would link it: `WantedBy` and `RequiredBy`.
const LINKS: [&str; 3] = ["sysinit.target.wants", "kubelet.service.requires", "cloud-init-local.service.requires"];

/// Whose disk it is.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    version: u32,
    errand: Errand,
    product_uuid: String,
}

/// Puts it on the disk whose root is at `root`, and syncs: from then on the disk may be cleaned.
pub(super) fn place(root: &Path, program: &Path, request: &DonorRequest) -> io::Result<()> {
    let units = root.join("etc/systemd/system");
    put(&root.join(PROGRAM), 0o755, &mut File::open(program)?)?;
    put(&units.join(UNIT), 0o644, &mut UNIT_TEXT.as_bytes())?;
    for folder in LINKS {
        fs::create_dir_all(units.join(folder))?;
        match symlink(Path::new("/etc/systemd/system").join(UNIT), units.join(folder).join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    // As the guard will see it, so that it takes the donor for itself.
    let record = Record { version: VERSION, errand: request.errand.clone(), product_uuid: machine::product_uuid()? };
    put(&root.join(RECORD), 0o600, &mut serde_json::to_vec(&record)?.as_slice())?;
    syncfs(File::open(root)?)?;
    Ok(())
}

/// A whole file or none, whatever happens.
fn put(path: &Path, mode: u32, content: &mut dyn io::Read) -> io::Result<()> {
    let draft = path.with_extension("draft");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(&draft);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    io::copy(content, &mut file)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

/// The command of the unit.
#[must_use]
pub fn stand() -> ExitCode {
    match apart(watch) {
        Ok(done) => {
            say(&done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{}; the kubelet and cloud-init do not start", error.reason()));
            ExitCode::FAILURE
        }
    }
}

fn say(words: &str) {
    // Nobody may be listening yet.
    let _ = writeln!(io::stderr(), "kamino-wf guard: {words}");
}

fn watch() -> Result<String, CleanError> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS).map_err(CleanError::unprepared("make a mount namespace"))?;
    let bench = Path::new(FOLDER).join("bench");
    fs::create_dir_all(&bench).map_err(CleanError::unprepared(format!("make {}", bench.display())))?;
    let bench = Workbench::new(&bench).map_err(CleanError::unprepared("mount a tmpfs"))?;
    let mounted = bench.bind_root().map_err(CleanError::unprepared("see the root file system alone"))?;
    let at = mounted.at();
    let record = fs::read(at.join(RECORD)).map_err(CleanError::unprepared(format!("read /{RECORD}")))?;
    let record: Record = serde_json::from_slice(&record)
        .map_err(|error| CleanError::unprepared(format!("read /{RECORD}"))(error.into()))?;
    if record.version != VERSION {
        let source = io::Error::other(format!("version {}, expected {VERSION}", record.version));
        return Err(CleanError::unprepared(format!("read /{RECORD}"))(source));
    }
    let uuid = machine::product_uuid().map_err(CleanError::unprepared("read this machine's product UUID"))?;
    if machine::is_same(&uuid, &record.product_uuid) {
        return Ok("the donor itself: nothing to do".to_owned());
    }
    say(&format!("a copy of {} in machine {uuid}: cleaning", record.product_uuid));
    become_somebody_new(at, &record)?;
    Ok("done: this machine is somebody new".to_owned())
}

fn become_somebody_new(at: &Path, record: &Record) -> Result<(), CleanError> {
    let manifest = Manifest::for_clone(&record.errand.profile);
    let root = Beneath::new(at).map_err(CleanError::unprepared("open the root file system"))?;
    let mut report = Report::begin(&record.errand, &manifest);
    apply(&root, at, &manifest, &mut report)?;
    verify::verify(&root, &manifest)?;
    let failed = |doing: &'static str| CleanError::part_way(doing);
    // An empty one would stay empty: pid 1 looks before anything can run.
    let id = fs::read_to_string(NEW_ID).map_err(failed("ask the kernel for a new id"))?.replace('-', "");
    fs::write(at.join(MACHINE_ID), id).map_err(failed("write a new machine id"))?;
    // Pid 1 has read the donor's name by now, and would have it announced to the network.
    let renamed = rustix::system::sethostname(b"localhost").map_err(io::Error::from);
    renamed.map_err(failed("take the donor's name from the kernel"))?;
    put(&at.join(FORMER), 0o600, &mut serde_json::to_vec(record).unwrap_or_default().as_slice())
        .map_err(failed("record what this disk was"))?;
    let sync = || -> io::Result<()> { Ok(syncfs(File::open(at)?)?) };
    sync().map_err(failed("sync the disk"))?;
    fs::remove_file(at.join(RECORD)).map_err(failed("remove the record of the donor"))?;
    sync().map_err(failed("sync the disk"))
}
