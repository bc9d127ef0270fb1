//! Commands where there is no cluster and no cloud: what can't be is said in words that name the thing, its value and the
//! remedy, with the documented exit code; and a store that can't be trusted is left as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::support::binary::Binary;
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::Limiter,
    sim::{Scene, Shared, SimCloud, SimCluster, spec},
    store::{Fence, Holder, Journal, StoreGuard, open_dir},
    workflow::{Authority, Engine, Pace, Parts},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Duration, sleep};

/// A folder with a settings file, and the binary to try on it.
struct Desk {
    folder: TempDir,
    binary: Binary,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let binary = Binary::new(folder.path(), &folder.path().join("config.yaml"));
        let desk = Self { folder, binary };
        desk.configure(|_| {});
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.at("store")
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let spec = spec(&Scene::nominal());
        let mut settings = json!({
            "store": self.store(),
            "azure": { "credential": "workload-identity", "tenant": "t", "client": "c", "tokenFile": self.at("token") },
            "kubernetes": { "kubeconfig": self.at("kubeconfig") },
            "cleaning": { "image": "registry.example/kamino-wf:test" },
            "pools": [{ "name": "pool1", "scaleSet": spec.scale_set.to_string(), "profile": "kubeadm",
                "gallery": spec.gallery.to_string() }],
        });
        change(&mut settings);
        fs::write(self.at("config.yaml"), settings.to_string()).expect("a settings file");
    }

    /// A store with one run that has just begun; returns its short id.
    async fn with_a_run(&self) -> String {
        let (journal, guard) = held(&self.store());
        let scene = Scene::nominal();
        let shared = Shared::new(scene.world());
        let limiter = Arc::new(Limiter::default());
        let engine = Engine::open(Parts {
            authority: Arc::new(Authority::unlimited(Fence(0))),
            runs_at_once: usize::MAX,
            cloud: Arc::new(SimCloud::new(Arc::clone(&shared), Arc::clone(&limiter))),
            cluster: Arc::new(SimCluster::new(shared)),
            clock: Arc::new(SystemClock),
            journal: journal.clone(),
            limiter,
            pace: Pace::default(),
            release: "test".into(),
            observer: Box::new(|_, _| {}),
        })
        .await
        .expect("an engine");
        let id = engine.start(spec(&scene), "somebody").await.expect("a store").expect("a run");
        drop((engine, journal));
        guard.close().expect("it closes");
        id.short()
    }
}

