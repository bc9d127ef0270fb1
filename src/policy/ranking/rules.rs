//! What a pool's settings say of the choice. Stored with each run.

use serde::{Deserialize, Serialize};

use crate::model::NodeName;

/// What says how recently a node was patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Its newest reboot: a new boot id that was seen to come, or else when it turned Ready.
    #[default]
    BootId,
    /// When kured last saw that it had to be rebooted, and has rebooted it since.
    Kured,
    /// A time in an annotation that whatever patches the nodes writes.
    Annotation {
        /// The annotation.
        key: String,
        /// How the time is written.
        format: TimeFormat,
    },
    /// The highest kernel.
    Kernel,
    /// A person: only nodes that are marked as donors, or one that is named.
    Manual,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeFormat {
    /// `2026-11-24T10:00:00+01:00`.
    Rfc3339,
    /// `2026-11-24`, midnight in UTC.
    Date,
    /// Seconds since 1970.
    UnixSeconds,
}

/// Nodes that are never donors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// Names, with `*` for any characters and `?` for one.
    #[serde(default)]
    pub names: Vec<String>,
    /// Labels, as in `key` or `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Annotations, likewise.
    #[serde(default)]
    pub annotations: Vec<String>,
}

/// When no new image is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageAge {
    /// A younger image is good enough when no node is patched newer than it.
    pub max_seconds: u64,
    /// A younger image is good enough even when one is.
    pub max_seconds_if_patched: u64,
}

/// What a pool's settings say of the choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What says how recently a node was patched.
    #[serde(default)]
    pub signal: Signal,
    /// Fewer fit nodes than this are too few.
    #[serde(default = "defaults::min_candidates")]
    pub min_candidates: u32,
    /// Nodes that are never donors.
    #[serde(default)]
    pub ignore: Ignore,
    /// Conditions that are bad when true, besides the kubelet's own.
    #[serde(default = "defaults::bad_conditions")]
    pub bad_conditions: Vec<String>,
    /// When no new image is needed; without it one is made each time.
    #[serde(default)]
    pub image_age: Option<ImageAge>,
    /// The node on which the process ran that asked for the run.
    #[serde(default)]
    pub own_node: Option<NodeName>,
}

impl Rules {
    /// Nothing but what applies where nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            signal: Signal::default(),
            min_candidates: defaults::min_candidates(),
            ignore: Ignore::default(),
            bad_conditions: defaults::bad_conditions(),
            image_age: None,
            own_node: None,
        }
    }
}

/// What applies where settings, or a record of an older release, say nothing.
pub mod defaults {
    /// One is enough.
    #[must_use]
    pub fn min_candidates() -> u32 {
        1
    }

    /// The permanent conditions of node-problem-detector's own configurations.
    #[must_use]
    pub fn bad_conditions() -> Vec<String> {
        let types = [
            "KernelDeadlock",
            "ReadonlyFilesystem",
            "XfsShutdown",
            "CperHardwareErrorFatal",
            "CorruptDockerOverlay2",
            "FrequentKubeletRestart",
            "FrequentDockerRestart",
            "FrequentContainerdRestart",
            "FrequentUnregisterNetDevice",
            "KubeletUnhealthy",
            "ContainerRuntimeUnhealthy",
        ];
        types.map(str::to_owned).to_vec()
    }
}

/// Whether a name is meant by a pattern with `*` and `?`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the newest `*` stands, and how much of the name it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[at] => {
                of += 1;
                at += 1;
            }
            Some(_) | None => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                of = place + 1;
                at = taken + 1;
            }
        }
    }
    pattern[of..].iter().all(|left| *left == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_whole_names() {
        let good =
            [("pool1-*", "pool1-vmss000000"), ("*", ""), ("a*b*c", "axxbyyc"), ("n?de", "node"), ("same", "same")];
        for (pattern, name) in good {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let bad = [("pool1", "pool1-vmss000000"), ("?", ""), ("a*b", "abc"), ("N", "n"), ("", "a"), ("*x", "xy")];
        for (pattern, name) in bad {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_record_without_rules_means_the_defaults() {
        let rules: Rules = serde_json::from_str("{}").expect("a record");
        assert_eq!(rules, Rules::default());
    }
}
