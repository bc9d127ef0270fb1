//! How fast to go on when a ration runs low: before it is spent, since a 429 costs minutes and hits everybody who shares it.
//!
//! Azure's replies say how much of each policy is left. A bucket holds three minutes' worth of its refill [Microsoft's "Compute
//! throttling limits"], so the most that was ever left tells how fast it fills, and whoever then sends one request a refill keeps
//! it from falling further. What others send counts too: it is in the next reply.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::Bucket;

/// A bucket is full after so long.
const FILLS: Duration = Duration::from_mins(3);
/// The smallest bucket that is documented, which is what is believed of one that is first seen nearly empty.
const SMALLEST: u64 = 12;
/// The longest pause that makes us slower instead of sending us away.
const PATIENCE: Duration = Duration::from_secs(30);
/// More policies and buckets than any subscription shows; a name that changes with each reply can't fill the memory.
const NAMES_MAX: usize = 500;

/// What a reply says of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The policy, as in `HighCostGetVMScaleSet3Min`.
    pub policy: String,
    /// How many requests of it are left.
    pub count: u64,
}

/// Between two requests when so much is left of what was `most` at some time; nothing while there is plenty.
fn pause(left: u64, most: u64) -> Duration {
    let most = most.max(left).max(SMALLEST);
    let low = left.saturating_mul(10) < most || left <= 2;
    let refill = FILLS / u32::try_from(most).unwrap_or(u32::MAX);
    if low { refill } else { Duration::ZERO }
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    next: Timestamp,
}

/// What replies have told so far. Kept in memory only: after a restart the first reply tells it again.
#[derive(Debug, Default)]
pub(super) struct Rations {
    /// By subscription, region and policy.
    most: BTreeMap<(String, Option<String>, String), u64>,
    paces: BTreeMap<Bucket, Pace>,
}

impl Rations {
    /// Notes what a reply to a request of `bucket` says.
    pub(super) fn learn(&mut self, bucket: &Bucket, left: &[Left], now: Timestamp) {
        let mut interval = Duration::ZERO;
        for Left { policy, count } in left {
            let key = (bucket.subscription.clone(), bucket.region.clone(), policy.clone());
            if self.most.len() >= NAMES_MAX && !self.most.contains_key(&key) {
                continue;
            }
            let most = self.most.entry(key).or_insert(*count);
            *most = (*most).max(*count);
            interval = interval.max(pause(*count, *most));
        }
        if left.is_empty() {
            return;
        }
        if interval.is_zero() {
            self.paces.remove(bucket);
        } else if self.paces.len() < NAMES_MAX || self.paces.contains_key(bucket) {
            let pace = self.paces.entry(bucket.clone()).or_insert(Pace { interval, next: after(now, interval) });
            pace.interval = interval;
        }
    }

    /// The place of one request in the queue: how long it waits. An error when that is too long to be waited for here.
    pub(super) fn reserve(&mut self, bucket: &Bucket, now: Timestamp) -> Result<Duration, Duration> {
        let Some(pace) = self.paces.get_mut(bucket) else { return Ok(Duration::ZERO) };
        let at = pace.next.max(now);
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
        if wait > PATIENCE {
            return Err(wait);
        }
        pace.next = after(at, pace.interval);
        Ok(wait)
    }
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::CallKind;

    fn bucket() -> Bucket {
        Bucket::new("s", CallKind::ScaleSetList)
    }

    fn left(count: u64) -> Vec<Left> {
        vec![Left { policy: "HighCostGetVMScaleSetResource".into(), count }]
    }

    #[test]
    fn the_pause_is_one_refill_and_comes_before_zero() {
        let millis = |left, most| pause(left, most).as_millis();
        assert_eq!((millis(12, 12), millis(3, 12)), (0, 0), "a small bucket is used almost to its end");
        assert_eq!((millis(2, 12), millis(0, 12)), (15_000, 15_000), "four a minute fill it");
        assert_eq!((millis(1500, 1500), millis(150, 1500), millis(149, 1500)), (0, 0, 120));
        assert_eq!(millis(1, 1), 15_000, "one that is first seen nearly empty");
    }

    #[test]
    fn requests_are_queued_and_go_on_when_there_is_plenty_again() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().expect("a time");
        let mut rations = Rations::default();
        assert_eq!(rations.reserve(&bucket(), now), Ok(Duration::ZERO));
        rations.learn(&bucket(), &left(12), now);
        assert_eq!(rations.reserve(&bucket(), now), Ok(Duration::ZERO));
        rations.learn(&bucket(), &left(2), now);
        // Three runs at once: one after the other, and the one that would wait too long is sent away and takes no place.
        assert_eq!(rations.reserve(&bucket(), now), Ok(Duration::from_secs(15)));
        assert_eq!(rations.reserve(&bucket(), now), Ok(Duration::from_secs(30)));
        assert_eq!(rations.reserve(&bucket(), now), Err(Duration::from_secs(45)));
        assert_eq!(rations.reserve(&bucket(), after(now, Duration::from_secs(40))), Ok(Duration::from_secs(5)));
        // A reply that says nothing of rations changes nothing.
        rations.learn(&bucket(), &[], now);
        assert!(rations.reserve(&bucket(), now).is_err());
        rations.learn(&bucket(), &left(9), now);
        assert_eq!(rations.reserve(&bucket(), now), Ok(Duration::ZERO));
    }

    #[test]
    fn names_that_change_with_each_reply_do_not_fill_the_memory() {
        let mut rations = Rations::default();
        for number in 0..2000 {
            let policy = format!("Policy{number}");
            rations.learn(&bucket(), &[Left { policy, count: 9 }], Timestamp::UNIX_EPOCH);
        }
        assert_eq!(rations.most.len(), NAMES_MAX);
    }
}
