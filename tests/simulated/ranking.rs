//! Which node becomes the donor, run after run: what is remembered between them, whose clock counts, and when no run is needed.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kamino_wf::{
    clock::Clock,
    cloud::Limiter,
    model::RunId,
    policy::ranking::{ImageAge, KURED_IN_PROGRESS, KURED_NEEDED, Rules, Signal},
    sim::{Crash, Fault, Scene, Shared, SimClock, SimCloud, SimCluster, SimDisk, World, spec},
    store::{Fence, Journal},
    workflow::{Authority, Driver, Engine, Pace, Parts, RunSpec, Summary},
};
use serde_json::Value;

use crate::harness::simulated;

/// A process' own clock, which may be wrong.
#[derive(Debug)]
struct Ours {
    world: SimClock,
    ahead: SignedDuration,
}

impl Clock for Ours {
    fn now(&self) -> Timestamp {
        self.world.now() + self.ahead
    }

    fn new_run(&self) -> RunId {
        self.world.new_run()
    }

    fn new_id(&self) -> uuid::Uuid {
        self.world.new_id()
    }
}

/// A world and a store in which one run follows another.
struct Desk {
    shared: Arc<Shared>,
    disk: Arc<SimDisk>,
    spec: RunSpec,
    ahead: SignedDuration,
}

impl Desk {
    fn new(rules: Rules) -> Self {
        let scene = Scene { adopted: true, ..Scene::nominal() };
        let spec = RunSpec { ranking: rules, ..spec(&scene) };
        Self { shared: Shared::new(scene.world()), disk: Arc::default(), spec, ahead: SignedDuration::ZERO }
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.shared.world());
    }

    fn asked(&self) -> usize {
        self.shared.world().accepted.len()
    }

    /// A process of its own, for as long as it has something to do.
    async fn process<T>(&self, work: impl AsyncFnOnce(Arc<Engine>, Journal) -> T) -> T {
        let tree = self.disk.tree(Arc::new(Crash::default()));
        let (journal, committer) = Journal::open(tree, uuid::Uuid::nil()).expect("a sound journal");
        let life = async {
            let limiter = Arc::new(Limiter::default());
            let world = self.shared.world().clock.clone();
            let engine = Engine::open(Parts {
                authority: Arc::new(Authority::unlimited(Fence(0))),
                runs_at_once: usize::MAX,
                cloud: Arc::new(SimCloud::new(Arc::clone(&self.shared), Arc::clone(&limiter))),
                cluster: Arc::new(SimCluster::new(Arc::clone(&self.shared))),
                clock: Arc::new(Ours { world, ahead: self.ahead }),
                journal: journal.clone(),
                limiter,
                pace: Pace::default(),
                release: "0.1.0".into(),
                observer: Box::new(|_, _| {}),
            });
            work(Arc::new(engine.await.expect("opened")), journal.clone()).await
        };
        tokio::select! {
            biased;
            ended = committer.run() => panic!("the committer ended: {ended:?}"),
            result = life => result,
        }
    }

    /// One run to its end. Its summary, and what its steps have said.
    async fn run(&self) -> (Summary, Value) {
        self.process(async |engine, journal| {
            let started = engine.start(self.spec.clone(), "me").await.expect("the store works");
            let id = started.expect("nobody is in the way");
            Driver::new(Arc::clone(&engine)).run_to_rest().await.expect("at rest");
            let (run, _) = kamino_wf::workflow::load(&journal, id).await.expect("the store works").expect("the run");
            (Summary::of(&run), serde_json::to_value(&run.outputs).expect("JSON"))
        })
        .await
    }

    /// What the daemon does every quarter of an hour.
    async fn watched(&self) {
        let sets = [self.spec.scale_set.clone()];
        self.process(async |engine, _| engine.remember_boots(&sets).await.expect("the store works")).await;
    }

    /// As [`Desk::run`], for one that is refused before anything is asked for.
    async fn refused(&self) -> (String, String) {
        let before = self.asked();
        let (summary, _) = self.run().await;
        assert_eq!(self.asked(), before, "nothing was asked for: {summary:?}");
        (summary.state, summary.why.unwrap_or_default())
    }
}

