//! What may go of that which runs have left behind, and why not the rest.
//!
//! A run takes away what it made. What is found all the same is of a run that ended without, of one that another store knows,
//! or of one that is not at its end. Only the first may go soon; of the second nobody here knows whether somebody still works
//! on it, so it has to be old.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::{
    cloud::Leftovers,
    cluster::{Leftover, Remains},
    model::{DiskId, RunId, SnapshotId},
};

/// How a run of this store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not at an end.
    Open,
    /// At an end, since then. It never comes back from there.
    Ended(Timestamp),
    /// At an end, and a person said to leave what it has made.
    Abandoned,
}

/// A run of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRun {
    /// Its id.
    pub id: RunId,
    /// How it is doing.
    pub standing: Standing,
}

/// When something has lain around for long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After a run's end, so that nothing races with what the run itself has asked for last, nor with a list that lags behind.
    pub after_end: Duration,
    /// After the making of something that belongs to no run of this store.
    pub unknown: Duration,
}

impl Default for Patience {
    /// Azure's deletions take minutes; and a run that is a week old has long been parked or forgotten.
    fn default() -> Self {
        Self { after_end: Duration::from_hours(1), unknown: Duration::from_hours(7 * 24) }
    }
}

/// What can be left, in the order in which a run's go: what holds comes before what is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// Pod, claim and volume of a name, or what is left of them.
    Cleaning(String),
    /// A copy.
    Disk(DiskId),
    /// A snapshot.
    Snapshot(SnapshotId),
    /// What a donor's cleaner has left as proof.
    Proof(RunId),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cleaning(name) => write!(f, "cleaning {name}"),
            Self::Disk(id) => write!(f, "disk {}", id.name()),
            Self::Snapshot(id) => write!(f, "snapshot {}", id.name()),
            Self::Proof(run) => write!(f, "proof of {run}"),
        }
    }
}

/// Whose something is: Azure's tags hold the whole id, Kubernetes' labels only its short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// By its tag.
    Run(RunId),
    /// By its label.
    Short(String),
}

impl Owner {
    /// The form that people see.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Run(id) => id.short(),
            Self::Short(text) => text.clone(),
        }
    }

    fn is(&self, id: RunId) -> bool {
        match self {
            Self::Run(own) => *own == id,
            Self::Short(text) => *text == id.short(),
        }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is left alone.
    Keep,
    /// It may go.
    Delete,
}

/// Something that was found, what becomes of it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// What it is.
    pub thing: Thing,
    /// Whose it is.
    pub owner: Owner,
    /// What becomes of it.
    pub fate: Fate,
    /// In one line.
    pub reason: String,
}

/// Something that was found.
struct Found {
    thing: Thing,
    owner: Owner,
    /// The uid of its cluster; `None` where no tag says so.
    cluster: Option<String>,
    /// The youngest part's.
    created: Option<Timestamp>,
    /// Why it can't go whoever's it is.
    busy: Option<&'static str>,
    /// Why it can't go unless we know that its run has ended.
    lively: Option<&'static str>,
}

/// Judges all that was found at `now`, run by run, in the order in which it goes.
#[must_use]
pub fn judge(
    cluster: &str,
    cloud: &Leftovers,
    remains: &Remains,
    known: &[KnownRun],
    patience: Patience,
    now: Timestamp,
) -> Vec<Judged> {
    let mut found: Vec<Found> =
        cleanings(cluster, remains).into_iter().chain(resources(cloud)).chain(proofs(cluster, remains)).collect();
    found.sort_by(|a, b| (a.owner.short(), &a.thing).cmp(&(b.owner.short(), &b.thing)));
    let mut judged: Vec<Judged> = Vec::new();
    for found in found {
        let (mut fate, mut reason) = fate(&found, cluster, known, patience, now);
        let holder = judged.iter().find(|it| it.fate == Fate::Keep && it.owner.short() == found.owner.short());
        if let (Fate::Delete, Some(holder)) = (fate, holder) {
            (fate, reason) = (Fate::Keep, format!("{} of the same run is kept", holder.thing));
        }
        judged.push(Judged { thing: found.thing, owner: found.owner, fate, reason });
    }
    judged
}

