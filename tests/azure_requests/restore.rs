//! `restore`: asked once for all of it, whatever happens to the answer; and what came besides is named.

use std::time::Duration;

use kamino_wf::{
    cloud::{Cloud as _, Restoration},
    restore::{Pace, RestoreError, Restored, look, parse, restore},
    sim::arm::{Fault, Injection, Logged},
};
use serde_json::{Value, json};

use super::stage::{Stage, run, throttled};

const PACE: Pace =
    Pace { look: Duration::from_millis(5), settles: Duration::from_millis(400), within: Duration::from_secs(20) };

const BUNDLE: &str = r#"
version: 1
imageReference: { publisher: Canonical, offer: ubuntu-24_04-lts, sku: server, version: latest }
customData: I2Nsb3VkLWNvbmZpZwpzM2NyZXQK
extensions:
- name: vmssCSE
  properties: { publisher: Microsoft.Azure.Extensions, type: CustomScript, typeHandlerVersion: "2.0",
                protectedSettings: { commandToExecute: s3cret } }
"#;

fn bundle() -> Restoration {
    parse(BUNDLE).expect("a good bundle")
}

/// A scale set that was adopted: its custom data are empty, and the extension is gone.
async fn adopted() -> Stage {
    let stage = Stage::new().await;
    stage.azure.begin_model_change(&stage.model_change()).await.expect("accepted");
    stage
        .until("the change", async || {
            let set = stage.azure.scale_set(&stage.scale_set()).await.expect("a look").expect("the scale set");
            (set.extensions.len() == 1 && set.provisioning == kamino_wf::cloud::Provisioning::Succeeded).then_some(())
        })
        .await;
    stage
}

async fn put_back(stage: &Stage, again: bool) -> Result<Restored, RestoreError> {
    restore(&stage.azure, (&stage.scale_set(), run()), &bundle(), again, PACE, &|_| {}).await
}

/// Those of a restore, after that of the adoption.
fn patches(stage: &Stage) -> Vec<Logged> {
    let patches = stage.face.requests().into_iter().filter(|it| it.method == "PATCH");
    patches.skip(1).collect()
}

fn model(stage: &Stage) -> Value {
    stage.shared.world().scale_sets[&stage.scale_set().key()].value.clone()
}

/// The world has it all, and nothing else of the model is otherwise than when it was adopted.
fn assert_back(stage: &Stage, before: &Value) {
    let world = stage.shared.world();
    let key = stage.scale_set().key();
    assert_eq!(world.custom_data[&key], "I2Nsb3VkLWNvbmZpZwpzM2NyZXQK");
    let mut model = world.scale_sets[&key].value.clone();
    let profile = &mut model["properties"]["virtualMachineProfile"];
    let image = profile["storageProfile"]["imageReference"].take();
    assert_eq!((&image["sku"], &image["id"]), (&json!("server"), &Value::Null));
    let extensions = profile["extensionProfile"].take();
    let names: Vec<&str> =
        extensions["extensions"].as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["computeAksLinuxBilling", "vmssCSE"]);
    assert!(!extensions.to_string().contains("s3cret"), "what is protected is not shown");
    let mut expected = before.clone();
    for (part, field) in [("storageProfile", "imageReference"), ("", "extensionProfile")] {
        let profile = &mut expected["properties"]["virtualMachineProfile"];
        let place = if part.is_empty() { profile } else { &mut profile[part] };
        place[field] = Value::Null;
    }
    for it in [&mut model, &mut expected] {
        it["etag"] = Value::Null;
    }
    assert_eq!(model, expected);
}

#[tokio::test]
async fn all_of_it_goes_back_in_one_request_under_the_etag_that_was_seen() {
    let stage = adopted().await;
    let before = model(&stage);
    let prospect = look(&stage.azure, &stage.scale_set(), &bundle()).await.expect("a look");
    assert_eq!((prospect.already, prospect.custom_data), (false, true));
    assert_eq!((prospect.extensions_added, prospect.extensions_replaced), (vec!["vmssCSE".to_owned()], vec![]));
    assert!(patches(&stage).is_empty(), "a look asks for nothing");

    let Restored::Done(changed) = put_back(&stage, false).await.expect("it is done") else { panic!("it was asked") };
    assert!(changed.iter().any(|part| part.ends_with("storageProfile/imageReference")), "{changed:?}");
    assert_back(&stage, &before);
    let asked = patches(&stage);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].if_match.as_deref(), before["etag"].as_str());
    insta::with_settings!({ snapshot_path => "../golden/restore", prepend_module_to_snapshot => false }, {
        insta::assert_json_snapshot!("request", json!({ "path": asked[0].path, "version": asked[0].api_version, "body": asked[0].body }));
    });

    // It is there: asked again nothing is sent, unless custom data are to go once more.
    assert_eq!(put_back(&stage, false).await.expect("a look"), Restored::Already);
    assert_eq!(patches(&stage).len(), 1);
    assert_eq!(put_back(&stage, true).await.expect("once more"), Restored::Done(vec![]));
    assert_eq!(patches(&stage).len(), 2);
}

