//! Disks of a Debian node to clean: copies of a cached base, mounted, and everything undone when dropped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Bytes before the root partition of the base's GPT variant, see `scripts/guest-image`.
pub(crate) const GPT_OFFSET: u64 = 16 << 20;

/// How the root file system lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Bare,
    Gpt,
}

/// A folder of one test's own on a real file system, removed at its end.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    base: PathBuf,
}

impl Lab {
    /// None, and loudly, where disks cannot be mounted; a failure in CI, where a test that did not run must not look like one that did.
    pub(crate) fn new() -> Option<Self> {
        let missing = if !rustix::process::geteuid().is_root() {
            "root"
        } else if !Path::new("/dev/loop-control").exists() {
            "loop devices (/dev/loop-control)"
        } else {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/guest-image");
            let base = PathBuf::from(text(&run(&mut Command::new(script))).trim());
            let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
            return Some(Self { folder, base });
        };
        // Not `eprintln`: the test harness would keep that to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: a test of the cleaner: it needs {missing}");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI this test must run: give it {missing}");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn base(&self, form: Form, name: &str) -> Disk {
        let file = match form {
            Form::Bare => "bare.img",
            Form::Gpt => "gpt.img",
        };
        Disk::copy(&self.base.join(file), self.path().join(name), form)
    }
}

/// A raw disk image.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) image: PathBuf,
    pub(crate) form: Form,
}

impl Disk {
    fn copy(from: &Path, to: PathBuf, form: Form) -> Self {
        run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([from, &to]));
        Self { image: to, form }
    }

    pub(crate) fn copy_as(&self, name: &str) -> Self {
        self.copy_to(self.image.with_file_name(name))
    }

    pub(crate) fn copy_to(&self, to: PathBuf) -> Self {
        Self::copy(&self.image, to, self.form)
    }

    pub(crate) fn mount(&self, options: &str) -> Mount {
        let at = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a mount point");
        let offset = match self.form {
            Form::Bare => 0,
            Form::Gpt => GPT_OFFSET,
        };
        // Such a loop device detaches itself when it is unmounted.
        let options = format!("loop,offset={offset},{options}");
        run(Command::new("mount").args(["-o", &options]).args([self.image.as_path(), at.path()]));
        Mount { at }
    }

    pub(crate) fn clean(&self, profile: &str) -> Cleaned {
        clean(&self.image, profile)
    }

    pub(crate) fn hash(&self) -> String {
        text(&run(Command::new("sha256sum").arg(&self.image))).split(' ').next().unwrap_or_default().to_owned()
    }

    /// Every planted word that can be read in the raw bytes, and how often.
    pub(crate) fn planted(&self) -> BTreeMap<String, usize> {
        let output = Command::new("grep")
            .env("LC_ALL", "C")
            .args(["-a", "-o", "-E", "PLANT-[a-z0-9-]+"])
            .arg(&self.image)
            .output()
            .expect("grep runs");
        let mut found = BTreeMap::new();
        for word in String::from_utf8_lossy(&output.stdout).lines() {
            *found.entry(word.to_owned()).or_insert(0) += 1;
        }
        found
    }

    pub(crate) fn loops(&self) -> String {
        text(&run(Command::new("losetup").arg("-j").arg(&self.image)))
    }

    /// Path to type, mode, size and content of everything on the disk, but for what differs between two clean disks:
    /// sizes of directories (ext4 does not shrink them), and containerd's databases (they hold times and transaction numbers;
    /// what they mean is asked of containerd itself).
    pub(crate) fn listing(&self) -> BTreeMap<PathBuf, String> {
        let mount = self.mount("ro");
        let mut hashes = BTreeMap::new();
        let mut find = Command::new("find");
        find.args([".", "-xdev", "-type", "f", "-not", "-name", "*.db", "-exec", "sha256sum", "--zero", "{}", "+"]);
        for line in text(&run(find.current_dir(mount.path()))).split_terminator('\0') {
            let (hash, path) = line.split_once("  ").expect("a hash and a path");
            hashes.insert(PathBuf::from(path), hash.to_owned());
        }
        let mut listing = BTreeMap::new();
        let mut waiting = vec![PathBuf::from(".")];
        while let Some(path) = waiting.pop() {
            let full = mount.path().join(&path);
            let metadata = full.symlink_metadata().expect("its metadata");
            let kind = metadata.file_type();
            let what = if kind.is_dir() {
                for entry in full.read_dir().expect("a folder") {
                    waiting.push(path.join(entry.expect("its entry").file_name()));
                }
                "folder".to_owned()
            } else if kind.is_symlink() {
                format!("link to {}", full.read_link().expect("a link").display())
            } else if path.extension() == Some(OsStr::new("db")) && path.starts_with("./var/lib/containerd") {
                "database".to_owned()
            } else {
                format!("{kind:?} {} {:?}", metadata.len(), hashes.get(&path))
            };
            let owner = format!("{}:{}", metadata.uid(), metadata.gid());
            listing.insert(path, format!("{:o} {owner} {what}", metadata.permissions().mode()));
        }
        listing
    }
}

/// A mounted disk.
pub(crate) struct Mount {
    at: TempDir,
}

impl Mount {
    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    /// Runs a shell script in the guest, in namespaces of its own, with its containerd at hand.
    pub(crate) fn in_guest(&self, script: &str) -> String {
        let prelude = include_str!("in-guest.sh");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "chroot"]).arg(self.path());
        command.args(["/bin/sh", "-euc", &format!("{prelude}\n{script}\nstop_containerd\n")]);
        text(&run(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The pid namespace of `in_guest` lets go of the disk a moment after its last process.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// How a cleaning ended.
#[derive(Debug)]
pub(crate) struct Cleaned {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) stderr: String,
}

/// The command, as a pod would run it.
pub(crate) fn command(device: &Path, profile: &str, report: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kamino-wf"));
    command.args(["clean", "--profile", profile, "--run", "0123456789ab", "--nonce", "n-1"]);
    command.arg("--device").arg(device).arg("--report").arg(report);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

pub(crate) fn clean(device: &Path, profile: &str) -> Cleaned {
    let report = tempfile::NamedTempFile::new().expect("a file for the report");
    let output = command(device, profile, report.path()).output().expect("the command runs");
    let written = std::fs::read(report.path()).expect("the report");
    assert!(written.len() <= 4096, "a termination message has at most 4096 bytes, this one {}", written.len());
    let report = serde_json::from_slice(&written).unwrap_or(Value::Null);
    Cleaned { code: output.status.code(), report, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
