//! What a cleaning on a donor leaves in the cluster. By then the kubelet is down: nobody else can tell how it ended.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::{ApiServer, DonorRequest};
use crate::clean::patience::Patience;
use crate::clean::report::Report;

/// The API server may be restarting, or the network be slow to notice that the pods are gone.
const TRIES: Duration = Duration::from_mins(5);

/// Where a proof goes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ProofPlace {
    /// A file that says how to reach the API server, with the pod's own token.
    pub kubeconfig: PathBuf,
    /// Of the `ConfigMap`.
    pub namespace: String,
    /// Of the `ConfigMap`.
    pub name: String,
    /// In it: the run, as in names.
    pub key: String,
}

impl ProofPlace {
    /// None unless the request names `NAMESPACE/NAME`.
    pub(super) fn of(request: &DonorRequest, kubeconfig: PathBuf) -> Option<Self> {
        let (namespace, name) =
            request.proof.split_once('/').filter(|(space, name)| !space.is_empty() && !name.is_empty())?;
        let [namespace, name, key] = [namespace, name, request.short_run()].map(str::to_owned);
        Some(Self { kubeconfig, namespace, name, key })
    }
}

/// The words of the proof. Field names are format: the step `CleanDisk` reads them.
pub(super) fn words(request: &DonorRequest, report: &Report) -> String {
    let text = serde_json::from_str::<serde_json::Value>(&report.to_json()).unwrap_or_default();
    json!({
        "version": 1,
        "run": request.errand.run,
        "nonce": request.errand.nonce,
        "profile": request.errand.profile.name(),
        "nodeUid": request.node_uid,
        "productUuid": request.product_uuid,
        "bootId": request.boot_id,
        "manifest": report.manifest,
        "verdict": report.verdict,
        "reason": report.reason,
        "report": text,
    })
    .to_string()
}

/// Sends it until it has arrived, or the patience ends. A repeat writes the same words over themselves.
pub(super) fn leave(place: &ProofPlace, words: &str, cluster: &dyn ApiServer) -> Result<(), String> {
    let patience = Patience::for_at_most(TRIES);
    loop {
        match cluster.leave_proof(place, words) {
            Ok(()) => return Ok(()),
            Err(error) if !patience.wait_long() => return Err(error),
            Err(_) => {}
        }
    }
}
