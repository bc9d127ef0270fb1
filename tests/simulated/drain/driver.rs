//! Drives the one step as the engine does: looks, asks, waits, and begins anew from its stored input when the process dies.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kamino_wf::{
    cloud::{Accepted, Limiter},
    cluster::Node,
    model::{Class, NodeName, RunId},
    policy::drain::DrainPolicy,
    sim::{Scene, Shared, SimCloud, SimCluster, Tenant, World},
    steps::{DrainInput, DrainNode, Drained},
    workflow::{Affects, AnyStep, Pace, Ports, Seen, StepError, Undone},
};
use serde_json::Value;

/// A world with a node that is cordoned for a drain.
#[derive(Clone)]
pub(crate) struct Kit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: NodeName,
    uid: String,
    cordoned: Timestamp,
}

/// What became of a drain.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) end: Result<Drained, StepError>,
    /// Requests of the step: two records each.
    pub(crate) asked: u32,
    /// What the answers were recorded as.
    pub(crate) said: Vec<String>,
    /// What the looks said, each text once.
    pub(crate) looks: Vec<String>,
    pub(crate) crashes: u64,
    pub(crate) took: SignedDuration,
    /// A person has decided that pods may be deleted.
    pub(crate) forced: bool,
    /// The most pods that were on their way at a time, and how many may have been.
    parallel: (usize, u32),
}

impl Default for Driven {
    fn default() -> Self {
        Self {
            end: Ok(Drained { left: vec![] }),
            asked: 0,
            said: vec![],
            looks: vec![],
            crashes: 0,
            took: SignedDuration::ZERO,
            forced: false,
            parallel: (0, 1),
        }
    }
}

enum Turn {
    Wait(Duration),
    End(Result<Drained, StepError>),
}

impl Kit {
    pub(crate) fn new(seed: u64) -> Self {
        let shared = Shared::new(Scene { seed, ..Scene::nominal() }.world());
        let (node, uid, cordoned) = {
            let mut world = shared.world();
            let now = world.now();
            let node = world.nodes.first_mut().expect("a node");
            node.unschedulable = true;
            (node.name.clone(), node.uid.clone(), now)
        };
        Self { shared, node, uid, cordoned }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.world().now()
    }

    /// A pod on the node.
    pub(crate) fn add(&self, path: &str, app: &str, change: impl FnOnce(&mut Tenant)) {
        let mut tenant = Tenant::new(path, app, &self.node, self.cordoned - SignedDuration::from_hours(5));
        change(&mut tenant);
        self.shared.world().tenants.add(tenant);
    }

    pub(crate) fn change_node(&self, change: impl FnOnce(&mut Node)) {
        let mut world = self.shared.world();
        change(world.nodes.iter_mut().find(|node| node.name == self.node).expect("the node"));
    }

    pub(crate) fn input(&self, policy: DrainPolicy) -> Value {
        let input = DrainInput { node: self.node.clone(), uid: self.uid.clone(), cordoned: self.now(), policy };
        serde_json::to_value(input).expect("JSON")
    }

    /// Pods that were made to go, by name.
    pub(crate) fn departed(&self) -> Vec<String> {
        let mut gone: Vec<String> =
            self.shared.world().tenants.departures.iter().map(|departure| departure.pod.to_string()).collect();
        gone.sort();
        gone
    }

