//! What the janitor takes away and what it leaves alone: crashed at every point, with lists that lag behind, beside an update.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kamino_wf::{
    cloud::{Disk, DiskState, Limiter, Provisioning, Snapshot},
    cluster::CleaningSpec,
    model::{DiskId, Profile, Region, RunId, SnapshotId},
    policy::leftovers::{KnownRun, Patience, Standing},
    sim::{
        Crash, Fault, Faults, Object, Pod, Resource, Scene, Session, Shared, SimCloud, SimCluster, Stop, World,
        checkers, cluster_id, spec,
    },
    store::{Fence, Journal},
    workflow::{Authority, Engine, Event, Pace, Parts, Ports, SweepReport, sweep},
};
use uuid::Uuid;

use crate::harness::simulated;

fn run(number: u128) -> RunId {
    RunId(Uuid::from_u128(0x0193_5b7e_0000_7000_8000_0000_0000_0000 + number))
}

/// Ended three hours ago, and left everything.
const ENDED: u128 = 1;
/// Ended ten minutes ago.
const JUST_ENDED: u128 = 2;
/// A month old and open.
const OPEN: u128 = 3;
/// Of another store, a day old.
const YOUNG_STRANGER: u128 = 4;
/// Of another store, eight days old.
const OLD_STRANGER: u128 = 5;
/// Of another cluster, a month old; and this store knows that it has ended.
const ELSEWHERE: u128 = 6;

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn known(now: Timestamp) -> Vec<KnownRun> {
    let ended = |at| Standing::Ended(at);
    vec![
        KnownRun { id: run(ENDED), standing: ended(now - hours(3)) },
        KnownRun { id: run(JUST_ENDED), standing: ended(now - SignedDuration::from_mins(10)) },
        KnownRun { id: run(OPEN), standing: Standing::Open },
        KnownRun { id: run(ELSEWHERE), standing: ended(now - hours(700)) },
    ]
}

/// Pod, claim, volume, disk and snapshot of a run, as a kill would leave them.
fn leave(world: &mut World, number: u128, age: SignedDuration, cluster: Option<&str>) {
    let (id, created) = (run(number), world.now() - age);
    let scene = spec(&Scene::nominal());
    let (subscription, group) = (scene.scale_set.subscription(), scene.scale_set.resource_group());
    let name = format!("kwf-pool1-{}", id.short());
    let disk = DiskId::new(subscription, group, &[&name]).expect("an id");
    let snapshot = SnapshotId::new(subscription, group, &[&name]).expect("an id");
    let donor = world.disks.values().next().expect("the donors' disks").value.clone();
    let (visible, cluster) = (created, cluster.map(str::to_owned));
    let value = Disk {
        id: disk.clone(),
        managed: false,
        attached_to: None,
        state: DiskState::Unattached,
        created: Some(created),
        run: Some(id),
        cluster: cluster.clone(),
        ..donor
    };
    world.disks.insert(disk.key(), Resource { value, operation: None, visible });
    let value = Snapshot {
        id: snapshot.clone(),
        provisioning: Provisioning::Succeeded,
        source: None,
        created: Some(created),
        size_gib: 64,
        run: Some(id),
        cluster: cluster.clone(),
    };
    world.snapshots.insert(snapshot.key(), Resource { value, operation: None, visible });
    if cluster.as_deref() != Some(cluster_id().as_str()) {
        return;
    }
    let path = format!("kamino-wf-clean/{name}");
    let object = Object { run: id.short(), uid: format!("uid-of-{number}"), created, gone_at: None };
    world.volumes.insert(name.clone(), object.clone());
    world.claims.insert(path.clone(), object.clone());
    let spec = CleaningSpec {
        name,
        namespace: "kamino-wf-clean".into(),
        run: id,
        disk,
        region: Region("westeurope".into()),
        zone: None,
        size_gib: 64,
        image: "i".into(),
        at: None,
        profile: Profile::Kubeadm,
        nonce: "n".into(),
    };
    let ends_at = created + hours(1);
    let pod = Pod { spec, uid: object.uid, created, runs_at: created, ends_at, killed: true, gone_at: None };
    world.pods.insert(path, pod);
}

