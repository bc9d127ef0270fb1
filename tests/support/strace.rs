//! Reads what `strace -f -y -o FILE` wrote, and asks of it the one question that a crash of the machine would ask:
//! was everything on disk before somebody was told so?
//!
//! Files are told apart by path (`-y`), so it does not matter which handle is synced.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// What can change a file or make it durable, and what can tell somebody.
const TRACED: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,ftruncate,fallocate,sendto,sendmsg,fsync,fdatasync,\
                      sync_file_range,syncfs";

/// One system call. `began` and `ended` are lines of the log: the order in which the kernel stopped for the tracer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Such as `pwrite64`.
    pub(crate) name: String,
    /// What its first argument refers to: a path, `pipe:[..]`, `socket:[..]`.
    pub(crate) file: String,
    /// All arguments, as strace prints them.
    pub(crate) arguments: String,
    /// Line of its entry.
    pub(crate) began: usize,
    /// Line of its return; `None` if the process died in it.
    pub(crate) ended: Option<usize>,
    /// It did not fail.
    pub(crate) succeeded: bool,
}

impl Call {
    /// Changes its file's bytes or length.
    pub(crate) fn writes(&self) -> bool {
        matches!(
            self.name.as_str(),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "ftruncate" | "fallocate"
        )
    }

    /// Makes its file durable. `sync_file_range` does not: it flushes neither metadata nor the disk's own cache.
    pub(crate) fn syncs(&self) -> bool {
        self.succeeded && matches!(self.name.as_str(), "fsync" | "fdatasync")
    }
}

/// An acknowledgement that came before its bytes were durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The write that no sync followed in time.
    pub(crate) write: Call,
    /// What was told all the same.
    pub(crate) ack: Call,
}

/// `command`, run under strace, with its log going to `log`. Strings are cut to 64 characters.
pub(crate) fn traced(command: &Command, log: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-s", "64", "-e", TRACED, "-o"]).arg(log).arg("--");
    strace.arg(command.get_program()).args(command.get_args());
    pass_environment(command, &mut strace);
    strace
}

/// `command`, one of whose system calls on `file` fails: `fault` is what strace's `inject=` takes; it counts in each thread.
pub(crate) fn with_fault(command: &Command, file: &Path, fault: &str) -> Command {
    let mut strace = Command::new("strace");
    let call = fault.split(':').next().unwrap_or(fault);
    strace.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(file);
    strace.args(["-e", &format!("trace={call}"), "-e", &format!("inject={fault}"), "--"]);
    strace.arg(command.get_program()).args(command.get_args());
    pass_environment(command, &mut strace);
    strace
}

fn pass_environment(command: &Command, strace: &mut Command) {
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
}

/// Is strace there and may it trace? If not, say so loudly; on CI that is a failure.
pub(crate) fn available() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().is_ok_and(|s| s.success());
    if !works {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "strace is missing or may not trace (apt-get install strace)"
        );
        // Not `eprintln`: the test harness would keep that to itself.
        let why = "strace is missing or may not trace (apt-get install strace)";
        let _ = writeln!(std::io::stderr(), "SKIPPED: the order of syncs, and what fails in them: {why}");
    }
    works
}

/// Calls in the order in which they began.
pub(crate) fn parse(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for (line, text) in log.lines().enumerate() {
        let Some((thread, rest)) = text.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some(call) = unfinished.remove(thread).and_then(|at| calls.get_mut(at)) {
                call.ended = Some(line);
                call.succeeded = succeeded(resumed);
            }
        } else if let Some((name, arguments)) = rest.split_once('(') {
            let begun = arguments.strip_suffix(" <unfinished ...>");
            if begun.is_some() {
                unfinished.insert(thread, calls.len());
            }
            calls.push(Call {
                name: name.to_owned(),
                file: file(arguments),
                arguments: begun.unwrap_or(arguments).to_owned(),
                began: line,
                ended: begun.is_none().then_some(line),
                succeeded: begun.is_none() && succeeded(arguments),
            });
        }
    }
    calls
}

