//! Where a simulation begins: a pool of three nodes, a scale set as Azure shows one, and perhaps images from before.

use std::collections::BTreeMap;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Faults, Habits, Newcomer, Nursery, SimClock,
    machines::Machine,
    world::{Resource, World},
};
use crate::{
    cloud::{
        Architecture, Definition, DefinitionSpec, Disk, DiskState, Gallery, ImageRef, Instance, Orchestration,
        Provisioning, Replication, Tags, Version,
    },
    cluster::Node,
    model::{
        Attach, BadName, Capture, Credential, DefinitionId, DiskId, DonorChoice, GalleryId, InstanceId, MachineId,
        NodeName, Profile, Region, RunId, ScaleSetId, UniformId, VersionName,
    },
    policy::{canary::Canary, gates::Gate, obligations::DO_NOT_DISRUPT, ranking::Rules},
    workflow::RunSpec,
};

const SUBSCRIPTION: &str = "5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77";
const GROUP: &str = "K8S-EUW";
const LOCATION: &str = "westeurope";
const POOL: &str = "pool1";

/// The cluster's id in every scene.
#[must_use]
pub fn cluster_id() -> String {
    "0a7c2f3e-1d5b-4f7a-8c1e-9b1d3f5a7c90".into()
}

/// How a simulation begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Everything by chance comes from it.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// What nobody knows of Azure.
    pub habits: Habits,
    /// Stretches or shrinks every duration.
    pub scale: f64,
    /// Where the scale set's instances are.
    pub orchestration: Orchestration,
    /// The scale set follows the definition already, and there are versions from before.
    pub adopted: bool,
    /// Which manifest applies.
    pub profile: Profile,
    /// How the donor's disk is captured.
    pub capture: Capture,
    /// What becomes of the kubelet's credential on a donor that is cleaned in place.
    pub credential: Credential,
    /// How the copy comes to its cleaning pod. By an instance only where more than one node is in a zone: all are, then.
    pub attach: Attach,
    /// Versions are asked for in zone-redundant storage.
    pub zone_redundant: bool,
    /// There is such storage in the regions.
    pub zones: bool,
    /// Where a person is asked.
    pub approve: Vec<Gate>,
    /// Whether the first node that is made from the version is watched. Then nodes are made here.
    pub canary: Canary,
    /// What comes of the nodes that are made from it.
    pub newcomer: Newcomer,
    /// When it begins.
    pub start: Timestamp,
}