/// A yard with something of everybody's.
fn yard(faults: Faults, seed: u64) -> Arc<Shared> {
    let shared = Shared::new(Scene { faults, seed, ..Scene::nominal() }.world());
    {
        let mut world = shared.world();
        let here = cluster_id();
        leave(&mut world, ENDED, hours(4), Some(&here));
        leave(&mut world, JUST_ENDED, hours(2), Some(&here));
        leave(&mut world, OPEN, hours(24 * 30), Some(&here));
        leave(&mut world, YOUNG_STRANGER, hours(24), Some(&here));
        leave(&mut world, OLD_STRANGER, hours(24 * 8), Some(&here));
        leave(&mut world, ELSEWHERE, hours(24 * 30), Some("another-cluster"));
    }
    shared
}

/// How many things a run still has.
fn left(world: &World, number: u128) -> usize {
    let (id, short) = (run(number), run(number).short());
    world.pods.values().filter(|pod| pod.spec.run == id).count()
        + world.claims.values().filter(|claim| claim.run == short).count()
        + world.volumes.values().filter(|volume| volume.run == short).count()
        + world.disks.values().filter(|disk| disk.value.run == Some(id)).count()
        + world.snapshots.values().filter(|snapshot| snapshot.value.run == Some(id)).count()
}

async fn one_sweep(shared: &Arc<Shared>, limiter: &Arc<Limiter>, known: Vec<KnownRun>) -> SweepReport {
    let cloud = SimCloud::new(Arc::clone(shared), Arc::clone(limiter));
    let cluster = SimCluster::new(Arc::clone(shared));
    let clock = shared.world().clock.clone();
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
    let groups = BTreeSet::from([spec(&Scene::nominal()).scale_set.group()]);
    let known = async || Ok::<_, Infallible>(known);
    let patience = Patience::default();
    let Ok(report) = sweep(ports, &groups, "kamino-wf-clean", patience, &|| true, known).await;
    report
}

/// Sweeps as the daemon does, until three in a row, an hour apart, find nothing to do: Azure calls a disk attached for
/// minutes after its pod has gone.
async fn sweeps(shared: &Arc<Shared>, known: &[KnownRun]) -> Vec<SweepReport> {
    let limiter = Arc::new(Limiter::default());
    let mut reports = Vec::new();
    let mut quiet = 0;
    for _ in 0..200 {
        let report = one_sweep(shared, &limiter, known.to_vec()).await;
        let now = shared.world().now();
        let told = report.not_before.map(|at| at.duration_since(now));
        let pause = told.and_then(|told| Duration::try_from(told).ok()).or(report.again_in);
        quiet = if pause.is_none() && report.troubles.is_empty() { quiet + 1 } else { 0 };
        reports.push(report);
        if quiet == 3 {
            return reports;
        }
        tokio::time::sleep(pause.unwrap_or(Duration::from_hours(1))).await;
    }
    panic!("still not done after {} sweeps: {:#?}\n{}", reports.len(), reports.last(), shared.world().log.join("\n"));
}

/// What has to hold after all sweeps.
fn check(shared: &Shared, what: &str) {
    let world = shared.world();
    let log = || world.log.join("\n");
    let violations = checkers::check_sweeps(&world, &cluster_id(), &[run(OPEN)], Timestamp::UNIX_EPOCH);
    assert!(violations.is_empty(), "{what}: {violations:#?}\n{}", log());
    for gone in [ENDED, OLD_STRANGER] {
        assert_eq!(left(&world, gone), 0, "{what}: of run {gone}\n{}", log());
    }
    for (kept, things) in [(JUST_ENDED, 5), (OPEN, 5), (YOUNG_STRANGER, 5), (ELSEWHERE, 2)] {
        assert_eq!(left(&world, kept), things, "{what}: of run {kept}\n{}", log());
    }
}

/// The things that may not have been asked about at this time; all sweeps see the yard as it was at first.
fn frozen(shared: &Shared) -> Vec<KnownRun> {
    let mut known = known(shared.world().now());
    // However long the sweeps take, this one has just ended.
    known[1].standing = Standing::Ended(shared.world().now() + hours(24));
    known
}

