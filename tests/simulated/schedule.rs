//! A run that is due by schedule is begun once, whenever the process dies.

use std::{sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use kamino_wf::{
    clock::Clock as _,
    cloud::Limiter,
    policy::schedule::Schedule,
    sim::{Scene, Shared, SimCloud, SimCluster, SimDisk, spec},
    store::{Fence, Journal},
    workflow::{Authority, Engine, Followed, Next, Pace, Parts, Scheduled, Summary, follow_once},
};
use tokio::time::{advance, timeout};

/// One process on this disk; `None` when it died.
async fn process<T>(shared: &Arc<Shared>, disk: &Arc<SimDisk>, body: impl AsyncFnOnce(&Engine) -> T) -> Option<T> {
    shared.crash.restart();
    let clock = shared.world().clock.clone();
    let opened = Journal::open(disk.tree(Arc::clone(&shared.crash)), clock.new_id());
    let (journal, committer) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(shared.crash.crashed(), "an unsound store: {error}");
            disk.power_cut();
            return None;
        }
    };
    let life = async {
        let limiter = Arc::new(Limiter::default());
        let engine = Engine::open(Parts {
            cloud: Arc::new(SimCloud::new(Arc::clone(shared), Arc::clone(&limiter))),
            cluster: Arc::new(SimCluster::new(Arc::clone(shared))),
            clock: Arc::new(clock),
            journal,
            limiter,
            authority: Arc::new(Authority::unlimited(Fence(0))),
            pace: Pace::default(),
            runs_at_once: 2,
            release: "9.9.9".into(),
            observer: Box::new(|_, _| {}),
        });
        body(&engine.await.expect("it reads")).await
    };
    // A dead process does nothing more, and says nothing of it.
    let alive = async {
        tokio::select! {
            biased;
            done = life => Some(done),
            _ = committer.run() => None,
        }
    };
    let done = timeout(Duration::from_secs(5), alive).await.ok().flatten();
    let died = shared.crash.crashed();
    disk.power_cut();
    done.filter(|_| !died)
}

/// Open runs come to their end first, as a Job has them do.
async fn finish(engine: &Engine) -> Vec<Summary> {
    for open in engine.summaries().await.expect("it reads").iter().filter(|run| run.open()) {
        engine.cancel(open.id, "tester").await.expect("it is recorded").expect("nothing is against it");
        while engine.turn(open.id).await.expect("a turn") != Next::Ended {}
    }
    engine.summaries().await.expect("it reads")
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_due_is_one_run_wherever_the_process_dies() {
    let schedule = Schedule::parse("0 * * * *", TimeZone::UTC, Duration::ZERO, Duration::from_hours(6));
    let scene = Scene::nominal();
    let scheduled = Scheduled { pool: "pool1".into(), schedule: schedule.expect("a schedule"), spec: spec(&scene) };
    for point in 1.. {
        let (shared, disk) = (Shared::new(scene.world()), Arc::<SimDisk>::default());
        let follow = async |engine: &Engine| follow_once(engine, &scheduled).await.expect("it is recorded");
        assert_eq!(process(&shared, &disk, follow).await, Some(Followed::Done), "seen for the first time");
        advance(Duration::from_hours(1)).await;
        shared.crash.arm(shared.crash.passed() + point);
        let done = process(&shared, &disk, follow).await;
        shared.crash.arm(u64::MAX);
        let next = async |engine: &Engine| {
            finish(engine).await;
            follow_once(engine, &scheduled).await.expect("it is recorded");
            finish(engine).await
        };
        let runs = process(&shared, &disk, next).await.expect("it does not die");
        assert_eq!(runs.len(), 1, "after a death at {}: {runs:#?}", shared.crash.place());
        if done.is_some() {
            assert!(point > 3, "it died nowhere");
            return;
        }
    }
}
