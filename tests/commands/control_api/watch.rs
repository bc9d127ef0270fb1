//! The commands, as a person types them, against whoever holds the store.

use std::time::Duration;

use kamino_wf::{http::Terms, workflow::Summary};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::process::Desk;
use crate::support::binary::{Binary, Ended, Running};

/// A command has this long to say something.
const PATIENCE: Duration = Duration::from_mins(1);

impl Desk {
    pub(crate) fn binary(&self) -> Binary {
        let config = self.store().join("config.yaml");
        std::fs::write(&config, json!({ "store": self.store() }).to_string()).expect("a settings file");
        Binary::new(self.store(), &config).with("HOSTNAME", "desk")
    }

    pub(crate) fn started(&self) -> String {
        self.post("/v1/runs", &[], &Self::start_body()).json(201)["run"].as_str().expect("an id").to_owned()
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "in vain: {what}");
}

/// Without what differs from run to run.
fn redacted(text: &str, run: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.replace(run, "[run]");
        let words = line.split(' ').map(|word| match word.trim_end_matches(':').parse::<jiff::Timestamp>() {
            Ok(_) => word.replace(word.trim_end_matches(':'), "[time]"),
            Err(_) => word.to_owned(),
        });
        lines.push(words.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

/// The holder is replaced while somebody watches: they are told, and miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_a_restart_and_ends_as_the_run_does() {
    let desk = Desk::new();
    let process = desk.process(false);
    let run = desk.started();
    let watching = desk.binary().start(&["describe", &run[..6], "--watch"]);
    let machine = desk.binary().start(&["describe", &run, "--watch", "-o", "json"]);
    until("the run is described", || watching.data().contains("PruneVersions")).await;
    until("the past is told", || machine.data().contains("\"revision\":1")).await;
    process.stop();
    for watching in [&watching, &machine] {
        watching.until("is gone; waiting for the next").await;
    }
    let _process = desk.process(true);
    let ended = watching.ended().await;
    ended.assert(0, &["somebody holds the store again"]);
    let (_, lines) = ended.stdout.split_once("\n\n").and_then(|(_, rest)| rest.split_once("\n\n")).expect("then lines");
    insta::assert_snapshot!("watch", redacted(lines, &run));

    let ended = machine.ended().await;
    ended.assert(0, &[]);
    let events: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let journal = desk.get(&format!("/v1/runs/{run}")).json(200);
    let expected: Vec<Value> = (1..)
        .zip(journal["events"].as_array().expect("events"))
        .map(|(revision, event): (u64, _)| {
            json!({ "apiVersion": "kamino-wf/v1", "kind": "Event", "run": run, "revision": revision, "event": event })
        })
        .collect();
    assert_eq!(events, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_it_is_interrupted_and_where_a_person_is_needed() {
    let desk = Desk::new();
    let process = desk.process(false);
    let run = desk.started();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let watching = desk.binary().start(&["describe", &run, "-w"]);
        until("the run is described", || watching.data().contains("PruneVersions")).await;
        watching.signal(signal);
        watching.ended().await.assert(code, &[]);
    }
    drop(process);
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(false);
    let ended = desk.binary().run(&["describe", &run, "--watch"]).await;
    ended.assert(6, &["State      parked: not allowed", "waits for a person", "kamino-wf resume"]);
}

/// A line for each run that changes, over a restart of the holder; one that was asked for is followed to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_list_says_what_changes_until_a_signal_comes() {
    let desk = Desk::new();
    let process = desk.process(false);
    let run = desk.started();
    let people = desk.binary().start(&["list", "--watch", "--state", "open"]);
    let machine = desk.binary().start(&["list", "--watch", "-o", "json"]);
    until("the run is listed", || people.data().contains(&run) && machine.data().contains(&run)).await;
    process.stop();
    for watching in [&people, &machine] {
        watching.until("is gone; waiting for the next").await;
    }
    let _process = desk.process(true);
    until("its end is told", || people.data().contains(" done ") && machine.data().contains("\"done\"")).await;
    for (watching, signal, code) in [(people, Signal::INT, 130), (machine, Signal::TERM, 143)] {
        watching.signal(signal);
        let ended = watching.ended().await;
        ended.assert(code, &["somebody holds the store again"]);
        let lines: Vec<&str> = ended.stdout.lines().filter(|line| line.contains(&run)).collect();
        assert!(lines.len() >= 2, "{ended:?}");
        let words = |line: &str| line.contains("running") || line.contains("waiting");
        assert!(words(lines[0]) && lines[lines.len() - 1].contains("done"), "{lines:#?}");
        let distinct: std::collections::BTreeSet<&&str> = lines.iter().collect();
        assert_eq!(distinct.len(), lines.len(), "nothing is said twice: {lines:#?}");
        if ended.stdout.starts_with('{') {
            let objects: Vec<Value> = lines.iter().map(|it| serde_json::from_str(it).expect("an object")).collect();
            assert!(objects.iter().all(|it| it["kind"] == "RunChanged" && it["apiVersion"] == "kamino-wf/v1"));
        } else {
            let at: Vec<Option<usize>> = lines.iter().map(|line| line.find("pool1")).collect();
            assert!(at.windows(2).all(|pair| pair[0] == pair[1]), "columns move: {lines:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_cancels_only_what_it_has_seen_and_a_person_whatever_is_there() {
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(false);
    let binary = desk.binary();
    let seen = binary.run(&["describe", &run, "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!(seen["revision"], 2);
    let stale = binary.run(&["cancel", &run, "--revision", "1"]).await;
    stale.assert(5, &["is at revision 2 now, not 1", "parked at Preflight", "look at it again"]);
    binary.run(&["resume", &run, "--revision", "2"]).await.assert(0, &["goes on"]);
    binary.run(&["cancel", &run, "--by", "alice"]).await.assert(0, &["is being cancelled"]);
    binary.run(&["cancel", "nosuchrun"]).await.assert(4, &["there is no run nosuchrun"]);
    let list = binary.run(&["list", "--audit"]).await;
    let uid = rustix::process::getuid().as_raw().to_string();
    let column = |line: &str| {
        let words = line.split("  ").map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| if word == uid { "[uid]" } else { word }).collect::<Vec<_>>().join("  ")
    };
    let table: Vec<String> = redacted(&list.assert(0, &[]).stdout, &run).lines().map(column).collect();
    insta::assert_snapshot!("audit", table.join("\n"));
    let entries = binary.run(&["list", "--audit", "-o", "json"]).await.assert(0, &[]).json();
    assert_eq!((&entries["kind"], entries["entries"].as_array().map(Vec::len)), (&json!("AuditList"), Some(5)));
}

/// The answer is lost to a crash after the effect; the command asks again with its key, and says what came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_answer_was_lost_asks_again_and_is_done_once() {
    let desk = Desk::new();
    let run = desk.parked();
    let process = desk.process(false);
    desk.shared.crash.trace();
    // Of one change: before and after the append, in and after the sync.
    desk.shared.crash.arm(desk.shared.crash.passed() + 4);
    let cancelling: Running = desk.binary().start(&["cancel", &run]);
    until("the process dies", || desk.shared.crash.crashed()).await;
    assert_eq!(desk.shared.crash.place(), "journal: synced, mark not written");
    process.kill();
    let _process = desk.process(false);
    let ended: Ended = cancelling.ended().await;
    ended.assert(0, &["is being cancelled"]);
    let verdicts: Vec<Value> = desk.audit().iter().map(|entry| json!([entry["verb"], entry["verdict"]])).collect();
    assert_eq!(json!(verdicts), json!([["start", "accepted"], ["cancel", "accepted"]]));
}

/// Whoever asks that a run is started or resumed and waits for it sees it as if it was driven by them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_run_of_another_process_sees_it_and_ends_as_it_does() {
    let desk = Desk::new();
    let run = desk.parked();
    let _process = desk.process(true);
    let ended = desk.binary().run(&["resume", &run, "--wait"]).await;
    ended.assert(0, &["goes on", "resumed by tester@desk", "done: new nodes are made from the new image"]);
    assert_eq!(ended.stdout, "", "stdout is data");
    let client = kamino_wf::http::Client::connect(desk.store()).await.expect("it answers").expect("it is held");
    let runs: Vec<Summary> = client.list().await.expect("a list");
    assert_eq!(runs.len(), 1);
    let terms = Terms { by: "x".into(), key: "k".into(), revision: None };
    client.cancel(&run, &terms).await.expect_err("it has ended");
}
