//! One container, without a container runtime: a process in mount, PID, IPC, UTS and network namespaces of its own, whose root
//! is a tmpfs with the machine's programs bind-mounted read only and a `/dev` that holds loop devices and the volume, and no
//! disk of the machine. A bug of what runs in it cannot reach the machine's files.
//!
//! The image is not looked at: `kamino-wf` is the binary under test, everything else comes from the machine.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    rc::Rc,
};

use rustix::process::{Pid, Signal, kill_process};

use super::cluster::mortal;

/// As the kubelet has it.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Of a log that stands in for a message.
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;

/// Arguments: folder, binary, privileged, read-only root, path of the termination message, then `block PATH MINOR`,
/// `memory PATH SIZE` or `folder PATH SOURCE` any number of times, `--`, and the command.
const SETUP: &str = r#"
set -eu
folder=$1 binary=$2 privileged=$3 readonly=$4 message=$5
shift 5
root=$folder/root
mkdir -p "$root"
mount -t tmpfs -o mode=755,size=16m root "$root"
mkdir "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run" "$root/etc" "$root/image" "$root/old" "$root/usr"
readonly_bind() { mount --bind "$1" "$2" && mount -o remount,bind,ro,nosuid "$2"; }
readonly_bind /usr "$root/usr"
for name in bin sbin lib lib32 lib64; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
    elif [ -d "/$name" ]; then mkdir "$root/$name"; readonly_bind "/$name" "$root/$name"; fi
done
: > "$root/image/kamino-wf"
readonly_bind "$binary" "$root/image/kamino-wf"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount -t tmpfs -o mode=755,size=1m dev "$root/dev"
node() { mkdir -p "$(dirname "$root$1")"; mknod -m 600 "$root$1" "$2" "$3" "$4"; }
node /dev/null c 1 3; node /dev/zero c 1 5; node /dev/full c 1 7; node /dev/random c 1 8; node /dev/urandom c 1 9
chmod 666 "$root/dev/null" "$root/dev/zero" "$root/dev/full" "$root/dev/random" "$root/dev/urandom"
if [ "$privileged" = true ]; then
    node /dev/loop-control c 10 237
    n=0; while [ $n -lt 32 ]; do node /dev/loop$n b 7 $n; n=$((n + 1)); done
fi
mkdir -p "$(dirname "$root$message")"
: > "$root$message"
mount --bind "$folder/message" "$root$message"
while [ "$1" != -- ]; do
    case $1 in
        block) node "$2" b 7 "$3" ;;
        memory) mkdir -p "$root$2"; mount -t tmpfs -o "mode=1777,size=$3" work "$root$2" ;;
        folder) mkdir -p "$root$2"; mount --bind "$3" "$root$2" ;;
    esac
    shift 3
done
shift
[ "$1" != kamino-wf ] || { shift; set -- /image/kamino-wf "$@"; }
[ "$privileged" = true ] || set -- setpriv --bounding-set=-sys_admin,-mknod --inh-caps=-sys_admin,-mknod -- "$@"
: > "$folder/started"
cd "$root"
pivot_root . old
umount -l /old
[ "$readonly" != true ] || mount -o remount,ro /
exec "$@"
"#;

/// Its child is the first process of the new PID namespace; it waits, and knows which signal ended that. (`unshare --fork` of
/// util-linux 2.38 does not.) Its own words, such as `Killed`, are no part of the log.
const PARENT: &str = r#"
exec 3>&2 2> /dev/null
setpriv --pdeathsig KILL -- /bin/sh -c "$0" setup "$@" 2>&3 3>&-
exit $?
"#;

/// A file as a block device. Detached when the last user is gone, also when this process is killed.
pub struct LoopDevice {
    minor: u32,
    _open: File,
}

