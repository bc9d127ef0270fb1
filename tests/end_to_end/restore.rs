//! `restore`, as a person uses it: after an update that emptied the model, from a file that nobody else ever sees.

use std::fs;

use kamino_wf::sim::arm::Effect;
use serde_json::json;

use crate::{
    START,
    support::{
        cluster::shared,
        world::{Plan, Site},
    },
};

const RESTORE: &[&str] = &["restore", "--pool", "pool1", "--bundle"];
/// In base64.
const SECRET: &str = "cGFzc3dvcmQ6IHN3MHJkZmlzaAo=";

/// Accepted changes of the scale set's model.
fn changes(site: &Site) -> usize {
    let model = |path: &str| path.to_ascii_lowercase().ends_with("/virtualmachinescalesets/pool1");
    site.writes().iter().filter(|it| it.method == "PATCH" && model(&it.path) && it.effect == Effect::Accepted).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_first_update_overwrote_comes_back_from_a_persons_file() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan::default()).await;
    site.configure(|settings| settings["pools"][0]["profile"] = "aks-engine".into());
    let bundle = site.folder.path().join("bundle.json");
    let extension = json!({ "name": "vmssCSE", "properties": { "publisher": "Microsoft.Azure.Extensions",
        "type": "CustomScript", "typeHandlerVersion": "2.0", "protectedSettings": { "commandToExecute": SECRET } } });
    let image = json!({ "publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest" });
    let text = json!({ "version": 1, "imageReference": image, "customData": SECRET, "extensions": [extension] });
    fs::write(&bundle, text.to_string()).expect("a bundle");
    let path = bundle.to_str().expect("text");
    let run = async |more: &[&str]| site.binary.run(&[RESTORE, &[path], more].concat()).await;

    site.binary.run(START).await.assert(0, &["done"]);
    assert_eq!(changes(&site), 1);
    let emptied = site.world.world().custom_data[&site.scale_set().key()].clone();

    let planned = run(&[]).await;
    planned.assert(0, &["Extensions that return   vmssCSE", "Custom data              replaced", "say --yes"]);
    let json = run(&["-o", "json"]).await.json();
    assert_eq!((&json["kind"], &json["dryRun"]), (&"Restoration".into(), &true.into()));
    site.configure(|settings| {
        settings["pools"][0]["profile"] = "aks-engine".into();
        settings["pools"][0]["approve"] = json!(["adopt"]);
    });
    run(&["--yes"]).await.assert(5, &["KW0702", "pool pool1 says adopt", "take that out of the settings"]);
    site.configure(|settings| settings["pools"][0]["profile"] = "aks-engine".into());
    assert_eq!((changes(&site), &site.world.world().custom_data[&site.scale_set().key()]), (1, &emptied));

    let done = run(&["--yes"]).await;
    done.assert(0, &["new nodes of pool pool1 are made as the bundle says"]);
    assert_eq!((changes(&site), site.world.world().custom_data[&site.scale_set().key()].as_str()), (2, SECRET));
    run(&["--yes"]).await.assert(0, &["shows all of it already"]);
    assert_eq!(changes(&site), 2);
    for said in [&planned, &done] {
        assert!(!format!("{}{}", said.stdout, said.stderr).contains(SECRET));
    }
    let stored = fs::read_dir(site.store.join("db")).expect("the store").map(|it| it.expect("a file").path());
    for file in stored.filter(|path| path.is_file()) {
        let bytes = fs::read(&file).expect("readable");
        assert!(!bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes()), "{} holds it", file.display());
    }

    // It is a pool that nobody has adopted.
    site.binary.run(&["start", "--pool", "pool1", "--wait"]).await.assert(7, &["KW0213", "--adopt"]);
    site.binary.run(&["start", "--pool", "pool1", "--adopt"]).await.assert(0, &[]);
    run(&["--yes"]).await.assert(5, &["KW0702", "of the same scale set is", "let it end, or cancel it"]);
    assert_eq!(changes(&site), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_or_a_model_that_will_not_do_is_refused_and_nothing_is_asked() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { adopted: true, ..Plan::default() }).await;
    let bundle = site.folder.path().join("bundle.yaml");
    let path = bundle.to_str().expect("text");
    let run = async |pool: &str| site.binary.run(&["restore", "--pool", pool, "--bundle", path, "--yes"]).await;
    run("pool1").await.assert(1, &["failed to read bundle", "No such file"]);
    fs::write(&bundle, format!("version: 1\nimageReference: {{ id: /x }}\ncustomData: \"{SECRET}!\"\n"))
        .expect("written");
    let ended = run("pool1").await;
    ended.assert(2, &["customData is not base64", "docs/restore.md"]);
    assert!(!ended.stderr.contains(SECRET));
    fs::write(&bundle, "version: 1\nimageReference: { id: /x }\n").expect("written");
    run("pool9").await.assert(4, &["expected one of pool1"]);
    site.change_model("/properties/upgradePolicy/mode", json!("Rolling"));
    run("pool1").await.assert(5, &["KW0201", "upgradePolicy.mode", "Rolling", "set it to Manual"]);
    assert!(site.writes().is_empty() && !site.store.exists());
}
