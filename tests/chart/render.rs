//! What Helm makes of the chart, without a server.

use serde_json::Value;

use crate::{BOTH, Helm, chart_file, objects, root, tools, up_to_date, values};

/// Values, the version of the server, and what it has besides.
const SETS: [(&str, &str, &str); 5] = [
    ("default", "1.36", "default"),
    ("default", "1.24", "old-server"),
    ("cronjob", "1.36", "cronjob"),
    ("everything", "1.36", "everything"),
    ("stop", "1.36", "stop"),
];

fn rendered(helm: Helm, set: &str, server: &str) -> Option<String> {
    let values = values(set);
    let more = ["--kube-version", server, "--api-versions", "monitoring.coreos.com/v1", "--values"];
    let text = helm.template(tools()?, &[&more[..], &[values.to_str().expect("a path")]].concat());
    Some(text.unwrap_or_else(|error| panic!("{helm:?}, {set}: {error}")))
}

#[test]
fn both_helms_render_these_objects() {
    for (set, server, golden) in SETS {
        let Some(four) = rendered(Helm::Four, set, server) else { return };
        assert_eq!(rendered(Helm::Three, set, server).as_ref(), Some(&four), "Helm 3 renders what Helm 4 does: {set}");
        up_to_date(&root().join(format!("tests/golden/chart/{golden}.yaml")), &four);
    }
}

#[test]
fn both_helms_find_nothing_to_complain_about() {
    let Some(tools) = tools() else { return };
    for helm in BOTH {
        for (set, server, _) in SETS {
            let values = values(set);
            let with = ["--strict", "--kube-version", server, "--values", values.to_str().expect("a path")];
            let output = helm.run(tools, &["lint"], &with);
            assert!(output.status.success(), "{helm:?}, {set}: {output:?}");
        }
    }
}

/// Values that can't be: what they are, and what is said about them.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["colour=red"], &["colour"]),
    (&["image.colour=red"], &["image", "colour"]),
    (&["mode=both"], &["mode", "deployment", "cronjob"]),
    (&["replicas=2"], &["replicas"]),
    (&["cleaning.namespace=A_b"], &["cleaning", "namespace", "pattern"]),
    (&["azure.clientId=me"], &["azure", "clientId", "pattern"]),
    (&["image.digest=sha256:12"], &["image", "digest"]),
    (&["persistence.accessMode=ReadWriteMany"], &["persistence", "accessMode", "ReadWriteOncePod"]),
    (&["image.repository="], &["image.repository is not set", "Dockerfile"]),
    (&["azure.clientId="], &["azure.clientId is not set"]),
    (&["config.cleaning.image=x"], &["config.cleaning is filled in by the chart", "cleaning.image"]),
    (&["config.store=/data"], &["config.store is filled in by the chart", "/var/lib/kamino-wf"]),
    (&["azure.credential=client-secret"], &["azure.existingSecret is not set"]),
    (&["azure.credential=client-secret", "azure.existingSecret=s"], &["azure.tenantId is not set"]),
    (&["azure.projectToken=true"], &["azure.tenantId is not set"]),
    (&["capture.stops=true"], &["capture", "stops"]),
    (
        &["config.pools[0].name=p", "config.pools[0].capture=stop"],
        &["pool p says capture: stop", "capture.stop is false"],
    ),
    (&["azure.credential=azure-cli"], &["azure.credential is azure-cli", "no az", "managed-identity"]),
    (&["azure.credential=login"], &["azure", "credential", "managed-identity", "azure-json"]),
    (&["azure.identity=me"], &["azure", "identity", "pattern"]),
    (
        &["azure.credential=managed-identity", "azure.identity=/1/2/3/4/5/6/7/8"],
        &["azure.clientId and azure.identity both name an identity"],
    ),
    (
        &["azure.credential=managed-identity", "azure.tenantId=66666666-7777-8888-9999-000000000000"],
        &["azure.tenantId is set, and azure.credential is managed-identity"],
    ),
    (&["azure.credential=azure-json"], &["azure.clientId is set, and azure.credential is azure-json", "leave it out"]),
    (&["azure.credential=azure-json", "azure.clientId=", "azure.azureJson=azure.json"], &["azureJson", "pattern"]),
    (&["azure.acceptNodeSecret=true"], &["azure.acceptNodeSecret is set, and azure.credential is workload-identity"]),
];

