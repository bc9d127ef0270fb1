//! One whole update: what came of it, and what was written on the way.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio};

use kamino_wf::{
    model::DefinitionId,
    sim::arm::{Effect, Logged},
};
use serde_json::Value;

use crate::{
    START, described,
    guest::{Disk, Form, Lab},
    plant::plant,
    support::{
        binary::Running,
        cluster::{mortal, shared},
        world::{Cleaner, Plan, Site},
    },
};

/// As whoever sits before a terminal sees it; everybody else gets lines only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_shows_how_far_an_update_is() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    let command = site.binary.command(START);
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|it| it.to_string_lossy().into_owned()));
    // Of util-linux: gives what it starts a terminal of its own, and passes on what that shows.
    let mut script = mortal(Path::new("/usr/bin/script"));
    script.args(["--quiet", "--return", "--flush", "--command", &words.join(" "), "/dev/null"]).stdin(Stdio::null());
    script.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
    let ended = Running::spawn(script).ended().await;
    ended.assert(0, &["done: new nodes are made from the new image"]);
    for word in ["pool1 ", "[==", "CreateVersion", "\u{1b}["] {
        assert!(ended.stdout.contains(word), "no {word:?} in {}", ended.stdout);
    }
    let shown = ended.stdout.matches("[=").count();
    assert!(shown > 5, "a bar that moves: {shown}");
    site.point_model_elsewhere();
    let piped = site.binary.run(START).await;
    piped.assert(0, &["done: new nodes are made from the new image"]);
    assert!(!piped.stderr.contains("[=") && !piped.stderr.contains('\u{1b}'), "{}", piped.stderr);
}

/// With the real cleaner on a used Debian node's disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_update_makes_new_nodes_clean_copies_of_the_donor() {
    let Some(cluster) = shared() else { return };
    let Some(lab) = Lab::new() else { return };
    let base = lab.base(Form::Gpt, "donor.img");
    let words = plant(&base, "kubeadm");
    let plan = Plan { cleaner: Cleaner::Real(base.image.clone()), ..Plan::default() };
    let site = Site::new(cluster, plan).await;

    let ended = site.binary.run(START).await;
    ended.assert(0, &["done: new nodes are made from the new image"]);
    let run = described(&site, &ended).await;
    assert_eq!(run["summary"]["state"], "done", "{run}");
    assert_eq!(run["warnings"], Value::Array(vec![]), "{run}");

    // One of everything, and nothing was refused.
    let writes = site.writes();
    assert!(writes.iter().all(|it| it.effect == Effect::Accepted), "{writes:#?}");
    let count = |method: &str, part: &str| {
        let fits = |it: &&Logged| it.method == method && it.path.to_ascii_lowercase().contains(part);
        writes.iter().filter(fits).count()
    };
    let once = [("PUT", "/snapshots/"), ("PUT", "/disks/"), ("PUT", "/versions/"), ("PATCH", "/versions/")];
    for (method, part) in once.into_iter().chain([("PATCH", "/virtualmachinescalesets/pool1")]) {
        assert_eq!(count(method, part), 1, "{method} {part}: {writes:#?}");
    }

    // What new nodes are made from.
    let (definition, image) = {
        let world = site.world.world();
        let model = world.model(&site.scale_set()).expect("the scale set").clone();
        let image = model.pointer("/properties/virtualMachineProfile/storageProfile/imageReference");
        let image = image.expect("an image").clone();
        let definition = DefinitionId::parse(image["id"].as_str().expect("an id")).expect("a definition");
        let published: Vec<_> = world.versions.values().filter(|it| !it.value.excluded_from_latest).collect();
        assert_eq!(published.len(), 1);
        assert!(published[0].value.id.key().starts_with(&definition.key()));
        (definition, image)
    };
    assert_eq!(image.as_object().map(serde_json::Map::len), Some(1), "nothing of the old image is left: {image}");
    assert_eq!(definition.name(), "pool1");
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
    no_call_without_a_golden(&site.face.requests());

    // The source of the version was cleaned by the pod, and by nothing else.
    let output = |step: &str| {
        let events = run["events"].as_array().expect("events");
        let names: Vec<&Value> = run["steps"].as_array().expect("steps").iter().map(|it| &it["step"]).collect();
        let confirmed = events.iter().filter(|it| it["event"] == "confirmed").map(|it| &it["output"]);
        let at = names.iter().position(|name| *name == step).expect("the step");
        confirmed.clone().nth(at).expect("its output").clone()
    };
    let cleaned = output("CleanCopy");
    assert_eq!(cleaned["report"]["verdict"], "clean", "{cleaned}");
    assert_eq!(cleaned["node"], "worker", "{cleaned}");
    assert!(cleaned["report"]["files"].as_u64() > Some(25), "{cleaned}");
    let disk = output("CopyDisk")["disk"].as_str().expect("an id").to_owned();
    let image = site.image_of(&disk).expect("the kubelet had it");
    let source = Disk { image, form: Form::Gpt };
    let before = base.planted();
    assert!(words.iter().all(|word| before.contains_key(word)), "control: the donor's disk holds them all: {before:?}");
    assert!(source.planted().is_empty(), "readable in the raw source of the version: {:?}", source.planted());
    assert_eq!(site.cleaning.begun(), 1, "one cleaning");
}

/// Whatever the binary asks Azure for has a golden of its method, path, version and query, made by the real adapter.
fn no_call_without_a_golden(requests: &[Logged]) {
    let goldens: BTreeSet<String> = goldens();
    assert!(goldens.len() >= 20, "{goldens:#?}");
    let seen: BTreeSet<String> = requests
        .iter()
        .map(|it| call(&format!("{} {}", it.method, it.path), it.api_version.as_deref(), &it.query))
        .collect();
    let new: Vec<&String> = seen.difference(&goldens).collect();
    assert!(new.is_empty(), "calls without a golden in tests/golden/azure: {new:#?}");
    assert!(seen.len() >= 15, "{seen:#?}");
}

fn goldens() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/azure");
    let mut calls = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the goldens") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a golden");
        let json = text.splitn(3, "---\n").nth(2).expect("a snapshot of insta");
        for one in serde_json::from_str::<Vec<Value>>(json).expect("a golden's requests") {
            let request = one["request"].as_str().expect("a request");
            calls.insert(call(request, one["api-version"].as_str(), one["query"].as_str().unwrap_or_default()));
        }
    }
    calls
}

/// A call without its names: `PUT .../snapshots/{}`.
fn call(request: &str, api_version: Option<&str>, query: &str) -> String {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let lower = path.to_ascii_lowercase();
    let (_, rest) = lower.split_once("/providers/microsoft.compute/").unwrap_or(("", &lower));
    let scope = if lower.contains("/resourcegroups/") { "group" } else { "subscription" };
    let words: Vec<&str> = rest.split('/').collect();
    let kinds: Vec<&str> = match words.as_slice() {
        // locations/westus/DiskOperations/guid: three families with one meaning.
        ["locations", ..] => vec!["locations", "{}", "{}", "{}"],
        words => words.iter().enumerate().map(|(at, word)| if at % 2 == 0 { *word } else { "{}" }).collect(),
    };
    let version = if kinds.first() == Some(&"locations") { "" } else { api_version.unwrap_or("none") };
    // Where a page begins is no other call.
    let query: Vec<&str> = query.split('&').filter(|part| !part.starts_with("$skiptoken=")).collect();
    format!("{method} {scope}/{} {version} {}", kinds.join("/"), query.join("&"))
}
