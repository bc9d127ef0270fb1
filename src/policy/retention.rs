//! Which old versions go: never one in use, never a pinned one, never the newest published, never a stranger's.
//!
//! The same decision is taken twice: for the plan, and again from fresh looks right before each deletion, since all that it
//! builds on may have changed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    leftovers::{KnownRun, Standing},
    provenance::{Maker, PINNED, QUARANTINED, tag},
};
use crate::{
    cloud::{Provisioning, Version},
    model::{RunId, VersionId},
};

/// Why a version stays or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// Somebody else made it.
    Foreign,
    /// The Python tool made it, and nobody has said that those go too.
    Kamino,
    /// A person wants it to stay.
    Pinned,
    /// A scale set's model or a machine refers to it.
    InUse,
    /// An operation on it is under way.
    UnderWay,
    /// It is not published, and its run may still want it.
    Unproven,
    /// It is among the newest published.
    Newest,
    /// It is younger than the minimum age.
    Young,
    /// Not everybody who might use it could be looked at.
    Unseen,
    /// Its checks failed, and it is old enough to go.
    Quarantined,
    /// It is none of those that are kept.
    Excess,
}

/// What was decided about a version, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The version.
    pub version: VersionId,
    /// It goes.
    pub delete: bool,
    /// In one line.
    pub reason: String,
    /// The same in a word; none in plans of releases that did not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<Because>,
}

/// What may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Published versions that stay; at least two count: the newest, and one to go back to.
    pub keep: u32,
    /// Younger ones stay, in seconds.
    pub min_age_seconds: u64,
    /// The Python tool's versions go by the same rules, because a person said so.
    #[serde(default)]
    pub kamino: bool,
}

/// Who uses which version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    /// By version: the first user that was found.
    pub used: BTreeMap<VersionId, String>,
    /// Those who may use any version of the definition and could not be looked at, and why.
    pub unseen: BTreeSet<String>,
}

impl Uses {
    /// Notes a user of a version.
    pub fn note(&mut self, version: VersionId, user: impl fmt::Display) {
        self.used.entry(version).or_insert_with(|| user.to_string());
    }
}

/// What is known of the runs that unpublished versions belong to.
#[derive(Debug, Clone, Copy)]
pub enum Runs<'a> {
    /// Nothing: a run does not see the others.
    Unknown,
    /// Those of this store.
    Known(&'a [KnownRun]),
}

/// Plans for the versions of one definition; newest first.
#[must_use]
pub fn plan(versions: Vec<Version>, uses: &Uses, runs: Runs<'_>, rules: Rules, now: Timestamp) -> Vec<Verdict> {
    let keep = usize::try_from(rules.keep.max(2)).unwrap_or(usize::MAX);
    let mut versions: Vec<_> =
        versions.into_iter().filter_map(|version| Some((version.id.version().ok()?, version))).collect();
    versions.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut published = 0;
    let mut verdicts = Vec::new();
    for (_, version) in versions {
        let good = version.provisioning == Provisioning::Succeeded
            && !version.excluded_from_latest
            && tag(&version, QUARANTINED).is_none();
        published += usize::from(good);
        let newest = good && published <= keep;
        let kept = kept(&version, newest, uses, runs, rules, now);
        let delete = kept.is_none();
        let (because, reason) = kept.unwrap_or_else(|| fate(&version));
        verdicts.push(Verdict { version: version.id, delete, reason, because: Some(because) });
    }
    verdicts
}

/// Why a version stays, if it does; the strongest reason.
fn kept(
    version: &Version,
    newest: bool,
    uses: &Uses,
    runs: Runs<'_>,
    rules: Rules,
    now: Timestamp,
) -> Option<(Because, String)> {
    let keep = |because, reason: String| Some((because, reason));
    match Maker::of(version) {
        Maker::Foreign => return keep(Because::Foreign, "kamino-wf did not make it".into()),
        Maker::Kamino if !rules.kamino => {
            let reason = "the Python tool (kamino) made it; `images prune --kamino` takes those in";
            return keep(Because::Kamino, reason.into());
        }
        Maker::Kamino | Maker::KaminoWf => {}
    }
    if let Some(why) = tag(version, PINNED) {
        return keep(Because::Pinned, format!("it is pinned ({why})"));
    }
    if let Some(user) = uses.used.get(&version.id) {
        return keep(Because::InUse, format!("{user} uses it"));
    }
    if version.provisioning == Provisioning::Running {
        return keep(Because::UnderWay, "an operation on it is under way".into());
    }
    // Nobody wants one whose checks have failed.
    if let (Some(run), true, None) = (version.run, version.excluded_from_latest, tag(version, QUARANTINED))
        && let Some(reason) = wanted(run, runs)
    {
        return keep(Because::Unproven, reason);
    }
    if newest {
        return keep(Because::Newest, "it is among the newest published".into());
    }
    let min_age = Duration::from_secs(rules.min_age_seconds);
    // One that does not say when it was made may be the youngest.
    let age = version.created.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
    if age.is_none_or(|age| age < min_age) {
        return keep(Because::Young, "it is younger than the minimum age".into());
    }
    let unseen = uses.unseen.first()?;
    keep(Because::Unseen, format!("whether it is in use is not known: {unseen}"))
}

