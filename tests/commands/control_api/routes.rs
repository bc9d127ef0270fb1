//! Every route, asked well and badly; and the words of every refusal.

use serde_json::{Value, json};

use super::process::Desk;

#[test]
fn every_route_answers_with_its_version_and_kind() {
    let desk = Desk::new();
    let _process = desk.process(false);
    assert_eq!(desk.get("/v1/runs").json(200)["runs"], json!([]));
    let started = desk.post("/v1/runs", &[], &Desk::start_body());
    let value = started.json(201);
    let run = value["run"].as_str().expect("an id");
    assert_eq!((&value["kind"], &value["revision"], &value["changed"]), (&json!("Changed"), &json!(1), &json!(true)));
    assert_eq!(started.header("location"), Some(format!("/v1/runs/{run}").as_str()));
    assert_eq!(started.header("etag"), Some("\"1\""));
    let list = desk.get("/v1/runs").json(200);
    assert_eq!((&list["kind"], &list["runs"][0]["run"]), (&json!("RunList"), &json!(run)));
    let described = desk.get(&format!("/v1/runs/{}", &run[..4]));
    assert_eq!(described.header("etag"), Some("\"1\""));
    let value = described.json(200);
    assert_eq!((&value["kind"], &value["revision"], &value["by"]), (&json!("Run"), &json!(1), &json!("tester")));
    assert_eq!(value["events"].as_array().map(Vec::len), Some(1));
    let cancelled = desk.post(&format!("/v1/runs/{run}/cancel"), &[], &json!({ "by": "tester" }));
    assert_eq!((cancelled.json(200)["revision"].clone(), cancelled.header("etag")), (json!(2), Some("\"2\"")));
    let again = desk.post(&format!("/v1/runs/{run}/cancel"), &[], &json!({ "by": "tester" })).json(200);
    assert_eq!((&again["revision"], &again["changed"]), (&json!(2), &json!(false)), "it was so already");
    assert_eq!(desk.get("/v1/audit").json(200)["kind"], "AuditList");
    assert_eq!(desk.ask("HEAD", "/v1/runs", &[], b"").status, 200);
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// A name for the golden, the request, and how it is refused.
type Refused = (&'static str, (&'static str, String, Vec<(&'static str, String)>, Vec<u8>), u16, &'static str);

fn refused() -> Vec<Refused> {
    let post = |path: &str, headers: &[(&'static str, &str)], body: &[u8]| {
        let headers = [&[JSON], headers].concat().iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        ("POST", path.to_owned(), headers, body.to_vec())
    };
    let get = |path: &str, headers: &[(&'static str, &str)]| {
        ("GET", path.to_owned(), headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(), Vec::new())
    };
    let by = json!({ "by": "tester" }).to_string();
    let by = by.as_bytes();
    let start = |change: fn(&mut Value)| {
        let mut body = Desk::start_body();
        change(&mut body);
        post("/v1/runs", &[], body.to_string().as_bytes())
    };
    vec![
        ("no such path", get("/v2/runs", &[]), 404, "not-found"),
        ("a path that is too long", get("/v1/runs/0123/events/more", &[]), 404, "not-found"),
        ("no such method", ("DELETE", "/v1/runs/0123".into(), vec![], vec![]), 405, "bad-request"),
        ("no such run", get("/v1/runs/0123456789ab", &[]), 404, "not-found"),
        ("no run at all", get("/v1/runs/%20", &[]), 404, "not-found"),
        ("no text in the path", get("/v1/runs/%ff", &[]), 400, "bad-request"),
        ("nobody to follow", get("/v1/runs/0123456789ab/events", &[]), 404, "not-found"),
        (
            "not JSON by its type",
            ("POST", "/v1/runs".into(), vec![("content-type", "text/plain".into())], by.to_vec()),
            415,
            "bad-request",
        ),
        ("no type", ("POST", "/v1/runs".into(), vec![], by.to_vec()), 415, "bad-request"),
        ("not JSON", post("/v1/runs", &[], b"{"), 400, "bad-request"),
        ("no body", post("/v1/runs", &[], b""), 400, "bad-request"),
        ("a field is missing", post("/v1/runs", &[], by), 400, "bad-request"),
        ("a field too many", start(|it| it["colour"] = json!("red")), 400, "bad-request"),
        ("a field too many in the spec", start(|it| it["spec"]["colour"] = json!("red")), 400, "bad-request"),
        ("an id that is none", start(|it| it["spec"]["scale_set"] = json!("pool1")), 400, "bad-request"),
        ("nobody asks", start(|it| it["by"] = json!("")), 400, "bad-request"),
        ("too long a name", start(|it| it["by"] = json!("x".repeat(201))), 400, "bad-request"),
        ("a name that writes lines", start(|it| it["by"] = json!("a\nb")), 400, "bad-request"),
        ("a body without end", post("/v1/runs", &[], &vec![b' '; 70_000]), 413, "bad-request"),
        ("too deep", post("/v1/runs", &[], "[".repeat(5000).as_bytes()), 400, "bad-request"),
        ("an ETag that is none", post("/v1/runs/0123/cancel", &[("if-match", "12")], by), 400, "bad-request"),
        ("a start that expects", post("/v1/runs", &[("if-match", "\"1\"")], by), 400, "bad-request"),
        ("a key with a blank", post("/v1/runs/0123/cancel", &[("idempotency-key", "a b")], by), 400, "bad-request"),
        (
            "two keys",
            post("/v1/runs/0123/cancel", &[("idempotency-key", "a"), ("idempotency-key", "b")], by),
            400,
            "bad-request",
        ),
        ("cancel nothing", post("/v1/runs/0123/cancel", &[], by), 404, "not-found"),
        ("resume nothing", post("/v1/runs/0123/resume", &[], by), 404, "not-found"),
        ("pause nothing", post("/v1/runs/0123/pause", &[], by), 404, "not-found"),
        ("approve nothing", post("/v1/runs/0123/approve", &[], by), 404, "not-found"),
        ("reject nothing", post("/v1/runs/0123/reject", &[], by), 404, "not-found"),
        ("abandon nothing", post("/v1/runs/0123/abandon", &[], by), 404, "not-found"),
        ("approve for nobody", post("/v1/runs/0123/approve", &[], b"{}"), 400, "bad-request"),
    ]
}

/// In words that a person can use, as JSON that a program can, and with nothing changed.
#[test]
fn what_cannot_be_is_refused_in_words() {
    let desk = Desk::new();
    let _process = desk.process(false);
    let mut golden = Vec::new();
    for (name, (method, path, headers, body), status, kind) in refused() {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let said = desk.ask(method, &path, &headers, &body);
        assert_eq!(said.status, status, "{name}: {}", said.text());
        let problem = said.problem(status, kind, &[]);
        golden.push(format!("{name}: {status} {problem}"));
    }
    assert_eq!(desk.get("/v1/runs").json(200)["runs"], json!([]), "nothing was begun");
    insta::assert_snapshot!("refusals", golden.join("\n"));
}

/// An open run in the way, a run that does not stand still, one that has moved, a stranger's event number.
#[test]
fn what_the_runs_state_does_not_allow_is_refused_with_the_state() {
    let desk = Desk::new();
    let _process = desk.process(false);
    let run = desk.post("/v1/runs", &[], &Desk::start_body()).json(201)["run"].as_str().expect("an id").to_owned();
    desk.post("/v1/runs", &[], &Desk::start_body()).problem(
        409,
        "conflict",
        &[&run, "is open for scale set", "cancel"],
    );
    let resume = format!("/v1/runs/{run}/resume");
    desk.post(&resume, &[], &json!({ "by": "tester" })).problem(409, "conflict", &["goes on by itself"]);
    let moved = desk.post(&resume, &[("if-match", "\"7\"")], &json!({ "by": "tester" }));
    let problem = moved.problem(412, "changed", &[&run, "revision 1 now, not 7", "running at Preflight"]);
    assert_eq!(problem["revision"], 1);
    let events = format!("/v1/runs/{run}/events");
    desk.ask("GET", &events, &[("last-event-id", "7")], b"").problem(412, "changed", &["revision 1 now, not 7"]);
    desk.ask("GET", &events, &[("last-event-id", "x")], b"").problem(
        400,
        "bad-request",
        &["Last-Event-ID", "as in 12"],
    );
}
