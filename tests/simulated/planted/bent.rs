//! Ports that misbehave as a fault of ours would: each stands between the engine and the simulated world.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kamino_wf::{
    cloud::{
        Accepted, Autoscale, Cloud, CloudError, Definition, DefinitionSpec, Disk, DiskCopy, Gallery, Instance,
        Leftovers, Limiter, Machine, MachinePower, ModelChange, NewVersion, Operation, OperationState, Orchestration,
        Power, Powered, Provisioning, Replication, ScaleSet, Snapshot, SnapshotSpec, Tags, UpgradeMode, Version,
    },
    cluster::{
        self, Anchor, CleaningSpec, CleaningView, Cluster, ClusterError, DonorCleaning, Lease, LeaseClaim, Node,
        NodeChange, NodeNote, PodPhase, Remains, Rival,
    },
    model::{
        DefinitionId, DiskId, GalleryId, GroupId, InstanceId, NodeName, Region, ScaleSetId, SnapshotId, VersionId,
    },
    model::{RunId, VersionName},
    policy::obligations::{CLAIM, DO_NOT_DISRUPT, SCALE_DOWN_DISABLED},
    sim::{Shared, SimCloud},
    store::{Batch, ByteTree, Entry, TreeError},
};
use serde_json::json;

/// What is wrong with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing.
    Nothing,
    /// A retry inside a step.
    AsksTwice,
    /// The disk of another node than the one that was chosen.
    SnapshotsAnotherDisk,
    /// The upgrade policy is not read.
    TakesEveryPoolForManual,
    /// Published as soon as it is made.
    PublishesUnproved,
    /// A pod that exists is taken for one that has cleaned.
    BelievesAnUnfinishedPod,
    /// No look at whose a version is.
    DeletesAStrangersVersion,
    /// Counts versions that are not there.
    CountsVersionsTwice,
    /// Only today's date makes the version's name.
    ForgetsHigherVersions,
    /// A PATCH of the image reference alone.
    SendsAPartialPatch,
    /// A request that was on its way back to front.
    GoesOnAfterTheCancel,
    /// A pod is what a cleaning consists of.
    LeavesTheClaim,
    /// Source and target exchanged.
    CopiesOverTheDonor,
    /// A resource without tags.
    ForgetsTheRunTag,
    /// Try again in a second, as always.
    IgnoresRetryAfter,
    /// A power call to more than the instance.
    StopsANeighbourToo,
    /// A cordon without what keeps autoscalers away.
    DropsTheHold,
    /// Annotations removed instead of restored.
    ForgetsHowItWas,
    /// The token goes with the pod that asked for it.
    EndsTheTokenTooEarly,
    /// Nobody looks whether the token is dead.
    LeavesTheToken,
    /// Given back as soon as it was told to start.
    ReleasesTooEarly,
    /// A pod that a budget may want is deleted.
    DeletesInsteadOfEvicting,
    /// Only the pool's own instances are asked which version they use.
    OverlooksOtherPools,
    /// A Node that is there is a node that works.
    TakesEveryNodeForReady,
    /// Nobody asks whose machine id it is.
    OverlooksTwins,
}

/// Azure, seen through a bug.
pub(crate) struct BentCloud {
    pub(crate) inner: Arc<dyn Cloud>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) bug: Bug,
    pub(crate) kept: Mutex<Option<SnapshotSpec>>,
}

impl BentCloud {
    /// A version of the same definition.
    fn sibling(id: &VersionId, name: &str) -> VersionId {
        id.definition().version(&VersionName::parse(name).expect("a version's name"))
    }

    /// The port to use for a call that may be throttled.
    fn port(&self) -> Arc<dyn Cloud> {
        if self.bug == Bug::IgnoresRetryAfter {
            Arc::new(SimCloud::new(Arc::clone(&self.shared), Arc::new(Limiter::default())))
        } else {
            Arc::clone(&self.inner)
        }
    }

    fn soon(error: CloudError) -> CloudError {
        if let CloudError::Throttled { what, bucket, .. } = error {
            CloudError::Throttled { what, bucket, retry_after: Duration::from_secs(1) }
        } else {
            error
        }
    }

