//! Who may name whom. The table is the picture of docs/ARCHITECTURE.md.

use std::collections::BTreeSet;

use super::source::{Source, modules};

/// A layer, the layers that it may name besides itself, and why not more.
struct Layer {
    name: &'static str,
    may_name: &'static str,
    why: &'static str,
}

const fn layer(name: &'static str, may_name: &'static str, why: &'static str) -> Layer {
    Layer { name, may_name, why }
}

const PORTS: &str = "speak to the world through the ports in src/cloud/port.rs and src/cluster/port.rs";
const ADAPTER: &str = "an adapter knows its port only";

/// The longest name that fits a module is its layer. A new module of src/ has to be put in here.
const LAYERS: &[Layer] = &[
    layer("model", "", "plain words that everybody else builds on"),
    layer("clock", "model", "a port knows the model and nothing else"),
    layer("policy", "model cloud cluster", "plain data and `now` in, a choice out"),
    layer(
        "steps",
        "policy model cloud cluster workflow",
        "a step looks, asks once and returns; the engine keeps records",
    ),
    layer("workflow", "steps policy model clock cloud cluster store", PORTS),
    layer("store", "model", "the journal does not know what is written into it"),
    layer("cloud", "model clock", "a port knows no adapter"),
    layer("cloud::azure", "cloud model clock", ADAPTER),
    layer("cluster", "model clock", "a port knows no adapter"),
    layer("cluster::kubernetes", "cluster model clock permissions", ADAPTER),
    layer("permissions", "model", "a list of rights is data"),
    layer("clean", "model", "the cleaner runs in a pod of its own, without the rest"),
    layer(
        "sim",
        "workflow steps policy model clock cloud cloud::azure cluster store permissions",
        "the simulated world stands behind the ports and knows nothing of commands",
    ),
    layer(
        "config",
        "workflow policy model clean cloud cloud::azure cluster cluster::kubernetes permissions",
        "settings are read and checked here, and used in src/app.rs",
    ),
    layer(
        "http",
        "workflow model clock store cloud",
        "it serves the engine that src/app.rs gives it; commands are its clients",
    ),
    layer(
        "doctor",
        "http workflow steps policy model clock cloud cloud::azure cluster cluster::kubernetes store permissions",
        "it looks at what src/app.rs hands to it, and reads no settings",
    ),
    layer("restore", "policy model cloud cloud::azure", "what it puts back is stored nowhere, so it has no run"),
    layer(
        "preview",
        "workflow steps policy model clock cloud cluster",
        "it looks through the ports as steps do, and asks for nothing",
    ),
    layer(
        "app",
        "preview restore doctor http config workflow steps policy model clock cloud cloud::azure cluster cluster::kubernetes store permissions",
        "the wiring does not know who asked for it",
    ),
    layer(
        "cli",
        "app preview restore doctor http config workflow policy model clock cloud cluster store permissions sim clean",
        "commands go through src/app.rs, the only place that makes adapters",
    ),
    layer("main", "cli", "main only starts a command"),
    layer("chaos", "sim workflow policy model clock cloud", "a thin command over the simulated world"),
];

/// Names that a layer may not take from another that it may name, and what stands in for them.
struct Words {
    layer: &'static str,
    from: &'static str,
    only: Option<&'static [&'static str]>,
    never: &'static [&'static str],
    why: &'static str,
}

const WORDS: &[Words] = &[
    Words {
        layer: "steps",
        from: "workflow",
        only: Some(&["Context", "Decide", "Effect", "Ports", "RunSpec", "Seen", "StepError", "Undone"]),
        never: &[],
        why: "a step knows the contract of steps, never the engine or a run's state",
    },
    Words {
        layer: "config",
        from: "cloud::azure",
        only: Some(&["AzureSettings", "Credential", "Endpoints", "KnownCloud", "MachineIdentity"]),
        never: &[],
        why: SETTINGS,
    },
    Words { layer: "config", from: "cluster::kubernetes", only: Some(&["Access"]), never: &[], why: SETTINGS },
    Words {
        layer: "http",
        from: "cloud",
        only: Some(&["Meter", "Remaining"]),
        never: &[],
        why: "it shows what was counted, and asks Azure nothing",
    },
    Words { layer: "policy", from: "cloud", only: None, never: &["Cloud", "CloudError", "Limiter"], why: PURE },
    Words { layer: "policy", from: "cluster", only: None, never: &["Cluster", "ClusterError"], why: PURE },
];

