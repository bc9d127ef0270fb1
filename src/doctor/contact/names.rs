//! What a trial makes, by names that are the same each time, and what it notes on the scale set.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    cloud::{CloudError, Tags},
    model::{
        BadName, DefinitionId, DiskId, GalleryId, ResourceId, RunId, ScaleSetId, SnapshotId, VersionId, VersionName,
    },
};

/// The tag by which a scale set says that it may be tried on; its value is `true`.
pub const TAG: &str = "kamino-wf-throw-away";

/// The tag that says from which image the scale set's model was taken, as in `Canonical ubuntu server latest`.
pub(super) const IMAGE_TAG: &str = "kwf-doctor-image";
/// The tag that says which instance was switched off, by its name.
pub(super) const OFF_TAG: &str = "kwf-doctor-off";
/// The tag that a version is given and loses again.
pub(super) const NOTE_TAG: &str = "kwf-doctor-note";

/// A version whose name has zeros that say nothing, and the same without.
const PADDED: &str = "2026.01.05000";
const PLAIN: &str = "2026.1.5000";

/// The names of all that is made for a scale set.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Of the instance's disk.
    pub(super) snapshot: SnapshotId,
    /// Of the same, with only what differs.
    pub(super) increment: SnapshotId,
    /// Never made.
    pub(super) nothing: SnapshotId,
    /// Of the snapshot.
    pub(super) copy: DiskId,
    /// Of the increment.
    pub(super) second: DiskId,
    pub(super) gallery: GalleryId,
    pub(super) definition: DefinitionId,
    /// Of the copy.
    pub(super) version: VersionId,
    /// The same without zeros in its name.
    pub(super) plain: VersionId,
}

impl Names {
    /// A gallery's name is one in its subscription, so what tells two scale sets apart is a hash of the whole id.
    pub(super) fn of(set: &ScaleSetId) -> Result<Self, BadName> {
        let hash = Sha256::digest(set.key().as_bytes());
        let mut name = "kwf-doctor-".to_owned();
        for byte in &hash[..4] {
            let _ = write!(name, "{byte:02x}");
        }
        let (subscription, group) = (set.subscription(), set.resource_group());
        let snapshot = |end: &str| SnapshotId::new(subscription, group, &[&format!("{name}{end}")]);
        let disk = |end: &str| DiskId::new(subscription, group, &[&format!("{name}{end}")]);
        // No dashes there.
        let gallery = GalleryId::new(subscription, group, &[&name.replace('-', "_")])?;
        let definition = gallery.definition(&name)?;
        Ok(Self {
            snapshot: snapshot("")?,
            increment: snapshot("-incremental")?,
            nothing: snapshot("-nothing")?,
            copy: disk("")?,
            second: disk("-incremental")?,
            version: definition.version(&VersionName::parse(PADDED)?),
            plain: definition.version(&VersionName::parse(PLAIN)?),
            definition,
            gallery,
        })
    }

    /// All that is made, in the order in which it goes.
    pub(super) fn things(&self) -> [Thing; 7] {
        [
            Thing::Version(self.version.clone()),
            Thing::Definition(self.definition.clone()),
            Thing::Gallery(self.gallery.clone()),
            Thing::Disk(self.copy.clone()),
            Thing::Disk(self.second.clone()),
            Thing::Snapshot(self.snapshot.clone()),
            Thing::Snapshot(self.increment.clone()),
        ]
    }
}

/// The tags of all that is made.
pub(super) fn tags(run: RunId) -> Tags {
    Tags::from([("kamino-wf-run".into(), run.0.hyphenated().to_string())])
}

/// Something that is made, or the scale set itself.
#[derive(Debug, Clone)]
pub(super) enum Thing {
    Set(ScaleSetId),
    Version(VersionId),
    Definition(DefinitionId),
    Gallery(GalleryId),
    Disk(DiskId),
    Snapshot(SnapshotId),
}

impl Thing {
    pub(super) fn id(&self) -> &ResourceId {
        match self {
            Self::Set(id) => id,
            Self::Version(id) => id,
            Self::Definition(id) => id,
            Self::Gallery(id) => id,
            Self::Disk(id) => id,
            Self::Snapshot(id) => id,
        }
    }

    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Set(_) => "scale set",
            Self::Version(_) => "version",
            Self::Definition(_) => "definition",
            Self::Gallery(_) => "gallery",
            Self::Disk(_) => "disk",
            Self::Snapshot(_) => "snapshot",
        }
    }

    /// As people name it.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.noun(), self.id().name())
    }
}

/// Something that could not be taken away or put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remnant {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// The command that does it.
    pub command: String,
}

impl Remnant {
    pub(super) fn of(thing: &Thing, why: impl Into<String>) -> Self {
        Self { what: thing.words(), why: why.into(), command: format!("az resource delete --ids {}", thing.id()) }
    }

    pub(super) fn failed(thing: &Thing, error: &CloudError) -> Self {
        Self::of(thing, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_each_time_whatever_the_case_and_differ_from_set_to_set() {
        let names = |name: &str| {
            let group = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers";
            let id = format!("{group}/Microsoft.Compute/virtualMachineScaleSets/{name}");
            Names::of(&ScaleSetId::parse(&id).expect("an id")).expect("names")
        };
        let all = |names: Names| names.things().map(|thing| thing.id().name().to_owned());
        assert_eq!(all(names("trial")), all(names("TRIAL")));
        assert_ne!(all(names("trial"))[1], all(names("trial2"))[1]);
        let ours =
            |name: &String| name.starts_with("kwf-doctor-") || name.starts_with("kwf_doctor_") || *name == PADDED;
        assert!(all(names("trial")).iter().all(ours), "{:?}", all(names("trial")));
        assert_eq!(names("trial").version.version().expect("a name"), names("trial").plain.version().expect("a name"));
    }
}
