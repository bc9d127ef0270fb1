//! A copy of the store while somebody holds it and runs go on.

use kamino_wf::store::{Holder, Place, import_dir, open_dir};
use serde_json::Value;

use super::process::Desk;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_exported_while_it_is_held_and_imported_elsewhere() {
    let desk = Desk::new();
    let _process = desk.process(true);
    let run = desk.started();
    // Into the middle of things: whatever moves meanwhile, each is whole.
    let mut exports = Vec::new();
    for number in 0..6 {
        let file = desk.store().join(format!("export-{number}.jsonl"));
        let name = file.to_str().expect("a plain name").to_owned();
        desk.binary().run(&["store", "export", &name]).await.assert(0, &["exported to", &name]);
        exports.push(file);
    }
    let piped = desk.binary().run(&["store", "export", "-"]).await;
    piped.assert(0, &["exported", &run, "\"line\":\"end\""]);
    for file in exports {
        let text = std::fs::read(&file).expect("it was written");
        let root = tempfile::tempdir().expect("a directory");
        let store = root.path().join("store");
        let holder = Holder { pid: 1, since: jiff::Timestamp::UNIX_EPOCH, socket: None, release: "test".into() };
        let counts = import_dir(&Place::from(&store), &holder, &mut text.as_slice(), "export", None);
        let counts = counts.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(counts.runs, 1);
        let lines = String::from_utf8(text).expect("text");
        let head: Value = serde_json::from_str(lines.lines().nth(1).expect("a run")).expect("a line");
        let (journal, guard) = open_dir(&store, &holder).expect("a sound store");
        let heads = journal.heads().await.expect("it reads");
        assert_eq!(Value::from(heads[0].revision.0), head["revision"]);
        drop(journal);
        guard.close().expect("nothing failed");
    }
}

#[test]
fn an_export_over_the_socket_is_lines_of_json() {
    let desk = Desk::new();
    let _process = desk.process(false);
    let run = desk.started();
    let said = desk.get("/v1/store/export");
    assert_eq!((said.status, said.header("content-type")), (200, Some("application/jsonl")));
    assert!(said.text().contains(&run) && said.text().contains("\"format\":\"kamino-wf-store\""), "{said:?}");
}
