//! How long finished runs stay in the store, as it stands in the settings.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;

use super::{ConfigError, bad};
use crate::policy::history::History;

/// How long finished runs are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct HistoryFile {
    keep_runs: Option<usize>,
    keep_for: Option<String>,
}

/// Five years: longer than anybody keeps records of such things.
const LONGEST: Duration = Duration::from_hours(5 * 366 * 24);

pub(super) fn checked(file: HistoryFile) -> Result<History, ConfigError> {
    let HistoryFile { keep_runs, keep_for } = file;
    let default = History::default();
    let keep_runs = keep_runs.unwrap_or(default.keep_runs);
    if !(1..=10_000).contains(&keep_runs) {
        return Err(bad("history.keepRuns", keep_runs, "expected 1 to 10000: the newest of each scale set stay"));
    }
    let keep_for = match keep_for {
        None => default.keep_for,
        Some(text) => {
            let span = text.parse::<Span>().ok();
            let span = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
            let span = span.and_then(|span| Duration::try_from(span).ok()).filter(|span| *span <= LONGEST);
            span.ok_or_else(|| bad("history.keepFor", &text, "expected a duration up to 1830 days, as in 90d or 52w"))?
        }
    };
    Ok(History { keep_runs, keep_for })
}
