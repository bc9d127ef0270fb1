//! Finished runs leave the store, and nothing that matters goes with them.

use std::{sync::Arc, time::Duration};

use kamino_wf::{
    cloud::Limiter,
    model::VersionName,
    policy::history::History,
    sim::{Crash, Scene, Session, SimCloud, SimCluster, Stop, spec},
    store::{Fence, Journal},
    workflow::{Authority, Driver, Engine, Pace, Parts, Rejected, RunState},
};

use crate::harness::simulated;

async fn engine(session: &Session, journal: Journal, crash: Option<&Arc<Crash>>) -> Arc<Engine> {
    let _ = crash;
    let limiter = Arc::new(Limiter::default());
    let parts = Parts {
        cloud: Arc::new(SimCloud::new(Arc::clone(&session.shared), Arc::clone(&limiter))),
        cluster: Arc::new(SimCluster::new(Arc::clone(&session.shared))),
        clock: Arc::new(session.shared.world().clock.clone()),
        journal,
        limiter,
        authority: Arc::new(Authority::unlimited(Fence(0))),
        pace: Pace::default(),
        runs_at_once: 1,
        release: "0.1.0".into(),
        observer: Box::new(|_, _| {}),
    };
    Arc::new(Engine::open(parts).await.expect("opened"))
}

/// A run is done, ages, and is taken out; the next one goes on as if it were still there.
#[test]
fn a_finished_run_goes_when_it_is_old_and_its_successor_knows_what_matters() {
    simulated(async || {
        let session = Session::new(Scene::nominal());
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
        let first = outcome.run.expect("a run").id;
        // Its version went by hand, so that only the store knows how far the names had come.
        let highest = {
            let mut world = session.shared.world();
            let names: Vec<VersionName> = world.versions.values().filter_map(|it| it.value.id.version().ok()).collect();
            world.versions.clear();
            names.into_iter().max().expect("a version")
        };
        let tree = session.disk.tree(Arc::new(Crash::default()));
        let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("a sound journal");
        let daemon = async {
            let engine = engine(&session, journal, None).await;
            let days = |days: u64, keep_runs| History { keep_runs, keep_for: Duration::from_hours(24 * days) };
            assert!(engine.age_out(days(1, 0)).await.expect("a store").is_empty(), "too young");
            tokio::time::sleep(Duration::from_hours(48)).await;
            assert!(engine.age_out(days(1, 1)).await.expect("a store").is_empty(), "among the newest");
            // An open one never goes.
            let second = engine.start(spec(&Scene::nominal()), "test").await.expect("a store").expect("started");
            assert_eq!(engine.age_out(days(1, 0)).await.expect("a store"), [first]);
            assert!(matches!(engine.describe(first).await.expect("a store"), Err(Rejected::NoSuchRun(_))));
            assert_eq!(engine.summaries().await.expect("a store").len(), 1);
            Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("a store");
            let description = engine.describe(second).await.expect("a store").expect("it is there");
            assert_eq!(description.summary.state, "done", "{:#?}", description.summary);
            let made = VersionName::parse(description.summary.version.as_deref().expect("a version")).expect("a name");
            assert!(made > highest, "{made} after {highest}");
        };
        tokio::select! {
            biased;
            ended = committer.run() => panic!("the committer ended: {ended:?}"),
            () = daemon => {}
        }
        // Opening reads every byte, and compares it with the mark beside it.
        let tree = session.disk.tree(Arc::new(Crash::default()));
        let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("still a sound journal");
        let look = async { journal.heads().await.expect("they read").len() };
        let heads = tokio::select! {
            biased;
            ended = committer.run() => panic!("the committer ended: {ended:?}"),
            heads = look => heads,
        };
        assert_eq!(heads, 1);
    });
}

/// Killed while a run is taken out: it is whole, or it is gone, and the store is sound.
#[test]
fn a_crash_while_a_run_is_taken_out_leaves_all_of_it_or_nothing() {
    let mut counts = [0, 0];
    for point in 1..=12 {
        simulated(async || {
            let session = Session::new(Scene::nominal());
            let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
            let run = outcome.run.expect("a run");
            assert!(matches!(run.state, RunState::Ended(_)));
            let crash = Arc::new(Crash::default());
            let tree = session.disk.tree(Arc::clone(&crash));
            let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("a sound journal");
            crash.arm(crash.passed() + point);
            let removing = async {
                let head = journal.heads().await.expect("they read").remove(0);
                drop(journal.remove(head.run, head.revision, Fence(0)).await);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = crash.died() => {}
                _ = committer.run() => {}
                () = removing => {}
                () = tokio::time::sleep(Duration::from_mins(1)) => {}
            }
            session.disk.power_cut();
            let tree = session.disk.tree(Arc::new(Crash::default()));
            let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("a sound journal");
            let look = async {
                let heads = journal.heads().await.expect("they read");
                match heads.first() {
                    None => 0,
                    Some(head) => journal.load(head.run).await.expect("it reads").expect("it is there").1.len(),
                }
            };
            let records = tokio::select! {
                biased;
                ended = committer.run() => panic!("the committer ended: {ended:?}"),
                records = look => records,
            };
            assert!(records == 0 || records > 30, "point {point}: {records} records are left");
            counts[usize::from(records == 0)] += 1;
        });
    }
    println!("{counts:?}");
    assert!(counts[0] > 0 && counts[1] > 0, "both must have been seen: {counts:?}");
}
