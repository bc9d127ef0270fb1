//! Machines as far as other people's use of an image, and their power, are concerned.

use serde::{Deserialize, Serialize};

use super::ImageRef;
use crate::model::{InstanceId, ResourceId};

/// A virtual machine that is no instance of a Uniform scale set: one of a Flexible set, or one that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its id.
    pub id: ResourceId,
    /// The exact version it was made from, where Azure says.
    pub image: ImageRef,
}

/// Whether a machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It does.
    Running,
    /// It is on its way there.
    Starting,
    /// It is on its way off.
    Stopping,
    /// It does not, and keeps its host.
    Stopped,
    /// It is on its way off, and its host goes to another.
    Deallocating,
    /// It does not, and its host is another's.
    Deallocated,
    /// Azure doesn't say, or in a word that we don't know.
    Other(String),
}

impl Power {
    /// It stays off until somebody starts it.
    #[must_use]
    pub fn is_off(&self) -> bool {
        match self {
            Self::Stopped | Self::Deallocated => true,
            Self::Running | Self::Starting | Self::Stopping | Self::Deallocating | Self::Other(_) => false,
        }
    }
}

/// Whether a machine runs, and which machine by its number it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachinePower {
    /// `vmId`: differs when an instance number is used again.
    pub vm_id: String,
    /// Whether it runs.
    pub state: Power,
}

/// An instance and whether it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Powered {
    /// The instance.
    pub id: InstanceId,
    /// Whether it runs.
    pub power: Power,
}
