//! First contact with Azure: a trial on a scale set that is there to be thrown away, and what becomes of it on a signal.

use anyhow::{Context as _, Result};

use super::{Reach, Signals, cluster};
use crate::{
    clock::{Clock as _, SystemClock},
    cluster::Cluster as _,
    config::Config,
    doctor::{Book, FirstContact, Line, Pace, Planned, Remnant},
    model::ScaleSetId,
};

/// What came of it.
#[derive(Debug)]
pub enum Contact {
    /// Nothing was touched.
    Planned(Planned),
    /// It was tried.
    Tried {
        /// What was seen.
        lines: Vec<Line>,
        /// What could not be taken away or put back.
        left: Vec<Remnant>,
        /// It was broken off by this signal.
        signal: Option<i32>,
    },
}

/// Tries out what is believed of Azure; without `yes` only says what would be done.
///
/// # Errors
/// [`crate::doctor::ContactError`] when the scale set is not one to try things out on: nothing was touched.
pub async fn first_contact(
    config: &Config,
    set: &ScaleSetId,
    yes: bool,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Contact> {
    let nodes = cluster(config).await?.nodes().await;
    let nodes =
        nodes.context("failed to ask which nodes the cluster has, and an instance that is one is never tried on")?;
    let nodes: Vec<_> = nodes.into_iter().map(|node| (node.name.to_string(), node.provider_id)).collect();
    let pools: Vec<_> = config.pools.iter().map(|pool| (pool.name.clone(), pool.scale_set.clone())).collect();
    let reach = Reach::azure(config)?;
    let book = Book::default();
    let (wanted, told) = ((set, SystemClock.new_run()), (&book, tell));
    let contact = FirstContact::admit(&reach.cloud, Pace::default(), wanted, (&pools, &nodes), told).await?;
    if !yes {
        return Ok(Contact::Planned(contact.plan()));
    }
    let mut signals = Signals::listen().context("failed to listen for signals")?;
    let signal = tokio::select! {
        biased;
        signal = signals.next() => Some(signal),
        () = contact.run() => None,
    };
    tell("what was made goes; a signal now leaves it where it is");
    let left = tokio::select! {
        biased;
        _ = signals.next() => contact.unknown(),
        left = contact.take_away() => left,
    };
    Ok(Contact::Tried { lines: book.lines(), left, signal })
}
