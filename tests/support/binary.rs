//! The real binary as a process: its words line by line, signals, exit codes.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::Notify,
    task::JoinSet,
};

use super::cluster::mortal;

/// The binary under test.
pub const PRODUCT: &str = env!("CARGO_BIN_EXE_kamino-wf");

/// No command takes longer here, an update in three processes' company included.
const PATIENCE: Duration = Duration::from_mins(2);

/// How the binary is called: nothing of this test's own environment reaches it.
#[derive(Debug, Clone)]
pub struct Binary {
    home: PathBuf,
    config: PathBuf,
    pub variables: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its stdout as JSON, of the version that programs may rely on.
    pub fn json(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"));
        assert_eq!(value["apiVersion"], "kamino-wf/v1", "{value}");
        value
    }

    /// Ended with this code, and its words hold all of these.
    #[track_caller]
    pub fn assert(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code(), Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word) || self.stdout.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

impl Binary {
    pub fn new(home: &Path, config: &Path) -> Self {
        Self { home: home.to_owned(), config: config.to_owned(), variables: Vec::new() }
    }

    /// With one more variable in its environment.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.variables.push((name.to_owned(), value.to_owned()));
        other
    }

    /// The command as a user would type it, in a bare environment.
    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        // Dies with the thread that starts it: the test's.
        let mut command = mortal(Path::new(PRODUCT));
        self.prepare(&mut command, arguments);
        command
    }

    /// The same without anything around it, for a tracer.
    pub fn plain_command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(PRODUCT);
        self.prepare(&mut command, arguments);
        command
    }

    fn prepare(&self, command: &mut std::process::Command, arguments: &[&str]) {
        command.args(arguments);
        if !arguments.contains(&"--config") {
            command.arg("--config").arg(&self.config);
        }
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &self.home).env("USER", "tester");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::spawn(self.command(arguments))
    }

    /// Runs it to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended().await
    }
}

/// Lines that were said so far.
#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Said {
    fn text(&self) -> String {
        self.lines.lock().expect("a lock").join("\n")
    }
}

/// A process that was started. Killed when dropped.
pub struct Running {
    child: Child,
    out: Arc<Said>,
    err: Arc<Said>,
    readers: JoinSet<()>,
}

impl Running {
    pub fn spawn(command: std::process::Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let (out, err) = (Arc::<Said>::default(), Arc::<Said>::default());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().expect("it is piped"), Arc::clone(&out)));
        readers.spawn(read(child.stderr.take().expect("it is piped"), Arc::clone(&err)));
        Self { child, out, err, readers }
    }

    /// What it said on stderr so far.
    pub fn talk(&self) -> String {
        self.err.text()
    }

    /// What it said on stdout so far.
    pub fn data(&self) -> String {
        self.out.text()
    }

    /// How many lines it said on stderr so far.
    pub fn lines(&self) -> usize {
        self.err.lines.lock().expect("a lock").len()
    }

    /// Waits until it has said, on stderr, a line that is meant, or has closed it; says which of the two.
    pub async fn says(&self, meant: impl Fn(&str) -> bool) -> bool {
        loop {
            let more = self.err.more.notified();
            {
                let lines = self.err.lines.lock().expect("a lock");
                if lines.iter().any(|line| meant(line)) {
                    return true;
                }
            }
            if Arc::strong_count(&self.err) == 1 {
                return false;
            }
            drop(tokio::time::timeout(Duration::from_millis(20), more).await);
        }
    }

    /// Waits until it has said a line with these words; a failure if it ends without.
    pub async fn until(&self, words: &str) {
        let said = tokio::time::timeout(PATIENCE, self.says(|line| line.contains(words))).await;
        assert!(said == Ok(true), "it did not say {words:?}: {}", self.talk());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let Ok(status) = tokio::time::timeout(PATIENCE, self.child.wait()).await else {
            panic!("it does not end: {}", self.talk());
        };
        let status = status.expect("our child can be waited for");
        while self.readers.join_next().await.is_some() {}
        Ended { status, stdout: self.out.text(), stderr: self.err.text() }
    }

    /// Returns at its end, and only then.
    pub async fn wait(&mut self) {
        self.child.wait().await.expect("our child can be waited for");
    }

    pub async fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.ended().await
    }
}

async fn read(pipe: impl AsyncRead + Unpin, said: Arc<Said>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        said.lines.lock().expect("a lock").push(line);
        said.more.notify_waiters();
    }
    said.more.notify_waiters();
}
