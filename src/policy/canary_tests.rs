//! The verdict on one look.

use std::collections::BTreeMap;

use super::*;

/// What is odd about a node, and how it is told.
type Row = (fn(&mut Node), &'static str);

fn at(minutes: i64) -> Timestamp {
    "2026-11-24T12:00:00Z".parse::<Timestamp>().expect("a time") + SignedDuration::from_mins(minutes)
}

/// A node that is Ready since minute 3, as it is seen at minute `now`.
fn node(name: &str, now: i64) -> Node {
    Node {
        name: NodeName::parse(name).expect("a name"),
        uid: format!("uid of {name}"),
        version: String::new(),
        provider_id: String::new(),
        boot_id: format!("boot of {name}"),
        machine_id: format!("machine of {name}"),
        system_uuid: format!("system of {name}"),
        kernel: "6.8".into(),
        kubelet: "v1.33.4".into(),
        ready: true,
        ready_since: Some(at(3)),
        lease_renewed: Some(at(now) - SignedDuration::from_secs(9)),
        unschedulable: false,
        control_plane: false,
        linux: true,
        under_pressure: vec![],
        conditions: vec![],
        taints: vec![],
        zone: None,
        created: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        seen: None,
    }
}

fn donor() -> (Node, Original) {
    let node = node("donor", 0);
    let original = Original {
        node: node.name.clone(),
        boot_id: node.boot_id.clone(),
        kubelet: node.kubelet.clone(),
        identity: Some(Identity::of(&node)),
    };
    (node, original)
}

/// The verdict at a minute, with the donor there; its machine was made at minute 0.
fn judged(now: i64, change: impl FnOnce(&mut Node)) -> Judged {
    let (donor, original) = donor();
    let mut clone = node("clone", now);
    change(&mut clone);
    judge(Some(&clone), &[donor, clone.clone()], &original, at(0), Limits::default(), at(now))
}

fn reasons(judged: Judged) -> String {
    match judged {
        Judged::Fails { reasons } => reasons.join("; "),
        Judged::Waits(_) | Judged::Passes { .. } => panic!("not a failure: {judged:?}"),
    }
}

#[test]
fn a_good_one_passes_when_it_has_stayed_ready_and_says_what_was_looked_at() {
    assert!(matches!(judged(7, |_| {}), Judged::Waits(why) if why.contains("until it has been so for 5 min")));
    let Judged::Passes { checks, ready_after } = judged(8, |_| {}) else { panic!("it is good") };
    assert_eq!(ready_after, Duration::from_mins(3));
    assert_eq!(checks.len(), 5, "{checks:?}");
    assert!(checks.iter().all(|check| check.starts_with("it")), "{checks:?}");
}

#[test]
fn one_that_does_not_come_is_waited_for_until_its_time_is_over() {
    let (donor, original) = donor();
    let absent = |now| judge(None, std::slice::from_ref(&donor), &original, at(0), Limits::default(), at(now));
    assert!(matches!(absent(20), Judged::Waits(_)));
    assert!(reasons(absent(21)).contains("no Node with its providerID 20 min after it was made"));
}

#[test]
fn whatever_keeps_it_from_being_well_is_waited_for_and_then_named() {
    let rows: [Row; 4] = [
        (|node| node.ready = false, "it is not Ready"),
        (|node| node.lease_renewed = Some(at(0)), "its kubelet has been silent for more than 40 s"),
        (|node| node.lease_renewed = None, "its kubelet has been silent"),
        (|node| node.under_pressure = vec!["DiskPressure".into()], "its conditions say DiskPressure"),
    ];
    for (change, words) in rows {
        assert!(matches!(judged(12, change), Judged::Waits(why) if why.contains(words)), "{words}");
        let reasons = reasons(judged(21, change));
        assert!(reasons.contains(words) && reasons.contains("20 min after"), "{words}: {reasons}");
    }
}

#[test]
fn one_that_is_somebody_else_or_another_kind_fails_though_it_is_ready() {
    let rows: [Row; 6] = [
        (|node| node.machine_id = "machine of donor".into(), "its machine id is that of the donor donor"),
        (|node| node.machine_id = String::new(), "it has no machine id"),
        (|node| node.system_uuid = "SYSTEM OF DONOR".into(), "its system UUID is that of the donor donor"),
        (|node| node.boot_id = "boot of donor".into(), "its boot id is that of the donor donor"),
        (|node| node.kubelet = "v1.32.0".into(), "its kubelet is v1.32.0, and the donor's is v1.33.4"),
        (
            |node| {
                node.ready = false;
                node.machine_id = "machine of donor".into();
            },
            "it is not Ready; its machine id is",
        ),
    ];
    for (change, words) in rows {
        let reasons = reasons(judged(30, change));
        assert!(reasons.contains(words), "no {words:?} in {reasons}");
    }
}

/// The donor may be gone by then, and its image has made more than one node.
#[test]
fn a_twin_of_any_other_node_fails_and_a_donor_that_is_gone_is_remembered() {
    let (donor, original) = donor();
    let twin = Node { machine_id: "machine of other".into(), ..node("clone", 30) };
    let other = node("other", 30);
    let judge_of = |clone: &Node, others: &[Node], original: &Original| {
        judge(Some(clone), others, original, at(0), Limits::default(), at(30))
    };
    assert!(reasons(judge_of(&twin, &[other, twin.clone()], &original)).contains("that of node other"));
    let same = Node { machine_id: donor.machine_id.clone(), ..node("clone", 30) };
    assert!(reasons(judge_of(&same, std::slice::from_ref(&same), &original)).contains("that of the donor"));
    let unknown = Original { identity: None, ..original };
    assert!(matches!(judge_of(&same, std::slice::from_ref(&same), &unknown), Judged::Passes { .. }));
}

#[test]
fn a_policy_is_stored_in_words_and_nobody_watches_where_nothing_is_said() {
    let watched = Canary::FirstNode(Limits::default());
    let stored = serde_json::to_value(watched).expect("JSON");
    let limits = serde_json::json!({ "within_seconds": 86400, "ready_within_seconds": 1200, "stays_seconds": 300 });
    assert_eq!(stored, serde_json::json!({ "first_node": limits }));
    assert_eq!(serde_json::from_value::<Canary>(stored).expect("a policy"), watched);
    assert!(Canary::default().is_none() && !watched.is_none());
}

#[test]
fn spans_are_said_in_the_largest_unit_that_is_whole() {
    let words = [0, 90, 1200, 3600, 86_400].map(|seconds| span(Duration::from_secs(seconds)));
    assert_eq!(words, ["0 s", "90 s", "20 min", "1 h", "24 h"]);
}
