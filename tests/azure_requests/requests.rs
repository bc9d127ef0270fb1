//! What each call sends, as goldens; and that what is read is what the world holds.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use kamino_wf::{
    cloud::{
        Cloud as _, DiskCopy, DiskState, Granted, ImageRef, Leftovers, Machine, OperationState, Orchestration, Power,
        Powered, Provisioning,
    },
    doctor::{self, Check, Galleries, Groups, State},
    model::{Class, DiskId, InstanceId, Region, ResourceId, VersionName},
    permissions::{STOP_AZURE, Uses, in_azure},
    policy::provenance::PINNED,
    sim::{
        Scene, Shared,
        arm::{ArmFace, ArmOptions, Effect, Fault, Injection, Logged, run as run_face},
        spec,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::stage::{Stage, run, tags};

/// What the face saw, without what differs from day to day.
pub(crate) fn golden(requests: &[Logged]) -> Value {
    let one = |it: &Logged| {
        assert!(it.client_request_id.as_deref().is_some_and(|id| Uuid::try_parse(id).is_ok()), "{it:?}");
        let mut parts: Vec<&str> = it.path.split('/').collect();
        if it.path.contains("/locations/") {
            let last = parts.len() - 1;
            parts[last] = "[guid]";
        }
        let mut entry = json!({
            "request": format!("{} {}", it.method, parts.join("/")),
            "api-version": it.api_version,
            "status": it.status,
        });
        let optional = [
            ("query", Some(it.query.clone()).filter(|query| !query.is_empty()).map(Value::from)),
            ("if-match", it.if_match.clone().map(Value::from)),
            ("correlation", it.correlation_id.clone().map(Value::from)),
            ("body", it.body.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                entry[name] = value;
            }
        }
        entry
    };
    requests.iter().map(one).collect()
}

/// Compares what one call sent with its golden.
macro_rules! golden {
    ($stage:expr, $name:literal, $call:expr) => {{
        let before = $stage.face.requests().len();
        let answer = $call.await;
        let seen = golden(&$stage.face.requests()[before..]);
        insta::with_settings!({ snapshot_path => "../golden/azure", prepend_module_to_snapshot => false }, {
            insta::assert_json_snapshot!($name, seen);
        });
        answer.expect($name)
    }};
}

#[tokio::test]
async fn what_each_call_sends() {
    let stage = Stage::new().await;
    let azure = &stage.azure;
    let old = stage.definition().version(&VersionName::parse("2026.07.01000").expect("a version"));

    golden!(stage, "scale_set", azure.scale_set(&stage.scale_set()));
    golden!(stage, "scale_sets", azure.scale_sets(stage.scale_set().subscription()));
    golden!(stage, "instance", azure.instance(&stage.instance()));
    golden!(stage, "instances", azure.instances(&stage.scale_set(), Orchestration::Uniform));
    golden!(stage, "machines", azure.machines(stage.scale_set().subscription()));
    golden!(stage, "powers", azure.powers(&stage.scale_set(), Orchestration::Uniform));
    golden!(stage, "disk", azure.disk(&stage.donor_disk()));
    golden!(stage, "snapshot", azure.snapshot(&stage.snapshot().id));
    golden!(stage, "gallery", azure.gallery(&spec(&stage.scene).gallery));
    golden!(stage, "definition", azure.definition(&stage.definition()));
    golden!(stage, "version", azure.version(&old));
    golden!(stage, "versions", azure.versions(&stage.definition()));

    let accepted = golden!(stage, "begin_snapshot", azure.begin_snapshot(&stage.snapshot()));
    assert!(accepted.retry_after.is_some() && accepted.request_id.is_some());
    let operation = accepted.operation.expect("an operation");
    golden!(stage, "operation", azure.operation(&operation));
    stage
        .until("the snapshot", async || {
            let found = azure.snapshot(&stage.snapshot().id).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded).then_some(())
        })
        .await;
    golden!(stage, "begin_copy_disk", azure.begin_copy_disk(&stage.copy()));
    let gallery = stage.named("galleries", "second");
    golden!(stage, "begin_gallery", azure.begin_gallery(&gallery, &Region("westeurope".into())));
    golden!(stage, "begin_definition", azure.begin_definition(&stage.definition_spec("arm")));
    stage
        .until("the copy", async || {
            let found = azure.disk(&stage.copy().id).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded).then_some(())
        })
        .await;
    let learnt = tags().into_iter().chain([("kamino-wf-storage".into(), "Standard_LRS".into())]).collect();
    golden!(stage, "begin_tag_disk", azure.begin_tag_disk(&stage.copy().id, &learnt));
    let tagged = azure.disk(&stage.copy().id).await.expect("a look").expect("the copy");
    assert_eq!((tagged.version_storage.as_deref(), tagged.run), (Some("Standard_LRS"), Some(run())));
    golden!(stage, "begin_version", azure.begin_version(&stage.version()));
    golden!(stage, "begin_publish", azure.begin_publish(&old, false));
    let tagged = stage.definition().version(&VersionName::parse("2026.08.01000").expect("a version"));
    golden!(stage, "begin_tag_version", azure.begin_tag_version(&tagged, PINNED, Some("by ann")));
    stage
        .until("the tag", async || {
            let found = azure.version(&tagged).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded).then_some(())
        })
        .await;
    golden!(stage, "begin_untag_version", azure.begin_tag_version(&tagged, PINNED, None));
    golden!(stage, "begin_model_change", azure.begin_model_change(&stage.model_change()));
    stage
        .until("the model", async || {
            let set = azure.scale_set(&stage.scale_set()).await.expect("a look")?;
            (set.provisioning == Provisioning::Succeeded).then_some(())
        })
        .await;
    golden!(stage, "begin_scale_out", azure.begin_scale_out(&stage.scale_set(), run(), 5));
    // Only upward: it is looked at, and that is all.
    golden!(stage, "begin_scale_out_of_a_larger_one", azure.begin_scale_out(&stage.scale_set(), run(), 4));
    golden!(stage, "autoscale", azure.autoscale(stage.scale_set().subscription()));
    golden!(stage, "leftovers", azure.leftovers(&stage.scale_set().group()));
    golden!(stage, "permissions_of_a_group", azure.granted_in(&stage.scale_set().group()));
    golden!(stage, "permissions_of_a_gallery", azure.granted_on(&spec(&stage.scene).gallery));
    golden!(stage, "begin_delete_snapshot", azure.begin_delete_snapshot(&stage.snapshot().id));
    golden!(stage, "begin_delete_disk", azure.begin_delete_disk(&stage.copy().id));
    let oldest = stage.definition().version(&VersionName::parse("2026.03.01").expect("a version"));
    golden!(stage, "begin_delete_version", azure.begin_delete_version(&oldest));
}