impl LoopDevice {
    pub fn attach(image: &Path) -> Rc<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().expect("losetup runs");
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let minor = path.strip_prefix("/dev/loop").and_then(|number| number.parse().ok());
        let minor = minor.unwrap_or_else(|| panic!("no loop device: {}", String::from_utf8_lossy(&output.stderr)));
        let open = File::open(&path).expect("the loop device opens");
        // Busy, so only marked: the kernel detaches it at the last close.
        let _ = Command::new("losetup").args(["--detach", &path]).status();
        Rc::new(Self { minor, _open: open })
    }
}

/// What is mounted where.
pub enum Mount {
    Block(Rc<LoopDevice>),
    /// With its size in bytes.
    Memory(u64),
    Folder,
}

pub struct Container {
    pub hostname: String,
    pub command: Vec<String>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub message_path: String,
    pub mounts: Vec<(String, Mount)>,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub exit_code: i32,
    pub reason: &'static str,
    pub message: Option<String>,
}

pub struct Sandbox {
    child: Child,
    folder: PathBuf,
    // Attached for as long as the process may use them.
    _mounts: Vec<(String, Mount)>,
}

impl Sandbox {
    /// `folder` is made, and holds log and message; `binary` is what `kamino-wf` means.
    pub fn start(container: Container, folder: &Path, binary: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder for the container");
        File::create(folder.join("message")).expect("a termination message");
        let log = File::create(folder.join("log")).expect("a log");
        let mut command = mortal(Path::new("unshare"));
        command.args(["--mount", "--pid", "--ipc", "--uts", "--net", "--propagation=private", "--"]);
        command.args(["/bin/sh", "-c", PARENT, SETUP]).arg(folder).arg(binary);
        command.arg(container.privileged.to_string()).arg(container.read_only_root.to_string());
        command.arg(&container.message_path);
        for (index, (path, mount)) in container.mounts.iter().enumerate() {
            match mount {
                Mount::Block(device) => command.args(["block", path, &device.minor.to_string()]),
                Mount::Memory(size) => command.args(["memory", path, &size.to_string()]),
                Mount::Folder => {
                    let source = folder.join(format!("work-{index}"));
                    fs::create_dir_all(&source).expect("a work folder");
                    command.args(["folder", path]).arg(source)
                }
            };
        }
        let child = command
            .arg("--")
            .args(&container.command)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOSTNAME", &container.hostname)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("unshare runs");
        Self { child, folder: folder.to_owned(), _mounts: container.mounts }
    }

    /// None while it runs. `fallback`: its log is the message when it left none and failed.
    pub fn ended(&mut self, fallback: bool) -> Option<Ended> {
        let status = self.child.try_wait().expect("our child can be waited for")?;
        let log = || String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned();
        if !self.started() {
            return Some(Ended { exit_code: 128, reason: "StartError", message: Some(log()) });
        }
        let exit_code = status.code().unwrap_or(137);
        let mut message = fs::read(self.folder.join("message")).unwrap_or_default();
        message.truncate(MESSAGE_BYTES_MAX);
        let mut message = String::from_utf8_lossy(&message).into_owned();
        if message.is_empty() && fallback && exit_code != 0 {
            message = tail(&log());
        }
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        Some(Ended { exit_code, reason, message: (!message.is_empty()).then_some(message) })
    }

    /// Whether the command itself was reached.
    pub fn started(&self) -> bool {
        self.folder.join("started").exists()
    }

    /// SIGTERM to the container's first process, which may ignore it.
    pub fn terminate(&self) {
        if let Some(first) = self.first_process() {
            let _ = kill_process(first, Signal::TERM);
        }
    }

    /// SIGKILL to the container's first process, and with it to all others.
    pub fn kill(&mut self) {
        match self.first_process() {
            Some(first) => drop(kill_process(first, Signal::KILL)),
            None => drop(self.child.kill()),
        }
    }

    /// Our child waits for it, and ends only when the whole PID namespace has.
    fn first_process(&self) -> Option<Pid> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_MAX).collect();
    let text = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    let start = text.char_indices().map(|(at, _)| at).find(|at| text.len() - at <= LOG_BYTES_MAX).unwrap_or(text.len());
    text[start..].to_owned()
}
