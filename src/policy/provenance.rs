//! Who made an image version and of what, from its tags: ours, the Python tool's, or somebody else's.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::{cloud::Version, model::VersionId};

/// The tag that keeps a version from being pruned; its value says who wants it and when. On the version itself, so that it
/// outlives every store.
pub const PINNED: &str = "kamino-wf-pinned";
/// The tag of a version whose checks failed; its value says which. It counts as none of the versions that are kept.
pub const QUARANTINED: &str = "kamino-wf-quarantined";

/// Who made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// kamino-wf: it carries a run's tag.
    KaminoWf,
    /// The Python tool (`vmss-prototype`): its two tags, and a date for a name.
    Kamino,
    /// Nobody that we know.
    Foreign,
}

impl Maker {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KaminoWf => "kamino-wf",
            Self::Kamino => "kamino",
            Self::Foreign => "foreign",
        }
    }

    /// Who made this version.
    #[must_use]
    pub fn of(version: &Version) -> Self {
        if version.run.is_some() {
            Self::KaminoWf
        } else if is_kamino_name(version.id.name())
            && tag(version, "BuiltFrom").is_some()
            && tag(version, "BuiltAt").is_some()
        {
            Self::Kamino
        } else {
            Self::Foreign
        }
    }
}

/// The Python tool's `2021.01.14`: a date, each part at its full width. Ours have five digits at the end.
#[must_use]
pub fn is_kamino_name(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let [year, month, day] = parts[..] else { return false };
    let widths = (year.len(), month.len(), day.len()) == (4, 2, 2);
    let date = || {
        let (year, month, day) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
        jiff::civil::Date::new(year, month, day).ok()
    };
    widths && date().is_some()
}

/// A tag's value, whatever case its name is in: Azure keeps the case and does not mind it.
#[must_use]
pub fn tag<'a>(version: &'a Version, name: &str) -> Option<&'a str> {
    let found = version.tags.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Where a version comes from, as far as its tags say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The version's name.
    pub version: String,
    /// Who made it.
    pub maker: Maker,
    /// The node whose disk it is a copy of.
    pub donor: Option<String>,
    /// The version that was the newest published one when it was made.
    pub parent: Option<String>,
    /// The donor's kernel.
    pub kernel: Option<String>,
    /// The donor's kubelet.
    pub kubelet: Option<String>,
    /// The run that made it, in the form that people see.
    pub run: Option<String>,
    /// The cluster of that run.
    pub cluster: Option<String>,
    /// When its making began, as its maker wrote it.
    pub built_at: Option<String>,
    /// When it was published, by Azure's clock.
    pub created: Option<Timestamp>,
    /// New nodes may take it.
    pub published: bool,
    /// Why it is pinned, if it is.
    pub pinned: Option<String>,
}

impl Provenance {
    /// What a version's tags say.
    #[must_use]
    pub fn of(version: &Version) -> Self {
        let text = |name: &str| tag(version, name).map(str::to_owned);
        Self {
            version: version.id.name().to_owned(),
            maker: Maker::of(version),
            donor: text("kamino-wf-donor").or_else(|| text("BuiltFrom")),
            parent: text("kamino-wf-parent"),
            kernel: text("kamino-wf-kernel"),
            kubelet: text("kamino-wf-kubelet"),
            run: version.run.map(|run| run.short()),
            cluster: text("kamino-wf-cluster"),
            built_at: text("BuiltAt"),
            created: version.created,
            published: !version.excluded_from_latest,
            pinned: text(PINNED),
        }
    }
}

/// A version and what it descends from, the youngest first. It ends where a parent is not there any more: that one is the
/// second value.
#[must_use]
pub fn lineage(versions: &[Version], of: &VersionId) -> (Vec<Provenance>, Option<String>) {
    let mut line = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = Some(of.name().to_owned());
    // Tags are anybody's to write: a circle comes to an end.
    while let Some(name) = next.take() {
        let Some(found) = versions.iter().find(|version| same(version, &name)) else { return (line, Some(name)) };
        if !seen.insert(found.id.name().to_owned()) {
            break;
        }
        let provenance = Provenance::of(found);
        next.clone_from(&provenance.parent);
        line.push(provenance);
    }
    (line, None)
}

/// Names are compared as numbers: Azure may drop leading zeros.
fn same(version: &Version, name: &str) -> bool {
    let parsed = crate::model::VersionName::parse(name).ok();
    parsed.is_some() && version.id.version().ok() == parsed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::retention::tests::version;

    #[test]
    fn a_version_is_kaminos_by_both_tags_and_a_date_for_a_name() {
        let tagged = |name: &str, tags: &[&str]| {
            let mut version = version(name);
            version.run = None;
            version.tags = tags.iter().map(|tag| ((*tag).to_owned(), "x".to_owned())).collect();
            Maker::of(&version)
        };
        let both = ["BuiltFrom", "BuiltAt"];
        assert_eq!(tagged("2021.01.14", &both), Maker::Kamino);
        // The adapter hands tags over in lower case.
        assert_eq!(tagged("2021.01.14", &["builtfrom", "builtat"]), Maker::Kamino);
        for (name, tags) in [
            ("2021.01.14", &both[..1]),
            ("2021.01.14", &[]),
            ("2021.1.14", &both),
            ("2021.02.30", &both),
            ("1.0.0", &both),
            ("2021.01.14000", &both),
        ] {
            assert_eq!(tagged(name, tags), Maker::Foreign, "{name} {tags:?}");
        }
        let ours = version("2021.01.14");
        assert_eq!(Maker::of(&ours), Maker::KaminoWf, "a run's tag wins");
    }

    #[test]
    fn a_lineage_ends_at_what_is_gone_and_never_goes_in_circles() {
        let with_parent = |name: &str, parent: Option<&str>| {
            let mut version = version(name);
            version.tags.extend(parent.map(|parent| ("kamino-wf-parent".to_owned(), parent.to_owned())));
            version
        };
        let versions = [
            with_parent("2026.11.03000", Some("2026.11.2000")),
            with_parent("2026.11.02000", Some("2026.11.01000")),
            with_parent("2026.12.01000", Some("2026.12.02000")),
            with_parent("2026.12.02000", Some("2026.12.01000")),
            with_parent("2026.10.01000", None),
        ];
        let of = |at: usize| {
            let (line, gone) = lineage(&versions, &versions[at].id);
            (line.into_iter().map(|it| it.version).collect::<Vec<_>>().join(" "), gone)
        };
        assert_eq!(of(0), ("2026.11.03000 2026.11.02000".into(), Some("2026.11.01000".into())));
        assert_eq!(of(2), ("2026.12.01000 2026.12.02000".into(), None));
        assert_eq!(of(4), ("2026.10.01000".into(), None));
    }
}