/// What a run sends where the cluster has no disk driver: to one instance, and of one disk.
#[tokio::test]
async fn what_a_data_disk_sends() {
    let stage = Stage::new().await;
    let (azure, id, copy) = (&stage.azure, stage.instance(), stage.copy());
    azure.begin_snapshot(&stage.snapshot()).await.expect("accepted");
    let snapshot = async || azure.snapshot(&stage.snapshot().id).await.expect("a look");
    let settled = async || snapshot().await.filter(|it| it.provisioning == Provisioning::Succeeded);
    stage.until("the snapshot", settled).await;
    let copy = DiskCopy { zone: Some("1".into()), ..copy };
    azure.begin_copy_disk(&copy).await.expect("accepted");
    let disk = async || azure.disk(&copy.id).await.expect("a look");
    stage.until("the copy", async || disk().await.filter(|it| it.provisioning == Provisioning::Succeeded)).await;
    golden!(stage, "begin_attach", azure.begin_attach(&id, &copy.id, 63));
    let attached = async || disk().await.filter(|it| it.attached_to.as_ref() == Some(&id));
    let there = stage.until("the attachment", attached).await;
    assert!(there.managed && there.state == DiskState::Attached, "{there:?}");
    let instance = azure.instance(&id).await.expect("a look").expect("the instance");
    assert_eq!(instance.luns, [63]);
    golden!(stage, "begin_detach", azure.begin_detach(&id, &copy.id));
    stage.until("the end of it", async || disk().await.filter(|it| it.attached_to.is_none() && !it.managed)).await;
}

