//! Versions that failed runs have left: the janitor takes them, and no other.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kamino_wf::{
    cloud::Version,
    model::RunId,
    policy::{leftovers::Patience, provenance::PINNED},
    sim::{Faults, Resource, Scene, Shared, SimCloud, SimCluster, cluster_id, spec},
    workflow::{Ports, SweepReport, sweep_versions},
};

use super::{OLDEST, later, simulated, there, version, version_id};

fn run(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(0x0193_5b7e_0000_7000_8000_0000_0000_0000 + number))
}

/// Each made by a run of its number, none published but the last.
const FAILED: &str = "2026.11.01000";
const JUST_FAILED: &str = "2026.11.02000";
const OPEN: &str = "2026.11.03000";
const ELSEWHERE: &str = "2026.11.04000";
const PINNED_ONE: &str = "2026.11.05000";
const PUBLISHED: &str = "2026.11.06000";

fn gallery(faults: Faults, seed: u64) -> Arc<Shared> {
    let shared = Shared::new(Scene { faults, seed, ..later() }.world());
    let mut world = shared.world();
    let names = [FAILED, JUST_FAILED, OPEN, ELSEWHERE, PINNED_ONE, PUBLISHED];
    for (number, name) in (1..).zip(names) {
        let like = version(&mut world, OLDEST).clone();
        let id = version_id(name);
        let mut value =
            Version { id: id.clone(), run: Some(run(number)), excluded_from_latest: name != PUBLISHED, ..like };
        let cluster = if name == ELSEWHERE { "another-cluster".into() } else { cluster_id() };
        value.tags.insert("kamino-wf-cluster".into(), cluster);
        if name == PINNED_ONE {
            value.tags.insert(PINNED.into(), "by ann".into());
        }
        let visible = world.now();
        world.versions.insert(id.key(), Resource { value, operation: None, visible });
    }
    drop(world);
    shared
}

fn failed(shared: &Shared) -> BTreeMap<RunId, Timestamp> {
    let now = shared.world().now();
    let long_ago = now - SignedDuration::from_hours(3);
    // However long the sweeps take, the second has just ended.
    let just = now + SignedDuration::from_hours(24);
    [(1, long_ago), (2, just), (4, long_ago), (5, long_ago), (6, long_ago)]
        .into_iter()
        .map(|(number, at)| (run(number), at))
        .collect()
}

async fn sweeps(shared: &Arc<Shared>, failed: &BTreeMap<RunId, Timestamp>) -> Vec<SweepReport> {
    let limiter = Arc::default();
    let cloud = SimCloud::new(Arc::clone(shared), Arc::clone(&limiter));
    let cluster = SimCluster::new(Arc::clone(shared));
    let clock = shared.world().clock.clone();
    let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
    let spec = spec(&later());
    let definition = spec.gallery.definition(&spec.definition).expect("a definition");
    let places = [(definition, spec.scale_set.subscription().to_owned())].into();
    let mut reports = Vec::new();
    for _ in 0..40 {
        reports.push(sweep_versions(ports, &places, Patience::default(), &|| true, failed).await);
        tokio::time::sleep(std::time::Duration::from_mins(30)).await;
    }
    reports
}

fn check(shared: &Shared, what: &str) {
    let world = shared.world();
    let log = || world.log.join("\n");
    assert!(!there(&world, FAILED), "{what}\n{}", log());
    for kept in [JUST_FAILED, OPEN, ELSEWHERE, PINNED_ONE, PUBLISHED, OLDEST] {
        assert!(there(&world, kept), "{what}: {kept}\n{}", log());
    }
    assert!(world.trespasses.is_empty(), "{what}: {:#?}", world.trespasses);
}

#[test]
fn what_a_failed_run_left_goes_and_the_rest_stays_with_a_reason() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let failed = failed(&shared);
        let reports = sweeps(&shared, &failed).await;
        check(&shared, "a quiet day");
        let held: Vec<&str> = reports[0].held.iter().map(|held| held.reason.as_str()).collect();
        for word in ["ended only at", "of another cluster", "pinned"] {
            assert!(reports.iter().flat_map(|it| &it.held).any(|held| held.reason.contains(word)), "{word}: {held:#?}");
        }
        let swept = reports.iter().map(|report| report.swept.len()).sum::<usize>();
        assert_eq!(swept, 1, "{reports:#?}");
    });
}

#[test]
fn a_crash_at_any_point_and_bad_days_end_the_same() {
    let points = simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let failed = failed(&shared);
        sweeps(&shared, &failed).await;
        shared.crash.passed()
    });
    for point in (1..=points.min(90)).step_by(2) {
        simulated(async || {
            let shared = gallery(Faults::none(), 0);
            let failed = failed(&shared);
            shared.crash.arm(point);
            tokio::select! {
                biased;
                () = shared.crash.died() => {}
                _ = sweeps(&shared, &failed) => panic!("point {point} must be passed"),
            }
            shared.crash.restart();
            sweeps(&shared, &failed).await;
            check(&shared, &format!("crash at point {point}"));
        });
    }
    for seed in 0..20 {
        simulated(async || {
            let shared = gallery(Faults::bad_day(), seed);
            let failed = failed(&shared);
            sweeps(&shared, &failed).await;
            check(&shared, &format!("seed {seed}"));
        });
    }
}

#[test]
fn a_lock_is_told_and_a_run_that_went_on_to_publish_is_seen() {
    simulated(async || {
        let shared = gallery(Faults::none(), 0);
        let failed = failed(&shared);
        shared.world().locked.insert(version_id(FAILED).key(), "ScopeLocked");
        let reports = sweeps(&shared, &failed).await;
        assert!(reports[0].held.iter().any(|held| held.reason.contains("ScopeLocked")), "{:#?}", reports[0]);
        assert!(there(&shared.world(), FAILED));
        assert!(reports.iter().all(|report| report.troubles.is_empty()), "{reports:#?}");
    });
}
