//! The `Cluster` port of the simulated world. Reads are consistent, as an API server's are.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{
    Fault,
    machines::DonorPod,
    scene::cluster_id,
    world::{Accepted, Object, Pod, Shared, World},
};
use crate::{
    cloud::Power,
    cluster::{
        self, Anchor, Budget, CleaningPod, CleaningSpec, CleaningView, Cluster, ClusterError, DonorCleaning, Eviction,
        Lease, LeaseClaim, Leftover, Node, NodeChange, NodeNote, Owned, PodPhase, PodRef, Remains, Rival,
    },
    model::{NodeName, RunId},
    policy::obligations::CLAIM,
};

/// What a server that is asked too much asks for.
const PAUSE: Duration = Duration::from_mins(1);
/// One way of a call that takes as long each time.
const A_WHILE: Duration = Duration::from_millis(10);

/// One process' way to the world.
#[derive(Debug, Clone)]
pub struct SimCluster {
    shared: Arc<Shared>,
}

impl SimCluster {
    /// The port of a process.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        name: &str,
        mutates: bool,
        act: impl FnOnce(&mut World) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        self.taking(None, verb, name, mutates, act).await
    }

    /// A call that takes this long each way, or as long as chance says.
    async fn taking<T>(
        &self,
        way: Option<Duration>,
        verb: &'static str,
        name: &str,
        mutates: bool,
        act: impl FnOnce(&mut World) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        let what = format!("{verb} {name}");
        self.shared.crash.point(&format!("{verb}: before")).await;
        self.latency(way).await;
        let (answer, lost) = {
            let mut world = self.shared.world();
            let fault = world.called();
            let answer = match fault {
                None | Some(Fault::LostAnswer) => act(&mut world),
                Some(Fault::Throttled) => Err(ClusterError::Throttled { what: what.clone(), retry_after: PAUSE }),
                Some(Fault::LostRequest) => {
                    Err(ClusterError::Uncertain { what: what.clone(), detail: "timed out".into() })
                }
                Some(Fault::Busy) => {
                    Err(ClusterError::Preempted { what: what.clone(), message: "as the script says".into() })
                }
                Some(Fault::Denied) => {
                    Err(ClusterError::Denied { what: what.clone(), message: "as the script says".into() })
                }
            };
            if mutates {
                let outcome = answer.as_ref().map_or_else(ToString::to_string, |_| "accepted".to_owned());
                world.note(format!("kubernetes {what}: {outcome}"));
                if answer.is_ok() {
                    let at = world.now();
                    world.accepted.push(Accepted { verb, key: name.to_owned(), at });
                }
            }
            let world = &mut *world;
            let chance = world.faults.lost_answers;
            let lost = answer.is_ok()
                && (fault == Some(Fault::LostAnswer) || mutates && world.faults.strikes(chance, &mut world.rng));
            (answer, lost)
        };
        self.shared.crash.point(&format!("{verb}: in")).await;
        self.latency(way).await;
        self.shared.crash.point(&format!("{verb}: after")).await;
        if lost {
            return Err(ClusterError::Uncertain { what, detail: "connection reset".into() });
        }
        answer
    }

    async fn latency(&self, way: Option<Duration>) {
        let span = {
            let mut world = self.shared.world();
            let way = way.unwrap_or_else(|| Duration::from_millis(world.rng.u64(2..30)));
            way.mul_f64(world.scale)
        };
        tokio::time::sleep(span).await;
    }
}

impl World {
    /// Where a pod is, and what it reports.
    fn ended(&self, pod: &Pod) -> (PodPhase, Option<String>) {
        let phase = self.phase(pod);
        match (&phase, &self.cleaner) {
            (PodPhase::Succeeded, None) => {
                let report = json!({ "run": pod.spec.run.short(), "nonce": pod.spec.nonce, "profile": pod.spec.profile.name(),
                                     "verdict": "clean", "erased": 1234, "trimmed": true });
                (phase, Some(report.to_string()))
            }
            (PodPhase::Succeeded, Some(says)) if says.succeeded => (phase, Some(says.report.to_string())),
            (PodPhase::Succeeded, Some(says)) => {
                (PodPhase::Failed("container ended with exit code 3".into()), Some(says.report.to_string()))
            }
            (PodPhase::Pending(_) | PodPhase::Running | PodPhase::Failed(_), _) => (phase, None),
        }
    }
}

