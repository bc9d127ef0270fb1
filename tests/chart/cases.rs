//! Good objects with one thing changed, and which clause of the admission policies has to refuse each.

use serde_json::{Value, json};

/// Which of the three good objects.
pub(crate) const POD: usize = 2;
pub(crate) const CLAIM: usize = 1;
pub(crate) const VOLUME: usize = 0;

/// What is changed in a good object, and the beginning of what is said about it.
pub(crate) type Case = (usize, &'static str, fn(&mut Value), &'static str);

pub(crate) const CASES: &[Case] = &[
    (POD, "another name", |it| it["metadata"]["name"] = "mine".into(), "a cleaning pod is named kwf-"),
    (POD, "no run", |it| drop(labels(it).remove("kamino-wf.io/run")), "a cleaning pod is named kwf-"),
    (
        POD,
        "two containers",
        |it| push(it, "/spec/containers", json!({ "name": "b", "image": "b" })),
        "a cleaning pod has one",
    ),
    (
        POD,
        "an init container",
        |it| it["spec"]["initContainers"] = json!([{ "name": "b", "image": "b" }]),
        "a cleaning pod has one",
    ),
    (
        POD,
        "another image",
        |it| it["spec"]["containers"][0]["image"] = "evil.example/x:1".into(),
        "a cleaning pod's image",
    ),
    (
        POD,
        "an image whose name begins alike",
        |it| container(it)["image"] = "registry.example/kamino-wf-x:1".into(),
        "a cleaning pod's image",
    ),
    (POD, "a shell", |it| container(it)["command"] = json!(["/bin/sh", "-c", "id"]), "a cleaning pod cleans a device"),
    (
        POD,
        "another command of ours",
        |it| container(it)["command"] = json!(["kamino-wf", "serve"]),
        "a cleaning pod cleans a device",
    ),
    (POD, "another device", |it| container(it)["command"][3] = "/dev/sda".into(), "a cleaning pod cleans a device"),
    (
        POD,
        "two devices",
        |it| push(it, "/spec/containers/0/command", "--device=/dev/sda".into()),
        "a cleaning pod cleans a device",
    ),
    (
        POD,
        "a hook",
        |it| container(it)["lifecycle"] = json!({ "postStart": { "exec": { "command": ["x"] } } }),
        "a cleaning pod cleans a device",
    ),
    (POD, "the host's processes", |it| it["spec"]["hostPID"] = true.into(), "a cleaning pod takes nothing of the host"),
    (
        POD,
        "the host's network",
        |it| it["spec"]["hostNetwork"] = true.into(),
        "a cleaning pod takes nothing of the host",
    ),
    (POD, "the host's queues", |it| it["spec"]["hostIPC"] = true.into(), "a cleaning pod takes nothing of the host"),
    (
        POD,
        "a port of the host",
        |it| container(it)["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }]),
        "a cleaning pod takes nothing of the host",
    ),
    (POD, "a node by name", |it| it["spec"]["nodeName"] = "ours".into(), "a cleaning pod takes nothing of the host"),
    (POD, "a token", |it| it["spec"]["automountServiceAccountToken"] = true.into(), "a cleaning pod gets no token"),
    (
        POD,
        "another account",
        |it| {
            it["spec"]["serviceAccountName"] = "other".into();
            it["spec"]["serviceAccount"] = "other".into();
        },
        "a cleaning pod gets no token",
    ),
    (
        POD,
        "a secret's variables",
        |it| container(it)["envFrom"] = json!([{ "secretRef": { "name": "s" } }]),
        "a cleaning pod gets no token",
    ),
    (
        POD,
        "a variable of a secret",
        |it| {
            container(it)["env"] =
                json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
        },
        "a cleaning pod gets no token",
    ),
    (
        POD,
        "a folder of the host",
        |it| push(it, "/spec/volumes", json!({ "name": "h", "hostPath": { "path": "/" } })),
        "a cleaning pod has no volumes but",
    ),
    (
        POD,
        "a secret",
        |it| push(it, "/spec/volumes", json!({ "name": "s", "secret": { "secretName": "s" } })),
        "a cleaning pod has no volumes but",
    ),
    (
        POD,
        "another claim",
        |it| it["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = "other".into(),
        "a cleaning pod has no volumes but",
    ),
    (
        POD,
        "the node's disk",
        |it| it["spec"]["volumes"][1]["emptyDir"] = json!({}),
        "a cleaning pod has no volumes but",
    ),
    (
        POD,
        "a root that can be written",
        |it| container(it)["securityContext"]["readOnlyRootFilesystem"] = false.into(),
        "a cleaning pod's root file system",
    ),
    (
        POD,
        "capabilities",
        |it| container(it)["securityContext"]["capabilities"] = json!({ "add": ["SYS_PTRACE"] }),
        "a cleaning pod's root file system",
    ),
    (
        POD,
        "no end",
        |it| drop(it["spec"].as_object_mut().expect("a spec").remove("activeDeadlineSeconds")),
        "a cleaning pod ends within the hour",
    ),
    (POD, "begun again", |it| it["spec"]["restartPolicy"] = "Always".into(), "a cleaning pod ends within the hour"),
    (CLAIM, "no run", |it| drop(labels(it).remove("kamino-wf.io/run")), "a claim there says whose run"),
    (
        CLAIM,
        "another volume",
        |it| it["spec"]["volumeName"] = "database".into(),
        "a claim there is for the block volume",
    ),
    (CLAIM, "another name", |it| it["metadata"]["name"] = "mine".into(), "a claim there is for the block volume"),
    (
        CLAIM,
        "a file system",
        |it| it["spec"]["volumeMode"] = "Filesystem".into(),
        "a claim there is for the block volume",
    ),
    (CLAIM, "a class", |it| it["spec"]["storageClassName"] = "fast".into(), "a claim there is for the block volume"),
    (VOLUME, "another name", |it| it["metadata"]["name"] = "mine".into(), "the controller touches no volume but"),
    (VOLUME, "no run", |it| drop(labels(it).remove("kamino-wf.io/run")), "the controller touches no volume but"),
    (
        VOLUME,
        "another driver",
        |it| it["spec"]["csi"]["driver"] = "file.csi.azure.com".into(),
        "the controller's volumes are of the driver",
    ),
    (
        VOLUME,
        "a folder of the host",
        |it| {
            it["spec"].as_object_mut().expect("a spec").remove("csi");
            it["spec"]["hostPath"] = json!({ "path": "/" });
        },
        "the controller's volumes are of the driver",
    ),
    (
        VOLUME,
        "somebody's disk",
        |it| {
            it["spec"]["csi"]["volumeHandle"] =
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/database".into();
        },
        "the controller's volumes are of the driver",
    ),
    (
        VOLUME,
        "a file system",
        |it| it["spec"]["volumeMode"] = "Filesystem".into(),
        "the controller's volumes are raw blocks",
    ),
    (
        VOLUME,
        "deleted with its claim",
        |it| it["spec"]["persistentVolumeReclaimPolicy"] = "Delete".into(),
        "the controller's volumes leave the disk",
    ),
    (
        VOLUME,
        "for another namespace",
        |it| it["spec"]["claimRef"]["namespace"] = "default".into(),
        "the controller's volumes are for the claim",
    ),
    (
        VOLUME,
        "for another claim",
        |it| it["spec"]["claimRef"]["name"] = "other".into(),
        "the controller's volumes are for the claim",
    ),
    (
        VOLUME,
        "for everybody",
        |it| drop(it["spec"].as_object_mut().expect("a spec").remove("claimRef")),
        "the controller's volumes are for the claim",
    ),
];

fn container(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

fn labels(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    object["metadata"]["labels"].as_object_mut().expect("labels")
}

fn push(object: &mut Value, at: &str, value: Value) {
    object.pointer_mut(at).and_then(Value::as_array_mut).expect("a list").push(value);
}
