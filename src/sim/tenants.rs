//! Pods that people run on the nodes, who makes them again, and the budgets that protect them.
//!
//! As an API server and its controllers have it: an eviction is weighed against the numbers of the last reckoning, which lag
//! behind; a pod takes its time to go, and comes back somewhere else under another name or the same; a namespace that is being
//! deleted takes its pods along, and evicts none.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use crate::{
    cluster::{Budget, Controller, Eviction, Pod, PodLife, PodRef, Selector},
    model::NodeName,
};

/// Between a change of a budget's pods and its next reckoning.
const RECKONS: SignedDuration = SignedDuration::from_secs(4);

/// Who makes a pod again when it has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nobody.
    Never,
    /// Another, elsewhere (a Deployment).
    Elsewhere,
    /// Another by the same name, elsewhere (a `StatefulSet`).
    SameName,
    /// Another, here: cordons are nothing to it.
    Here,
}

/// A pod, and what happens to it when it is asked to go.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// As it is read.
    pub pod: Pod,
    /// Its own grace.
    pub grace: SignedDuration,
    /// It is gone so long after it was asked; longer than its grace when its kubelet is slow.
    pub takes: SignedDuration,
    /// Something holds the object until then.
    pub held_until: Option<Timestamp>,
    /// Who makes another.
    pub again: Again,
    /// So many evictions of it an admission webhook denies.
    pub denials: u32,
    gone_at: Option<Timestamp>,
    ready_at: Option<Timestamp>,
}

impl Tenant {
    /// A pod of a `ReplicaSet` that runs well on a node, under its label `app`.
    #[must_use]
    pub fn new(path: &str, app: &str, node: &NodeName, created: Timestamp) -> Self {
        let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
        let controller = Controller { group: "apps".into(), kind: "ReplicaSet".into(), name: app.to_owned() };
        Self {
            pod: Pod {
                id: PodRef { namespace: namespace.into(), name: name.into(), uid: format!("uid-of-{path}") },
                node: Some(node.as_str().to_owned()),
                life: PodLife::Running,
                ready: true,
                controller: Some(controller),
                mirror: false,
                empty_dir: false,
                created: Some(created),
                deleting: None,
                finalizers: vec![],
                labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
                annotations: BTreeMap::new(),
            },
            grace: SignedDuration::from_secs(30),
            takes: SignedDuration::from_secs(3),
            held_until: None,
            again: Again::Elsewhere,
            denials: 0,
            gone_at: None,
            ready_at: None,
        }
    }

    fn go(&mut self, now: Timestamp) {
        if self.gone_at.is_some() {
            return;
        }
        let finished = self.pod.life == PodLife::Finished;
        let takes = if finished { SignedDuration::ZERO } else { self.takes };
        self.pod.deleting = Some(now + if finished { SignedDuration::ZERO } else { self.grace });
        self.gone_at = Some((now + takes).max(self.held_until.unwrap_or(now)));
    }
}

/// A budget, with the numbers of its last reckoning.
#[derive(Debug, Clone)]
struct Guard {
    shown: Budget,
    least: i32,
    /// The next reckoning.
    due: Option<Timestamp>,
}

/// A pod that was made to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Which.
    pub pod: PodRef,
    /// From which node.
    pub node: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Past its budgets.
    pub deleted: bool,
}

/// All that people run.
#[derive(Debug, Clone, Default)]
pub struct Tenants {
    pods: BTreeMap<String, Tenant>,
    guards: BTreeMap<String, Guard>,
    daemon_sets: BTreeSet<(String, String)>,
    /// Namespaces that are being deleted, and when their pods are asked to go.
    ending: BTreeMap<String, Timestamp>,
    /// Evictions and deletions that took effect, oldest first.
    pub departures: Vec<Departure>,
    /// What no drain may do: each is a violation.
    pub wrongs: Vec<String>,
    made: u32,
}

