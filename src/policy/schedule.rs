//! When a pool's next run is due: cron with a time zone, jitter, windows, and a missed time caught up for once. Pure.

use std::time::Duration;

use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::{Timestamp, tz::TimeZone};

use super::window::{Window, closed_until};

/// When runs of a pool begin.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    /// Whose clock the expression speaks of.
    pub zone: TimeZone,
    /// Runs of many pools with the same expression begin spread over this time.
    pub jitter: Duration,
    /// For how long after its time a run may still begin: after that it was missed.
    pub start_within: Duration,
    /// Only inside of one of them; always if there are none.
    pub windows: Vec<Window>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time.
    NotBefore(Timestamp),
    /// The run of this time, now. Times before it that were missed are not made up for.
    Now(Timestamp),
    /// The run of this time could not begin in time.
    Missed(Timestamp),
}

impl Schedule {
    /// Five fields, as crontab(5) has them, or a nickname such as `@daily`.
    ///
    /// # Errors
    /// What is wrong with the expression, in words.
    pub fn parse(cron: &str, zone: TimeZone, jitter: Duration, start_within: Duration) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| error.to_string())?;
        Ok(Self { cron, zone, jitter, start_within, windows: Vec::new() })
    }

    /// The expression.
    #[must_use]
    pub fn expression(&self) -> String {
        self.cron.as_str().to_owned()
    }

    /// What is due now, when the newest time that has been dealt with is `done`. `seed` spreads pools.
    #[must_use]
    pub fn due(&self, done: Timestamp, now: Timestamp, seed: u64) -> Due {
        let Some(newest) = self.newest(done, now) else {
            let next = self.next(done.max(now)).map_or(Timestamp::MAX, |next| self.spread(next, seed));
            return Due::NotBefore(next);
        };
        let begin = self.spread(newest, seed);
        let end = newest.checked_add(self.start_within.max(self.jitter)).unwrap_or(Timestamp::MAX);
        if begin > now {
            return Due::NotBefore(begin);
        }
        if now > end {
            return Due::Missed(newest);
        }
        match closed_until(&self.windows, now) {
            None => Due::Now(newest),
            // It is said when it is certain: then, and not before.
            Some(opening) => Due::NotBefore(opening.min(end.saturating_add(A_MOMENT).unwrap_or(end))),
        }
    }

    /// The newest time up to now that was not dealt with.
    fn newest(&self, done: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let local = now.to_zoned(self.zone.clone());
        let newest = self.cron.find_previous_occurrence(&local, true).ok()?.timestamp();
        (newest > done).then_some(newest)
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let local = after.to_zoned(self.zone.clone());
        Some(self.cron.find_next_occurrence(&local, false).ok()?.timestamp())
    }

    /// The same for a pool each time, so that the pauses between its runs are those that were asked for.
    fn spread(&self, time: Timestamp, seed: u64) -> Timestamp {
        let span = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        let shift = seed.checked_rem(span).map_or(Duration::ZERO, Duration::from_millis);
        time.checked_add(shift).unwrap_or(Timestamp::MAX)
    }
}