/// What `capture: stop` and `rescue` send: to the instance and never to the scale set, with an orderly end for who is on it.
#[tokio::test]
async fn what_the_power_of_an_instance_sends() {
    let stage = Stage::new().await;
    let (azure, id) = (&stage.azure, stage.instance());
    let power = golden!(stage, "power", azure.power(&id)).expect("the machine");
    assert_eq!(Some(&power), stage.direct().power(&id).await.expect("a look").as_ref());
    assert_eq!(power.state, Power::Running);
    golden!(stage, "begin_restart", azure.begin_restart(&id));
    golden!(stage, "begin_power_off", azure.begin_power_off(&id));
    let turned = async |want: Power| {
        let seen = async || azure.power(&id).await.expect("a look").filter(|seen| seen.state == want);
        let seen = stage.until("the turn", seen).await;
        assert_eq!(seen.vm_id, power.vm_id);
    };
    turned(Power::Stopped).await;
    golden!(stage, "begin_start", azure.begin_start(&id));
    turned(Power::Running).await;
    let nobody = stage.named::<DiskId>("disks", "x").to_string().replace("/disks/x", "");
    let nobody =
        InstanceId::parse(&format!("{nobody}/virtualMachineScaleSets/pool1/virtualMachines/9")).expect("an id");
    assert_eq!(azure.power(&nobody).await.expect("a look"), None);
    assert_eq!(azure.begin_start(&nobody).await.expect_err("no such machine").class(), Class::Gone);
}

/// Rights to stop and start machines are asked about only where a pool has its donor stopped.
#[tokio::test]
async fn a_right_that_only_stopping_needs_is_missed_only_there() {
    let stage = Stage::new().await;
    let all = stage.face.granted();
    for missing in STOP_AZURE {
        let lacks = |it: &&Value| !it["actions"].to_string().eq_ignore_ascii_case(&json!([missing.action]).to_string());
        let rest: Vec<Value> = all.iter().filter(lacks).cloned().collect();
        assert_eq!(rest.len(), all.len() - 1, "{missing:?}");
        stage.face.grant(rest);
        for (stop, expected) in [(false, 0), (true, 1)] {
            let uses = Uses { stop, ..Uses::default() };
            let groups = Groups::from([(stage.scale_set().group(), uses)]);
            let (checks, _) = doctor::azure(&stage.azure, &groups, &Galleries::new()).await;
            // The world's clock is not ours, which is said as well.
            let wrong = |check: &&Check| check.state == State::Wrong && doctor::RIGHTS.contains(&check.name.as_str());
            let lacking: Vec<_> = checks.iter().filter(wrong).collect();
            assert_eq!(lacking.len(), expected, "{missing:?}, {uses:?}: {checks:#?}");
            assert!(lacking.iter().all(|check| check.seen.contains(missing.action)), "{lacking:#?}");
        }
    }
}

