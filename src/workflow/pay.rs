//! Paying what a run owes a node that it has taken out of service: before any other undoing, and until it is done. Nothing
//! here gives up, parks or ends; what can't be paid for long asks a person, and goes on being tried.

use tracing::{error, info, warn};

use super::{
    engine::{EngineError, Next, step_at},
    run::{Event, Paying, Phase},
    step::{AnyStep, Seen, StepError},
    turn::Turn,
};
use crate::{model::Class, policy::obligations::Duty};

impl Turn<'_> {
    /// One turn of a run that pays.
    pub(super) async fn pay(&self, paying: Paying) -> Result<Next, EngineError> {
        let owed = self.run.debt.as_ref().map(|debt| debt.duties.clone()).unwrap_or_default();
        let Some((step, any)) = self.payer(&owed) else {
            // No step of the plan pays it: a fault of ours, said once, and the claim on the node says what to do.
            let duties: Vec<&str> = owed.iter().map(|duty| duty.as_str()).collect();
            let text = format!("KW0602: nothing in this run's plan pays {}", duties.join(", "));
            return self.held_up(&paying, text, true).await;
        };
        if paying.phase == Phase::Fresh {
            return self.begin(step, any, &paying).await;
        }
        let Some(input) = self.run.inputs.get(any.name()) else {
            return self.begin(step, any, &paying).await;
        };
        let overdue = self.overdue(paying.since, any.deadline());
        match any.observe(self.engine.ports(), input).await {
            Ok(Seen::Present(_)) => {
                // What the interrupted step asked for may still arrive.
                if let Some(left) = self.settling(any, paying.last_ask) {
                    return Ok(self.settle(left));
                }
                info!(requests = paying.asked, "paid");
                self.record(vec![Event::Paid { at: self.now(), duties: any.pays().to_vec() }]).await
            }
            Ok(Seen::Underway(what) | Seen::Awaited { what, .. }) if overdue => self.held_up(&paying, what, true).await,
            // Nobody else is waited for while a node is away.
            Ok(Seen::Underway(what) | Seen::Awaited { what, .. }) => self.wait(None, &what).await,
            // A part of it is due now.
            Ok(Seen::Partly(_)) => self.ask_to_pay(any, input, &paying, overdue).await,
            Ok(Seen::Absent | Seen::Broken(_)) => match self.unseen(any, paying.phase.asked_at()) {
                Some(left) => Ok(self.settle(left)),
                None => self.ask_to_pay(any, input, &paying, overdue).await,
            },
            // Somebody else's by now: nothing of it is ours to put right.
            Ok(Seen::Foreign(what)) => {
                warn!(what, "not ours any more, left as it is");
                let paid = Event::Paid { at: self.now(), duties: any.pays().to_vec() };
                // Nothing is told on a node that is not ours either.
                self.engine.record(self.cell, vec![paid]).await?;
                Ok(Next::Now)
            }
            Err(error) => self.could_not(&paying, error, overdue).await,
        }
    }

    /// The first step of the plan that pays something of what is owed.
    fn payer(&self, owed: &[Duty]) -> Option<(usize, &'static dyn AnyStep)> {
        (0..self.run.plan.len()).find_map(|index| {
            let (_, any) = step_at(self.run, index)?;
            any.pays().iter().any(|duty| owed.contains(duty)).then_some((index, any))
        })
    }

    /// Chooses the step that pays. What it needs to know was decided before the first write.
    async fn begin(&self, step: usize, any: &dyn AnyStep, paying: &Paying) -> Result<Next, EngineError> {
        let memory = self.engine.memory().await?;
        match any.input(self.context(&memory, self.engine.written().await?)) {
            Ok(input) => self.record(vec![Event::Paying { at: self.now(), step, input }]).await,
            Err(error) => self.held_up(paying, error.text, true).await,
        }
    }

    async fn ask_to_pay(
        &self,
        any: &dyn AnyStep,
        input: &serde_json::Value,
        paying: &Paying,
        overdue: bool,
    ) -> Result<Next, EngineError> {
        let (at, attempt) = (self.now(), paying.asked + 1);
        self.record(vec![Event::Asking { at, attempt, epoch: self.engine.authority.epoch().0 }]).await?;
        match any.act(self.engine.ports(), input).await {
            Ok(accepted) => {
                let told = accepted.retry_after;
                self.record(vec![Event::Asked { at: self.now(), accepted }]).await?;
                self.wait(told, &format!("{} was asked for", any.name())).await
            }
            Err(error) => {
                if error.class != Class::Uncertain {
                    self.record(vec![Event::NotAsked { at: self.now(), why: error.text.clone() }]).await?;
                }
                self.could_not(paying, error, overdue).await
            }
        }
    }

    async fn could_not(&self, paying: &Paying, error: StepError, overdue: bool) -> Result<Next, EngineError> {
        let StepError { class, code, text } = error;
        match class {
            Class::Throttled { retry_after } => self.wait_stored(retry_after, &text, true, vec![]).await,
            Class::Denied => self.held_up(paying, format!("{code}: {text}"), true).await,
            Class::Uncertain | Class::Busy | Class::Preempted | Class::Gone | Class::Refused => {
                self.held_up(paying, format!("{code}: {text}"), overdue).await
            }
        }
    }

    /// Waits and tries again; asks a person, once, if it is time to.
    async fn held_up(&self, paying: &Paying, text: String, ask: bool) -> Result<Next, EngineError> {
        if ask && paying.person.is_none() {
            error!(text, "a node can't be given back: a person is asked, and it goes on being tried");
            self.record(vec![Event::PersonAsked { at: self.now(), why: text.clone() }]).await?;
        }
        self.wait(None, &text).await
    }
}
