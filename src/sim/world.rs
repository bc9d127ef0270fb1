//! What there is: resources, operations, nodes, pods, and the log of all that happened to them.
//!
//! An operation is at an end when its time has come *and* somebody has looked at least three times: whoever believes the
//! first answer is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Attachment, Fault, Faults, Habits, Nursery, SimClock, Tenants,
    crash::Crash,
    machines::{DonorPod, Machines},
};
use crate::{
    clock::Clock,
    cloud::{
        Autoscale, Bucket, Definition, Disk, DiskState, Gallery, ImageRef, Instance, Machine, Operation, Orchestration,
        Power, Provisioning, Replication, Snapshot, Version,
    },
    cluster::{CleaningSpec, Lease, Node, NodeNote, PodPhase, Rival},
    model::{InstanceId, RunId, ScaleSetId},
};

/// Looks that every operation takes at least.
const LOOKS_MIN: u32 = 3;

/// By how much a list is behind what a look at one thing says.
const LIST_LAGS: Duration = Duration::from_secs(45);

/// What a version in zone-redundant storage comes to where there is none.
pub(super) const NO_ZRS: (&str, &str) =
    ("ZrsNotSupported", "ZRS storage account type is not supported in this region.");

/// A resource and what is being done to it.
#[derive(Debug, Clone)]
pub struct Resource<T> {
    /// As it will be read.
    pub value: T,
    /// The operation under way.
    pub operation: Option<usize>,
    /// Reads before this answer 404.
    pub visible: Timestamp,
}

/// What an operation does at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The resource is made, or changed.
    Make,
    /// The resource goes.
    Delete,
}

/// The kinds of resource that operations are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    ScaleSet,
    Disk,
    Snapshot,
    Gallery,
    Definition,
    Version,
}

/// A long-running operation.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its URL: long and signed, as Azure's are.
    pub url: String,
    /// What it is about.
    pub kind: Kind,
    /// The resource's key.
    pub key: String,
    /// What it does at its end.
    pub effect: Effect,
    /// Not at an end before.
    pub due: Timestamp,
    /// How often somebody looked.
    pub looks: u32,
    /// It will fail, with this code and message.
    pub fails: Option<(String, String)>,
    /// At an end.
    pub finished: bool,
}

/// A pod that cleans.
#[derive(Debug, Clone)]
pub struct Pod {
    /// What it was made from.
    pub spec: CleaningSpec,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it will run.
    pub runs_at: Timestamp,
    /// When it will end.
    pub ends_at: Timestamp,
    /// It will be killed half-way.
    pub killed: bool,
    /// Set when it is being deleted: gone after this.
    pub gone_at: Option<Timestamp>,
}

/// A claim or a volume.
#[derive(Debug, Clone)]
pub struct Object {
    /// The run in its label.
    pub run: String,
    /// Its uid.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Set when it is being deleted: gone after this.
    pub gone_at: Option<Timestamp>,
}

/// What a cleaner reports instead of the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Says {
    /// Its container ended with exit code 0.
    pub succeeded: bool,
    /// Its termination message.
    pub report: Value,
}

