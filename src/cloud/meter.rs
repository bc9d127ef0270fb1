//! Counts requests to Azure, for whoever shows metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Requests by what they were about and how they were answered. There are some twenty of the first, as in `PUT snapshot`, and
/// few of the second: a status, or 0 for no answer.
#[derive(Debug, Default)]
pub struct Meter {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
}

impl Meter {
    /// One more.
    pub(super) fn count(&self, call: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((call.to_owned(), status)).or_default() += 1;
    }

    /// All so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<((String, u16), u64)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}
