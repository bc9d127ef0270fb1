//! The real engine, steps, policies and journal over the real adapter, over the wire.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use kamino_wf::{
    clock::Clock as _,
    cloud::Cloud,
    sim::{
        Faults, Line, Scene, SimCluster, SimDisk,
        arm::{Effect, Fault, Injection, Logged},
        checkers, spec,
    },
    store::{Fence, Journal},
    workflow::{Authority, Driver, Engine, Event, Outcome, Pace, Parts, Run, RunState, events, load, shown},
};

use serde_json::json;

use super::stage::{PACE, Stage};

/// As long as the slowest of these updates may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

pub(crate) struct Ended {
    pub(crate) run: Run,
    pub(crate) violations: Vec<String>,
    pub(crate) requests: Vec<Logged>,
    pub(crate) log: Vec<String>,
    /// What the journal holds, as it lies in the store.
    records: String,
    /// The tokens that were good.
    tokens: Vec<String>,
}

/// The step that an event is about: one that ended a step is about that one.
fn about(run: &Run, event: &Event) -> Option<String> {
    let back = i64::from(matches!(event, Event::StepUndone { .. }))
        - i64::from(matches!(event, Event::Confirmed { .. } | Event::Skipped { .. }));
    let at = i64::try_from(run.position()?.step()).ok()?;
    run.plan.get(usize::try_from(at + back).ok()?).map(|step| step.name.clone())
}

pub(crate) async fn update(scene: Scene) -> Ended {
    update_with(scene, &[]).await
}

async fn update_with(scene: Scene, troubles: &[Injection]) -> Ended {
    let stage = Stage::on(scene, |options| options.page_size = 3, |_| {}).await;
    for trouble in troubles {
        stage.face.plant(trouble.clone());
    }
    let disk: Arc<SimDisk> = Arc::default();
    let tree = disk.tree(Arc::clone(&stage.shared.crash));
    let (journal, committer) = Journal::open(tree, stage.clock.new_id()).expect("a journal");
    let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
    let (seen, world) = (Arc::clone(&lines), Arc::clone(&stage.shared));
    let life = async {
        let engine = Engine::open(Parts {
            authority: Arc::new(Authority::unlimited(Fence(0))),
            runs_at_once: usize::MAX,
            cloud: Arc::clone(&stage.azure) as Arc<dyn Cloud>,
            cluster: Arc::new(SimCluster::new(Arc::clone(&stage.shared))),
            clock: Arc::clone(&stage.clock) as Arc<dyn kamino_wf::clock::Clock>,
            journal: journal.clone(),
            limiter: Arc::clone(&stage.limiter),
            pace: Pace {
                first: Duration::from_millis(10),
                longest: Duration::from_millis(60),
                settle: Duration::from_millis(30),
            },
            release: "test".into(),
            observer: Box::new(move |run, event| {
                let step = about(run, event);
                world.world().note(format!("{} {}", step.as_deref().unwrap_or("-"), event.kind()));
                let line = Line { at: event.at(), step, event: event.clone(), process: 0, point: 0 };
                seen.lock().expect("a lock").push(line);
            }),
        })
        .await
        .expect("an engine");
        let engine = Arc::new(engine);
        let id = engine.start(spec(&stage.scene), "test").await.expect("a store").expect("a run");
        Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("a store");
        let (_, all) = events(&journal, id.0).await.expect("a store").expect("the run");
        let facts = journal.facts("").await.expect("facts");
        (load(&journal, id).await.expect("a store").expect("the run").0, all, facts)
    };
    let run = tokio::select! {
        biased;
        result = committer.run() => panic!("the committer ended: {result:?}"),
        run = tokio::time::timeout(PATIENCE, life) => run.unwrap_or_else(|_| {
            panic!("not at rest: {}", stage.shared.world().log.join("\n"))
        }),
    };
    let (run, all, facts) = run;
    // Only the operations' own URLs are kept, byte for byte, and those are shown to nobody.
    let records: Vec<Event> = all.into_iter().map(shown).collect();
    let records = format!("{}{}", json!(records), json!(facts));
    let tokens = stage.face.tokens();
    let requests = stage.face.requests();
    let mut world = stage.shared.world();
    let lines = lines.lock().expect("a lock");
    let violations = checkers::check(&mut world, Some(&run), &lines);
    Ended { run, violations, requests, log: world.log.clone(), records, tokens }
}

