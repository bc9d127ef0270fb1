//! `/metrics`, in the text format of `OpenMetrics`.
//!
//! No label is a run, a node or a pod: those grow without end. A scale set is one of a handful.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64},
    },
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::{
    cloud::{Meter, Remaining},
    model::RunId,
    workflow::{Engine, Event, Outcome, PlannedStep, Run, Summary, needless},
};

/// What this answer is, for scrapers.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A step takes seconds to hours.
const STEP_SECONDS: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0];
/// A run takes an hour, and throttled ones a day.
const RUN_SECONDS: [f64; 8] = [600.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 172_800.0];
/// All states of a run, so that each is there from the start and an alert can tell none from unknown.
const STATES: [&str; 12] = [
    "running",
    "waiting",
    "undoing",
    "parked",
    "paused",
    "needs-approval",
    "done",
    "not-needed",
    "undone",
    "cancelled",
    "abandoned",
    "needs-person",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfScaleSet {
    scale_set: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    step: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStep {
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// What is counted while the daemon runs, and looked up when somebody asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    runs: Family<InState, Gauge>,
    ended: Family<Ended, Counter>,
    run_seconds: Histogram,
    attempts: Family<Attempt, Counter>,
    step_seconds: Family<OfStep, Histogram>,
    last_progress: Gauge<f64, AtomicU64>,
    image_age: Family<OfScaleSet, Gauge<f64, AtomicU64>>,
    leader: Gauge<i64, AtomicI64>,
    scheduled: Mutex<Vec<String>>,
    /// When the step that each open run is at began.
    began: Mutex<BTreeMap<RunId, Timestamp>>,
}

impl Metrics {
    /// Metrics of a daemon of this release.
    #[must_use]
    pub fn new(release: &str) -> Self {
        let mut registry = Registry::with_prefix("kamino");
        registry.register("build", "The release", Info::new([("version", release.to_owned())]));
        let runs = Family::<InState, Gauge>::default();
        registry.register("runs", "Runs in the store, by state", runs.clone());
        let ended = Family::<Ended, Counter>::default();
        registry.register("runs_ended", "Runs that came to an end in this process, by how", ended.clone());
        let run_seconds = Histogram::new(RUN_SECONDS);
        registry.register_with_unit("run_duration", "From start to end", Unit::Seconds, run_seconds.clone());
        let attempts = Family::<Attempt, Counter>::default();
        registry.register("step_attempts", "Requests of steps, by what came of them", attempts.clone());
        let step_seconds = Family::<OfStep, Histogram>::new_with_constructor(|| Histogram::new(STEP_SECONDS));
        registry.register_with_unit(
            "step_duration",
            "From a step's decision to its end",
            Unit::Seconds,
            step_seconds.clone(),
        );
        let last_progress = Gauge::default();
        registry.register_with_unit(
            "run_last_progress_timestamp",
            "When the open run that has not moved for longest last moved; 0 if none is open",
            Unit::Seconds,
            last_progress.clone(),
        );
        let image_age = Family::default();
        registry.register_with_unit(
            "image_age",
            "Since the newest image was made, by scale set",
            Unit::Seconds,
            image_age.clone(),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 if this process may change the world, 0 for a standby", leader.clone());
        Self {
            registry,
            runs,
            ended,
            run_seconds,
            attempts,
            step_seconds,
            last_progress,
            image_age,
            leader,
            scheduled: Mutex::default(),
            began: Mutex::default(),
        }
    }

    /// Also shows requests to Azure.
    pub fn count_requests(&mut self, meter: Arc<Meter>) {
        self.registry.register_collector(Box::new(AzureRequests(Arc::clone(&meter))));
        self.registry.register_collector(Box::new(AzureRations(meter)));
    }

    /// A scale set whose image should never be old: shown from the start, as infinitely old until one was made.
    pub fn expect_image_of(&self, scale_set: &str) {
        self.scheduled.lock().unwrap_or_else(PoisonError::into_inner).push(scale_set.to_owned());
    }

    /// Counts what has become durable. `run` is as the event left it.
    pub fn observe(&self, run: &Run, event: &Event) {
        let current = || run.step_name().unwrap_or_default().to_owned();
        let attempt = |step: String, outcome| {
            self.attempts.get_or_create(&Attempt { step, outcome }).inc();
        };
        match event {
            Event::Asked { .. } => attempt(current(), "accepted"),
            Event::NotAsked { .. } => attempt(current(), "refused"),
            Event::SetBack { .. } => attempt(current(), "failed"),
            Event::Confirmed { at, .. } => {
                // The event has moved the run on to the next step.
                let ended = run.position().and_then(|position| run.plan.get(position.step().checked_sub(1)?));
                if let Some(PlannedStep { name, .. }) = ended {
                    attempt(name.clone(), "confirmed");
                    if let Some(began) = self.step_began(run.id, *at) {
                        let of = OfStep { step: name.clone() };
                        self.step_seconds.get_or_create(&of).observe(at.duration_since(began).as_secs_f64());
                    }
                }
            }
            Event::Ended { at, outcome } => {
                let outcome = match outcome {
                    Outcome::Done => "done",
                    Outcome::Undone { why } if needless(why) => "not-needed",
                    Outcome::Undone { .. } => "undone",
                    Outcome::Cancelled => "cancelled",
                    Outcome::Abandoned { .. } => "abandoned",
                    Outcome::NeedsPerson { .. } => "needs-person",
                };
                self.ended.get_or_create(&Ended { outcome }).inc();
                self.run_seconds.observe(at.duration_since(run.started).as_secs_f64());
                self.began.lock().unwrap_or_else(PoisonError::into_inner).remove(&run.id);
            }
            Event::Started { at, .. } => {
                self.step_began(run.id, *at);
            }
            Event::Decided { .. }
            | Event::Asking { .. }
            | Event::Cleared { .. }
            | Event::Waiting { .. }
            | Event::Skipped { .. }
            | Event::Undoing { .. }
            | Event::StepUndone { .. }
            | Event::Owed { .. }
            | Event::Paying { .. }
            | Event::Paid { .. }
            | Event::PersonAsked { .. }
            | Event::Parked { .. }
            | Event::Resumed { .. }
            | Event::CancelRequested { .. }
            | Event::AbandonRequested { .. }
            | Event::PauseRequested { .. }
            | Event::Paused { .. }
            | Event::ApprovalAsked { .. }
            | Event::Approved { .. }
            | Event::Rejected { .. } => {}
        }
    }

    /// When the step that ends now began, if this process saw it begin; the next one begins now.
    fn step_began(&self, run: RunId, now: Timestamp) -> Option<Timestamp> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner).insert(run, now)
    }

    pub(super) async fn answer(&self, engine: Option<&Arc<Engine>>) -> Response {
        if let Some(engine) = engine {
            let Ok(summaries) = engine.summaries().await else {
                return (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response();
            };
            self.look_at(&summaries, engine);
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double for some time yet")]
    fn look_at(&self, summaries: &[Summary], engine: &Engine) {
        for state in STATES {
            let count = summaries.iter().filter(|summary| summary.state == state).count();
            self.runs.get_or_create(&InState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let open = summaries.iter().filter(|summary| summary.open()).map(|summary| summary.moved).min();
        self.last_progress.set(open.map_or(0.0, |moved| moved.as_second() as f64));
        let now = engine.clock().now();
        for scale_set in self.scheduled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = OfScaleSet { scale_set: scale_set.clone() };
            self.image_age.get_or_create(&labels).set(f64::INFINITY);
        }
        for summary in summaries.iter().filter(|summary| summary.state == "done") {
            let age = now.duration_since(summary.moved).as_secs_f64();
            let labels = OfScaleSet { scale_set: summary.scale_set.name().to_owned() };
            // Oldest first: the newest has the last word.
            self.image_age.get_or_create(&labels).set(age);
        }
        self.leader.set(i64::from(engine.authority().leads() != Some(false)));
    }
}

/// Requests are counted where they are sent.
#[derive(Debug)]
struct AzureRequests(Arc<Meter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    call: String,
    status: u32,
}

/// What Azure said last of each ration.
#[derive(Debug)]
struct AzureRations(Arc<Meter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ration {
    subscription: String,
    policy: String,
}

impl Collector for AzureRations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let remaining = self.0.remaining();
        let help = "Requests that are left of each of Azure's rations, as its newest answer says";
        let gauge = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor("azure_ratelimit_remaining", help, None, gauge.metric_type())?;
        for (Remaining { subscription, policy }, left) in remaining {
            let labels = Ration { subscription, policy };
            ConstGauge::new(i64::try_from(left).unwrap_or(i64::MAX)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for AzureRequests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let requests = self.0.requests();
        let help = "Requests to Azure, by what they were about and the status of the answer; 0 is no answer";
        let counter = ConstCounter::new(0u64);
        let mut family = encoder.encode_descriptor("azure_requests", help, None, counter.metric_type())?;
        for ((call, status), count) in requests {
            let labels = Request { call, status: u32::from(status) };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
