//! Takes the Lease, keeps it, and gives it back: one process at a time changes the world.
//!
//! The Lease's epoch is written into the store with every record, and grows with every new holder: the store refuses a
//! writer of an older one. What is promised: two processes never believe at the same time that they may ask for
//! something, whatever their clocks say, as long as their seconds are equally long. What is not: that a request which
//! went out in time also arrives in time; such a request is for a name that its run has chosen, and is found by the look
//! of whoever goes on with the run.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::authority::Authority;
use crate::{
    cluster::{Cluster, ClusterError, Lease, LeaseClaim},
    policy::lease::{Candidate, Claim, claim},
    store::Fence,
};

/// How long the Lease lasts when it is not renewed: how long nothing moves after a node was lost.
const DURATION: Duration = Duration::from_secs(30);
/// Between two renewals: three may be lost before there is too little left to ask for anything.
const RENEW: Duration = Duration::from_secs(5);
/// Between two attempts when the API server does not answer, and the longest pause of a standby.
const RETRY: Duration = Duration::from_secs(2);
/// For one request: a renewal that takes longer comes too late to be of use.
const PATIENCE: Duration = Duration::from_secs(8);

/// Another process has taken the Lease. This one has to end: what it knows may be old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lost the Lease {namespace}/{name} to {holder}; this process ends, and its pod starts again as a standby")]
#[expect(missing_docs, reason = "the text says it")]
pub struct LostLease {
    pub namespace: String,
    pub name: String,
    pub holder: String,
}

/// One process' hold on the Lease.
#[expect(missing_debug_implementations, reason = "ports have none")]
pub struct Leadership {
    /// Where the Lease is.
    pub cluster: Arc<dyn Cluster>,
    /// Who is told.
    pub authority: Arc<Authority>,
    /// The controller's own namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This process.
    pub me: Candidate,
    /// The newest epoch that the store has seen: ours has to be newer, also when the Lease was deleted meanwhile.
    pub seen: Fence,
}

/// The Lease as we saw it, and since when.
struct Sight {
    lease: Option<Lease>,
    since: Instant,
}

impl Leadership {
    /// Takes the Lease as soon as it may, and keeps it for ever.
    ///
    /// # Errors
    /// Only when another has taken it. An API server that does not answer is waited for; meanwhile authority runs out.
    pub async fn hold(&self) -> LostLease {
        let mut held: Option<Lease> = None;
        let mut sight: Option<Sight> = None;
        loop {
            let asked = Instant::now();
            let answer = timeout(PATIENCE, self.round(held.as_ref(), &mut sight)).await;
            if matches!(answer, Ok(Ok(_))) {
                self.authority.note_answer();
            }
            let pause = match answer {
                Ok(Ok(Some(lease))) => {
                    if held.is_none() {
                        info!(lease = %self.place(), epoch = lease.epoch, "leads");
                    }
                    self.authority.grant(Fence(lease.epoch), asked + DURATION);
                    held = Some(lease);
                    RENEW
                }
                Ok(Ok(None)) => match &sight {
                    Some(Sight { lease: Some(other), .. }) if held.is_some() && other.holder != self.me.identity() => {
                        self.authority.withdraw();
                        let holder = other.holder.clone();
                        return LostLease { namespace: self.namespace.clone(), name: self.name.clone(), holder };
                    }
                    _ => RETRY,
                },
                Ok(Err(error)) => {
                    warn!(lease = %self.place(), %error, "the Lease can't be kept up");
                    RETRY
                }
                Err(_) => {
                    warn!(lease = %self.place(), "no answer about the Lease within {} s", PATIENCE.as_secs());
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Looks, and renews or takes what may be had. `None`: it is another's.
    async fn round(&self, held: Option<&Lease>, sight: &mut Option<Sight>) -> Result<Option<Lease>, ClusterError> {
        let lease = self.cluster.lease(&self.namespace, &self.name).await?;
        let now = Instant::now();
        let since = match &sight {
            Some(sight) if sight.lease == lease => sight.since,
            Some(_) | None => now,
        };
        if sight.is_none()
            && let Some(other) = &lease
            && !other.holder.is_empty()
        {
            info!(lease = %self.place(), holder = other.holder, "the Lease is held by another process");
        }
        let epoch = lease.as_ref().map_or(0, |lease| lease.epoch);
        let decision = claim(lease.as_ref(), &self.me, now - since);
        let epoch = match decision {
            Claim::Wait(_) => {
                *sight = Some(Sight { lease, since });
                return Ok(None);
            }
            // Written by a renewal whose answer was lost, or by the one before.
            Claim::Keep => epoch,
            Claim::Take => epoch.max(self.seen.0).max(held.map_or(0, |held| held.epoch)) + 1,
        };
        let want = LeaseClaim { holder: self.me.identity(), duration: DURATION, epoch, taken: decision == Claim::Take };
        let over = lease.as_ref().map(|lease| lease.version.as_str());
        let written = self.cluster.write_lease(&self.namespace, &self.name, &want, over).await;
        *sight = Some(Sight { lease, since });
        match written {
            Ok(lease) => Ok(Some(lease)),
            // Somebody was quicker: the next look says who.
            Err(ClusterError::Exists { .. } | ClusterError::Preempted { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back, so that the next process need not wait. Best effort: it runs out by itself.
    pub async fn release(&self) {
        self.authority.withdraw();
        let giving_back = async {
            let Some(lease) = self.cluster.lease(&self.namespace, &self.name).await? else { return Ok(()) };
            if lease.holder != self.me.identity() {
                return Ok(());
            }
            let want = LeaseClaim { holder: String::new(), duration: DURATION, epoch: lease.epoch, taken: false };
            self.cluster.write_lease(&self.namespace, &self.name, &want, Some(&lease.version)).await.map(|_| ())
        };
        match timeout(RETRY, giving_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(lease = %self.place(), %error, "the Lease was not given back and has to run out"),
            Err(_) => warn!(lease = %self.place(), "the Lease was not given back and has to run out"),
        }
    }
}
