//! A store that can't be trusted stops everything, until a person has moved it aside.

use std::fs;

use kamino_wf::{
    sim::{Scene, spec},
    store::{Fence, NewRecord, Revision},
};
use serde_json::json;

use super::{Desk, copy_dir, filled, opened, run_id};

/// Damages a record that is in the middle of the database's file.
fn damage(desk: &Desk) {
    let file = desk.store().join("db/db");
    let mut bytes = fs::read(&file).expect("it reads");
    let at = bytes.windows(40).position(|it| it.iter().all(|byte| *byte == b'x')).expect("a record's filling");
    bytes[at + 7] ^= 1;
    fs::write(&file, &bytes).expect("it writes");
}

#[tokio::test]
async fn a_sound_store_is_not_moved() {
    let desk = Desk::new();
    desk.binary.run(&["store", "quarantine"]).await.assert(1, &["there is no database in it"]);
    filled(&desk.store(), 1, 1);
    desk.binary.run(&["store", "quarantine"]).await.assert(5, &["nothing is wrong with it", "KW0119"]);
    desk.binary.run(&["store", "check"]).await.assert(0, &["is sound"]);
}

#[tokio::test]
async fn a_damaged_store_stops_everything_until_it_is_moved_and_nothing_of_it_is_lost() {
    let desk = Desk::new();
    filled(&desk.store(), 2, 3);
    damage(&desk);
    let damaged = fs::read(desk.store().join("db/db")).expect("it reads");
    for command in [&["list"][..], &["store", "check"], &["store", "compact"], &["store", "export", "-"]] {
        let ended = desk.binary.run(command).await;
        ended.assert(1, &["trust the store", "store quarantine"]);
        assert!(ended.stderr.contains("KW0104") || ended.stderr.contains("KW0105"), "{ended:?}");
    }
    assert!(fs::read(desk.store().join("db/db")).expect("it reads") == damaged, "the evidence was changed");

    let ended = desk.binary.run(&["store", "quarantine"]).await;
    ended.assert(0, &["it was right to stop", "nothing of it was deleted", "store import", "kamino-wf-run"]);
    let line = |line: &str| match line.split_once("quarantine-") {
        Some((_, rest)) => {
            format!("The store was moved to [store]/quarantine-[time]{}", &rest["20261124T000000Z".len()..])
        }
        None if line.starts_with("The world was not looked at") => "The world was not looked at: [why]".to_owned(),
        None if line.starts_with("Of its runs") => {
            "Of its runs [n] could be read, [n] of them open; [n] entries could not.".to_owned()
        }
        None => line.to_owned(),
    };
    insta::assert_snapshot!("quarantine", ended.stdout.lines().map(line).collect::<Vec<_>>().join("\n"));
    let entries = fs::read_dir(desk.store()).expect("it reads").flatten();
    let to = entries.map(|it| it.path()).find(|it| it.to_string_lossy().contains("quarantine-")).expect("it was moved");
    assert!(fs::read(to.join("db/db")).expect("it was moved") == damaged, "not as it was");
    assert!(to.join("mark").exists() && to.join("WHY.txt").exists());
    // Everything begins anew, by a person's word.
    desk.binary.run(&["list"]).await.assert(0, &["There are no runs yet"]);
    filled(&desk.store(), 1, 1);
    desk.binary.run(&["store", "check"]).await.assert(0, &["is sound: 1 runs"]);
}

/// What can still be read of its runs is told: somebody has to look after them.
#[tokio::test]
async fn the_open_runs_of_a_store_that_went_back_are_told() {
    let desk = Desk::new();
    let scale_set = spec(&Scene::nominal()).scale_set;
    let commit = async |revision: u64| {
        let summary = json!({
            "id": run_id(5), "run": "0123456789ab", "scale_set": scale_set, "state": "running", "stage": "capture",
            "step": "CopyDisk", "why": null, "until": null, "donor": "node-3", "version": null,
            "started": "2026-11-24T00:00:00Z", "moved": "2026-11-24T00:00:00Z", "warnings": 0,
        });
        opened(&desk.store(), async |journal| {
            let record = NewRecord { kind: "asked", payload: json!(revision) };
            journal
                .commit(run_id(5), Revision(revision), Fence(7), vec![record], summary)
                .await
                .expect("nothing fails");
        });
    };
    commit(0).await;
    copy_dir(&desk.store().join("db"), &desk.at("yesterday"));
    commit(1).await;
    fs::remove_dir_all(desk.store().join("db")).expect("it goes");
    copy_dir(&desk.at("yesterday"), &desk.store().join("db"));
    desk.binary.run(&["list"]).await.assert(1, &["went back in time", "store quarantine", "KW0105"]);
    let ended = desk.binary.run(&["store", "quarantine", "-o", "json"]).await;
    let json = ended.assert(0, &["went back in time"]).json();
    assert_eq!((&json["kind"], &json["code"]), (&json!("StoreQuarantine"), &json!("KW0105")), "{json}");
    assert_eq!(json["runs"][0]["run"], "0123456789ab", "{json}");
    assert!(json["notSeen"][0].is_string(), "there is no cluster here: {json}");

    // The same as words.
    copy_dir(&desk.at("yesterday"), &desk.store().join("db"));
    let quarantined = std::path::PathBuf::from(json["movedTo"].as_str().expect("a directory"));
    fs::copy(quarantined.join("mark"), desk.store().join("mark")).expect("it was moved");
    let words =
        ["Of its runs 1 could be read, 1 of them open", "0123456789ab  pool1  running at CopyDisk, donor node-3"];
    // A second one in the same second has to wait for a name of its own.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    desk.binary.run(&["store", "quarantine"]).await.assert(0, &words);
}
