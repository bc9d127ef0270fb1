//! Kinds of nodes: what is removed from the disk of one, and where a new one gets its bootstrap data from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::BadName;

/// Which lines apply to the disk of a node when it is cleaned, and what becomes of its scale set's bootstrap data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// AKS Engine nodes: credentials live on the disk, bootstrap data leaves the model.
    AksEngine,
    /// kubeadm nodes, Cluster API ones included: a new node is bootstrapped by the model's custom data, which stays.
    Kubeadm,
    /// Nodes of another kind, as their operator describes them. Nobody has seen them boot but the operator.
    Custom(Box<CustomProfile>),
}

impl Profile {
    /// Every profile that was seen at work on booted machines, for help texts and tables.
    pub const SHIPPED: [Self; 2] = [Self::AksEngine, Self::Kubeadm];

    /// The name in settings, arguments and reports.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::AksEngine => "aks-engine",
            Self::Kubeadm => "kubeadm",
            Self::Custom(custom) => &custom.name,
        }
    }

    /// Where a new node gets its bootstrap data from.
    #[must_use]
    pub fn bootstrap(&self) -> Bootstrap {
        match self {
            Self::AksEngine => Bootstrap::Disk,
            Self::Kubeadm => Bootstrap::Model,
            Self::Custom(custom) => custom.bootstrap,
        }
    }

    /// The operator's own description, for a profile that is none of ours.
    #[must_use]
    pub fn custom(&self) -> Option<&CustomProfile> {
        match self {
            Self::AksEngine | Self::Kubeadm => None,
            Self::Custom(custom) => Some(custom),
        }
    }

    /// Where such a node's containerd is.
    #[must_use]
    pub fn containerd(&self) -> Containerd {
        self.custom().map(|it| it.containerd.clone()).unwrap_or_default()
    }

    /// As an argument of `kamino-wf clean`: a name, or the whole of an operator's own description in JSON.
    #[must_use]
    pub fn as_argument(&self) -> String {
        self.custom().map_or_else(|| self.name().to_owned(), |it| serde_json::to_string(it).unwrap_or_default())
    }
}

/// Only of those that need no description.
impl FromStr for Profile {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::SHIPPED.into_iter().find(|profile| profile.name() == text).ok_or_else(|| {
            BadName::new("profile", text, "expected aks-engine, kubeadm, or the path of a file of your own")
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a new node gets its bootstrap data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootstrap {
    /// From its disk: the scale set's custom data and bootstrap extensions go.
    Disk,
    /// From the scale set's model: custom data and extensions stay as they are.
    Model,
}

/// A kind of node as its operator describes it: what its disk has besides what every node's has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CustomProfile {
    /// Of this form: 1.
    pub version: u32,
    /// What people call it, and reports.
    pub name: String,
    /// Where a new node gets its bootstrap data from.
    pub bootstrap: Bootstrap,
    /// Where its containerd is.
    #[serde(default)]
    pub containerd: Containerd,
    /// What a disk of this kind has and must not lose. Without it a disk is refused, and so is a line that would take it.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Secrets, and what tenants left: what the node itself could do without.
    #[serde(default)]
    pub donor: Vec<Line>,
    /// What makes the disk this node's: what only a copy may lose.
    #[serde(default)]
    pub clone: Vec<Line>,
}

/// Where a node's containerd has its data and its programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Containerd {
    /// Its `root`.
    pub root: String,
    /// Folders with `containerd` and `ctr`, besides those where systems have programs.
    #[serde(default)]
    pub programs: Vec<String>,
}

/// As containerd has it unless it is told otherwise.
impl Default for Containerd {
    fn default() -> Self {
        Self { root: "/var/lib/containerd".into(), programs: Vec::new() }
    }
}

/// What is done to a path of the disk, or to each that a pattern stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Overwrite every file, sync, then remove: for contents that are secret.
    Erase(String),
    /// Remove; the freed blocks are trimmed later.
    Unlink(String),
    /// Leave an empty file of the same name: its absence would mean something else.
    Empty(String),
}

impl Line {
    /// An absolute path; `*` stands for any part of one name.
    #[must_use]
    pub fn pattern(&self) -> &str {
        match self {
            Self::Erase(pattern) | Self::Unlink(pattern) | Self::Empty(pattern) => pattern,
        }
    }
}
