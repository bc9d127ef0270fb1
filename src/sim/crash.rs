//! Crash points: before, in and after each call, and around each write to the disk. A crash freezes the world's ports; the
//! session sees it, drops the whole future and rebuilds all from what was synced.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Where to crash, and what was passed.
#[derive(Debug, Default)]
pub struct Crash {
    state: Mutex<State>,
    seen: Notify,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Points passed since the world began.
    passed: u64,
    /// Crash at these.
    at: Vec<u64>,
    /// Crash after each event of a run whose number is a multiple of this.
    every: Option<u64>,
    /// Events since the world began.
    events: u64,
    /// Crash as soon as the next request has taken effect: right after "asking", a crash before it would always come too
    /// early for the request ever to be sent.
    mid_request: bool,
    /// Tell when this many were passed.
    awaited: Option<u64>,
    crashed: bool,
    /// What was the last crash's point, in words.
    place: String,
    crashes: u64,
    /// Names of all points, in order, when asked for.
    trace: Option<Vec<String>>,
}

impl Crash {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Crash at point number `at`, from 1.
    pub fn arm(&self, at: u64) {
        self.state().at = vec![at];
    }

    /// Crash at two points, the second counted over both processes.
    pub fn arm_both(&self, first: u64, second: u64) {
        self.state().at = vec![first, second];
    }

    /// Crash after every `n`-th event of a run, as soon as it is recorded.
    pub fn arm_every(&self, n: u64) {
        self.state().every = Some(n);
    }

    /// Note the name of every point.
    pub fn trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    /// The names of the points passed.
    #[must_use]
    pub fn traced(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// How many points were passed.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.state().passed
    }

    /// How many crashes there were.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        self.state().crashes
    }

    /// Where the last crash was.
    #[must_use]
    pub fn place(&self) -> String {
        self.state().place.clone()
    }

    /// The process is dead, and another has not begun.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Another process begins.
    pub fn restart(&self) {
        self.state().crashed = false;
    }

    /// Passes a point; true when the process dies at it.
    #[must_use]
    pub fn hit(&self, place: &str) -> bool {
        let mut state = self.state();
        if state.crashed {
            return true;
        }
        state.passed += 1;
        let passed = state.passed;
        if let Some(trace) = &mut state.trace {
            trace.push(place.to_owned());
        }
        if state.awaited == Some(passed) {
            self.arrived.notify_one();
        }
        let takes_effect = state.mid_request
            && place.ends_with(": in")
            && ["begin_", "create_", "delete_", "evict"].iter().any(|verb| place.starts_with(verb));
        let due = state.at.contains(&passed) || takes_effect;
        if due {
            self.die(&mut state, place);
        }
        due
    }

    /// An event was recorded and acknowledged.
    pub fn event(&self, kind: &str) {
        let mut state = self.state();
        state.events += 1;
        let due = state.every.is_some_and(|every| state.events.is_multiple_of(every)) || state.mid_request;
        if due && kind == "asking" {
            state.mid_request = true;
        } else if due && !state.crashed {
            self.die(&mut state, &format!("recorded: {kind}"));
        }
    }

    fn die(&self, state: &mut State, place: &str) {
        state.crashed = true;
        state.mid_request = false;
        state.crashes += 1;
        place.clone_into(&mut state.place);
        self.seen.notify_one();
    }

    /// Passes a point in a call; never returns when the process dies at it.
    pub async fn point(&self, place: &str) {
        if self.hit(place) {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when this many points were passed.
    pub async fn reached(&self, point: u64) {
        loop {
            {
                let mut state = self.state();
                if state.passed >= point {
                    return;
                }
                state.awaited = Some(point);
            }
            self.arrived.notified().await;
        }
    }

    /// Returns when the process has died.
    pub async fn died(&self) {
        while !self.crashed() {
            self.seen.notified().await;
        }
    }
}
