//! Whether a new image is needed at all.

use std::time::Duration;

use jiff::Timestamp;

use super::{ImageAge, Patched, health::age, signal::kernel};
use crate::cloud::{Provisioning, Version};

/// The tag that says how recently the donor of a version was patched.
pub(crate) const PATCHED_TAG: &str = "kamino-wf-patched";
/// The tag that says the donor's kernel.
const KERNEL_TAG: &str = "kamino-wf-kernel";
/// Written by the Python tool too.
const BUILT_TAG: &str = "builtat";

/// Why no new image is needed: the newest published version is young enough for the best donor. `None` when one is.
#[must_use]
pub fn needless(limits: ImageAge, best: &Patched, versions: &[Version], now: Timestamp) -> Option<String> {
    let published = |it: &&Version| !it.excluded_from_latest && it.provisioning == Provisioning::Succeeded;
    let newest = versions.iter().filter(published).max_by_key(|it| it.id.version().ok())?;
    let old = age(newest.created?, now);
    // One that says nothing of its donor may well be older than its own making.
    let newer = patched(newest, best).is_none_or(|known| *best > known);
    let (limit, setting, whose) = if newer {
        (limits.max_seconds_if_patched, "maxImageAgeIfPatched", "though a node is patched newer")
    } else {
        (limits.max_seconds, "maxImageAge", "and no node is patched newer")
    };
    (old < Duration::from_secs(limit)).then(|| {
        format!(
            "version {} is {} old, {whose}; ranking.{setting} is {}",
            newest.id.name(),
            words(old),
            words(Duration::from_secs(limit))
        )
    })
}

/// How recently a version's donor was patched, in the signal's own terms.
fn patched(version: &Version, like: &Patched) -> Option<Patched> {
    let tag = |name: &str| version.tags.get(name);
    match like {
        Patched::Kernel(_) => tag(KERNEL_TAG).map(|version| Patched::Kernel(kernel(version))),
        Patched::At(_) => {
            let time = |name: &str| tag(name).and_then(|text| text.parse().ok());
            time(PATCHED_TAG).or_else(|| time(BUILT_TAG)).map(Patched::At)
        }
    }
}

fn words(span: Duration) -> String {
    let hours = span.as_secs() / 3600;
    match hours {
        0 => format!("{}m", span.as_secs() / 60),
        1..24 => format!("{hours}h"),
        _ => format!("{}d {:02}h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rank::tests::now, *};
    use crate::{
        cloud::Replication,
        model::{DefinitionId, VersionName},
    };

    /// A published version that was made some hours ago.
    fn version(name: &str, hours: u64, tags: &[(&str, &str)]) -> Version {
        let definition = DefinitionId::new("00000000-1111-2222-3333-444444444444", "g", &["protos", "pool1"]);
        Version {
            id: definition.expect("an id").version(&VersionName::parse(name).expect("a version")),
            provisioning: Provisioning::Succeeded,
            replication: Replication::Completed,
            excluded_from_latest: false,
            regions: vec![],
            source: None,
            size_gib: None,
            created: Some(now() - Duration::from_hours(hours)),
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            run: None,
        }
    }

    fn hours(hours: u64) -> u64 {
        hours * 3600
    }

    const AGE: ImageAge = ImageAge { max_seconds: 30 * 24 * 3600, max_seconds_if_patched: 24 * 3600 };

    fn at(text: &str) -> Patched {
        Patched::At(text.parse().expect("a time"))
    }

    #[test]
    fn a_young_image_is_good_enough_and_a_newer_patch_makes_it_old_sooner() {
        let with = |age, tags: &[(&str, &str)]| vec![version("2026.11.01000", age, tags)];
        let then = &[("kamino-wf-patched", "2026-11-20T00:00:00Z")][..];
        let (same, newer) = (at("2026-11-20T00:00:00Z"), at("2026-11-20T00:00:01Z"));
        let not =
            Some("version 2026.11.01000 is 4d 03h old, and no node is patched newer; ranking.maxImageAge is 30d 00h");
        assert_eq!(needless(AGE, &same, &with(99, then), now()).as_deref(), not);
        assert_eq!(needless(AGE, &newer, &with(99, then), now()), None, "a node is patched newer");
        assert_eq!(needless(AGE, &same, &with(hours(30 * 24) / 3600, then), now()), None, "it is as old as it may be");
        let young = needless(AGE, &newer, &with(5, then), now()).expect("not needed");
        assert!(
            young.contains("is 5h old, though a node is patched newer; ranking.maxImageAgeIfPatched is 1d 00h"),
            "{young}"
        );
        // kamino's tag, as tags are read: names in lower case.
        assert!(needless(AGE, &same, &with(99, &[("builtat", "2026-11-21T00:00:00Z")]), now()).is_some());
        assert_eq!(needless(AGE, &same, &with(99, &[]), now()), None, "nothing is known of its donor");
        let kernel_of = |text| Patched::Kernel(kernel(text));
        let tagged = with(99, &[("kamino-wf-kernel", "6.8.0-1031-azure")]);
        assert!(needless(AGE, &kernel_of("6.8.0-1031-azure"), &tagged, now()).is_some());
        assert_eq!(needless(AGE, &kernel_of("6.8.0-1032-azure"), &tagged, now()), None);
    }

    #[test]
    fn only_what_new_nodes_take_counts() {
        let same = at("2026-11-20T00:00:00Z");
        let tags = &[("kamino-wf-patched", "2026-11-20T00:00:00Z")][..];
        let old = version("2026.10.01000", 900, tags);
        let mut hidden = version("2026.11.01000", 9, tags);
        assert!(needless(AGE, &same, &[old.clone(), hidden.clone()], now()).is_some(), "the control");
        hidden.excluded_from_latest = true;
        assert_eq!(needless(AGE, &same, &[old.clone(), hidden.clone()], now()), None);
        hidden.excluded_from_latest = false;
        hidden.provisioning = Provisioning::Failed;
        assert_eq!(needless(AGE, &same, &[old, hidden], now()), None);
        assert_eq!(needless(AGE, &same, &[], now()), None, "there is none");
    }
}