/// Why the run of an unpublished version may still want it.
fn wanted(run: RunId, runs: Runs<'_>) -> Option<String> {
    let known = match runs {
        Runs::Unknown => {
            return Some(format!(
                "it is not published, and only the store knows whether run {run} wants it; `images prune` asks it"
            ));
        }
        Runs::Known(known) => known.iter().find(|known| known.id == run),
    };
    match known.map(|known| known.standing) {
        None => Some(format!("it is not published, and run {run}, which made it, is not in this store")),
        Some(Standing::Open) => Some(format!("it is not published yet, and run {run} is open")),
        Some(Standing::Ended(_) | Standing::Abandoned) => None,
    }
}

/// Why a version goes.
fn fate(version: &Version) -> (Because, String) {
    if let Some(why) = tag(version, QUARANTINED) {
        return (Because::Quarantined, format!("its checks failed ({why}), and nothing uses it"));
    }
    if version.provisioning == Provisioning::Failed {
        return (Because::Quarantined, "making it failed, and nothing uses it".into());
    }
    if version.excluded_from_latest {
        return (Because::Quarantined, "it is not published, its run has ended, and nothing uses it".into());
    }
    (Because::Excess, "older than the versions that are kept, and unused".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        cloud::Replication,
        model::{DefinitionId, VersionName},
    };

    pub(in super::super) fn version(name: &str) -> Version {
        let definition =
            DefinitionId::new("00000000-1111-2222-3333-444444444444", "g", &["protos", "pool1"]).expect("an id");
        Version {
            id: definition.version(&VersionName::parse(name).expect("a version")),
            provisioning: Provisioning::Succeeded,
            replication: Replication::Completed,
            excluded_from_latest: false,
            regions: vec![],
            storage: None,
            source: None,
            size_gib: Some(30),
            created: Some("2026-01-01T00:00:00Z".parse().expect("a time")),
            tags: BTreeMap::new(),
            run: Some(run()),
        }
    }

    fn run() -> RunId {
        RunId(uuid::Uuid::from_u128(1))
    }

    fn now() -> Timestamp {
        "2026-11-24T00:00:00Z".parse().expect("a time")
    }

    const DAY: Rules = Rules { keep: 2, min_age_seconds: 86_400, kamino: false };

    fn ended() -> Vec<KnownRun> {
        vec![KnownRun { id: run(), standing: Standing::Ended(now()) }]
    }

    fn tagged(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
        tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn names(verdicts: &[Verdict]) -> Vec<&str> {
        verdicts.iter().filter(|verdict| verdict.delete).map(|verdict| verdict.version.name()).collect()
    }

    #[test]
    fn the_oldest_go_and_two_stay_at_least() {
        let versions = ["2026.9.1", "2026.10.1", "2026.11.1"].map(version).to_vec();
        let with = |keep| {
            plan(versions.clone(), &Uses::default(), Runs::Unknown, Rules { keep, ..DAY }, now())
                .into_iter()
                .filter(|verdict| verdict.delete)
                .count()
        };
        assert_eq!([0, 1, 2, 3, 4].map(with), [1, 1, 1, 0, 0]);
    }

    /// One old version beside two newer ones that stay: what becomes of it, and why.
    #[test]
    fn every_case_has_its_verdict_and_its_reason() {
        type Change = fn(&mut Version, &mut Uses);
        const KAMINO: &[(&str, &str)] = &[("BuiltFrom", "pool1-vmss000000"), ("BuiltAt", "2026-09-01 10:00:00.000000")];
        let all = Rules { kamino: true, ..DAY };
        let ended = ended();
        let open = vec![KnownRun { id: run(), standing: Standing::Open }];
        let (known, open, nobody) = (Runs::Known(&ended), Runs::Known(&open), Runs::Known(&[]));
        let unpublished: Change = |it, _| it.excluded_from_latest = true;
        let taken: Change = |it, uses| uses.note(it.id.clone(), "instance pool1/0");
        let kaminos: Change = |it, _| (it.run, it.tags) = (None, tagged(KAMINO));
        let rows: &[(Change, Runs<'_>, Rules, bool, Because, &str)] = &[
            (|_, _| {}, known, DAY, true, Because::Excess, "older than the versions that are kept"),
            (|_, _| {}, Runs::Unknown, DAY, true, Because::Excess, "older than the versions that are kept"),
            (|it, _| it.run = None, known, DAY, false, Because::Foreign, "did not make it"),
            (|it, _| it.run = None, known, all, false, Because::Foreign, "did not make it"),
            (kaminos, known, DAY, false, Because::Kamino, "the Python tool (kamino) made it"),
            (kaminos, known, all, true, Because::Excess, "unused"),
            (
                |it, _| it.tags = tagged(&[(PINNED, "ann, 2026-09-02")]),
                known,
                DAY,
                false,
                Because::Pinned,
                "pinned (ann, 2026-09-02)",
            ),
            (taken, known, DAY, false, Because::InUse, "instance pool1/0 uses it"),
            (
                |it, _| it.provisioning = Provisioning::Running,
                known,
                DAY,
                false,
                Because::UnderWay,
                "an operation on it is under way",
            ),
            (unpublished, open, DAY, false, Because::Unproven, "is open"),
            (unpublished, nobody, DAY, false, Because::Unproven, "not in this store"),
            (unpublished, Runs::Unknown, DAY, false, Because::Unproven, "only the store knows"),
            (unpublished, known, DAY, true, Because::Quarantined, "its run has ended"),
            (
                |it, _| it.tags = tagged(&[(QUARANTINED, "canary")]),
                known,
                DAY,
                true,
                Because::Quarantined,
                "its checks failed (canary)",
            ),
            (
                |it, _| {
                    it.excluded_from_latest = true;
                    it.tags = tagged(&[(QUARANTINED, "canary")]);
                },
                Runs::Unknown,
                DAY,
                true,
                Because::Quarantined,
                "its checks failed (canary)",
            ),
            (
                |it, _| it.provisioning = Provisioning::Failed,
                Runs::Unknown,
                DAY,
                true,
                Because::Quarantined,
                "making it failed",
            ),
            (
                |it, _| it.created = "2026-11-23T12:00:00Z".parse().ok(),
                known,
                DAY,
                false,
                Because::Young,
                "younger than the minimum age",
            ),
            (|it, _| it.created = None, known, DAY, false, Because::Young, "younger than the minimum age"),
            // The clock was set back.
            (
                |it, _| it.created = "2027-01-01T00:00:00Z".parse().ok(),
                known,
                DAY,
                false,
                Because::Young,
                "younger than the minimum age",
            ),
            (
                |_, uses| {
                    uses.unseen.insert("scale set x can't be read".into());
                },
                known,
                DAY,
                false,
                Because::Unseen,
                "scale set x can't be read",
            ),
        ];
        for (at, (change, runs, rules, delete, because, words)) in rows.iter().enumerate() {
            let (mut old, mut uses) = (version("2026.09.01"), Uses::default());
            change(&mut old, &mut uses);
            let versions = [["2026.10.1", "2026.11.1"].map(version).to_vec(), vec![old]].concat();
            let verdicts = plan(versions, &uses, *runs, *rules, now());
            let verdict = &verdicts[2];
            assert_eq!((verdict.delete, verdict.because), (*delete, Some(*because)), "row {at}: {verdict:?}");
            assert!(verdict.reason.contains(words), "row {at}: no {words:?} in {verdict:?}");
            assert_eq!(names(&verdicts[..2]), Vec::<&str>::new(), "row {at}: a newer one went");
        }
    }

    #[test]
    fn what_is_not_good_does_not_count_as_kept() {
        let spoil: [fn(&mut Version); 3] = [
            |it| it.excluded_from_latest = true,
            |it| it.provisioning = Provisioning::Failed,
            |it| it.tags = tagged(&[(QUARANTINED, "canary")]),
        ];
        for spoil in spoil {
            let mut bad = version("2026.12.1");
            spoil(&mut bad);
            let versions = vec![bad, version("2026.11.1"), version("2026.10.1"), version("2026.9.1")];
            let verdicts = plan(versions, &Uses::default(), Runs::Known(&ended()), DAY, now());
            assert_eq!(names(&verdicts), ["2026.12.1", "2026.9.1"]);
        }
    }

    /// Kamino's and strangers' count: one can go back to them.
    #[test]
    fn what_others_have_published_counts_as_kept() {
        let mut foreign = version("2026.12.1");
        foreign.run = None;
        let versions = vec![foreign, version("2026.11.1"), version("2026.10.1")];
        assert_eq!(names(&plan(versions, &Uses::default(), Runs::Unknown, DAY, now())), ["2026.10.1"]);
    }

    #[test]
    fn a_verdict_of_an_older_release_still_reads() {
        let old = r#"{"version":"/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/galleries/p/images/d/versions/1.2.3","delete":true,"reason":"because"}"#;
        let read: Verdict = serde_json::from_str(old).expect("it reads");
        assert!(read.delete && read.because.is_none());
    }
}
