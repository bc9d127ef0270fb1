//! The controller's Lease, from and to the API server's form.
//!
//! Its times are for people and for `kubectl get lease`; who may take it is decided without them (`policy/lease.rs`).

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease as KubeLease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use crate::{
    clock::{Clock as _, SystemClock},
    cluster::{Lease, LeaseClaim},
};

/// In our words. What another program left out reads as nobody's.
pub(super) fn view(lease: KubeLease) -> Lease {
    let spec = lease.spec.unwrap_or_default();
    Lease {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(spec.lease_duration_seconds.and_then(|it| it.try_into().ok()).unwrap_or(0)),
        epoch: spec.lease_transitions.and_then(|it| it.try_into().ok()).unwrap_or(0),
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

/// As it is to be written.
pub(super) fn object(name: &str, want: &LeaseClaim, over: Option<&str>) -> KubeLease {
    let now = MicroTime(SystemClock.now());
    KubeLease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: over.map(str::to_owned),
            labels: Some([("app.kubernetes.io/name".to_owned(), "kamino-wf".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(want.holder.clone()),
            lease_duration_seconds: Some(want.duration.as_secs().try_into().unwrap_or(i32::MAX)),
            lease_transitions: Some(want.epoch.try_into().unwrap_or(i32::MAX)),
            acquire_time: want.taken.then(|| now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}
