//! Whom a drain asks to go, and what it says of the others.

use super::*;
use crate::{
    cluster::{Controller, Selector},
    policy::drain::{DrainPolicy, Force},
};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().expect("a time")
}

fn pod(name: &str) -> Pod {
    Pod {
        id: PodRef { namespace: "shop".into(), name: name.into(), uid: format!("uid-{name}") },
        node: Some("n1".into()),
        life: PodLife::Running,
        ready: true,
        controller: Some(Controller { group: "apps".into(), kind: "ReplicaSet".into(), name: "r".into() }),
        mirror: false,
        empty_dir: false,
        created: None,
        deleting: None,
        finalizers: vec![],
        labels: BTreeMap::from([("app".to_owned(), name.split('-').next().unwrap_or_default().to_owned())]),
        annotations: BTreeMap::new(),
    }
}

/// A budget for the pods with a label `app`.
fn budget(name: &str, allowed: i32) -> Budget {
    let labels = BTreeMap::from([("app".to_owned(), name.to_owned())]);
    Budget {
        namespace: "shop".into(),
        name: name.into(),
        selector: Some(Selector { labels, requirements: vec![] }),
        current: true,
        allowed,
        healthy: 2,
        desired: 2,
        unready_may_go: false,
        full_since: Some("2026-11-24T11:40:00Z".parse().expect("a time")),
        trouble: None,
    }
}

fn stand(pods: &[Pod], budgets: &[Budget], force: bool) -> Standing {
    let until = now() + Duration::from_hours(1);
    let force = force.then(|| Force { by: "jane".into(), why: "test".into(), until });
    let policy = DrainPolicy { force, ..DrainPolicy::default() };
    let sets = BTreeMap::new();
    standing(pods, budgets, &Question { policy: &policy, cordoned: None, now: now(), daemon_sets: &sets })
}

fn names(requests: &[Request]) -> Vec<String> {
    let name = |request: &Request| match request {
        Request::Evict(pod) => format!("evict {}", pod.name),
        Request::Delete(pod, _) => format!("delete {}", pod.name),
    };
    requests.iter().map(name).collect()
}

#[test]
fn a_budget_gives_as_much_room_as_it_says_and_no_more() {
    let pods = [pod("db-2"), pod("db-0"), pod("db-1"), pod("web-0")];
    let it = stand(&pods, &[budget("db", 1)], false);
    assert_eq!(names(&it.requests(5)), ["evict db-0", "evict web-0"]);
    assert!(it.words().contains("2 blocked: shop/db-1 (budget shop/db has room for 1 at a time), shop/db-2"), "{it:?}");
    assert_eq!(names(&it.requests(1)), ["evict db-0"]);
    assert!(it.requests(0).is_empty());
}

#[test]
fn a_full_budget_is_named_with_its_numbers_and_since_when() {
    let it = stand(&[pod("db-0")], &[budget("db", 0)], false);
    let expected = "1 blocked: shop/db-0 (budget shop/db has had no room since 2026-11-24T11:40:00Z (2 of 2 wanted pods \
                    are Ready))";
    assert_eq!(it.words(), expected);
    // Nothing else moves: the server is asked, and its answer recorded.
    assert_eq!(names(&it.requests(5)), ["evict db-0"]);
    let going = Pod { deleting: Some(now() + Duration::from_secs(20)), ..pod("web-0") };
    let it = stand(&[pod("db-0"), going], &[budget("db", 0)], false);
    assert!(it.requests(5).is_empty(), "something moves: it is waited for");
    assert!(it.words().ends_with("1 terminating: shop/web-0 (has until 2026-11-24T12:00:20Z)"), "{}", it.words());
}

#[test]
fn a_budget_that_says_nothing_useful_has_no_room() {
    let broken = Budget { trouble: Some("no controllers found".into()), ..budget("db", 0) };
    let it = stand(&[pod("db-0")], &[broken], false);
    assert!(
        it.words().contains("can't be reckoned up since 2026-11-24T11:40:00Z: no controllers found"),
        "{}",
        it.words()
    );
    let stale = Budget { current: false, ..budget("db", 3) };
    assert!(stand(&[pod("db-0")], &[stale], false).words().contains("still being reckoned up"));
    let nobody = Budget { selector: None, ..budget("db", 0) };
    let everybody = Budget { selector: Some(Selector::default()), ..budget("db", 0) };
    let elsewhere = Budget { namespace: "bank".into(), ..everybody.clone() };
    assert_eq!(stand(&[pod("db-0")], &[nobody, elsewhere], false).due.len(), 1);
    assert_eq!(stand(&[pod("web-0")], &[everybody], false).blocked.len(), 1);
}