#[test]
fn values_that_cannot_be_are_refused_in_words_that_name_them() {
    let Some(tools) = tools() else { return };
    let good = values("default");
    for helm in BOTH {
        for (settings, words) in REFUSED {
            let mut after = vec!["--values", good.to_str().expect("a path")];
            for setting in *settings {
                after.extend(["--set", *setting]);
            }
            let said = helm.template(tools, &after).expect_err(settings[0]);
            for word in *words {
                assert!(said.contains(word), "{helm:?} says nothing of {word}: {said}");
            }
        }
    }
}

pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Each pod of the chart, with who makes it.
pub(crate) fn pods(objects: &[Value]) -> Vec<(String, &Value)> {
    let spec = |object: &'_ Value| match object["kind"].as_str() {
        Some("Deployment") => Some("/spec/template/spec"),
        Some("CronJob") => Some("/spec/jobTemplate/spec/template/spec"),
        Some("Pod") => Some("/spec"),
        _ => None,
    };
    let named = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    objects.iter().filter_map(|object| Some((named(object), object.pointer(spec(object)?).expect("a pod")))).collect()
}

#[test]
fn daemon_or_cron_job_and_never_both() {
    for (set, daemons, jobs) in [("default", 1, 0), ("everything", 1, 0), ("cronjob", 0, 1)] {
        let Some(text) = rendered(Helm::Four, set, "1.36") else { return };
        let objects = objects(&text);
        let found = (of_kind(&objects, "Deployment").len(), of_kind(&objects, "CronJob").len());
        assert_eq!(found, (daemons, jobs), "{set}");
        for deployment in of_kind(&objects, "Deployment") {
            assert_eq!(
                (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
                (&1.into(), &"Recreate".into())
            );
        }
        for job in of_kind(&objects, "CronJob") {
            assert_eq!(job["spec"]["concurrencyPolicy"], "Forbid", "the store has one user");
        }
    }
}

/// As far as the objects can say: who is in it, what it may do, and no more.
#[test]
fn pods_run_as_nobody_with_no_more_than_they_need() {
    for (set, server, _) in SETS {
        let Some(text) = rendered(Helm::Four, set, server) else { return };
        let objects = objects(&text);
        let pods = pods(&objects);
        assert_eq!(pods.len(), 2, "the controller and the test: {set}");
        for (name, pod) in pods {
            assert_eq!(
                pod["enableServiceLinks"], false,
                "a Service named kamino… would set KAMINO_… variables: {name}"
            );
            assert_eq!(pod["automountServiceAccountToken"], true, "{name}");
            let security = &pod["securityContext"];
            assert_eq!((&security["runAsUser"], &security["fsGroup"]), (&65532.into(), &65532.into()), "{name}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for container in pod["containers"].as_array().expect("containers") {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            }
            for volume in pod["volumes"].as_array().expect("volumes") {
                assert!(volume["hostPath"].is_null(), "{name} takes a folder of the host: {volume}");
            }
        }
    }
}

#[test]
fn no_budget_stands_in_the_way_of_a_drain() {
    for (set, server, _) in SETS {
        let Some(text) = rendered(Helm::Four, set, server) else { return };
        assert!(!text.contains("PodDisruptionBudget"), "one replica and a budget block every drain: {set}");
    }
}

#[test]
fn the_volume_is_for_one_pod_where_the_server_has_that() {
    for (server, mode, policies) in
        [("1.28", "ReadWriteOnce", 0), ("1.29", "ReadWriteOncePod", 0), ("1.30", "ReadWriteOncePod", 4)]
    {
        let Some(text) = rendered(Helm::Four, "default", server) else { return };
        let objects = objects(&text);
        let claim = &of_kind(&objects, "PersistentVolumeClaim")[0];
        assert_eq!(claim["spec"]["accessModes"], serde_json::json!([mode]), "{server}");
        assert_eq!(claim["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(of_kind(&objects, "ValidatingAdmissionPolicy").len(), policies, "{server}");
        assert_eq!(of_kind(&objects, "ValidatingAdmissionPolicyBinding").len(), policies, "{server}");
    }
}

#[test]
fn a_changed_setting_is_a_new_pod() {
    let Some(tools) = tools() else { return };
    let good = values("default");
    let changes = [
        "config.polling.first=5s",
        "config.polling.first=6s",
        "profiles.k3s.version=1,profiles.k3s.name=k3s,profiles.k3s.bootstrap=model",
    ];
    let sums = changes.map(|set| {
        let text =
            Helm::Four.template(tools, &["--values", good.to_str().expect("a path"), "--set", set]).expect("a chart");
        let objects = objects(&text);
        of_kind(&objects, "Deployment")[0]["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone()
    });
    assert!(sums[0].is_string() && sums[0] != sums[1] && sums[1] != sums[2] && sums[0] != sums[2], "{sums:?}");
}

/// The settings that the chart writes are ones that the binary takes.
#[test]
fn the_binary_takes_the_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    for (set, variables) in [("default", &["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"][..]), ("projected", &[])] {
        let Some(tools) = tools() else { return };
        let good = values("default");
        let mut after = vec!["--values", good.to_str().expect("a path")];
        if set == "projected" {
            after.extend(["--set", "azure.projectToken=true,azure.tenantId=66666666-7777-8888-9999-000000000000"]);
        }
        let objects = objects(&Helm::Four.template(tools, &after).expect("a chart"));
        let text = of_kind(&objects, "ConfigMap")[0]["data"]["config.yaml"].as_str().expect("settings");
        let path = folder.path().join(set);
        std::fs::write(&path, text).expect("a file");
        let overrides = kamino_wf::config::Overrides { config: Some(path), ..Default::default() };
        let webhook = |name: &str| variables.contains(&name).then(|| "as the webhook says".to_owned());
        let config =
            kamino_wf::config::Config::load(overrides, &webhook).unwrap_or_else(|error| panic!("{set}: {error}"));
        assert!(config.azure.is_some(), "it is somebody in Azure: {set}");
        assert_eq!(config.clean_namespace, "kamino-wf-clean");
        assert_eq!(config.clean_image.as_deref(), Some("registry.example/kamino-wf:0.1.0"));
    }
}

/// So do those that say something of the daemon and its schedules.
#[test]
fn the_binary_takes_settings_of_the_daemon() {
    let Some(text) = rendered(Helm::Four, "everything", "1.36") else { return };
    let objects = objects(&text);
    let maps = of_kind(&objects, "ConfigMap");
    let map = maps.iter().find(|map| map["data"]["config.yaml"].is_string()).expect("settings");
    let folder = tempfile::tempdir().expect("a folder");
    // As they are mounted: all beside each other.
    for (name, text) in map["data"].as_object().expect("files") {
        std::fs::write(folder.path().join(name), text.as_str().expect("text")).expect("a file");
    }
    let path = folder.path().join("config.yaml");
    let overrides = kamino_wf::config::Overrides { config: Some(path), ..Default::default() };
    let config = kamino_wf::config::Config::load(overrides, &|_: &str| None).expect("settings that can be used");
    assert_eq!((config.serve.listen.port(), config.serve.runs_at_once), (9090, 1));
    assert_eq!(config.pools[0].profile.name(), "k3s");
    assert!(config.pools[0].adopt && config.pools[0].schedule.as_ref().is_some_and(|it| it.windows.len() == 1));
}

#[test]
fn the_chart_is_of_this_release() {
    let chart = chart_file("Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nappVersion: \"{version}\"\n")), "Chart.yaml: appVersion is {version}");
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).expect("the Dockerfile");
    assert!(dockerfile.contains(&format!("\nARG VERSION={version}\n")), "Dockerfile: VERSION is {version}");
    let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).expect("the toolchain");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel");
    let base = format!("\nFROM rust:{}-", channel.trim_matches('"'));
    assert!(dockerfile.contains(&base), "Dockerfile: the toolchain is {channel}");
}
