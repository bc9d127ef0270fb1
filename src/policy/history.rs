//! Which finished runs the store still keeps. Pure.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::model::{RunId, ScaleSetId};

/// How long finished runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The newest of each scale set stay however old they are.
    pub keep_runs: usize,
    /// Younger ones stay however many they are.
    pub keep_for: Duration,
}

impl Default for History {
    /// A year of a weekly schedule; and whoever asks after an incident does it within a quarter.
    fn default() -> Self {
        Self { keep_runs: 50, keep_for: Duration::from_hours(90 * 24) }
    }
}

/// A run of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its id.
    pub id: RunId,
    /// Its scale set.
    pub scale_set: ScaleSetId,
    /// When it ended; none while it is open.
    pub ended: Option<Timestamp>,
}

/// The finished runs that may go, oldest first. One that is open never does.
#[must_use]
pub fn outdated(runs: &[Past], history: History, now: Timestamp) -> Vec<RunId> {
    let mut ended: Vec<(Timestamp, &Past)> = runs.iter().filter_map(|run| Some((run.ended?, run))).collect();
    ended.sort_by(|(a, one), (b, other)| (b, other.id).cmp(&(a, one.id)));
    let mut newer: BTreeMap<&ScaleSetId, usize> = BTreeMap::new();
    let mut gone = Vec::new();
    for (at, run) in ended {
        let newer = newer.entry(&run.scale_set).or_default();
        // A clock that was set back makes a run younger, not older.
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        if *newer >= history.keep_runs && age >= history.keep_for {
            gone.push(run.id);
        }
        *newer += 1;
    }
    gone.reverse();
    gone
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    fn past(number: u128, set: &str, days_ago: Option<i64>) -> Past {
        Past {
            id: RunId(uuid::Uuid::from_u128(number)),
            scale_set: ScaleSetId::new("00000000-1111-2222-3333-444444444444", "g", &[set]).expect("an id"),
            ended: days_ago.map(|days| now() - SignedDuration::from_hours(24 * days)),
        }
    }

    fn gone(runs: &[Past], keep_runs: usize, days: u64) -> Vec<u128> {
        let history = History { keep_runs, keep_for: Duration::from_hours(24 * days) };
        outdated(runs, history, now()).into_iter().map(|run| run.0.as_u128()).collect()
    }

    #[test]
    fn what_is_both_old_and_not_among_the_newest_goes() {
        let runs = [
            past(1, "a", Some(400)),
            past(2, "a", Some(300)),
            past(3, "b", Some(500)),
            past(4, "a", Some(200)),
            past(5, "a", Some(2)),
            past(6, "a", None),
            past(7, "a", Some(-5)),
        ];
        assert_eq!(gone(&runs, 2, 90), [1, 2, 4], "the newest of each scale set stay, and b's only one");
        assert_eq!(gone(&runs, 2, 250), [1, 2]);
        assert_eq!(gone(&runs, 4, 90), [1]);
        assert_eq!(gone(&runs, 0, 0), [3, 1, 2, 4, 5, 7], "an open one never goes");
        assert!(gone(&runs, 10, 0).is_empty());
        assert!(gone(&[], 0, 0).is_empty());
    }
}
