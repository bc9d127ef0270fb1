//! `/livez`, `/readyz`, `/startupz`: is it worth a restart, does it do its work, has it come up?
//!
//! Alive is a process whose event loop turns and whose store answers: what a restart can mend. Ready is one that also hears
//! from the API server, be it the holder of the Lease or a standby. Nothing is asked of Azure here: it being away is no
//! fault of ours, and runs say so themselves.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::time::timeout;

use super::metrics::Metrics;
use crate::{store::Journal, workflow::Engine};

/// The store answers in microseconds; a commit that is under way takes as long as the disk does.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The Lease is looked at every few seconds.
const CLUSTER_ANSWERS_WITHIN: Duration = Duration::from_mins(1);

/// What probes look at; filled in as the daemon comes up.
#[derive(Debug, Default)]
pub struct Vitals {
    journal: OnceLock<Journal>,
    engine: OnceLock<Arc<Engine>>,
    recovered: AtomicBool,
}

impl Vitals {
    /// The store is open.
    pub fn store_is_open(&self, journal: Journal) {
        let _ = self.journal.set(journal);
    }

    /// Stored runs are read, and what to do about each is decided.
    pub fn recovered(&self, engine: Arc<Engine>) {
        let _ = self.engine.set(engine);
        self.recovered.store(true, Ordering::Release);
    }

    async fn store(&self) -> Check {
        let Some(journal) = self.journal.get() else { return Check::bad("store", "not open yet") };
        match timeout(STORE_ANSWERS_WITHIN, journal.seen_fence()).await {
            Ok(Ok(_)) => Check::good("store"),
            Ok(Err(error)) => Check::bad("store", &error.to_string()),
            Err(_) => Check::bad("store", &format!("no answer within {} s", STORE_ANSWERS_WITHIN.as_secs())),
        }
    }

    fn recovery(&self) -> Check {
        if self.recovered.load(Ordering::Acquire) {
            Check::good("recovery")
        } else {
            Check::bad("recovery", "stored runs are not read yet")
        }
    }

    fn cluster(&self) -> Check {
        let Some(engine) = self.engine.get() else { return Check::bad("kubernetes", "not asked yet") };
        match (engine.authority().leads(), engine.authority().last_answer()) {
            (None, _) => Check::good("kubernetes"),
            (Some(_), Some(ago)) if ago < CLUSTER_ANSWERS_WITHIN => Check::good("kubernetes"),
            (Some(_), Some(ago)) => Check::bad(
                "kubernetes",
                &format!("the API server last answered about the Lease {} s ago", ago.as_secs()),
            ),
            (Some(_), None) => Check::bad("kubernetes", "the API server has not answered about the Lease yet"),
        }
    }
}

/// One line of an answer, as the API server's own probes have them.
struct Check {
    good: bool,
    line: String,
}

impl Check {
    fn good(name: &str) -> Self {
        Self { good: true, line: format!("[+]{name} ok") }
    }

    fn bad(name: &str, why: &str) -> Self {
        Self { good: false, line: format!("[-]{name} failed: {why}") }
    }
}

fn answer(checks: &[Check]) -> impl IntoResponse + use<> {
    let good = checks.iter().all(|check| check.good);
    let lines: Vec<&str> = checks.iter().map(|check| check.line.as_str()).collect();
    (if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines.join("\n") + "\n")
}

/// Probes and metrics.
pub fn probes(vitals: Arc<Vitals>, metrics: Arc<Metrics>) -> Router {
    let metrics = get(async move |State(vitals): State<Arc<Vitals>>| metrics.answer(vitals.engine.get()).await);
    let live = async |State(vitals): State<Arc<Vitals>>| match vitals.journal.get() {
        // Opening a large store takes its time; the startup probe has the patience for that.
        None => answer(&[]),
        Some(_) => answer(&[vitals.store().await]),
    };
    Router::new()
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route(
            "/readyz",
            get(async |State(vitals): State<Arc<Vitals>>| {
                answer(&[vitals.recovery(), vitals.store().await, vitals.cluster()])
            }),
        )
        .route("/startupz", get(async |State(vitals): State<Arc<Vitals>>| answer(&[vitals.recovery()])))
        .route("/metrics", metrics)
        .with_state(vitals)
}