impl Tenants {
    /// Nobody runs anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.guards.is_empty()
    }

    /// A pod is there from now on.
    pub fn add(&mut self, tenant: Tenant) {
        self.pods.insert(tenant.pod.id.to_string(), tenant);
    }

    /// The pod of that path.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Tenant> {
        self.pods.get_mut(path)
    }

    /// A `DaemonSet` is there.
    pub fn add_daemon_set(&mut self, namespace: &str, name: &str) {
        self.daemon_sets.insert((namespace.into(), name.into()));
    }

    /// At least so many pods with a label `app` stay.
    pub fn add_budget(&mut self, namespace: &str, name: &str, app: &str, least: i32, now: Timestamp) {
        let labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
        let shown = Budget {
            namespace: namespace.into(),
            name: name.into(),
            selector: Some(Selector { labels, requirements: vec![] }),
            current: true,
            allowed: 0,
            healthy: 0,
            desired: least,
            unready_may_go: false,
            full_since: None,
            trouble: None,
        };
        self.guards.insert(shown.path(), Guard { shown, least, due: Some(now) });
    }

    /// A budget asks for another number of pods.
    pub fn change_budget(&mut self, path: &str, least: i32, now: Timestamp) {
        if let Some(guard) = self.guards.get_mut(path) {
            guard.least = least;
            guard.due = Some(now);
        }
    }

    /// A namespace is deleted: its pods are asked to go at that time.
    pub fn end_namespace(&mut self, namespace: &str, at: Timestamp) {
        self.ending.insert(namespace.into(), at);
    }

    /// The pods on a node.
    #[must_use]
    pub fn on(&self, node: &str) -> Vec<Pod> {
        let on = |tenant: &&Tenant| tenant.pod.node.as_deref() == Some(node);
        self.pods.values().filter(on).map(|tenant| tenant.pod.clone()).collect()
    }

    /// The pod of that path.
    #[must_use]
    pub fn pod(&self, path: &str) -> Option<Pod> {
        self.pods.get(path).map(|tenant| tenant.pod.clone())
    }

    /// Whether a `DaemonSet` is there.
    #[must_use]
    pub fn has_daemon_set(&self, namespace: &str, name: &str) -> bool {
        self.daemon_sets.contains(&(namespace.to_owned(), name.to_owned()))
    }

    /// The budgets of a namespace, as they were last reckoned up.
    #[must_use]
    pub fn budgets(&self, namespace: &str) -> Vec<Budget> {
        let here = |guard: &&Guard| guard.shown.namespace == namespace;
        self.guards.values().filter(here).map(|guard| guard.shown.clone()).collect()
    }

    /// What an eviction is answered, and does.
    pub fn evict(&mut self, id: &PodRef, now: Timestamp) -> Eviction {
        let path = id.to_string();
        let Some(tenant) = self.pods.get_mut(&path).filter(|tenant| tenant.pod.id == *id) else {
            return Eviction::Gone;
        };
        if self.ending.contains_key(&id.namespace) {
            return Eviction::NamespaceTerminates(format!("{} is being terminated", id.namespace));
        }
        if tenant.denials > 0 {
            tenant.denials -= 1;
            return Eviction::NotAdmitted("admission webhook \"drain.example\" denied the request: later".into());
        }
        let pod = tenant.pod.clone();
        let free = pod.life != PodLife::Running || pod.deleting.is_some();
        let mut limits: Vec<&mut Guard> =
            self.guards.values_mut().filter(|it| !free && it.shown.limits(&pod)).collect();
        match &mut limits[..] {
            [] => {}
            [guard] if !pod.ready && guard.shown.healthy >= guard.shown.desired && guard.shown.desired > 0 => {}
            [guard] if guard.shown.allowed > 0 => {
                guard.shown.allowed -= 1;
                guard.due.get_or_insert(now + RECKONS);
            }
            [guard] => {
                let Budget { name, desired, healthy, .. } = &guard.shown;
                return Eviction::Blocked {
                    budget: Some(name.clone()),
                    message: format!(
                        "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
                    ),
                    retry_after: Some(Duration::from_secs(10)),
                };
            }
            [..] => return Eviction::SeveralBudgets("This pod has more than one PodDisruptionBudget".into()),
        }
        self.depart(&pod, now, false);
        Eviction::Accepted
    }

    /// A deletion that asks no budget; false when there is no such pod any more.
    pub fn delete(&mut self, id: &PodRef, now: Timestamp) -> bool {
        let Some(pod) = self.pod(&id.to_string()).filter(|pod| pod.id == *id) else { return false };
        self.depart(&pod, now, true);
        true
    }

    fn depart(&mut self, pod: &Pod, now: Timestamp, deleted: bool) {
        let path = pod.id.to_string();
        let daemon = pod
            .controller
            .as_ref()
            .is_some_and(|owner| owner.kind == "DaemonSet" && self.has_daemon_set(&pod.id.namespace, &owner.name));
        if pod.mirror || daemon && pod.life != PodLife::Finished {
            self.wrongs.push(format!("{path} was made to go, and would be back at once"));
        }
        let Some(tenant) = self.pods.get_mut(&path).filter(|tenant| tenant.gone_at.is_none()) else { return };
        tenant.go(now);
        self.departures.push(Departure { pod: pod.id.clone(), node: pod.node.clone(), at: now, deleted });
        // A budget that was kept to the last eviction is broken by none.
        for guard in self.guards.values().filter(|guard| !deleted && pod.ready && guard.shown.limits(pod)) {
            let healthy = self.healthy(guard);
            if pod.life == PodLife::Running && healthy < guard.least {
                self.wrongs.push(format!("budget {} wants {}, and has {healthy}", guard.shown.path(), guard.least));
                break;
            }
        }
    }

    fn healthy(&self, guard: &Guard) -> i32 {
        let counts = |tenant: &&Tenant| {
            let pod = &tenant.pod;
            pod.ready && pod.deleting.is_none() && pod.life == PodLife::Running && guard.shown.limits(pod)
        };
        i32::try_from(self.pods.values().filter(counts).count()).unwrap_or(i32::MAX)
    }

    /// What happens by itself: pods go, come back and become Ready; budgets are reckoned up. A node that is not Ready confirms
    /// nothing.
    pub fn pass(&mut self, now: Timestamp, ready_nodes: &BTreeSet<String>, rng: &mut Rng) {
        let due = |at: &Option<Timestamp>| at.is_some_and(|at| at <= now);
        let ended: Vec<String> =
            self.ending.iter().filter(|(_, at)| **at <= now).map(|(namespace, _)| namespace.clone()).collect();
        for tenant in self.pods.values_mut() {
            if ended.contains(&tenant.pod.id.namespace) {
                tenant.again = Again::Never;
                tenant.go(now);
            }
            if due(&tenant.ready_at) {
                tenant.ready_at = None;
                tenant.pod.ready = true;
                tenant.pod.life = PodLife::Running;
            }
        }
        let confirmed = |tenant: &Tenant| tenant.pod.node.as_ref().is_none_or(|node| ready_nodes.contains(node));
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, tenant)| due(&tenant.gone_at) && confirmed(tenant))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            let Some(tenant) = self.pods.remove(&path) else { continue };
            self.replace(&tenant, now, ready_nodes, rng);
        }
        self.reckon(now);
    }

    fn replace(&mut self, gone: &Tenant, now: Timestamp, ready_nodes: &BTreeSet<String>, rng: &mut Rng) {
        let old = &gone.pod;
        let elsewhere = || ready_nodes.iter().find(|node| Some(*node) != old.node.as_ref()).cloned();
        let (name, node) = match gone.again {
            Again::Never => return,
            Again::Elsewhere => (format!("{}-again", old.id.name), elsewhere()),
            Again::SameName => (old.id.name.clone(), elsewhere()),
            Again::Here => (format!("{}-again", old.id.name), old.node.clone()),
        };
        self.made += 1;
        let id = PodRef { name, uid: format!("{}-{}", old.id.uid, self.made), ..old.id.clone() };
        let pod = Pod {
            id,
            node,
            life: PodLife::Pending,
            ready: false,
            created: Some(now),
            deleting: None,
            finalizers: vec![],
            ..old.clone()
        };
        let ready_at = Some(now + SignedDuration::from_secs(i64::from(rng.u32(10..60))));
        self.add(Tenant { pod, gone_at: None, ready_at, held_until: None, ..gone.clone() });
    }

    fn reckon(&mut self, now: Timestamp) {
        let healthy: BTreeMap<String, i32> =
            self.guards.iter().map(|(path, guard)| (path.clone(), self.healthy(guard))).collect();
        for (path, guard) in &mut self.guards {
            let healthy = healthy.get(path).copied().unwrap_or_default();
            let changed = healthy != guard.shown.healthy;
            if guard.due.is_none_or(|at| at > now) {
                if changed {
                    guard.due.get_or_insert(now + RECKONS);
                }
                continue;
            }
            guard.due = None;
            guard.shown.healthy = healthy;
            guard.shown.desired = guard.least;
            guard.shown.allowed = (healthy - guard.least).max(0);
            guard.shown.full_since = if guard.shown.allowed > 0 { None } else { guard.shown.full_since.or(Some(now)) };
        }
    }
}
