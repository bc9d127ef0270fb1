//! The filters, a row each.

use super::*;
use crate::cluster::{Controller, PodRef};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().expect("a time")
}

fn minutes_ago(minutes: u64) -> Timestamp {
    now() - Duration::from_mins(minutes)
}

/// A pod of a `ReplicaSet` that runs.
fn pod() -> Pod {
    Pod {
        id: PodRef { namespace: "shop".into(), name: "web-1".into(), uid: "u1".into() },
        node: Some("n1".into()),
        life: PodLife::Running,
        ready: true,
        controller: owner("ReplicaSet"),
        mirror: false,
        empty_dir: false,
        created: Some(minutes_ago(600)),
        deleting: None,
        finalizers: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the field wants it")]
fn owner(kind: &str) -> Option<Controller> {
    Some(Controller { group: "apps".into(), kind: kind.into(), name: "log".into() })
}

fn force() -> Force {
    Force { by: "jane@example.com".into(), why: "the pool is test".into(), until: now() + Duration::from_mins(1) }
}

/// What is done under the four combinations of the two flags, in the order neither, emptyDir, force, both.
fn verdicts(pod: &Pod) -> [Verdict; 4] {
    let sets = BTreeMap::from([(("shop".to_owned(), "log".to_owned()), true)]);
    let flags = [(false, None), (true, None), (false, Some(force())), (true, Some(force()))];
    flags.map(|(delete_empty_dir, force)| {
        let policy = DrainPolicy { delete_empty_dir, force, ..DrainPolicy::default() };
        let question = Question { policy: &policy, cordoned: Some(minutes_ago(10)), now: now(), daemon_sets: &sets };
        verdict(pod, &question)
    })
}

/// `e`victed, `l`eft, `a`waited, `r`efused.
fn letters(verdicts: &[Verdict; 4]) -> String {
    let letter = |verdict: &Verdict| match verdict {
        Verdict::Evict => 'e',
        Verdict::Leave(_) => 'l',
        Verdict::Await(_) => 'a',
        Verdict::Refuse(_) => 'r',
    };
    verdicts.iter().map(letter).collect()
}

#[test]
fn each_filter_has_its_outcome_under_each_combination_of_flags() {
    type Change = fn(&mut Pod);
    let table: &[(&str, &str, &str, Change)] = &[
        ("of a ReplicaSet", "eeee", "", |_| {}),
        ("pending", "eeee", "", |pod| pod.life = PodLife::Pending),
        ("of a DaemonSet", "llll", "DaemonSet log", |pod| pod.controller = owner("DaemonSet")),
        ("of a DaemonSet, finished", "eeee", "", |pod| {
            pod.controller = owner("DaemonSet");
            pod.life = PodLife::Finished;
        }),
        ("of a DaemonSet, terminating", "llll", "DaemonSet log", |pod| {
            pod.controller = owner("DaemonSet");
            pod.deleting = Some(minutes_ago(0));
        }),
        ("of a DaemonSet that is gone", "rree", "does not exist", |pod| {
            pod.controller = Some(Controller { group: "apps".into(), kind: "DaemonSet".into(), name: "gone".into() });
        }),
        ("of a DaemonSet that is gone, with emptyDir", "rrre", "does not exist", |pod| {
            pod.controller = Some(Controller { group: "apps".into(), kind: "DaemonSet".into(), name: "gone".into() });
            pod.empty_dir = true;
        }),
        ("of a DaemonSet of another group", "eeee", "", |pod| {
            let group = "apps.kruise.io".into();
            pod.controller = Some(Controller { group, kind: "DaemonSet".into(), name: "gone".into() });
        }),
        ("mirror", "llll", "static pod", |pod| pod.mirror = true),
        // A mirror pod's owner is its node.
        ("mirror, owned by the node", "llll", "static pod", |pod| {
            pod.mirror = true;
            pod.controller = Some(Controller { group: String::new(), kind: "Node".into(), name: "n1".into() });
        }),
        ("mirror, terminating", "llll", "static pod", |pod| {
            pod.mirror = true;
            pod.deleting = Some(minutes_ago(1));
        }),
        ("emptyDir", "rere", "emptyDir", |pod| pod.empty_dir = true),
        ("emptyDir, finished", "eeee", "", |pod| {
            pod.empty_dir = true;
            pod.life = PodLife::Finished;
        }),
        ("unmanaged", "rree", "no controller", |pod| pod.controller = None),
        ("unmanaged, finished", "eeee", "", |pod| {
            pod.controller = None;
            pod.life = PodLife::Finished;
        }),
        // localStorage comes before unreplicated.
        ("unmanaged with emptyDir", "rrre", "emptyDir", |pod| {
            pod.controller = None;
            pod.empty_dir = true;
        }),
        // It goes anyway: kubectl would refuse, we wait.
        ("unmanaged, terminating", "eeee", "", |pod| {
            pod.controller = None;
            pod.deleting = Some(minutes_ago(0));
        }),
        ("not safe to evict", "rree", "safe-to-evict=false", |pod| {
            pod.annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict".into(), "false".into());
        }),
        ("said to be safe to evict", "eeee", "", |pod| {
            pod.annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict".into(), "true".into());
        }),
        ("not to be disrupted", "rree", "do-not-disrupt=true", |pod| {
            pod.annotations.insert("karpenter.sh/do-not-disrupt".into(), "true".into());
        }),
        ("not to be disrupted, finished", "eeee", "", |pod| {
            pod.annotations.insert("karpenter.sh/do-not-disrupt".into(), "true".into());
            pod.life = PodLife::Finished;
        }),
        ("another run's cleaner", "aaaa", "another run", |pod| {
            pod.controller = None;
            pod.labels.insert(RUN.into(), "0123456789ab".into());
        }),
        ("another run's cleaner, finished", "eeee", "", |pod| {
            pod.controller = None;
            pod.life = PodLife::Finished;
            pod.labels.insert(RUN.into(), "0123456789ab".into());
        }),
        ("bound by a scheduler that has not seen the cordon", "eeee", "", |pod| {
            pod.created = Some(minutes_ago(10) + Duration::from_secs(30));
        }),
        ("of something that ignores cordons", "llll", "does not mind cordons", |pod| {
            pod.created = Some(minutes_ago(8));
        }),
    ];
    for (what, expected, words, change) in table {
        let mut changed = pod();
        change(&mut changed);
        let verdicts = verdicts(&changed);
        assert_eq!(letters(&verdicts), *expected, "{what}: {verdicts:?}");
        let said = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Leave(why) | Verdict::Await(why) | Verdict::Refuse(why) => Some(why.as_str()),
            Verdict::Evict => None,
        });
        assert!(said.unwrap_or_default().contains(words), "{what}: {said:?}");
    }
}