    fn manual(&self, mut set: ScaleSet) -> ScaleSet {
        if self.bug == Bug::TakesEveryPoolForManual {
            set.upgrade_mode = UpgradeMode::Manual;
        }
        set
    }
}

#[async_trait]
impl Cloud for BentCloud {
    async fn scale_set(&self, id: &ScaleSetId) -> Result<Option<ScaleSet>, CloudError> {
        Ok(self.inner.scale_set(id).await?.map(|set| self.manual(set)))
    }

    async fn scale_sets(&self, subscription: &str) -> Result<Vec<ScaleSet>, CloudError> {
        let answer = self.port().scale_sets(subscription).await;
        let sets = if self.bug == Bug::IgnoresRetryAfter { answer.map_err(Self::soon)? } else { answer? };
        Ok(sets.into_iter().map(|set| self.manual(set)).collect())
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError> {
        self.inner.instance(id).await
    }

    async fn instances(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Instance>, CloudError> {
        if self.bug == Bug::OverlooksOtherPools && id.name() != "pool1" {
            return Ok(Vec::new());
        }
        self.inner.instances(id, orchestration).await
    }

    async fn power(&self, id: &InstanceId) -> Result<Option<MachinePower>, CloudError> {
        let power = self.inner.power(id).await?;
        let told = |power: &MachinePower| self.bug == Bug::ReleasesTooEarly && power.state == Power::Starting;
        Ok(power.map(|power| if told(&power) { MachinePower { state: Power::Running, ..power } } else { power }))
    }

    async fn begin_power_off(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        if self.bug == Bug::StopsANeighbourToo {
            let set = self.inner.instance(id).await?.and_then(|donor| donor.scale_set()).expect("a scale set");
            let all = self.inner.instances(&set, Orchestration::Uniform).await?;
            let other = all.into_iter().find(|other| other.id != *id).expect("a neighbour");
            self.inner.begin_power_off(&other.id).await?;
        }
        self.inner.begin_power_off(id).await
    }

    async fn begin_start(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.inner.begin_start(id).await
    }

    async fn begin_restart(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.inner.begin_restart(id).await
    }

    async fn machines(&self, subscription: &str) -> Result<Vec<Machine>, CloudError> {
        self.inner.machines(subscription).await
    }

    async fn powers(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Powered>, CloudError> {
        self.inner.powers(id, orchestration).await
    }

    async fn begin_tag_version(&self, id: &VersionId, tag: &str, value: Option<&str>) -> Result<Accepted, CloudError> {
        self.inner.begin_tag_version(id, tag, value).await
    }

    async fn disk(&self, id: &DiskId) -> Result<Option<Disk>, CloudError> {
        self.inner.disk(id).await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, CloudError> {
        self.inner.snapshot(id).await
    }

    async fn gallery(&self, id: &GalleryId) -> Result<Option<Gallery>, CloudError> {
        self.inner.gallery(id).await
    }

    async fn definition(&self, id: &DefinitionId) -> Result<Option<Definition>, CloudError> {
        self.inner.definition(id).await
    }

    async fn version(&self, id: &VersionId) -> Result<Option<Version>, CloudError> {
        if self.bug == Bug::DeletesAStrangersVersion {
            self.inner.version(&Self::sibling(id, "2026.03.01")).await?;
        }
        let found = self.inner.version(id).await?;
        if self.bug == Bug::PublishesUnproved
            && let Some(version) = &found
            && version.provisioning == Provisioning::Succeeded
            && version.excluded_from_latest
        {
            self.inner.begin_publish(id, true).await?;
        }
        Ok(found)
    }

    async fn versions(&self, id: &DefinitionId) -> Result<Vec<Version>, CloudError> {
        let mut versions = self.inner.versions(id).await?;
        if self.bug == Bug::ForgetsHigherVersions {
            versions.retain(|version| version.id.name().starts_with("2026."));
        }
        if self.bug == Bug::CountsVersionsTwice {
            versions.extend(versions.clone());
        }
        Ok(versions)
    }

    async fn leftovers(&self, group: &GroupId) -> Result<Leftovers, CloudError> {
        self.inner.leftovers(group).await
    }

    async fn operation(&self, operation: &Operation) -> Result<OperationState, CloudError> {
        self.inner.operation(operation).await
    }

    async fn begin_snapshot(&self, want: &SnapshotSpec) -> Result<Accepted, CloudError> {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(want.clone());
        if self.bug == Bug::SnapshotsAnotherDisk {
            let another =
                self.shared.world().disks.values().map(|disk| disk.value.id.clone()).find(|disk| *disk != want.source);
            let source = another.expect("another node's disk");
            return self.inner.begin_snapshot(&SnapshotSpec { source, ..want.clone() }).await;
        }
        let accepted = self.inner.begin_snapshot(want).await;
        if self.bug == Bug::AsksTwice {
            self.inner.begin_snapshot(want).await?;
        }
        accepted
    }

    async fn begin_delete_snapshot(&self, id: &SnapshotId) -> Result<Accepted, CloudError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.bug == Bug::GoesOnAfterTheCancel {
            self.inner.begin_snapshot(&kept.expect("a snapshot was asked for")).await?;
        }
        self.inner.begin_delete_snapshot(id).await
    }

    async fn begin_copy_disk(&self, want: &DiskCopy) -> Result<Accepted, CloudError> {
        if self.bug == Bug::CopiesOverTheDonor {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let donor = kept.expect("a snapshot was asked for").source;
            self.inner.begin_copy_disk(&DiskCopy { id: donor, ..want.clone() }).await?;
        }
        let mut want = want.clone();
        if self.bug == Bug::ForgetsTheRunTag {
            want.tags.clear();
        }
        self.inner.begin_copy_disk(&want).await
    }

    async fn autoscale(&self, subscription: &str) -> Result<Vec<Autoscale>, CloudError> {
        self.inner.autoscale(subscription).await
    }

    async fn begin_tag_disk(&self, id: &DiskId, tags: &Tags) -> Result<Accepted, CloudError> {
        self.inner.begin_tag_disk(id, tags).await
    }

    async fn begin_scale_out(&self, id: &ScaleSetId, run: RunId, capacity: u32) -> Result<Accepted, CloudError> {
        self.inner.begin_scale_out(id, run, capacity).await
    }

    async fn begin_delete_disk(&self, id: &DiskId) -> Result<Accepted, CloudError> {
        self.inner.begin_delete_disk(id).await
    }

    async fn begin_attach(&self, to: &InstanceId, disk: &DiskId, lun: u32) -> Result<Accepted, CloudError> {
        self.inner.begin_attach(to, disk, lun).await
    }

    async fn begin_detach(&self, from: &InstanceId, disk: &DiskId) -> Result<Accepted, CloudError> {
        self.inner.begin_detach(from, disk).await
    }

    async fn begin_gallery(&self, id: &GalleryId, location: &Region) -> Result<Accepted, CloudError> {
        self.inner.begin_gallery(id, location).await
    }

    async fn begin_definition(&self, want: &DefinitionSpec) -> Result<Accepted, CloudError> {
        self.inner.begin_definition(want).await
    }

    async fn begin_version(&self, want: &NewVersion) -> Result<Accepted, CloudError> {
        self.inner.begin_version(want).await
    }

    async fn begin_publish(&self, id: &VersionId, published: bool) -> Result<Accepted, CloudError> {
        self.inner.begin_publish(id, published).await
    }

    async fn begin_delete_version(&self, id: &VersionId) -> Result<Accepted, CloudError> {
        if self.bug == Bug::DeletesAStrangersVersion {
            self.inner.begin_delete_version(&Self::sibling(id, "2026.03.01")).await?;
        }
        self.inner.begin_delete_version(id).await
    }

    async fn begin_model_change(&self, want: &ModelChange) -> Result<Accepted, CloudError> {
        if self.bug == Bug::SendsAPartialPatch {
            let port = SimCloud::new(Arc::clone(&self.shared), Arc::new(Limiter::default()));
            let image = json!({ "imageReference": { "id": want.image.as_str() } });
            let body = json!({ "properties": { "virtualMachineProfile": { "storageProfile": image } } });
            return port.patch_scale_set(&want.scale_set, None, &body).await;
        }
        self.inner.begin_model_change(want).await
    }
}

/// A published version that nobody made.
pub(crate) fn phantom(definition: &DefinitionId, name: &str, run: Option<RunId>) -> Version {
    Version {
        id: definition.version(&VersionName::parse(name).expect("a version's name")),
        provisioning: Provisioning::Succeeded,
        replication: Replication::Completed,
        excluded_from_latest: false,
        regions: vec![],
        storage: None,
        source: None,
        size_gib: Some(64),
        created: None,
        tags: std::collections::BTreeMap::new(),
        run,
    }
}

/// Kubernetes, seen through a bug.
pub(crate) struct BentCluster {
    pub(crate) inner: Arc<dyn Cluster>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) bug: Bug,
}

impl BentCluster {
    fn believed(&self, mut node: Node) -> Node {
        let claimed = node.annotations.contains_key(CLAIM);
        if self.bug == Bug::DropsTheHold && claimed {
            node.annotations.insert(SCALE_DOWN_DISABLED.to_owned(), "true".to_owned());
        }
        let captured = !self.shared.world().snapshots.is_empty();
        if self.bug == Bug::ReleasesTooEarly && claimed && captured {
            node.lease_renewed = Some(self.shared.world().now());
            node.boot_id.push('x');
            node.ready = true;
            node.taints.clear();
        }
        if self.bug == Bug::TakesEveryNodeForReady {
            node.ready = true;
        }
        if self.bug == Bug::OverlooksTwins {
            node.machine_id = format!("own of {}", node.name);
        }
        node
    }
}

#[async_trait]
impl Cluster for BentCluster {
    async fn cluster_id(&self) -> Result<String, ClusterError> {
        self.inner.cluster_id().await
    }

    async fn nodes(&self) -> Result<Vec<Node>, ClusterError> {
        Ok(self.inner.nodes().await?.into_iter().map(|node| self.believed(node)).collect())
    }

    async fn node(&self, name: &NodeName) -> Result<Option<Node>, ClusterError> {
        Ok(self.inner.node(name).await?.map(|node| self.believed(node)))
    }

    async fn tell(&self, note: &NodeNote) -> Result<(), ClusterError> {
        self.inner.tell(note).await
    }

    async fn change_node(&self, want: &NodeChange) -> Result<(), ClusterError> {
        let mut want = want.clone();
        if self.bug == Bug::DropsTheHold {
            want.annotations.remove(SCALE_DOWN_DISABLED);
        }
        if self.bug == Bug::ForgetsHowItWas && want.annotations.get(CLAIM) == Some(&None) {
            want.annotations.insert(DO_NOT_DISRUPT.to_owned(), None);
        }
        self.inner.change_node(&want).await
    }

    async fn create_donor_pod(&self, want: &DonorCleaning) -> Result<(), ClusterError> {
        self.inner.create_donor_pod(want).await
    }

    async fn has_anchor(&self, anchor: &Anchor) -> Result<bool, ClusterError> {
        Ok(self.bug != Bug::LeavesTheToken && self.inner.has_anchor(anchor).await?)
    }

    async fn create_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        self.inner.create_anchor(anchor).await
    }

    async fn delete_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        self.inner.delete_anchor(anchor).await
    }

