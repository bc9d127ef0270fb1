//! Throttling, cut connections, altered URLs, conflicts.

use std::time::Duration;

use kamino_wf::{
    clock::Clock as _,
    cloud::{Cloud as _, ModelChange, Operation, OperationState, azure::Timeouts},
    model::{Class, DiskId, Region},
    sim::{
        Faults,
        arm::{Fault, Injection},
    },
};
use serde_json::json;
use uuid::Uuid;

use super::{
    secrets::stranger,
    stage::{Stage, run, throttled},
};

#[tokio::test]
async fn a_429_closes_the_bucket_and_nothing_goes_out_before_its_time() {
    let stage = Stage::new().await;
    let id = stage.definition();
    stage.face.plant(Injection { method: "GET", path_part: "/versions".into(), times: 1, fault: throttled(30_000) });
    let error = stage.azure.versions(&id).await.expect_err("throttled");
    assert_eq!(error.class(), Class::Throttled { retry_after: Duration::from_secs(30) });
    let sent = stage.face.requests().len();

    stage.clock.forward(Duration::from_secs(20));
    let error = stage.azure.versions(&id).await.expect_err("still closed");
    let Class::Throttled { retry_after } = error.class() else { panic!("{error}") };
    assert!(retry_after <= Duration::from_secs(10) && retry_after > Duration::from_secs(5), "{retry_after:?}");
    assert_eq!(stage.face.requests().len(), sent, "nothing was sent");
    stage.azure.disk(&stage.donor_disk()).await.expect("other buckets are open");
    assert_eq!(stage.limiter.closed(stage.clock.now()).len(), 1);

    stage.clock.forward(Duration::from_secs(11));
    stage.azure.versions(&id).await.expect("open again");
}

#[tokio::test]
async fn arms_own_limit_closes_all_reads_of_the_subscription() {
    let stage = Stage::new().await;
    let Fault::Answer { status, headers, .. } = throttled(5000) else { panic!("an answer") };
    let body =
        json!({ "error": { "code": "SubscriptionRequestsThrottled", "message": "try again after '5' seconds" } });
    let fault = Fault::Answer { status, headers, body };
    stage.face.plant(Injection { method: "GET", path_part: "/disks/".into(), times: 1, fault });
    stage.azure.disk(&stage.donor_disk()).await.expect_err("throttled");
    let error = stage.azure.versions(&stage.definition()).await.expect_err("closed too");
    assert!(matches!(error.class(), Class::Throttled { .. }), "{error}");
    stage.azure.begin_snapshot(&stage.snapshot()).await.expect("writes are another matter");
}

#[tokio::test]
async fn the_worlds_own_troubles_come_over_the_wire() {
    let stage = Stage::new().await;
    let azure = &stage.azure;
    let always = |change: fn(&mut Faults)| {
        let mut faults = Faults { budget: 1, ..Faults::none() };
        change(&mut faults);
        stage.shared.world().faults = faults;
    };

    always(|faults| faults.lost_answers = 1000);
    let want = stage.snapshot();
    let error = azure.begin_snapshot(&want).await.expect_err("the answer is lost");
    assert_eq!(error.class(), Class::Uncertain);
    assert!(stage.shared.world().snapshots.contains_key(&want.id.key()), "it took effect");

    always(|faults| faults.failures = 1000);
    let gallery = stage.named("galleries", "second");
    let accepted = azure.begin_gallery(&gallery, &Region("westeurope".into())).await.expect("accepted");
    let operation = accepted.operation.expect("an operation");
    let end = stage.end_of(&operation).await;
    assert!(matches!(&end, OperationState::Failed { code, .. } if code == "InternalExecutionError"), "{end:?}");

    always(|faults| faults.throttles = 1000);
    stage.shared.world().scale = 0.05;
    let error = azure.disk(&stage.donor_disk()).await.expect_err("throttled");
    let Class::Throttled { retry_after } = error.class() else { panic!("{error}") };
    assert_eq!(retry_after, Duration::from_mins(1), "the world's 1,200 s at its pace");
    azure.disk(&stage.donor_disk()).await.expect_err("held back by ourselves");
    assert!(stage.shared.world().early.is_empty());
    // A client whose clock is wrong is seen by the world, once it has recorded what it was told.
    {
        let mut world = stage.shared.world();
        world.told = world.closed.keys().cloned().collect();
    }
    stage.clock.forward(Duration::from_hours(1));
    azure.disk(&stage.donor_disk()).await.expect_err("too early for the world");
    assert_eq!(stage.shared.world().early.len(), 1);
}

#[tokio::test]
async fn a_429_on_the_second_page_is_a_429() {
    let stage = Stage::new().await;
    let id = stage.definition();
    stage.azure.versions(&id).await.expect("a list");
    let pages = stage.face.requests().iter().filter(|it| it.path.ends_with("/versions")).count();
    assert_eq!(pages, 3);
    let answer = |fault| Injection { method: "GET", path_part: "/versions".into(), times: 1, fault };
    // The first is used up by page one, which it leaves as it is but for its host: the same one.
    stage.face.plant(answer(Fault::ForeignHost(stage.face.address().to_string())));
    stage.face.plant(answer(throttled(1000)));
    let error = stage.azure.versions(&id).await.expect_err("throttled");
    assert_eq!(error.class(), Class::Throttled { retry_after: Duration::from_secs(1) });
}

