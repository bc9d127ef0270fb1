//! `images prune` and `images pin`, as whoever holds the store does them.

use std::{convert::Infallible, sync::Arc};

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use kamino_wf::{
    cloud::{Limiter, Provisioning},
    model::RunId,
    policy::{
        leftovers::{KnownRun, Standing},
        provenance::PINNED,
        retention::Rules,
    },
    sim::{Fault, Faults, Resource, Scene, Shared, SimCloud, SimCluster, World, spec},
    workflow::{ImageError, PinAsk, PinReport, Ports, PruneAsk, PruneReport, pin, prune},
};

use super::{OLDER, OLDEST, later, simulated, there, version, version_id};

/// Of an open run, and of one that has ended; both old, neither published.
const WANTED: &str = "2026.05.01000";
const LEFT: &str = "2026.06.01000";

fn run(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(0x0193_5b7e_0000_7000_8000_0000_0000_0000 + number))
}

fn gallery(faults: Faults, seed: u64) -> Arc<Shared> {
    let shared = Shared::new(Scene { faults, seed, ..later() }.world());
    let mut world = shared.world();
    for (name, number) in [(WANTED, 1), (LEFT, 2)] {
        let like = version(&mut world, OLDEST).clone();
        let id = version_id(name);
        let value =
            kamino_wf::cloud::Version { id: id.clone(), run: Some(run(number)), excluded_from_latest: true, ..like };
        let visible = world.now();
        world.versions.insert(id.key(), Resource { value, operation: None, visible });
    }
    drop(world);
    shared
}

fn known(world: &World) -> Vec<KnownRun> {
    let ended = Standing::Ended(world.now() - SignedDuration::from_hours(3));
    vec![KnownRun { id: run(1), standing: Standing::Open }, KnownRun { id: run(2), standing: ended }]
}

fn ask(names: &[&str], kamino: bool) -> PruneAsk {
    let spec = spec(&later());
    PruneAsk {
        definition: spec.gallery.definition(&spec.definition).expect("a definition"),
        subscription: spec.scale_set.subscription().to_owned(),
        rules: Rules { keep: 2, min_age_seconds: 86_400, kamino },
        versions: names.iter().map(|name| version_id(name)).collect(),
    }
}

const ALL: [&str; 8] = ["2026.03.01", "2026.04.01", WANTED, LEFT, OLDEST, OLDER, "2026.09.01000", "2026.10.01000"];

async fn once(shared: &Arc<Shared>, limiter: &Arc<Limiter>, ask: &PruneAsk) -> PruneReport {
    let cloud = SimCloud::new(Arc::clone(shared), Arc::clone(limiter));
    let cluster = SimCluster::new(Arc::clone(shared));
    let clock = shared.world().clock.clone();
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
    let runs = known(&shared.world());
    let known = || {
        let runs = runs.clone();
        async move { Ok::<_, Infallible>(runs) }.boxed()
    };
    let Ok(report) = prune(ports, ask, &|| true, &known).await;
    report
}

/// Asks until everything that may go has gone.
async fn to_the_end(shared: &Arc<Shared>, ask: &PruneAsk) -> Vec<PruneReport> {
    let limiter = Arc::new(Limiter::default());
    let mut reports = Vec::new();
    for _ in 0..100 {
        let report = once(shared, &limiter, ask).await;
        let quiet = report.complete() && report.going.is_empty();
        let under_way = report.stay.iter().any(|told| told.text.contains("under way"));
        reports.push(report);
        if quiet && !under_way {
            return reports;
        }
        // Somebody has to look for an operation to come to its end.
        tokio::time::sleep(std::time::Duration::from_mins(5)).await;
        let cloud = SimCloud::new(Arc::clone(shared), Arc::default());
        for id in &ask.versions {
            for _ in 0..3 {
                drop(kamino_wf::cloud::Cloud::version(&cloud, id).await);
            }
        }
    }
    panic!("still not done: {:#?}\n{}", reports.last(), shared.world().log.join("\n"));
}

fn left(shared: &Shared) -> Vec<&'static str> {
    let world = shared.world();
    ALL.into_iter().filter(|name| there(&world, name)).collect()
}

const AFTER: [&str; 5] = ["2026.03.01", "2026.04.01", WANTED, "2026.09.01000", "2026.10.01000"];

#[test]
fn what_a_person_lets_go_goes_as_far_as_it_is_right() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let reports = to_the_end(&shared, &ask(&ALL, false)).await;
        assert_eq!(left(&shared), AFTER);
        let first = &reports[0];
        let going: Vec<&str> = first.going.iter().map(|told| told.version.as_str()).collect();
        assert_eq!(going, [LEFT, OLDEST, OLDER]);
        let why = |name: &str| {
            let told = first.stay.iter().find(|told| told.version == name);
            told.map(|told| told.text.clone()).unwrap_or_default()
        };
        assert!(why(WANTED).contains("is open"), "{first:#?}");
        assert!(why("2026.03.01").contains("--kamino") && why("2026.10.01000").contains("uses it"), "{first:#?}");
        assert!(shared.world().trespasses.is_empty(), "{:#?}", shared.world().trespasses);
    });
}

#[test]
fn only_what_was_named_goes_and_kaminos_at_a_persons_word() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        to_the_end(&shared, &ask(&["2026.03.01"], true)).await;
        assert_eq!(left(&shared), ALL[1..].to_vec());
    });
}

