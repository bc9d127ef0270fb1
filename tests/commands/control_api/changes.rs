//! Changes: only at the revision that was seen, once for each key, and all of them on the record.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::process::Desk;

fn by() -> Value {
    json!({ "by": "tester" })
}

#[test]
fn if_match_lets_only_one_of_two_programs_through() {
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(false);
    let seen = desk.get(&format!("/v1/runs/{run}"));
    let etag = seen.header("etag").expect("a revision").to_owned();
    assert_eq!(etag, "\"2\"");
    let resume = format!("/v1/runs/{run}/resume");
    let cancel = format!("/v1/runs/{run}/cancel");
    desk.post(&resume, &[("if-match", "\"1\"")], &by()).problem(412, "changed", &["parked at Preflight: not allowed"]);
    let first = desk.post(&resume, &[("if-match", &etag)], &by()).json(200);
    assert_eq!(first["revision"], 3);
    let problem = desk.post(&cancel, &[("if-match", &etag)], &by()).problem(412, "changed", &["revision 3 now, not 2"]);
    assert_eq!(problem["revision"], 3);
    // A person does not say what they have seen: it is cancelled wherever it is.
    assert_eq!(desk.post(&cancel, &[], &by()).json(200)["revision"], 4);
    assert_eq!(desk.post(&cancel, &[("if-match", "*")], &by()).json(200)["changed"], false);
    let verdicts: Vec<Value> = desk.audit().iter().map(|entry| json!([entry["verb"], entry["verdict"]])).collect();
    let expected = json!([
        ["start", "accepted"],
        ["resume", "refused"],
        ["resume", "accepted"],
        ["cancel", "refused"],
        ["cancel", "accepted"],
        ["cancel", "already"]
    ]);
    assert_eq!(json!(verdicts), expected);
}

#[test]
fn the_same_key_is_answered_again_and_done_once() {
    let desk = Desk::new();
    let process = desk.process(false);
    let key = [("idempotency-key", "k-1")];
    let first = desk.post("/v1/runs", &key, &Desk::start_body());
    let again = desk.post("/v1/runs", &key, &Desk::start_body());
    assert_eq!((first.status, first.body.clone()), (again.status, again.body.clone()));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    // Another body, another path, another expectation: another request.
    let mut other = Desk::start_body();
    other["by"] = json!("somebody else");
    desk.post("/v1/runs", &key, &other).problem(422, "key-reused", &["k-1", "another request", "new key"]);
    let run = first.json(201)["run"].as_str().expect("an id").to_owned();
    let cancel = format!("/v1/runs/{run}/cancel");
    desk.post(&cancel, &key, &by()).problem(422, "key-reused", &[]);
    assert_eq!(desk.post(&cancel, &[("idempotency-key", "k-2")], &by()).json(200)["changed"], true);
    desk.post(&cancel, &[("idempotency-key", "k-2"), ("if-match", "\"2\"")], &by()).problem(422, "key-reused", &[]);
    // Also by the next process, and after a refusal the question is open again.
    process.stop();
    let _process = desk.process(false);
    let after = desk.post("/v1/runs", &key, &Desk::start_body());
    assert_eq!((after.status, after.body), (first.status, first.body));
    let second = desk.post(&cancel, &[("idempotency-key", "k-2")], &by());
    assert_eq!(second.json(200)["changed"], true, "the first answer, not that of today");
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    let refused = [("idempotency-key", "k-3")];
    desk.post("/v1/runs", &refused, &Desk::start_body()).problem(409, "conflict", &[]);
    desk.post("/v1/runs", &refused, &other).problem(409, "conflict", &[]);
    assert_eq!(desk.get("/v1/runs").json(200)["runs"].as_array().map(Vec::len), Some(1));
}

/// Programs that are killed when they have asked: what was taken up is done to its end, and what comes next finds it so.
#[test]
fn what_was_asked_is_done_although_whoever_asked_has_gone() {
    const PROGRAMS: usize = 20;
    let desk = Desk::new();
    let _process = desk.process(false);
    let starts = (0..PROGRAMS).map(|number| {
        let mut start = Desk::start_body();
        let scale_set = format!("{}-{number}", start["spec"]["scale_set"].as_str().expect("its id"));
        start["spec"]["scale_set"] = scale_set.into();
        (format!("k-{number}"), start)
    });
    let starts: Vec<(String, Value)> = starts.collect();
    for (key, start) in &starts {
        let heads = [("content-type", "application/json"), ("idempotency-key", key)];
        drop(desk.asked("POST", "/v1/runs", &heads, start.to_string().as_bytes()).expect("it is on its way"));
    }
    let runs = || desk.get("/v1/runs").json(200)["runs"].as_array().expect("a list").clone();
    let looks = (0..10_000).take_while(|_| runs().is_empty()).count();
    assert!(looks < 10_000, "nothing was done for those who have gone");
    // Those that were gone before it was looked at ask again, as the others do.
    for (key, start) in &starts {
        desk.post("/v1/runs", &[("idempotency-key", key)], start).json(201);
    }
    assert_eq!(runs().len(), PROGRAMS);
    for run in runs() {
        let cancel = format!("/v1/runs/{}/cancel", run["run"].as_str().expect("its id"));
        assert_eq!(desk.post(&cancel, &[], &by()).json(200)["changed"], true, "{run}");
    }
}

