//! The command `kamino-wf clean`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{CleanRequest, DEFAULT_REPORT, DEFAULT_WORKDIR, Report, clean, write_report};
use crate::model::Profile;

/// Clean a copy of a node's disk so that it can become an image.
///
/// Removes from the copy what made it that node's (machine id, host name, ssh keys, kubelet and agent credentials) and what its
/// tenants left (containers, volumes, logs). Keeps the system, its patches and the cached images. The node itself is never touched:
/// give it a copy, as a block device or a raw image that nobody else uses.
///
/// It may be run twice, and run again after it was killed: the disk comes out the same.
///
/// Needs root and the right to mount: in a container, a privileged one.
///
/// Exit codes: 0 clean, 2 wrong arguments, 3 refused and nothing cleaned, 8 failed part-way (run it again).
#[derive(Debug, clap::Args)]
pub struct CleanArgs {
    /// Where the copy is attached: a whole disk with a GPT, or a bare ext4 file system.
    #[arg(long, value_name = "PATH")]
    device: PathBuf,
    /// Which kind of node the disk came from; decides what is removed and what must stay.
    #[arg(long, value_name = "aks-engine|kubeadm")]
    profile: Profile,
    /// The run that this belongs to; comes back in the report.
    #[arg(long, value_name = "ID", value_parser = word)]
    run: String,
    /// A word of this attempt's own; comes back in the report, so that an old report is not taken for this one.
    #[arg(long, value_name = "WORD", value_parser = word)]
    nonce: String,
    /// Where to leave the report, one line of JSON. The default is what Kubernetes shows as a container's termination message.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_REPORT)]
    report: PathBuf,
    /// A folder to mount a private tmpfs over; nobody else sees it, and it is gone afterwards. It need not exist if one above it does.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_WORKDIR)]
    workdir: PathBuf,
}

/// Runs the command: the report goes to its file and to stdout, a complaint to stderr.
#[must_use]
pub fn run(args: CleanArgs) -> ExitCode {
    let CleanArgs { device, profile, run, nonce, report: report_path, workdir } = args;
    let request = CleanRequest { device, profile, run, nonce, workdir };
    let (report, code) = match clean(&request) {
        Ok(report) => (report, 0),
        Err(error) => {
            complain(&format!("failed to {}", error.reason()));
            (Report::of_failure(&request, &error), error.exit_code())
        }
    };
    say(&report.to_json());
    if let Err(error) = write_report(&report_path, &report) {
        complain(&format!("failed to write the report to {}: {error}", report_path.display()));
    }
    ExitCode::from(code)
}

/// Words that come back in JSON, tags and file names: short and plain.
fn word(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if plain && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 64 letters, digits, dots, dashes or underscores".to_owned())
    }
}

/// A reader that went away must not change how the cleaning ends.
fn say(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
}

fn complain(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("kamino-wf clean: {line}\n"));
}
