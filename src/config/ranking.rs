//! Settings under `pools[].ranking`: how the donor is chosen.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, bad, duration};
use crate::policy::ranking::{Ignore, ImageAge, Rules, Signal, TimeFormat, defaults};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RankingFile {
    signal: Option<String>,
    annotation: Option<AnnotationFile>,
    min_candidates: Option<u32>,
    max_image_age: Option<String>,
    max_image_age_if_patched: Option<String>,
    bad_conditions: Option<Vec<String>>,
    #[serde(default)]
    ignore: IgnoreFile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AnnotationFile {
    key: String,
    format: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IgnoreFile {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    annotations: Vec<String>,
}

/// A scale set of Azure has no more instances.
const CANDIDATES_MAX: u32 = 1000;

/// Checks them; `at` is where they stand, as in `pools[0].ranking`.
pub(super) fn checked(at: &str, file: RankingFile) -> Result<Rules, ConfigError> {
    let RankingFile {
        signal,
        annotation,
        min_candidates,
        max_image_age,
        max_image_age_if_patched,
        bad_conditions,
        ignore: IgnoreFile { names, labels, annotations },
    } = file;
    let min_candidates = min_candidates.unwrap_or_else(defaults::min_candidates);
    if !(1..=CANDIDATES_MAX).contains(&min_candidates) {
        return Err(bad(format!("{at}.minCandidates"), min_candidates, format!("expected 1 to {CANDIDATES_MAX}")));
    }
    for (field, all) in [("names", &names), ("labels", &labels), ("annotations", &annotations)] {
        if let Some(empty) = all.iter().find(|text| text.is_empty() || text.starts_with('=')) {
            let expected = if field == "names" { "a name, as in pool1-vmss*" } else { "a key, or key=value" };
            return Err(bad(format!("{at}.ignore.{field}"), empty, format!("expected {expected}")));
        }
    }
    Ok(Rules {
        signal: checked_signal(at, signal.as_deref(), annotation)?,
        min_candidates,
        ignore: Ignore { names, labels, annotations },
        bad_conditions: bad_conditions.unwrap_or_else(defaults::bad_conditions),
        image_age: image_age(at, max_image_age.as_ref(), max_image_age_if_patched.as_ref())?,
        own_node: None,
    })
}

fn checked_signal(at: &str, name: Option<&str>, annotation: Option<AnnotationFile>) -> Result<Signal, ConfigError> {
    const NAMES: &str = "expected boot-id, kured, annotation, kernel or manual";
    match (name.unwrap_or("boot-id"), annotation) {
        ("annotation", Some(AnnotationFile { key, format })) => {
            if key.is_empty() {
                return Err(bad(format!("{at}.annotation.key"), key, "expected the annotation's whole name"));
            }
            let format = match format.as_deref() {
                None | Some("rfc3339") => TimeFormat::Rfc3339,
                Some("date") => TimeFormat::Date,
                Some("unix-seconds") => TimeFormat::UnixSeconds,
                Some(other) => {
                    let remedy = "expected rfc3339, date or unix-seconds";
                    return Err(bad(format!("{at}.annotation.format"), other, remedy));
                }
            };
            Ok(Signal::Annotation { key, format })
        }
        ("annotation", None) => Err(ConfigError::Bad {
            setting: format!("{at}.annotation"),
            value: "not set".into(),
            remedy: "say which, as in { key: patched.example/at, format: rfc3339 }".into(),
        }),
        (other, Some(AnnotationFile { key, .. })) => {
            let remedy = format!("only signal annotation reads one, and {at}.signal is {other}");
            Err(bad(format!("{at}.annotation.key"), key, remedy))
        }
        ("boot-id", None) => Ok(Signal::BootId),
        ("kured", None) => Ok(Signal::Kured),
        ("kernel", None) => Ok(Signal::Kernel),
        ("manual", None) => Ok(Signal::Manual),
        (other, None) => Err(bad(format!("{at}.signal"), other, NAMES)),
    }
}

fn image_age(at: &str, max: Option<&String>, if_patched: Option<&String>) -> Result<Option<ImageAge>, ConfigError> {
    if max.is_none() && if_patched.is_none() {
        return Ok(None);
    }
    let if_patched = duration(&format!("{at}.maxImageAgeIfPatched"), if_patched, Duration::ZERO, Duration::ZERO)?;
    let field = format!("{at}.maxImageAge");
    let span = duration(&field, max, if_patched, Duration::ZERO)?;
    if span < if_patched {
        return Err(bad(field, max, "expected at least maxImageAgeIfPatched: a newer patch makes an image old sooner"));
    }
    Ok(Some(ImageAge { max_seconds: span.as_secs(), max_seconds_if_patched: if_patched.as_secs() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Rules, ConfigError> {
        checked("pools[0].ranking", serde_saphyr::from_str(text).expect("fields that there are"))
    }

    #[test]
    fn nothing_said_is_sensible() {
        assert_eq!(of("{}").expect("good"), Rules::default());
    }

    #[test]
    fn everything_can_be_said() {
        let rules = of("
signal: annotation
annotation: { key: patched.example/at, format: date }
minCandidates: 3
maxImageAge: 30d
maxImageAgeIfPatched: 1d
badConditions: [GpuIsSad]
ignore: { names: ['*-canary*'], labels: [team=ml], annotations: [frozen] }
")
        .expect("good");
        assert_eq!(rules.signal, Signal::Annotation { key: "patched.example/at".into(), format: TimeFormat::Date });
        assert_eq!(rules.image_age, Some(ImageAge { max_seconds: 2_592_000, max_seconds_if_patched: 86_400 }));
        assert_eq!((rules.min_candidates, rules.bad_conditions), (3, vec!["GpuIsSad".to_owned()]));
        assert_eq!(rules.ignore.names, ["*-canary*"]);
        for (name, signal) in [("kured", Signal::Kured), ("kernel", Signal::Kernel), ("manual", Signal::Manual)] {
            assert_eq!(of(&format!("signal: {name}")).expect("good").signal, signal);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_value_and_the_remedy() {
        let rows = [
            ("signal: moon", "pools[0].ranking.signal is \"moon\": expected boot-id"),
            ("signal: annotation", "pools[0].ranking.annotation is not set"),
            ("{ signal: kured, annotation: { key: a } }", "only signal annotation reads one"),
            ("{ signal: annotation, annotation: { key: '' } }", "pools[0].ranking.annotation.key is \"\""),
            ("{ signal: annotation, annotation: { key: a, format: iso } }", "format is \"iso\": expected rfc3339"),
            ("minCandidates: 0", "minCandidates is 0: expected 1 to 1000"),
            ("maxImageAge: soon", "maxImageAge is \"soon\""),
            ("{ maxImageAge: 1d, maxImageAgeIfPatched: 2d }", "expected at least maxImageAgeIfPatched"),
            ("ignore: { names: [''] }", "ignore.names is \"\""),
            ("ignore: { labels: ['=x'] }", "ignore.labels is \"=x\""),
        ];
        for (text, expected) in rows {
            let error = of(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
