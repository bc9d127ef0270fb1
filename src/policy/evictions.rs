//! How far a drain is, and whom it may ask to go right now: what budgets have room for, and no more at a time than it may.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use jiff::Timestamp;

use super::drain::{Question, Verdict, verdict};
use crate::cluster::{Budget, Pod, PodLife, PodRef};

/// A kubelet confirms the end of a pod some seconds after its grace. What is there for longer is stuck, and no pod on its way.
const CONFIRMS: Duration = Duration::from_mins(1);

/// In a text for people; what is beyond is counted.
const NAMED_MAX: usize = 5;

/// A pod, and what is to be said of it.
pub type Said = (PodRef, String);

/// How a node's pods stand, each in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// May be asked to go now: no budget is known to say no.
    pub due: Vec<PodRef>,
    /// Can't be evicted by anybody, and may be deleted as a person has decided.
    pub condemned: Vec<Said>,
    /// A budget has no room for them; which, and since when.
    pub blocked: Vec<Said>,
    /// On their way, within their grace; until when.
    pub going: Vec<Said>,
    /// Should have been gone; since when, and what holds them.
    pub stuck: Vec<Said>,
    /// End by themselves.
    pub awaited: Vec<Said>,
    /// Need a decision.
    pub refused: Vec<Said>,
    /// Stay.
    pub left: Vec<Said>,
}

/// One request that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Ask to go.
    Evict(PodRef),
    /// Delete past its budgets, which a person has decided; says which.
    Delete(PodRef, String),
}

/// What a budget says of a pod now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Room {
    Free,
    /// Takes one of the budget's evictions.
    Takes(String),
    Full(String),
    Several(String),
}

/// The API server's own rules, on the budgets as they were read: an estimate, since only the eviction itself decides.
fn room(pod: &Pod, budgets: &[Budget], taken: &BTreeMap<String, i32>) -> Room {
    if pod.life != PodLife::Running {
        return Room::Free;
    }
    let limits: Vec<&Budget> = budgets.iter().filter(|budget| budget.limits(pod)).collect();
    let budget = match limits[..] {
        [] => return Room::Free,
        [one] => one,
        [..] => {
            let names: Vec<String> = limits.iter().map(|budget| budget.path()).collect();
            return Room::Several(names.join(" and "));
        }
    };
    let path = budget.path();
    if !pod.ready && (budget.unready_may_go || budget.healthy >= budget.desired && budget.desired > 0) {
        return Room::Free;
    }
    if !budget.current {
        return Room::Full(format!("budget {path} is still being reckoned up"));
    }
    if budget.allowed > taken.get(&path).copied().unwrap_or_default() {
        return Room::Takes(path);
    }
    if budget.allowed > 0 {
        return Room::Full(format!("budget {path} has room for {} at a time", budget.allowed));
    }
    let since = budget.full_since.map_or_else(String::new, |at| format!(" since {at}"));
    Room::Full(match &budget.trouble {
        Some(trouble) => format!("budget {path} can't be reckoned up{since}: {trouble}"),
        None => format!(
            "budget {path} has had no room{since} ({} of {} wanted pods are Ready)",
            budget.healthy, budget.desired
        ),
    })
}

/// The controller's own pod: it goes last, and the run goes on where it comes up again.
fn is_ours(pod: &Pod) -> bool {
    let label = |name: &str, value: &str| pod.labels.get(name).is_some_and(|found| found == value);
    label("app.kubernetes.io/name", "kamino-wf") && label("app.kubernetes.io/component", "controller")
}

/// How the pods of a node stand.
#[must_use]
pub fn standing(pods: &[Pod], budgets: &[Budget], question: &Question<'_>) -> Standing {
    let mut it = Standing::default();
    let mut ours = Vec::new();
    let mut taken: BTreeMap<String, i32> = BTreeMap::new();
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by(|a, b| a.id.cmp(&b.id));
    for pod in pods {
        let id = pod.id.clone();
        match (verdict(pod, question), pod.deleting) {
            (Verdict::Leave(why), _) => it.left.push((id, why)),
            (Verdict::Await(why), _) => it.awaited.push((id, why)),
            (Verdict::Refuse(why), _) => it.refused.push((id, why)),
            (Verdict::Evict, Some(until)) => {
                let late = question.now.duration_since(until);
                if Duration::try_from(late).is_ok_and(|late| late > CONFIRMS) {
                    it.stuck.push((id, held(pod, until)));
                } else {
                    it.going.push((id, format!("has until {until}")));
                }
            }
            (Verdict::Evict, None) => match room(pod, budgets, &taken) {
                Room::Free if is_ours(pod) => ours.push(id),
                Room::Free => it.due.push(id),
                Room::Takes(budget) => {
                    *taken.entry(budget).or_default() += 1;
                    if is_ours(pod) { ours.push(id) } else { it.due.push(id) }
                }
                Room::Full(why) => it.blocked.push((id, why)),
                Room::Several(names) if question.policy.forced(question.now).is_some() => {
                    it.condemned.push((id, names));
                }
                Room::Several(names) => {
                    let why = format!(
                        "it is under more than one budget ({names}), and the API server evicts no such pod: leave it \
                         one, or grant drain.force"
                    );
                    it.refused.push((id, why));
                }
            },
        }
    }
    if it.is_empty() {
        it.due = ours;
    } else {
        let last = "it is kamino-wf's own and goes last; the run goes on where it comes up again".to_owned();
        it.awaited.extend(ours.into_iter().map(|id| (id, last.clone())));
    }
    it
}

