//! What may be done to a donor's pods, as it stands in the settings.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::{ConfigError, bad, duration};
use crate::policy::drain::{DrainPolicy, Force};

/// `pools[].drain`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DrainFile {
    deadline: Option<String>,
    delete_empty_dir: Option<bool>,
    max_parallel: Option<u32>,
    skip_terminating_after: Option<String>,
    force: Option<ForceFile>,
}

/// `pools[].drain.force`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ForceFile {
    by: String,
    why: String,
    until: String,
}

/// A node that is away for longer is a fault, not an update.
const DEADLINE_MAX: Duration = Duration::from_hours(1);

/// Of pods on their way at a time. More than a node has.
const PARALLEL_MAX: u32 = 250;

pub(super) fn checked(at: &dyn Fn(&str) -> String, file: DrainFile) -> Result<DrainPolicy, ConfigError> {
    let DrainFile { deadline, delete_empty_dir, max_parallel, skip_terminating_after, force } = file;
    let default = DrainPolicy::default();
    let least = Duration::from_mins(1);
    let within = duration(&at("drain.deadline"), deadline.as_ref(), default.deadline(), least)?;
    if within > DEADLINE_MAX {
        return Err(bad(
            at("drain.deadline"),
            deadline.unwrap_or_default(),
            "expected at most 1h: the node is out of service meanwhile",
        ));
    }
    let max_parallel = max_parallel.unwrap_or(default.max_parallel);
    if !(1..=PARALLEL_MAX).contains(&max_parallel) {
        return Err(bad(at("drain.maxParallel"), max_parallel, format!("expected 1 to {PARALLEL_MAX}")));
    }
    let skip = skip_terminating_after
        .as_ref()
        .map(|text| duration(&at("drain.skipTerminatingAfter"), Some(text), Duration::ZERO, Duration::from_secs(1)));
    Ok(DrainPolicy {
        deadline_seconds: within.as_secs(),
        delete_empty_dir: delete_empty_dir.unwrap_or(default.delete_empty_dir),
        max_parallel,
        skip_terminating_after_seconds: skip.transpose()?.map(|skip| skip.as_secs()),
        force: force.map(|force| granted(at, force)).transpose()?,
    })
}

/// A decision has a name, a reason and an end.
fn granted(at: &dyn Fn(&str) -> String, file: ForceFile) -> Result<Force, ConfigError> {
    let ForceFile { by, why, until } = file;
    for (field, text) in [("drain.force.by", &by), ("drain.force.why", &why)] {
        if text.trim().is_empty() {
            let remedy = "expected who decided it, and why: pods that nobody makes again are lost by it";
            return Err(bad(at(field), text, remedy));
        }
    }
    let ends: Timestamp = until.parse().map_err(|_| {
        bad(at("drain.force.until"), &until, "expected the time at which it ends, as in 2026-12-01T00:00:00Z")
    })?;
    Ok(Force { by, why, until: ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DrainPolicy, String> {
        let file: DrainFile = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        checked(&|field| format!("pools[0].{field}"), file).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_safe() {
        let policy = read("{}").expect("good settings");
        assert_eq!(policy, DrainPolicy::default());
        assert!(!policy.delete_empty_dir && policy.force.is_none() && policy.skip_terminating_after_seconds.is_none());
    }

    #[test]
    fn every_key_is_read() {
        let text = "deadline: 20m\ndeleteEmptyDir: true\nmaxParallel: 2\nskipTerminatingAfter: 90s\n\
                    force: { by: jane, why: the pool is for tests, until: 2026-12-01T00:00:00Z }\n";
        let policy = read(text).expect("good settings");
        let force = Force {
            by: "jane".into(),
            why: "the pool is for tests".into(),
            until: "2026-12-01T00:00:00Z".parse().expect("a time"),
        };
        let expected = DrainPolicy {
            deadline_seconds: 1200,
            delete_empty_dir: true,
            max_parallel: 2,
            skip_terminating_after_seconds: Some(90),
            force: Some(force),
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words_that_name_it() {
        for (text, expected) in [
            ("deadline: soon", "pools[0].drain.deadline is \"soon\""),
            ("deadline: 2h", "pools[0].drain.deadline is \"2h\""),
            ("deadline: 5s", "pools[0].drain.deadline is \"5s\""),
            ("maxParallel: 0", "pools[0].drain.maxParallel is 0: expected 1 to 250"),
            ("skipTerminatingAfter: 0s", "pools[0].drain.skipTerminatingAfter is \"0s\""),
            ("force: true", "force"),
            ("force: { by: jane }", "why"),
            ("force: { by: ' ', why: w, until: 2026-12-01T00:00:00Z }", "pools[0].drain.force.by is \" \""),
            ("force: { by: jane, why: '', until: 2026-12-01T00:00:00Z }", "pools[0].drain.force.why is \"\""),
            ("force: { by: jane, why: w, until: tomorrow }", "pools[0].drain.force.until is \"tomorrow\""),
            ("gentle: true", "gentle"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}
