//! What of a pool's settings is about the image: how its disk is read, where its copies are, what comes after it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ConfigError, bad};
use crate::model::Region;

/// How the donor's disk is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SnapshotKind {
    /// The whole disk.
    #[default]
    Full,
    /// What differs from the disk's newest snapshot.
    Incremental,
}

/// More instances in one go than this is a slip of the pen.
const SCALE_OUT_MAX: u32 = 100;

type At<'a> = &'a dyn Fn(&str) -> String;

/// Copies by region. Whether each is a target is known when the gallery is: it may be the gallery's own.
pub(super) fn replicas(at: At<'_>, given: BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>, ConfigError> {
    let mut checked = BTreeMap::new();
    for (name, count) in given {
        if !(1..=100).contains(&count) {
            return Err(bad(at(&format!("regionReplicas.{name}")), count, "expected 1 to 100"));
        }
        if checked.insert(Region(name.clone()).key(), count).is_some() {
            return Err(bad(at("regionReplicas"), name, "another entry is the same region"));
        }
    }
    Ok(checked)
}

pub(super) fn scale_out(at: At<'_>, by: u32) -> Result<u32, ConfigError> {
    if by > SCALE_OUT_MAX {
        return Err(bad(at("scaleOut"), by, format!("expected 0 to {SCALE_OUT_MAX}: how many instances come on top")));
    }
    Ok(by)
}