#[test]
fn a_crash_at_any_point_and_bad_days_end_the_same() {
    let points = simulated(async || {
        let shared = gallery(Faults::none(), 0);
        to_the_end(&shared, &ask(&ALL, false)).await;
        shared.crash.passed()
    });
    println!("{points} crash points");
    assert!(points > 60, "only {points}");
    for point in (1..=points).step_by(3) {
        simulated(async || {
            let shared = gallery(Faults::none(), 0);
            shared.crash.arm(point);
            let request = ask(&ALL, false);
            tokio::select! {
                biased;
                () = shared.crash.died() => {}
                _ = to_the_end(&shared, &request) => {}
            }
            shared.crash.restart();
            to_the_end(&shared, &request).await;
            assert_eq!(left(&shared), AFTER, "crash at point {point}");
            assert!(shared.world().trespasses.is_empty());
        });
    }
    let mut troubled = 0;
    for seed in 0..30 {
        simulated(async || {
            let shared = gallery(Faults::bad_day(), seed);
            let reports = to_the_end(&shared, &ask(&ALL, false)).await;
            assert_eq!(left(&shared), AFTER, "seed {seed}");
            assert!(shared.world().trespasses.is_empty());
            troubled += reports.iter().filter(|report| report.broken_off.is_some()).count();
        });
    }
    assert!(troubled > 5, "only {troubled} were broken off: too good a world");
}

#[test]
fn a_lock_is_told_and_a_throttle_breaks_off_with_its_time() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        shared.world().locked.insert(version_id(OLDEST).key(), "ScopeLocked");
        let report = once(&shared, &Arc::default(), &ask(&[OLDEST, OLDER], false)).await;
        assert!(report.complete() && report.stay[0].text.contains("ScopeLocked"), "{report:#?}");
        assert_eq!(report.going[0].version, OLDER);

        let shared = gallery(Faults::none(), 0);
        shared.world().script.insert(1, Fault::Throttled);
        let report = once(&shared, &Arc::default(), &ask(&[OLDEST, OLDER], false)).await;
        assert!(!report.complete() && report.not_before.is_some() && report.left == 2, "{report:#?}");
        assert!(shared.world().deletions.is_empty());
    });
}

#[test]
fn without_authority_nothing_is_asked_for() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let cloud = SimCloud::new(Arc::clone(&shared), Arc::default());
        let cluster = SimCluster::new(Arc::clone(&shared));
        let clock = shared.world().clock.clone();
        let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
        let known = || async { Ok::<_, Infallible>(Vec::new()) }.boxed();
        let Ok(report) = prune(ports, &ask(&[OLDEST], false), &|| false, &known).await;
        assert!(report.broken_off.is_some() && shared.world().deletions.is_empty(), "{report:#?}");
    });
}

async fn pinned(shared: &Arc<Shared>, name: &str, why: Option<&str>) -> Result<PinReport, ImageError> {
    let cloud = SimCloud::new(Arc::clone(shared), Arc::default());
    let cluster = SimCluster::new(Arc::clone(shared));
    let clock = shared.world().clock.clone();
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
    pin(ports, &PinAsk { version: version_id(name), why: why.map(str::to_owned) }).await
}

#[test]
fn a_pin_holds_changes_nothing_else_and_can_be_taken_away() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let before = version(&mut shared.world(), OLDEST).clone();
        assert!(pinned(&shared, OLDEST, Some("by ann")).await.expect("pinned").changed);
        let mut after = version(&mut shared.world(), OLDEST).clone();
        assert_eq!(after.provisioning, Provisioning::Running, "Azure says that it is updating");
        assert_eq!(after.tags.remove(PINNED).as_deref(), Some("by ann"));
        after.provisioning = Provisioning::Succeeded;
        assert_eq!(after, before);
        to_the_end(&shared, &ask(&ALL, false)).await;
        assert!(there(&shared.world(), OLDEST) && !there(&shared.world(), OLDER));
        assert!(!pinned(&shared, OLDEST, Some("again")).await.expect("pinned").changed);
        assert!(pinned(&shared, OLDEST, None).await.expect("unpinned").changed);
        to_the_end(&shared, &ask(&ALL, false)).await;
        assert!(!there(&shared.world(), OLDEST));
    });
}

#[test]
fn what_is_not_there_and_what_is_anothers_is_not_pinned() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let error = pinned(&shared, "2026.01.01000", Some("x")).await.expect_err("no such version");
        assert!(matches!(error, ImageError::NoSuchVersion(_)), "{error}");
        {
            let mut world = shared.world();
            let foreign = version(&mut world, OLDER);
            (foreign.run, foreign.tags) = (None, kamino_wf::cloud::Tags::new());
            version(&mut world, OLDEST).provisioning = Provisioning::Running;
        }
        let error = pinned(&shared, OLDER, Some("x")).await.expect_err("a stranger's");
        assert!(error.to_string().contains("KW0502"), "{error}");
        let error = pinned(&shared, OLDEST, Some("x")).await.expect_err("under way");
        assert!(matches!(error, ImageError::Busy(_)), "{error}");
        assert!(shared.world().accepted.is_empty(), "{:#?}", shared.world().accepted);
        // kamino's may be pinned before they are let go by `--kamino`.
        assert!(pinned(&shared, "2026.03.01", Some("x")).await.expect("pinned").changed);
    });
}