async fn hours(hours: u64) {
    tokio::time::sleep(Duration::from_hours(hours)).await;
}

/// How the settings of a pool that need no new image each week look.
fn at_most_monthly() -> Rules {
    let image_age = Some(ImageAge { max_seconds: 30 * 86_400, max_seconds_if_patched: 86_400 });
    Rules { image_age, ..Rules::default() }
}

#[test]
fn a_young_image_ends_the_run_before_anything_is_touched_and_that_is_no_failure() {
    simulated(async || {
        let mut desk = Desk::new(Rules::default());
        let (first, outputs) = desk.run().await;
        assert_eq!(first.state, "done", "{first:?}");
        let donor = outputs["RankNodes"]["donor"]["node"].clone();
        assert!(outputs["ChooseNames"]["tags"]["kamino-wf-patched"].is_string(), "{outputs}");

        desk.spec.ranking = at_most_monthly();
        hours(48).await;
        let (state, why) = desk.refused().await;
        assert_eq!(state, "not-needed", "{why}");
        for word in ["KW0235", "no node is patched newer", "ranking.maxImageAge is 30d 00h", "kamino-wf start --node"] {
            assert!(why.contains(word), "{word:?} is missing in: {why}");
        }

        // Another node is rebooted, so quickly that Ready does not turn: its boot id alone says it.
        let patched = desk.shared.world().nodes.iter().position(|it| donor != it.name.as_str()).expect("another node");
        desk.change(|world| world.nodes[patched].boot_id = "a-new-boot".into());
        let (summary, outputs) = desk.run().await;
        assert_eq!(summary.state, "done", "{summary:?}");
        let name = desk.shared.world().nodes[patched].name.clone();
        assert_eq!(outputs["RankNodes"]["donor"]["node"], name.as_str(), "{outputs}");
        let reason = outputs["RankNodes"]["verdicts"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains("rebooted at") && reason.contains("Ready all the time"), "{reason}");

        hours(31 * 24).await;
        assert_eq!(desk.run().await.0.state, "done", "a month later a new one is made, patched or not");
    });
}

