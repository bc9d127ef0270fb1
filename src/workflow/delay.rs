//! How long to wait between two looks: the only place that uses `backoff`, as a pure calculator.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};

use crate::model::RunId;

/// How often the world is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Before the first look after a request.
    pub first: Duration,
    /// The longest pause between two looks: Azure's compute reads are rationed per subscription, and others live there
    /// too [Microsoft's "Compute throttling limits"].
    pub longest: Duration,
    /// Caps [`super::step::Effect::SETTLES`].
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), longest: Duration::from_mins(1), settle: Duration::from_mins(1) }
    }
}

impl Pace {
    /// The pause before look number `looks` (from 0) in a row at the same thing, with a fifth of jitter that depends on
    /// run and look only.
    #[must_use]
    pub fn pause(&self, run: RunId, looks: u32) -> Duration {
        // Both set, and no elapsed-time limit: with its defaults the crate starts at 500 ms and gives up after 15 minutes.
        let mut delays = ExponentialBackoff {
            initial_interval: self.first,
            current_interval: self.first,
            multiplier: 1.5,
            randomization_factor: 0.0,
            max_interval: self.longest,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let steps = looks.min(20);
        let pause = (0..=steps).filter_map(|_| delays.next_backoff()).last().unwrap_or(self.longest);
        let (seed, _) = run.0.as_u64_pair();
        let jitter = fastrand::Rng::with_seed(seed ^ u64::from(looks)).f64() * 0.2;
        pause.mul_f64(1.0 - jitter)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_end() {
        let run = RunId(Uuid::from_u128(7));
        let pace = Pace::default();
        let pauses: Vec<Duration> = (0..40).map(|looks| pace.pause(run, looks)).collect();
        assert!(pauses[0] >= Duration::from_secs(4) && pauses[0] <= Duration::from_secs(5), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= pace.longest), "{pauses:?}");
        assert!(pauses[39] >= pace.longest.mul_f64(0.8), "{pauses:?}");
        assert_eq!(pauses[3], pace.pause(run, 3), "the same run and look give the same pause");
    }
}
