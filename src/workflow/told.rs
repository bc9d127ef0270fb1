//! What is told on the node of a donor that is out of service, as Events of it: whoever wonders about a cordoned node asks
//! `kubectl describe node`.
//!
//! Told when the journal has it, each reason once a run. It takes two seconds at most, and nothing fails by it: the journal is the
//! record, and the claim on the node says all that is needed to put it right. What a crash leaves untold stays so.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use tracing::warn;

use super::{
    engine::{Engine, step_at},
    run::{Event, Position, Run},
};
use crate::{
    cluster::NodeNote,
    model::NodeName,
    policy::obligations::{ABSENCE, Claim},
};

/// The API server has so long for one: a node that is held is not kept waiting for words.
const PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Tells what became durable.
    pub(super) async fn tell(&self, notes: Vec<NodeNote>) {
        for note in notes {
            let (node, reason) = (&note.node, note.reason);
            match timeout(PATIENCE, self.cluster.tell(&note)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%node, reason, %error, "an event could not be told on the node"),
                Err(_) => warn!(%node, reason, "an event could not be told on the node: no answer"),
            }
        }
    }
}

/// What an event has to tell, by the run before it.
pub(super) fn note(before: &Run, event: &Event) -> Option<NodeNote> {
    before.debt.as_ref()?;
    let read = |name: &str| before.outputs.get("ReadNode")?.get(name).and_then(Value::as_str);
    let node = NodeName::parse(read("node")?).ok()?;
    let rescue = Claim::restore_command(&node);
    let paying = matches!(before.position(), Some(Position::Paying(_)));
    let (reason, words, warning) = if let Event::Undoing { why, .. } = event {
        ("GivingBack", format!("the update goes no further, and the node is given back: {why}"), true)
    } else if let Event::PersonAsked { why, .. } = event {
        ("NeedsPerson", format!("it can't be given back so far: {why}. By hand: {rescue}"), true)
    } else if matches!(event, Event::Confirmed { .. }) || paying && matches!(event, Event::Paid { .. }) {
        let (_, any) = step_at(before, before.position()?.step())?;
        let (reason, words) = any.tells()?;
        let minutes = ABSENCE.as_secs() / 60;
        let limit = format!("; for {minutes} minutes at most. If nobody brings it back: {rescue}");
        (reason, format!("{words}{}", if any.owes().is_empty() { "" } else { &limit }), false)
    } else {
        return None;
    };
    Some(NodeNote {
        node_uid: read("node_uid")?.to_owned(),
        run: before.id,
        reason,
        words: format!("{words} (kamino-wf run {}, scale set {})", before.id.short(), before.spec.scale_set.name()),
        warning,
        at: event.at(),
        node,
    })
}
