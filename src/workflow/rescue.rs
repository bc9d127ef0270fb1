//! Bring a node back without any store: a person's last resort, when the run that took it is not there any more.
//!
//! By the same steps as a run pays its debt with, `StartVm` and `ReleaseNode`, from the claim on the node alone. First one look
//! says what would be done, then that is done; every turn of the loop waits. Killed anywhere it is asked again: the claim goes
//! last.

mod kamino;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    delay::Pace,
    step::{Effect, Ports, Seen, StepError, Undone},
};
use crate::{
    cloud::{Accepted, Power},
    cluster::{Node, NodeNote},
    model::{Class, NodeName, RunId},
    policy::{
        obligations::{AsFound, CLAIM, Claim, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED, UnreadableClaim},
        rescue::{Kept, Owner, may},
    },
    steps::{ReleaseNode, StartVm, Started, release_node, start_vm, take_away},
};

/// Why a node is not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RescueError {
    /// There is no such node.
    #[error("there is no node {0} in this cluster; `kubectl get nodes` shows those there are")]
    NoSuchNode(NodeName),
    /// It is somebody's, or the claim is not about it.
    #[error(transparent)]
    Kept(#[from] Kept),
    /// What it is owed can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableClaim),
    /// It carries no claim, and looks as the Python tool leaves nodes.
    #[error("node {node} carries no claim of ours: {seen}. If the Python tool (kamino) has left it so, say --kamino")]
    NobodysSignature {
        /// The node.
        node: NodeName,
        /// What was seen.
        seen: String,
    },
    /// It was tried for long enough to ask whoever is there.
    #[error("node {node} is not back after {minutes} min: {what}; asked again it goes on from there")]
    NotBack {
        /// The node.
        node: NodeName,
        /// For how long it was tried.
        minutes: u64,
        /// What is lacking.
        what: String,
    },
    /// A call that needs somebody else first.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl RescueError {
    /// The page in docs/errors, if it has one.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchNode(_) => None,
            Self::Kept(kept) => Some(kept.code()),
            Self::Unreadable(_) => Some("KW0604"),
            Self::NobodysSignature { .. } => Some("KW0610"),
            Self::NotBack { .. } => Some("KW0611"),
            Self::Step(error) => Some(error.code),
        }
    }
}

/// What a person asks.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "functions have none")]
pub struct Ask<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// What is known of a run.
    pub owner: &'a (dyn Fn(RunId) -> Owner + Sync),
    /// The run that the node is taken from, whatever it is at.
    pub despite: Option<&'a str>,
    /// Take what looks like the Python tool's doing for just that.
    pub kamino: bool,
}

/// What would be done.
#[derive(Debug)]
pub enum Way {
    /// Nothing is wrong with it.
    Nothing(String),
    /// It is given back as its claim says.
    Claimed {
        /// The node.
        node: NodeName,
        /// The claim.
        claim: Box<Claim>,
        /// Its kubelet may have been stopped by a cleaner.
        cleaned: bool,
        /// In words.
        words: Vec<String>,
    },
    /// The Python tool's marks are taken off.
    Kamino {
        /// The machine.
        start: Box<start_vm::Input>,
        /// The marks.
        marks: Box<kamino::Marks>,
        /// In words.
        words: Vec<String>,
    },
}

