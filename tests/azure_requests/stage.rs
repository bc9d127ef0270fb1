//! A world, its face, the real adapter, and what a run would ask of it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use kamino_wf::{
    clock::Clock,
    cloud::{
        Architecture, Cloud as _, DefinitionSpec, DiskCopy, Limiter, ModelChange, NewVersion, Operation,
        OperationState, SnapshotSpec, Tags,
        azure::{AzureCloud, AzureSettings, Credential, Timeouts},
    },
    model::{DefinitionId, DiskId, InstanceId, Region, RunId, ScaleSetId, VersionName},
    sim::{
        Scene, Shared, SimClock, SimCloud,
        arm::{ArmFace, ArmOptions, Fault},
        spec,
    },
};
use serde_json::json;
use uuid::Uuid;

/// A clock that the test sets forward.
#[derive(Debug)]
pub(crate) struct HandClock {
    inner: SimClock,
    ahead: Mutex<Duration>,
}

impl HandClock {
    pub(crate) fn forward(&self, by: Duration) {
        *self.ahead.lock().expect("a lock") += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        self.inner.now() + *self.ahead.lock().expect("a lock")
    }
    fn new_run(&self) -> RunId {
        self.inner.new_run()
    }
    fn new_id(&self) -> Uuid {
        self.inner.new_id()
    }
}

/// The world's pace: what takes Azure a minute takes 30 ms.
pub(crate) const PACE: f64 = 0.0005;

