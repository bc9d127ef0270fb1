//! A run's events as they come: each once and in order, however often the connection or the process behind it goes.

use std::time::Duration;

use kamino_wf::http::{CallError, Client, Follow, Heard};
use serde_json::{Value, json};

use super::process::Desk;

/// From its start to its end on the simulated world.
const PATIENCE: Duration = Duration::from_mins(1);

async fn client(desk: &Desk) -> Client {
    Client::connect(desk.store()).await.expect("it answers").expect("somebody holds the store")
}

async fn next(stream: &mut Follow) -> Result<Option<Heard>, CallError> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("something comes")
}

fn start(desk: &Desk) -> String {
    desk.post("/v1/runs", &[], &Desk::start_body()).json(201)["run"].as_str().expect("an id").to_owned()
}

/// All of a run's events, as the journal has them.
fn journal(desk: &Desk, run: &str) -> Vec<Value> {
    desk.get(&format!("/v1/runs/{run}")).json(200)["events"].as_array().expect("events").clone()
}

/// Follows a run, and lets go of the connection after every `most` events, until its end.
async fn followed(desk: &Desk, run: &str, most: usize) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let after = u64::try_from(all.len()).expect("few");
        let mut stream = client(desk).await.follow(run, after).await.expect("a stream");
        for _ in 0..most {
            match next(&mut stream).await.expect("no break of theirs") {
                Some(Heard::Event { seq, event }) => {
                    all.push(json!(event));
                    assert_eq!(seq, u64::try_from(all.len()).expect("few"), "none is missing, none comes twice");
                }
                Some(Heard::End(summary)) => {
                    assert_eq!(summary.state, "done");
                    assert_eq!(next(&mut stream).await.expect("no break"), None, "nothing comes after the end");
                    return all;
                }
                None => break,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_missing_or_doubled_whenever_the_connection_goes() {
    for most in [1, 2, 7, 1000] {
        let desk = Desk::new();
        let _process = desk.process(true);
        let run = start(&desk);
        let all = followed(&desk, &run, most).await;
        // The simulated world signs its operations as Azure does; the journal has them whole, and nobody is shown one.
        let told = format!("{}{}{}", json!(all), json!(journal(&desk, &run)), desk.get("/v1/audit").text());
        assert!(told.contains("/DiskOperations/"), "where they are is told");
        assert!(!told.contains("U-LpxAqZ") && !told.contains("MIIHhz"), "a signature is told");
        assert!(all.len() > 30, "a whole update: {}", all.len());
        assert_eq!(all, journal(&desk, &run), "let go after {most}");
        // At its end, from every place.
        for after in 0..=all.len() {
            let mut stream =
                client(&desk).await.follow(&run, u64::try_from(after).expect("few")).await.expect("a stream");
            for event in &all[after..] {
                let Some(Heard::Event { event: heard, .. }) = next(&mut stream).await.expect("no break") else {
                    panic!("an event")
                };
                assert_eq!(&json!(heard), event);
            }
            assert!(matches!(next(&mut stream).await.expect("no break"), Some(Heard::End(_))));
        }
    }
}

/// Killed with a power cut, and told to stop, again and again in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_event_is_missing_or_doubled_whenever_the_process_goes() {
    let desk = Desk::new();
    let process = desk.process(false);
    let run = start(&desk);
    process.stop();
    let mut heard: Vec<Value> = Vec::new();
    let mut ended = false;
    let mut rounds = 0;
    for round in 0_u64..200 {
        if ended {
            break;
        }
        rounds = round;
        // No process gets far: the update, of some nine hundred points, takes many, however late this test is to read.
        desk.shared.crash.arm(desk.shared.crash.passed() + 60);
        let process = desk.process(true);
        let after = u64::try_from(heard.len()).expect("few");
        // It may have died between the two.
        let stream = match Client::connect(desk.store()).await {
            Ok(Some(client)) => client.follow(&run, after).await.ok(),
            Ok(None) | Err(_) => None,
        };
        let mut stream = stream;
        let mut left = 3;
        while let Some(open) = &mut stream {
            match next(open).await {
                Ok(Some(Heard::Event { seq, event })) => {
                    heard.push(json!(event));
                    assert_eq!(seq, u64::try_from(heard.len()).expect("few"));
                    left -= 1;
                }
                Ok(Some(Heard::End(_))) => ended = true,
                Ok(None) | Err(CallError::Broken { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            if ended || (left == 0 && !round.is_multiple_of(2)) {
                break;
            }
        }
        drop(stream);
        if round.is_multiple_of(2) { process.kill() } else { process.stop() }
    }
    assert!(rounds > 6, "it took several processes: {rounds}");
    assert!(ended, "the update came to its end; {} events", heard.len());
    desk.shared.crash.arm(u64::MAX);
    let _process = desk.process(false);
    assert_eq!(heard, journal(&desk, &run));
}

/// Nothing is said that could be lost again.
#[test]
fn what_a_stream_looks_like() {
    let desk = Desk::new();
    let run = desk.parked();
    let process = desk.process(false);
    let cancel = format!("/v1/runs/{run}/cancel");
    desk.post(&cancel, &[], &json!({ "by": "tester" })).json(200);
    process.stop();
    let _process = desk.process(true);
    let said = desk.ask("GET", &format!("/v1/runs/{run}/events"), &[("last-event-id", "1")], b"");
    assert_eq!((said.status, said.header("content-type")), (200, Some("text/event-stream")));
    let text = said.text();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(':'));
    // Chunks of the transfer stand between.
    let lines = lines.filter(|line| line.contains(": ") && !line.contains("\"id\""));
    let names: Vec<&str> = lines.filter(|line| !line.starts_with("data: ")).collect();
    assert_eq!(
        names,
        ["id: 2", "event: parked", "id: 3", "event: cancel_requested", "id: 4", "event: ended", "event: end"]
    );
    assert!(text.contains("data: {\"event\":\"parked\",\"at\":\""), "{text}");
    assert!(text.contains("\"state\":\"cancelled\""), "the end says how: {text}");
}

/// A process that is told to stop does not wait for those who follow, and they are not told that the run is at an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_the_process_that_sends_them() {
    let desk = Desk::new();
    let run = desk.parked();
    let process = desk.process(false);
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(client(&desk).await.follow(&run, 2).await.expect("a stream"));
    }
    let stopping = tokio::task::spawn_blocking(|| process.stop());
    for stream in &mut streams {
        assert_eq!(next(stream).await.expect("an orderly end"), None);
    }
    tokio::time::timeout(PATIENCE, stopping).await.expect("it does not hang").expect("it stops");
}
