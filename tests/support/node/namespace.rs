//! Network, mount and process namespaces that end as one: with its first process, everything in them is gone.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::super::cluster::mortal;

/// Addresses inside. Of the bridge's network, pods get 16 to 127; a test may give the rest, to guests for one.
pub const NODE_ADDRESS: &str = "10.88.0.1";
/// Where pods look for the API server: the first of the services' addresses.
pub const SERVICE_ADDRESS: &str = "10.96.0.1";

/// The first process. It reaps, and ends with the test process: its standard input does.
///
/// File systems of other tests' disks, mounted while this one begins, would stay attached for as long as we live: away with them.
/// What containerd, CNI and the kubelet insist to have below `/run`, `/var/lib` and `/var/log` is our folder's.
const FIRST: &str = r#"
set -eu
folder=$1
while read -r source target rest; do
    case $source in /dev/loop*) [ "$target" = / ] || umount -l "$target" || true ;; esac
done < /proc/mounts
mount --make-rshared /
mkdir -p "$folder/lib" "$folder/log"
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
mount -t tmpfs -o mode=755,size=64m run /run
ip link set lo up
ip address add 10.96.0.1/32 dev lo
ip link add cni0 type bridge
ip address add 10.88.0.1/24 dev cni0
ip link set cni0 up
echo ready
exec > /dev/null
cat
"#;

/// Handles of it; the keeper has the process.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Of the first process, as the machine numbers it.
    first: i32,
}

/// Ends everything inside when dropped.
pub struct Holder(Child);

impl Namespace {
    /// `folder` is the cluster's. It must not lie below `/run`, `/var/lib` or `/var/log`.
    pub fn make(folder: &Path) -> Result<(Self, Holder), String> {
        let log = File::create(folder.join("namespace.log")).map_err(|error| error.to_string())?;
        let mut child = mortal(Path::new("unshare"))
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"])
            .args(["--", "/bin/sh", "-c", FIRST, "first"])
            .arg(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let out = child.stdout.take().ok_or("no standard output")?;
        BufReader::new(out).read_line(&mut said).map_err(|error| error.to_string())?;
        if said != "ready\n" {
            let why = fs::read_to_string(folder.join("namespace.log")).unwrap_or_default();
            return Err(format!("no namespace: {why}"));
        }
        let parent = child.id();
        let first = first_child(parent).ok_or("the namespace has no process")?;
        Ok((Self { first }, Holder(child)))
    }

    /// A program inside, as a child of the caller's. It outlives a kill of that child: see [`first_child`].
    pub fn command(&self, program: &Path) -> Command {
        let mut command = mortal(Path::new("nsenter"));
        command.args(["--target", &self.first.to_string(), "--net", "--mount", "--pid", "--wd=/", "--"]).arg(program);
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// The network, to be entered by a thread.
    pub fn network(&self) -> Result<File, String> {
        File::open(format!("/proc/{}/ns/net", self.first)).map_err(|error| error.to_string())
    }

    /// Where a path inside is for the test process.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `unshare --fork` and `nsenter` started, as the machine numbers it.
pub fn first_child(parent: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
