//! Waiting, with an end. The one place of the cleaner that sleeps and measures time: it is a process of its own that does one thing,
//! and no simulation runs it.

use std::time::{Duration, Instant};

/// Between two looks at something that is a matter of milliseconds.
const TURN: Duration = Duration::from_millis(10);

const LONG_TURN: Duration = Duration::from_secs(1);

/// How long something is waited for.
pub(super) struct Patience {
    began: Instant,
    at_most: Duration,
}

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "no simulation runs the cleaner, see above")]
    pub(super) fn for_at_most(at_most: Duration) -> Self {
        Self { began: Instant::now(), at_most }
    }

    /// As [`Patience::wait`], for something that takes seconds and is not cheap to look at.
    #[expect(clippy::disallowed_methods, reason = "no simulation runs the cleaner, see above")]
    pub(super) fn wait_long(&self) -> bool {
        std::thread::sleep(LONG_TURN);
        self.elapsed() < self.at_most
    }

    pub(super) fn at_most(&self) -> Duration {
        self.at_most
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits a moment and says true, or false when the time is up.
    #[expect(clippy::disallowed_methods, reason = "no simulation runs the cleaner, see above")]
    pub(super) fn wait(&self) -> bool {
        std::thread::sleep(TURN);
        self.elapsed() < self.at_most
    }
}