/// The smallest step of a wall clock that people read.
const A_MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use jiff::civil::{Weekday, time};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    const HOUR: Duration = Duration::from_hours(1);

    fn weekly() -> Schedule {
        let zone = TimeZone::get("Europe/Berlin").expect("a zone");
        Schedule::parse("0 3 * * TUE", zone, Duration::ZERO, 6 * HOUR).expect("an expression")
    }

    #[test]
    fn a_time_is_due_once() {
        let schedule = weekly();
        let (done, tuesday) = (at("2026-11-20T00:00:00Z"), at("2026-11-24T02:00:00Z"));
        assert_eq!(schedule.due(done, at("2026-11-24T01:59:59Z"), 0), Due::NotBefore(tuesday));
        assert_eq!(schedule.due(done, tuesday, 0), Due::Now(tuesday));
        assert_eq!(schedule.due(tuesday, tuesday, 0), Due::NotBefore(at("2026-12-01T02:00:00Z")));
    }

    #[test]
    fn missed_times_are_caught_up_for_once_and_not_for_ever() {
        let schedule = weekly();
        let done = at("2026-10-01T00:00:00Z");
        assert_eq!(schedule.due(done, at("2026-11-24T07:59:00Z"), 0), Due::Now(at("2026-11-24T02:00:00Z")));
        assert_eq!(schedule.due(done, at("2026-11-24T08:00:01Z"), 0), Due::Missed(at("2026-11-24T02:00:00Z")));
    }

    #[test]
    fn a_pool_has_its_own_moment_within_the_jitter() {
        let schedule = Schedule { jitter: HOUR, ..weekly() };
        let due = at("2026-11-24T02:00:00Z");
        let begin = at("2026-11-24T02:10:00Z");
        assert_eq!(schedule.due(at("2026-11-20T00:00:00Z"), due, 600_000), Due::NotBefore(begin));
        assert_eq!(schedule.due(at("2026-11-20T00:00:00Z"), begin, 600_000), Due::Now(due));
        assert_eq!(schedule.due(due, begin, 600_000), Due::NotBefore(at("2026-12-01T02:10:00Z")));
    }

    #[test]
    fn a_closed_window_is_waited_for_as_long_as_the_time_counts() {
        let late =
            Window { days: vec![Weekday::Tuesday], from: time(5, 0, 0, 0), to: time(6, 0, 0, 0), zone: TimeZone::UTC };
        let schedule = Schedule { windows: vec![late.clone()], ..weekly() };
        let (done, due) = (at("2026-11-20T00:00:00Z"), at("2026-11-24T02:00:00Z"));
        assert_eq!(schedule.due(done, due, 0), Due::NotBefore(at("2026-11-24T05:00:00Z")));
        assert_eq!(schedule.due(done, at("2026-11-24T05:00:00Z"), 0), Due::Now(due));
        // Closed again: nothing before it was missed for good.
        let end = at("2026-11-24T08:00:00Z");
        assert_eq!(schedule.due(done, at("2026-11-24T06:00:00Z"), 0), Due::NotBefore(end + A_MOMENT));
        assert_eq!(schedule.due(done, end + A_MOMENT, 0), Due::Missed(due));
    }

    #[test]
    fn a_time_that_the_clocks_leave_out_is_not_left_out() {
        // In Berlin there is no half past two on 2026-03-29; the clocks go from two to three, at 01:00 UTC.
        let zone = TimeZone::get("Europe/Berlin").expect("a zone");
        let schedule = Schedule::parse("30 2 * * *", zone, Duration::ZERO, 6 * HOUR).expect("an expression");
        let (done, now) = (at("2026-03-28T12:00:00Z"), at("2026-03-29T06:00:00Z"));
        assert!(matches!(schedule.due(done, now, 0), Due::Now(due) if due >= at("2026-03-29T01:00:00Z")), "skipped");
        // And half past two comes twice on 2026-10-25, but is due once.
        let (first, later) = (at("2026-10-25T00:30:00Z"), at("2026-10-25T02:00:00Z"));
        let done = match schedule.due(at("2026-10-24T12:00:00Z"), first, 0) {
            Due::Now(due) => due,
            other @ (Due::NotBefore(_) | Due::Missed(_)) => panic!("{other:?}"),
        };
        assert_eq!(schedule.due(done, later, 0), Due::NotBefore(at("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn what_is_no_expression_is_said() {
        for bad in ["", "daily", "0 25 * * *", "0 0 3 * * TUE", "* * * *"] {
            let parsed = Schedule::parse(bad, TimeZone::UTC, Duration::ZERO, HOUR);
            assert!(parsed.is_err(), "{bad:?}: {parsed:?}");
        }
    }
}
