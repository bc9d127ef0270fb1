//! Which old versions go: never one in use, never the newest published, never a stranger's.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    cloud::{Provisioning, Version},
    model::VersionId,
};

/// What was decided about a version, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The version.
    pub version: VersionId,
    /// It goes.
    pub delete: bool,
    /// In one line.
    pub reason: String,
}

/// Plans for the versions of one definition; newest first.
///
/// `keep` published versions stay, at least two: the newest, and one to go back to.
#[must_use]
pub fn plan(
    versions: Vec<Version>,
    in_use: &BTreeSet<VersionId>,
    keep: u32,
    min_age: Duration,
    now: Timestamp,
) -> Vec<Verdict> {
    let keep = usize::try_from(keep.max(2)).unwrap_or(usize::MAX);
    let mut versions: Vec<_> =
        versions.into_iter().filter_map(|version| Some((version.id.version().ok()?, version))).collect();
    versions.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut published = 0;
    let mut verdicts = Vec::new();
    for (_, version) in versions {
        let good = version.provisioning == Provisioning::Succeeded && !version.excluded_from_latest;
        published += usize::from(good);
        let young =
            version.created.is_none_or(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default() < min_age);
        let keeping = if version.run.is_none() {
            Some("kamino-wf did not make it")
        } else if in_use.contains(&version.id) {
            Some("a scale set or an instance uses it")
        } else if version.provisioning == Provisioning::Running {
            Some("an operation on it is under way")
        } else if good && published <= keep {
            Some("it is among the newest published")
        } else if young {
            Some("it is younger than the minimum age")
        } else {
            None
        };
        let reason = keeping.unwrap_or("older than the versions that are kept, and unused");
        verdicts.push(Verdict { version: version.id, delete: keeping.is_none(), reason: reason.to_owned() });
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::Replication,
        model::{DefinitionId, RunId, VersionName},
    };

    fn version(name: &str) -> Version {
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
            tags: std::collections::BTreeMap::new(),
            run: Some(RunId(uuid::Uuid::from_u128(1))),
        }
    }

    fn deleted(versions: Vec<Version>, in_use: &[&Version], keep: u32) -> Vec<String> {
        let now = "2026-11-24T00:00:00Z".parse().expect("a time");
        let in_use = in_use.iter().map(|version| version.id.clone()).collect();
        plan(versions, &in_use, keep, Duration::from_hours(24), now)
            .into_iter()
            .filter(|verdict| verdict.delete)
            .map(|verdict| verdict.version.name().to_owned())
            .collect()
    }

    #[test]
    fn the_oldest_go_and_two_stay_at_least() {
        let versions = ["2026.9.1", "2026.10.1", "2026.11.1"].map(version).to_vec();
        assert_eq!(deleted(versions.clone(), &[], 0), ["2026.9.1"]);
        assert!(deleted(versions, &[], 3).is_empty());
    }

    #[test]
    fn versions_in_use_foreign_young_or_under_way_stay() {
        let newer = ["2026.10.1", "2026.11.1"].map(version).to_vec();
        let with = |change: &dyn Fn(&mut Version)| {
            let mut old = version("2026.9.1");
            change(&mut old);
            [newer.clone(), vec![old]].concat()
        };
        assert_eq!(deleted(with(&|_| {}), &[], 2), ["2026.9.1"], "the control must be deleted");
        assert!(deleted(with(&|_| {}), &[&version("2026.9.1")], 2).is_empty());
        assert!(deleted(with(&|old| old.run = None), &[], 2).is_empty());
        assert!(deleted(with(&|old| old.provisioning = Provisioning::Running), &[], 2).is_empty());
        assert!(deleted(with(&|old| old.created = "2026-11-23T12:00:00Z".parse().ok()), &[], 2).is_empty());
    }

    #[test]
    fn unpublished_and_failed_ones_do_not_count_as_kept() {
        let mut excluded = version("2026.12.1");
        excluded.excluded_from_latest = true;
        let versions = vec![excluded, version("2026.11.1"), version("2026.10.1")];
        assert_eq!(deleted(versions, &[], 2), ["2026.12.1"]);
    }
}