#[test]
fn what_ended_runs_left_goes_and_the_rest_stays_with_a_reason() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        let known = frozen(&shared);
        let reports = sweeps(&shared, &known).await;
        check(&shared, "a quiet day");
        // Pod, claim, volume, disk, snapshot: in this order, whosever.
        let order: Vec<&str> = {
            let world = shared.world();
            let of_ended = world.deletions.iter().filter(|it| it.run == Some(run(ENDED).short()));
            of_ended.map(|it| it.verb).collect()
        };
        let expected = ["delete_pod", "delete_claim", "delete_volume", "begin_delete_disk", "begin_delete_snapshot"];
        assert_eq!(order, expected);
        let last = reports.last().expect("a report");
        let reason = |number: u128, thing: &str| {
            let found = last.held.iter().find(|it| it.run == run(number).short() && it.thing.starts_with(thing));
            found.map(|it| it.reason.clone()).unwrap_or_default()
        };
        assert!(reason(OPEN, "disk").ends_with("is open"), "{last:#?}");
        assert!(reason(JUST_ENDED, "snapshot").contains("ended only at"), "{last:#?}");
        assert!(
            reason(YOUNG_STRANGER, "cleaning").contains("is not in this store; it goes when it is older"),
            "{last:#?}"
        );
        assert!(reason(ELSEWHERE, "disk").contains("of another cluster, another-cluster"), "{last:#?}");
        assert!(last.swept.is_empty() && last.troubles.is_empty(), "{last:#?}");
    });
}

#[test]
fn proofs_that_no_run_takes_away_go_when_they_are_old() {
    simulated(async || {
        let shared = Shared::new(Scene::nominal().world());
        let now = shared.world().now();
        let yesterday = u64::try_from((now - hours(24)).as_second()).expect("after 1970");
        let young = RunId(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, yesterday, 0)));
        for run in [run(ENDED), run(OPEN), run(OLD_STRANGER), young] {
            let words = serde_json::json!({ "run": run, "verdict": "clean" });
            shared.world().proofs.insert(run.short(), words.to_string());
        }
        shared.world().proofs.insert("somebodys".into(), "no proof of ours".into());
        let reports = sweeps(&shared, &known(now)).await;
        let left: BTreeSet<String> = shared.world().proofs.keys().cloned().collect();
        assert_eq!(left, BTreeSet::from([run(OPEN).short(), young.short(), "somebodys".into()]));
        let taken = reports.iter().flat_map(|report| &report.swept).map(|it| it.thing.as_str());
        assert!(taken.into_iter().any(|thing| thing == format!("proof of {}", run(ENDED))), "{reports:#?}");
    });
}

#[test]
fn a_crash_at_any_point_of_any_sweep_changes_nothing() {
    let points = simulated(async || {
        let shared = yard(Faults::none(), 0);
        sweeps(&shared, &frozen(&shared)).await;
        shared.crash.passed()
    });
    println!("{points} crash points");
    assert!(points >= 60, "only {points} crash points");
    for point in 1..=points {
        simulated(async || {
            let shared = yard(Faults::none(), 0);
            let known = frozen(&shared);
            shared.crash.arm(point);
            tokio::select! {
                biased;
                () = shared.crash.died() => {}
                _ = sweeps(&shared, &known) => panic!("point {point} must be passed"),
            }
            shared.crash.restart();
            sweeps(&shared, &known).await;
            check(&shared, &format!("crash at point {point}, {}", shared.crash.place()));
        });
    }
}

#[test]
fn bad_days_take_longer_and_end_the_same() {
    let mut troubles = 0;
    let mut throttled = 0;
    for seed in 0..100 {
        simulated(async || {
            let shared = yard(Faults::bad_day(), seed);
            let reports = sweeps(&shared, &frozen(&shared)).await;
            check(&shared, &format!("seed {seed}"));
            assert!(shared.world().early.is_empty(), "{:?}", shared.world().early);
            troubles += reports.iter().map(|report| report.troubles.len()).sum::<usize>();
            throttled += reports.iter().filter(|report| report.not_before.is_some()).count();
        });
    }
    assert!(troubles > 50 && throttled > 10, "{troubles} troubles, throttled {throttled} times: too good a world");
}

