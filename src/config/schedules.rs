//! Schedules and windows, as they stand in the settings.

use std::time::Duration;

use jiff::{
    civil::{Time, Weekday},
    tz::TimeZone,
};
use serde::Deserialize;

use super::{ConfigError, bad, duration};
use crate::policy::{schedule::Schedule, window::Window};

/// When runs of a pool begin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ScheduleFile {
    cron: String,
    time_zone: Option<String>,
    jitter: Option<String>,
    start_within: Option<String>,
}

/// When they may begin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct WindowFile {
    days: Vec<String>,
    from: String,
    to: String,
    time_zone: Option<String>,
}

/// A time that is missed by more than this is left out, unless the settings say otherwise: a run at noon that was meant for
/// the night is a surprise.
const START_WITHIN: Duration = Duration::from_hours(6);

/// Days as cron has them.
const DAYS: [(&str, Weekday); 7] = [
    ("MON", Weekday::Monday),
    ("TUE", Weekday::Tuesday),
    ("WED", Weekday::Wednesday),
    ("THU", Weekday::Thursday),
    ("FRI", Weekday::Friday),
    ("SAT", Weekday::Saturday),
    ("SUN", Weekday::Sunday),
];

pub(super) fn checked(
    at: &dyn Fn(&str) -> String,
    schedule: Option<ScheduleFile>,
    windows: Vec<WindowFile>,
) -> Result<Option<Schedule>, ConfigError> {
    let windows = windows
        .into_iter()
        .enumerate()
        .map(|(index, file)| window(&|field| at(&format!("windows[{index}].{field}")), file))
        .collect::<Result<Vec<Window>, ConfigError>>()?;
    let Some(ScheduleFile { cron, time_zone, jitter, start_within }) = schedule else {
        if windows.is_empty() {
            return Ok(None);
        }
        let remedy = "windows are for scheduled runs; add a schedule, or leave them out";
        return Err(bad(at("windows"), windows.len(), remedy));
    };
    let zone = zone(&at("schedule.timeZone"), time_zone.as_deref())?;
    let jitter = duration(&at("schedule.jitter"), jitter.as_ref(), Duration::ZERO, Duration::ZERO)?;
    let least = Duration::from_mins(1);
    let within = duration(&at("schedule.startWithin"), start_within.as_ref(), START_WITHIN.max(jitter), least)?;
    if within < jitter {
        let remedy = "expected at least schedule.jitter, or a run would be missed before it may begin";
        return Err(bad(at("schedule.startWithin"), start_within, remedy));
    }
    let mut parsed = Schedule::parse(&cron, zone, jitter, within).map_err(|error| {
        let remedy = format!("expected minute, hour, day, month and weekday, as in \"0 3 * * TUE\" ({error})");
        bad(at("schedule.cron"), &cron, remedy)
    })?;
    parsed.windows = windows;
    Ok(Some(parsed))
}

fn window(at: &dyn Fn(&str) -> String, file: WindowFile) -> Result<Window, ConfigError> {
    let WindowFile { days, from, to, time_zone } = file;
    let day = |name: &String| {
        let known = DAYS.iter().find(|(short, _)| short.eq_ignore_ascii_case(name));
        known.map(|(_, day)| *day).ok_or_else(|| bad(at("days"), name, "expected MON, TUE, WED, THU, FRI, SAT or SUN"))
    };
    let days = days.iter().map(day).collect::<Result<Vec<Weekday>, ConfigError>>()?;
    if days.is_empty() {
        return Err(bad(at("days"), "[]", "expected at least one day; a window on no day never opens"));
    }
    let time = |field: &str, text: &str| {
        let parsed = Time::strptime("%H:%M", text);
        parsed.map_err(|_| bad(at(field), text, "expected a time from 00:00 to 23:59, as in \"22:00\" (in quotes)"))
    };
    Ok(Window {
        days,
        from: time("from", &from)?,
        to: time("to", &to)?,
        zone: zone(&at("timeZone"), time_zone.as_deref())?,
    })
}

fn zone(setting: &str, name: Option<&str>) -> Result<TimeZone, ConfigError> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name)
        .map_err(|_| bad(setting, name, "expected a name of the IANA time zone database, as in Europe/Berlin or UTC"))
}
