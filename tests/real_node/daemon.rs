//! Installed by the chart, on a real node: a whole update by the daemon, which is killed in every stage.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kamino_wf::{sim::arm::Effect, workflow::LIVE};
use kube::Api;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    guest::{Disk, Form, Lab},
    plant::plant,
    release::Release,
    support::{
        node::servers::NODE,
        world::{Cleaner, Plan},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_every_stage_the_installed_daemon_finishes_one_update() {
    let Some(lab) = Lab::new() else { return };
    let base = lab.base(Form::Gpt, "donor.img");
    let words = plant(&base, "kubeadm");
    assert!(words.iter().all(|word| base.planted().contains_key(word)), "control: the donor's disk holds them all");
    // Slow enough for a stage to be seen while it lasts, the quickest above all.
    let plan = Plan {
        cleaner: Cleaner::Real(base.image.clone()),
        scale: 0.1,
        way: Duration::from_millis(250),
        ..Plan::default()
    };
    let Some(release) = Release::prepare("killed", plan).await else { return };
    release.apply("install").assert(0, &["STATUS: deployed", "helm test killed"]);
    let pod = release.pod().await;

    let run = release.start().await;
    let mut killed: BTreeSet<String> = BTreeSet::new();
    let stages: BTreeSet<String> = LIVE.iter().map(|stage| stage.name.to_owned()).collect();
    let described = loop {
        let described = release.describe(&run).await;
        let summary = &described["summary"];
        match (summary["state"].as_str(), summary["stage"].as_str()) {
            (Some("done"), _) => break described,
            (Some("running" | "waiting"), Some(stage)) if !killed.contains(stage) => {
                release.cluster.kill_container("killed", &pod).await;
                // Capture and publish take minutes of Azure's; the others are over in seconds.
                let scale = match stage {
                    "prepare" => 0.01,
                    "publish" => 0.1,
                    _ => release.site.world.world().scale,
                };
                release.site.world.world().scale = scale;
                killed.insert(stage.to_owned());
            }
            (Some("running" | "waiting"), _) => sleep(Duration::from_millis(100)).await,
            other => panic!("{other:?}: {described:#}"),
        }
    };
    assert_eq!(killed, stages, "each stage was seen, and its process killed");

    // By the kubelet, in the same pod; and each process under an epoch of its own.
    let [pod_now] = release.pods().await.try_into().expect("one pod");
    assert_eq!(pod_now.metadata.name.as_deref(), Some(pod.as_str()));
    let restarts = pod_now.status.and_then(|it| it.container_statuses).expect("a status")[0].restart_count;
    assert_eq!(usize::try_from(restarts), Ok(stages.len()));
    let leases: Api<Lease> = Api::namespaced(release.cluster.admin().await, "killed");
    let lease = leases.get("kamino-wf").await.expect("the Lease").spec.expect("a Lease");
    assert_eq!(lease.lease_transitions.map(usize::try_from), Some(Ok(stages.len() + 1)));
    let events = described["events"].as_array().expect("events");
    let epochs: BTreeSet<u64> = events.iter().filter_map(|it| it["epoch"].as_u64()).collect();
    assert!(epochs.len() >= 4, "intents carry the epoch of their process: {epochs:?}");

    // One of everything, and what was under way went on.
    let writes = release.site.writes();
    assert!(writes.iter().all(|it| it.effect == Effect::Accepted), "{writes:#?}");
    let mut effects: BTreeMap<(String, String), usize> = BTreeMap::new();
    for write in &writes {
        *effects.entry((write.method.clone(), write.path.to_ascii_lowercase())).or_default() += 1;
    }
    let twice: Vec<_> = effects.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "asked for twice: {twice:#?}");
    assert_eq!(release.site.left().await, Vec::<String>::new());
    release.site.assert_donors_untouched().await;

    // A real container cleaned it.
    let cleaned = events.iter().map(|it| &it["output"]).find(|it| it["report"].is_object()).expect("a cleaning");
    assert_eq!((&cleaned["report"]["verdict"], &cleaned["node"]), (&"clean".into(), &Value::from(NODE)), "{cleaned}");
    for image in release.site.disks_seen() {
        let source = Disk { image, form: Form::Gpt };
        assert!(source.planted().is_empty(), "readable in the raw source of the version: {:?}", source.planted());
    }
}
