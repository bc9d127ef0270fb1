//! The Python tool's workloads in the cluster: two orchestrators of one pool would take each other's nodes and images.

use serde::Serialize;

/// A `CronJob` or a Job that runs `vmss-prototype`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rival {
    /// `CronJob` or `Job`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It runs, or will by itself.
    pub live: bool,
    /// What says so, as in `schedule 42 0 * * *` or `suspended`.
    pub state: String,
}

impl Rival {
    /// What stops it for now, without losing it.
    #[must_use]
    pub fn stopped_by(&self) -> String {
        let Self { kind, namespace, name, .. } = self;
        match kind.as_str() {
            "CronJob" => format!("kubectl -n {namespace} patch cronjob {name} -p '{{\"spec\":{{\"suspend\":true}}}}'"),
            // Half-way it leaves a node cordoned or powered off.
            _ => format!("let it end (kubectl -n {namespace} wait --for=condition=complete job/{name})"),
        }
    }
}

impl std::fmt::Display for Rival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{} ({})", self.kind, self.namespace, self.name, self.state)
    }
}