impl Way {
    /// In words, in order.
    #[must_use]
    pub fn words(&self) -> &[String] {
        match self {
            Self::Nothing(why) => std::slice::from_ref(why),
            Self::Claimed { words, .. } | Self::Kamino { words, .. } => words,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescued {
    /// It is in service, as it was found.
    Back,
    /// Nothing was wrong with it.
    Nothing,
    /// Its machine is gone: there is nothing to give back.
    Lost,
}

/// Looks at a node, and says what would bring it back.
///
/// # Errors
/// It must not be taken from whoever has it, or could not be looked at.
pub async fn look(ports: Ports<'_>, ask: &Ask<'_>) -> Result<Way, RescueError> {
    let found = ports.cluster.node(ask.node).await.map_err(StepError::from)?;
    let node = found.ok_or_else(|| RescueError::NoSuchNode(ask.node.clone()))?;
    let Some(claim) = Claim::on(&node)? else { return kamino::look(ports, &node, ask.kamino).await };
    let cluster = ports.cluster.cluster_id().await.map_err(StepError::from)?;
    let now = ports.clock.now();
    may(&node, &claim, &cluster, (ask.owner)(claim.run), ask.despite, now)?;
    let (namespace, name) = claim.cleaning.split_once('/').unwrap_or_default();
    let view = ports.cluster.cleaning(namespace, name).await.map_err(StepError::from)?;
    let pod = view.pod.is_some_and(|pod| pod.owned.run.as_deref() == Some(claim.run.short().as_str()));
    let proof = ports.cluster.proof(namespace, claim.run).await.map_err(StepError::from)?.is_some();
    let token = release_node::Input::of_claim(&claim, &node.name).token_lives(ports).await?;
    let cleaned = pod || proof || token || release_node::not_back(&node, now).is_some();
    let power = ports.cloud.power(&claim.instance).await.map_err(StepError::from)?;
    let power = power.filter(|power| power.vm_id == claim.vm_id).map(|power| power.state);
    let words = words(&node, &claim, power.as_ref(), (pod, token), cleaned);
    Ok(Way::Claimed { node: node.name, claim: Box::new(claim), cleaned, words })
}

fn words(node: &Node, claim: &Claim, power: Option<&Power>, (pod, token): (bool, bool), cleaned: bool) -> Vec<String> {
    let (name, instance) = (&node.name, claim.instance.name());
    let Some(power) = power else {
        return vec![format!("nothing: instance {instance} is not the machine any more that the claim is about")];
    };
    let mut words = Vec::new();
    match power {
        Power::Running if cleaned && node.boot_id == claim.boot_id => {
            words.push(format!("restart instance {instance}: its kubelet may have been stopped for the cleaning"));
        }
        Power::Running => {}
        Power::Starting => words.push(format!("wait for instance {instance} to start")),
        Power::Stopping | Power::Deallocating => {
            words.push(format!("wait for instance {instance} to stop, and start it"));
        }
        Power::Stopped | Power::Deallocated | Power::Other(_) => words.push(format!("start instance {instance}")),
    }
    if pod {
        words.push(format!("delete pod {}", claim.cleaning));
    }
    words.push(format!("wait until node {name} is really back: Ready, and no sign of its absence left"));
    if token {
        words.push(format!("delete secret {}: the token for its new credential is dead from then on", claim.cleaning));
    }
    let AsFound { unschedulable, scale_down_disabled, do_not_disrupt } = &claim.as_found;
    words.push(if *unschedulable { "leave it cordoned, as it was found".into() } else { "uncordon it".into() });
    for (mark, before) in [(SCALE_DOWN_DISABLED, scale_down_disabled), (DO_NOT_DISRUPT, do_not_disrupt)] {
        words.push(match before {
            Some(value) => format!("set annotation {mark} to {value:?}, as it was found"),
            None => format!("take off annotation {mark}"),
        });
    }
    words.push(format!("take off annotation {CLAIM}"));
    words
}

/// Does what was said; `say` is told what is waited for.
///
/// # Errors
/// It is not back in time, or somebody else has to do something first.
pub async fn carry_out(
    ports: Ports<'_>,
    pace: Pace,
    way: &Way,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Rescued, RescueError> {
    match way {
        Way::Nothing(_) => Ok(Rescued::Nothing),
        Way::Claimed { node, claim, cleaned, words: _ } => {
            Hand { ports, pace, say, run: claim.run, node }.give_back(claim, *cleaned).await
        }
        Way::Kamino { start, marks, words: _ } => {
            let hand = Hand { ports, pace, say, run: RunId(uuid::Uuid::nil()), node: &start.node };
            if hand.started(start).await?.lost {
                return Ok(Rescued::Lost);
            }
            let limits = ("taking off the marks", ReleaseNode::DEADLINE, Duration::ZERO);
            let (observe, act) =
                (async || kamino::observe(ports, marks).await, async || kamino::act(ports, marks).await);
            hand.until_seen(limits, observe, act).await?;
            Ok(Rescued::Back)
        }
    }
}

/// What drives a step here, where there is no journal.
struct Hand<'a> {
    ports: Ports<'a>,
    pace: Pace,
    say: &'a (dyn Fn(&str) + Sync),
    /// For the jitter of pauses only.
    run: RunId,
    node: &'a NodeName,
}

impl Hand<'_> {
    async fn give_back(&self, claim: &Claim, cleaned: bool) -> Result<Rescued, RescueError> {
        if self.started(&start_vm::Input::of_claim(claim, self.node, cleaned)).await?.lost {
            return Ok(Rescued::Lost);
        }
        // The pod first, so that nobody leaves another proof; the claim last, so that a rescue that is killed is asked again.
        let (namespace, name) = claim.cleaning.split_once('/').unwrap_or_default();
        let run = claim.run.short();
        let gone = async || {
            Ok(match take_away::cleaning(self.ports, namespace, name, &run).await? {
                Undone::Gone => Seen::Present(()),
                Undone::Going(what) => Seen::Underway(what),
            })
        };
        let limits = ("taking the pod away", ReleaseNode::DEADLINE, Duration::ZERO);
        self.until_seen(limits, gone, async || Ok(Accepted::default())).await?;
        if let Err(error) = take_away::proof(self.ports, namespace, claim.run).await {
            // No reason to leave the node where it is.
            (self.say)(&format!("its proof stays in namespace {namespace}: {error}"));
        }
        let released = self.drive(&ReleaseNode, &release_node::Input::of_claim(claim, self.node)).await?;
        if released.lost {
            return Ok(Rescued::Lost);
        }
        let told = NodeNote {
            node: self.node.clone(),
            node_uid: claim.node_uid.clone(),
            run: claim.run,
            reason: "Rescued",
            words: format!("a person has brought it back, without its run (kamino-wf run {run})"),
            warning: false,
            at: self.ports.clock.now(),
        };
        if let Err(error) = self.ports.cluster.tell(&told).await {
            (self.say)(&format!("no event says so on the node: {error}"));
        }
        Ok(Rescued::Back)
    }

    /// Started, and seen so once more: an order to stop that was on its way has arrived by then.
    async fn started(&self, want: &start_vm::Input) -> Result<Started, RescueError> {
        let started = self.drive(&StartVm, want).await?;
        if started.lost {
            return Ok(started);
        }
        sleep(ReleaseNode::SETTLES.min(self.pace.settle)).await;
        self.drive(&StartVm, want).await
    }

    async fn drive<E: Effect>(&self, effect: &E, want: &E::Input) -> Result<E::Output, RescueError> {
        let (observe, act) =
            (async || effect.observe(self.ports, want).await, async || effect.act(self.ports, want).await);
        self.until_seen((E::NAME, E::DEADLINE, E::SETTLES.max(E::TAKES)), observe, act).await
    }

    /// Looks, asks and looks, until the effect is seen.
    async fn until_seen<O>(
        &self,
        (name, deadline, settles): (&str, Duration, Duration),
        observe: impl AsyncFn() -> Result<Seen<O>, StepError>,
        act: impl AsyncFn() -> Result<Accepted, StepError>,
    ) -> Result<O, RescueError> {
        let begun = self.ports.clock.now();
        let (mut looks, mut asked, mut throttled) = (0, None::<Timestamp>, Duration::ZERO);
        loop {
            let now = self.ports.clock.now();
            let settled = asked.is_none_or(|asked| past(asked, now) >= settles);
            let (what, due) = match observe().await {
                Ok(Seen::Present(output)) => return Ok(output),
                // Somebody has asked for it before, as good as we would.
                Ok(Seen::Underway(what) | Seen::Awaited { what, .. }) => {
                    asked = Some(now);
                    (what, false)
                }
                Ok(Seen::Partly(what)) => (what, true),
                Ok(Seen::Broken(what)) => (what, settled),
                Ok(Seen::Absent) => (format!("{name} has not taken effect"), settled),
                Ok(Seen::Foreign(what)) => return Err(StepError::refused("KW0004", what).into()),
                Err(error) => (self.bear(error, &mut throttled).await?, false),
            };
            (self.say)(&what);
            if due {
                match act().await {
                    Ok(_) => asked = Some(self.ports.clock.now()),
                    Err(error) => (self.say)(&self.bear(error, &mut throttled).await?),
                }
            }
            if past(begun, now) > deadline + throttled {
                let minutes = past(begun, now).as_secs() / 60;
                return Err(RescueError::NotBack { node: self.node.clone(), minutes, what });
            }
            sleep(self.pace.pause(self.run, looks)).await;
            looks += 1;
        }
    }

    /// What passes by itself is waited for, and said; everything else is for whoever asked.
    async fn bear(&self, error: StepError, throttled: &mut Duration) -> Result<String, StepError> {
        match error.class {
            Class::Throttled { retry_after } => {
                (self.say)(&format!("{}: waiting {} s", error.text, retry_after.as_secs()));
                *throttled += retry_after;
                sleep(retry_after).await;
                Ok(error.text)
            }
            Class::Uncertain | Class::Busy | Class::Preempted => Ok(error.text),
            Class::Denied | Class::Gone | Class::Refused => Err(error),
        }
    }
}

fn past(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}