fn held(store: &Path) -> (Journal, StoreGuard) {
    let holder = Holder { pid: 4711, since: SystemClock.now(), socket: None, release: "9.9.9".into() };
    open_dir(store, &holder).expect("a store")
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_named_with_the_remedy() {
    const START: &[&str] = &["start", "--pool", "pool1", "--wait"];
    type Change = fn(&mut Value);
    let table: [(Change, &[&str]); 11] = [
        (|it| it["pols"] = json!([]), &["config.yaml", "pols", "pools"]),
        (|it| it["azure"]["colour"] = json!("red"), &["config.yaml", "colour"]),
        (|it| it["pools"][0]["scaleSet"] = json!("pool1"), &["pools[0].scaleSet", "\"pool1\"", "/subscriptions/"]),
        (|it| it["pools"][0]["gallery"] = json!("/a/../b"), &["pools[0].gallery", "/a/../b"]),
        (|it| it["pools"][0]["profile"] = json!("talos"), &["pools[0].profile", "talos", "kubeadm"]),
        (|it| it["pools"][0]["keep"] = json!(1), &["pools[0].keep is 1", "expected 2 to 1000"]),
        (|it| it["polling"] = json!({ "first": "soon" }), &["polling.first", "soon", "as in 90s"]),
        (|it| it["azure"]["tenant"] = json!(""), &["azure.tenant", "AZURE_TENANT_ID"]),
        (|it| it["azure"]["secretFile"] = json!("/does/not/exist"), &["azure.secretFile", "/does/not/exist"]),
        (
            |it| drop(it.as_object_mut().map(|it| it.remove("azure"))),
            &["no Azure credential is set", "azure.credential"],
        ),
        (|it| drop(it.as_object_mut().map(|it| it.remove("cleaning"))), &["cleaning.image", "not set"]),
    ];
    for (change, words) in table {
        let desk = Desk::new();
        desk.configure(change);
        desk.binary.run(START).await.assert(2, words);
        assert!(!desk.store().exists(), "{words:?}: a store was made");
    }
    let desk = Desk::new();
    let start = |words: &[&'static str]| [&["start", "--wait"], words].concat();
    desk.binary.run(&start(&["--pool", "nope"])).await.assert(4, &["--pool \"nope\"", "expected one of pool1"]);
    desk.binary.run(&start(&["--node", "No_Name"])).await.assert(2, &["No_Name"]);
    desk.binary.run(&start(&[])).await.assert(2, &["--pool"]);
    let kubeconfig = desk.at("kubeconfig").display().to_string();
    desk.binary.run(START).await.assert(2, &["kubeconfig", &kubeconfig]);
    fs::write(desk.at("kubeconfig"), "kind: Nonsense").expect("a file");
    desk.binary.run(START).await.assert(2, &["kubeconfig", &kubeconfig]);
    let missing = Binary::new(desk.folder.path(), &desk.at("missing.yaml"));
    missing.run(&["list"]).await.assert(2, &["missing.yaml", "--config", "KAMINO_CONFIG"]);
    assert!(!desk.store().exists(), "a store was made");
}

#[tokio::test]
async fn misspelt_variables_and_log_filters_are_refused() {
    let desk = Desk::new();
    desk.binary.with("KAMINO_STOER", "/x").run(&["list"]).await.assert(2, &["KAMINO_STOER", "KAMINO_STORE"]);
    desk.binary.with("KAMINO_LOG", "a=b=c").run(&["list"]).await.assert(2, &["--log", "a=b=c", "kamino_wf=debug"]);
    let other = desk.at("other").display().to_string();
    desk.binary.with("KAMINO_STORE", &other).run(&["list"]).await.assert(0, &["There are no runs yet"]);
    desk.binary.with("KAMINO_CONTEXT", "here").run(&["list"]).await.assert(0, &[]);
}

#[tokio::test]
async fn without_a_store_there_is_nothing_to_say_and_none_is_made() {
    let desk = Desk::new();
    desk.binary.run(&["list"]).await.assert(0, &["There are no runs yet", "kamino-wf start"]);
    assert_eq!(desk.binary.run(&["list", "-o", "json"]).await.assert(0, &[]).json()["runs"], json!([]));
    for command in ["describe", "cancel", "resume"] {
        desk.binary.run(&[command, "0123456789ab"]).await.assert(4, &["there is no run 0123456789ab"]);
    }
    desk.binary.run(&["resume", "--wait"]).await.assert(4, &["there is no run"]);
    desk.binary.run(&["store", "check"]).await.assert(1, &["there is no database in it"]);
    assert!(!desk.store().exists(), "a store was made");
}

#[tokio::test]
async fn a_run_is_found_by_its_first_digits_and_no_others() {
    let desk = Desk::new();
    let run = desk.with_a_run().await;
    desk.binary.run(&["list"]).await.assert(0, &[&run, "pool1", "running", "Preflight"]);
    let described = desk.binary.run(&["describe", &run[..5], "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(described["summary"]["run"], run.as_str(), "{described}");
    desk.binary.run(&["describe", "xyz"]).await.assert(4, &["there is no run xyz", "kamino-wf list"]);
    let check = desk.binary.run(&["store", "check", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!((&check["kind"], &check["runs"]), (&json!("StoreCheck"), &json!(1)), "{check}");
}

/// Nothing moves, and whoever waits for it is told so.
#[tokio::test]
async fn without_a_holder_there_is_nothing_to_watch() {
    let desk = Desk::new();
    let run = desk.with_a_run().await;
    let words = ["nobody holds the store in", "this is all there is", "State      running"];
    desk.binary.run(&["describe", &run, "--watch"]).await.assert(1, &words);
    let json = desk.binary.run(&["describe", &run, "--watch", "-o", "json"]).await;
    let event = json.assert(1, &[]).json();
    assert_eq!((&event["kind"], &event["event"]["event"]), (&json!("Event"), &json!("started")));
    assert_eq!(desk.binary.run(&["list", "--audit", "-o", "json"]).await.assert(0, &[]).json()["entries"], json!([]));
}

/// A socket that a killed process left behind is no holder.
#[tokio::test]
async fn a_stale_socket_is_no_holder() {
    let desk = Desk::new();
    let run = desk.with_a_run().await;
    drop(std::os::unix::net::UnixListener::bind(desk.store().join("control.sock")).expect("a socket"));
    desk.binary.run(&["list"]).await.assert(0, &[&run]);
}

#[tokio::test]
async fn whoever_holds_the_store_is_named() {
    let desk = Desk::new();
    let run = desk.with_a_run().await;
    let (journal, guard) = held(&desk.store());
    let store = desk.store().display().to_string();
    let commands = [vec!["list"], vec!["describe", &run], vec!["store", "check"]];
    let ended = commands.iter().map(|command| desk.binary.run(command));
    for ended in futures_util::future::join_all(ended).await {
        ended.assert(5, &[&store, "4711", "9.9.9", "stop it first"]);
    }
    drop(journal);
    guard.close().expect("it closes");
    desk.binary.run(&["list"]).await.assert(0, &[&run]);
}

/// A good end is 0; a version that was bad and is taken back is 8.
#[tokio::test]
async fn simulations_end_as_the_run_in_them_does() {
    let desk = Desk::new();
    let simulate = ["simulate", "--speed", "0", "--faults", "none"];
    let rows: [(&[&str], i32, &[&str]); 4] = [
        (&[], 0, &["CleanCopy", "the donor never written to"]),
        (&["--capture", "stop"], 0, &["DrainNode", "the donor given back as it was found"]),
        (&["--canary", "good"], 0, &["pool1-vmss000003 is good", "Done: new nodes start from"]),
        (&["--canary", "same-machine-id"], 8, &["is NOT good", "its machine id is that of the donor", "is withdrawn"]),
    ];
    for (more, code, words) in rows {
        desk.binary.run(&[&simulate, more].concat()).await.assert(code, words);
    }
    desk.binary.run(&["simulate", "--canary", "sometimes"]).await.assert(2, &["never-joins", "same-machine-id"]);
}

#[tokio::test]
async fn a_damaged_record_stops_every_command_and_stays_as_it_is() {
    let desk = Desk::new();
    let run = desk.with_a_run().await;
    let file = desk.store().join("db/db");
    let mut bytes = fs::read(&file).expect("it reads");
    let name = b"virtualMachineScaleSets";
    let at = bytes.windows(name.len()).position(|window| window == name).expect("the record, as it was written");
    bytes[at] ^= 1;
    fs::write(&file, &bytes).expect("it writes");
    for command in [vec!["list"], vec!["describe", &run], vec!["store", "check"]] {
        // By its checksum, or, where sled gives up the tail behind it, by the mark outside of sled.
        desk.binary.run(&command).await.assert(1, &["trust the store", "restore"]);
        assert!(fs::read(&file).expect("it reads") == bytes, "{command:?} changed the evidence");
    }
}

#[tokio::test]
async fn a_store_of_a_newer_release_is_left_to_that() {
    let desk = Desk::new();
    desk.with_a_run().await;
    // The store's own entry as a release with schema 2 would write it; see src/store/frame.rs.
    let payload = json!({ "store": SystemClock.new_id() }).to_string();
    let mut frame = vec![b'K', 1, 1, 0, 2];
    frame.extend([0; 33]);
    frame.extend(u32::try_from(payload.len()).expect("it is short").to_be_bytes());
    frame.extend(payload.as_bytes());
    let crc = [&[0_u8][..], &frame].concat();
    frame.extend(crc32fast::hash(&crc).to_be_bytes());
    // Another test may start a process just now, which has sled's lock, too, until it is the program that it is to be.
    let mut opened = sled::open(desk.store().join("db"));
    for _ in 0..100 {
        if opened.is_ok() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
        opened = sled::open(desk.store().join("db"));
    }
    let db = opened.expect("sled opens");
    db.insert([0, 0, 0], [&[0, 1][..], &frame].concat()).expect("it writes");
    drop(db);
    for command in [&["list"][..], &["store", "check"]] {
        desk.binary.run(command).await.assert(1, &["its schema is 2", "up to 1", "run the newer release again"]);
    }
}
