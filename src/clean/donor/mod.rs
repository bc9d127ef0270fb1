//! A donor's own disk, cleaned in place (`capture: stop`): `kamino-wf clean --host-root`.
//!
//! ```text
//! pod   in the container: is this the machine that is meant? then it puts this program beside systemd, and starts it there
//! unit  a transient unit of the host, which outlives the kubelet, the runtime and the pod: guard, services, containers, files
//!       proof  what it leaves in the cluster when all is done, or when it failed
//! guard at the first boot of a copy, before cloud-init and the kubelet: the other half of the manifest
//! ```
//!
//! The donor keeps what makes it this node, else it never comes back. So a copy of its disk would come up as the donor, and
//! speak as it: the guard, which is on the disk before anything else is done to it, makes somebody new of any other machine, or
//! keeps its kubelet from starting. On the donor itself it does nothing.
//!
//! Files are looked for on the root file system alone, seen through a mount of its own: what is mounted below it, a tenant's volume
//! that would not be unmounted above all, can't be reached. Up to the guard everything may refuse, and then the machine is as it was.
//! After that a failure, a kill or a power cut leaves a machine that is itself again at its next boot.

mod guard;
mod machine;
mod pod;
mod proof;
mod services;
mod unit;

use std::path::Path;

use super::cleaning::Errand;
use super::error::CleanError;
use super::manifest::Manifest;
use super::report::Report;

pub use guard::stand as guard;
pub use proof::ProofPlace;

/// A donor to clean, from inside.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct DonorRequest {
    /// For whom.
    pub errand: Errand,
    /// Of the donor's Node; comes back in the proof.
    pub node_uid: String,
    /// Of the donor's machine. On any other nothing happens.
    pub product_uuid: String,
    /// Of the donor's boot. In any other nothing happens.
    pub boot_id: String,
    /// `NAMESPACE/NAME` of the `ConfigMap` that takes the proof.
    pub proof: String,
}

/// In the pod, which has the host's root at `host_root`, and its process ids. The pod goes with all other containers: an end that
/// is seen is a refusal, or a failure before the runtime was down.
///
/// # Errors
/// See [`CleanError::exit_code`]: either nothing was cleaned, or the machine needs a restart.
pub fn clean_donor(host_root: &Path, request: &DonorRequest) -> Result<Report, CleanError> {
    super::cleaning::apart(|| pod::run(host_root, request))
}

/// On the host, where [`clean_donor`] has started it with what it has left in `folder`. `send` leaves a proof in the cluster.
///
/// # Errors
/// As [`clean_donor`].
pub fn clean_as_unit(folder: &Path, send: SendProof<'_>) -> Result<Report, CleanError> {
    unit::run(folder, send)
}

/// Leaves a proof at a place, or says why it could not.
pub type SendProof<'a> = &'a dyn Fn(&ProofPlace, &str) -> Result<(), String>;

impl DonorRequest {
    /// The run as it stands in names: the last group of its uuid.
    fn short_run(&self) -> &str {
        self.errand.run.rsplit('-').next().unwrap_or_default()
    }

    /// The lines that are applied to the donor itself.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        Manifest::for_donor(&self.errand.profile)
    }
}
