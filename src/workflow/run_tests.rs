//! What may follow on what.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    model::{Capture, DonorChoice, GalleryId, Profile, ScaleSetId},
    workflow::{LIVE, plan},
};

const SUB: &str = "00000000-1111-2222-3333-444444444444";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).expect("a time")
}

fn started() -> Event {
    let spec = RunSpec {
        scale_set: ScaleSetId::new(SUB, "g", &["pool1"]).expect("an id"),
        donor: DonorChoice::Pool,
        capture: Capture::Live,
        profile: Profile::Kubeadm,
        gallery: GalleryId::new(SUB, "g", &["protos"]).expect("an id"),
        definition: "pool1".into(),
        regions: vec![],
        replicas: 1,
        replicas_in: std::collections::BTreeMap::new(),
        storage: "Standard_LRS".into(),
        incremental: false,
        scale_out: 0,
        adopt: false,
        approve: vec![],
        ranking: crate::policy::ranking::Rules::default(),
        min_ready_seconds: 0,
        keep_versions: 3,
        keep_seconds: 0,
        clean_namespace: "kamino-wf-clean".into(),
        clean_image: "kamino-wf".into(),
        credential: crate::model::Credential::Keep,
        attach: crate::model::Attach::Csi,
        unavailable_max: 0,
        cluster: "c".into(),
        drain: crate::policy::drain::DrainPolicy::default(),
        canary: crate::policy::canary::Canary::None,
    };
    Event::Started { at: at(0), spec: Box::new(spec), plan: plan(LIVE), release: "0.1.0".into(), by: "me".into() }
}

fn run(events: Vec<Event>) -> Run {
    Run::fold(RunId(uuid::Uuid::nil()), [vec![started()], events].concat()).expect("legal events")
}

fn phase(run: &Run) -> Phase {
    match run.position() {
        Some(Position::Forward { phase, .. }) => phase.clone(),
        other => panic!("not on its way forward: {other:?}"),
    }
}

#[test]
fn an_intent_comes_before_an_answer_and_a_look_before_the_next_step() {
    let decided = Event::Decided { at: at(1), input: json!(1) };
    let asking = Event::Asking { at: at(2), attempt: 1, epoch: 0 };
    let asked = Event::Asked { at: at(3), accepted: Accepted::default() };
    let mut run = run(vec![decided, asking, asked]);
    assert!(matches!(phase(&run), Phase::Asked { attempt: 1, .. }));
    run.apply(Event::Confirmed { at: at(4), output: json!(2) }).expect("legal");
    assert_eq!(run.position().map(Position::step), Some(1));
    assert_eq!(run.inputs["Preflight"], json!(1));
    assert_eq!(run.outputs["Preflight"], json!(2));
}

#[test]
fn an_answer_without_an_intent_is_illegal_and_the_error_says_both() {
    let mut run = run(vec![]);
    let error = run.apply(Event::Asked { at: at(1), accepted: Accepted::default() }).expect_err("illegal").to_string();
    assert!(error.contains("asked") && error.contains("fresh"), "{error}");
    let error =
        run.apply(Event::Asking { at: at(1), attempt: 2, epoch: 0 }).expect_err("an attempt was left out").to_string();
    assert!(error.contains("asking"), "{error}");
}

#[test]
fn throttled_time_does_not_count_against_a_step_and_other_waits_do() {
    let since = |run: &Run| match run.position() {
        Some(Position::Forward { since, .. }) => *since,
        other => panic!("not on its way forward: {other:?}"),
    };
    let waiting = |throttled| Event::Waiting { at: at(10), why: "w".into(), until: at(1210), throttled };
    assert_eq!(since(&run(vec![waiting(true)])), at(1200));
    assert_eq!(since(&run(vec![waiting(false)])), at(0));
}

#[test]
fn parked_runs_move_only_for_a_person() {
    let mut run = run(vec![Event::Parked { at: at(1), why: "no right".into() }]);
    assert!(run.apply(Event::Confirmed { at: at(2), output: json!(1) }).is_err());
    let mut cancelled = run.clone();
    run.apply(Event::Resumed { at: at(3), by: "me".into() }).expect("a person may");
    assert!(matches!(run.state, RunState::Running { .. }));
    cancelled.apply(Event::CancelRequested { at: at(3), by: "me".into() }).expect("a person may");
    assert!(cancelled.cancel.is_some() && matches!(cancelled.state, RunState::Running { .. }));
}

