//! Where a run waits for a person to say yes: between two stages, never while a node is out of service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For how long a run waits for an answer. A week has somebody at work in it; longer, and what was captured is stale, and
/// its snapshot and copy are paid for.
pub const PATIENCE: Duration = Duration::from_hours(7 * 24);

/// What is asked before a stage. Stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// May this donor's disk be captured?
    Capture,
    /// May this scale set's model be changed for the first time, which can't be taken back?
    Adopt,
    /// May new nodes be made from this version?
    Switch,
    /// May what is old be deleted, and the scale set grow?
    Tidy,
}

impl Gate {
    /// In the order in which a run comes to them. Of two before one stage only the first is asked.
    pub const ALL: [Self; 4] = [Self::Capture, Self::Adopt, Self::Switch, Self::Tidy];

    /// The word for it, in settings, records and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Adopt => "adopt",
            Self::Switch => "switch",
            Self::Tidy => "tidy",
        }
    }

    /// The stage that it is before.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Adopt | Self::Switch => "switch",
            Self::Tidy => "tidy",
        }
    }

    /// The gate that a run comes to before a stage. `first` says whether the scale set does not follow the image yet.
    #[must_use]
    pub fn before(stage: &str, asked: &[Self], first: bool) -> Option<Self> {
        let due = |gate: &Self| gate.stage() == stage && asked.contains(gate) && (first || *gate != Self::Adopt);
        Self::ALL.into_iter().find(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_before_its_stage_only_and_adopting_is_asked_once() {
        let both = [Gate::Switch, Gate::Adopt];
        for (stage, asked, first, expected) in [
            ("switch", &both[..], true, Some(Gate::Adopt)),
            ("switch", &both[..], false, Some(Gate::Switch)),
            ("switch", &both[1..], false, None),
            ("capture", &both[..], true, None),
            ("capture", &[Gate::Capture][..], true, Some(Gate::Capture)),
            ("tidy", &[Gate::Tidy][..], false, Some(Gate::Tidy)),
            ("publish", &Gate::ALL[..], true, None),
        ] {
            assert_eq!(Gate::before(stage, asked, first), expected, "{stage} {asked:?} {first}");
        }
    }

    #[test]
    fn the_stored_word_is_the_one_that_people_use() {
        for gate in Gate::ALL {
            assert_eq!(serde_json::to_value(gate).expect("a word"), gate.as_str());
        }
    }
}