    async fn with<T>(&self, body: impl AsyncFnOnce(Ports<'_>, &dyn AnyStep) -> T) -> T {
        let clock = self.shared.world().clock.clone();
        let cloud = SimCloud::new(Arc::clone(&self.shared), Arc::new(Limiter::default()));
        let cluster = SimCluster::new(Arc::clone(&self.shared));
        let ports = Ports { cloud: &cloud, cluster: &cluster, clock: &clock };
        body(ports, &Affects(DrainNode)).await
    }

    pub(crate) async fn look(&self, input: &Value) -> Result<Seen<Value>, StepError> {
        self.with(async |ports, step| step.observe(ports, input).await).await
    }

    pub(crate) async fn act(&self, input: &Value) -> Result<Accepted, StepError> {
        self.with(async |ports, step| step.act(ports, input).await).await
    }

    /// Whether nothing of the step is left.
    pub(crate) async fn undo(&self, input: &Value) -> bool {
        self.with(async |ports, step| step.undo(ports, input).await).await.expect("an answer") == Undone::Gone
    }

    pub(crate) async fn drive(&self, input: &Value) -> Driven {
        self.drive_while(input, |_| {}).await
    }

    /// Drives to the end, over all crashes; `happens` is called before each turn.
    pub(crate) async fn drive_while(&self, input: &Value, mut happens: impl FnMut(Timestamp)) -> Driven {
        let mut driven = Driven::default();
        let policy: DrainInput = serde_json::from_value(input.clone()).expect("an input");
        driven.parallel.1 = policy.policy.max_parallel;
        driven.forced = policy.policy.force.is_some();
        let began = self.now();
        let mut looks = 0;
        for _ in 0..5000 {
            happens(self.now());
            let crash = &self.shared.crash;
            let turn = tokio::select! {
                biased;
                () = crash.died() => None,
                turn = self.turn(input, &mut looks, &mut driven) => Some(turn),
            };
            self.count_those_on_their_way(&mut driven);
            match turn {
                None => {
                    crash.restart();
                    driven.crashes += 1;
                    looks = 0;
                }
                Some(Turn::Wait(pause)) => tokio::time::sleep(pause).await,
                Some(Turn::End(end)) => {
                    driven.end = end;
                    driven.took = self.now().duration_since(began);
                    return driven;
                }
            }
        }
        unreachable!("the drain does not end: {driven:#?}")
    }

    fn count_those_on_their_way(&self, driven: &mut Driven) {
        let now = self.now();
        let world = self.shared.world();
        let ours: Vec<&str> = world.tenants.departures.iter().map(|departure| departure.pod.uid.as_str()).collect();
        let pods = world.tenants.on(self.node.as_str());
        let going = |until: Timestamp| now.duration_since(until) <= SignedDuration::from_mins(1);
        let count =
            pods.iter().filter(|pod| pod.deleting.is_some_and(going) && ours.contains(&pod.id.uid.as_str())).count();
        driven.parallel.0 = driven.parallel.0.max(count);
    }

    /// As `Turn::look` and `Turn::ask` of the engine do it.
    async fn turn(&self, input: &Value, looks: &mut u32, driven: &mut Driven) -> Turn {
        let pace = |looks: &mut u32| {
            *looks += 1;
            Turn::Wait(Pace::default().pause(RunId(uuid::Uuid::from_u128(7)), *looks - 1))
        };
        let fail = |error: StepError, looks: &mut u32| match error.class {
            Class::Throttled { retry_after } => Turn::Wait(retry_after),
            Class::Uncertain | Class::Busy | Class::Preempted => pace(looks),
            Class::Denied | Class::Gone | Class::Refused => Turn::End(Err(error)),
        };
        let seen = match self.look(input).await {
            Ok(seen) => seen,
            Err(error) => return fail(error, looks),
        };
        let text = match seen {
            Seen::Present(output) => return Turn::End(Ok(serde_json::from_value(output).expect("an output"))),
            Seen::Underway(text) => {
                driven.heard(text);
                return pace(looks);
            }
            Seen::Partly(text) => text,
            Seen::Absent | Seen::Awaited { .. } | Seen::Broken(_) | Seen::Foreign(_) => {
                unreachable!("the step says no such thing: {seen:?}")
            }
        };
        driven.heard(text);
        driven.asked += 1;
        *looks = 0;
        match self.act(input).await {
            Ok(accepted) => {
                driven.said.extend(accepted.said);
                accepted.retry_after.map_or_else(|| pace(looks), Turn::Wait)
            }
            Err(error) => fail(error, looks),
        }
    }

    /// What has to hold after every drain, however it ended.
    pub(crate) fn check(&self, driven: &Driven) {
        let world = self.shared.world();
        let violations = world.tenants.violations(&self.node, driven.forced);
        assert!(violations.is_empty(), "{violations:#?}");
        let (most, allowed) = driven.parallel;
        assert!(most <= allowed as usize, "{most} pods were on their way at a time, {allowed} may be");
        if let Ok(Drained { left }) = &driven.end {
            let there = world.tenants.on(self.node.as_str());
            let left: Vec<&str> = left.iter().map(|left| left.pod.as_str()).collect();
            for pod in there {
                let path = pod.id.to_string();
                assert!(
                    driven.asked == 0 && driven.took.is_zero() || left.contains(&path.as_str()),
                    "{path} is still there"
                );
            }
        }
    }

    /// Whatever people run, by the seed of the world.
    pub(crate) fn by_chance(&self) {
        let mut world = self.shared.world();
        let now = world.now();
        let World { tenants, rng, .. } = &mut *world;
        tenants.move_in(&self.node, now, rng);
    }
}

impl Driven {
    fn heard(&mut self, text: String) {
        if !self.looks.contains(&text) {
            self.looks.push(text);
        }
    }
}
