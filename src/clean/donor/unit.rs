//! The order of a cleaning in place: look, guard, stop, clean, look again, prove.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, major, minor};
use rustix::thread::UnshareFlags;

use super::credential::Renewal;
use super::pod::{ORDER, Order, REPORT};
use super::services::{still_down, stop_all, unmount_volumes};
use super::{ApiServer, DonorRequest, guard, machine, proof};
use crate::clean::beneath::Beneath;
use crate::clean::canary::RawDisk;
use crate::clean::cleaning::{apart, apply, kernels, scrub_databases};
use crate::clean::error::CleanError;
use crate::clean::loops::make_node;
use crate::clean::mounts::{Mounted, Workbench, unshare};
use crate::clean::patience::Patience;
use crate::clean::report::{Report, Verdict};
use crate::clean::{node, packages, runtime, trim, verify};
use crate::model::Containerd;

pub(super) fn run(folder: &Path, cluster: &dyn ApiServer) -> Result<Report, CleanError> {
    let order = read_order(folder).map_err(CleanError::unprepared(format!("read {}", folder.join(ORDER).display())))?;
    let looked = look(folder, &order, cluster);
    let begun = looked.is_ok();
    let outcome = looked.and_then(|renewal| clean(folder, &order.request, renewal.as_ref()));
    let report = told(begun, &outcome, &order.request);
    // A refusal is the pod's to tell: all of this machine goes on as it was.
    if report.verdict != Verdict::Refused {
        let words = proof::words(&order.request, &report);
        proof::leave(&order.place, &words, cluster).map_err(|error| CleanError::Machine {
            what: format!("leave the proof at {}: {error}", order.request.proof),
        })?;
    }
    let _ = fs::remove_file(&order.place.kubeconfig);
    write_report(folder, &report).map_err(CleanError::part_way("leave the report for the pod"))?;
    outcome
}

/// The same errors leave the machine as it was only before its services were stopped.
fn told(begun: bool, outcome: &Result<Report, CleanError>, request: &DonorRequest) -> Report {
    let mut report = match outcome {
        Ok(report) => report.clone(),
        Err(error) => Report::of_failure(&request.errand, &request.manifest(), error),
    };
    if begun && report.verdict == Verdict::Refused {
        report.verdict = Verdict::Failed;
    }
    report
}

fn read_order(folder: &Path) -> io::Result<Order> {
    Ok(serde_json::from_slice(&fs::read(folder.join(ORDER))?)?)
}

/// At once or not at all: the pod's process reads it.
fn write_report(folder: &Path, report: &Report) -> io::Result<()> {
    let draft = folder.join("report.draft");
    fs::write(&draft, report.to_json())?;
    fs::rename(draft, folder.join(REPORT))
}

/// What may refuse, and then the guard.
fn look(folder: &Path, order: &Order, cluster: &dyn ApiServer) -> Result<Option<Renewal>, CleanError> {
    let request = &order.request;
    machine::refuse_another(request)?;
    machine::refuse_unfit(&request.errand.profile)?;
    let renewal = Renewal::prepare(folder, request, &order.place, cluster)?;
    apart(|| prepare(folder, request))?;
    Ok(renewal)
}

/// From here on the kubelet of this boot does not come back.
fn clean(folder: &Path, request: &DonorRequest, renewal: Option<&Renewal>) -> Result<Report, CleanError> {
    let began = Patience::for_at_most(Duration::MAX);
    // In the mounts of the host, where the volumes are.
    stop_all(&request.errand.profile)?;
    unmount_volumes()?;
    let mut report = apart(|| take_away(folder, request, renewal))?;
    still_down()?;
    machine::refuse_another(request)?;
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.verdict = Verdict::Clean;
    Ok(report)
}

/// The root file system alone, in mounts that nobody else sees.
struct Root {
    // In this order they go.
    beneath: Beneath,
    mounted: Mounted,
    bench: Workbench,
}

