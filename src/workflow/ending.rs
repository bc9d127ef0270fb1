//! How a run ends that has come to its last step, or is stopped when its update had succeeded already.

use serde::de::DeserializeOwned;

use super::{
    run::{Outcome, Run},
    step::Effect as _,
};
use crate::steps::{CanaryNode, Verdict, WithdrawVersion, Withdrawn};

fn output<T: DeserializeOwned>(run: &Run, step: &str) -> Option<T> {
    run.outputs.get(step).and_then(|output| serde_json::from_value(output.clone()).ok())
}

/// Done, unless the version's first node was bad: what became of it is then a person's to look at.
pub(super) fn ending(run: &Run) -> Outcome {
    let bad = match output(run, CanaryNode::NAME) {
        None | Some(Verdict::Untried | Verdict::Passed { .. }) => return Outcome::Done,
        Some(bad @ Verdict::Failed { .. }) => bad.in_words(),
    };
    let version = run.outputs.get("ChooseNames").and_then(|names| names["version"].as_str()).unwrap_or_default();
    let version = version.rsplit('/').next().unwrap_or_default();
    let why = match output(run, WithdrawVersion::NAME) {
        Some(Withdrawn::Withdrawn) => {
            format!("KW0260: version {version} is withdrawn, new nodes come from the one before it: {bad}")
        }
        Some(Withdrawn::Gone) => format!("KW0260: version {version} was deleted by somebody: {bad}"),
        Some(Withdrawn::OnlyOne) => {
            format!(
                "KW0262: version {version} STAYS PUBLISHED, since no other version is, and new nodes take it: {bad}"
            )
        }
        None | Some(Withdrawn::NotNeeded) => {
            format!("KW0262: version {version} STAYS PUBLISHED, it was not withdrawn, and new nodes take it: {bad}")
        }
    };
    Outcome::NeedsPerson { why }
}