    async fn proof(&self, namespace: &str, run: RunId) -> Result<Option<String>, ClusterError> {
        let proof = self.inner.proof(namespace, run).await?;
        if self.bug == Bug::EndsTheTokenTooEarly && proof.is_some() {
            self.shared.world().anchors.clear();
        }
        Ok(proof)
    }

    async fn forget_proof(&self, namespace: &str, run: RunId) -> Result<(), ClusterError> {
        self.inner.forget_proof(namespace, run).await
    }

    async fn cleaning(&self, namespace: &str, name: &str) -> Result<CleaningView, ClusterError> {
        let mut view = self.inner.cleaning(namespace, name).await?;
        if self.bug == Bug::LeavesTheClaim && view.pod.is_none() && view.volume.is_none() {
            view.claim = None;
        }
        if self.bug == Bug::BelievesAnUnfinishedPod
            && let Some(pod) = &mut view.pod
        {
            let nonce = self.shared.world().pods.values().map(|pod| pod.spec.nonce.clone()).next();
            pod.report = Some(json!({ "nonce": nonce, "verdict": "clean" }).to_string());
            pod.phase = PodPhase::Succeeded;
        }
        Ok(view)
    }

    async fn rivals(&self) -> Result<Vec<Rival>, ClusterError> {
        self.inner.rivals().await
    }