/// A donor's pod as its API server shows it: `Running` for ever, since its kubelet is down when it has done its work.
fn donor_view(world: &World, pod: &DonorPod) -> CleaningPod {
    let now = world.now();
    let phase = if now < pod.runs_at {
        PodPhase::Pending("its image is being pulled".into())
    } else if pod.killed && now >= pod.proves_at {
        PodPhase::Failed("container was killed (137)".into())
    } else {
        PodPhase::Running
    };
    CleaningPod {
        owned: Owned { uid: pod.uid.clone(), run: Some(pod.spec.run.short()), deleting: pod.gone_at.is_some() },
        phase,
        report: None,
        exit_code: None,
        node: Some(pod.spec.node.to_string()),
    }
}

fn owned(object: &Object) -> Owned {
    Owned { uid: object.uid.clone(), run: Some(object.run.clone()), deleting: object.gone_at.is_some() }
}

fn check_uid(what: &str, found: &str, given: &str) -> Result<(), ClusterError> {
    if found == given {
        Ok(())
    } else {
        Err(ClusterError::Preempted {
            what: what.into(),
            message: format!("uid is {found}, precondition says {given}"),
        })
    }
}

fn not_found(what: &str) -> ClusterError {
    ClusterError::Gone { what: what.into(), message: "not found".into() }
}

#[async_trait]
impl Cluster for SimCluster {
    async fn cluster_id(&self) -> Result<String, ClusterError> {
        self.call("cluster_id", "", false, |_| Ok(cluster_id())).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        self.call("nodes", "", false, |world| Ok(world.nodes.iter().map(|node| world.shown(node)).collect())).await
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        self.call("node", name.as_str(), false, |world| {
            let found = world.nodes.iter().find(|node| node.name == *name);
            Ok(found.map(|node| world.shown(node)))
        })
        .await
    }