/// The acknowledgements before which some earlier write to `file` was not yet synced: at most one for each.
///
/// Meant for a process that does one thing after the other: with several commits under way, writes of the next one may
/// rightly lie between the sync of this one and its acknowledgement.
pub(crate) fn unsynced_acks(calls: &[Call], file: &Path, is_ack: impl Fn(&Call) -> bool) -> Vec<Violation> {
    let file = file.to_string_lossy();
    let ours: Vec<&Call> = calls.iter().filter(|call| call.file == file).collect();
    let unsynced = |ack: &Call| {
        let synced_in_time = |write: &Call| {
            let sync = |call: &&&Call| {
                call.syncs() && write.ended < Some(call.began) && call.ended.is_some_and(|end| end < ack.began)
            };
            write.ended.is_some() && ours.iter().any(|call| sync(&call))
        };
        let newest = ours.iter().rev().filter(|call| call.writes() && call.began < ack.began);
        newest.into_iter().find(|write| !synced_in_time(write)).map(|write| (*write).clone())
    };
    let acks = calls.iter().filter(|call| is_ack(call));
    acks.filter_map(|ack| unsynced(ack).map(|write| Violation { write, ack: ack.clone() })).collect()
}

/// `3</path>, ...` or `3</path>)`.
fn file(arguments: &str) -> String {
    let Some((_, rest)) = arguments.split_once('<') else { return String::new() };
    let end = rest.find(">,").or_else(|| rest.find(">)")).or_else(|| rest.find("> ")).unwrap_or(rest.len());
    rest[..end].to_owned()
}

fn succeeded(text: &str) -> bool {
    text.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with(['-', '?']))
}

mod tests {
    use super::*;

    const FILE: &str = "/s/db/db";

    fn violations(log: &str) -> usize {
        let calls = parse(log);
        unsynced_acks(&calls, Path::new(FILE), |call| call.arguments.contains("ACK")).len()
    }

    #[test]
    fn a_sync_between_write_and_acknowledgement_is_what_it_takes() {
        let good = "7 pwrite64(4</s/db/db>, \"x\", 1, 0) = 1\n7 fdatasync(5</s/db/db>) = 0\n9 write(1<pipe:[3]>, \"ACK 1\\n\", 6) = 6\n";
        assert_eq!(violations(good), 0);
        let none = "7 pwrite64(4</s/db/db>, \"x\", 1, 0) = 1\n9 write(1<pipe:[3]>, \"ACK 1\\n\", 6) = 6\n";
        assert_eq!(violations(none), 1);
        let range = good.replace("fdatasync(5</s/db/db>)", "sync_file_range(5</s/db/db>, 0, 0, 0)");
        assert_eq!(violations(&range), 1);
        assert_eq!(violations(&good.replace("fdatasync(5</s/db/db>) = 0", "fdatasync(5</s/db/db>) = -1 EIO (..)")), 1);
        assert_eq!(violations(&good.replace("fdatasync(5</s/db/db>)", "fdatasync(5</s/mark>)")), 1, "another file");
    }

    #[test]
    fn a_sync_that_is_not_over_or_began_too_early_does_not_count() {
        let late = "7 pwrite64(4</s/db/db>, \"x\", 1, 0) = 1\n7 fdatasync(5</s/db/db> <unfinished ...>\n\
                    9 write(1<pipe:[3]>, \"ACK 1\\n\", 6) = 6\n7 <... fdatasync resumed>) = 0\n";
        assert_eq!(violations(late), 1);
        let early = "7 pwrite64(4</s/db/db>, \"x\", 1, 0 <unfinished ...>\n8 fdatasync(5</s/db/db>) = 0\n\
                     7 <... pwrite64 resumed>) = 1\n9 write(1<pipe:[3]>, \"ACK 1\\n\", 6) = 6\n";
        assert_eq!(violations(early), 1);
    }
}