fn fate(found: &Found, cluster: &str, known: &[KnownRun], patience: Patience, now: Timestamp) -> (Fate, String) {
    let keep = |reason: String| (Fate::Keep, reason);
    let run = found.owner.short();
    if let Some(other) = found.cluster.as_deref().filter(|other| *other != cluster) {
        return keep(format!("run {run} is of another cluster, {other}"));
    }
    let of_this_run = || known.iter().filter(|known| found.owner.is(known.id));
    if of_this_run().any(|known| known.standing == Standing::Open) {
        return keep(format!("run {run} is open"));
    }
    if of_this_run().any(|known| known.standing == Standing::Abandoned) {
        return keep(format!("run {run} was abandoned, and what it left is a person's to take away"));
    }
    let ended = of_this_run().filter_map(|known| match known.standing {
        Standing::Open | Standing::Abandoned => None,
        Standing::Ended(at) => Some(at),
    });
    let old = |since: Timestamp, patience: Duration| {
        SignedDuration::try_from(patience).is_ok_and(|patience| now.duration_since(since) >= patience)
    };
    if let Some(busy) = found.busy {
        return keep(format!("{busy} (run {run})"));
    }
    if let Some(at) = ended.max() {
        return if old(at, patience.after_end) {
            (Fate::Delete, format!("run {run} ended at {at} and left it"))
        } else {
            keep(format!("run {run} ended only at {at}"))
        };
    }
    match (&found.cluster, found.created) {
        (None, _) => keep(format!("no run of this store, and no tag that says which cluster run {run} was for")),
        (Some(_), None) => keep(format!("run {run} is not in this store, and nothing says how old it is")),
        (Some(_), Some(at)) if !old(at, patience.unknown) => {
            keep(format!("run {run} is not in this store; it goes when it is older, made at {at}"))
        }
        (Some(_), Some(at)) => match found.lively {
            Some(lively) => keep(format!("run {run} is not in this store, and {lively}")),
            None => (Fate::Delete, format!("run {run} is not in this store, and it was made at {at}")),
        },
    }
}

/// Pod, claim and volume of one name and one run are one thing: they are taken away by one name.
fn cleanings(cluster: &str, remains: &Remains) -> Vec<Found> {
    let mut parts: BTreeMap<(&str, &str), Vec<&Leftover>> = BTreeMap::new();
    for part in remains.pods.iter().chain(&remains.claims).chain(&remains.volumes) {
        if let Some(run) = &part.owned.run {
            parts.entry((run, &part.name)).or_default().push(part);
        }
    }
    let found = |((run, name), parts): ((&str, &str), Vec<&Leftover>)| Found {
        thing: Thing::Cleaning(name.to_owned()),
        owner: Owner::Short(run.to_owned()),
        cluster: Some(cluster.to_owned()),
        // One that does not say when it was made may be the youngest.
        created: parts
            .iter()
            .map(|part| part.created)
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max()),
        busy: None,
        lively: parts.iter().any(|part| part.running).then_some("its pod runs"),
    };
    parts.into_iter().map(found).collect()
}

fn resources(cloud: &Leftovers) -> impl Iterator<Item = Found> {
    let disks = cloud.disks.iter().filter_map(|disk| {
        Some(Found {
            thing: Thing::Disk(disk.id.clone()),
            owner: Owner::Run(disk.run?),
            cluster: disk.cluster.clone(),
            created: disk.created,
            busy: disk.managed.then_some("a machine has it"),
            lively: None,
        })
    });
    let snapshots = cloud.snapshots.iter().filter_map(|snapshot| {
        Some(Found {
            thing: Thing::Snapshot(snapshot.id.clone()),
            owner: Owner::Run(snapshot.run?),
            cluster: snapshot.cluster.clone(),
            created: snapshot.created,
            busy: None,
            lively: None,
        })
    });
    disks.chain(snapshots)
}

