//! Counts requests to Azure, and what Azure says is left, for whoever shows metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::ration::Left;

/// Requests by what they were about and how they were answered. There are some twenty of the first, as in `PUT snapshot`, and
/// few of the second: a status, or 0 for no answer.
#[derive(Debug, Default)]
pub struct Meter {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    remaining: Mutex<BTreeMap<Remaining, u64>>,
}

/// A ration of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remaining {
    /// The subscription's id.
    pub subscription: String,
    /// The policy, as in `HighCostGetVMScaleSet3Min`.
    pub policy: String,
}

/// More rations than any subscription shows: a label must not grow without end, whatever a reply says.
const REMAINING_MAX: usize = 200;

impl Meter {
    /// One more.
    pub(super) fn count(&self, call: &str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((call.to_owned(), status)).or_default() += 1;
    }

    /// What the newest reply says of a subscription's rations.
    pub(super) fn left(&self, subscription: &str, left: &[Left]) {
        let mut remaining = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        for Left { policy, count } in left {
            let key = Remaining { subscription: subscription.to_owned(), policy: policy.clone() };
            if remaining.len() < REMAINING_MAX || remaining.contains_key(&key) {
                remaining.insert(key, *count);
            }
        }
    }

    /// What was left of each ration when it was last heard of, in order.
    #[must_use]
    pub fn remaining(&self) -> Vec<(Remaining, u64)> {
        let remaining = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
        remaining.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    /// All so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<((String, u16), u64)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }
}