#[tokio::test]
async fn whatever_happens_to_the_answer_it_is_there_in_the_end() {
    let throttled = throttled(300);
    let cases = [
        ("cut before", Fault::CutBefore, 2),
        // Done, and seen to be: nothing is asked twice.
        ("cut after", Fault::CutAfter, 1),
        ("throttled", throttled, 2),
    ];
    for (what, fault, requests) in cases {
        let stage = adopted().await;
        let before = model(&stage);
        stage.face.plant(Injection { method: "PATCH", path_part: "/virtualMachineScaleSets/".into(), times: 1, fault });
        let done = put_back(&stage, false).await;
        assert!(matches!(done, Ok(Restored::Done(_))), "{what}: {done:?}");
        assert_back(&stage, &before);
        let asked = patches(&stage);
        assert_eq!(asked.len(), requests, "{what}");
        let accepted = stage.shared.world().accepted.iter().filter(|it| it.verb == "begin_model_change").count();
        assert_eq!(accepted, 2, "{what}: the adoption, and this");
    }
}

/// The model shows it all before and after: what was lost is told from what arrived by the etag.
#[tokio::test]
async fn asked_again_a_lost_request_is_no_success() {
    for (what, fault, requests) in [("before", Fault::CutBefore, 2), ("after", Fault::CutAfter, 1)] {
        let stage = adopted().await;
        put_back(&stage, false).await.expect("it is done");
        let earlier = patches(&stage).len();
        stage.shared.world().custom_data.clear();
        stage.face.plant(Injection { method: "PATCH", path_part: "/virtualMachineScaleSets/".into(), times: 1, fault });
        let done = put_back(&stage, true).await;
        assert!(matches!(done, Ok(Restored::Done(_))), "{what}: {done:?}");
        assert_eq!(stage.shared.world().custom_data.len(), 1, "{what}: custom data arrived");
        assert_eq!(patches(&stage).len() - earlier, requests, "{what}");
    }
}

#[tokio::test]
async fn a_model_that_somebody_changes_in_between_is_looked_at_again() {
    let stage = adopted().await;
    let answer = Fault::Answer {
        status: 412,
        headers: vec![],
        body: json!({ "error": { "code": "PreconditionFailed", "message": "the etag is another" } }),
    };
    stage.face.plant(Injection {
        method: "PATCH",
        path_part: "/virtualMachineScaleSets/".into(),
        times: 1,
        fault: answer,
    });
    let before = model(&stage);
    assert!(matches!(put_back(&stage, false).await, Ok(Restored::Done(_))));
    assert_back(&stage, &before);
    // Whoever it was has made it one that must not be changed.
    stage.shared.world().scale_sets.get_mut(&stage.scale_set().key()).expect("it").value["properties"]["upgradePolicy"]
        ["mode"] = json!("Rolling");
    let error = put_back(&stage, true).await.expect_err("it would roll").to_string();
    assert!(error.contains("upgradePolicy.mode of scale set pool1 is Rolling") && error.contains("KW0201"), "{error}");
    assert_eq!(patches(&stage).len(), 2);
}

#[tokio::test]
async fn what_changed_besides_is_named_and_what_did_not_come_is_said() {
    // A PATCH that resets a part of the disk's settings.
    let stage = adopted().await;
    stage.shared.world().otherwise.insert(2);
    let error = put_back(&stage, false).await.expect_err("more has changed");
    assert_eq!(error.code(), Some("KW0703"));
    assert!(error.to_string().contains("/properties/virtualMachineProfile/storageProfile/osDisk"), "{error}");

    // Accepted, and never there.
    let stage = adopted().await;
    let accepted = Fault::Answer { status: 200, headers: vec![], body: json!({}) };
    stage.face.plant(Injection {
        method: "PATCH",
        path_part: "/virtualMachineScaleSets/".into(),
        times: 9,
        fault: accepted,
    });
    let error = put_back(&stage, false).await.expect_err("it did not come").to_string();
    assert!(error.contains("says Succeeded and does not show what was asked for"), "{error}");

    let denied = Fault::Answer {
        status: 403,
        headers: vec![],
        body: json!({ "error": { "code": "AuthorizationFailed", "message": "the client has no right to write" } }),
    };
    let stage = adopted().await;
    stage.face.plant(Injection {
        method: "PATCH",
        path_part: "/virtualMachineScaleSets/".into(),
        times: 9,
        fault: denied,
    });
    let error = put_back(&stage, false).await.expect_err("denied").to_string();
    assert!(error.contains("AuthorizationFailed"), "{error}");
    assert_eq!(patches(&stage).len(), 1, "a person is asked, nobody tries again");
}
