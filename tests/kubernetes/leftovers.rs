//! What runs have left in a real cluster: found by label, and taken away in the order of undo.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kamino_wf::{
    clock::{Clock, SystemClock},
    cluster::{CleaningSpec, Cluster, Leftover, kubernetes::KubernetesCluster},
    permissions::{KUBERNETES, PROOFS, STOP},
    policy::leftovers::{KnownRun, Patience, Standing},
    sim::{Scene, Shared, SimCloud},
    workflow::{Ports, sweep},
};
use kube::Api;
use serde_json::json;

use crate::{
    spec,
    support::{
        cluster::shared,
        installed::{create, until},
    },
};

async fn leave(port: &KubernetesCluster, want: &CleaningSpec) {
    port.create_volume(want).await.expect("a volume");
    port.create_claim(want).await.expect("a claim");
    port.create_pod(want).await.expect("a pod");
}

fn names(found: &[Leftover]) -> BTreeSet<&str> {
    found.iter().map(|it| it.name.as_str()).collect()
}

/// They are read where the right to it was given, and passed over where it was not.
#[tokio::test]
async fn proofs_are_found_by_the_run_that_they_are_of() {
    let Some(cluster) = shared() else { return };
    let rights: Vec<_> = KUBERNETES.iter().chain(STOP).copied().collect();
    let installed = cluster.service_account_kubeconfig(&rights).await;
    let namespace = installed.at.clean_namespace.as_str();
    let run = SystemClock.new_run();
    let data =
        json!({ run.short(): json!({ "run": run, "verdict": "clean" }).to_string(), "somebodys": "none of ours" });
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin().await, namespace);
    create(&maps, json!({ "metadata": { "name": PROOFS }, "data": data })).await;
    let port = installed.connect().await;
    assert_eq!(port.leftovers(namespace).await.expect("a look").proofs, [run]);
    port.forget_proof(namespace, run).await.expect("it goes");
    assert_eq!(port.leftovers(namespace).await.expect("a look").proofs, []);
}

#[tokio::test]
async fn what_ended_runs_left_goes_and_what_is_anybody_elses_stays() {
    let Some(cluster) = shared() else { return };
    let (ours, theirs) =
        (cluster.service_account_kubeconfig(KUBERNETES).await, cluster.service_account_kubeconfig(KUBERNETES).await);
    let (port, their_port) = (ours.connect().await, theirs.connect().await);
    let (ended, open, foreign) = (spec(&ours), spec(&ours), spec(&theirs));
    let namespace = ended.namespace.as_str();
    for (port, want) in [(&port, &ended), (&port, &open), (&their_port, &foreign)] {
        leave(port, want).await;
    }
    let admin: Api<Pod> = Api::namespaced(cluster.admin().await, namespace);
    let unlabelled =
        json!({ "metadata": { "name": "somebodys" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    create(&admin, unlabelled).await;

    let found = port.leftovers(namespace).await.expect("a look");
    assert!(found.proofs.is_empty(), "nobody cleans donors here, and it was not asked for more");
    let expected = BTreeSet::from([ended.name.as_str(), open.name.as_str()]);
    for found in [&found.pods, &found.claims, &found.volumes] {
        assert_eq!(names(found), expected, "{found:#?}");
        for it in found {
            let run = if it.name == ended.name { ended.run } else { open.run };
            assert_eq!(it.owned.run, Some(run.short()));
            let age = SystemClock.now().duration_since(it.created.expect("a time"));
            assert!(age < SignedDuration::from_mins(2) && !it.running && !it.owned.deleting, "{it:?}");
        }
    }

    let cloud = SimCloud::new(Shared::new(Scene::nominal().world()), Arc::default());
    let ports = Ports { cloud: &cloud, cluster: &port, clock: &SystemClock };
    let none = Patience { after_end: Duration::ZERO, unknown: Duration::ZERO };
    let known = vec![
        KnownRun { id: ended.run, standing: Standing::Ended(SystemClock.now()) },
        KnownRun { id: open.run, standing: Standing::Open },
    ];
    until("the sweeps to find nothing to do", async || {
        let known = async || Ok::<_, Infallible>(known.clone());
        let Ok(report) = sweep(ports, &BTreeSet::new(), namespace, none, &|| true, known).await;
        assert!(report.troubles.is_empty(), "{report:#?}");
        report.swept.is_empty()
    })
    .await;
    let left = port.cleaning(namespace, &ended.name).await.expect("a look");
    assert!(left.pod.is_none() && left.claim.is_none() && left.volume.is_none(), "{left:?}");
    for (port, want) in [(&port, &open), (&their_port, &foreign)] {
        let left = port.cleaning(&want.namespace, &want.name).await.expect("a look");
        assert!(left.pod.is_some() && left.claim.is_some() && left.volume.is_some(), "{left:?}");
    }
    assert!(admin.get_opt("somebodys").await.expect("the administrator may look").is_some());
    let audit = cluster.audit().await;
    let deletions = audit.iter().filter(|it| it.user == ours.user && it.verb == "delete");
    let deletions: Vec<_> = deletions.map(|it| (it.resource.as_str(), it.name.as_str(), it.code)).collect();
    let name = ended.name.as_str();
    let expected = [("pods", name, 200), ("persistentvolumeclaims", name, 200), ("persistentvolumes", name, 200)];
    assert_eq!(deletions, expected, "each once, and nothing else");
}