impl Scene {
    /// The scene of a seed: everything by chance.
    #[must_use]
    pub fn of_seed(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5ce7e);
        Self {
            seed,
            faults,
            habits: Habits::by_chance(&mut rng),
            scale: 1.0,
            orchestration: Orchestration::Uniform,
            adopted: rng.bool(),
            profile: if rng.bool() { Profile::Kubeadm } else { Profile::AksEngine },
            capture: Capture::Live,
            credential: Credential::Keep,
            attach: Attach::Csi,
            zone_redundant: false,
            zones: true,
            approve: Vec::new(),
            canary: Canary::None,
            newcomer: Newcomer::Good,
            start: start(),
        }
    }

    /// A first update on a kubeadm pool, and nothing goes wrong but what always does.
    #[must_use]
    pub fn nominal() -> Self {
        Self {
            seed: 0,
            faults: Faults::none(),
            habits: Habits { patch_merges_image: true, etag_enforced: true },
            scale: 1.0,
            orchestration: Orchestration::Uniform,
            adopted: false,
            profile: Profile::Kubeadm,
            capture: Capture::Live,
            credential: Credential::Keep,
            attach: Attach::Csi,
            zone_redundant: false,
            zones: true,
            approve: Vec::new(),
            canary: Canary::None,
            newcomer: Newcomer::Good,
            start: start(),
        }
    }

    /// The world of this scene. Inside a tokio runtime.
    #[must_use]
    pub fn world(&self) -> World {
        let clock = SimClock::new(self.start, self.seed);
        let mut world = World {
            clock,
            rng: Rng::with_seed(self.seed),
            faults: self.faults.clone(),
            calls: 0,
            script: BTreeMap::new(),
            habits: self.habits,
            otherwise: std::collections::BTreeSet::new(),
            scale: self.scale,
            scale_sets: BTreeMap::new(),
            custom_data: BTreeMap::new(),
            instances: BTreeMap::new(),
            off: BTreeMap::new(),
            virtual_machines: Vec::new(),
            locked: BTreeMap::new(),
            forbidden: std::collections::BTreeSet::new(),
            rivals: Vec::new(),
            disks: BTreeMap::new(),
            attachments: BTreeMap::new(),
            detaching: BTreeMap::new(),
            cleaned: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            galleries: BTreeMap::new(),
            definitions: BTreeMap::new(),
            versions: BTreeMap::new(),
            jobs: Vec::new(),
            nodes: Vec::new(),
            pods: BTreeMap::new(),
            donor_pods: BTreeMap::new(),
            anchors: BTreeMap::new(),
            proofs: BTreeMap::new(),
            cleaner_fails: None,
            machines: BTreeMap::new(),
            claims: BTreeMap::new(),
            volumes: BTreeMap::new(),
            tenants: super::Tenants::default(),
            leases: BTreeMap::new(),
            closed: BTreeMap::new(),
            told: std::collections::BTreeSet::new(),
            early: Vec::new(),
            accepted: Vec::new(),
            made: Vec::new(),
            incremental: std::collections::BTreeSet::new(),
            sources: Vec::new(),
            cleaner: None,
            published: Vec::new(),
            deletions: Vec::new(),
            gone_disks: Vec::new(),
            gone_snapshots: Vec::new(),
            deleted: Vec::new(),
            trespasses: Vec::new(),
            node_notes: Vec::new(),
            harm: Vec::new(),
            log: Vec::new(),
            exercised: BTreeMap::new(),
            untouchable: std::collections::BTreeSet::new(),
            zrs: self.zones,
            zrs_silent: false,
            autoscale: Vec::new(),
            nursery: self.canary.limits().map(|_| Nursery::of(spec(self).scale_set, self.newcomer)),
        };
        let spec = spec(self);
        if let Ok(definition) = spec.gallery.definition(&spec.definition) {
            self.furnish(&mut world, &spec, &definition);
        }
        world
    }

    /// Long enough ago for every list to show what was there at the start.
    fn before(&self) -> Timestamp {
        self.start - SignedDuration::from_hours(1)
    }

    fn furnish(&self, world: &mut World, spec: &RunSpec, definition: &DefinitionId) {
        let visible = self.before();
        let old = DefinitionSpec {
            id: definition.clone(),
            location: Region(LOCATION.into()),
            generation: "V2".into(),
            architecture: Architecture::X64,
            security_type: None,
            disk_controllers: None,
            plan: None,
            publisher: "kamino-wf".into(),
            offer: spec.gallery.name().into(),
            sku: spec.definition.clone(),
        };
        if self.adopted {
            let gallery = Gallery {
                id: spec.gallery.clone(),
                location: Region(LOCATION.into()),
                provisioning: Provisioning::Succeeded,
            };
            world.galleries.insert(spec.gallery.key(), Resource { value: gallery, operation: None, visible });
            let value = Definition { spec: old, generalized: true, provisioning: Provisioning::Succeeded };
            world.definitions.insert(definition.key(), Resource { value, operation: None, visible });
            // Two of kamino's, four of ours: the oldest of ours are to be pruned, kamino's are to stay.
            let names =
                ["2026.03.01", "2026.04.01", "2026.07.01000", "2026.08.01000", "2026.09.01000", "2026.10.01000"];
            for (number, name) in names.into_iter().enumerate() {
                let Ok(name) = VersionName::parse(name) else { continue };
                let id = definition.version(&name);
                let run = (number > 1).then(|| RunId(uuid::Uuid::from_u128(number as u128)));
                let tags: Tags = match run {
                    Some(run) => [("kamino-wf-run".to_owned(), run.0.to_string())].into(),
                    None => [
                        ("builtfrom".to_owned(), "pool1-vmss000000".to_owned()),
                        ("builtat".to_owned(), "2026-04-01 17:13:16.747072".to_owned()),
                    ]
                    .into(),
                };
                let value = Version {
                    id: id.clone(),
                    provisioning: Provisioning::Succeeded,
                    replication: Replication::Completed,
                    excluded_from_latest: false,
                    regions: vec![Region("West Europe".into())],
                    storage: Some("Standard_LRS".into()),
                    source: None,
                    size_gib: Some(64),
                    created: Some(
                        self.start - SignedDuration::from_hours(24 * (90 - 10 * i64::try_from(number).unwrap_or(0))),
                    ),
                    tags,
                    run,
                };
                world.versions.insert(id.key(), Resource { value, operation: None, visible });
                world.published.push((id.key(), run));
            }
        }
        let mut model = model(spec, definition, self.adopted);
        if self.orchestration == Orchestration::Flexible {
            be_flexible(&mut model);
        }
        world.scale_sets.insert(spec.scale_set.key(), Resource { value: model, operation: None, visible });
        // Somebody else's pool next door, whose name ours is a part of.
        let other = format!("x{POOL}");
        if let Ok(id) = ScaleSetId::new(SUBSCRIPTION, GROUP, &[&other]) {
            let mut neighbour = self::model(spec, definition, false);
            neighbour["id"] = id.as_str().into();
            neighbour["name"] = other.into();
            world.scale_sets.insert(id.key(), Resource { value: neighbour, operation: None, visible });
        }
        for number in 0..3_u32 {
            self.node(world, spec, definition, number);
        }
    }

    fn instance(&self, number: u32) -> Result<InstanceId, BadName> {
        Ok(match self.orchestration {
            Orchestration::Uniform => {
                InstanceId::Uniform(UniformId::new(SUBSCRIPTION, GROUP, &[POOL, &number.to_string()])?)
            }
            // A name that is not the node's.
            Orchestration::Flexible => {
                InstanceId::Flexible(MachineId::new(SUBSCRIPTION, GROUP, &[&format!("{POOL}_3f2a{number:04}")])?)
            }
        })
    }

    fn node(&self, world: &mut World, spec: &RunSpec, definition: &DefinitionId, number: u32) {
        let disk_name = format!("{POOL}_{number}_OsDisk_1");
        let names = (
            self.instance(number),
            DiskId::new(SUBSCRIPTION, GROUP, &[&disk_name]),
            NodeName::parse(&format!("{POOL}-vmss{number:06}")),
        );
        let (Ok(instance), Ok(disk), Ok(name)) = names else { return };
        let zone = if self.attach.is_csi() { number % 3 + 1 } else { 1 };
        let zone = Some(zone.to_string());
        let image = match (self.adopted, VersionName::parse("2026.10.01000")) {
            (true, Ok(version)) => ImageRef::Version(definition.version(&version)),
            (true, Err(_)) | (false, _) => ImageRef::Other("Canonical:ubuntu-24_04-lts:server:latest".into()),
        };
        let value = Instance {
            id: instance.clone(),
            vm_id: uuid::Builder::from_random_bytes(world.rng.u128(..).to_be_bytes()).into_uuid().to_string(),
            provisioning: Provisioning::Succeeded,
            os_disk: Some(disk.clone()),
            luns: vec![],
            image,
            created: None,
            member_of: match self.orchestration {
                Orchestration::Uniform => None,
                Orchestration::Flexible => Some(spec.scale_set.clone()),
            },
        };
        world.machines.insert(instance.key(), Machine::running(name.clone(), disk.key()));
        world.instances.insert(instance.key(), value);
        world.untouchable.insert(instance.key());
        world.untouchable.insert(disk.key());
        let value = Disk {
            id: disk.clone(),
            unique_id: format!("{:032x}", world.rng.u128(..)),
            location: Region("West Europe".into()),
            zone: zone.clone(),
            provisioning: Provisioning::Succeeded,
            state: DiskState::Attached,
            managed: true,
            attached_to: None,
            size_gib: 64,
            sku: "Premium_LRS".into(),
            generation: "V2".into(),
            architecture: Architecture::X64,
            security_type: None,
            controllers: Some("SCSI, NVMe".into()),
            plan: None,
            source: None,
            created: Some(self.start - SignedDuration::from_hours(1000)),
            version_storage: None,
            run: None,
            cluster: None,
        };
        world.disks.insert(disk.key(), Resource { value, operation: None, visible: self.before() });
        let hours = i64::from(world.rng.u32(2..200));
        world.nodes.push(Node {
            name,
            uid: uuid::Builder::from_random_bytes(world.rng.u128(..).to_be_bytes()).into_uuid().to_string(),
            // cloud-provider-azure lower-cases the resource group.
            version: "1".into(),
            provider_id: instance.as_str().replace(GROUP, &GROUP.to_lowercase()),
            boot_id: format!("{:032x}", world.rng.u128(..)),
            // Without chance, so that a seed goes on to mean the world that frozen runs of earlier releases know.
            machine_id: format!("6d616368696e65{number:018x}"),
            system_uuid: format!("{:032x}", world.rng.u128(..)),
            kernel: format!("6.8.0-10{number}-azure"),
            kubelet: "v1.33.4".into(),
            ready: true,
            ready_since: Some(self.start - SignedDuration::from_hours(hours)),
            lease_renewed: Some(self.start),
            unschedulable: false,
            control_plane: false,
            linux: true,
            under_pressure: vec![],
            conditions: vec!["Ready".into()],
            taints: vec![],
            zone,
            created: Some(self.start - SignedDuration::from_hours(1000)),
            labels: BTreeMap::from([("agentpool".to_owned(), spec.scale_set.name().to_owned())]),
            annotations: BTreeMap::from([(DO_NOT_DISRUPT.to_owned(), "false".to_owned())]),
            seen: None,
        });
    }
}