#[test]
fn a_pod_that_is_not_ready_goes_when_its_budget_is_met_without_it() {
    let unready = Pod { ready: false, ..pod("db-0") };
    let of = |healthy, desired, unready_may_go| {
        let budget = Budget { healthy, desired, unready_may_go, ..budget("db", 0) };
        stand(std::slice::from_ref(&unready), &[budget], false).due.len()
    };
    assert_eq!((of(2, 2, false), of(1, 2, false), of(0, 0, false), of(0, 2, true)), (1, 0, 0, 1));
    for life in [PodLife::Pending, PodLife::Finished] {
        let it = stand(&[Pod { life, ..pod("db-0") }], &[budget("db", 0), budget("db", 0)], false);
        assert_eq!(it.due.len(), 1, "{life:?}: no budget counts it");
    }
}

#[test]
fn two_budgets_for_one_pod_need_a_decision_and_then_a_deletion() {
    let budgets =
        [budget("db", 1), Budget { name: "all".into(), selector: Some(Selector::default()), ..budget("db", 1) }];
    let it = stand(&[pod("db-0")], &budgets, false);
    assert!(it.requests(5).is_empty() && !it.is_empty());
    assert!(it.refusals().contains("more than one budget (shop/db and shop/all)"), "{}", it.refusals());
    let it = stand(&[pod("db-0")], &budgets, true);
    assert_eq!(names(&it.requests(5)), ["delete db-0"]);
    // One budget is never overruled.
    assert_eq!(names(&stand(&[pod("db-0")], &budgets[..1], true).requests(5)), ["evict db-0"]);
    let it = stand(&[pod("db-0")], &[budget("db", 0)], true);
    assert_eq!((it.blocked.len(), it.condemned.len()), (1, 0));
}

#[test]
fn so_many_are_on_their_way_at_a_time_and_what_is_stuck_is_not_on_its_way() {
    let until = |name: &str, at: Timestamp| Pod { deleting: Some(at), ..pod(name) };
    let pods = [
        until("a", now() + Duration::from_secs(5)),
        until("b", now() - Duration::from_secs(59)),
        Pod { finalizers: vec!["example.com/keep".into()], ..until("c", now() - Duration::from_secs(61)) },
        until("d", now() - Duration::from_hours(1)),
        pod("e"),
        pod("f"),
    ];
    let it = stand(&pods, &[], false);
    assert_eq!((it.going.len(), it.stuck.len()), (2, 2));
    assert_eq!(names(&it.requests(3)), ["evict e"]);
    let words = it.words();
    assert!(words.contains("2 stuck: shop/c (should have been gone since 2026-11-24T11:58:59Z, and is held by finalizer \
                            example.com/keep), shop/d (should have been gone since 2026-11-24T11:00:00Z: does its kubelet \
                            answer?)"), "{words}");
}

#[test]
fn our_own_pod_goes_last() {
    let labels = [("app.kubernetes.io/name", "kamino-wf"), ("app.kubernetes.io/component", "controller")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let ours = Pod { labels, ..pod("a") };
    let it = stand(&[ours.clone(), pod("b")], &[], false);
    assert_eq!(names(&it.requests(5)), ["evict b"]);
    assert!(it.words().contains("shop/a (it is kamino-wf's own"), "{}", it.words());
    let going = Pod { deleting: Some(now()), ..pod("b") };
    assert!(stand(&[ours.clone(), going], &[], false).requests(5).is_empty());
    assert_eq!(names(&stand(&[ours], &[], false).requests(5)), ["evict a"]);
}

#[test]
fn a_text_names_five_and_counts_the_rest() {
    let pods: Vec<Pod> = (0..8).map(|number| pod(&format!("p{number}"))).collect();
    let words = stand(&pods, &[], false).words();
    assert_eq!(words, "8 to be evicted: shop/p0, shop/p1, shop/p2, shop/p3, shop/p4 and 3 more");
}

#[test]
fn only_what_has_no_room_at_all_hinders_a_drain() {
    let sets = BTreeMap::new();
    let policy = DrainPolicy::default();
    let question = Question { policy: &policy, cordoned: None, now: now(), daemon_sets: &sets };
    let of = |pods: &[Pod], budgets: &[Budget]| hindrances(pods, budgets, &question);
    let two = [pod("db-0"), pod("db-1")];
    assert_eq!(of(&two, &[]), [""; 0]);
    assert_eq!(of(&two, &[budget("db", 1)]), [""; 0], "one at a time");
    let full = of(&two, &[budget("db", 0)]);
    assert_eq!(full.len(), 2);
    assert!(full[0].starts_with("shop/db-0 (budget shop/db has had no room since"), "{full:?}");
    let alone = Pod { controller: None, ..pod("mine") };
    let refused = of(&[alone], &[]);
    assert!(refused[0].starts_with("shop/mine (it has no controller"), "{refused:?}");
    let many: Vec<Pod> = (0..9).map(|number| pod(&format!("db-{number}"))).collect();
    assert_eq!(of(&many, &[budget("db", 0)]).last().map(String::as_str), Some("and 4 more"));
}
