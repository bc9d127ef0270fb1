//! Whether a new version is watched after it was published, as it stands in the settings.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, bad, duration};
use crate::policy::canary::{Canary, Limits};

/// `pools[].canary`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct CanaryFile {
    #[serde(default)]
    policy: Policy,
    within: Option<String>,
    ready_within: Option<String>,
    stays: Option<String>,
}

/// `pools[].canary.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    /// Nobody watches.
    #[default]
    None,
    /// The first node that is made from it decides.
    FirstNode,
}

/// A pool that makes no node in a week has none that tells anything; and its next run waits meanwhile.
const WITHIN_MAX: Duration = Duration::from_hours(7 * 24);
/// Longer is a fault, not a start.
const READY_MAX: Duration = Duration::from_hours(2);
/// Beyond that it is no matter of the image any more.
const STAYS_MAX: Duration = Duration::from_hours(1);

pub(super) fn checked(at: &dyn Fn(&str) -> String, file: CanaryFile) -> Result<Canary, ConfigError> {
    let CanaryFile { policy, within, ready_within, stays } = file;
    let said = [("canary.within", &within), ("canary.readyWithin", &ready_within), ("canary.stays", &stays)];
    if policy == Policy::None {
        if let Some((field, Some(text))) = said.into_iter().find(|(_, text)| text.is_some()) {
            return Err(bad(at(field), text, "it is for canary.policy: first-node, and nobody watches without it"));
        }
        return Ok(Canary::None);
    }
    let default = Limits::default();
    let [minute, none] = [Duration::from_mins(1), Duration::ZERO];
    let limited = |field, text: &Option<String>, default, least, most: Duration, words: &str| {
        let span = duration(&at(field), text.as_ref(), default, least)?;
        if span > most {
            return Err(bad(at(field), text, format!("expected at most {words}")));
        }
        Ok(span.as_secs())
    };
    Ok(Canary::FirstNode(Limits {
        within_seconds: limited("canary.within", &within, default.within(), 10 * minute, WITHIN_MAX, "7d")?,
        ready_within_seconds: limited(
            "canary.readyWithin",
            &ready_within,
            default.ready_within(),
            minute,
            READY_MAX,
            "2h",
        )?,
        stays_seconds: limited("canary.stays", &stays, default.stays(), none, STAYS_MAX, "1h")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Canary, String> {
        let file: CanaryFile = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        checked(&|field| format!("pools[0].{field}"), file).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_watches_unless_it_is_said() {
        assert_eq!(read("{}"), Ok(Canary::None));
        assert_eq!(read("policy: none"), Ok(Canary::None));
        assert_eq!(read("policy: first-node"), Ok(Canary::FirstNode(Limits::default())));
    }

    #[test]
    fn every_key_is_read() {
        let limits = Limits { within_seconds: 7200, ready_within_seconds: 900, stays_seconds: 60 };
        let text = "policy: first-node\nwithin: 2h\nreadyWithin: 15m\nstays: 60s\n";
        assert_eq!(read(text), Ok(Canary::FirstNode(limits)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words_that_name_it() {
        for (text, expected) in [
            ("policy: all", "all"),
            ("watch: first-node", "watch"),
            ("within: 2h", "pools[0].canary.within is \"2h\": it is for canary.policy: first-node"),
            ("{ policy: none, stays: 5m }", "pools[0].canary.stays is \"5m\""),
            ("{ policy: first-node, within: soon }", "pools[0].canary.within is \"soon\""),
            ("{ policy: first-node, within: 1m }", "pools[0].canary.within is \"1m\""),
            ("{ policy: first-node, within: 8d }", "expected at most 7d"),
            ("{ policy: first-node, readyWithin: 3h }", "expected at most 2h"),
            ("{ policy: first-node, stays: 2h }", "expected at most 1h"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}
