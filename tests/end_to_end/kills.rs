//! SIGKILL at a hundred random moments, started again each time, over as many updates as it takes: one of everything, and what
//! was under way is polled on.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use kamino_wf::{
    sim::arm::{Effect, Logged},
    store::Holder,
    workflow::{Event, Summary, describe, summaries},
};
use tokio::time::Instant;

use crate::{
    START,
    guest::{Disk, Form, Lab},
    plant::plant,
    support::{
        binary::Running,
        cluster::shared,
        world::{Cleaner, Plan, Site},
    },
};

/// Random moments, whatever they hit.
const KILLS: u32 = 100;
/// How often each step of capture and publish is hit at least.
const EACH: usize = 3;
/// With those that are aimed at a step that chance has left out.
const KILLS_MAX: u32 = 160;
const SEED: u64 = 20_261_124;

/// The steps of capture and publish, each with the one before it, whose end is what people see of its beginning.
const STEPS: [(&str, &str); 6] = [
    ("EnsureDefinition", "SnapshotDisk"),
    ("SnapshotDisk", "CopyDisk"),
    ("CopyDisk", "CleanCopy"),
    ("CleanCopy", "DetachCopy"),
    ("DetachCopy", "CreateVersion"),
    ("CreateVersion", "VerifyVersion"),
];

/// When the next kill comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the start.
    After(Duration),
    /// When Azure has taken this many more requests: the answer to the last of them is still on its way.
    Requests(usize),
    /// When it has said this many lines, and a little later.
    Lines(usize, Duration),
    /// When this step is done, and a little later.
    Done(&'static str, Duration),
}

impl Moment {
    fn by_chance(rng: &mut Rng, update: Duration) -> Self {
        let millis = u64::try_from(update.as_millis()).unwrap_or(u64::MAX);
        match rng.u32(0..3) {
            0 => Self::After(Duration::from_millis(rng.u64(0..millis))),
            1 => Self::Requests(rng.usize(1..16)),
            _ => Self::Lines(rng.usize(1..8), Duration::from_millis(rng.u64(0..40))),
        }
    }