#[test]
fn going_back_remembers_the_last_request_until_its_step_is_undone() {
    let decided = || Event::Decided { at: at(1), input: json!(1) };
    let confirmed = Event::Confirmed { at: at(1), output: json!(1) };
    let asking = Event::Asking { at: at(2), attempt: 1, epoch: 0 };
    let undoing = Event::Undoing { at: at(3), why: "w".into(), cancelled: false };
    let mut run = run(vec![decided(), confirmed, decided(), asking, undoing]);
    assert!(matches!(run.position(), Some(Position::Back { step: 1, last_ask: Some(ask), .. }) if *ask == at(2)));
    run.apply(Event::StepUndone { at: at(4) }).expect("legal");
    assert!(matches!(run.position(), Some(Position::Back { step: 0, last_ask: None, .. })));
    assert!(run.apply(Event::StepUndone { at: at(5) }).is_err(), "there is nothing before the first step");
    run.apply(Event::Ended { at: at(5), outcome: Outcome::Undone { why: "w".into() } }).expect("legal");
    assert!(run.ended() && run.apply(Event::Resumed { at: at(6), by: "me".into() }).is_err());
}

#[test]
fn what_is_owed_is_paid_before_anything_is_undone() {
    let owed = Event::Owed { at: at(1), duties: Duty::ALL.to_vec() };
    let asking = Event::Asking { at: at(2), attempt: 1, epoch: 0 };
    let undoing = Event::Undoing { at: at(3), why: "w".into(), cancelled: false };
    let mut run = run(vec![owed, Event::Decided { at: at(1), input: json!(1) }, asking, undoing]);
    let ended = Event::Ended { at: at(3), outcome: Outcome::Undone { why: "w".into() } };
    for resting in [Event::Parked { at: at(3), why: "w".into() }, ended.clone(), Event::StepUndone { at: at(3) }] {
        assert!(run.apply(resting).is_err(), "something is owed");
    }
    let (first, rest) = (vec![Duty::VmRunning], Duty::ALL[1..].to_vec());
    for (step, duties) in [(9, first), (10, rest)] {
        run.apply(Event::Paying { at: at(4), step, input: json!(1) }).expect("legal");
        assert_eq!(run.position().map(Position::step), Some(step));
        run.apply(Event::Asking { at: at(5), attempt: 1, epoch: 0 }).expect("legal");
        run.apply(Event::PersonAsked { at: at(6), why: "denied".into() }).expect("legal");
        run.apply(Event::Paid { at: at(7), duties }).expect("legal");
    }
    assert_eq!(run.debt, None);
    assert!(matches!(run.position(), Some(Position::Back { step: 0, last_ask: Some(ask), .. }) if *ask == at(2)));
    run.apply(ended).expect("legal");
}

#[test]
fn a_pause_is_kept_until_it_comes_to_be_and_only_a_person_ends_it() {
    let by = || "me".to_owned();
    let mut run = run(vec![Event::PauseRequested { at: at(1), by: by() }]);
    assert!(matches!(run.state, RunState::Running { .. }) && run.pause.is_some(), "it goes on to the next stage");
    let mut resumed = run.clone();
    resumed.apply(Event::Resumed { at: at(2), by: by() }).expect("it is taken back");
    assert!(resumed.pause.is_none() && resumed.apply(Event::Paused { at: at(3) }).is_err(), "nobody asked for it");
    run.apply(Event::Paused { at: at(2) }).expect("legal");
    assert!(run.stands() && run.pause.is_none());
    assert!(run.apply(Event::Decided { at: at(3), input: json!(1) }).is_err(), "it stands");
    let mut cancelled = run.clone();
    run.apply(Event::Resumed { at: at(4), by: by() }).expect("a person may");
    assert!(!run.stands());
    cancelled.apply(Event::CancelRequested { at: at(4), by: by() }).expect("a person may");
    assert!(cancelled.cancel.is_some() && !cancelled.stands());
}

#[test]
fn an_approval_is_for_what_was_asked_and_is_remembered_with_who_and_when() {
    let asked = Event::ApprovalAsked { at: at(1), gate: Gate::Switch, why: "w".into(), until: at(9) };
    let answer = |gate| Event::Approved { at: at(2), gate, by: "me".into() };
    let mut run = run(vec![]);
    assert!(run.apply(answer(Gate::Switch)).is_err(), "nobody asked");
    run.apply(asked).expect("legal");
    assert!(run.stands());
    for other in [answer(Gate::Tidy), Event::Resumed { at: at(2), by: "me".into() }, Event::Cleared { at: at(2) }] {
        assert!(run.apply(other).is_err(), "it is no answer");
    }
    let mut rejected = run.clone();
    run.apply(answer(Gate::Switch)).expect("legal");
    assert_eq!(run.approvals, [Approval { step: 0, gate: Gate::Switch, by: "me".into(), at: at(2) }]);
    assert!(!run.stands() && run.cancel.is_none());
    rejected.apply(Event::Rejected { at: at(2), gate: Gate::Switch, by: "me".into() }).expect("legal");
    assert!(rejected.cancel.is_some() && rejected.approvals.is_empty());
}

