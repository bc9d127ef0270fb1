//! What speaks against a profile: of a kind of node that nobody here has seen.

use super::{
    Refusal,
    clauses::{UNSEEN, UNSEEN_IN_PLACE},
};
use crate::{
    model::{Capture, Profile},
    policy::canary::Canary,
};

/// A profile is ours when a donor was seen to stay itself, and a copy to join as somebody new. Of another the first node that is
/// made from each version has to show it.
#[must_use]
pub fn unseen(profile: &Profile, capture: Capture, canary: &Canary) -> Option<Refusal> {
    let custom = profile.custom()?;
    match (capture, canary) {
        (Capture::Stop, _) => Some(UNSEEN_IN_PLACE.found(format!("{}, with capture: stop", custom.name))),
        (Capture::Live, Canary::None) => Some(UNSEEN.found(format!("{}, without a canary", custom.name))),
        (Capture::Live, Canary::FirstNode(_)) => None,
    }
}
