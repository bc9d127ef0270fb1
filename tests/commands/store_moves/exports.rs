//! Out and in again: the same store; and of a file that is not whole and right, nothing.

use std::{fs, path::Path};

use kamino_wf::store::{Fence, NewRecord, Place, Revision, StoreError, import_dir};
use serde_json::{Value, json};

use super::{Desk, append, assert_tidy, filled, histories, holder, opened, run_id, sum};

#[tokio::test]
async fn a_store_goes_out_and_comes_in_as_the_same_store() {
    let desk = Desk::new();
    filled(&desk.store(), 4, 6);
    let export = desk.at("export.jsonl");
    let name = export.to_str().expect("a plain name");
    desk.binary.run(&["store", "export", name]).await.assert(0, &["4 runs, 24 records and 2 facts", "epoch 7", name]);
    assert_tidy(&desk.store());
    let other = desk.at("other");
    let words = ["imported 4 runs, 24 records and 2 facts", "epoch 7"];
    desk.on(&other).run(&["store", "import", name]).await.assert(0, &words);
    assert_tidy(&other);
    assert_eq!(sum(&other), sum(&desk.store()));
    assert_eq!(histories(&other), histories(&desk.store()));

    // And out again, on stdout: the same lines, but for the time in the first and the checksum in the last.
    let again = desk.on(&other).run(&["store", "export", "-"]).await;
    let again = again.assert(0, &["exported 4 runs"]).stdout.clone();
    let first = fs::read_to_string(&export).expect("it is there");
    assert!(first.contains("\"text\":"), "a number that would come out otherwise goes as it was written: {first}");
    let middle = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (first, again) = (middle(&first), middle(&again));
    assert_eq!(first.len(), again.len());
    assert_eq!(first[..first.len() - 1], again[..again.len() - 1]);
}

