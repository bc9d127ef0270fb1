//! One sweep after what runs have left behind: a look at all of it, and at most one request for each run.
//!
//! What may go is decided in `policy/leftovers.rs`; how it goes is what undo does, step by step: look whose it is, ask for the
//! next thing. Absent: loops that wait (a sweep says when the next one pays), writes to the store (a repeat is safe: what is
//! gone stays gone).

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use tracing::{info, warn};

use super::{
    engine::{Engine, EngineError},
    step::{Ports, StepError, Undone},
    summary::Summary,
};
use crate::{
    cloud::Leftovers,
    model::{Class, GroupId},
    policy::leftovers::{Fate, Judged, KnownRun, Owner, Patience, Standing, Thing, judge},
    steps::take_away,
};

/// Requests that change something, in one sweep: a store that was lost leaves hundreds of things, and Azure's writes are
/// rationed. The next sweep goes on.
const REQUESTS_MAX: usize = 20;
/// To the next sweep when something is on its way: pods go in seconds, disks in a minute.
const SOON: Duration = Duration::from_mins(1);

/// Something that was asked to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// What, as in `disk kwf-pool1-0123456789ab`.
    pub thing: String,
    /// Its run.
    pub run: String,
    /// Why it may go.
    pub reason: String,
    /// How far it is.
    pub now: String,
}

/// Something that was found and left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What.
    pub thing: String,
    /// Its run.
    pub run: String,
    /// Why.
    pub reason: String,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What it was about.
    pub thing: String,
    /// The page in docs/errors.
    pub code: &'static str,
    /// What happened.
    pub text: String,
}

/// What a sweep found and asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SweepReport {
    /// Asked to go, or on its way.
    pub swept: Vec<Swept>,
    /// Left alone.
    pub held: Vec<Held>,
    /// What failed; the next sweep tries again.
    pub troubles: Vec<Trouble>,
    /// No sweep before this: somebody asked for a pause.
    pub not_before: Option<Timestamp>,
    /// Something is on its way, or had to wait for its turn: the next sweep pays soon.
    pub again_in: Option<Duration>,
}

impl Engine {
    /// One sweep over these resource groups, the cleaning namespace, and the groups of all runs that this store knows.
    ///
    /// # Errors
    /// The store can't be read. What Azure or Kubernetes said is in the report.
    pub async fn sweep(
        &self,
        groups: impl IntoIterator<Item = GroupId>,
        namespace: &str,
        patience: Patience,
    ) -> Result<SweepReport, EngineError> {
        let before = self.summaries().await?;
        let groups: BTreeSet<GroupId> =
            groups.into_iter().chain(before.iter().map(|run| run.scale_set.group())).collect();
        // Read again after the looks: what a run of this store has made meanwhile is then known to be its.
        let known = async || Ok::<_, EngineError>(self.summaries().await?.iter().map(known).collect());
        sweep(self.ports(), &groups, namespace, patience, &|| self.authority.may_change(), known).await
    }
}

/// What is known of a run, for who decides about what it has made.
#[must_use]
pub fn known(run: &Summary) -> KnownRun {
    let standing = match run.state.as_str() {
        "abandoned" => Standing::Abandoned,
        _ if run.open() => Standing::Open,
        _ => Standing::Ended(run.moved),
    };
    KnownRun { id: run.id, standing }
}

/// One sweep. `may_change` is asked before each request that changes something; `known`, after everything was looked at.
///
/// # Errors
/// What `known` says.
pub async fn sweep<E>(
    ports: Ports<'_>,
    groups: &BTreeSet<GroupId>,
    namespace: &str,
    patience: Patience,
    may_change: &(dyn Fn() -> bool + Sync),
    known: impl AsyncFnOnce() -> Result<Vec<KnownRun>, E>,
) -> Result<SweepReport, E> {
    let mut report = SweepReport::default();
    let looks = async {
        let cluster = ports.cluster.cluster_id().await?;
        let remains = ports.cluster.leftovers(namespace).await?;
        Ok::<_, StepError>((cluster, remains))
    };
    let (cluster, remains) = match looks.await {
        Ok(seen) => seen,
        // Without knowing which pods there are nothing is taken from under one.
        Err(error) => {
            failed(&mut report, ports, format!("what is left in namespace {namespace}"), error);
            return Ok(report);
        }
    };
    let mut cloud = Leftovers::default();
    for group in groups {
        match ports.cloud.leftovers(group).await.map_err(StepError::from) {
            Ok(Leftovers { disks, snapshots }) => {
                cloud.disks.extend(disks);
                cloud.snapshots.extend(snapshots);
            }
            // A group that went took all with it.
            Err(error) if error.class == Class::Gone => {}
            Err(error) => {
                if failed(&mut report, ports, format!("what is left in resource group {}", group.name()), error) {
                    return Ok(report);
                }
            }
        }
    }
    let known = known().await?;
    let judged = judge(&cluster, &cloud, &remains, &known, patience, ports.clock.now());
    carry_out(ports, namespace, judged, may_change, &mut report).await;
    for Held { thing, run, reason } in &report.held {
        info!(thing, run, reason, "found and left alone");
    }
    Ok(report)
}

/// At most one request for each run, and at most [`REQUESTS_MAX`] in all.
async fn carry_out(
    ports: Ports<'_>,
    namespace: &str,
    judged: Vec<Judged>,
    may_change: &(dyn Fn() -> bool + Sync),
    report: &mut SweepReport,
) {
    let mut busy: BTreeSet<String> = BTreeSet::new();
    for Judged { thing, owner, fate, reason } in judged {
        let (run, name) = (owner.short(), thing.to_string());
        if fate == Fate::Keep {
            report.held.push(Held { thing: name, run, reason });
            continue;
        }
        if busy.contains(&run) || report.swept.len() >= REQUESTS_MAX || !may_change() {
            report.again_in = Some(SOON);
            continue;
        }
        let gone = match (&thing, &owner) {
            (Thing::Cleaning(name), owner) => take_away::cleaning(ports, namespace, name, &owner.short()).await,
            (Thing::Disk(id), Owner::Run(run)) => take_away::disk(ports, id, *run).await,
            (Thing::Snapshot(id), Owner::Run(run)) => take_away::snapshot(ports, id, *run).await,
            (Thing::Proof(run), _) => take_away::proof(ports, namespace, *run).await,
            // Azure's tags hold the whole id.
            (Thing::Disk(_) | Thing::Snapshot(_), Owner::Short(_)) => continue,
        };
        match gone {
            // The list was behind.
            Ok(Undone::Gone) => {}
            Ok(Undone::Going(now)) => {
                info!(thing = name, run, reason, now, "left behind, and taken away");
                busy.insert(run.clone());
                report.again_in = Some(SOON);
                report.swept.push(Swept { thing: name, run, reason, now });
            }
            Err(error) => {
                busy.insert(run);
                if failed(report, ports, name, error) {
                    return;
                }
            }
        }
    }
}

/// Notes a failed call; true when it ends the sweep.
fn failed(report: &mut SweepReport, ports: Ports<'_>, thing: String, error: StepError) -> bool {
    let StepError { class, code, text } = error;
    warn!(thing, code, text, "a sweep did not succeed with this; the next one tries again");
    report.troubles.push(Trouble { thing, code, text });
    let Class::Throttled { retry_after } = class else { return false };
    report.not_before = ports.clock.now().checked_add(retry_after).ok().or(Some(Timestamp::MAX));
    true
}
