//! Windows in which a scheduled run may begin: days of the week and times of a wall clock. Pure.

use jiff::{Timestamp, ToSpan, civil::Time, civil::Weekday, tz::TimeZone};

/// One window a day on some days: from a time to another, over midnight if the second comes first. Equal times are a whole day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens.
    pub days: Vec<Weekday>,
    /// When it opens.
    pub from: Time,
    /// When it closes: not inside any more.
    pub to: Time,
    /// Whose clock.
    pub zone: TimeZone,
}

/// A window opens at least once a week, so that much is looked ahead.
const LOOK_AHEAD_DAYS: i64 = 8;

impl Window {
    /// Whether it is open.
    #[must_use]
    pub fn open_at(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(self.zone.clone());
        let time = local.time();
        let on = |weekday: Weekday| self.days.contains(&weekday);
        if self.from < self.to {
            return on(local.weekday()) && self.from <= time && time < self.to;
        }
        on(local.weekday()) && self.from <= time || on(local.weekday().previous()) && time < self.to
    }

    /// When it opens next, if it is closed.
    fn opens_after(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        (0..LOOK_AHEAD_DAYS)
            .filter_map(|days| today.checked_add(days.days()).ok())
            .filter(|date| self.days.contains(&date.weekday()))
            // A time that a change of the clocks leaves out is the next one that there is.
            .filter_map(|date| date.to_datetime(self.from).to_zoned(self.zone.clone()).ok())
            .map(|opening| opening.timestamp())
            .find(|opening| *opening > now)
    }
}

/// `None`: one of them is open, or there are none and it is always open. Otherwise when the first one opens.
#[must_use]
pub fn closed_until(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    if windows.is_empty() || windows.iter().any(|window| window.open_at(now)) {
        return None;
    }
    Some(windows.iter().filter_map(|window| window.opens_after(now)).min().unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use jiff::civil::time;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn nights(zone: &str) -> Window {
        Window {
            days: vec![Weekday::Monday, Weekday::Friday],
            from: time(22, 0, 0, 0),
            to: time(5, 0, 0, 0),
            zone: TimeZone::get(zone).expect("a zone"),
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let window = nights("UTC");
        // 2026-11-23 is a Monday.
        for (now, open) in [
            ("2026-11-23T21:59:59Z", false),
            ("2026-11-23T22:00:00Z", true),
            ("2026-11-24T04:59:59Z", true),
            ("2026-11-24T05:00:00Z", false),
            ("2026-11-24T22:30:00Z", false),
            ("2026-11-27T23:00:00Z", true),
            ("2026-11-28T03:00:00Z", true),
        ] {
            assert_eq!(window.open_at(at(now)), open, "{now}");
        }
    }

    #[test]
    fn the_wall_clock_of_the_zone_counts() {
        // Berlin is an hour ahead in winter and two in summer.
        let window = nights("Europe/Berlin");
        assert!(window.open_at(at("2026-11-23T21:00:00Z")));
        assert!(!window.open_at(at("2026-11-23T20:59:00Z")));
        assert!(window.open_at(at("2026-07-06T20:00:00Z")));
    }

    #[test]
    fn closed_says_when_it_opens() {
        let windows = [nights("UTC")];
        assert_eq!(closed_until(&windows, at("2026-11-24T12:00:00Z")), Some(at("2026-11-27T22:00:00Z")));
        assert_eq!(closed_until(&windows, at("2026-11-28T12:00:00Z")), Some(at("2026-11-30T22:00:00Z")));
        assert_eq!(closed_until(&windows, at("2026-11-27T22:00:00Z")), None);
        assert_eq!(closed_until(&[], at("2026-11-24T12:00:00Z")), None);
    }

    #[test]
    fn equal_times_are_the_whole_day() {
        let day = Window { to: time(22, 0, 0, 0), ..nights("UTC") };
        assert!(day.open_at(at("2026-11-24T21:59:00Z")) && !day.open_at(at("2026-11-24T22:00:00Z")));
        assert!(day.open_at(at("2026-11-23T22:00:00Z")));
    }
}