/// What people read, as they read it.
#[test]
fn an_export_is_for_people_to_read() {
    let desk = Desk::new();
    opened(&desk.store(), async |journal| {
        append(journal, run_id(1), 0, json!({ "step": "SnapshotDisk", "attempt": 1 })).await;
        append(journal, run_id(1), 1, json!({ "step": "SnapshotDisk", "operation": null })).await;
        journal.put_facts(Fence(7), vec![("serial".into(), Some(json!(41)))]).await.expect("nothing fails");
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let text = runtime.block_on(desk.binary.run(&["store", "export", "-"])).stdout;
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let told = ["made", "store", "sha256", "release"].map(|name| (name, value[name].as_str()));
        told.into_iter().fold(line.to_owned(), |line, (name, it)| match it {
            Some(it) => line.replace(it, &format!("[{name}]")),
            None => line,
        })
    };
    let text: Vec<String> = text.lines().map(line).collect();
    insta::assert_snapshot!("export", text.join("\n"));
}

#[tokio::test]
async fn an_export_never_replaces_a_file_and_a_failed_one_leaves_none() {
    let desk = Desk::new();
    let export = desk.at("export.jsonl");
    let name = export.to_str().expect("a plain name");
    desk.binary.run(&["store", "export", name]).await.assert(1, &["there is no database in it"]);
    filled(&desk.store(), 1, 1);
    fs::write(&export, "mine").expect("a file");
    desk.binary.run(&["store", "export", name]).await.assert(1, &[name, "is there already"]);
    assert_eq!(fs::read_to_string(&export).expect("it is there"), "mine");
    desk.binary.run(&["store", "export", "/nowhere/x"]).await.assert(1, &["/nowhere/x.partly"]);
    let left: Vec<_> = fs::read_dir(desk.folder.path()).expect("it reads").flatten().map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partly")), "{left:?}");
}

#[tokio::test]
async fn an_import_never_mixes_two_stores() {
    let desk = Desk::new();
    filled(&desk.store(), 1, 2);
    let export = desk.at("export.jsonl");
    let name = export.to_str().expect("a plain name");
    desk.binary.run(&["store", "export", name]).await.assert(0, &[]);
    let before = histories(&desk.store());
    let words = ["it holds a store of 1 runs and 2 facts", "store quarantine", "KW0116"];
    desk.binary.run(&["store", "import", name]).await.assert(5, &words);
    assert_eq!(histories(&desk.store()), before);
    let strange = desk.at("strange");
    fs::create_dir(&strange).expect("a directory");
    fs::write(strange.join("thesis.txt"), "").expect("a file");
    desk.on(&strange).run(&["store", "import", name]).await.assert(1, &["thesis.txt", "KW0110"]);
    // One that nobody has used is as good as none.
    let unused = desk.at("unused");
    opened(&unused, async |_| {});
    desk.on(&unused).run(&["store", "import", name]).await.assert(0, &["imported 1 runs"]);
    assert_eq!(histories(&unused), before);
}

/// What the store knew of the future is kept: its mark, and who may not write any more.
#[test]
fn an_imported_store_goes_on_from_its_commit_and_its_epoch() {
    let desk = Desk::new();
    let source = desk.at("source");
    filled(&source, 2, 3);
    let text = exported(&source);
    import(&desk.store(), text.as_bytes()).expect("it is whole");
    let commit = sum(&desk.store()).commit;
    assert_eq!(commit, sum(&source).commit);
    opened(&desk.store(), async |journal| {
        let record = || vec![NewRecord { kind: "asked", payload: json!(1) }];
        let old = journal.commit(run_id(0), Revision(3), Fence(6), record(), json!({})).await;
        assert!(matches!(old, Err(StoreError::Fenced { .. })), "{old:?}");
        let position = journal.position().await.expect("it reads");
        assert_eq!(position.commit, commit);
        journal.commit(run_id(0), Revision(3), Fence(7), record(), json!({})).await.expect("the newest epoch may");
        assert_eq!(journal.position().await.expect("it reads").commit, commit + 1);
    });
    // The database of the day of the import, back again: that is noticed.
    let older = desk.at("older");
    import(&older, text.as_bytes()).expect("it is whole");
    fs::remove_dir_all(desk.store().join("db")).expect("it goes");
    super::copy_dir(&older.join("db"), &desk.store().join("db"));
    let error = kamino_wf::store::open_dir(&desk.store(), &holder()).expect_err("it went back");
    assert!(matches!(error, StoreError::WentBack { .. }), "{error}");
}

fn exported(store: &Path) -> String {
    opened(store, async |journal| {
        let mut export =
            kamino_wf::store::Export::begin(journal, "1.2.3", jiff::Timestamp::UNIX_EPOCH).await.expect("it reads");
        let mut text = Vec::new();
        while let Some(lines) = export.next().await.expect("it reads") {
            text.extend(lines);
        }
        String::from_utf8(text).expect("text")
    })
}

fn import(store: &Path, mut text: &[u8]) -> Result<kamino_wf::store::Counts, StoreError> {
    import_dir(&Place::from(store), &holder(), &mut text, "a.jsonl", None)
}

/// Refused by the file's name and with that line; and nothing of it is there.
#[track_caller]
fn refused(text: &[u8], line: Option<u64>, words: &str, what: &str) {
    let root = tempfile::tempdir().expect("a directory");
    let store = root.path().join("store");
    match import(&store, text) {
        Err(StoreError::Import { file, line: found, what: said }) => {
            assert_eq!(file, "a.jsonl");
            assert!(line.is_none_or(|line| line == found), "{what}: line {found}, not {line:?}: {said}");
            assert!(said.contains(words), "{what}: no {words:?} in {said:?}");
        }
        other => panic!("{what}: {other:?}"),
    }
    let left: Vec<_> = fs::read_dir(&store).expect("it reads").flatten().map(|it| it.file_name()).collect();
    assert_eq!(left, ["LOCK"], "{what}");
}

#[test]
fn half_a_file_is_refused_by_its_name_and_line() {
    let root = tempfile::tempdir().expect("a directory");
    filled(&root.path().join("store"), 2, 2);
    let text = exported(&root.path().join("store"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10);
    refused(b"", Some(0), "it is empty", "no line at all");
    for count in 1..lines.len() {
        let half = lines[..count].join("\n") + "\n";
        refused(half.as_bytes(), Some(0), &format!("ends after line {count}"), "cut between lines");
        let within = &half[..half.len() - 9];
        refused(within.as_bytes(), Some(count as u64), "is no", "cut within a line");
    }
    for gone in 0..lines.len() - 1 {
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, line)| *line).collect();
        refused((rest.join("\n") + "\n").as_bytes(), None, "", "a line that is missing");
        let mut twice = lines.clone();
        twice.insert(gone, lines[gone]);
        refused((twice.join("\n") + "\n").as_bytes(), None, "", "a line that is there twice");
    }
    for at in 1..lines.len() - 2 {
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        refused((swapped.join("\n") + "\n").as_bytes(), None, "", "two lines the wrong way round");
    }
    refused(format!("{text}{text}").as_bytes(), Some(11), "nothing may come after", "two files");
    refused(b"{}\n", Some(1), "is no header", "something else");
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    refused(newer.as_bytes(), Some(1), "import it with 1.2.3", "of a newer release");
    let foreign = text.replacen("kamino-wf-store", "etcd", 1);
    refused(foreign.as_bytes(), Some(1), "its format is \"etcd\"", "somebody else's");
    refused("x".repeat(2 << 20).as_bytes(), Some(1), "longer than any line", "a line without an end");
}

/// One byte differs: the line that it is in says so, or the last one does.
#[test]
fn no_changed_byte_comes_in() {
    let root = tempfile::tempdir().expect("a directory");
    filled(&root.path().join("store"), 2, 2);
    let text = exported(&root.path().join("store")).into_bytes();
    let mut chance = fastrand::Rng::with_seed(4);
    for _ in 0..60 {
        let (at, bit) = (chance.usize(..text.len()), chance.u8(..8));
        let mut changed = text.clone();
        changed[at] ^= 1 << bit;
        refused(&changed, None, "", &format!("bit {bit} of byte {at}"));
    }
}