    async fn cleaning(&self, namespace: &str, name: &str) -> Result<CleaningView, ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("cleaning", &path, false, |world| {
            let pod = world.pods.get(&path).map(|pod| {
                let (phase, report) = world.ended(pod);
                CleaningPod {
                    owned: Owned {
                        uid: pod.uid.clone(),
                        run: Some(pod.spec.run.short()),
                        deleting: pod.gone_at.is_some(),
                    },
                    exit_code: match &phase {
                        PodPhase::Succeeded => Some(0),
                        PodPhase::Failed(_) => Some(137),
                        PodPhase::Pending(_) | PodPhase::Running => None,
                    },
                    phase,
                    report,
                    node: Some(pod.spec.at.as_ref().map_or("pool1-vmss000002".into(), |at| at.node.to_string())),
                }
            });
            let pod = pod.or_else(|| world.donor_pods.get(&path).map(|pod| donor_view(world, pod)));
            Ok(CleaningView {
                volume: world.volumes.get(name).map(owned),
                claim: world.claims.get(&path).map(owned),
                pod,
            })
        })
        .await
    }

    async fn rivals(&self) -> Result<Vec<Rival>, ClusterError> {
        // Without chance, so that a seed goes on to mean the world that frozen runs of earlier releases know.
        self.taking(Some(A_WHILE), "rivals", "", false, |world| Ok(world.rivals.clone())).await
    }

    async fn leftovers(&self, namespace: &str) -> Result<Remains, ClusterError> {
        let inside = format!("{namespace}/");
        self.call("leftovers", namespace, false, |world| {
            let donors = world.donor_pods.iter().filter_map(|(path, pod)| {
                let view = donor_view(world, pod);
                let running = view.phase == PodPhase::Running;
                let name = path.strip_prefix(&inside)?.to_owned();
                Some(Leftover { name, owned: view.owned, created: Some(pod.created), running })
            });
            let pods = world.pods.iter().filter_map(|(path, pod)| {
                let owned =
                    Owned { uid: pod.uid.clone(), run: Some(pod.spec.run.short()), deleting: pod.gone_at.is_some() };
                let running = world.phase(pod) == PodPhase::Running;
                let name = path.strip_prefix(&inside)?.to_owned();
                Some(Leftover { name, owned, created: Some(pod.created), running })
            });
            let of = |name: &str, object: &Object| Leftover {
                name: name.to_owned(),
                owned: owned(object),
                created: Some(object.created),
                running: false,
            };
            let claims = world.claims.iter().filter_map(|(path, claim)| Some(of(path.strip_prefix(&inside)?, claim)));
            let volumes = world.volumes.iter().map(|(name, volume)| of(name, volume));
            let run = |words: &String| {
                let words: serde_json::Value = serde_json::from_str(words).ok()?;
                serde_json::from_value(words["run"].clone()).ok()
            };
            Ok(Remains {
                pods: pods.chain(donors).collect(),
                claims: claims.collect(),
                volumes: volumes.collect(),
                proofs: world.proofs.values().filter_map(run).collect(),
            })
        })
        .await
    }

    async fn create_volume(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let what = format!("create volume {}", want.name);
        self.call("create_volume", &want.name, true, |world| {
            if world.volumes.contains_key(&want.name) {
                return Err(ClusterError::Exists { what });
            }
            let created = world.now();
            let object = Object { run: want.run.short(), uid: uid(world), created, gone_at: None };
            world.volumes.insert(want.name.clone(), object);
            Ok(())
        })
        .await
    }

    async fn create_claim(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let path = format!("{}/{}", want.namespace, want.name);
        self.call("create_claim", &path, true, |world| {
            if world.claims.contains_key(&path) {
                return Err(ClusterError::Exists { what: format!("create claim {path}") });
            }
            let created = world.now();
            let object = Object { run: want.run.short(), uid: uid(world), created, gone_at: None };
            world.claims.insert(path.clone(), object);
            Ok(())
        })
        .await
    }

    async fn create_pod(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        let path = format!("{}/{}", want.namespace, want.name);
        self.call("create_pod", &path, true, |world| {
            if world.pods.contains_key(&path) {
                return Err(ClusterError::Exists { what: format!("create pod {path}") });
            }
            let runs_at = world.now() + world.span(10..60);
            let ends_at = runs_at + world.span(3..60);
            let chance = world.faults.killed_pods;
            let killed = {
                let World { faults, rng, .. } = world;
                faults.strikes(chance, rng)
            };
            // While a pod is there its disk is not free, whatever was promised before.
            if want.at.is_none() {
                world.detaching.remove(&want.disk.key());
            }
            let created = world.now();
            let pod = Pod { spec: want.clone(), uid: uid(world), created, runs_at, ends_at, killed, gone_at: None };
            world.pods.insert(path.clone(), pod);
            Ok(())
        })
        .await
    }

    async fn delete_pod(&self, namespace: &str, name: &str, given: &str) -> Result<(), ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("delete_pod", &path, true, |world| {
            let gone_at = world.now() + world.span(1..5);
            if let Some(pod) = world.donor_pods.get_mut(&path) {
                check_uid(&path, &pod.uid, given)?;
                pod.gone_at.get_or_insert(gone_at);
                let run = pod.spec.run.short();
                world.note_deletion("delete_pod", &path, Some(run));
                return Ok(());
            }
            let pod = world.pods.get_mut(&path).ok_or_else(|| not_found(&path))?;
            check_uid(&path, &pod.uid, given)?;
            pod.gone_at.get_or_insert(gone_at);
            let run = pod.spec.run.short();
            world.note_deletion("delete_pod", &path, Some(run));
            Ok(())
        })
        .await
    }

    async fn delete_claim(&self, namespace: &str, name: &str, given: &str) -> Result<(), ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("delete_claim", &path, true, |world| {
            let gone_at = world.now() + world.span(1..3);
            let claim = world.claims.get_mut(&path).ok_or_else(|| not_found(&path))?;
            check_uid(&path, &claim.uid, given)?;
            claim.gone_at.get_or_insert(gone_at);
            let run = claim.run.clone();
            world.note_deletion("delete_claim", &path, Some(run));
            Ok(())
        })
        .await
    }

    async fn delete_volume(&self, name: &str, given: &str) -> Result<(), ClusterError> {
        self.call("delete_volume", name, true, |world| {
            let gone_at = world.now() + world.span(1..3);
            let volume = world.volumes.get_mut(name).ok_or_else(|| not_found(name))?;
            check_uid(name, &volume.uid, given)?;
            volume.gone_at.get_or_insert(gone_at);
            let run = volume.run.clone();
            world.note_deletion("delete_volume", name, Some(run));
            Ok(())
        })
        .await
    }

    async fn change_node(&self, want: &NodeChange) -> Result<(), ClusterError> {
        self.call("change_node", want.name.as_str(), true, |world| {
            let what = format!("patch node {}", want.name);
            let at = world.nodes.iter().position(|node| node.name == want.name).ok_or_else(|| not_found(&what))?;
            let shown = world.shown(&world.nodes[at]);
            if shown.version != want.version {
                let message = format!("version is {}, patch goes over {}", shown.version, want.version);
                return Err(ClusterError::Preempted { what, message });
            }
            let released = want.annotations.get(CLAIM) == Some(&None);
            let on = world.machines.values().any(|it| it.node == want.name && it.power == Power::Running);
            let silent = world.machines.values().any(|it| it.node == want.name && it.silent.is_some());
            if released && (!on || silent || !world.nodes[at].ready) {
                world.harm.push(("I2", format!("{} was released before it was back", want.name)));
            }
            let node = &mut world.nodes[at];
            node.version = format!("{}", node.version.parse::<u64>().unwrap_or_default() + 1);
            node.unschedulable = want.unschedulable;
            for (name, value) in &want.annotations {
                match value {
                    Some(value) => drop(node.annotations.insert(name.clone(), value.clone())),
                    None => drop(node.annotations.remove(name)),
                }
            }
            Ok(())
        })
        .await
    }

    async fn tell(&self, note: &NodeNote) -> Result<(), ClusterError> {
        // As quick as it is: what is told decides nothing, and takes no part in chance.
        self.taking(Some(Duration::from_millis(5)), "tell", note.node.as_str(), false, |world| {
            let told = world.node_notes.iter().any(|it| (it.run, it.reason) == (note.run, note.reason));
            if !told {
                world.node_notes.push(note.clone());
            }
            Ok(())
        })
        .await
    }

    async fn create_donor_pod(&self, want: &DonorCleaning) -> Result<(), ClusterError> {
        let path = format!("{}/{}", want.namespace, want.name);
        self.call("create_donor_pod", &path, true, |world| {
            if world.donor_pods.contains_key(&path) {
                return Err(ClusterError::Exists { what: format!("create pod {path}") });
            }
            let runs_at = world.now() + world.span(5..40);
            let proves_at = runs_at + world.span(3..20);
            let chance = world.faults.killed_pods;
            let killed = {
                let World { faults, rng, .. } = world;
                faults.strikes(chance, rng)
            };
            let (created, gone_at) = (world.now(), None);
            let pod = DonorPod { spec: want.clone(), uid: uid(world), created, runs_at, proves_at, killed, gone_at };
            world.donor_pods.insert(path.clone(), pod);
            Ok(())
        })
        .await
    }

    async fn has_anchor(&self, anchor: &Anchor) -> Result<bool, ClusterError> {
        let path = format!("{}/{}", anchor.namespace, anchor.name);
        self.call("has_anchor", &path, false, |world| Ok(world.anchors.contains_key(&path))).await
    }

    async fn create_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        let path = format!("{}/{}", anchor.namespace, anchor.name);
        self.call("create_anchor", &path, true, |world| {
            if world.anchors.contains_key(&path) {
                return Err(ClusterError::Exists { what: format!("create secret {path}") });
            }
            world.anchors.insert(path.clone(), anchor.run);
            Ok(())
        })
        .await
    }

    async fn delete_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        let path = format!("{}/{}", anchor.namespace, anchor.name);
        self.call("delete_anchor", &path, true, |world| {
            world.anchors.remove(&path);
            Ok(())
        })
        .await
    }

    async fn proof(&self, namespace: &str, run: RunId) -> Result<Option<String>, ClusterError> {
        self.call("proof", namespace, false, |world| Ok(world.proofs.get(&run.short()).cloned())).await
    }

    async fn forget_proof(&self, namespace: &str, run: RunId) -> Result<(), ClusterError> {
        self.call("forget_proof", namespace, true, |world| {
            world.proofs.remove(&run.short());
            Ok(())
        })
        .await
    }

    async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("lease", &path, false, |world| Ok(world.leases.get(&path).cloned())).await
    }

    async fn write_lease(
        &self,
        namespace: &str,
        name: &str,
        want: &LeaseClaim,
        over: Option<&str>,
    ) -> Result<Lease, ClusterError> {
        let path = format!("{namespace}/{name}");
        let LeaseClaim { holder, duration, epoch, taken: _ } = want.clone();
        self.call("write_lease", &path, true, |world| {
            let found = world.leases.get(&path).map(|lease| lease.version.as_str());
            match (found, over) {
                (Some(_), None) => return Err(ClusterError::Exists { what: format!("create lease {path}") }),
                (None, Some(_)) => return Err(not_found(&path)),
                (Some(found), Some(over)) if found != over => {
                    let message = format!("version is {found}, write goes over {over}");
                    return Err(ClusterError::Preempted { what: format!("update lease {path}"), message });
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
            let lease = Lease { holder, duration, epoch, version: uid(world) };
            world.leases.insert(path.clone(), lease.clone());
            Ok(lease)
        })
        .await
    }

    async fn pods_on(&self, node: &NodeName) -> Result<Vec<cluster::Pod>, ClusterError> {
        self.call("pods_on", node.as_str(), false, |world| Ok(world.tenants.on(node.as_str()))).await
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<cluster::Pod>, ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("pod", &path, false, |world| Ok(world.tenants.pod(&path))).await
    }

    async fn daemon_set_exists(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        let path = format!("{namespace}/{name}");
        self.call("daemon_set_exists", &path, false, |world| Ok(world.tenants.has_daemon_set(namespace, name))).await
    }

    async fn budgets(&self, namespace: &str) -> Result<Vec<Budget>, ClusterError> {
        self.call("budgets", namespace, false, |world| Ok(world.tenants.budgets(namespace))).await
    }

    async fn evict(&self, pod: &PodRef) -> Result<Eviction, ClusterError> {
        self.call("evict", &pod.to_string(), true, |world| {
            let now = world.now();
            let answer = world.tenants.evict(pod, now);
            world.note(format!("eviction of {pod}: {answer:?}"));
            Ok(answer)
        })
        .await
    }

    async fn delete_gently(&self, pod: &PodRef) -> Result<(), ClusterError> {
        self.call("delete_gently", &pod.to_string(), true, |world| {
            let now = world.now();
            world.tenants.delete(pod, now);
            Ok(())
        })
        .await
    }
}

fn uid(world: &mut World) -> String {
    uuid::Builder::from_random_bytes(world.rng.u128(..).to_be_bytes()).into_uuid().to_string()
}
