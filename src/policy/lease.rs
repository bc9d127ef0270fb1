//! Whose the Lease is to be: keep it, take it, or wait. Pure.
//!
//! The wait is measured by our own clock from the moment at which we saw the Lease as it is now, never by the times in
//! it: clocks of two machines may differ by more than the Lease lasts.

use std::time::Duration;

use crate::cluster::Lease;

/// A process that wants the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The pod it runs in; empty outside of one.
    pub pod: String,
    /// This process, and no other before or after it.
    pub process: String,
}

impl Candidate {
    /// As the Lease's holder is written.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}_{}", self.pod, self.process)
    }
}

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is ours: renew it.
    Keep,
    /// It is nobody's, or its holder is gone.
    Take,
    /// Its holder may be alive; ask again after this time.
    Wait(Duration),
}

/// Decides. `unchanged` is for how long we have seen the Lease exactly as it is.
#[must_use]
pub fn claim(lease: Option<&Lease>, me: &Candidate, unchanged: Duration) -> Claim {
    let Some(lease) = lease else { return Claim::Take };
    if lease.holder == me.identity() {
        return Claim::Keep;
    }
    // Containers of one pod do not overlap, so the process before this one in our pod is gone.
    let before_us = !me.pod.is_empty() && lease.holder.rsplit_once('_').is_some_and(|(pod, _)| pod == me.pod);
    if lease.holder.is_empty() || before_us {
        return Claim::Take;
    }
    match lease.duration.checked_sub(unchanged) {
        None | Some(Duration::ZERO) => Claim::Take,
        Some(left) => Claim::Wait(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> Lease {
        Lease { holder: holder.into(), duration: Duration::from_secs(30), epoch: 3, version: "7".into() }
    }

    fn me() -> Candidate {
        Candidate { pod: "kamino-wf-1".into(), process: "b".into() }
    }

    #[test]
    fn nobodys_is_taken_and_ones_own_is_kept() {
        assert_eq!(claim(None, &me(), Duration::ZERO), Claim::Take);
        assert_eq!(claim(Some(&lease("")), &me(), Duration::ZERO), Claim::Take);
        assert_eq!(claim(Some(&lease("kamino-wf-1_b")), &me(), Duration::ZERO), Claim::Keep);
    }

    #[test]
    fn a_killed_process_of_the_same_pod_is_not_waited_for() {
        assert_eq!(claim(Some(&lease("kamino-wf-1_a")), &me(), Duration::ZERO), Claim::Take);
        let outside = Candidate { pod: String::new(), process: "b".into() };
        assert!(matches!(claim(Some(&lease("_a")), &outside, Duration::ZERO), Claim::Wait(_)), "two laptops are two");
    }

    #[test]
    fn anothers_is_waited_for_until_it_has_not_changed_for_its_whole_time() {
        let other = lease("kamino-wf-2_a");
        assert_eq!(claim(Some(&other), &me(), Duration::from_secs(10)), Claim::Wait(Duration::from_secs(20)));
        assert_eq!(claim(Some(&other), &me(), Duration::from_secs(30)), Claim::Take);
    }
}
