//! The README shows what the command really prints. `UPDATE_DOCS=1` writes it anew.

use std::{path::Path, process::Command};

use kamino_wf::{
    clock::{Clock as _, SystemClock},
    policy::gates::Gate,
    sim::{Faults, Scene, Session, Stop},
    store::{Fence, Holder, NewRecord, Revision, open_dir},
    workflow::{Event, Run, Summary},
};
use serde_json::json;

/// What stands in the README between the marks of this name.
fn assert_shown(name: &str, printed: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n```text\n"), format!("```\n<!-- end of {name} -->\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let (before, rest) = readme.split_once(&begin).expect("a place for it");
    let (shown, after) = rest.split_once(&end).expect("an end of that place");
    if shown != printed && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{printed}{end}{after}")).expect("written");
        return;
    }
    assert_eq!(shown, printed, "UPDATE_DOCS=1 cargo test --test commands readme writes it anew");
}

fn says(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kamino-wf")).args(arguments).output().expect("the binary runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_readme_shows_what_simulate_prints() {
    // It is shown as it is by default: 1,200 times faster than real.
    let printed = says(&["simulate", "--speed", "0"]).replace("shown at once", "shown 1200 times faster than real");
    assert_shown("simulate-output", &printed);
}

/// The events of the update that `simulate` shows, of a pool that wants an approval.
async fn events() -> (Run, Vec<Event>) {
    let scene = Scene { approve: vec![Gate::Switch], ..Scene::of_seed(8, Faults::bad_day()) };
    let session = Session::new(scene);
    let outcome = session.run(Stop::AtRest).await.expect("the store never fails");
    (outcome.run.expect("a run"), session.lines().into_iter().map(|line| line.event).collect())
}

/// A store on the disk with that run in it.
fn stored(store: &Path) -> Run {
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (run, events) = paused.expect("a runtime can be built").block_on(events());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let holder = Holder { pid: 1, since: SystemClock.now(), socket: None, release: "test".into() };
        let (journal, guard) = open_dir(store, &holder).expect("a store");
        let record = |event: &Event| NewRecord { kind: event.kind(), payload: json!(event) };
        let records = events.iter().map(record).collect();
        let written = journal.commit(run.id.0, Revision(0), Fence(0), records, json!(Summary::of(&run)));
        written.await.expect("it is recorded");
        drop(journal);
        guard.close().expect("it closes");
    });
    run
}

/// Without what is another tomorrow: how long ago, and in how long.
fn ageless(text: &str) -> String {
    let line = |line: &str| match (line.split_once("operator, "), line.split_once("Z, in ")) {
        (Some((before, after)), _) => {
            let (_, rest) = after.split_once(" ago").expect("how long ago");
            format!("{before}operator, [age] ago{rest}\n")
        }
        (None, Some((before, _))) => format!("{before}Z, in [age]\n"),
        (None, None) => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_readme_shows_what_describe_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let run = stored(&store).id.short();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "{}").expect("a settings file");
    let [store, config] = [&store, &config].map(|path| path.to_str().expect("a plain name"));
    assert_shown("describe-output", &ageless(&says(&["describe", &run, "--store", store, "--config", config])));
}