#[tokio::test]
async fn a_whole_update_by_the_real_engine_goes_over_the_wire() {
    for adopted in [false, true] {
        let ended = update(Scene { adopted, scale: PACE, ..Scene::nominal() }).await;
        assert_eq!(ended.run.state, RunState::Ended(Outcome::Done), "{}", ended.log.join("\n"));
        assert!(ended.violations.is_empty(), "{:#?}", ended.violations);
        let writes = |method| ended.requests.iter().filter(|it| it.method == method).count();
        assert!(ended.requests.iter().all(|it| it.effect != Effect::Refused), "{:#?}", ended.requests);
        // Snapshot, copy and version; the gallery and the definition of a first update.
        assert_eq!(writes("PUT"), if adopted { 3 } else { 5 });
        // All of a run is found under one id, for support.
        let named =
            |it: &&Logged| it.method == "PUT" && !it.path.ends_with("/prototypes") && !it.path.ends_with("/pool1");
        let run = ended.run.id.0.hyphenated().to_string();
        assert!(ended.requests.iter().filter(named).all(|it| it.correlation_id.as_deref() == Some(&run)));
    }
}

#[tokio::test]
async fn bad_days_end_well_over_the_wire_too() {
    // Side by side: each has a world and a face of its own, and most of its time is Azure's.
    let days =
        (0..8).map(async |seed| (seed, update(Scene { scale: PACE, ..Scene::of_seed(seed, Faults::bad_day()) }).await));
    for (seed, ended) in join_all(days).await {
        assert!(ended.violations.is_empty(), "seed {seed}: {:#?}\n{}", ended.violations, ended.log.join("\n"));
        let RunState::Ended(_) = &ended.run.state else {
            panic!("seed {seed}: {:?}\n{}", ended.run.state, ended.log.join("\n"));
        };
    }
}

/// A proxy that echoes what it was sent, and a provider whose words hold keys: none of it lies in the store.
#[tokio::test]
async fn what_gives_access_lies_nowhere_in_the_store() {
    let keys = "denied for Authorization: Bearer eyJ0eXAiOiJKV1QiLCJh.planted-canary.c2ln, see \
                https://md-1.blob.core.windows.net/x/abcd?sv=2018-03-28&sr=b&sig=planted-canary and accessSAS=planted-canary";
    let answer = |status, code: &str| Fault::Answer {
        status,
        headers: vec![("azure-asyncoperation", "https://evil.example/op?s=planted-canary".into())],
        body: json!({ "error": { "code": code, "message": keys } }),
    };
    let troubles: Vec<Injection> = ["/snapshots/", "/disks/", "/versions/", "/virtualMachineScaleSets/"]
        .into_iter()
        .flat_map(|part| {
            let faults = [answer(409, "Conflict"), answer(502, "BadGateway"), answer(412, "PreconditionFailed")];
            let methods = if part.contains("Sets") { ["GET", "PATCH"] } else { ["GET", "PUT"] };
            let planted = faults.into_iter().flat_map(move |fault| methods.map(|method| (method, fault.clone())));
            planted.map(move |(method, fault)| Injection { method, path_part: part.into(), times: 1, fault })
        })
        .collect();
    let ended = update_with(Scene { adopted: false, scale: PACE, ..Scene::nominal() }, &troubles).await;
    assert_eq!(ended.run.state, RunState::Ended(Outcome::Done), "{}", ended.log.join("\n"));
    assert!(ended.records.contains("denied for Authorization: Bearer …"), "what was said is kept: {}", ended.records);
    assert!(!ended.records.contains("canary"), "{}", ended.records);
    assert!(!ended.tokens.is_empty());
    for token in &ended.tokens {
        assert!(!ended.records.contains(token), "a token lies in the store");
    }
}

/// Every kind of request is cut once before it arrives, once after it was done, and answered once with a page of a proxy
/// and once with 401.
#[tokio::test]
async fn a_bad_wire_changes_nothing() {
    let answer = |status, body: &str| Fault::Answer { status, headers: vec![], body: json!(body) };
    let parts = [
        ("PUT", "/galleries/prototypes"),
        ("PUT", "/snapshots/"),
        ("PUT", "/disks/"),
        ("PUT", "/versions/"),
        ("PATCH", "/versions/"),
        ("PATCH", "/virtualMachineScaleSets/"),
        ("DELETE", "/snapshots/"),
        ("DELETE", "/disks/"),
        ("GET", "/virtualMachineScaleSets/"),
        ("GET", "/versions/"),
        ("GET", "/locations/"),
    ];
    let troubles: Vec<Injection> = parts
        .into_iter()
        .flat_map(|(method, part)| {
            let faults = [answer(401, "who are you"), Fault::CutBefore, answer(502, "<html>bad gateway</html>")];
            let writes = (method != "GET").then_some(Fault::CutAfter);
            let planted = faults.into_iter().chain(writes);
            planted.map(move |fault| Injection { method, path_part: part.into(), times: 1, fault })
        })
        .collect();
    let ended = update_with(Scene { adopted: false, scale: PACE, ..Scene::nominal() }, &troubles).await;
    assert_eq!(ended.run.state, RunState::Ended(Outcome::Done), "{}", ended.log.join("\n"));
    assert!(ended.violations.is_empty(), "{:#?}", ended.violations);
    let cut = ended.requests.iter().filter(|it| it.status.is_none()).count();
    assert!(cut >= parts.len(), "only {cut} were cut");
}