/// A proof says nothing of its age, but which run it is of.
fn proofs<'a>(cluster: &'a str, remains: &'a Remains) -> impl Iterator<Item = Found> + 'a {
    remains.proofs.iter().map(|run| Found {
        thing: Thing::Proof(*run),
        owner: Owner::Run(*run),
        cluster: Some(cluster.to_owned()),
        created: run.began(),
        busy: None,
        lively: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cloud::{Provisioning, Snapshot},
        cluster::Owned,
    };

    const HERE: &str = "here";

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    fn run(number: u128) -> RunId {
        RunId(uuid::Uuid::from_u128(number))
    }

    fn snapshot(of: RunId, cluster: Option<&str>, age: Option<i64>) -> Leftovers {
        let id = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/snapshots/s";
        let snapshot = Snapshot {
            id: id.parse().expect("an id"),
            provisioning: Provisioning::Succeeded,
            source: None,
            created: age.map(|age| now() - hours(age)),
            size_gib: 64,
            run: Some(of),
            cluster: cluster.map(str::to_owned),
        };
        Leftovers { disks: vec![], snapshots: vec![snapshot] }
    }

    fn pod(of: RunId, age: Option<i64>, running: bool) -> Remains {
        let owned = Owned { uid: "u".into(), run: Some(of.short()), deleting: false };
        let created = age.map(|age| now() - hours(age));
        Remains { pods: vec![Leftover { name: "p".into(), owned, created, running }], ..Remains::default() }
    }

    fn known(standing: Standing) -> Vec<KnownRun> {
        vec![KnownRun { id: run(1), standing }]
    }

    fn ended(hours_ago: i64) -> Vec<KnownRun> {
        known(Standing::Ended(now() - hours(hours_ago)))
    }

    #[test]
    fn a_proof_is_as_old_as_its_run() {
        let began = |hours_ago: i64| {
            let at = now() - hours(hours_ago);
            let since = uuid::Timestamp::from_unix(uuid::NoContext, u64::try_from(at.as_second()).expect("later"), 0);
            RunId(uuid::Uuid::new_v7(since))
        };
        let of = |run, known: &[KnownRun]| {
            let remains = Remains { proofs: vec![run], ..Remains::default() };
            let judged = judge(HERE, &Leftovers::default(), &remains, known, Patience::default(), now());
            (judged[0].fate, judged[0].reason.clone())
        };
        let (old, young) = (began(24 * 8), began(24 * 6));
        assert_eq!(of(old, &[]).0, Fate::Delete);
        let (fate, why) = of(young, &[]);
        assert!(fate == Fate::Keep && why.contains("goes when it is older"), "{why}");
        assert_eq!(of(old, &[KnownRun { id: old, standing: Standing::Open }]).0, Fate::Keep);
        let ended = KnownRun { id: young, standing: Standing::Ended(now() - hours(2)) };
        assert_eq!(of(young, &[ended]).0, Fate::Delete);
    }

    #[test]
    fn every_case_has_its_fate_and_its_reason() {
        let (none, open) = (Remains::default(), known(Standing::Open));
        let nothing = Leftovers::default();
        let of = |cluster, age| snapshot(run(1), cluster, age);
        let (keep, delete) = (Fate::Keep, Fate::Delete);
        let rows = [
            (of(Some(HERE), Some(900)), none.clone(), open.clone(), keep, "is open"),
            (of(Some(HERE), Some(900)), none.clone(), known(Standing::Abandoned), keep, "was abandoned"),
            (of(Some(HERE), Some(900)), none.clone(), ended(2), delete, "ended at"),
            (of(Some(HERE), Some(900)), none.clone(), ended(1), delete, "ended at"),
            (of(Some(HERE), Some(900)), none.clone(), ended(0), keep, "ended only at"),
            // The clock was set back: it has not ended for an hour yet.
            (of(Some(HERE), Some(900)), none.clone(), ended(-3), keep, "ended only at"),
            (of(Some("there"), Some(900)), none.clone(), ended(900), keep, "of another cluster, there"),
            (of(Some("there"), Some(900)), none.clone(), vec![], keep, "of another cluster, there"),
            (of(Some(HERE), Some(168)), none.clone(), vec![], delete, "not in this store"),
            (of(Some(HERE), Some(167)), none.clone(), vec![], keep, "goes when it is older"),
            (of(Some(HERE), Some(-900)), none.clone(), vec![], keep, "goes when it is older"),
            (of(Some(HERE), None), none.clone(), vec![], keep, "nothing says how old"),
            (of(None, Some(900)), none.clone(), vec![], keep, "no tag that says which cluster"),
            (of(None, Some(900)), none, ended(2), delete, "ended at"),
            (nothing.clone(), pod(run(1), Some(900), true), vec![], keep, "its pod runs"),
            (nothing.clone(), pod(run(1), Some(900), false), vec![], delete, "not in this store"),
            (nothing.clone(), pod(run(1), None, false), vec![], keep, "nothing says how old"),
            (nothing.clone(), pod(run(1), Some(2), true), ended(2), delete, "ended at"),
            (nothing, pod(run(1), Some(900), false), open, keep, "is open"),
        ];
        for (cloud, remains, known, fate, words) in rows {
            let judged = judge(HERE, &cloud, &remains, &known, Patience::default(), now());
            assert_eq!(judged.len(), 1);
            assert_eq!(judged[0].fate, fate, "{judged:?} of {known:?}");
            assert!(judged[0].reason.contains(words), "no {words:?} in {judged:?}");
        }
    }

    #[test]
    fn what_is_held_waits_for_what_holds_it() {
        let of_both = |pod_of| {
            judge(
                HERE,
                &snapshot(run(1), Some(HERE), Some(900)),
                &pod(pod_of, Some(900), true),
                &[],
                Patience::default(),
                now(),
            )
        };
        let same = of_both(run(1));
        assert_eq!([same[0].fate, same[1].fate], [Fate::Keep; 2], "{same:?}");
        assert_eq!(same[1].reason, "cleaning p of the same run is kept");
        let another = of_both(run(2));
        let snapshot = another.iter().find(|it| matches!(it.thing, Thing::Snapshot(_))).expect("a snapshot");
        assert_eq!(snapshot.fate, Fate::Delete, "another run's pod holds nothing of it: {another:?}");
    }

    #[test]
    fn an_open_run_wins_over_one_of_the_same_short_form() {
        let mut both = ended(900);
        both.push(KnownRun { id: RunId(uuid::Uuid::from_u128(1 | 1 << 100)), standing: Standing::Open });
        let judged =
            judge(HERE, &Leftovers::default(), &pod(run(1), Some(900), false), &both, Patience::default(), now());
        assert_eq!(judged[0].fate, Fate::Keep, "{judged:?}");
    }
}