#[test]
fn a_named_node_and_a_scale_set_that_does_not_follow_yet_get_their_image_all_the_same() {
    simulated(async || {
        let mut desk = Desk::new(Rules::default());
        desk.run().await;
        desk.spec.ranking = at_most_monthly();
        assert_eq!(desk.refused().await.0, "not-needed", "the control");
        let named = desk.shared.world().nodes[0].name.clone();
        let pool = std::mem::replace(&mut desk.spec.donor, kamino_wf::model::DonorChoice::Node(named));
        assert_eq!(desk.run().await.0.state, "done");
        desk.spec.donor = pool;
        desk.spec.adopt = true;
        desk.change(|world| {
            let key = desk.spec.scale_set.key();
            let model = &mut world.scale_sets.get_mut(&key).expect("the pool").value;
            model["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] =
                serde_json::json!({ "publisher": "Canonical", "offer": "o", "sku": "s", "version": "latest" });
        });
        let (summary, _) = desk.run().await;
        assert_eq!(summary.state, "done", "{summary:?}");
    });
}

#[test]
fn fewer_candidates_than_asked_for_are_too_few() {
    simulated(async || {
        let mut desk = Desk::new(Rules { min_candidates: 3, ..Rules::default() });
        desk.change(|world| world.nodes[1].unschedulable = true);
        let (state, why) = desk.refused().await;
        assert_eq!(state, "undone");
        assert!(why.contains("KW0236") && why.contains("2 nodes of scale set pool1 are fit"), "{why}");
        let named = desk.shared.world().nodes[0].name.clone();
        desk.spec.donor = kamino_wf::model::DonorChoice::Node(named);
        assert_eq!(desk.run().await.0.state, "done", "whoever names a node wants that one");
    });
}

#[test]
fn kureds_mark_that_sticks_is_seen_through_after_a_reboot_that_was_not_kureds() {
    simulated(async || {
        let desk = Desk::new(Rules { signal: Signal::Kured, ..Rules::default() });
        let mark = |day: u8| format!("2026-11-{day:02}T03:00:00+01:00");
        desk.change(|world| {
            for (day, node) in (1..).zip(&mut world.nodes) {
                node.annotations.insert(KURED_NEEDED.into(), mark(day));
                node.annotations.insert(KURED_IN_PROGRESS.into(), mark(day));
            }
        });
        let (state, why) = desk.refused().await;
        assert_eq!(state, "undone");
        assert!(why.contains("KW0230") && why.contains("kured is about to reboot it, since 2026-11-01T03"), "{why}");
        // Azure's maintenance reboots two of them. kured never takes its marks away: nothing has to be rebooted any more.
        desk.change(|world| {
            for node in &mut world.nodes[..2] {
                node.boot_id = format!("after-{}", node.boot_id);
            }
        });
        let (summary, outputs) = desk.run().await;
        assert_eq!(summary.state, "done", "{summary:?}");
        let verdicts = &outputs["RankNodes"]["verdicts"];
        assert_eq!(outputs["RankNodes"]["donor"]["node"], "pool1-vmss000001", "the newest patch of those: {verdicts}");
        let reason = |at: usize| verdicts[at]["reason"].as_str().expect("a reason").to_owned();
        assert!(reason(0).contains("stale, as it has rebooted since"), "{}", reason(0));
        assert!(reason(2).contains("kured is about to reboot it"), "{}", reason(2));
    });
}

#[test]
fn the_daemon_sees_a_quick_reboot_long_before_the_next_run() {
    simulated(async || {
        let desk = Desk::new(Rules::default());
        desk.watched().await;
        let mark = "2026-11-20T03:00:00Z";
        desk.change(|world| {
            let node = world.nodes.iter_mut().min_by_key(|node| node.ready_since).expect("a node");
            node.annotations.insert(KURED_IN_PROGRESS.into(), mark.into());
        });
        desk.watched().await;
        hours(1).await;
        let name = {
            let mut world = desk.shared.world();
            let node = world.nodes.iter_mut().min_by_key(|node| node.ready_since).expect("a node");
            node.boot_id = "after-a-quick-reboot".into();
            node.name.clone()
        };
        let at = desk.shared.world().now();
        // Nothing can be asked for a while: the look after that one will do.
        let next = desk.shared.world().calls + 1;
        desk.change(|world| {
            world.script.insert(next, Fault::LostRequest);
        });
        desk.watched().await;
        desk.watched().await;
        hours(5 * 24).await;
        let (summary, outputs) = desk.run().await;
        assert_eq!(summary.state, "done", "{summary:?}");
        let best = &outputs["RankNodes"]["verdicts"][0];
        assert_eq!(best["node"], name.as_str(), "the node that has been Ready for longest: {best}");
        let reason = best["reason"].as_str().expect("a reason");
        let minute = at.strftime("%Y-%m-%dT%H:%M").to_string();
        assert!(reason.contains(&format!("rebooted at {minute}")), "to the look, not to the run: {reason}, {at}");
        assert!(reason.contains("stale"), "{reason}");
    });
}

#[test]
fn a_clock_of_ours_that_is_wrong_makes_no_young_node_old_and_no_live_one_silent() {
    simulated(async || {
        for ahead in [SignedDuration::from_hours(2), -SignedDuration::from_hours(2)] {
            let mut desk = Desk::new(Rules::default());
            desk.ahead = ahead;
            desk.change(|world| {
                let now = world.now();
                for node in &mut world.nodes {
                    node.ready_since = Some(now - SignedDuration::from_mins(10));
                }
            });
            let (_, why) = desk.refused().await;
            assert!(
                why.contains("KW0230") && why.contains("Ready for 600 s only, 3600 s are asked for"),
                "{ahead}: {why}"
            );
            hours(1).await;
            let (_, outputs) = desk.run().await;
            assert!(outputs["RankNodes"].is_object(), "an hour later it is old enough, {ahead}: {outputs}");
        }
    });
}

#[test]
fn a_run_of_another_cluster_is_refused() {
    simulated(async || {
        let mut desk = Desk::new(Rules::default());
        desk.spec.cluster = "another".into();
        let (state, why) = desk.refused().await;
        assert_eq!(state, "undone");
        assert!(why.contains("KW0220") && why.contains("belongs to cluster another"), "{why}");
    });
}
