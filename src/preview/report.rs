//! The plan of one pool, as it is printed.

use serde::Serialize;

use crate::{
    model::{Capture, InstanceId, NodeName, ScaleSetId, VersionId},
    policy::{preflight::Refusal, ranking, retention},
};

/// What would become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prospect {
    /// It would make a new image.
    Update,
    /// It would end at once: the newest image is good enough.
    NotNeeded,
    /// It would be refused, and nothing would be touched.
    Refused,
    /// One is open, and another would be rejected.
    Open,
    /// Something did not answer, so nobody knows.
    Unknown,
}

impl Prospect {
    /// The word in tables and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::NotNeeded => "not-needed",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that a run makes or takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// As in `snapshot`.
    pub kind: &'static str,
    /// Its name; `<run>` stands for the run's own digits, which nobody knows yet.
    pub name: String,
    /// What it is for, or why it goes.
    pub why: String,
}

/// A part of the scale set's model, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which part.
    pub field: String,
    /// What it says.
    pub from: String,
    /// What it would say.
    pub to: String,
}

/// What a run of a pool would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolPlan {
    /// What people call the pool.
    pub pool: String,
    /// Its scale set.
    pub scale_set: ScaleSetId,
    /// How the donor's disk would be captured.
    pub capture: Capture,
    /// What would become of it.
    pub prospect: Prospect,
    /// Why, where that is not plain.
    pub why: Option<String>,
    /// The open run.
    pub open_run: Option<String>,
    /// Everything that speaks against a run.
    pub refusals: Vec<Refusal>,
    /// By how many seconds the API server's clock is ahead of ours; its own is the one that counts.
    pub clock_ahead: Option<i64>,
    /// Every node of the pool, best first, with the reason.
    pub nodes: Vec<ranking::Verdict>,
    /// The node that would be the donor.
    pub donor: Option<NodeName>,
    /// Its instance.
    pub instance: Option<InstanceId>,
    /// The version that would be made.
    pub version: Option<VersionId>,
    /// What would be made.
    pub creates: Vec<Object>,
    /// What would be different in the model.
    pub model: Vec<Change>,
    /// What would be taken away again.
    pub deletes: Vec<Object>,
    /// Every version that there is, newest first, and whether it would stay.
    pub versions: Vec<retention::Verdict>,
    /// How the version would be tried, if it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
}

impl PoolPlan {
    /// Nothing is known yet.
    pub(super) fn new(pool: &str, scale_set: &ScaleSetId, capture: Capture) -> Self {
        Self {
            pool: pool.to_owned(),
            scale_set: scale_set.clone(),
            capture,
            prospect: Prospect::Update,
            why: None,
            open_run: None,
            refusals: Vec::new(),
            clock_ahead: None,
            nodes: Vec::new(),
            donor: None,
            instance: None,
            version: None,
            creates: Vec::new(),
            model: Vec::new(),
            deletes: Vec::new(),
            versions: Vec::new(),
            canary: None,
        }
    }
}
