//! Bad input of every kind, in one table: with which code a command or a run ends, that its words name the thing, its value and
//! the remedy, which page says more, and that nothing was touched.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::support::binary::Binary;
use kamino_wf::{
    cli::Code,
    clock::{Clock as _, SystemClock},
    sim::{Fault, Scene, Session, Stop, World, spec},
    store::{Holder, Journal, StoreGuard, open_dir},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder with a settings file, a kubeconfig of an API server that is not there, and perhaps a store.
struct Desk {
    folder: TempDir,
    settings: Value,
    variables: Vec<(&'static str, &'static str)>,
    /// Whoever holds the store meanwhile.
    holder: Option<(Journal, StoreGuard)>,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let spec = spec(&Scene::nominal());
        let settings = json!({
            "store": at("store"),
            "azure": { "credential": "workload-identity", "tenant": "t", "client": "c", "tokenFile": at("token") },
            "kubernetes": { "kubeconfig": at("kubeconfig") },
            "cleaning": { "image": "registry.example/kamino-wf:test" },
            "pools": [{ "name": "pool1", "scaleSet": spec.scale_set, "profile": "kubeadm", "gallery": spec.gallery }],
        });
        let nobody = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": "http://127.0.0.1:9" } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        fs::write(at("kubeconfig"), nobody.to_string()).expect("a kubeconfig");
        fs::write(at("token"), "not a token").expect("a token");
        Self { folder, settings, variables: Vec::new(), holder: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.at(name).to_str().expect("a plain name").to_owned()
    }

    /// A store with runs in it: the frozen one of the first release.
    fn stored(&self) {
        copied(&Path::new(ROOT).join("tests/stores/v1"), &self.at("store"));
    }

    fn binary(&self) -> Binary {
        fs::write(self.at("config.yaml"), self.settings.to_string()).expect("a settings file");
        let binary = Binary::new(self.folder.path(), &self.at("config.yaml"));
        self.variables.iter().fold(binary, |binary, (name, value)| binary.with(name, value))
    }

    /// What there is, byte for byte.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap_or_default());
                }
            }
        }
        found
    }
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the frozen store") {
        let (path, target) = {
            let entry = entry.expect("an entry");
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copied(&path, &target);
        } else {
            fs::copy(path, target).expect("copied");
        }
    }
}

/// What is bad about the command's input; and its arguments.
type Prepare = fn(&mut Desk) -> Vec<String>;

struct Command {
    /// What kind of bad input it is.
    kind: &'static str,
    prepare: Prepare,
    exit: i32,
    page: Option<&'static str>,
    words: &'static [&'static str],
}