/// Every simulation begins on the same morning.
fn start() -> Timestamp {
    Timestamp::from_second(1_795_500_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What the simulated operator asks for.
#[must_use]
#[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "constants of this file, parsed in every test")]
pub fn spec(scene: &Scene) -> RunSpec {
    RunSpec {
        scale_set: ScaleSetId::new(SUBSCRIPTION, GROUP, &[POOL]).expect("a constant that parses"),
        donor: DonorChoice::Pool,
        capture: scene.capture,
        profile: scene.profile.clone(),
        gallery: GalleryId::new(SUBSCRIPTION, GROUP, &["prototypes"]).expect("a constant that parses"),
        definition: POOL.into(),
        regions: vec![Region("northeurope".into())],
        replicas: 1,
        replicas_in: BTreeMap::new(),
        storage: if scene.zone_redundant { "Standard_ZRS".into() } else { "Standard_LRS".into() },
        incremental: scene.adopted,
        scale_out: u32::from(scene.adopted),
        adopt: !scene.adopted,
        approve: scene.approve.clone(),
        min_ready_seconds: 3600,
        ranking: Rules::default(),
        keep_versions: 3,
        keep_seconds: 86_400,
        clean_namespace: "kamino-wf-clean".into(),
        clean_image: "kamino-wf:simulated".into(),
        attach: scene.attach.clone(),
        credential: scene.credential,
        unavailable_max: 1,
        cluster: cluster_id(),
        drain: crate::policy::drain::DrainPolicy::default(),
        canary: scene.canary,
    }
}

/// Made as most Flexible scale sets are: nothing is said of upgrades.
fn be_flexible(model: &mut Value) {
    model["properties"]["orchestrationMode"] = "Flexible".into();
    model["properties"]["platformFaultDomainCount"] = 1.into();
    if let Some(properties) = model["properties"].as_object_mut() {
        properties.remove("upgradePolicy");
    }
}

/// A scale set as Azure shows one, unknown fields and all.
fn model(spec: &RunSpec, definition: &DefinitionId, adopted: bool) -> Value {
    let image = if adopted {
        json!({ "id": definition.as_str() })
    } else {
        json!({ "publisher": "Canonical", "offer": "ubuntu-24_04-lts", "sku": "server", "version": "latest",
                "exactVersion": "24.04.202609010" })
    };
    json!({
        "id": spec.scale_set.as_str(),
        "name": spec.scale_set.name(),
        "type": "Microsoft.Compute/virtualMachineScaleSets",
        "location": "West Europe",
        "etag": "\"7\"",
        "zones": ["1", "2", "3"],
        "tags": { "Team": "platform", "creationSource": "terraform" },
        "sku": { "name": "Standard_D4s_v5", "tier": "Standard", "capacity": 3 },
        "placement": { "zonePlacementPolicy": "Any" },
        "properties": {
            "provisioningState": "Succeeded",
            "orchestrationMode": "Uniform",
            "singlePlacementGroup": false,
            "upgradePolicy": { "mode": "Manual", "automaticOSUpgradePolicy": { "enableAutomaticOSUpgrade": false } },
            "virtualMachineProfile": {
                "osProfile": { "computerNamePrefix": "pool1-vmss", "adminUsername": "azureuser",
                               "linuxConfiguration": { "disablePasswordAuthentication": true } },
                "storageProfile": {
                    "osDisk": { "osType": "Linux", "createOption": "FromImage", "caching": "ReadOnly", "diskSizeGB": 64,
                                "writeAcceleratorEnabled": false, "managedDisk": { "storageAccountType": "Premium_LRS" } },
                    "dataDisks": [],
                    "diskControllerType": "SCSI",
                    "imageReference": image,
                },
                "networkProfile": { "networkInterfaceConfigurations": [{ "name": "nic", "properties": { "primary": true } }] },
                "extensionProfile": { "extensions": [
                    { "name": "vmssCSE", "properties": { "publisher": "Microsoft.Azure.Extensions", "type": "CustomScript",
                                                         "typeHandlerVersion": "2.0" } },
                    { "name": "computeAksLinuxBilling", "properties": { "publisher": "Microsoft.AKS", "type": "Compute.AKS-Engine.Linux.Billing" } }
                ]},
                "someFieldOfNextYear": { "zoneAllocationPolicy": "BestEffort" },
            },
            "uniqueId": "c1b0c2d4-0000-0000-0000-000000000001",
        }
    })
}
