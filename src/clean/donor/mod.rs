//! A donor's own disk, cleaned in place (`capture: stop`): `kamino-wf clean --host-root`.
//!
//! ```text
//! pod   in the container: is this the machine that is meant? then it puts this program beside systemd, and starts it there
//! unit  a transient unit of the host, which outlives the kubelet, the runtime and the pod: guard, services, containers, files
//!       credential  the kubelet's own goes, and what a new one is asked for with comes (`credential: rebootstrap`)
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

mod credential;
mod guard;
mod machine;
mod pod;
mod proof;
mod services;
mod unit;

use std::path::Path;
use std::time::Duration;

use super::cleaning::Errand;
use super::error::CleanError;
use super::manifest::Manifest;
use super::report::Report;
use crate::model::Credential;

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
    /// The Secret of that namespace that keeps the token for a new credential alive; without it the credential is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebootstrap: Option<String>,
}

/// In the pod, which has the host's root at `host_root`, and its process ids. The pod goes with all other containers: an end that
/// is seen is a refusal, or a failure before the runtime was down.
///
/// # Errors
/// See [`CleanError::exit_code`]: either nothing was cleaned, or the machine needs a restart.
pub fn clean_donor(host_root: &Path, request: &DonorRequest) -> Result<Report, CleanError> {
    super::cleaning::apart(|| pod::run(host_root, request))
}

/// On the host, where [`clean_donor`] has started it with what it has left in `folder`.
///
/// # Errors
/// As [`clean_donor`].
pub fn clean_as_unit(folder: &Path, cluster: &dyn ApiServer) -> Result<Report, CleanError> {
    unit::run(folder, cluster)
}

/// What a cleaner on a donor asks of the cluster, with the token of its own pod. Each says in words why it could not.
pub trait ApiServer {
    /// Leaves a proof.
    ///
    /// # Errors
    /// It may be left once more.
    fn leave_proof(&self, place: &ProofPlace, words: &str) -> Result<(), String>;
    /// A token for the node's next credential, which lives as long as a Secret beside the proof, and at most for so long.
    ///
    /// # Errors
    /// It may be asked for once more.
    fn bound_token(&self, place: &ProofPlace, secret: &str) -> Result<(String, Duration), String>;
    /// Whether, as this file says who asks and whom, a node's certificate may be asked for and is approved.
    ///
    /// # Errors
    /// It is not, or can't be known: it may be tried once more.
    fn may_bootstrap(&self, kubeconfig: &Path) -> Result<(), String>;
}

impl DonorRequest {
    /// The run as it stands in names: the last group of its uuid.
    fn short_run(&self) -> &str {
        self.errand.run.rsplit('-').next().unwrap_or_default()
    }

    /// The lines that are applied to the donor itself.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        let credential = if self.rebootstrap.is_some() { Credential::Rebootstrap } else { Credential::Keep };
        Manifest::for_donor(&self.errand.profile, credential)
    }
}
