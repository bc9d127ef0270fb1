//! How nasty the world is. What Azure always does is not here: it is in the world itself.

use fastrand::Rng;

/// Chances of what goes wrong now and then, out of a thousand, and how often at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// An accepted creation answers 404 for a while.
    pub stale_reads: u32,
    /// The answer to a request is lost, after it took effect.
    pub lost_answers: u32,
    /// A request never arrives.
    pub lost_requests: u32,
    /// 429 with a Retry-After of 1,200 s.
    pub throttles: u32,
    /// An operation ends as Failed, answered with a 200.
    pub failures: u32,
    /// The cleaning pod is killed half-way.
    pub killed_pods: u32,
    /// How many of all these there are at most.
    pub budget: u32,
}

impl Faults {
    /// Only what Azure always does.
    #[must_use]
    pub fn none() -> Self {
        Self { stale_reads: 0, lost_answers: 0, lost_requests: 0, throttles: 0, failures: 0, killed_pods: 0, budget: 0 }
    }

    /// As nasty as a bad day.
    #[must_use]
    pub fn bad_day() -> Self {
        Self {
            stale_reads: 500,
            lost_answers: 150,
            lost_requests: 100,
            throttles: 30,
            failures: 60,
            killed_pods: 200,
            budget: 12,
        }
    }

    /// One chance out of a thousand.
    pub(super) fn strikes(&mut self, chance: u32, rng: &mut Rng) -> bool {
        let strikes = chance > 0 && self.budget > 0 && rng.u32(0..1000) < chance;
        if strikes {
            self.budget -= 1;
        }
        strikes
    }
}

/// What nobody knows of Azure without asking it (docs/ASSUMPTIONS.md): everything has to pass under both answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// A PATCH merges an image reference into the old one; otherwise it replaces it.
    pub patch_merges_image: bool,
    /// A stale `If-Match` on a scale set is refused.
    pub etag_enforced: bool,
}

impl Habits {
    /// By chance.
    pub(super) fn by_chance(rng: &mut Rng) -> Self {
        Self { patch_merges_image: rng.bool(), etag_enforced: rng.bool() }
    }
}
