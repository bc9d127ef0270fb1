//! The API server: does it answer, is it the clock's friend, and may we do what runs and the daemon do there.

use super::{Check, State};
use crate::{
    cluster::{Cluster as _, ClusterError, kubernetes::KubernetesCluster},
    model::Class,
    permissions::{ClusterRight, ClusterScope, Installation, LEASE, PROOFS, Uses, in_kubernetes},
};

pub(super) const RIGHTS: &str = "Kubernetes rights";

/// Looks at an API server. The second value is the cluster's id, when it could be read.
///
/// `own` is the namespace of this process, when it is told so; without one no Lease is used, and no right to it needed. Nor are
/// rights that nothing in `uses` is for.
pub async fn kubernetes(
    cluster: &KubernetesCluster,
    own: Option<&str>,
    clean_namespace: &str,
    lease: &str,
    uses: Uses,
) -> (Vec<Check>, Option<String>) {
    let mut checks = Vec::new();
    let about = match cluster.about().await {
        Ok(about) => about,
        Err(error) => {
            let remedy = format!("see that {} can be reached from here, with this identity", cluster.server());
            checks.push(Check::wrong("API server", error.to_string(), remedy));
            for name in ["API server's clock", RIGHTS] {
                checks.push(Check::skipped(name, "there is no API server to ask"));
            }
            return (checks, None);
        }
    };
    let id = cluster.cluster_id().await;
    let known = id.as_ref().map_or_else(|_| String::new(), |id| format!(", cluster {id}"));
    checks.push(Check::ok("API server", format!("{} at {}{known}", about.version, cluster.server())));
    checks.push(Check::clock("API server's clock", about.ahead));
    let rights = rights(cluster, own, clean_namespace, uses).await;
    let lacking = rights.iter().any(|check| check.state == State::Wrong);
    checks.extend(rights);
    if uses.stop {
        checks.push(proofs(cluster, clean_namespace).await);
    }
    checks.extend(id.as_ref().err().and_then(nameless));
    if let Some(namespace) = own {
        checks.push(held(cluster, namespace, lease, lacking).await);
    }
    (checks, id.ok())
}

/// A cluster that can't be told from others: no pool is looked at, and no run is begun. A right that is missing is named already.
fn nameless(error: &ClusterError) -> Option<Check> {
    let seen = format!("which cluster this is can't be told: {error}");
    (error.class() != Class::Denied)
        .then(|| Check::wrong("cluster", seen, "ask again; runs carry the uid of kube-system"))
}

async fn rights(cluster: &KubernetesCluster, own: Option<&str>, clean_namespace: &str, uses: Uses) -> Vec<Check> {
    let at = Installation {
        namespace: own.unwrap_or_default().to_owned(),
        clean_namespace: clean_namespace.to_owned(),
        service_account: String::new(),
    };
    let needed = |right: &&ClusterRight| uses.needs(right.part) && (own.is_some() || right.scope != ClusterScope::Own);
    let needed: Vec<ClusterRight> = in_kubernetes().filter(needed).copied().collect();
    let missing = match cluster.missing_rights(&needed, &at).await {
        Ok(missing) => missing,
        Err(error) => {
            return vec![Check::wrong(RIGHTS, error.to_string(), "let this identity ask about its own rights")];
        }
    };
    let all = match own {
        Some(_) => format!("all {}", needed.len()),
        None => format!("all {}; those to the Lease are not needed outside of a pod (KAMINO_NAMESPACE)", needed.len()),
    };
    if missing.is_empty() {
        return vec![Check::ok(RIGHTS, all)];
    }
    missing.iter().map(|right| lacking(right, &at)).collect()
}

fn lacking(right: &ClusterRight, at: &Installation) -> Check {
    let ClusterRight { group, resource, names, verb, steps, why, .. } = right;
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    let named = names.first().map_or_else(String::new, |name| format!(" {name}"));
    let place = at.namespace_of(right.scope).map_or_else(|| "the cluster".into(), |it| format!("namespace {it}"));
    let seen = format!("may not {verb} {resource}{group}{named} in {place}");
    let remedy = format!("{} needs it ({why}); docs/permissions.md has the roles", steps.join(", "));
    Check::wrong(RIGHTS, seen, remedy)
}

async fn proofs(cluster: &KubernetesCluster, namespace: &str) -> Check {
    const NAME: &str = "proofs of donors";
    match cluster.takes_proofs(namespace).await {
        Ok(true) => Check::ok(NAME, format!("config map {namespace}/{PROOFS} is there")),
        Ok(false) => Check::wrong(
            NAME,
            format!("config map {namespace}/{PROOFS} is not there"),
            "a donor's cleaner has nowhere to leave its proof: the chart makes it with capture.stop",
        ),
        // The rights above say which one is lacking.
        Err(error) if error.class() == Class::Denied => Check::skipped(NAME, error.to_string()),
        Err(error) => Check::wrong(NAME, error.to_string(), "see that the API server can be reached from here"),
    }
}

async fn held(cluster: &KubernetesCluster, namespace: &str, lease: &str, lacking: bool) -> Check {
    match cluster.lease(namespace, lease).await {
        Ok(None) => Check::ok("Lease", format!("{namespace}/{lease} is not there yet: nobody serves")),
        Ok(Some(found)) if found.holder.is_empty() => Check::ok("Lease", format!("{namespace}/{lease} is free")),
        Ok(Some(found)) => Check::ok("Lease", format!("{namespace}/{lease} is held by {}", found.holder)),
        // The rights above say which one is lacking.
        Err(error) if error.class() == Class::Denied && lacking => Check::skipped("Lease", error.to_string()),
        Err(error) if error.class() == Class::Denied => {
            let remedy = format!("the roles are for a Lease named {LEASE}: say so in kubernetes.lease, or change them");
            Check::wrong("Lease", error.to_string(), remedy)
        }
        Err(error) => Check::wrong("Lease", error.to_string(), "see that the API server can be reached from here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_name_is_no_good_report() {
        let what = || "get namespace kube-system".to_owned();
        let silent = nameless(&ClusterError::Uncertain { what: what(), detail: "timed out".into() });
        assert_eq!(silent.map(|check| check.state), Some(State::Wrong));
        let denied = ClusterError::Denied { what: what(), message: "forbidden".into() };
        assert_eq!(nameless(&denied), None, "the rights say it");
    }
}
