//! Programs that are not ours: the node's own containerd and, on a donor, its systemd. Each has a deadline.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::patience::Patience;

/// Of ours, on a file system in memory: in the copy while it is cleaned, and on a donor until its next boot.
pub(super) const FOLDER: &str = "/run/kamino-wf";
/// Where nodes have containerd and its client.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/bin", "/opt/containerd/bin"];
/// How much of a complaint goes into the report.
const COMPLAINT_MAX: usize = 600;

/// Where a kind of node has them: where its profile says first.
pub(super) fn program_folders(besides: &[String]) -> impl Iterator<Item = &str> {
    besides.iter().map(String::as_str).chain(PROGRAM_FOLDERS)
}

/// A program without anything of our surroundings.
pub(super) fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", FOLDER);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The output of a command that is killed when the patience ends. [`FOLDER`] must be there.
pub(super) fn bounded(command: &mut Command, patience: &Patience) -> io::Result<Output> {
    // Output goes to files: the thread of the runtime can start no other that would drain a pipe.
    // Two of us share the folder on a donor: the pod's process and the unit's.
    let file = |stream: &str| Path::new(FOLDER).join(format!("{stream}-{}", std::process::id()));
    let (out, err) = (file("out"), file("err"));
    command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&err)?);
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Output { status, stdout: fs::read(&out)?, stderr: fs::read(&err)? });
        }
        if !patience.wait() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no end within {} s", patience.at_most().as_secs()),
            ));
        }
    }
}

/// The end of what a program said, on one line.
pub(super) fn complaint(text: &str) -> String {
    let line = text.trim().replace('\n', "; ");
    let skip = line.chars().count().saturating_sub(COMPLAINT_MAX);
    line.chars().skip(skip).collect()
}