const SETTINGS: &str = "settings fill an adapter's own settings; only src/app.rs makes the adapter";
const PURE: &str = "a policy takes the ports' plain data and asks nobody; let the step ask and hand over the answer";

/// Calls that go the wrong way.
pub(crate) fn wrong(sources: &[Source]) -> Vec<String> {
    let modules = modules(sources);
    let mut found = Vec::new();
    for source in sources {
        if source.module.is_empty() {
            continue;
        }
        let Some(layer) = layer_of(&source.module) else {
            found.push(format!("{}: a new module; say in tests/tidy/calls.rs what it may name", source.path));
            continue;
        };
        for named in source.named(&modules) {
            let Some((root, rest)) = named.path.split_first() else { continue };
            let Some(target) = (root == "crate").then(|| layer_of(rest)).flatten() else { continue };
            let place = format!("{}:{}", source.path, named.line);
            // `pub mod azure;` stands in the port's mod.rs; that is no name.
            if target.name != layer.name && !layer.may_name.split(' ').any(|may| may == target.name) {
                found.push(format!(
                    "{place}: {} names {}: {}; it may name {}",
                    layer.name,
                    named.path.join("::"),
                    layer.why,
                    if layer.may_name.is_empty() { "nothing of ours" } else { layer.may_name },
                ));
            }
            let word = rest.get(target.name.split("::").count()).map_or("self", String::as_str);
            for words in WORDS.iter().filter(|words| words.layer == layer.name && words.from == target.name) {
                let allowed = words.only.is_none_or(|only| only.contains(&word)) && word != "*";
                if !allowed || words.never.contains(&word) {
                    found.push(format!("{place}: {} takes {word} from {}: {}", layer.name, target.name, words.why));
                }
            }
        }
    }
    found
}

fn layer_of(module: &[String]) -> Option<&'static Layer> {
    let module = module.join("::");
    let fits =
        |layer: &&Layer| module.strip_prefix(layer.name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    LAYERS.iter().filter(fits).max_by_key(|layer| layer.name.len())
}

/// A library, and the only places of the product that may name it.
struct Home {
    library: &'static str,
    places: &'static [&'static str],
    why: &'static str,
}

const HOMES: &[Home] = &[
    Home { library: "azure_core", places: &["src/cloud/azure/"], why: SDK },
    Home { library: "azure_core_v1", places: &["src/cloud/azure/"], why: SDK },
    Home { library: "azure_identity", places: &["src/cloud/azure/"], why: SDK },
    Home { library: "azure_mgmt_compute", places: &["src/cloud/azure/"], why: SDK },
    Home { library: "kube", places: &["src/cluster/kubernetes/"], why: SDK },
    Home { library: "k8s_openapi", places: &["src/cluster/kubernetes/"], why: SDK },
    Home {
        library: "croner",
        places: &["src/policy/schedule.rs"],
        why: "everything else speaks of times; what a change of the clocks does is decided in one place",
    },
    Home { library: "prometheus_client", places: &["src/http/metrics.rs"], why: "one place knows the format" },
    Home { library: "sled", places: &["src/store/sled_tree.rs"], why: "everything else speaks to `ByteTree`" },
    Home {
        library: "backoff",
        places: &["src/workflow/delay.rs"],
        why: "it is a pure calculator there; its own loops keep their state in memory",
    },
];

const SDK: &str = "a type of an SDK never leaves its adapter; say it in the words of the port";

/// Libraries and parts of `std` that reach the world, which what is pure does not.
const WORLD: &[&str] = &[
    "axum",
    "fastrand",
    "http_body_util",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "rustix",
    "rustls",
    "tokio",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
];

