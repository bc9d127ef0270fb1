//! Empty the donor of its tenants, as gently as `kubectl drain` does it.
//!
//! Effect: evictions, and the pods go within their own grace. A repeat is safe: each pod is read right before it is asked, and
//! every request carries its uid, so that a pod that came back under the same name is never hit. Undo: none. Pods that went are
//! elsewhere by now and do not come back; the cordon is another step's to take away. Never touched: pods of other nodes, pods
//! that a budget protects, what nobody would make again (unless a named person has decided it).
//!
//! What blocks is said in the text of each look, with the time since when by the budget's own condition, which survives every
//! restart of ours; and in the answer to each request, which is recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    cloud::Accepted,
    cluster::{Budget, ClusterError, Eviction, Node, Pod, PodLife, PodRef},
    model::{Class, NodeName},
    policy::{
        drain::{DrainPolicy, Question, Verdict, daemon_set, verdict},
        evictions::{Request, Standing, hindrances, standing},
    },
    workflow::{Context, Decide, Effect, Ports, Seen, StepError, Undone},
};

use super::{RankNodes, Ranked};

/// The step.
#[derive(Debug)]
pub struct DrainNode;

/// What is drained, and what may be done to its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The node.
    pub node: NodeName,
    /// The uid of its object: another node of that name is not drained.
    pub uid: String,
    /// When it was cordoned: the drain's deadline counts from here.
    pub cordoned: Timestamp,
    /// What may be done.
    pub policy: DrainPolicy,
}

/// The node has nothing on it any more that had to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The pods that stayed, and why.
    pub left: Vec<Left>,
}

/// A pod that stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Namespace and name.
    pub pod: String,
    /// Why.
    pub why: String,
}

/// Before pods that were refused by something that no look shows are asked again: two records each time, 240 an hour.
const AGAIN: Duration = Duration::from_secs(30);

/// Of the words that are recorded of one request.
const WORDS_CHARS_MAX: usize = 2000;

#[async_trait]
impl Effect for DrainNode {
    const NAME: &'static str = "DrainNode";
    /// The longest that settings may ask for, and a bit: the drain's own deadline counts from the cordon.
    const DEADLINE: Duration = Duration::from_mins(65);
    const TELLS: Option<(&'static str, &'static str)> = Some(("Drained", "no pod is left on it that has to go"));
    type Input = Input;
    type Output = Drained;

    fn input(&self, context: Context<'_>) -> Result<Input, StepError> {
        let Ranked { donor, .. } = context.output(RankNodes::NAME)?;
        Ok(Input { node: donor.node, uid: donor.node_uid, cordoned: context.now, policy: context.spec.drain.clone() })
    }

    async fn observe(&self, ports: Ports<'_>, want: &Input) -> Result<Seen<Drained>, StepError> {
        let node = held(ports, want).await?;
        let standing = look(ports, want).await?;
        if standing.is_empty() {
            let left = standing.left.into_iter().map(|(pod, why)| Left { pod: pod.to_string(), why }).collect();
            return Ok(Seen::Present(Drained { left }));
        }
        in_time(ports, want, &standing)?;
        if !node.ready {
            // Nobody would confirm that a pod has gone.
            return Ok(Seen::Underway(format!(
                "node {} is not Ready: nothing is evicted; {}",
                want.node,
                standing.words()
            )));
        }
        Ok(if standing.requests(want.policy.max_parallel).is_empty() {
            Seen::Underway(standing.words())
        } else {
            Seen::Partly(standing.words())
        })
    }

