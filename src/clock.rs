//! Wall time and new ids. Elapsed time is tokio's; everything else asks here, so that a simulation can answer.

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::RunId;

/// The clock port.
pub trait Clock: Send + Sync {
    /// The wall time. May jump; never used to measure how long something took.
    fn now(&self) -> Timestamp;
    /// A new run id whose time part is `now`.
    fn new_run(&self) -> RunId;
    /// A new random id: a store's, a nonce.
    fn new_id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that makes run ids")]
    fn new_run(&self) -> RunId {
        RunId(Uuid::now_v7())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that makes random ids")]
    fn new_id(&self) -> Uuid {
        Uuid::new_v4()
    }
}
