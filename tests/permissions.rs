//! The list of rights, beside the workflow whose steps it names, and the page and the chart's roles that are made from it.

#![expect(clippy::expect_used, reason = "a helper that cannot go on ends the test")]

use std::{fmt::Write, fs, path::Path};

use kamino_wf::{
    permissions::{ClusterRight, Installation, Part, Places, azure_roles, in_azure, in_kubernetes, kubernetes_roles},
    workflow::{ATTACHED, ATTACHED_CANARY, LIVE, LIVE_CANARY, STOP, STOP_CANARY, plan},
};
use serde_json::Value;

/// What is no step and needs rights all the same.
const NO_STEPS: [&str; 6] = ["the daemon", "the engine", "the janitor", "images", "status", "rescue"];

#[test]
fn rights_are_for_steps_that_there_are() {
    let steps_of = |list| plan(list).into_iter().map(|step| step.name).collect::<Vec<String>>();
    let (live, stop) = ([LIVE, LIVE_CANARY].map(steps_of).concat(), [STOP, STOP_CANARY].map(steps_of).concat());
    let attached = [ATTACHED, ATTACHED_CANARY].map(steps_of).concat();
    let known = |part: Part, step: &str| {
        let planned = match part {
            Part::Every => &live,
            Part::Stop | Part::ForcedDrain | Part::Rebootstrap => &stop,
            Part::Attach => &attached,
        };
        planned.iter().any(|name| name == step) || NO_STEPS.contains(&step)
    };
    let in_cluster = in_kubernetes().map(|right| (right.part, right.steps));
    let named = in_cluster.chain(in_azure().map(|right| (right.part, right.steps)));
    let named = named.flat_map(|(part, steps)| steps.iter().map(move |step| (part, *step)));
    let unknown: Vec<&str> =
        named.filter(|(part, step)| !known(*part, step) && !step.starts_with("every")).map(|(_, step)| step).collect();
    assert!(unknown.is_empty(), "no such step: {unknown:?}");
}

/// Compares what is there with what the list makes of it, or writes it anew.
fn up_to_date(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, expected).expect("generated files can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} is stale: UPDATE_DOCS=1 cargo test --test permissions");
}

#[test]
fn the_page_is_up_to_date() {
    up_to_date("docs/permissions.md", &kamino_wf::permissions::document());
}

#[test]
fn the_charts_roles_are_up_to_date() {
    up_to_date("charts/kamino-wf/templates/roles.yaml", &chart_roles());
}

/// What docs/install.md has an operator fill in and hand to `az role definition create`, which takes one role at a time.
#[test]
fn the_role_definitions_of_azure_are_up_to_date() {
    let group = |name: &str| format!("/subscriptions/SUBSCRIPTION/resourceGroups/{name}");
    let at = Places {
        subscription: "/subscriptions/SUBSCRIPTION".into(),
        scale_sets: group("SCALE_SETS_GROUP"),
        // Where copies are, unless that changes one day.
        temporaries: group("SCALE_SETS_GROUP"),
        gallery: group("GALLERY_GROUP"),
        linked: vec![group("NETWORK_GROUP")],
    };
    for role in azure_roles(&at) {
        let name = role["Name"].as_str().expect("a name").trim_start_matches("kamino-wf ").replace(' ', "-");
        let text = serde_json::to_string_pretty(&role).expect("JSON") + "\n";
        up_to_date(&format!("docs/azure-roles/{name}.json"), &text);
    }
}

const CHART_ROLES_HEAD: &str = "\
{{- /* Made from src/permissions.rs; `UPDATE_DOCS=1 cargo test --test permissions` writes it anew. */}}
{{- if .Values.rbac.create }}
";

/// The roles as a template: what differs from installation to installation is the chart's to fill in. JSON is YAML.
fn chart_roles() -> String {
    let at = Installation {
        namespace: "{{ .Release.Namespace }}".into(),
        clean_namespace: "{{ .Values.cleaning.namespace }}".into(),
        service_account: "{{ include `kamino-wf.serviceAccountName` . }}".into(),
    };
    let mut text = CHART_ROLES_HEAD.to_owned();
    let parts = [
        (Part::Every, None),
        (Part::Stop, Some(".Values.capture.stop")),
        (Part::ForcedDrain, Some("and .Values.capture.stop .Values.capture.forcedDrain")),
        (Part::Rebootstrap, Some("and .Values.capture.stop .Values.capture.rebootstrap")),
    ];
    for (part, condition) in parts {
        let rights: Vec<ClusterRight> = in_kubernetes().filter(|right| right.part == part).copied().collect();
        let roles: String = kubernetes_roles(&rights, &at).iter().map(role).collect();
        match condition {
            Some(condition) => {
                write!(text, "{{{{- if {condition} }}}}\n{roles}{{{{- end }}}}\n").expect("a string");
            }
            None => text.push_str(&roles),
        }
    }
    text.push_str("{{- end }}\n");
    text
}

/// One object of the template.
fn role(object: &Value) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, text_of: &str| writeln!(text, "{indent}{text_of}").expect("a string");
    line("", "---");
    line("", &format!("apiVersion: {}", object["apiVersion"].as_str().expect("a version")));
    line("", &format!("kind: {}", object["kind"].as_str().expect("a kind")));
    line("", "metadata:");
    for key in ["name", "namespace"] {
        if !object["metadata"][key].is_null() {
            line("  ", &format!("{key}: {}", object["metadata"][key]));
        }
    }
    line("  ", "labels:");
    line("    ", "{{- include \"kamino-wf.labels\" . | nindent 4 }}");
    line("    ", "app.kubernetes.io/component: controller");
    if !object["roleRef"].is_null() {
        line("", &format!("roleRef: {}", object["roleRef"]));
    }
    for key in ["rules", "subjects"] {
        if let Some(items) = object[key].as_array() {
            line("", &format!("{key}:"));
            for item in items {
                line("  ", &format!("- {item}"));
            }
        }
    }
    text
}
