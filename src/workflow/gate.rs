//! Whose turn it is: few runs at a time may be beyond the stage that touches nothing.

use std::sync::Arc;

use super::{
    engine::{Cell, Engine},
    plan,
    run::{Phase, PlannedStep, Position, Run},
    step::Effect as _,
};
use crate::steps::AwaitNode;

impl Engine {
    /// Whether as many others as may be at a time are beyond choosing, when this run is about to go beyond.
    pub(super) async fn crowded(&self, run: &Run) -> Option<usize> {
        if !at_gate(run) {
            return None;
        }
        let cells: Vec<Arc<Cell>> = self.cells().values().cloned().collect();
        let mut before_us = 0;
        for cell in cells {
            let other = &cell.inner.lock().await.run;
            // Of those that are at the gate together, the oldest goes first.
            let counts = if at_gate(other) { other.id < run.id } else { beyond_gate(other) };
            before_us += usize::from(other.id != run.id && counts);
        }
        (before_us >= self.runs_at_once).then_some(before_us)
    }
}

/// About to leave the stage in which nothing is touched.
fn at_gate(run: &Run) -> bool {
    let fresh =
        matches!(run.position(), Some(Position::Forward { phase: Phase::Fresh, step, .. }) if *step == choosing(run));
    fresh && run.cancel.is_none()
}

/// It may have touched something, and has not ended. One that stands does nothing until a person comes, which may take days, and
/// one that watches for a first node as long: they keep nobody waiting.
fn beyond_gate(run: &Run) -> bool {
    !run.stands() && !watches(run) && run.position().is_some_and(|position| position.step() >= choosing(run))
}

/// It only looks whether somebody else makes a node.
fn watches(run: &Run) -> bool {
    run.step_name() == Some(AwaitNode::NAME)
}

/// How many steps of a run's plan are of the stage that touches nothing.
fn choosing(run: &Run) -> usize {
    let stages = plan::stages(&run.spec);
    let first = |step: &PlannedStep| plan::find(stages, step).is_some_and(|(stage, _)| stage.name == stages[0].name);
    run.plan.iter().take_while(|step| first(step)).count()
}