/// A world, its face, and the real adapter before it.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) shared: Arc<Shared>,
    pub(crate) face: ArmFace,
    pub(crate) azure: Arc<AzureCloud>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) token_file: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    pub(crate) async fn with(options: impl FnOnce(&mut ArmOptions), settings: impl FnOnce(&mut AzureSettings)) -> Self {
        Self::on(Scene { adopted: true, scale: PACE, ..Scene::nominal() }, options, settings).await
    }

    pub(crate) async fn on(
        scene: Scene,
        options: impl FnOnce(&mut ArmOptions),
        settings: impl FnOnce(&mut AzureSettings),
    ) -> Self {
        let world = scene.world();
        let world_clock = world.clock.clone();
        let shared = Shared::new(world);
        let dir = tempfile::tempdir().expect("a directory");
        let mut arm = ArmOptions::new(&dir.path().join("ca.pem"));
        arm.log_path = Some(dir.path().join("requests.jsonl"));
        options(&mut arm);
        let face = ArmFace::serve(Arc::clone(&shared), Arc::new(world_clock.clone()), &arm).await.expect("a face");

        let token_file = dir.path().join("token");
        std::fs::write(&token_file, "first-federated-token\n").expect("a token file");
        let credential = Credential::WorkloadIdentity {
            tenant: "tenant.example".into(),
            client: "client".into(),
            token_file: token_file.clone(),
        };
        let mut azure = AzureSettings {
            resource_manager: face.url(),
            authority: face.url(),
            ca_bundle: Some(arm.ca_path.clone()),
            timeouts: Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(20) },
            ..AzureSettings::public(credential)
        };
        settings(&mut azure);
        let clock = Arc::new(HandClock { inner: world_clock, ahead: Mutex::default() });
        let limiter = Arc::new(Limiter::default());
        let port: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let azure = Arc::new(AzureCloud::new(&azure, Arc::clone(&limiter), port).expect("an adapter"));
        Self { scene, shared, face, azure, clock, limiter, token_file, dir }
    }

    /// The world without a wire between.
    pub(crate) fn direct(&self) -> SimCloud {
        SimCloud::new(Arc::clone(&self.shared), Arc::new(Limiter::default()))
    }

    pub(crate) fn scale_set(&self) -> ScaleSetId {
        spec(&self.scene).scale_set
    }

    pub(crate) fn definition(&self) -> DefinitionId {
        let spec = spec(&self.scene);
        spec.gallery.definition(&spec.definition).expect("a definition")
    }

    pub(crate) fn instance(&self) -> InstanceId {
        InstanceId::parse(&format!("{}/virtualMachines/0", self.scale_set())).expect("an instance")
    }

    pub(crate) fn named<T: TryFrom<String>>(&self, kind: &str, name: &str) -> T {
        let id = self.scale_set();
        let (subscription, group) = (id.subscription(), id.resource_group());
        let text =
            format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/{kind}/{name}");
        T::try_from(text).ok().expect("an id")
    }

    pub(crate) fn donor_disk(&self) -> DiskId {
        self.named("disks", "pool1_0_OsDisk_1")
    }

    pub(crate) fn snapshot(&self) -> SnapshotSpec {
        SnapshotSpec {
            id: self.named("snapshots", "kwf-pool1-0123456789ab"),
            source: self.donor_disk(),
            location: Region("westeurope".into()),
            generation: "V2".into(),
            tags: tags(),
        }
    }

    pub(crate) fn copy(&self) -> DiskCopy {
        DiskCopy {
            id: self.named("disks", "kwf-pool1-0123456789ab"),
            source: self.snapshot().id,
            location: Region("westeurope".into()),
            zone: Some("2".into()),
            sku: "Premium_LRS".into(),
            generation: "V2".into(),
            architecture: Architecture::X64,
            security_type: Some("TrustedLaunch".into()),
            tags: tags(),
        }
    }

    pub(crate) fn version(&self) -> NewVersion {
        NewVersion {
            id: self.definition().version(&VersionName::parse("2026.11.24000").expect("a version")),
            location: Region("westeurope".into()),
            regions: vec![Region("westeurope".into()), Region("northeurope".into())],
            replicas: 1,
            storage: "Standard_LRS".into(),
            source: self.copy().id.id().clone(),
            tags: tags(),
        }
    }

    pub(crate) fn definition_spec(&self, name: &str) -> DefinitionSpec {
        DefinitionSpec {
            id: spec(&self.scene).gallery.definition(name).expect("a definition"),
            location: Region("westeurope".into()),
            generation: "V2".into(),
            architecture: Architecture::Arm64,
            security_type: Some("TrustedLaunch".into()),
            disk_controllers: Some("SCSI, NVMe".into()),
            plan: None,
            publisher: "kamino-wf".into(),
            offer: "prototypes".into(),
            sku: name.into(),
        }
    }

    pub(crate) fn model_change(&self) -> ModelChange {
        ModelChange {
            scale_set: self.scale_set(),
            run: run(),
            image: self.definition(),
            empty_custom_data: true,
            remove_extensions: vec!["vmssCSE".into()],
            under: None,
        }
    }

    /// What an operation comes to.
    pub(crate) async fn end_of(&self, operation: &Operation) -> OperationState {
        self.until("the operation's end", async || {
            let told = self.azure.operation(operation).await.expect("a look");
            (!matches!(told, OperationState::Running(_))).then_some(told)
        })
        .await
    }

    /// Waits for a thing to be read as we want it; each look goes over the wire.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what} did not come; {:#?}", self.shared.world().log);
    }
}

pub(crate) fn run() -> RunId {
    RunId(Uuid::from_u128(0x0193_5b7e_0000_7000_8000_0123_4567_89ab))
}

pub(crate) fn tags() -> Tags {
    Tags::from([
        ("kamino-wf-run".into(), run().0.hyphenated().to_string()),
        ("kamino-wf-cluster".into(), "this-cluster".into()),
        ("kamino-wf-donor".into(), "pool1-vmss000000".into()),
    ])
}

pub(crate) fn throttled(ms: u64) -> Fault {
    Fault::Answer {
        status: 429,
        headers: vec![("retry-after", "1".into()), ("x-ms-retry-after-ms", ms.to_string())],
        body: json!({ "error": { "code": "OperationNotAllowed", "message": "too many requests" } }),
    }
}
