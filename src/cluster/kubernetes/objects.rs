//! What a cleaning is made of: a static volume of the copied disk, its claim, and the pod that cleans it.
//!
//! The pod is privileged, as it needs loop devices and mounts. Everything else is taken from it: no token, no host path, no
//! namespaces of the host, no shell, a root file system that is read only, an end by the clock.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, Container, EmptyDirVolumeSource, LocalVolumeSource, NodeSelector,
        NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume, PersistentVolumeClaim,
        PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PersistentVolumeSpec, Pod, PodSpec,
        ResourceRequirements, SecurityContext, Volume, VolumeDevice, VolumeMount, VolumeNodeAffinity,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{cluster::CleaningSpec, model::RunId};

/// Names the run, in its short form, on each of the three objects.
pub(super) const RUN_LABEL: &str = "kamino-wf.io/run";

const DRIVER: &str = "disk.csi.azure.com";
const ZONE_KEY: &str = "topology.disk.csi.azure.com/zone";
const HOST_KEY: &str = "kubernetes.io/hostname";
const DEVICE: &str = "/dev/kwf";
/// Where the cleaner mounts things when it isn't told otherwise.
const WORK: &str = "/run/kamino-wf";

/// From the pod's start. Attaching a disk takes a minute or two, cleaning seconds to minutes; the step's own deadline is
/// shorter, this one is for a pod that nobody looks after any more.
const DEADLINE_SECONDS: i64 = 1800;

