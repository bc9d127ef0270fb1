//! What `capture: stop` writes: a donor's node, and the pod that cleans its disk from inside.
//!
//! The pod has the host's root and process ids, as it has to stop the kubelet and the runtime and to mount and trim; and a
//! token that can do one thing: leave the proof in one `ConfigMap` (and with `credential: rebootstrap` a second, see `anchor`). It gets arguments instead of a shell's string, is bound to
//! the node by name, so that the scheduler and the cordon have no say, and a kubelet that runs it again in another boot, or
//! on another machine, runs something that refuses.

use k8s_openapi::{
    api::core::v1::{
        ConfigMap, Container, Event, EventSource, HostPathVolumeSource, ObjectReference, Pod, PodSpec, SecurityContext,
        Toleration, Volume, VolumeMount,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    connect::KubernetesCluster,
    objects::{RUN_LABEL, labels_of},
};
use crate::{
    cluster::{ClusterError, DonorCleaning, NodeChange, NodeNote},
    model::{Credential, RunId},
    permissions::{CLEANER, EVENTS, PROOFS},
};

/// Where the host's root is in the pod.
const HOST: &str = "/host";
/// From the pod's start: the step's own deadline is shorter.
const DEADLINE_SECONDS: i64 = 1200;

impl KubernetesCluster {
    /// The runs whose proofs are there. What is no proof of ours is passed over.
    pub(super) async fn proofs(&self, namespace: &str) -> Result<Vec<RunId>, ClusterError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("get config map {namespace}/{PROOFS}");
        let found = match self.call(what, maps.get_opt(PROOFS)).await {
            // Without `capture: stop` nobody has the right, and nobody leaves one.
            Err(ClusterError::Denied { .. }) => None,
            other => other?,
        };
        let all = found.and_then(|map| map.data).unwrap_or_default();
        let of = |(key, words): (&String, &String)| {
            let words: serde_json::Value = serde_json::from_str(words).ok()?;
            let run: RunId = serde_json::from_value(words["run"].clone()).ok()?;
            (run.short() == *key).then_some(run)
        };
        Ok(all.iter().filter_map(of).collect())
    }

    /// Leaves a proof; writes over the one of an attempt whose answer was lost. Not of the port: only the cleaner on a donor
    /// does this, with the token of its own pod.
    ///
    /// # Errors
    /// What the API server said; it may be sent again.
    pub async fn leave_proof(&self, namespace: &str, name: &str, key: &str, words: &str) -> Result<(), ClusterError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({ "data": { key: words } }));
        let how = PatchParams::default();
        self.call(format!("patch config map {namespace}/{name}"), maps.patch_metadata(name, &how, &patch)).await?;
        Ok(())
    }
}

/// A merge patch over the version that was seen: the server refuses it when the node is another by now.
pub(super) fn node_patch(want: &NodeChange) -> Value {
    json!({
        "metadata": { "resourceVersion": want.version, "annotations": want.annotations },
        // `false` is what the field's absence means.
        "spec": { "unschedulable": want.unschedulable.then_some(true) },
    })
}

/// The Event, by a name that is the same however often it is told.
pub(super) fn event(note: &NodeNote) -> Event {
    let at = Some(Time(note.at));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("kwf-{}-{}", note.run.short(), note.reason.to_lowercase())),
            namespace: Some(EVENTS.into()),
            labels: Some([(RUN_LABEL.to_owned(), note.run.short())].into()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(note.node.to_string()),
            uid: Some(note.node_uid.clone()),
            ..ObjectReference::default()
        },
        reason: Some(note.reason.into()),
        message: Some(note.words.clone()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        source: Some(EventSource { component: Some("kamino-wf".into()), host: None }),
        first_timestamp: at.clone(),
        last_timestamp: at,
        count: Some(1),
        ..Event::default()
    }
}

/// The pod.
pub(super) fn pod(want: &DonorCleaning) -> Pod {
    let run = want.run.0.to_string();
    let proof = format!("{}/{PROOFS}", want.namespace);
    let words = [
        "kamino-wf",
        "clean",
        "--host-root",
        HOST,
        "--profile",
        want.profile.name(),
        "--run",
        &run,
        "--nonce",
        &want.nonce,
        "--node-uid",
        &want.node_uid,
        "--product-uuid",
        &want.product_uuid,
        "--boot-id",
        &want.boot_id,
        "--proof",
        &proof,
    ];
    let renewed = match want.credential {
        Credential::Keep => None,
        // Its anchor has the pod's name.
        Credential::Rebootstrap => Some(["--rebootstrap", &want.name]),
    };
    let command: Vec<String> = words.into_iter().chain(renewed.into_iter().flatten()).map(str::to_owned).collect();
    Pod {
        metadata: ObjectMeta {
            name: Some(want.name.clone()),
            namespace: Some(want.namespace.clone()),
            labels: Some(labels_of(want.run)),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            automount_service_account_token: Some(true),
            service_account_name: Some(CLEANER.to_owned()),
            containers: vec![Container {
                name: "clean".to_owned(),
                image: Some(want.image.clone()),
                command: Some(command),
                security_context: Some(SecurityContext {
                    privileged: Some(true),
                    read_only_root_filesystem: Some(true),
                    run_as_user: Some(0),
                    ..SecurityContext::default()
                }),
                termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
                volume_mounts: Some(vec![VolumeMount {
                    name: "host".to_owned(),
                    mount_path: HOST.to_owned(),
                    ..VolumeMount::default()
                }]),
                ..Container::default()
            }],
            enable_service_links: Some(false),
            host_network: Some(true),
            host_pid: Some(true),
            node_name: Some(want.node.to_string()),
            restart_policy: Some("Never".to_owned()),
            // The node is cordoned, and may be tainted by whoever drains.
            tolerations: Some(vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]),
            volumes: Some(vec![Volume {
                name: "host".to_owned(),
                host_path: Some(HostPathVolumeSource { path: "/".to_owned(), type_: Some("Directory".to_owned()) }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{NodeName, Profile};

    #[test]
    fn the_requests_are_these() {
        let node = NodeName::parse("pool1-vmss000001").expect("a name");
        let want = DonorCleaning {
            name: "kwf-pool1-0123456789ab".into(),
            namespace: "kamino-wf-clean".into(),
            run: RunId("0199a1b2-c3d4-7e5f-8a9b-0123456789ab".parse().expect("a uuid")),
            node: node.clone(),
            node_uid: "6f1c".into(),
            boot_id: "b0".into(),
            product_uuid: "11111111-2222".into(),
            image: "registry.example/kamino-wf@sha256:0123".into(),
            profile: Profile::Kubeadm,
            credential: Credential::Keep,
            nonce: "8f14e45f".into(),
        };
        insta::assert_json_snapshot!("donor_pod", pod(&want));
        let words = |credential| {
            let spec = pod(&DonorCleaning { credential, ..want.clone() }).spec.expect("a spec");
            spec.containers[0].command.clone().expect("a command")
        };
        assert_eq!(
            words(Credential::Rebootstrap),
            [words(Credential::Keep), vec!["--rebootstrap".to_owned(), want.name.clone()]].concat()
        );
        let change = |unschedulable| NodeChange {
            name: node.clone(),
            version: "4711".into(),
            unschedulable,
            annotations: BTreeMap::from([("set".to_owned(), Some("true".to_owned())), ("gone".to_owned(), None)]),
        };
        insta::assert_json_snapshot!("node_hold", node_patch(&change(true)));
        insta::assert_json_snapshot!("node_release", node_patch(&change(false)));
    }
}
