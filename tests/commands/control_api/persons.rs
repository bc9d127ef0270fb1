//! What people say to runs over the socket: done once, refused in words, and on the record with who said it.

use serde_json::{Value, json};

use super::process::Desk;

fn by(who: &str) -> Value {
    json!({ "by": who })
}

fn last_event(desk: &Desk, run: &str) -> Value {
    let described = desk.get(&format!("/v1/runs/{run}")).json(200);
    described["events"].as_array().and_then(|events| events.last()).expect("an event").clone()
}

#[test]
fn an_answer_is_for_who_asks_and_at_the_revision_that_was_seen() {
    let desk = Desk::new();
    let run = desk.asking();
    let _process = desk.process(false);
    let path = |word: &str| format!("/v1/runs/{run}/{word}");
    let seen = desk.get(&path("")[..path("").len() - 1]).json(200);
    let (state, why) = (&seen["summary"]["state"], &seen["summary"]["why"]);
    assert_eq!((state, why), (&json!("needs-approval"), &json!("switch: new nodes start from version 2026.11.24000")));
    assert!(seen["summary"]["until"].is_string(), "{seen}");
    desk.post(&path("resume"), &[], &by("bob")).problem(
        409,
        "conflict",
        &["asks for an approval", "kamino-wf approve"],
    );
    desk.post(&path("pause"), &[], &by("bob")).problem(409, "conflict", &["can't be paused", "stands before a person"]);
    desk.post(&path("approve"), &[("if-match", "\"1\"")], &by("bob")).problem(412, "changed", &["revision 2 now"]);
    assert_eq!(desk.post(&path("approve"), &[("if-match", "\"2\"")], &by("alice")).json(200)["revision"], 3);
    assert_eq!(last_event(&desk, &run)["by"], "alice");
    let described = desk.get(&format!("/v1/runs/{run}")).json(200);
    let approval = &described["approvals"][0];
    assert_eq!((&approval["gate"], &approval["by"]), (&json!("switch"), &json!("alice")), "who, and what");
    assert!(approval["at"].is_string(), "and when: {approval}");
    for word in ["approve", "reject"] {
        let problem = desk.post(&path(word), &[], &by("bob"));
        problem.problem(409, "conflict", &[&run, "asks for no approval", "running at Preflight"]);
    }
    let record: Vec<Value> =
        desk.audit().iter().map(|it| json!([it["verb"], it["by"], it["verdict"]])).skip(1).collect();
    let expected = json!([
        ["resume", "bob", "refused"],
        ["pause", "bob", "refused"],
        ["approve", "bob", "refused"],
        ["approve", "alice", "accepted"],
        ["approve", "bob", "refused"],
        ["reject", "bob", "refused"],
    ]);
    assert_eq!(json!(record), expected);
}

#[test]
fn a_run_that_is_rejected_is_cancelled_in_that_name() {
    let desk = Desk::new();
    let run = desk.asking();
    let _process = desk.process(false);
    let key = [("idempotency-key", "k-1")];
    let first = desk.post(&format!("/v1/runs/{run}/reject"), &key, &by("alice"));
    let again = desk.post(&format!("/v1/runs/{run}/reject"), &key, &by("alice"));
    assert_eq!((first.json(200), again.header("idempotency-replayed")), (again.json(200), Some("true")));
    let event = last_event(&desk, &run);
    assert_eq!(
        (&event["event"], &event["gate"], &event["by"]),
        (&json!("rejected"), &json!("switch"), &json!("alice"))
    );
}

#[test]
fn a_pause_is_taken_back_by_a_resume_and_said_twice_is_once() {
    let desk = Desk::new();
    let _process = desk.process(false);
    let run = desk.post("/v1/runs", &[], &Desk::start_body()).json(201)["run"].as_str().expect("an id").to_owned();
    let path = |word: &str| format!("/v1/runs/{run}/{word}");
    assert_eq!(desk.post(&path("pause"), &[], &by("alice")).json(200)["changed"], true);
    assert_eq!(desk.post(&path("pause"), &[], &by("bob")).json(200)["changed"], false);
    let described = desk.get(&format!("/v1/runs/{run}")).json(200);
    assert_eq!((&described["pause"], &described["summary"]["state"]), (&json!("alice"), &json!("running")));
    assert_eq!(desk.post(&path("resume"), &[], &by("bob")).json(200)["revision"], 3);
    assert_eq!(desk.get(&format!("/v1/runs/{run}")).json(200)["pause"], Value::Null);
    // Whoever goes back is stopped by nobody.
    desk.post(&path("cancel"), &[], &by("bob")).json(200);
    desk.post(&path("pause"), &[], &by("bob")).problem(409, "conflict", &[&run, "goes back"]);
}

#[test]
fn an_abandoned_run_is_one_that_was_cancelled_and_more() {
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(false);
    let abandon = format!("/v1/runs/{run}/abandon");
    desk.post(&format!("/v1/runs/{run}/cancel"), &[], &by("bob")).json(200);
    assert_eq!(desk.post(&abandon, &[], &by("alice")).json(200)["changed"], true);
    assert_eq!(desk.post(&abandon, &[], &by("alice")).json(200)["changed"], false);
    assert_eq!(last_event(&desk, &run)["event"], "abandon_requested");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_say_what_to_say_next_and_end_with_their_codes() {
    let desk = Desk::new();
    let run = desk.asking();
    let _process = desk.process(false);
    let binary = desk.binary();
    let described = binary.run(&["describe", &run, "--watch"]).await;
    let approve = format!("kamino-wf approve {run}");
    described.assert(
        6,
        &["State      needs-approval: switch: new nodes", &approve, "kamino-wf reject", "waits for a person"],
    );
    binary.run(&["list", "--state", "needs-approval"]).await.assert(0, &[&run, "switch: new nodes start from"]);
    binary.run(&["resume", &run]).await.assert(5, &["asks for an approval", &approve]);
    binary.run(&["approve", &run, "--revision", "1"]).await.assert(5, &["revision 2 now, not 1"]);
    binary.run(&["approve", &run]).await.assert(0, &["is approved"]);
    binary.run(&["describe", &run]).await.assert(0, &["Approved   switch by tester@desk", "State      running"]);
    binary.run(&["reject", &run]).await.assert(5, &["asks for no approval"]);
    binary.run(&["pause", &run]).await.assert(0, &["stops before its next stage", "kamino-wf resume"]);
    binary.run(&["describe", &run]).await.assert(0, &["Pause      asked for by tester@desk"]);
    let unsure = binary.run(&["cancel", &run, "--abandon"]).await;
    unsure.assert(2, &["--abandon", &run, "would be left behind: nothing", "--yes"]);
    binary.run(&["cancel", &run, "--abandon", "--yes"]).await.assert(0, &["is being abandoned"]);
    for word in ["pause", "approve", "reject"] {
        binary.run(&[word, "nosuchrun"]).await.assert(4, &["there is no run nosuchrun"]);
    }
    let audit = binary.run(&["list", "--audit"]).await;
    audit.assert(0, &["approve", "reject", "pause", "abandon", "refused", "accepted"]);
}