    async fn comes(self, site: &Site, process: &Running) {
        match self {
            Self::After(pause) => tokio::time::sleep(pause).await,
            Self::Requests(more) => {
                let wanted = site.face.requests().len() + more;
                while site.face.requests().len() < wanted {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Self::Lines(more, pause) => {
                while process.lines() < more {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                tokio::time::sleep(pause).await;
            }
            Self::Done(step, pause) => {
                let done = |line: &str| {
                    let words = line.split_once(&format!(" {step}: ")).map(|(_, words)| words);
                    words.is_some_and(|words| !words.starts_with("asked") && !words.starts_with("waiting"))
                };
                if !process.says(done).await {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Where the kill came, as the store says.
#[derive(Debug)]
struct Hit {
    step: String,
    /// The URL's path of an operation that was known and not known to have ended.
    operation: Option<String>,
    /// Requests that Azure had taken then.
    requests: u64,
}

/// All runs of a store that nobody holds, and all that happened to each.
async fn stored(site: &Site) -> Vec<(Summary, Vec<Event>)> {
    if !site.store.join("db").exists() {
        return Vec::new();
    }
    let holder = Holder { pid: 0, since: site.scene.start, socket: None, release: "test".into() };
    let (journal, guard) = kamino_wf::store::open_dir(&site.store, &holder).expect("the store opens after every kill");
    let mut runs = Vec::new();
    for summary in summaries(&journal).await.expect("it reads") {
        let events = describe(&journal, summary.id).await.expect("it reads").expect("the run").events;
        runs.push((summary, events));
    }
    drop(journal);
    guard.close().expect("it closes");
    runs
}

async fn hit(site: &Site) -> Hit {
    let requests = site.face.requests().last().map_or(0, |it| it.seq);
    let runs = stored(site).await;
    let open = runs.into_iter().find(|(summary, _)| summary.open());
    let Some((summary, events)) = open else { return Hit { step: "no run".into(), operation: None, requests } };
    let operation = match events.last() {
        Some(Event::Asked { accepted, .. }) => accepted.operation.as_ref(),
        _ => None,
    };
    let path = |url: &str| {
        let (_, path) = url.split_once("/subscriptions/").expect("an operation of ours");
        format!("/subscriptions/{}", path.split('?').next().unwrap_or_default())
    };
    let operation = operation.map(|it| path(&it.0));
    Hit { step: summary.step.unwrap_or_else(|| "no step".into()), operation, requests }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_a_hundred_random_moments_there_is_one_of_everything() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    let mut rng = Rng::with_seed(SEED);
    let began = Instant::now();
    site.binary.run(START).await.assert(0, &[]);
    let undisturbed = began.elapsed();

    let (mut hits, mut updates, mut kills): (Vec<Hit>, u32, u32) = (Vec::new(), 1, 0);
    let count = |hits: &[Hit], step: &str| hits.iter().filter(|hit| hit.step == step).count();
    loop {
        let missed = STEPS.iter().find(|(_, step)| count(&hits, step) < EACH);
        let moment = match missed {
            _ if kills < KILLS => Moment::by_chance(&mut rng, undisturbed),
            Some((before, _)) => Moment::Done(before, Duration::from_millis(rng.u64(0..12))),
            None => break,
        };
        assert!(kills < KILLS_MAX, "{KILLS_MAX} kills did not hit {missed:?} {EACH} times: {hits:#?}");
        let mut process = site.binary.start(START);
        let killed = {
            // Waiting for the end needs the process for itself.
            let comes = tokio::select! {
                biased;
                () = moment.comes(&site, &process) => true,
                said = process.says(|line| line.contains("done: new nodes are made")) => !said,
            };
            comes
        };
        if killed {
            let ended = process.kill().await;
            // It may have ended by itself just then; its words say whether it did so well.
            if ended.code() == Some(0) {
                updates += 1;
                site.point_model_elsewhere();
            } else {
                assert_eq!(ended.code(), None, "{moment:?}: {ended:#?}");
                kills += 1;
                hits.push(hit(&site).await);
            }
        } else {
            process.wait().await;
            process.ended().await.assert(0, &[]);
            updates += 1;
            // Somebody takes the change back, so that the next update has to make it again.
            site.point_model_elsewhere();
        }
    }
    // Whatever is open goes on to its end; if nothing is, one more update is made.
    site.binary.run(START).await.assert(0, &[]);
    updates += 1;

    let mut table: BTreeMap<&str, u32> = BTreeMap::new();
    for hit in &hits {
        *table.entry(&hit.step).or_default() += 1;
    }
    let took = began.elapsed().as_secs();
    eprintln!("{kills} kills over {updates} updates in {took} s, an undisturbed one {undisturbed:?}: {table:?}");
    for (_, step) in STEPS {
        assert!(count(&hits, step) >= EACH, "{step}: {table:?}");
    }
    let runs = stored(&site).await;
    one_of_everything(&site, &runs);
    polled_on(&site, &hits);
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}

/// Exactly one accepted request for each intent, over all that Azure has ever heard.
fn one_of_everything(site: &Site, runs: &[(Summary, Vec<Event>)]) {
    let writes = site.writes();
    let refused: Vec<&Logged> = writes.iter().filter(|it| it.effect != Effect::Accepted).collect();
    assert!(refused.is_empty(), "nothing is asked for that can't be had: {refused:#?}");
    let mut accepted: BTreeMap<(String, String), u32> = BTreeMap::new();
    for it in writes.iter().filter(|it| it.method != "DELETE") {
        *accepted.entry((it.method.clone(), it.path.to_ascii_lowercase())).or_default() += 1;
    }
    for (summary, _) in runs {
        assert_eq!(summary.state, "done", "{summary:?}");
        let version = summary.version.as_deref().expect("a version");
        let intents = [
            ("PUT", format!("/snapshots/kwf-pool1-{}", summary.run)),
            ("PUT", format!("/disks/kwf-pool1-{}", summary.run)),
            ("PUT", format!("/versions/{version}")),
            ("PATCH", format!("/versions/{version}")),
        ];
        for (method, end) in intents {
            let found = accepted.iter().filter(|((verb, path), _)| verb == method && path.ends_with(&end));
            let counts: Vec<u32> = found.map(|(_, count)| *count).collect();
            assert_eq!(counts, [1], "{method} {end}: {accepted:#?}");
        }
    }
    // The model: the same path for all, one change a run that found it otherwise.
    let models: u32 =
        accepted.iter().filter(|((_, path), _)| path.contains("scalesets/")).map(|(_, count)| count).sum();
    let changed = |events: &[Event]| {
        let changes = |event: &Event| {
            matches!(event, Event::Confirmed { output, .. }
                if output["changed"].as_array().is_some_and(|parts| !parts.is_empty()))
        };
        events.iter().any(changes)
    };
    let intents = runs.iter().filter(|(_, events)| changed(events)).count();
    assert_eq!(usize::try_from(models).ok(), Some(intents), "changes of the model: {accepted:#?}");
    assert!(intents > 1, "the model was changed in more than one run");
    // And nothing else was made: gallery and definition once, ever.
    let made = accepted.len();
    assert_eq!(made, runs.len() * 4 + 3, "{accepted:#?}");
    for part in ["/galleries/prototypes", "/images/pool1"] {
        let found = accepted.iter().find(|((_, path), _)| path.ends_with(part)).map(|(_, count)| *count);
        assert_eq!(found, Some(1), "{part}");
    }
}

/// An operation that was under way at a kill is asked about afterwards, and what it was for is not asked for again.
fn polled_on(site: &Site, hits: &[Hit]) {
    let requests = site.face.requests();
    let known: Vec<(&Hit, &String)> =
        hits.iter().filter_map(|hit| hit.operation.as_ref().map(|operation| (hit, operation))).collect();
    for (hit, operation) in &known {
        let later = requests.iter().filter(|it| it.seq > hit.requests && it.method == "GET");
        let polled = later.filter(|it| it.path == **operation).count();
        assert!(polled > 0, "nobody asked about {operation} after the kill in {}", hit.step);
    }
    eprintln!("{} operations were under way at a kill, and polled on", known.len());
    assert!(known.len() >= 5, "hardly any kill came while an operation was under way: {hits:#?}");
}

/// The same with the real cleaner, killed in each step of the capture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_midst_of_a_real_cleaning_the_copy_is_clean_all_the_same() {
    let Some(cluster) = shared() else { return };
    let Some(lab) = Lab::new() else { return };
    let base = lab.base(Form::Gpt, "donor.img");
    plant(&base, "kubeadm");
    let plan = Plan { adopted: true, cleaner: Cleaner::Real(base.image.clone()), ..Plan::default() };
    let site = Site::new(cluster, plan).await;
    let mut rng = Rng::with_seed(SEED);
    let mut hits = Vec::new();
    // First when the copy is there, then at moments of a cleaning that takes about two seconds.
    let first = Moment::Done("CopyDisk", Duration::from_millis(rng.u64(50..300)));
    for kill in 0..5 {
        let process = site.binary.start(START);
        let moment = if kill == 0 { first } else { Moment::After(Duration::from_millis(rng.u64(100..450))) };
        tokio::time::timeout(Duration::from_secs(30), moment.comes(&site, &process)).await.expect("the moment comes");
        let ended = process.kill().await;
        if ended.code() == Some(0) {
            break;
        }
        hits.push(hit(&site).await.step);
    }
    assert!(
        hits.iter().filter(|step| *step == "CleanCopy").count() >= 2,
        "hardly a kill came while the copy was cleaned: {hits:?}"
    );
    eprintln!("killed in {hits:?}");
    site.binary.run(START).await.assert(0, &[]);
    let runs = stored(&site).await;
    assert!(runs.iter().all(|(summary, _)| summary.state == "done"), "{runs:#?}");
    let disk = site.disks_seen();
    assert_eq!(disk.len(), runs.len(), "one copy a run: {disk:?}");
    assert!(!base.planted().is_empty(), "control");
    for image in disk {
        let source = Disk { image, form: Form::Gpt };
        assert!(source.planted().is_empty(), "{:?}", source.planted());
    }
    assert_eq!(site.left().await, Vec::<String>::new());
    site.assert_donors_untouched().await;
}