#[test]
fn a_right_that_is_missing_is_trouble_and_no_reason_to_stop_for_others() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        let known = frozen(&shared);
        // The first run's first request: two looks at the cluster and two at the group come before, and one at its cleaning.
        shared.world().script.insert(6, Fault::Denied);
        let report = one_sweep(&shared, &Arc::default(), known).await;
        assert_eq!(report.troubles.len(), 1, "{report:#?}");
        assert_eq!(report.troubles[0].code, "KW0400");
        assert_eq!(report.swept.len(), 1, "the other run's pod goes: {report:#?}");
    });
}

#[test]
fn without_a_look_at_the_pods_nothing_is_asked_for() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        shared.world().script.insert(2, Fault::LostRequest);
        let known = frozen(&shared);
        let report = one_sweep(&shared, &Arc::default(), known).await;
        assert_eq!((report.troubles.len(), report.swept.len()), (1, 0), "{report:#?}");
        assert!(shared.world().deletions.is_empty());
    });
}

#[test]
fn a_throttled_look_ends_the_sweep_and_says_until_when() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        shared.world().script.insert(3, Fault::Throttled);
        let known = frozen(&shared);
        let report = one_sweep(&shared, &Arc::default(), known).await;
        let until = report.not_before.expect("a time");
        assert!(until >= shared.world().now() + SignedDuration::from_mins(19), "{until}");
        assert!(shared.world().deletions.is_empty() && report.swept.is_empty());
    });
}

/// A list is behind: what went is still in it, what was made is not.
#[test]
fn lists_that_lag_behind_do_no_harm() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        let known = frozen(&shared);
        sweeps(&shared, &known).await;
        let asked = shared.world().deletions.len();
        let group = spec(&Scene::nominal()).scale_set.group();
        let cloud = SimCloud::new(Arc::clone(&shared), Arc::default());
        {
            let mut world = shared.world();
            // Gone a second ago, by its snapshot's side.
            let at = world.now();
            let gone = world.gone_disks.last().expect("one went").1.clone();
            world.gone_disks.push((at, gone));
            leave(&mut world, ENDED + 100, SignedDuration::ZERO, Some(&cluster_id()));
        }
        let listed = cloud.disks(&group).await.expect("a list");
        assert!(listed.iter().any(|disk| disk.run == Some(run(ENDED)) || disk.run == Some(run(OLD_STRANGER))));
        assert!(listed.iter().all(|disk| disk.run != Some(run(ENDED + 100))), "not yet in the list");
        let report = one_sweep(&shared, &Arc::default(), known).await;
        assert_eq!((report.swept.len(), report.troubles.len()), (0, 0), "{report:#?}");
        assert_eq!(shared.world().deletions.len(), asked);
        check(&shared, "lists that lag");
    });
}