impl Root {
    /// On a thread of its own only, see [`apart`].
    fn see(folder: &Path) -> Result<Self, CleanError> {
        unshare(UnshareFlags::NEWNS | UnshareFlags::FS).map_err(CleanError::unprepared("make a mount namespace"))?;
        // There, so that nothing else of the folder is mounted over.
        let bench = folder.join("bench");
        fs::create_dir_all(&bench).map_err(CleanError::unprepared(format!("make {}", bench.display())))?;
        let bench = Workbench::new(&bench).map_err(CleanError::unprepared("mount a tmpfs"))?;
        let seen = || CleanError::unprepared("see the root file system alone");
        let mounted = bench.bind_root().map_err(seen())?;
        let beneath = Beneath::new(mounted.at()).map_err(seen())?;
        Ok(Self { beneath, mounted, bench })
    }

    /// The bytes under it.
    fn raw(&self) -> io::Result<File> {
        let device = fs::metadata(self.mounted.at())?.dev();
        let node = self.bench.path().join("root-disk");
        make_node(&node, FileType::BlockDevice, major(device), minor(device))?;
        File::open(node)
    }
}

fn prepare(folder: &Path, request: &DonorRequest) -> Result<(), CleanError> {
    let root = Root::see(folder)?;
    node::refuse_unknown(&root.beneath, Path::new("/"), &request.errand.profile)?;
    packages::refuse_halfway(&root.beneath)?;
    for entry in request.manifest().entries() {
        root.beneath.expand(&entry.pattern).map_err(CleanError::Unreadable)?;
    }
    root.raw().map_err(CleanError::unprepared("open the disk under the root file system"))?;
    guard::place(root.mounted.at(), &folder.join("kamino-wf"), request).map_err(CleanError::part_way("place the guard"))
}

fn take_away(folder: &Path, request: &DonorRequest, renewal: Option<&Renewal>) -> Result<Report, CleanError> {
    let manifest = request.manifest();
    let mut report = Report::begin(&request.errand, &manifest);
    "of the machine that ran the cleaner".clone_into(&mut report.root);
    let root = Root::see(folder)?;
    let (beneath, at) = (&root.beneath, root.mounted.at());
    report.kernels = kernels(beneath).map_err(CleanError::Path)?;
    let removed = runtime::remove_containers(at, &Containerd::default())?;
    (report.containers, report.images) = (removed.containers, removed.images);
    report.pages_zeroed = scrub_databases(beneath, &Containerd::default()).map_err(CleanError::Path)?;
    if let Some(renewal) = renewal {
        renewal.put(beneath)?;
    }
    apply(beneath, at, &manifest, &mut report)?;
    let raw = root.raw().map_err(CleanError::part_way("open the disk under the root file system"))?;
    let trimmed =
        trim::trim(at, &RawDisk { disk: &raw, offset: 0 }).map_err(CleanError::part_way("trim the free blocks"))?;
    report.discard = Some(trimmed.discard);
    report.trimmed_bytes = trimmed.bytes;
    (report.size_bytes, report.free_bytes) = (trimmed.size_bytes, trimmed.free_bytes);
    // Last, as the machine goes on beside it. The trim has synced all that was done before.
    packages::refuse_halfway(beneath)?;
    verify::verify(beneath, &manifest)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::Errand;
    use crate::model::Profile;

    #[test]
    fn a_machine_whose_services_are_down_is_never_told_to_be_as_it_was() {
        let errand = Errand { profile: Profile::Kubeadm, run: "0123456789ab".into(), nonce: "n".into() };
        let request = DonorRequest {
            errand,
            node_uid: "uid".into(),
            product_uuid: "machine".into(),
            boot_id: "boot".into(),
            proof: "kamino-wf-clean/kamino-wf-proofs".into(),
            rebootstrap: None,
        };
        let halfway = || Err(CleanError::unprepared("look at the packages")(io::Error::other("half installed")));
        let before = told(false, &halfway(), &request);
        assert_eq!(before.verdict, Verdict::Refused);
        let after = told(true, &halfway(), &request);
        assert_eq!(after.verdict, Verdict::Failed);
        assert_eq!((&after.reason, after.reason.is_some()), (&before.reason, true), "why is said all the same");
    }
}