/// Over the wire, with its pages, cases, long names and fields of a later year, the same comes out as without it.
#[tokio::test]
async fn the_adapter_reads_what_the_world_holds() {
    let stage = Stage::new().await;
    let (azure, direct) = (&stage.azure, stage.direct());
    let set = azure.scale_set(&stage.scale_set()).await.expect("a look").expect("a scale set");
    let mut plain = direct.scale_set(&stage.scale_set()).await.expect("a look").expect("a scale set");
    assert_ne!(set.fingerprint, plain.fingerprint, "fields of a later year are watched too");
    plain.fingerprint = set.fingerprint.clone();
    assert_eq!(set, plain);
    let subscription = set.id.subscription();
    assert_eq!(azure.scale_sets(subscription).await.expect("a look").len(), 2);
    let id = stage.scale_set();
    let instances = azure.instances(&id, Orchestration::Uniform).await.expect("a look");
    assert_eq!(instances, direct.instances(&id, Orchestration::Uniform).await.expect("a look"));
    let id = stage.instance();
    assert_eq!(azure.instance(&id).await.expect("a look"), direct.instance(&id).await.expect("a look"));
    let id = stage.donor_disk();
    assert_eq!(azure.disk(&id).await.expect("a look"), direct.disk(&id).await.expect("a look"));
    let id = spec(&stage.scene).gallery;
    assert_eq!(azure.gallery(&id).await.expect("a look"), direct.gallery(&id).await.expect("a look"));
    let id = stage.definition();
    assert_eq!(azure.definition(&id).await.expect("a look"), direct.definition(&id).await.expect("a look"));
    let versions = azure.versions(&id).await.expect("a look");
    assert_eq!(versions, direct.versions(&id).await.expect("a look"));
    assert_eq!(versions.len(), 6, "three pages of two");
    let id = versions[5].id.clone();
    assert_eq!(azure.version(&id).await.expect("a look"), direct.version(&id).await.expect("a look"));
}

/// Machines of other kinds, and who is off, over several pages.
#[tokio::test]
async fn machines_and_their_power_are_read_as_the_world_holds_them() {
    let stage = Stage::new().await;
    let (azure, direct) = (&stage.azure, stage.direct());
    let old = stage.definition().version(&VersionName::parse("2026.08.01000").expect("a version"));
    {
        let mut world = stage.shared.world();
        for number in 0..5 {
            let id: DiskId = stage.named("disks", &format!("m{number}"));
            let id = ResourceId::parse(&id.to_string().replace("/disks/", "/virtualMachines/")).expect("an id");
            let image = if number == 3 { ImageRef::Version(old.clone()) } else { ImageRef::Other("Canonical".into()) };
            world.virtual_machines.push(Machine { id, image });
        }
        world.off.insert(stage.instance().key(), Power::Deallocated);
    }
    let subscription = stage.scale_set().subscription().to_owned();
    let machines = azure.machines(&subscription).await.expect("a look");
    assert_eq!(machines, direct.machines(&subscription).await.expect("a look"));
    assert_eq!(machines[3].image, ImageRef::Version(old));
    let id = stage.scale_set();
    let powers = azure.powers(&id, Orchestration::Uniform).await.expect("a look");
    assert_eq!(powers, direct.powers(&id, Orchestration::Uniform).await.expect("a look"));
    let off: Vec<&Powered> = powers.iter().filter(|powered| powered.power.is_off()).collect();
    assert!(off.len() == 1 && off[0].id == stage.instance(), "{powers:?}");
}

/// One tag comes and goes, and nothing else of the version moves: neither its other tags nor whether it is published.
#[tokio::test]
async fn one_tag_of_a_version_is_changed_and_nothing_else() {
    let stage = Stage::new().await;
    let azure = &stage.azure;
    let id = stage.definition().version(&VersionName::parse("2026.08.01000").expect("a version"));
    let settled = async |pinned: bool| {
        stage
            .until("the tag", async || {
                let found = azure.version(&id).await.expect("a look")?;
                let there = found.tags.contains_key(PINNED) == pinned;
                (found.provisioning == Provisioning::Succeeded && there).then_some(found)
            })
            .await
    };
    let before = settled(false).await;
    azure.begin_tag_version(&id, PINNED, Some("by ann: \"weekend\"")).await.expect("accepted");
    let mut after = settled(true).await;
    assert_eq!(after.tags.remove(PINNED).as_deref(), Some("by ann: \"weekend\""));
    assert_eq!(after, before);
    azure.begin_tag_version(&id, PINNED, None).await.expect("accepted");
    assert_eq!(settled(false).await, before);
    // Again, and of what is not there: nothing is sent that changes anything.
    let writes = || stage.face.requests().iter().filter(|it| it.effect != Effect::Read).count();
    let count = writes();
    azure.begin_tag_version(&id, PINNED, None).await.expect("no tag, no request");
    azure.begin_tag_version(&stage.version().id, PINNED, None).await.expect("no version, no request");
    assert_eq!(writes(), count);
    let error = azure.begin_tag_version(&stage.version().id, PINNED, Some("x")).await.expect_err("no such version");
    assert_eq!(error.class(), Class::Gone);
}

