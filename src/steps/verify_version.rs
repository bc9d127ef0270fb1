//! Prove the version before anybody can take it: it is what was asked for, from the cleaned disk, in every region.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    ChooseNames, CleanCopy, CleanDisk, Cleaned, Copied, CopyDisk, CreateVersion, Names, Proved, SnapshotDisk,
    Snapshotted, create_version,
};
use crate::{
    cloud::{Provisioning, Replication},
    model::VersionId,
    workflow::{Context, Decide, Effect, Ports, StepError},
};

/// The decision.
#[derive(Debug)]
pub struct VerifyVersion;

/// The verdict: the version and what it was proved by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The version.
    pub version: VersionId,
    /// What was looked at, each with what was found.
    pub checks: Vec<String>,
}

#[async_trait]
impl Decide for VerifyVersion {
    const NAME: &'static str = "VerifyVersion";
    type Output = Verified;

    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Verified, StepError> {
        let names: Names = context.output(ChooseNames::NAME)?;
        let create_version::Output { .. } = context.output(CreateVersion::NAME)?;
        let source = Source::of(context)?;
        let found = ports.cloud.version(&names.version).await?.ok_or_else(|| {
            StepError::gone("KW0242", format!("version {} was deleted by somebody before it was proved", names.version))
        })?;
        let same = match &source {
            Source::Copy { copy, .. } => {
                ports.cloud.disk(&copy.disk).await?.is_some_and(|disk| disk.unique_id == copy.unique_id)
            }
            Source::Snapshot { taken, .. } => ports
                .cloud
                .snapshot(&names.snapshot)
                .await?
                .is_some_and(|snapshot| snapshot.run == Some(context.run) && snapshot.created == taken.taken),
        };
        let (id, size_gib, report) = match &source {
            Source::Copy { copy, cleaned } => (copy.disk.as_str(), copy.size_gib, &cleaned.report),
            Source::Snapshot { taken, proved } => (names.snapshot.as_str(), taken.size_gib, &proved.proof),
        };
        let checks = [
            ("the cleaner's report is this run's", report["nonce"] == names.nonce.as_str()),
            ("the version is this run's", found.run == Some(context.run)),
            (
                "its source is the cleaned disk",
                found.source.as_deref().is_some_and(|source| source.eq_ignore_ascii_case(id)),
            ),
            ("that disk is the one that was cleaned", same),
            ("it is in state Succeeded", found.provisioning == Provisioning::Succeeded),
            ("it is in every target region", found.replication == Replication::Completed),
            ("it is excluded from latest", found.excluded_from_latest),
            ("it is not smaller than the disk", found.size_gib.is_none_or(|size| size >= size_gib)),
        ];
        if let Some((wrong, _)) = checks.iter().find(|(_, good)| !good) {
            return Err(StepError::refused(
                "KW0243",
                format!("version {} is not proved: not true that {wrong}", names.version),
            ));
        }
        Ok(Verified { version: names.version, checks: checks.iter().map(|(text, _)| (*text).to_owned()).collect() })
    }
}

/// What the version was made from, and who says that it is clean.
enum Source {
    /// A copy that was cleaned in a pod.
    Copy { copy: Copied, cleaned: Cleaned },
    /// A snapshot of the donor's disk, which was cleaned on the donor.
    Snapshot { taken: Snapshotted, proved: Proved },
}

impl Source {
    fn of(context: Context<'_>) -> Result<Self, StepError> {
        if context.outputs.contains_key(CleanDisk::NAME) {
            let (taken, proved) = (context.output(SnapshotDisk::NAME)?, context.output(CleanDisk::NAME)?);
            return Ok(Self::Snapshot { taken, proved });
        }
        Ok(Self::Copy { copy: context.output(CopyDisk::NAME)?, cleaned: context.output(CleanCopy::NAME)? })
    }
}