#[test]
fn a_pod_that_never_goes_is_waited_for_only_as_long_as_the_settings_say() {
    let late = Pod { deleting: Some(minutes_ago(3)), ..pod() };
    let sets = BTreeMap::new();
    let of = |seconds: Option<u64>| {
        let policy = DrainPolicy { skip_terminating_after_seconds: seconds, ..DrainPolicy::default() };
        verdict(&late, &Question { policy: &policy, cordoned: None, now: now(), daemon_sets: &sets })
    };
    assert_eq!((of(None), of(Some(180))), (Verdict::Evict, Verdict::Evict));
    assert!(matches!(of(Some(179)), Verdict::Leave(why) if why.contains("not waited for")));
}

#[test]
fn force_holds_no_longer_than_it_was_granted_for() {
    let policy = DrainPolicy { force: Some(Force { until: now(), ..force() }), ..DrainPolicy::default() };
    assert_eq!(policy.forced(now() - Duration::from_secs(1)).map(|force| force.by.as_str()), Some("jane@example.com"));
    assert_eq!(policy.forced(now()), None);
}

#[test]
fn a_policy_is_stored_in_full_and_an_empty_one_is_the_default() {
    let empty: DrainPolicy = serde_json::from_str("{}").expect("a policy");
    assert_eq!(empty, DrainPolicy::default());
    assert_eq!((empty.deadline(), empty.max_parallel, empty.delete_empty_dir), (Duration::from_mins(15), 5, false));
    let full = DrainPolicy { force: Some(force()), skip_terminating_after_seconds: Some(60), ..empty };
    let text = serde_json::to_string(&full).expect("JSON");
    assert_eq!(serde_json::from_str::<DrainPolicy>(&text).expect("the same"), full);
    assert!(serde_json::from_str::<DrainPolicy>(r#"{ "colour": 1 }"#).is_err());
}