/// With everything else that is in the group, over several pages.
#[tokio::test]
async fn only_what_carries_a_runs_tag_is_left_over() {
    let stage = Stage::new().await;
    let group = stage.scale_set().group();
    assert_eq!(stage.azure.leftovers(&group).await.expect("a look"), Leftovers::default());
    stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted");
    let found = stage
        .until("the snapshot in the list", async || {
            let found = stage.azure.leftovers(&group).await.expect("a look");
            (!found.snapshots.is_empty()).then_some(found)
        })
        .await;
    assert_eq!(found, stage.direct().leftovers(&group).await.expect("a look"));
    assert_eq!((found.snapshots[0].run, found.snapshots[0].cluster.as_deref()), (Some(run()), Some("this-cluster")));
    assert!(found.snapshots[0].created.is_some() && found.disks.is_empty(), "{found:?}");
    // The donors' disks are seen, over more than one page, and are nobody's.
    let pages = stage.face.requests().iter().filter(|it| it.path.ends_with("/disks") && !it.query.is_empty()).count();
    assert!(pages > 0, "{:#?}", stage.face.requests());
}

#[tokio::test]
async fn what_is_granted_is_read_over_all_pages_and_the_clocks_are_compared() {
    let stage = Stage::new().await;
    assert_eq!(stage.azure.ahead(), None, "nothing was asked yet");
    let granted = stage.azure.granted_in(&stage.scale_set().group()).await.expect("an answer");
    assert!(in_azure().all(|right| Granted::any_allows(&granted, right.action)), "{granted:#?}");
    assert!(!Granted::any_allows(&granted, "Microsoft.Compute/virtualMachines/delete"));
    let nowhere = stage.named("galleries", "nowhere");
    assert_eq!(stage.azure.granted_on(&nowhere).await.expect_err("no such gallery").class(), Class::Gone);
    let before = stage.azure.ahead().expect("a date").as_secs();
    stage.face.set_clock_ahead(SignedDuration::from_secs(400));
    stage.azure.scale_set(&stage.scale_set()).await.expect("a look");
    let after = stage.azure.ahead().expect("a date").as_secs();
    // Dates are cut to seconds.
    assert!((398..=402).contains(&(after - before)), "{before} and {after}");
}

