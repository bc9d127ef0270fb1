//! Which versions a failed run has left behind: ours, never published, and nobody's by now. Pure.
//!
//! A run that fails takes its version away itself. One is left where that failed too, or where the run could not be undone.
//! What a finished run has published, and a person has taken back since, is another matter: that is retention's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    leftovers::{Fate, Patience},
    provenance::{PINNED, QUARANTINED, tag},
    retention::Uses,
};
use crate::{
    cloud::{Provisioning, Version},
    model::RunId,
};

/// How the run of a version is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// The run is open, has succeeded, or is none of this store: its version is not looked at here.
    NotOurs,
    /// The run has ended without success, at this time.
    Failed(Timestamp),
}

/// A version that a run has left behind.
#[must_use]
pub fn is_left(version: &Version, making: impl Fn(RunId) -> Making) -> Option<(RunId, Timestamp)> {
    // One whose checks have failed after it was published is retention's, with its age.
    let run = version.run.filter(|_| version.excluded_from_latest && tag(version, QUARANTINED).is_none())?;
    match making(run) {
        Making::NotOurs => None,
        Making::Failed(at) => Some((run, at)),
    }
}

/// What becomes of a version that was left behind, and why.
#[must_use]
pub fn judge(
    version: &Version,
    (run, ended): (RunId, Timestamp),
    cluster: &str,
    uses: &Uses,
    patience: Patience,
    now: Timestamp,
) -> (Fate, String) {
    let keep = |reason: String| (Fate::Keep, reason);
    if let Some(other) = tag(version, "kamino-wf-cluster").filter(|other| *other != cluster) {
        return keep(format!("run {run} is of another cluster, {other}"));
    }
    if let Some(why) = tag(version, PINNED) {
        return keep(format!("it is pinned ({why})"));
    }
    if let Some(user) = uses.used.get(&version.id) {
        return keep(format!("{user} uses it"));
    }
    if version.provisioning == Provisioning::Running {
        return keep("an operation on it is under way".into());
    }
    if !has_passed(patience.after_end, ended, now) {
        return keep(format!("run {run} ended only at {ended}"));
    }
    if let Some(unseen) = uses.unseen.first() {
        return keep(format!("whether it is in use is not known: {unseen}"));
    }
    (Fate::Delete, format!("run {run} ended at {ended} and left it, unpublished"))
}

fn has_passed(patience: Duration, since: Timestamp, now: Timestamp) -> bool {
    SignedDuration::try_from(patience).is_ok_and(|patience| now.duration_since(since) >= patience)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::retention::tests::version;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    fn left() -> Version {
        Version { excluded_from_latest: true, ..version("2026.11.24000") }
    }

    #[test]
    fn only_what_a_failed_run_has_made_and_not_published_is_left() {
        let ended = now() - SignedDuration::from_hours(2);
        let failed = |_| Making::Failed(ended);
        assert!(is_left(&left(), failed).is_some());
        assert!(is_left(&left(), |_| Making::NotOurs).is_none(), "open, done, or not of this store");
        assert!(is_left(&version("2026.11.24000"), failed).is_none(), "published");
        assert!(is_left(&Version { run: None, ..left() }, failed).is_none(), "a stranger's");
        let mut withdrawn = left();
        withdrawn.tags.insert(QUARANTINED.into(), "its first node was bad".into());
        assert!(is_left(&withdrawn, failed).is_none(), "retention's");
    }

    #[test]
    fn every_case_has_its_fate_and_its_reason() {
        type Change = fn(&mut Version, &mut Uses);
        let rows: [(Change, i64, Fate, &str); 8] = [
            (|_, _| {}, 2, Fate::Delete, "left it, unpublished"),
            (|_, _| {}, 0, Fate::Keep, "ended only at"),
            (|_, _| {}, -3, Fate::Keep, "ended only at"),
            (
                |it, _| drop(it.tags.insert("kamino-wf-cluster".into(), "there".into())),
                2,
                Fate::Keep,
                "of another cluster, there",
            ),
            (|it, _| drop(it.tags.insert(PINNED.into(), "ann".into())), 2, Fate::Keep, "pinned (ann)"),
            (|it, uses| uses.note(it.id.clone(), "instance pool1/0"), 2, Fate::Keep, "instance pool1/0 uses it"),
            (|it, _| it.provisioning = Provisioning::Running, 2, Fate::Keep, "under way"),
            (
                |_, uses| {
                    uses.unseen.insert("x may not be read".into());
                },
                2,
                Fate::Keep,
                "x may not be read",
            ),
        ];
        for (change, hours, fate, words) in rows {
            let (mut version, mut uses) = (left(), Uses::default());
            change(&mut version, &mut uses);
            let of = (version.run.expect("a run"), now() - SignedDuration::from_hours(hours));
            let (found, reason) = judge(&version, of, "here", &uses, Patience::default(), now());
            assert_eq!(found, fate, "{words}: {reason}");
            assert!(reason.contains(words), "no {words:?} in {reason:?}");
        }
    }
}