#[tokio::test]
async fn an_operation_url_is_good_only_byte_for_byte() {
    let stage = Stage::new().await;
    let operation = stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted").operation.expect("a URL");
    assert!(operation.0.len() > 2700, "{} bytes", operation.0.len());
    let told = stage.azure.operation(&operation).await.expect("a look");
    assert!(matches!(told, OperationState::Running(_)), "{told:?}");

    let at = operation.0.find("&s=").expect("a signature") + 5;
    let byte = if operation.0.as_bytes()[at] == b'0' { "1" } else { "0" };
    let mut altered = operation.0.clone();
    altered.replace_range(at..=at, byte);
    let told = stage.azure.operation(&Operation(altered)).await.expect("an answer");
    assert_eq!(told, OperationState::Unknown, "the resource decides");
    assert_eq!(stage.face.requests().last().and_then(|it| it.status), Some(400));

    let unknown = operation.0.replace("/DiskOperations/", "/DiskOperations/0");
    let told = stage.azure.operation(&Operation(unknown)).await.expect("an answer");
    assert_eq!(told, OperationState::Unknown);
    assert_eq!(stage.face.requests().last().and_then(|it| it.status), Some(404));
}

#[tokio::test]
async fn a_connection_cut_after_the_server_acted_is_uncertain_and_the_look_finds_it() {
    let stage = Stage::new().await;
    let cut = |fault| Injection { method: "PUT", path_part: "/snapshots/".into(), times: 1, fault };
    let want = stage.snapshot();
    stage.face.plant(cut(Fault::CutBefore));
    let error = stage.azure.begin_snapshot(&want).await.expect_err("cut");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    assert!(error.to_string().contains("maybe sent"), "{error}");
    assert_eq!(stage.azure.snapshot(&want.id).await.expect("a look"), None, "it did not arrive");

    stage.face.plant(cut(Fault::CutAfter));
    let error = stage.azure.begin_snapshot(&want).await.expect_err("cut");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
    let found = stage.azure.snapshot(&want.id).await.expect("a look").expect("it did arrive");
    assert_eq!(found.run, Some(run()));
    let puts = stage.face.requests().iter().filter(|it| it.method == "PUT").count();
    assert_eq!(puts, 2, "nothing is sent twice by itself");
}

/// A process that is killed while it waits: what it had asked for is done all the same.
#[tokio::test]
async fn what_has_arrived_is_done_though_nobody_waits_for_the_answer() {
    let stage = Stage::new().await;
    let want = stage.snapshot();
    stage.azure.snapshot(&want.id).await.expect("a look, for token and connection");
    // The world takes 100 ms and more to act.
    stage.shared.world().scale = 10.0;
    let asked = tokio::time::timeout(Duration::from_millis(80), stage.azure.begin_snapshot(&want)).await;
    assert!(asked.is_err(), "given up");
    assert!(!stage.shared.world().snapshots.contains_key(&want.id.key()), "not done yet");
    let there = async || stage.shared.world().snapshots.contains_key(&want.id.key()).then_some(());
    stage.until("the snapshot", there).await;
}

#[tokio::test]
async fn nobody_there_is_uncertain_and_says_that_nothing_was_sent() {
    let stage = Stage::new().await;
    stage.azure.disk(&stage.donor_disk()).await.expect("a look, for a token");
    let Stage { face, azure, .. } = stage;
    let disk: DiskId = DiskId::new(&Uuid::nil().to_string(), "g", &["d"]).expect("an id");
    drop(face);
    let mut last = String::new();
    // The pooled connection notices first; the next one is refused.
    for _ in 0..2 {
        let error = azure.begin_delete_disk(&disk).await.expect_err("nobody there");
        assert_eq!(error.class(), Class::Uncertain);
        last = error.to_string();
    }
    assert!(last.contains("never sent"), "{last}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let short = Timeouts { connect: Duration::from_millis(500), request: Duration::from_millis(300) };
    let (address, _, _task) = stranger().await;
    let stage = Stage::with(
        |_| {},
        |settings| {
            settings.resource_manager = format!("https://{address}");
            settings.timeouts = short;
        },
    )
    .await;
    let error = stage.azure.disk(&stage.donor_disk()).await.expect_err("no answer");
    assert_eq!(error.class(), Class::Uncertain, "{error}");
}

#[tokio::test]
async fn a_model_that_is_not_the_one_that_was_found_good_is_not_changed() {
    let stage = Stage::new().await;
    let seen = stage.azure.scale_set(&stage.scale_set()).await.expect("a look").expect("the scale set");
    let under = |etag: &str| ModelChange { under: Some(etag.to_owned()), ..stage.model_change() };
    let error = stage.azure.begin_model_change(&under("\"another\"")).await.expect_err("another model");
    assert_eq!(error.class(), Class::Preempted, "{error}");
    assert!(!stage.face.requests().iter().any(|it| it.method == "PATCH"), "nothing was sent");
    let etag = seen.etag.expect("an etag");
    stage.azure.begin_model_change(&under(&etag)).await.expect("accepted");
    let patch = stage.face.requests().into_iter().rev().find(|it| it.method == "PATCH").expect("a PATCH");
    assert_eq!(patch.if_match, Some(etag), "the change names the very model that was looked at");
}

#[tokio::test]
async fn somebody_elses_change_is_preempted() {
    let stage = Stage::new().await;
    let conflict = Fault::Answer {
        status: 412,
        headers: vec![],
        body: json!({ "error": { "code": "PreconditionFailed", "message": "etag" } }),
    };
    let part = "/virtualMachineScaleSets/pool1".into();
    stage.face.plant(Injection { method: "PATCH", path_part: part, times: 1, fault: conflict });
    let error = stage.azure.begin_model_change(&stage.model_change()).await.expect_err("412");
    assert_eq!(error.class(), Class::Preempted);
    let patch = stage.face.requests().into_iter().rev().find(|it| it.method == "PATCH").expect("a PATCH");
    assert_eq!(patch.if_match.as_deref(), Some("\"7\""));
    assert_eq!(patch.correlation_id, Some(run().0.hyphenated().to_string()));
}