#[tokio::test]
async fn a_list_of_leftovers_does_not_leave_the_resource_managers_host() {
    let stage = Stage::new().await;
    // A list lags behind: at first it shows nothing, and so has one page.
    let group = stage.scale_set().group();
    stage
        .until("the disks in the list", async || {
            let listed = stage.direct().disks(&group).await.expect("a look");
            (listed.len() == 3).then_some(())
        })
        .await;
    let fault = Fault::ForeignHost("evil.example".into());
    stage.face.plant(Injection { method: "GET", path_part: "/disks".into(), times: 1, fault });
    let error = stage.azure.leftovers(&stage.scale_set().group()).await.expect_err("not ours");
    assert!(error.to_string().contains("evil.example"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_none_and_a_list_without_parent_is_gone() {
    let stage = Stage::new().await;
    assert_eq!(stage.azure.snapshot(&stage.snapshot().id).await.expect("a look"), None);
    assert_eq!(stage.azure.version(&stage.version().id).await.expect("a look"), None);
    let nowhere = stage.definition_spec("nowhere").id;
    let error = stage.azure.versions(&nowhere).await.expect_err("no parent");
    assert_eq!(error.class(), Class::Gone);
    let accepted = stage.azure.begin_delete_snapshot(&stage.snapshot().id).await.expect("gone already");
    assert_eq!(accepted.operation, None);
}

#[tokio::test]
async fn a_whole_image_goes_over_the_wire() {
    let stage = Stage::new().await;
    let azure = &stage.azure;
    let (snapshot, copy, version) = (stage.snapshot(), stage.copy(), stage.version());

    let operation = azure.begin_snapshot(&snapshot).await.expect("accepted").operation.expect("an operation");
    let told = azure.operation(&operation).await.expect("a look");
    let OperationState::Running(Some(pause)) = told else { panic!("{told:?}") };
    assert!(pause < Duration::from_secs(1), "milliseconds are read: {pause:?}");
    assert_eq!(stage.end_of(&operation).await, OperationState::Succeeded);
    let taken = azure.snapshot(&snapshot.id).await.expect("a look").expect("a snapshot");
    assert_eq!((taken.run, taken.source), (Some(run()), Some(snapshot.source)));

    azure.begin_copy_disk(&copy).await.expect("accepted");
    let disk = stage
        .until("the copy", async || {
            let found = azure.disk(&copy.id).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded).then_some(found)
        })
        .await;
    assert_eq!((disk.zone, disk.security_type, disk.run), (copy.zone, copy.security_type, Some(run())));

    azure.begin_version(&version).await.expect("accepted");
    let made = stage
        .until("the version", async || {
            let found = azure.version(&version.id).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded).then_some(found)
        })
        .await;
    assert!(made.excluded_from_latest, "nothing unproven is live");
    assert_eq!((made.run, made.regions), (Some(run()), version.regions));

    azure.begin_publish(&version.id, true).await.expect("accepted");
    stage
        .until("publication", async || {
            let found = azure.version(&version.id).await.expect("a look")?;
            (found.provisioning == Provisioning::Succeeded && !found.excluded_from_latest).then_some(())
        })
        .await;

    let before = azure.scale_set(&stage.scale_set()).await.expect("a look").expect("a scale set");
    azure.begin_model_change(&stage.model_change()).await.expect("accepted");
    let after = azure.scale_set(&stage.scale_set()).await.expect("a look").expect("a scale set");
    assert_eq!(after.provisioning, Provisioning::Running, "200, and updating");
    let changed = before.fingerprint.diff(&after.fingerprint);
    assert!(changed.iter().all(|part| stage.model_change().allows(part)), "{changed:?}");
    let log = stage.face.requests();
    assert!(log.iter().all(|it| it.effect != Effect::Refused), "{log:#?}");
    assert!(stage.shared.world().early.is_empty());
}

#[tokio::test]
async fn the_request_log_is_also_a_file() {
    let stage = Stage::new().await;
    stage.azure.begin_snapshot(&stage.snapshot()).await.expect("accepted");
    let file = std::fs::read_to_string(stage.dir.path().join("requests.jsonl")).expect("a log");
    let lines: Vec<Logged> = file.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(lines, stage.face.requests());
    assert_eq!((lines[0].seq, lines[0].effect), (1, Effect::Accepted));
    assert!(!file.contains("first-federated-token"));
}

#[tokio::test]
async fn the_face_runs_as_a_process_would_until_it_is_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = Scene::nominal().world();
    let clock = Arc::new(world.clock.clone());
    let options = ArmOptions::new(&dir.path().join("ca.pem"));
    let served = tokio::time::timeout(Duration::from_millis(200), run_face(Shared::new(world), clock, options)).await;
    assert!(served.is_err(), "it goes on");
    assert!(std::fs::read_to_string(dir.path().join("ca.pem")).expect("a certificate").contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn the_face_listens_on_loopback_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let world = Scene::nominal().world();
    let clock = Arc::new(world.clock.clone());
    let options =
        ArmOptions { listen: "0.0.0.0:0".parse().expect("an address"), ..ArmOptions::new(&dir.path().join("ca")) };
    let refused = ArmFace::serve(Shared::new(world), clock, &options).await;
    assert!(refused.err().is_some_and(|error| error.to_string().contains("loopback")));
}