/// Libraries outside their home, and the world in what is pure.
pub(crate) fn strangers(sources: &[Source]) -> Vec<String> {
    let modules: BTreeSet<Vec<String>> = modules(sources);
    let mut found = Vec::new();
    for source in sources {
        let pure = matches!(source.module.first().map(String::as_str), Some("model" | "policy"));
        for named in source.named(&modules) {
            let place = format!("{}:{}", source.path, named.line);
            for home in HOMES.iter().filter(|home| named.path[0] == home.library) {
                if !home.places.iter().any(|allowed| source.path.starts_with(allowed)) {
                    found.push(format!(
                        "{place}: {} belongs to {}: {}",
                        home.library,
                        home.places.join(", "),
                        home.why
                    ));
                }
            }
            let path = named.path.join("::");
            for part in WORLD.iter().filter(|part| pure && (path == **part || path.starts_with(&format!("{part}::")))) {
                found.push(format!("{place}: {part} in what is pure: take what it would say as an argument"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these snippets has to be found wrong, in these words.
    #[test]
    fn calls_that_go_the_wrong_way_are_found() {
        let bad = [
            ("src/model.rs", "use crate::policy::rank;", "model names crate::policy::rank"),
            ("src/policy/x.rs", "fn f() { crate::steps::g() }", "policy names crate::steps::g"),
            ("src/policy/x.rs", "use crate::cloud::{ScaleSet, Cloud};", "policy takes Cloud from cloud"),
            ("src/policy/x.rs", "use crate::cluster::*;", "policy takes * from cluster"),
            ("src/steps/x.rs", "use crate::store::Journal;", "steps names crate::store::Journal"),
            (
                "src/steps/x.rs",
                "use crate::{model::RunId, workflow::{Engine, Seen}};",
                "steps takes Engine from workflow",
            ),
            ("src/steps/x.rs", "use crate::cloud::azure::AzureCloud;", "steps names crate::cloud::azure::AzureCloud"),
            ("src/workflow/x.rs", "use crate::cluster::kubernetes::Kube;", "workflow names crate::cluster::kubernetes"),
            ("src/workflow/x.rs", "use super::super::sim::World;", "workflow names crate::sim::World"),
            ("src/cloud/port.rs", "use super::azure::AzureCloud;", "cloud names crate::cloud::azure::AzureCloud"),
            ("src/cli.rs", "fn f() { crate::cloud::azure::connect() }", "cli names crate::cloud::azure::connect"),
            ("src/config.rs", "use crate::cloud::azure::AzureCloud;", "config takes AzureCloud from cloud::azure"),
            ("src/app.rs", "fn f() { crate::cli::progress() }", "app names crate::cli::progress"),
            ("src/http/x.rs", "use crate::app::spec;", "http names crate::app::spec"),
            ("src/store/x.rs", "use crate::workflow::Run;", "store names crate::workflow::Run"),
            ("src/fresh/x.rs", "", "a new module"),
        ];
        for (path, code, words) in bad {
            let found = wrong(&[Source::new(path, code)]);
            assert!(found.iter().any(|text| text.contains(words)), "{path} {code}: {found:?}");
        }
        let good = [
            ("src/steps/x.rs", "use super::ChooseNames;\nuse crate::workflow::{Effect, Seen};"),
            ("src/policy/x.rs", "use crate::cloud::ScaleSet;"),
            ("src/app.rs", "use crate::cloud::azure::AzureCloud;"),
            ("src/workflow/x.rs", "#[cfg(test)]\nmod tests { use crate::sim::World; }"),
        ];
        for (path, code) in good {
            assert_eq!(wrong(&[Source::new(path, code)]), Vec::<String>::new(), "{path} {code}");
        }
    }

    #[test]
    fn libraries_away_from_home_are_found() {
        let bad = [
            ("src/steps/x.rs", "use azure_core::Url;", "azure_core belongs to src/cloud/azure/"),
            ("src/workflow/x.rs", "fn f(pod: k8s_openapi::api::core::v1::Pod) {}", "k8s_openapi belongs to"),
            ("src/cluster/port.rs", "use kube::Client;", "kube belongs to src/cluster/kubernetes/"),
            ("src/store/open.rs", "fn f() { sled::open(\"x\") }", "sled belongs to src/store/sled_tree.rs"),
            ("src/cloud/limiter.rs", "use backoff::ExponentialBackoff as E;", "backoff belongs to"),
            ("src/policy/x.rs", "use tokio::time::Instant;", "tokio in what is pure"),
            ("src/model.rs", "use std::{fmt, fs};", "std::fs in what is pure"),
        ];
        for (path, code, words) in bad {
            let found = strangers(&[Source::new(path, code)]);
            assert!(found.iter().any(|text| text.contains(words)), "{path} {code}: {found:?}");
        }
        let good = Source::new("src/store/sled_tree.rs", "use sled::Db;\nuse std::fs;");
        assert_eq!(strangers(&[good]), Vec::<String>::new());
    }
}