/// Why a pod that should have been gone is still there.
fn held(pod: &Pod, until: Timestamp) -> String {
    if pod.finalizers.is_empty() {
        format!("should have been gone since {until}: does its kubelet answer?")
    } else {
        format!("should have been gone since {until}, and is held by finalizer {}", pod.finalizers.join(" and "))
    }
}

/// What would keep a drain from coming to its end as things are: pods that need a decision, and those whose budget has no room at
/// all. One that lets them go a few at a time is none.
#[must_use]
pub fn hindrances(pods: &[Pod], budgets: &[Budget], question: &Question<'_>) -> Vec<String> {
    let it = standing(pods, budgets, question);
    let full = |(id, _): &&Said| {
        let pod = pods.iter().find(|pod| pod.id == *id);
        pod.is_some_and(|pod| budgets.iter().any(|budget| budget.limits(pod) && budget.allowed <= 0))
    };
    let all: Vec<&Said> = it.refused.iter().chain(it.blocked.iter().filter(full)).collect();
    let named = all.iter().take(NAMED_MAX).map(|(pod, why)| format!("{pod} ({why})"));
    let more = all.len().saturating_sub(NAMED_MAX);
    named.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

impl Standing {
    /// Nothing is left that has to go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { due, condemned, blocked, going, stuck, awaited, refused, left: _ } = self;
        due.is_empty()
            && condemned.is_empty()
            && [blocked, going, stuck, awaited, refused].into_iter().all(Vec::is_empty)
    }

    /// What is to be asked for now, at most so many on their way at a time.
    ///
    /// What a budget is known to refuse is asked for only when nothing else moves: the server's word counts, not our reading of
    /// its numbers, and its answer is recorded.
    #[must_use]
    pub fn requests(&self, parallel: u32) -> Vec<Request> {
        let room = usize::try_from(parallel).unwrap_or(usize::MAX).saturating_sub(self.going.len());
        let condemned = self.condemned.iter().map(|(pod, why)| Request::Delete(pod.clone(), why.clone()));
        let free: Vec<Request> = self.due.iter().cloned().map(Request::Evict).chain(condemned).take(room).collect();
        if !free.is_empty() || !self.going.is_empty() {
            return free;
        }
        self.blocked.iter().take(room).map(|(pod, _)| Request::Evict(pod.clone())).collect()
    }

    /// What is still to go, in one line for people: what blocks first.
    #[must_use]
    pub fn words(&self) -> String {
        let plain = |pods: &[PodRef]| pods.iter().map(|pod| (pod.clone(), String::new())).collect::<Vec<Said>>();
        let parts = [
            ("blocked", &self.blocked),
            ("stuck", &self.stuck),
            ("waited for", &self.awaited),
            ("terminating", &self.going),
            ("to be deleted", &self.condemned),
            ("to be evicted", &plain(&self.due)),
        ];
        let parts: Vec<String> =
            parts.into_iter().filter(|(_, pods)| !pods.is_empty()).map(|(what, pods)| say(what, pods)).collect();
        parts.join("; ")
    }

    /// What needs a decision, in one line for people.
    #[must_use]
    pub fn refusals(&self) -> String {
        say("can't be evicted", &self.refused)
    }
}

/// `2 blocked: shop/db-0 (why), shop/db-1 (why)`.
fn say(what: &str, pods: &[Said]) -> String {
    let mut text = format!("{} {what}: ", pods.len());
    for (at, (pod, why)) in pods.iter().take(NAMED_MAX).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let _ = write!(text, "{comma}{pod}{why}");
    }
    if pods.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", pods.len() - NAMED_MAX);
    }
    text
}

#[cfg(test)]
#[path = "evictions_tests.rs"]
mod tests;
