//! Whether this process may change the world now: only while it holds the Lease, and with enough time left.
//!
//! The Lease is kept up by `leadership.rs`; the engine asks here before each intent, and stores the epoch with it. What
//! only reads needs no authority. A process without a Lease (a laptop's, a test's) always has it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::store::Fence;

/// What must be left of the Lease when a request goes out, so that it is answered before another may hold the Lease. One
/// request to Azure or to the API server takes a second, seldom more than five.
const MARGIN: Duration = Duration::from_secs(10);

/// Who may change the world, as far as this process knows.
#[derive(Debug)]
pub struct Authority {
    state: Mutex<State>,
    epoch: watch::Sender<Option<Fence>>,
    heard: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No Lease is used.
    Unlimited(Fence),
    /// Another holds the Lease, or nobody knows yet. Records are written under the newest epoch that the store has seen.
    Standby(Fence),
    /// We hold it.
    Held(Fence, Instant),
}

impl Authority {
    /// For a process that uses no Lease. `seen` is the store's newest epoch.
    #[must_use]
    pub fn unlimited(seen: Fence) -> Self {
        Self {
            state: Mutex::new(State::Unlimited(seen)),
            epoch: watch::Sender::new(Some(seen)),
            heard: Mutex::default(),
        }
    }

    /// For a process that has to take the Lease first. `seen` is the store's newest epoch.
    #[must_use]
    pub fn standby(seen: Fence) -> Self {
        Self { state: Mutex::new(State::Standby(seen)), epoch: watch::Sender::new(None), heard: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// We hold the Lease until then.
    pub(super) fn grant(&self, epoch: Fence, until: Instant) {
        *self.state() = State::Held(epoch, until);
        self.epoch.send_if_modified(|known| known.replace(epoch) != Some(epoch));
    }

    /// We don't hold it any more.
    pub(super) fn withdraw(&self) {
        let mut state = self.state();
        if let State::Held(epoch, _) = *state {
            *state = State::Standby(epoch);
        }
        drop(state);
        self.epoch.send_if_modified(|known| known.take().is_some());
    }

    /// The API server has answered.
    pub(super) fn note_answer(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the API server last answered about the Lease; `None` if it never did, or no Lease is used.
    #[must_use]
    pub fn last_answer(&self) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(|heard| heard.elapsed())
    }

    /// Under which epoch records are written.
    #[must_use]
    pub fn epoch(&self) -> Fence {
        match *self.state() {
            State::Unlimited(epoch) | State::Standby(epoch) | State::Held(epoch, _) => epoch,
        }
    }

    /// Whether something may be asked for now.
    #[must_use]
    pub fn may_change(&self) -> bool {
        match *self.state() {
            State::Unlimited(_) => true,
            State::Standby(_) => false,
            State::Held(_, until) => Instant::now() + MARGIN <= until,
        }
    }

    /// Whether we hold the Lease, however little is left of it. `None` when none is used.
    #[must_use]
    pub fn leads(&self) -> Option<bool> {
        match *self.state() {
            State::Unlimited(_) => None,
            State::Standby(_) => Some(false),
            State::Held(_, until) => Some(Instant::now() < until),
        }
    }

    /// Returns when this process has authority for the first time.
    pub async fn held(&self) {
        // The sender lives as long as we do.
        let _ = self.epoch.subscribe().wait_for(Option::is_some).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_must_be_enough_for_one_request() {
        let authority = Authority::standby(Fence(4));
        assert!(!authority.may_change());
        assert_eq!((authority.epoch(), authority.leads()), (Fence(4), Some(false)));
        authority.grant(Fence(5), Instant::now() + Duration::from_secs(30));
        assert!(authority.may_change());
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(!authority.may_change(), "nine seconds are too few");
        assert_eq!(authority.leads(), Some(true));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(authority.leads(), Some(false));
        authority.withdraw();
        assert_eq!(
            authority.epoch(),
            Fence(5),
            "what has to be recorded yet is recorded under the epoch it was asked in"
        );
    }

    #[test]
    fn without_a_lease_there_is_nothing_to_wait_for() {
        let authority = Authority::unlimited(Fence(7));
        assert!(authority.may_change());
        authority.withdraw();
        assert!(authority.may_change());
        assert_eq!((authority.epoch(), authority.leads()), (Fence(7), None));
    }
}