/// The volume: this disk and no other, for this claim and no other, and never deleted with it.
pub(super) fn volume(want: &CleaningSpec) -> PersistentVolume {
    PersistentVolume {
        metadata: ObjectMeta { name: Some(want.name.clone()), labels: Some(labels(want)), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            capacity: Some(storage(want)),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(want.namespace.clone()),
                name: Some(want.name.clone()),
                ..ObjectReference::default()
            }),
            csi: want.at.is_none().then(|| CSIPersistentVolumeSource {
                driver: DRIVER.to_owned(),
                volume_handle: want.disk.to_string(),
                ..CSIPersistentVolumeSource::default()
            }),
            local: want.at.as_ref().map(|at| LocalVolumeSource { path: at.path.clone(), fs_type: None }),
            node_affinity: match (&want.at, &want.zone) {
                (Some(at), _) => Some(affinity(HOST_KEY, at.node.as_str())),
                (None, Some(zone)) => Some(affinity(ZONE_KEY, &format!("{}-{zone}", want.region.key()))),
                (None, None) => None,
            },
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// The claim. The empty class keeps the default one, and its provisioner, out.
pub(super) fn claim(want: &CleaningSpec) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: namespaced(want),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements { requests: Some(storage(want)), limits: None }),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".to_owned()),
            volume_name: Some(want.name.clone()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The pod.
pub(super) fn pod(want: &CleaningSpec) -> Pod {
    Pod {
        metadata: namespaced(want),
        spec: Some(PodSpec {
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            automount_service_account_token: Some(false),
            containers: vec![cleaner(want)],
            enable_service_links: Some(false),
            host_ipc: Some(false),
            host_network: Some(false),
            host_pid: Some(false),
            node_selector: Some([("kubernetes.io/os".to_owned(), "linux".to_owned())].into()),
            restart_policy: Some("Never".to_owned()),
            volumes: Some(vec![
                Volume {
                    name: "disk".to_owned(),
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: want.name.clone(),
                        read_only: None,
                    }),
                    ..Volume::default()
                },
                // In memory: what the cleaner notes about somebody's disk must not stay on the node's.
                Volume {
                    name: "work".to_owned(),
                    empty_dir: Some(EmptyDirVolumeSource {
                        medium: Some("Memory".to_owned()),
                        size_limit: Some(Quantity("16Mi".to_owned())),
                    }),
                    ..Volume::default()
                },
            ]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn cleaner(want: &CleaningSpec) -> Container {
    let quantities = |cpu: &str, memory: &str| -> BTreeMap<String, Quantity> {
        [("cpu".to_owned(), Quantity(cpu.to_owned())), ("memory".to_owned(), Quantity(memory.to_owned()))].into()
    };
    let (run, profile) = (want.run.0.to_string(), want.profile.as_argument());
    let command =
        ["kamino-wf", "clean", "--device", DEVICE, "--profile", &profile, "--run", &run, "--nonce", &want.nonce];
    Container {
        name: "clean".to_owned(),
        image: Some(want.image.clone()),
        command: Some(command.map(str::to_owned).to_vec()),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("100m", "64Mi")),
            limits: Some(quantities("1", "512Mi")),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // A cleaner that died without a report leaves its last lines instead: a reason, which no nonce makes a report.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_devices: Some(vec![VolumeDevice { name: "disk".to_owned(), device_path: DEVICE.to_owned() }]),
        volume_mounts: Some(vec![VolumeMount {
            name: "work".to_owned(),
            mount_path: WORK.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn namespaced(want: &CleaningSpec) -> ObjectMeta {
    ObjectMeta {
        name: Some(want.name.clone()),
        namespace: Some(want.namespace.clone()),
        labels: Some(labels(want)),
        ..ObjectMeta::default()
    }
}

fn labels(want: &CleaningSpec) -> BTreeMap<String, String> {
    labels_of(want.run)
}

/// What all that belongs to a cleaning carries.
pub(super) fn labels_of(run: RunId) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "kamino-wf".to_owned()),
        ("app.kubernetes.io/component", "cleaner".to_owned()),
        ("app.kubernetes.io/managed-by", "kamino-wf".to_owned()),
        (RUN_LABEL, run.short()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn storage(want: &CleaningSpec) -> BTreeMap<String, Quantity> {
    [("storage".to_owned(), Quantity(format!("{}Gi", want.size_gib)))].into()
}

fn affinity(key: &str, value: &str) -> VolumeNodeAffinity {
    let requirement = NodeSelectorRequirement {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![value.to_owned()]),
    };
    VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![requirement]),
                match_fields: None,
            }],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::Attached,
        model::{Bootstrap, Containerd, CustomProfile, DiskId, Line, NodeName, Profile, Region},
    };

    fn spec(zone: Option<&str>) -> CleaningSpec {
        let run = RunId("0199a1b2-c3d4-7e5f-8a9b-0123456789ab".parse().expect("a uuid"));
        CleaningSpec {
            name: "kwf-pool1-0123456789ab".into(),
            namespace: "kamino-wf-clean".into(),
            run,
            disk: DiskId::new("00000000-1111-2222-3333-444444444444", "Nodes", &["kwf-pool1-0123456789ab"])
                .expect("an id"),
            region: Region("West Europe".into()),
            zone: zone.map(str::to_owned),
            size_gib: 30,
            image: "registry.example/kamino-wf@sha256:0123".into(),
            at: None,
            profile: Profile::AksEngine,
            nonce: "8f14e45f".into(),
        }
    }

    #[test]
    fn the_objects_are_these() {
        let want = spec(Some("2"));
        insta::assert_json_snapshot!("volume", volume(&want));
        insta::assert_json_snapshot!("claim", claim(&want));
        insta::assert_json_snapshot!("pod", pod(&want));
    }

    #[test]
    fn a_profile_of_ones_own_goes_along_as_a_whole() {
        let custom = CustomProfile {
            version: 1,
            name: "mine".into(),
            bootstrap: Bootstrap::Model,
            containerd: Containerd::default(),
            keep: vec![],
            donor: vec![],
            clone: vec![Line::Erase("/etc/mine".into())],
        };
        let pod = pod(&CleaningSpec { profile: Profile::Custom(Box::new(custom.clone())), ..spec(None) });
        let words = pod.spec.expect("a spec").containers[0].command.clone().expect("words");
        let said = words.iter().skip_while(|word| *word != "--profile").nth(1).expect("its profile");
        assert_eq!(serde_json::from_str::<CustomProfile>(said).expect("JSON"), custom);
    }

    #[test]
    fn a_disk_in_no_zone_may_go_anywhere_in_its_region() {
        assert_eq!(volume(&spec(None)).spec.expect("a spec").node_affinity, None);
    }

    #[test]
    fn a_disk_that_a_node_has_already_is_a_local_volume_of_that_node() {
        let node = NodeName::parse("pool1-vmss000001").expect("a name");
        let at = Attached { node, path: "/dev/disk/azure/scsi1/lun63".into() };
        insta::assert_json_snapshot!("local_volume", volume(&CleaningSpec { at: Some(at), ..spec(Some("2")) }));
    }
}