/// An update beside which somebody sweeps all the time, with no patience at all.
#[test]
fn a_sweep_takes_nothing_from_a_run_that_is_under_way() {
    for seed in 0..30 {
        simulated(async || {
            let mut scene = Scene::of_seed(seed, Faults::bad_day());
            // The sweeper here has a limiter of its own, which the daemon's has not.
            scene.faults.throttles = 0;
            let open: Arc<Mutex<Vec<KnownRun>>> = Arc::default();
            let told = Arc::clone(&open);
            let session = Session::new(scene).watched(Arc::new(move |run, line| {
                let standing = if run.ended() { Standing::Ended(line.at) } else { Standing::Open };
                *told.lock().expect("a lock") = vec![KnownRun { id: run.id, standing }];
            }));
            let mut swept = 0;
            let sweeping = async {
                loop {
                    let cloud = SimCloud::new(Arc::clone(&session.shared), Arc::default());
                    let cluster = SimCluster::new(Arc::clone(&session.shared));
                    let clock = session.shared.world().clock.clone();
                    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
                    let groups = BTreeSet::from([spec(&Scene::nominal()).scale_set.group()]);
                    let known = async || Ok::<_, Infallible>(open.lock().expect("a lock").clone());
                    let none = Patience { after_end: Duration::ZERO, unknown: Duration::ZERO };
                    let Ok(report) = sweep(ports, &groups, "kamino-wf-clean", none, &|| true, known).await;
                    assert!(report.swept.is_empty(), "seed {seed}: {report:#?}");
                    swept += report.held.len();
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
            };
            let outcome = tokio::select! {
                biased;
                outcome = session.run(Stop::AtRest) => outcome.expect("the store never fails"),
                () = sweeping => unreachable!("it never ends"),
            };
            assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
            assert!(swept > 5, "seed {seed}: the sweeps saw things of the run: {swept}");
        });
    }
}

/// The whole way: a run that could not delete its copy ends with a warning, and the janitor of its store finishes it.
#[test]
fn what_a_run_could_not_delete_the_janitor_does() {
    simulated(async || {
        let session = Session::new(Scene::nominal());
        let hold = async {
            let patched = |line: &kamino_wf::sim::Line| {
                line.step.as_deref() == Some("PatchModel") && matches!(line.event, Event::Confirmed { .. })
            };
            while !session.lines().iter().any(patched) {
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            // Somebody's machine has it.
            for disk in session.shared.world().disks.values_mut().filter(|disk| disk.value.run.is_some()) {
                (disk.value.managed, disk.value.state) = (true, DiskState::Attached);
            }
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            biased;
            () = hold => unreachable!("it never ends"),
            outcome = session.run(Stop::AtRest) => outcome.expect("the store never fails"),
        };
        let id = outcome.run.expect("a run").id;
        let asked = session.shared.world().now();
        let things = |world: &World| world.disks.values().filter(|disk| disk.value.run == Some(id)).count();
        assert_eq!(things(&session.shared.world()), 1, "the copy is left");

        let tree = session.disk.tree(Arc::new(Crash::default()));
        let (journal, committer) = Journal::open(tree, Uuid::nil()).expect("a sound journal");
        let daemon = async {
            let limiter = Arc::new(Limiter::default());
            let engine = Engine::open(Parts {
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
            });
            let engine = engine.await.expect("opened");
            let mut reports = Vec::new();
            for _ in 0..12 {
                reports.push(engine.sweep([], "kamino-wf-clean", Patience::default()).await.expect("the store works"));
                if reports.len() == 4 {
                    for disk in session.shared.world().disks.values_mut().filter(|it| it.value.run == Some(id)) {
                        (disk.value.managed, disk.value.state) = (false, DiskState::Unattached);
                    }
                }
                tokio::time::sleep(Duration::from_mins(30)).await;
            }
            reports
        };
        let reports = tokio::select! {
            biased;
            ended = committer.run() => panic!("the committer ended: {ended:?}"),
            reports = daemon => reports,
        };
        let kept = &reports[3].held;
        assert!(kept.iter().any(|it| it.reason.starts_with("a machine has it")), "{kept:#?}");
        assert!(kept.iter().any(|it| it.reason.contains("of the same run is kept")), "{kept:#?}");
        let world = session.shared.world();
        assert_eq!(things(&world), 0, "{reports:#?}");
        assert!(world.snapshots.values().all(|snapshot| snapshot.value.run != Some(id)), "{reports:#?}");
        let violations = checkers::check_sweeps(&world, &cluster_id(), &[], asked);
        assert!(violations.is_empty(), "{violations:#?}");
    });
}

/// What the checker is for: a sweep that takes an open run for one that has ended.
#[test]
fn a_sweep_that_forgets_that_a_run_is_open_is_found() {
    simulated(async || {
        let shared = yard(Faults::none(), 0);
        let mut known = frozen(&shared);
        known[2].standing = Standing::Ended(shared.world().now() - hours(2));
        sweeps(&shared, &known).await;
        let violations = checkers::check_sweeps(&shared.world(), &cluster_id(), &[run(OPEN)], Timestamp::UNIX_EPOCH);
        assert!(violations.iter().any(|text| text.contains("its run is open")), "{violations:#?}");
    });
}