/// A request for a deletion, as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Which verb, as in `delete_pod`.
    pub verb: &'static str,
    /// The resource's key, or namespace and name.
    pub key: String,
    /// The run in its tag or label, in the form that people see.
    pub run: Option<String>,
    /// The cluster in its tag; none for what is in the cluster itself.
    pub cluster: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// An accepted mutating request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Which verb, as in `begin_snapshot`.
    pub verb: &'static str,
    /// The resource's key.
    pub key: String,
    /// When.
    pub at: Timestamp,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    /// The world's time.
    pub clock: SimClock,
    /// Chance.
    pub rng: Rng,
    /// What goes wrong now and then.
    pub faults: Faults,
    /// Calls so far, to Azure and to Kubernetes.
    pub calls: u64,
    /// What goes wrong with the call of that number, from 1.
    pub script: BTreeMap<u64, Fault>,
    /// What nobody knows of Azure.
    pub habits: Habits,
    /// What else of docs/ASSUMPTIONS.md does not hold here, by its number; nothing, unless a test says so.
    pub otherwise: BTreeSet<u32>,
    /// Stretches or shrinks every duration.
    pub scale: f64,
    /// Scale sets: raw models, as Azure shows them.
    pub scale_sets: BTreeMap<String, Resource<Value>>,
    /// Custom data, which is never shown.
    pub custom_data: BTreeMap<String, String>,
    /// Instances by key.
    pub instances: BTreeMap<String, Instance>,
    /// Instances that do not run, by key.
    pub off: BTreeMap<String, Power>,
    /// Machines that are no instances.
    pub virtual_machines: Vec<Machine>,
    /// Keys of what a lock or a policy keeps from being deleted, and Azure's code for it.
    pub locked: BTreeMap<String, &'static str>,
    /// Calls to Azure that we have no right to, by verb and key.
    pub forbidden: BTreeSet<(&'static str, String)>,
    /// The Python tool's workloads in the cluster.
    pub rivals: Vec<Rival>,
    /// Disks.
    pub disks: BTreeMap<String, Resource<Disk>>,
    /// Data disks that were attached by an order to an instance, by the disk's key.
    pub attachments: BTreeMap<String, Attachment>,
    /// When a disk stops saying that it is attached.
    pub detaching: BTreeMap<String, Timestamp>,
    /// Disks whose content was cleaned, with the nonce of the cleaning.
    pub cleaned: BTreeMap<String, String>,
    /// Snapshots.
    pub snapshots: BTreeMap<String, Resource<Snapshot>>,
    /// Galleries.
    pub galleries: BTreeMap<String, Resource<Gallery>>,
    /// Definitions.
    pub definitions: BTreeMap<String, Resource<Definition>>,
    /// Versions.
    pub versions: BTreeMap<String, Resource<Version>>,
    /// Operations, by number.
    pub jobs: Vec<Job>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods by namespace/name.
    pub pods: BTreeMap<String, Pod>,
    /// Pods that clean donors from inside, by namespace/name.
    pub donor_pods: BTreeMap<String, DonorPod>,
    /// The runs whose tokens live, by namespace/name of what keeps them alive.
    pub anchors: BTreeMap<String, RunId>,
    /// What they have left as proof, by run.
    pub proofs: BTreeMap<String, String>,
    /// Why cleaners on donors fail, when they do.
    pub cleaner_fails: Option<String>,
    /// Machines by their instances' keys.
    pub machines: Machines,
    /// Claims by namespace/name.
    pub claims: BTreeMap<String, Object>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Object>,
    /// What people run on the nodes.
    pub tenants: Tenants,
    /// Leases by namespace/name.
    pub leases: BTreeMap<String, Lease>,
    /// Buckets that Azure has closed.
    pub closed: BTreeMap<Bucket, Timestamp>,
    /// Closed buckets that the run has recorded: from then on there is no excuse.
    pub told: BTreeSet<Bucket>,
    /// Requests to such a bucket before its time: each is a violation.
    pub early: Vec<String>,
    /// Accepted mutating requests, oldest first.
    pub accepted: Vec<Accepted>,
    /// What was made, oldest first: what is not in tags is known here.
    pub made: Vec<(Kind, String)>,
    /// Snapshots that hold only what differs from another, by key.
    pub incremental: BTreeSet<String>,
    /// Every snapshot that was ever taken, and the disk that it is of.
    pub sources: Vec<(String, String)>,
    /// What every cleaner reports, if not the truth.
    pub cleaner: Option<Says>,
    /// Every version name that was ever published, in order, with its run.
    pub published: Vec<(String, Option<RunId>)>,
    /// Accepted requests for deletions, oldest first.
    pub deletions: Vec<Deletion>,
    /// Disks that went, as they were: lists show them a while longer.
    pub gone_disks: Vec<(Timestamp, Disk)>,
    /// Snapshots that went.
    pub gone_snapshots: Vec<(Timestamp, Snapshot)>,
    /// Keys of resources that were deleted, with the owner that they had.
    pub deleted: Vec<(Kind, String, Option<RunId>)>,
    /// Writes to what is not ours: each is a violation.
    pub trespasses: Vec<String>,
    /// What was told on nodes, oldest first.
    pub node_notes: Vec<NodeNote>,
    /// What a node suffered, by the invariant that it broke.
    pub harm: Vec<(&'static str, String)>,
    /// What happened, a line each.
    pub log: Vec<String>,
    /// Lines that have been looked at by checkers, by checker: how often what they check was the case.
    pub exercised: BTreeMap<&'static str, u64>,
    /// Keys of donors' disks and instances: nothing may be written to them.
    pub untouchable: BTreeSet<String>,
    /// There is zone-redundant storage here; where there is none, a version in it fails late.
    pub zrs: bool,
    /// What failed for want of it does not say so; only its operation does.
    pub zrs_silent: bool,
    /// Azure Monitor's own scaling.
    pub autoscale: Vec<Autoscale>,
    /// Where new nodes come from; none where none come.
    pub nursery: Option<Nursery>,
}

impl World {
    /// A line in the log.
    pub fn note(&mut self, line: impl AsRef<str>) {
        let elapsed = self.clock.elapsed();
        self.log.push(format!("{:>9.3} {}", elapsed.as_secs_f64(), line.as_ref()));
    }

    /// This assumption of docs/ASSUMPTIONS.md does not hold here.
    #[must_use]
    pub fn otherwise(&self, number: u32) -> bool {
        self.otherwise.contains(&number)
    }

    /// Counts a call, and says what goes wrong with it.
    pub fn called(&mut self) -> Option<Fault> {
        self.calls += 1;
        self.script.remove(&self.calls)
    }

    /// The world's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A duration between two bounds, in seconds, by chance and scale.
    pub fn span(&mut self, seconds: std::ops::Range<u64>) -> SignedDuration {
        let seconds = self.rng.u64(seconds);
        let scaled = Duration::from_secs(seconds).mul_f64(self.scale);
        SignedDuration::try_from(scaled).unwrap_or_default()
    }

    /// Begins an operation on a resource.
    pub fn begin(
        &mut self,
        kind: Kind,
        key: &str,
        effect: Effect,
        seconds: std::ops::Range<u64>,
    ) -> (usize, Operation) {
        let due = self.now() + self.span(seconds);
        let chance = self.faults.failures;
        // Deletions that fail are another story, and scale sets may say Failed and have applied the change.
        let fails = (effect == Effect::Make && self.faults.strikes(chance, &mut self.rng))
            .then(|| ("InternalExecutionError".to_owned(), "an internal execution error occurred".to_owned()));
        let number = self.jobs.len();
        let family = match kind {
            Kind::ScaleSet => "operations",
            Kind::Disk | Kind::Snapshot => "DiskOperations",
            Kind::Gallery | Kind::Definition | Kind::Version => "capsOperations",
        };
        let subscription = key.split('/').nth(2).unwrap_or_default();
        let url = format!(
            "https://management.azure.com/subscriptions/{subscription}/providers/Microsoft.Compute/locations/westus/{family}/\
             {number:08}-{:016x}?api-version=2024-07-01&t=638602581384722287&c={}&s=U-LpxAqZ{number}&h=jExK5M",
            self.rng.u64(..),
            "MIIHhz".repeat(400),
        );
        let job = Job { url: url.clone(), kind, key: key.to_owned(), effect, due, looks: 0, fails, finished: false };
        self.jobs.push(job);
        (number, Operation(url))
    }

    /// The newest operation will fail, with this code and message.
    pub(super) fn fail_newest(&mut self, (code, message): (&str, &str)) {
        if let Some(job) = self.jobs.last_mut() {
            job.fails = Some((code.to_owned(), message.to_owned()));
        }
    }

    /// Somebody looks at an operation: it may come to its end.
    pub fn look(&mut self, number: usize) {
        let now = self.now();
        let Some(job) = self.jobs.get_mut(number) else { return };
        if job.finished {
            return;
        }
        job.looks += 1;
        if job.due > now || job.looks < LOOKS_MIN {
            return;
        }
        job.finished = true;
        let job = job.clone();
        self.finish(&job);
    }

    fn finish(&mut self, job: &Job) {
        let outcome = if job.fails.is_some() { "failed" } else { "done" };
        self.note(format!("{:?} {} {outcome}: {}", job.kind, verb(&job.effect), name(&job.key)));
        let provisioning = if job.fails.is_some() { Provisioning::Failed } else { Provisioning::Succeeded };
        let key = &job.key;
        if job.effect == Effect::Delete {
            let owner = self.owner(job.kind, key);
            let now = self.now();
            match job.kind {
                Kind::ScaleSet => drop(self.scale_sets.remove(key)),
                Kind::Disk => {
                    if self.otherwise(19) {
                        let made = self.versions.values_mut().map(|version| &mut version.value);
                        made.filter(|it| it.source.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(key)))
                            .for_each(|version| version.provisioning = Provisioning::Failed);
                    }
                    self.gone_disks.extend(self.disks.remove(key).map(|disk| (now, disk.value)));
                }
                Kind::Snapshot => {
                    self.gone_snapshots.extend(self.snapshots.remove(key).map(|snapshot| (now, snapshot.value)));
                }
                Kind::Gallery => drop(self.galleries.remove(key)),
                Kind::Definition => drop(self.definitions.remove(key)),
                Kind::Version => drop(self.versions.remove(key)),
            }
            self.deleted.push((job.kind, key.clone(), owner));
            return;
        }
        match job.kind {
            Kind::ScaleSet => {
                if let Some(set) = self.scale_sets.get_mut(key) {
                    // Azure calls some updates failed that were applied (kamino's own experience).
                    let state = if job.fails.is_some() { "Failed" } else { "Succeeded" };
                    set.value["properties"]["provisioningState"] = state.into();
                    set.operation = None;
                }
            }
            Kind::Disk => settle(self.disks.get_mut(key), |disk| disk.provisioning = provisioning),
            Kind::Snapshot => settle(self.snapshots.get_mut(key), |snapshot| snapshot.provisioning = provisioning),
            Kind::Gallery => {
                settle(self.galleries.get_mut(key), |gallery| gallery.provisioning = Provisioning::Succeeded);
            }
            Kind::Definition => {
                settle(self.definitions.get_mut(key), |definition| definition.provisioning = Provisioning::Succeeded);
            }
            Kind::Version => settle(self.versions.get_mut(key), |version| {
                version.provisioning = provisioning;
                if let Some((code, message)) = job.fails.as_ref().filter(|(code, _)| code == NO_ZRS.0) {
                    version.replication = if self.zrs_silent {
                        Replication::Unknown
                    } else {
                        Replication::Failed(format!("{code}: {message}"))
                    };
                }
                if version.provisioning == Provisioning::Succeeded {
                    version.replication = Replication::Completed;
                    version.size_gib = version.size_gib.or(Some(30));
                }
            }),
        }
    }

    /// The run that owns a resource.
    #[must_use]
    pub fn owner(&self, kind: Kind, key: &str) -> Option<RunId> {
        match kind {
            Kind::Disk => self.disks.get(key)?.value.run,
            Kind::Snapshot => self.snapshots.get(key)?.value.run,
            Kind::Version => self.versions.get(key)?.value.run,
            Kind::ScaleSet | Kind::Gallery | Kind::Definition => None,
        }
    }

    /// What happens by itself as time passes: pods run and end, disks come free, objects go.
    pub fn pass(&mut self) {
        let now = self.now();
        self.pass_tenants(now);
        self.pass_machines();
        self.pass_births();
        self.pass_attachments();
        let ended: Vec<Pod> = self
            .pods
            .values()
            .filter(|pod| pod.ends_at <= now && !pod.killed && pod.gone_at.is_none())
            .cloned()
            .collect();
        for pod in ended {
            self.cleaned.insert(pod.spec.disk.key(), pod.spec.nonce.clone());
        }
        let gone = |at: &Option<Timestamp>| at.is_some_and(|at| at <= now);
        let left: Vec<(String, String)> = self
            .pods
            .iter()
            .filter(|(_, pod)| gone(&pod.gone_at))
            .map(|(name, pod)| (name.clone(), pod.spec.disk.key()))
            .collect();
        for (pod, disk) in left {
            if self.pods.remove(&pod).is_some_and(|pod| pod.spec.at.is_some()) {
                continue;
            }
            // Azure goes on calling a disk attached for minutes after its pod has gone.
            let until = now + self.span(60..300);
            self.detaching.insert(disk, until);
        }
        self.claims.retain(|_, object| !gone(&object.gone_at));
        self.volumes.retain(|_, object| !gone(&object.gone_at));
        let free: Vec<String> =
            self.detaching.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in free {
            self.detaching.remove(&key);
            if let Some(disk) = self.disks.get_mut(&key) {
                disk.value.state = DiskState::Unattached;
                disk.value.managed = false;
            }
        }
        let by_driver = self.pods.values().filter(|pod| pod.runs_at <= now && pod.spec.at.is_none());
        let attached: Vec<String> = by_driver.map(|pod| pod.spec.disk.key()).collect();
        for key in attached {
            if let Some(disk) = self.disks.get_mut(&key) {
                disk.value.state = DiskState::Attached;
                disk.value.managed = true;
            }
        }
    }

    fn pass_tenants(&mut self, now: Timestamp) {
        if self.tenants.is_empty() {
            return;
        }
        let ready = self.nodes.iter().filter(|node| node.ready).map(|node| node.name.as_str().to_owned()).collect();
        self.tenants.pass(now, &ready, &mut self.rng);
    }

    /// Where a pod is in its life.
    #[must_use]
    pub fn phase(&self, pod: &Pod) -> PodPhase {
        let now = self.now();
        if now < pod.runs_at {
            PodPhase::Pending("waiting for the volume to be attached".into())
        } else if now < pod.ends_at {
            PodPhase::Running
        } else if pod.killed {
            PodPhase::Failed("container was killed (137)".into())
        } else {
            PodPhase::Succeeded
        }
    }

    /// Notes an accepted request for a deletion.
    pub fn note_deletion(&mut self, verb: &'static str, key: &str, run: Option<String>) {
        let disk = self.disks.get(key).and_then(|disk| disk.value.cluster.clone());
        let cluster = disk.or_else(|| self.snapshots.get(key).and_then(|snapshot| snapshot.value.cluster.clone()));
        let at = self.now();
        self.deletions.push(Deletion { verb, key: key.to_owned(), run, cluster, at });
    }

    /// What a list shows is some time old: what was just made is missing, what just went is still there.
    fn listed<T: Clone>(
        &self,
        inside: &str,
        there: &BTreeMap<String, Resource<T>>,
        gone: &[(Timestamp, T)],
        of: impl Fn(&T) -> (String, Option<Timestamp>),
    ) -> Vec<T> {
        let lag = if self.otherwise(40) { LIST_LAGS * 1_000 } else { LIST_LAGS };
        let then = self.now() - SignedDuration::try_from(lag.mul_f64(self.scale)).unwrap_or_default();
        let there = there.values().filter(|found| found.visible <= then).map(|found| &found.value);
        let gone = gone.iter().filter(|(at, _)| *at > then).map(|(_, value)| value);
        let shown = there.chain(gone).filter(|value| {
            let (key, created) = of(value);
            key.starts_with(inside) && created.is_none_or(|at| at <= then)
        });
        shown.cloned().collect()
    }

    /// The disks that a list of a resource group shows.
    #[must_use]
    pub fn listed_disks(&self, inside: &str) -> Vec<Disk> {
        let of = |disk: &Disk| (disk.id.key(), disk.created);
        self.listed(inside, &self.disks, &self.gone_disks, of)
    }

    /// The snapshots that a list of a resource group shows.
    #[must_use]
    pub fn listed_snapshots(&self, inside: &str) -> Vec<Snapshot> {
        let of = |snapshot: &Snapshot| (snapshot.id.key(), snapshot.created);
        self.listed(inside, &self.snapshots, &self.gone_snapshots, of)
    }

    /// The instances that a list of a scale set shows. Whoever asks in the other place finds none.
    pub fn listed_instances(&self, id: &ScaleSetId, orchestration: Orchestration) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(move |instance| {
            let there = match &instance.id {
                InstanceId::Uniform(_) => Orchestration::Uniform,
                InstanceId::Flexible(_) => Orchestration::Flexible,
            };
            there == orchestration && instance.scale_set().as_ref() == Some(id)
        })
    }

    /// The virtual machines that a list of the subscription shows.
    #[must_use]
    pub fn all_virtual_machines(&self) -> Vec<Machine> {
        let flexible = self.instances.values().filter_map(|instance| match &instance.id {
            InstanceId::Uniform(_) => None,
            InstanceId::Flexible(id) => Some(Machine { id: id.id().clone(), image: instance.image.clone() }),
        });
        self.virtual_machines.iter().cloned().chain(flexible).collect()
    }

    /// The versions that somebody refers to.
    #[must_use]
    pub fn referenced(&self) -> BTreeSet<String> {
        let instances = self.instances.values().filter_map(|instance| match &instance.image {
            ImageRef::Version(id) => Some(id.key()),
            ImageRef::Definition(_) | ImageRef::Other(_) => None,
        });
        let sets = self.scale_sets.values().filter_map(|set| {
            let id =
                set.value.pointer("/properties/virtualMachineProfile/storageProfile/imageReference/id")?.as_str()?;
            Some(id.to_ascii_lowercase())
        });
        let machines = self.virtual_machines.iter().filter_map(|machine| match &machine.image {
            ImageRef::Version(id) => Some(id.key()),
            ImageRef::Definition(_) | ImageRef::Other(_) => None,
        });
        instances.chain(sets).chain(machines).collect()
    }

    /// The raw model of a scale set.
    #[must_use]
    pub fn model(&self, id: &ScaleSetId) -> Option<&Value> {
        self.scale_sets.get(&id.key()).map(|set| &set.value)
    }
}

fn settle<T>(resource: Option<&mut Resource<T>>, change: impl FnOnce(&mut T)) {
    if let Some(resource) = resource {
        change(&mut resource.value);
        resource.operation = None;
    }
}

fn verb(effect: &Effect) -> &'static str {
    match effect {
        Effect::Make => "make",
        Effect::Delete => "delete",
    }
}

/// The last two parts of a key: enough for people.
#[must_use]
pub(super) fn name(key: &str) -> &str {
    let cut = key.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    &key[cut..]
}

/// The world and its crash points, shared by all ports.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    /// Where processes die.
    pub crash: Arc<Crash>,
}

impl Shared {
    /// A shared world.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(world), crash: Arc::default() })
    }

    /// The world, with time passed.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.pass();
        world
    }
}