/// A process that dies at any point of a change, and a client that asks again: done once, recorded once, answered.
fn once_over_a_crash(prepare: fn(&Desk) -> String, path: fn(&str) -> String, body: &Value, verb: &str) {
    let key = [("idempotency-key", "k-1"), ("content-type", "application/json")];
    let mut places = BTreeSet::new();
    for point in 1.. {
        let desk = Desk::new();
        let run = prepare(&desk);
        let path = path(&run);
        let process = desk.process(false);
        desk.shared.crash.arm(desk.shared.crash.passed() + point);
        let first = desk.try_ask("POST", &path, &key, body.to_string().as_bytes());
        if !desk.shared.crash.crashed() {
            assert!(first.is_some_and(|said| said.status < 300), "nothing was in its way");
            assert!(point > 5, "it crashed at {places:?}");
            process.stop();
            break;
        }
        assert!(first.is_none_or(|said| said.status == 500), "no good answer came from a dead process");
        places.insert(desk.shared.crash.place());
        process.kill();
        let process = desk.process(false);
        let second = desk.ask("POST", &path, &key, body.to_string().as_bytes());
        assert!(second.status < 300, "after a crash at {places:?}: {}", second.text());
        let third = desk.ask("POST", &path, &key, body.to_string().as_bytes());
        assert_eq!(
            (third.status, &third.body, third.header("idempotency-replayed")),
            (second.status, &second.body, Some("true"))
        );
        let accepted: Vec<Value> = desk.audit().into_iter().filter(|entry| entry["verb"] == verb).collect();
        assert_eq!(accepted.len(), 1, "after a crash at {places:?}: {accepted:?}");
        assert_eq!((&accepted[0]["verdict"], &accepted[0]["key"]), (&json!("accepted"), &json!("k-1")));
        let runs = desk.get("/v1/runs").json(200);
        assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "after a crash at {places:?}");
        let described = desk.get(&format!("/v1/runs/{}", runs["runs"][0]["run"].as_str().expect("an id"))).json(200);
        assert_eq!(described["revision"], accepted[0]["after"], "what is on record is what was done");
        process.stop();
    }
}

#[test]
fn a_start_whose_answer_was_lost_to_a_crash_is_done_once() {
    once_over_a_crash(|_| String::new(), |_| "/v1/runs".into(), &Desk::start_body(), "start");
}

#[test]
fn a_cancel_whose_answer_was_lost_to_a_crash_is_done_once() {
    once_over_a_crash(Desk::parked, |run| format!("/v1/runs/{run}/cancel"), &by(), "cancel");
}

#[test]
fn a_resume_whose_answer_was_lost_to_a_crash_is_done_once() {
    once_over_a_crash(Desk::parked, |run| format!("/v1/runs/{run}/resume"), &by(), "resume");
}

#[test]
fn the_record_says_who_by_their_own_word_and_by_the_kernels() {
    let desk = Desk::new();
    let _process = desk.process(false);
    let run = desk.post("/v1/runs", &[("idempotency-key", "k-1")], &Desk::start_body()).json(201)["run"].clone();
    desk.post("/v1/runs/nosuchrun/cancel", &[], &json!({ "by": "eve" })).problem(404, "not-found", &[]);
    // What can't be read asks for nothing.
    desk.post(&format!("/v1/runs/{run}/cancel"), &[], &json!({ "buy": "eve" })).problem(
        400,
        "bad-request",
        &["buy", "by"],
    );
    let [started, refused] = &desk.audit()[..] else { panic!("two entries: {:?}", desk.audit()) };
    let me = json!({ "uid": rustix::process::getuid().as_raw(), "gid": rustix::process::getgid().as_raw(), "pid": std::process::id() });
    for (entry, seq) in [(started, 1), (refused, 2)] {
        assert_eq!((&entry["peer"], &entry["seq"]), (&me, &json!(seq)));
    }
    assert_eq!(
        json!([
            started["by"],
            started["verb"],
            started["run"],
            started["scale_set"],
            started["before"],
            started["after"],
            started["key"]
        ]),
        json!(["tester", "start", run, "pool1", 0, 1, "k-1"])
    );
    assert_eq!(json!([refused["by"], refused["run"], refused["verdict"]]), json!(["eve", "nosuchrun", "refused"]));
    assert!(refused["why"].as_str().is_some_and(|why| why.contains("there is no run nosuchrun")));
}

/// Neither record grows without end, and the newest stay.
#[test]
fn the_record_is_bounded() {
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(false);
    let cancel = format!("/v1/runs/{run}/cancel");
    let path = |n: usize| if n < 250 { "/v1/runs/nosuchrun/cancel" } else { cancel.as_str() };
    for n in 0..520 {
        let key = format!("k-{n}");
        let said = desk.post(path(n), &[("idempotency-key", &key)], &by());
        assert_eq!(said.status, if n < 250 { 404 } else { 200 });
    }
    let audit = desk.audit();
    let seqs: Vec<u64> = audit.iter().map(|entry| entry["seq"].as_u64().expect("a number")).collect();
    assert_eq!(seqs, (22..=521).collect::<Vec<u64>>(), "the newest five hundred of 521");
    let replayed = |n: usize| {
        let said = desk.post(path(n), &[("idempotency-key", &format!("k-{n}"))], &by());
        said.header("idempotency-replayed").is_some()
    };
    assert!(replayed(519), "the newest answer is there");
    // 270 answers were given, 256 stay; asking for one that went makes room for its new answer.
    assert!(!replayed(250), "the oldest is gone");
    assert!(replayed(519));
}