const fn command(
    kind: &'static str,
    prepare: Prepare,
    exit: i32,
    page: Option<&'static str>,
    words: &'static [&'static str],
) -> Command {
    Command { kind, prepare, exit, page, words }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

const START: &str = "start --pool pool1 --wait";

fn start_with(desk: &mut Desk, change: fn(&mut Value)) -> Vec<String> {
    change(&mut desk.settings);
    words(START)
}

fn cleaning(desk: &Desk, device: &str, profile: &str) -> Vec<String> {
    let report = desk.name("report");
    words(&format!("clean --device {device} --profile {profile} --run r --nonce n --report {report}"))
}

const COMMANDS: &[Command] = &[
    command(
        "a pool that the settings do not have",
        |_| words("start --pool pool9 --wait"),
        4,
        None,
        &["--pool", "pool9", "expected one of pool1"],
    ),
    command("a name that no node can have", |_| words("start --node No_Name"), 2, None, &["--node", "No_Name"]),
    command(
        "a run that is not there",
        |desk| {
            desk.stored();
            words("describe zzzz")
        },
        4,
        None,
        &["there is no run", "zzzz", "kamino-wf list"],
    ),
    command(
        "a scale set's id that is none",
        |desk| start_with(desk, |it| it["pools"][0]["scaleSet"] = json!("pool1")),
        2,
        None,
        &["pools[0].scaleSet", "\"pool1\"", "/subscriptions/"],
    ),
    command(
        "an id of another kind",
        |desk| start_with(desk, |it| it["pools"][0]["gallery"] = it["pools"][0]["scaleSet"].clone()),
        2,
        None,
        &["pools[0].gallery", "virtualMachineScaleSets", "galleries"],
    ),
    command(
        "a setting that there is not",
        |desk| start_with(desk, |it| it["pools"][0]["colour"] = json!("red")),
        2,
        None,
        &["config.yaml", "colour", "unknown field"],
    ),
    command(
        "a number that makes no sense",
        |desk| start_with(desk, |it| it["pools"][0]["keep"] = json!(1)),
        2,
        None,
        &["pools[0].keep is 1", "expected 2 to 1000"],
    ),
    command(
        "a gate that there is not",
        |desk| start_with(desk, |it| it["pools"][0]["approve"] = json!(["publish"])),
        2,
        None,
        &["approve", "publish", "switch"],
    ),
    command(
        "no credential",
        |desk| start_with(desk, |it| drop(it.as_object_mut().map(|it| it.remove("azure")))),
        2,
        None,
        &["no Azure credential is set", "azure.credential"],
    ),
    command(
        "a variable with a typo",
        |desk| {
            desk.variables.push(("KAMINO_STOER", "/x"));
            words("list")
        },
        2,
        None,
        &["KAMINO_STOER", "KAMINO_STORE"],
    ),
    command(
        "a settings file that is not there",
        |desk| words(&format!("list --config {}", desk.name("missing.yaml"))),
        2,
        None,
        &["missing.yaml", "--config"],
    ),
    command(
        "faults that exclude each other",
        |_| words("simulate --faults none,throttles"),
        2,
        None,
        &["--faults is none,throttles", "stands alone"],
    ),
    command(
        "an answer to nobody's question",
        |desk| {
            desk.stored();
            words("cancel zzzz --yes")
        },
        2,
        None,
        &["--abandon", "required"],
    ),
    command(
        "an API server that does not answer",
        |_| words(START),
        1,
        Some("KW0400"),
        &["which cluster", "127.0.0.1:9", "kubernetes.kubeconfig"],
    ),
    command(
        "a kubeconfig that is none",
        |desk| {
            fs::write(desk.at("kubeconfig"), "kind: Nonsense").expect("a file");
            words(START)
        },
        2,
        None,
        &["kubeconfig"],
    ),
    command(
        "a store that is in use",
        |desk| {
            let holder = Holder { pid: 4711, since: SystemClock.now(), socket: None, release: "9.9.9".into() };
            desk.holder = Some(open_dir(&desk.at("store"), &holder).expect("a store"));
            words("list")
        },
        5,
        Some("KW0103"),
        &["store", "4711", "9.9.9", "stop it first"],
    ),
    command(
        "a damaged record",
        |desk| {
            desk.stored();
            let file = desk.at("store/db/db");
            let mut bytes = fs::read(&file).expect("it reads");
            let name = b"virtualMachineScaleSets";
            let places = 0..bytes.len() - name.len();
            for at in places.filter(|at| bytes[*at..].starts_with(name)).collect::<Vec<_>>() {
                bytes[at] ^= 1;
            }
            fs::write(&file, &bytes).expect("it writes");
            words("list")
        },
        1,
        Some("KW0104"),
        &["trust the store", "restore"],
    ),
    command(
        "a directory of something else",
        |desk| {
            fs::create_dir(desk.at("store")).expect("a directory");
            fs::create_dir(desk.at("store/db")).expect("a directory");
            fs::write(desk.at("store/db/letters.txt"), "dear all").expect("a file");
            words("store check")
        },
        1,
        Some("KW0110"),
        &["/store", "there is no database in it", "name an empty directory"],
    ),
    command(
        "an export that is none",
        |desk| {
            fs::write(desk.at("half"), "{}\n").expect("a file");
            words(&format!("store import {}", desk.name("half")))
        },
        2,
        Some("KW0115"),
        &["half", "line 1"],
    ),
    command(
        "a device that is not there",
        |desk| cleaning(desk, &desk.name("none"), "kubeadm"),
        3,
        None,
        &["--device", "none", "No such file"],
    ),
    command(
        "a disk that is no node's",
        |desk| {
            fs::write(desk.at("noise"), "no disk at all\n".repeat(10_000)).expect("a file");
            cleaning(desk, &desk.name("noise"), "kubeadm")
        },
        3,
        None,
        &["noise", "no partition table", "GPT"],
    ),
    command(
        "a profile that there is not",
        |desk| cleaning(desk, "/dev/null", "openshift"),
        2,
        None,
        &["--profile", "openshift", "kubeadm"],
    ),
];

/// What is not as it should be with how a command ended, and with what it left.
async fn problems(Command { kind, prepare, exit, page, words }: &Command) -> Vec<String> {
    let mut desk = Desk::new();
    let arguments = prepare(&mut desk);
    let binary = desk.binary();
    let before = desk.files();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = binary.run(&arguments).await;
    let mut found = Vec::new();
    let said = format!("{}{}", ended.stdout, ended.stderr);
    if ended.code() != Some(*exit) {
        found.push(format!("ended with {:?}, not {exit}", ended.code()));
    }
    let page = page.map(|page| format!("docs/errors/{page}.md"));
    let missing = words.iter().copied().chain(page.as_deref()).filter(|word| !said.contains(word));
    found.extend(missing.map(|word| format!("{word:?} is not said")));
    found.extend(page.filter(|page| !Path::new(ROOT).join(page).is_file()).map(|page| format!("there is no {page}")));
    let after = desk.files();
    // Whoever only looks holds the store meanwhile, and the cleaner gives its own account of what it did not do.
    let own = [desk.at("store/LOCK"), desk.at("report")];
    let differs = |path: &&PathBuf| !own.contains(path) && before.get(*path) != after.get(*path);
    found.extend(
        before.keys().chain(after.keys()).filter(differs).map(|path| format!("{} was touched", path.display())),
    );
    found.iter().map(|problem| format!("{kind}: {problem}: {said}")).collect()
}

#[tokio::test]
async fn a_command_says_what_is_wrong_with_its_input_and_touches_nothing() {
    let mut found = Vec::new();
    for command in COMMANDS {
        found.extend(problems(command).await);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

struct Bad {
    kind: &'static str,
    change: fn(&mut World),
    exit: Code,
    page: &'static str,
    words: &'static [&'static str],
}

const fn bad(
    kind: &'static str,
    change: fn(&mut World),
    exit: Code,
    page: &'static str,
    words: &'static [&'static str],
) -> Bad {
    Bad { kind, change, exit, page, words }
}

/// Whatever is asked of Azure and the cluster.
fn always(world: &mut World, fault: Fault) {
    world.script = (0..100_000).map(|call| (call, fault)).collect();
}

fn model(world: &mut World) -> &mut Value {
    &mut world.scale_sets.get_mut(&spec(&Scene::nominal()).scale_set.key()).expect("the pool").value
}

const RUNS: &[Bad] = &[
    bad("a missing right", |world| always(world, Fault::Denied), Code::Undone, "KW0400", &["as the script says"]),
    bad(
        "nobody answers",
        |world| always(world, Fault::LostRequest),
        Code::Undone,
        "KW0003",
        &["Preflight", "could not be decided in time"],
    ),
    bad(
        "a scale set that is not there",
        |world| world.scale_sets.clear(),
        Code::Undone,
        "KW0221",
        &["pool1", "does not exist", "check subscription"],
    ),
    bad(
        "a scale set that would roll",
        |world| model(world)["properties"]["upgradePolicy"]["mode"] = json!("Rolling"),
        Code::Undone,
        "KW0201",
        &["upgradePolicy.mode", "Rolling", "Manual"],
    ),
    bad("a pool without nodes", |world| world.nodes.clear(), Code::Undone, "KW0230", &["pool1"]),
    bad("a disk that is not there", |world| world.disks.clear(), Code::Undone, "KW0232", &["OsDisk", "does not exist"]),
    bad(
        "a node whose machine is not there",
        |world| world.instances.clear(),
        Code::Undone,
        "KW0231",
        &["pool1", "does not exist"],
    ),
];

#[test]
fn a_run_says_what_is_wrong_with_the_world_and_touches_nothing() {
    for Bad { kind, change, exit, page, words } in RUNS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime can be built").block_on(async {
            let session = Session::new(Scene::nominal());
            change(&mut session.shared.world());
            let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
            let summary = outcome.summary.expect("a run");
            let why = summary.why.clone().unwrap_or_default();
            println!("{kind}: {} {why}", summary.state);
            assert_eq!(Code::of(&summary), *exit, "{kind}: {} {why}", summary.state);
            for word in words.iter().chain([page]) {
                assert!(why.contains(word), "{kind}: {word:?} is missing in: {why}");
            }
            assert!(Path::new(ROOT).join(format!("docs/errors/{page}.md")).is_file(), "{page} has no page");
            assert!(outcome.violations.is_empty(), "{kind}: {:#?}", outcome.violations);
            let asked = &session.shared.world().accepted;
            assert!(asked.is_empty(), "{kind}: {asked:?}");
        });
    }
}