    async fn leftovers(&self, namespace: &str) -> Result<Remains, ClusterError> {
        self.inner.leftovers(namespace).await
    }

    async fn create_volume(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        self.inner.create_volume(want).await
    }

    async fn create_claim(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        self.inner.create_claim(want).await
    }

    async fn create_pod(&self, want: &CleaningSpec) -> Result<(), ClusterError> {
        self.inner.create_pod(want).await
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        self.inner.delete_pod(namespace, name, uid).await
    }

    async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ClusterError> {
        if self.bug == Bug::LeavesTheClaim {
            let volume = self.inner.cleaning(namespace, name).await?.volume;
            return self.inner.delete_volume(name, &volume.expect("a volume").uid).await;
        }
        self.inner.delete_claim(namespace, name, uid).await
    }

    async fn delete_volume(&self, name: &str, uid: &str) -> Result<(), ClusterError> {
        self.inner.delete_volume(name, uid).await
    }

    async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, ClusterError> {
        self.inner.lease(namespace, name).await
    }

    async fn write_lease(
        &self,
        namespace: &str,
        name: &str,
        want: &LeaseClaim,
        over: Option<&str>,
    ) -> Result<Lease, ClusterError> {
        self.inner.write_lease(namespace, name, want, over).await
    }

    async fn pods_on(&self, node: &NodeName) -> Result<Vec<cluster::Pod>, ClusterError> {
        self.inner.pods_on(node).await
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<cluster::Pod>, ClusterError> {
        self.inner.pod(namespace, name).await
    }

    async fn daemon_set_exists(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        self.inner.daemon_set_exists(namespace, name).await
    }

    async fn budgets(&self, namespace: &str) -> Result<Vec<cluster::Budget>, ClusterError> {
        self.inner.budgets(namespace).await
    }

    async fn evict(&self, pod: &cluster::PodRef) -> Result<cluster::Eviction, ClusterError> {
        if self.bug == Bug::DeletesInsteadOfEvicting {
            self.inner.delete_gently(pod).await?;
            return Ok(cluster::Eviction::Accepted);
        }
        self.inner.evict(pod).await
    }

    async fn delete_gently(&self, pod: &cluster::PodRef) -> Result<(), ClusterError> {
        self.inner.delete_gently(pod).await
    }
}

/// A disk on which nothing is ever synced, whatever the journal is told.
pub(crate) struct NeverSynced {
    pub(crate) inner: Box<dyn ByteTree>,
    /// An empty store is taken for a new one, whatever the mark beside it says.
    pub(crate) forgives: bool,
}

impl ByteTree for NeverSynced {
    fn scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, TreeError> {
        self.inner.scan(prefix)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        self.inner.get(key)
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), TreeError> {
        self.inner.apply(batch)
    }

    fn sync(&mut self) -> Result<(), TreeError> {
        Ok(())
    }

    fn read_mark(&self) -> Result<[Option<Vec<u8>>; 2], TreeError> {
        if self.forgives && self.inner.scan(b"")?.is_empty() { Ok([None, None]) } else { self.inner.read_mark() }
    }

    fn write_mark(&mut self, slot: usize, bytes: &[u8]) -> Result<(), TreeError> {
        self.inner.write_mark(slot, bytes)
    }
}