    async fn act(&self, ports: Ports<'_>, want: &Input) -> Result<Accepted, StepError> {
        let node = held(ports, want).await?;
        let standing = look(ports, want).await?;
        let requests = if node.ready { standing.requests(want.policy.max_parallel) } else { Vec::new() };
        // As many at a time as are asked for, and no more are asked for than may be on their way.
        let answers = join_all(requests.iter().map(|request| ask(ports, want, request))).await;
        let mut said = Vec::new();
        let mut again = false;
        let mut failed: Option<StepError> = None;
        for answer in answers {
            match answer {
                Ok(Answer { words, refused }) => {
                    again |= refused;
                    said.push(words);
                }
                Err(error) => {
                    let worse = failed.as_ref().is_none_or(|failed| weight(error.class()) > weight(failed.class));
                    failed = if worse { Some(error.into()) } else { failed };
                }
            }
        }
        if let Some(mut error) = failed {
            said.insert(0, error.text);
            error.text = cut(&said.join("; "));
            return Err(error);
        }
        Ok(Accepted {
            retry_after: again.then_some(AGAIN),
            said: Some(cut(&said.join("; "))).filter(|said| !said.is_empty()),
            ..Accepted::default()
        })
    }

    async fn undo(&self, _ports: Ports<'_>, _want: &Input) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

/// The node, if it is still the one that was taken out of service for this.
async fn held(ports: Ports<'_>, want: &Input) -> Result<Node, StepError> {
    let Some(node) = ports.cluster.node(&want.node).await? else {
        return Err(StepError::gone("KW0412", format!("node {} does not exist any more", want.node)));
    };
    if node.uid != want.uid {
        let text = format!("node {} is another one by now (uid {}, not {})", want.node, node.uid, want.uid);
        return Err(StepError::gone("KW0412", text));
    }
    if !node.unschedulable {
        let text = format!(
            "node {} was uncordoned by somebody while it was drained: what went would come back at once",
            want.node
        );
        return Err(StepError::refused("KW0413", text));
    }
    Ok(node)
}

/// What is known of a node's pods, and of what protects them.
struct Tenants {
    pods: Vec<Pod>,
    budgets: Vec<Budget>,
    daemon_sets: BTreeMap<(String, String), bool>,
}

/// Reads a node's pods, their `DaemonSets`, and the budgets of those that may go.
async fn tenants(
    ports: Ports<'_>,
    node: &NodeName,
    policy: &DrainPolicy,
    cordoned: Option<Timestamp>,
) -> Result<Tenants, StepError> {
    let pods = ports.cluster.pods_on(node).await?;
    let daemon_sets = daemon_sets(ports, &pods).await?;
    let question = Question { policy, cordoned, now: ports.clock.now(), daemon_sets: &daemon_sets };
    let may_be_limited = |pod: &&Pod| {
        pod.life == PodLife::Running && pod.deleting.is_none() && verdict(pod, &question) == Verdict::Evict
    };
    let namespaces: BTreeSet<&str> = pods.iter().filter(may_be_limited).map(|pod| pod.id.namespace.as_str()).collect();
    let mut budgets: Vec<Budget> = Vec::new();
    for namespace in namespaces {
        budgets.extend(ports.cluster.budgets(namespace).await?);
    }
    Ok(Tenants { pods, budgets, daemon_sets })
}

/// What would keep a node that is in service from being emptied.
pub(super) async fn hindered(
    ports: Ports<'_>,
    node: &NodeName,
    policy: &DrainPolicy,
) -> Result<Vec<String>, StepError> {
    let Tenants { pods, budgets, daemon_sets } = tenants(ports, node, policy, None).await?;
    let question = Question { policy, cordoned: None, now: ports.clock.now(), daemon_sets: &daemon_sets };
    Ok(hindrances(&pods, &budgets, &question))
}

/// How the node's pods stand.
async fn look(ports: Ports<'_>, want: &Input) -> Result<Standing, StepError> {
    let (policy, cordoned) = (&want.policy, Some(want.cordoned));
    let Tenants { pods, budgets, daemon_sets } = tenants(ports, &want.node, policy, cordoned).await?;
    let question = Question { policy, cordoned, now: ports.clock.now(), daemon_sets: &daemon_sets };
    let standing = standing(&pods, &budgets, &question);
    if !standing.refused.is_empty() {
        return Err(StepError::refused(
            "KW0411",
            format!("node {} can't be drained: {}", want.node, standing.refusals()),
        ));
    }
    Ok(standing)
}

/// Which of the `DaemonSets` that pods name are there.
async fn daemon_sets(ports: Ports<'_>, pods: &[Pod]) -> Result<BTreeMap<(String, String), bool>, StepError> {
    let named: BTreeSet<(String, String)> = pods.iter().filter_map(daemon_set).collect();
    let mut there = BTreeMap::new();
    for (namespace, name) in named {
        let exists = ports.cluster.daemon_set_exists(&namespace, &name).await?;
        there.insert((namespace, name), exists);
    }
    Ok(there)
}

/// The drain has its own deadline: the whole absence has a budget, and the rest of it is needed.
fn in_time(ports: Ports<'_>, want: &Input, standing: &Standing) -> Result<(), StepError> {
    let elapsed = Duration::try_from(ports.clock.now().duration_since(want.cordoned)).unwrap_or_default();
    if elapsed <= want.policy.deadline() {
        return Ok(());
    }
    let minutes = want.policy.deadline_seconds.div_ceil(60);
    let text = format!("node {} is not empty {minutes} min after its cordon: {}", want.node, standing.words());
    Err(StepError::refused("KW0410", text))
}

/// What became of one request.
struct Answer {
    words: String,
    /// It was refused, and no look says until when.
    refused: bool,
}

/// Reads the pod once more, and asks if it is still the one, still here, and still to go.
async fn ask(ports: Ports<'_>, want: &Input, request: &Request) -> Result<Answer, ClusterError> {
    let (Request::Evict(id) | Request::Delete(id, _)) = request;
    let said = |words: String| Answer { words, refused: false };
    let refused = |words: String| Answer { words, refused: true };
    let now = ports.clock.now();
    let Some(pod) = still_to_go(ports, want, id, now).await? else {
        return Ok(said(format!("{id} is not to be asked any more")));
    };
    if let (Request::Delete(_, budgets), Some(force)) = (request, want.policy.forced(now)) {
        ports.cluster.delete_gently(&pod.id).await?;
        return Ok(said(format!("deleted {id} past {budgets}: force by {}, {}", force.by, force.why)));
    }
    Ok(match ports.cluster.evict(&pod.id).await? {
        Eviction::Accepted => said(format!("evicted {id}")),
        Eviction::Gone => said(format!("{id} was gone already")),
        Eviction::Blocked { budget, message, retry_after: _ } => {
            let budget = budget.map_or_else(String::new, |name| format!(" by budget {}/{name}", id.namespace));
            refused(format!("{id} is blocked{budget}: {message}"))
        }
        Eviction::NamespaceTerminates(message) => {
            refused(format!("{id} goes with its namespace, which is being deleted: {message}"))
        }
        Eviction::SeveralBudgets(message) => refused(format!("{id} is under more than one budget: {message}")),
        Eviction::NotAdmitted(message) => refused(format!("{id} is held by an admission rule: {message}")),
    })
}

/// The pod as it is now, if it is the same one, on this node, not on its way, and still nothing speaks against it.
async fn still_to_go(ports: Ports<'_>, want: &Input, id: &PodRef, now: Timestamp) -> Result<Option<Pod>, ClusterError> {
    let fresh = ports.cluster.pod(&id.namespace, &id.name).await?;
    let here = |pod: &Pod| pod.id == *id && pod.node.as_deref() == Some(want.node.as_str()) && pod.deleting.is_none();
    let Some(pod) = fresh.filter(here) else { return Ok(None) };
    // An orphan's DaemonSet was looked for a moment ago.
    let daemon_sets = BTreeMap::new();
    let question = Question { policy: &want.policy, cordoned: Some(want.cordoned), now, daemon_sets: &daemon_sets };
    Ok((verdict(&pod, &question) == Verdict::Evict).then_some(pod))
}

/// Which of several failures counts: what a person has to do comes before what only time does.
fn weight(class: Class) -> u8 {
    match class {
        Class::Uncertain | Class::Busy | Class::Preempted => 0,
        Class::Throttled { .. } => 1,
        Class::Gone | Class::Refused => 2,
        Class::Denied => 3,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(WORDS_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