#[test]
fn nobody_rests_for_a_person_while_a_node_is_out_of_service_and_abandoning_pays_first() {
    let owed = Event::Owed { at: at(1), duties: Duty::ALL.to_vec() };
    let mut run = run(vec![owed, Event::PauseRequested { at: at(1), by: "me".into() }]);
    let asked = Event::ApprovalAsked { at: at(2), gate: Gate::Switch, why: "w".into(), until: at(9) };
    for resting in [Event::Paused { at: at(2) }, asked] {
        assert!(run.apply(resting).is_err(), "something is owed");
    }
    let abandoned = Event::Ended { at: at(4), outcome: Outcome::Abandoned { left: vec![] } };
    run.apply(Event::AbandonRequested { at: at(2), by: "me".into() }).expect("a person may");
    assert!(run.apply(abandoned.clone()).is_err(), "something is owed");
    run.apply(Event::Undoing { at: at(3), why: "w".into(), cancelled: true }).expect("legal");
    assert!(run.apply(abandoned.clone()).is_err(), "something is owed");
    run.apply(Event::Paid { at: at(3), duties: Duty::ALL.to_vec() }).expect("legal");
    run.apply(abandoned.clone()).expect("legal");
    let mut other = self::run(vec![]);
    assert!(other.apply(abandoned).is_err(), "nobody said so");
}

fn any_event() -> impl Strategy<Value = Event> {
    let at = at(9);
    let text = || "x".to_owned();
    prop_oneof![
        Just(Event::Decided { at, input: json!(1) }),
        (1_u32..4).prop_map(move |attempt| Event::Asking { at, attempt, epoch: 0 }),
        Just(Event::Asked { at, accepted: Accepted::default() }),
        Just(Event::NotAsked { at, why: text() }),
        Just(Event::SetBack { at, why: text() }),
        Just(Event::Cleared { at }),
        Just(Event::Confirmed { at, output: json!(1) }),
        any::<bool>().prop_map(move |throttled| Event::Waiting { at, why: "x".into(), until: at, throttled }),
        Just(Event::Skipped { at, why: text() }),
        any::<bool>().prop_map(move |cancelled| Event::Undoing { at, why: "x".into(), cancelled }),
        Just(Event::StepUndone { at }),
        proptest::collection::vec(proptest::sample::select(&Duty::ALL[..]), 0..3)
            .prop_map(move |duties| Event::Paid { at, duties }),
        Just(Event::Owed { at, duties: Duty::ALL.to_vec() }),
        (0_usize..20).prop_map(move |step| Event::Paying { at, step, input: json!(1) }),
        Just(Event::PersonAsked { at, why: text() }),
        Just(Event::Parked { at, why: text() }),
        Just(Event::Resumed { at, by: text() }),
        Just(Event::CancelRequested { at, by: text() }),
        Just(Event::AbandonRequested { at, by: text() }),
        Just(Event::PauseRequested { at, by: text() }),
        Just(Event::Paused { at }),
        Just(Event::ApprovalAsked { at, gate: Gate::Switch, why: text(), until: at }),
        proptest::sample::select(vec![Gate::Switch, Gate::Tidy]).prop_map(move |gate| Event::Approved {
            at,
            gate,
            by: "x".into()
        }),
        Just(Event::Rejected { at, gate: Gate::Switch, by: text() }),
        Just(Event::Ended { at, outcome: Outcome::Abandoned { left: vec![text()] } }),
        Just(Event::Ended { at, outcome: Outcome::Done }),
        Just(Event::Ended { at, outcome: Outcome::Cancelled }),
        Just(Event::Ended { at, outcome: Outcome::Undone { why: text() } }),
    ]
}

proptest! {
    /// Whatever comes: an illegal event changes nothing, and what was stored folds to the same run again.
    #[test]
    fn any_sequence_folds_to_the_same_run(events in proptest::collection::vec(any_event(), 0..60)) {
        let mut run = run(vec![]);
        let mut legal = vec![started()];
        for event in events {
            let before = run.clone();
            if run.apply(event.clone()).is_ok() {
                legal.push(event);
            } else {
                prop_assert_eq!(&before, &run);
            }
            let rests = run.ended() || run.stands();
            prop_assert!(run.debt.is_none() || !rests, "a run that owes a node came to rest");
            prop_assert!(!before.ended() || run.ended(), "an ended run began again");
        }
        let stored: Vec<Event> = legal
            .iter()
            .map(|event| serde_json::from_value(serde_json::to_value(event).expect("json")).expect("event"))
            .collect();
        prop_assert_eq!(&stored, &legal);
        prop_assert_eq!(Run::fold(run.id, stored).expect("legal"), run);
    }
}
