//! The command `kamino-wf clean`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::custom::of_argument;
use super::{
    ApiServer, CleanError, CleanRequest, DEFAULT_REPORT, DEFAULT_WORKDIR, DonorRequest, Errand, Manifest, Report,
    clean, clean_as_unit, clean_donor, guard, write_report,
};
use crate::model::Profile;

/// Clean the disk of a node so that it, or a copy of it, can become an image.
///
/// With --device: a copy, as a block device or a raw image that nobody else uses. Removes what made it that node's (machine id, host
/// name, ssh keys, kubelet and agent credentials) and what its tenants left (containers, volumes, logs). Keeps the system, its patches
/// and the cached images. The node itself is never touched. It may be run twice, and run again after it was killed: the disk comes out
/// the same. Needs root and the right to mount: in a container, a privileged one.
///
/// With --host-root: the disk of the node that it runs on, for `capture: stop`. STOPS ITS KUBELET AND KILLS ITS CONTAINERS; the node is itself
/// again after a restart. Removes what tenants left, and keeps what makes it this node; what a copy must not have goes at the copy's first
/// boot. A run starts this in a pod of its own, when the node is drained.
///
/// Exit codes: 0 clean, 2 wrong arguments, 3 refused and nothing cleaned, 8 failed part-way (a copy: run it again; a node: restart it).
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["device", "host_root", "as_unit", "guard"])))]
pub struct CleanArgs {
    /// Where the copy is attached: a whole disk with a GPT, or a bare ext4 file system.
    #[arg(long, value_name = "PATH", requires = "errand")]
    device: Option<PathBuf>,
    /// Where the root of the node is mounted: never this program's own root.
    #[arg(long, value_name = "PATH", requires_all = ["errand", "node_uid", "product_uuid", "boot_id", "proof"])]
    host_root: Option<PathBuf>,
    /// Which kind of node the disk is of; decides what is removed and what must stay. A file is a profile of your own
    /// (docs/profiles.md), for --device only; its whole text will do as well.
    #[arg(long, value_name = "aks-engine|kubeadm|FILE", value_parser = of_argument, group = "errand", requires_all = ["run", "nonce"])]
    profile: Option<Profile>,
    /// The run that this belongs to; comes back in the report.
    #[arg(long, value_name = "ID", value_parser = word)]
    run: Option<String>,
    /// A word of this attempt's own; comes back in the report, so that an old report is not taken for this one.
    #[arg(long, value_name = "WORD", value_parser = word)]
    nonce: Option<String>,
    /// With --host-root: uid of the node's Node; comes back in the proof.
    #[arg(long, value_name = "UID", value_parser = word)]
    node_uid: Option<String>,
    /// With --host-root: the machine's product UUID. In any other machine nothing is touched.
    #[arg(long, value_name = "UUID", value_parser = word)]
    product_uuid: Option<String>,
    /// With --host-root: the machine's boot id. In any other boot nothing is touched.
    #[arg(long, value_name = "UUID", value_parser = word)]
    boot_id: Option<String>,
    /// With --host-root: the `ConfigMap` that takes the proof, by the pod's own token.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    proof: Option<String>,
    /// With --host-root and profile kubeadm: take the kubelet's credential from the disk, and leave a token for a new one, which lives as
    /// long as this Secret of the proof's namespace.
    #[arg(long, value_name = "SECRET", value_parser = word, requires = "host_root")]
    rebootstrap: Option<String>,
    /// Where to leave the report, one line of JSON. The default is what Kubernetes shows as a container's termination message.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_REPORT)]
    report: PathBuf,
    /// With --device: a folder to mount a private tmpfs over; nobody else sees it, and it is gone afterwards. It need not exist if one above it does.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_WORKDIR)]
    workdir: PathBuf,
    /// What --host-root starts on the host, with the folder that it has left there.
    #[arg(long, value_name = "FOLDER", hide = true)]
    as_unit: Option<PathBuf>,
    /// What a cleaned node's disk runs early at each boot.
    #[arg(long, hide = true)]
    guard: bool,
}

/// Runs the command: the report goes to its file and to stdout, a complaint to stderr.
#[must_use]
pub fn run(args: CleanArgs, cluster: &dyn ApiServer) -> ExitCode {
    if args.guard {
        return guard();
    }
    if let Some(folder) = &args.as_unit {
        return match clean_as_unit(folder, cluster) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("failed to {}", error.reason()));
                ExitCode::from(error.exit_code())
            }
        };
    }
    // The parser has made sure of these.
    let CleanArgs { profile: Some(profile), run: Some(run), nonce: Some(nonce), .. } = args else {
        complain("--profile, --run and --nonce are needed");
        return ExitCode::from(2);
    };
    let errand = Errand { profile: profile.clone(), run, nonce };
    if let Some(device) = args.device {
        let request = CleanRequest { device, errand: errand.clone(), workdir: args.workdir };
        let manifest = Manifest::for_copy(&profile);
        return tell(clean(&request), &errand, &manifest, &args.report);
    }
    let words = (args.host_root, args.node_uid, args.product_uuid, args.boot_id, args.proof);
    let (Some(host_root), Some(node_uid), Some(product_uuid), Some(boot_id), Some(proof)) = words else {
        complain("--host-root, --node-uid, --product-uuid, --boot-id and --proof are needed together");
        return ExitCode::from(2);
    };
    let rebootstrap = args.rebootstrap;
    let request = DonorRequest { errand: errand.clone(), node_uid, product_uuid, boot_id, proof, rebootstrap };
    tell(clean_donor(&host_root, &request), &errand, &request.manifest(), &args.report)
}

fn tell(outcome: Result<Report, CleanError>, errand: &Errand, manifest: &Manifest, path: &Path) -> ExitCode {
    let (report, code) = match outcome {
        Ok(report) => {
            let code = report.verdict.exit_code();
            (report, code)
        }
        Err(error) => {
            complain(&format!("failed to {}", error.reason()));
            (Report::of_failure(errand, manifest, &error), error.exit_code())
        }
    };
    say(&report.to_json());
    if let Err(error) = write_report(path, &report) {
        complain(&format!("failed to write the report to {}: {error}", path.display()));
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
