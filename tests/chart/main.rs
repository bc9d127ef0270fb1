//! The chart, by the tools that users have (Helm 4 and Helm 3), and on a real API server.
//!
//! What is read by people is compared with `tests/golden/chart`; `UPDATE_DOCS=1 cargo test --test chart` writes it anew.
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../support/mod.rs"]
mod support;

mod attach;
mod cases;
mod credentials;
mod install;
mod policies;
mod readme;
mod render;
mod stop;
mod values;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// Helm, in one of the two generations that people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Helm {
    Four,
    Three,
}

const BOTH: [Helm; 2] = [Helm::Four, Helm::Three];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> PathBuf {
    root().join("charts/kamino-wf")
}

/// A file of the chart.
fn chart_file(name: &str) -> String {
    fs::read_to_string(chart().join(name)).expect("a file of the chart")
}

/// One of the chart's example values.
fn values(set: &str) -> PathBuf {
    chart().join(format!("ci/{set}-values.yaml"))
}

/// The folder with both Helms. `None`, loudly, where they can't be had; in CI that is a failure.
fn tools() -> Option<&'static Path> {
    static TOOLS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = TOOLS.get_or_init(|| {
        let script = root().join("scripts/chart-tools");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("a shell");
        if output.status.success() {
            return Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "scripts/chart-tools failed; see its words above");
        // Not `eprintln`: the test harness would keep that to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: tests of the chart: scripts/chart-tools failed");
        None
    });
    found.as_deref()
}

impl Helm {
    fn command(self, tools: &Path) -> Command {
        let home = std::env::temp_dir().join(format!("kamino-wf-helm-{}", std::process::id()));
        let mut command = Command::new(tools.join(match self {
            Self::Four => "helm4",
            Self::Three => "helm3",
        }));
        // Nothing of the user's: no plugins, no repositories, no cluster.
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HELM_")) {
            command.env_remove(name);
        }
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &home);
        }
        command
    }

    /// Runs it on the chart: `verb`, perhaps a release's name, the chart, further arguments.
    fn run(self, tools: &Path, before: &[&str], after: &[&str]) -> Output {
        self.command(tools).args(before).arg(chart()).args(after).output().expect("helm")
    }

    /// What it renders, or what it says instead.
    fn template(self, tools: &Path, after: &[&str]) -> Result<String, String> {
        let output = self.run(tools, &["template", "kamino-wf"], &[&["--namespace", "kamino-wf"], after].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// The objects of a rendered chart.
fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n").map(|document| document.trim_start_matches("---\n"));
    let with_content =
        documents.filter(|document| document.lines().any(|line| !line.is_empty() && !line.starts_with('#')));
    with_content.map(|document| serde_saphyr::from_str(document).expect("good YAML")).collect()
}

/// Compares with a file, or writes it anew.
fn up_to_date(path: &Path, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path, expected).expect("the file can be written");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    if found != expected {
        let differs = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
        panic!("{} is stale from line {:?} on: UPDATE_DOCS=1 cargo test --test chart", path.display(), differs);
    }
}
