//! The `Cloud` port of the simulated world, with Azure's habits: it answers 200 and "updating", forgets what it was just
//! told, resets what a partial PATCH leaves out, and does nothing for a snapshot whose name exists.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::faults::{Fault, Habits};
use super::world::{Accepted as Entry, Effect, Kind, NO_ZRS, Resource, Shared, World, name};
use crate::{
    cloud::{
        Accepted, Autoscale, Bucket, CallKind, Cloud, CloudError, Definition, DefinitionSpec, Disk, DiskCopy,
        DiskState, Gallery, Instance, Leftovers, Limiter, Machine, MachinePower, ModelChange, NewVersion, Operation,
        OperationState, Orchestration, Power, Powered, Provisioning, Replication, ScaleSet, Snapshot, SnapshotSpec,
        Tags, Version, azure::scale_set_from_json,
    },
    model::{
        DefinitionId, DiskId, GalleryId, GroupId, InstanceId, Region, ResourceId, RunId, ScaleSetId, SnapshotId,
        VersionId, VersionName,
    },
};

/// What Azure says in seconds when it has had enough.
const RETRY_AFTER: u64 = 1200;

/// One process' way to the world.
#[derive(Debug, Clone)]
pub struct SimCloud {
    shared: Arc<Shared>,
    limiter: Arc<Limiter>,
}

/// A call: which, to what, rationed how.
struct Call {
    what: String,
    verb: &'static str,
    kind: CallKind,
    key: String,
    subscription: String,
    mutates: bool,
}

impl Call {
    fn read(verb: &'static str, kind: CallKind, id: &ResourceId) -> Self {
        Self {
            what: format!("{verb} {}", id.name()),
            verb,
            kind,
            key: id.key(),
            subscription: id.subscription().to_owned(),
            mutates: false,
        }
    }

    fn list(verb: &'static str, kind: CallKind, group: &GroupId) -> Self {
        Self {
            what: format!("{verb} of {}", group.name()),
            verb,
            kind,
            key: String::new(),
            subscription: group.subscription().to_owned(),
            mutates: false,
        }
    }

    fn write(verb: &'static str, kind: CallKind, id: &ResourceId) -> Self {
        Self { mutates: true, ..Self::read(verb, kind, id) }
    }
}

impl SimCloud {
    /// The port of a process that has this limiter.
    #[must_use]
    pub fn new(shared: Arc<Shared>, limiter: Arc<Limiter>) -> Self {
        Self { shared, limiter }
    }

    /// The raw model of a scale set, as Azure shows it.
    #[must_use]
    pub fn raw_scale_set(&self, id: &ScaleSetId) -> Option<Value> {
        self.shared.world().model(id).cloned()
    }

    /// All disks of a resource group, as a list shows them.
    pub async fn disks(&self, group: &GroupId) -> Result<Vec<Disk>, CloudError> {
        let inside = format!("{}/", group.key());
        self.call(Call::list("disks", CallKind::DiskRead, group), |world| Ok(world.listed_disks(&inside))).await
    }

    /// All snapshots of a resource group, as a list shows them.
    pub async fn snapshots(&self, group: &GroupId) -> Result<Vec<Snapshot>, CloudError> {
        let inside = format!("{}/", group.key());
        let call = Call::list("snapshots", CallKind::SnapshotRead, group);
        self.call(call, |world| Ok(world.listed_snapshots(&inside))).await
    }

    async fn call<T>(
        &self,
        call: Call,
        act: impl FnOnce(&mut World) -> Result<T, CloudError> + Send,
    ) -> Result<T, CloudError> {
        let Call { what, verb, kind, key, subscription, mutates } = call;
        let bucket = Bucket::new(subscription, kind);
        let now = self.shared.world().now();
        if let Some(retry_after) = self.limiter.wait(&bucket, now) {
            return Err(CloudError::Throttled { what, bucket, retry_after });
        }
        self.shared.crash.point(&format!("{verb}: before")).await;
        self.latency().await;
        let (answer, lost) = {
            let mut world = self.shared.world();
            let now = world.now();
            let fault = world.called();
            let arrived = match fault {
                Some(fault) => scripted(&mut world, fault, &what, &bucket, now),
                None => arrive(&mut world, &what, &bucket, mutates, now),
            };
            if let Err(error) = arrived {
                (Err(error), false)
            } else {
                let answer = if world.forbidden.contains(&(verb, key.clone())) {
                    let (code, message) = ("AuthorizationFailed".into(), "no role assignment allows it".into());
                    Err(CloudError::Denied { what: what.clone(), code, message })
                } else {
                    act(&mut world)
                };
                if mutates {
                    let outcome = answer.as_ref().map_or_else(ToString::to_string, |_| "accepted".to_owned());
                    world.note(format!("azure {what}: {outcome}"));
                    if answer.is_ok() {
                        world.accepted.push(Entry { verb, key, at: now });
                    }
                }
                let world = &mut *world;
                let chance = world.faults.lost_answers;
                let lost = answer.is_ok()
                    && (fault == Some(Fault::LostAnswer) || mutates && world.faults.strikes(chance, &mut world.rng));
                if lost {
                    world.note(format!("azure {what}: the answer is lost"));
                }
                (answer, lost)
            }
        };
        self.shared.crash.point(&format!("{verb}: in")).await;
        self.latency().await;
        self.shared.crash.point(&format!("{verb}: after")).await;
        if lost {
            return Err(CloudError::Uncertain { what, detail: "connection reset".into() });
        }
        if let Err(CloudError::Throttled { bucket, retry_after, .. }) = &answer {
            let until = self.shared.world().now().checked_add(*retry_after).unwrap_or(Timestamp::MAX);
            self.limiter.close(bucket, until);
        }
        answer
    }

    async fn latency(&self) {
        let span = {
            let mut world = self.shared.world();
            let millis = world.rng.u64(10..120);
            Duration::from_millis(millis).mul_f64(world.scale)
        };
        tokio::time::sleep(span).await;
    }

    /// Asks for the deletion of a gallery in which nothing is.
    pub async fn begin_delete_gallery(&self, id: &GalleryId) -> Result<Accepted, CloudError> {
        self.delete("begin_delete_gallery", CallKind::GalleryWrite, Kind::Gallery, id.id()).await
    }

    /// Asks for the deletion of a definition of which there is no version.
    pub async fn begin_delete_definition(&self, id: &DefinitionId) -> Result<Accepted, CloudError> {
        self.delete("begin_delete_definition", CallKind::GalleryWrite, Kind::Definition, id.id()).await
    }

    /// Sets a tag of a scale set, or takes it away.
    pub async fn tag_scale_set(
        &self,
        id: &ScaleSetId,
        tag: &str,
        value: Option<String>,
    ) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("tag_scale_set {} {tag}", id.name());
        let tag = tag.to_owned();
        self.call(Call::write("tag_scale_set", CallKind::ScaleSetWrite, id.id()), |world| {
            let Some(set) = world.scale_sets.get_mut(&key) else { return Err(gone(&what, "ResourceNotFound")) };
            if set.operation.is_some() {
                return Err(CloudError::Busy { what, code: "Conflict".into(), message: "in progress".into() });
            }
            if let Some(tags) = set.value["tags"].as_object_mut() {
                tags.remove(&tag);
                tags.extend(value.map(|value| (tag, value.into())));
            }
            Ok(Accepted::default())
        })
        .await
    }

    async fn delete(
        &self,
        verb: &'static str,
        call_kind: CallKind,
        kind: Kind,
        id: &ResourceId,
    ) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("{verb} {}", id.name());
        self.call(Call::write(verb, call_kind, id), |world| {
            if world.untouchable.contains(&key) {
                world.trespasses.push(format!("{verb} {key}"));
            }
            let busy = |message: &str| CloudError::Busy {
                what: what.clone(),
                code: "Conflict".into(),
                message: message.into(),
            };
            let (exists, running) = match kind {
                Kind::Disk => {
                    (world.disks.contains_key(&key), world.disks.get(&key).is_some_and(|r| r.operation.is_some()))
                }
                Kind::Snapshot => (
                    world.snapshots.contains_key(&key),
                    world.snapshots.get(&key).is_some_and(|r| r.operation.is_some()),
                ),
                Kind::Version => {
                    (world.versions.contains_key(&key), world.versions.get(&key).is_some_and(|r| r.operation.is_some()))
                }
                Kind::Gallery => (
                    world.galleries.contains_key(&key),
                    world.galleries.get(&key).is_some_and(|r| r.operation.is_some()),
                ),
                Kind::Definition => (
                    world.definitions.contains_key(&key),
                    world.definitions.get(&key).is_some_and(|r| r.operation.is_some()),
                ),
                Kind::ScaleSet => (false, false),
            };
            if !exists {
                return Ok(Accepted::default());
            }
            if let Some(code) = world.locked.get(&key) {
                let message =
                    format!("the scope '{key}' cannot perform delete operation because following scope(s) are locked");
                return Err(CloudError::Denied { what: what.clone(), code: (*code).to_owned(), message });
            }
            if running {
                return Err(busy("another operation is in progress"));
            }
            // Also before the disk itself says so.
            let attached = world.disks.get(&key).is_some_and(|disk| disk.value.managed);
            if kind == Kind::Disk && (attached || world.attachments.contains_key(&key)) {
                return Err(busy("disk is attached to a virtual machine"));
            }
            let inside = format!("{key}/");
            if world.definitions.keys().chain(world.versions.keys()).any(|nested| nested.starts_with(&inside)) {
                let message = "Can not delete resource before nested resources are deleted.".into();
                return Err(CloudError::Busy { what, code: "CannotDeleteResource".into(), message });
            }
            world.note_deletion(verb, &key, world.owner(kind, &key).map(|run| run.short()));
            let (number, operation) = world.begin(kind, &key, Effect::Delete, 5..90);
            match kind {
                Kind::Disk => {
                    busy_with(world.disks.get_mut(&key), number, |disk| disk.provisioning = Provisioning::Running);
                }
                Kind::Snapshot => {
                    busy_with(world.snapshots.get_mut(&key), number, |s| s.provisioning = Provisioning::Running);
                }
                Kind::Version => {
                    busy_with(world.versions.get_mut(&key), number, |v| v.provisioning = Provisioning::Running);
                }
                Kind::Gallery => {
                    busy_with(world.galleries.get_mut(&key), number, |g| g.provisioning = Provisioning::Running);
                }
                Kind::Definition => {
                    busy_with(world.definitions.get_mut(&key), number, |d| d.provisioning = Provisioning::Running);
                }
                Kind::ScaleSet => {}
            }
            Ok(accepted(operation, Some(10), world.scale))
        })
        .await
    }

    /// Changes a scale set's model as Azure does: at once, and "updating".
    pub async fn patch_scale_set(
        &self,
        id: &ScaleSetId,
        if_match: Option<&str>,
        body: &Value,
    ) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("patch scale set {}", id.name());
        let if_match = if_match.map(str::to_owned);
        let verb = if body.get("sku").is_some() { "begin_scale_out" } else { "begin_model_change" };
        self.call(Call::write(verb, CallKind::ScaleSetWrite, id.id()), |world| {
            let Some(set) = world.scale_sets.get_mut(&key) else {
                return Err(gone(&what, "ResourceNotFound"));
            };
            if set.operation.is_some() {
                return Err(CloudError::Busy {
                    what,
                    code: "OperationNotAllowed".into(),
                    message: "in progress".into(),
                });
            }
            if world.habits.etag_enforced
                && if_match.is_some_and(|tag| Some(tag.as_str()) != set.value["etag"].as_str())
            {
                return Err(CloudError::Preempted { what, code: "PreconditionFailed".into(), message: "etag".into() });
            }
            let flexible = set.value["properties"]["orchestrationMode"] == "Flexible";
            if flexible && world.otherwise.contains(&57) && body["properties"].get("virtualMachineProfile").is_some() {
                return Err(refused(&what, "changing property 'storageProfile' is not allowed"));
            }
            apply_patch(&mut set.value, body, world.habits, &world.otherwise);
            if let Some(data) =
                body.pointer("/properties/virtualMachineProfile/osProfile/customData").and_then(Value::as_str)
            {
                world.custom_data.insert(key.clone(), data.to_owned());
            }
            let (number, operation) = world.begin(Kind::ScaleSet, &key, Effect::Make, 20..60);
            if let Some(set) = world.scale_sets.get_mut(&key) {
                set.value["properties"]["provisioningState"] = "Updating".into();
                let etag = set.value["etag"].as_str().unwrap_or("\"0\"").trim_matches('"').parse().unwrap_or(0_u64) + 1;
                set.value["etag"] = format!("\"{etag}\"").into();
                set.operation = Some(number);
            }
            Ok(accepted(operation, None, world.scale))
        })
        .await
    }

    async fn turn(&self, verb: &'static str, id: &InstanceId, on: bool) -> Result<Accepted, CloudError> {
        let key = id.key();
        self.call(Call::write(verb, CallKind::InstanceWrite, id.id()), |world| {
            let there = if on { Power::Running } else { Power::Stopped };
            if world.otherwise(51) && world.machines.get(&key).is_some_and(|machine| machine.power == there) {
                return Err(refused(verb, "the machine is in that state already"));
            }
            if let Some(instance) = world.instances.get_mut(&key)
                && on
                && (world.otherwise.contains(&52) && instance.member_of.is_none()
                    || world.otherwise.contains(&59) && instance.member_of.is_some())
            {
                instance.vm_id = "another machine".into();
            }
            if world.turn(&key, on) { Ok(Accepted::default()) } else { Err(gone(verb, "ResourceNotFound")) }
        })
        .await
    }

    /// Begins the making of a resource that is not there.
    fn make<T: Clone>(
        world: &mut World,
        kind: Kind,
        key: &str,
        value: T,
        map: impl Fn(&mut World) -> &mut std::collections::BTreeMap<String, Resource<T>>,
        seconds: std::ops::Range<u64>,
        told: Option<u64>,
    ) -> Accepted {
        world.made.push((kind, key.to_owned()));
        let (number, operation) = world.begin(kind, key, Effect::Make, seconds);
        let chance = world.faults.stale_reads;
        let stale = world.faults.strikes(chance, &mut world.rng);
        let now = world.now();
        let visible = if stale { now + world.span(5..40) } else { now };
        map(world).insert(key.to_owned(), Resource { value, operation: Some(number), visible });
        accepted(operation, told, world.scale)
    }
}

/// What a fault of the script does on the way in.
fn scripted(world: &mut World, fault: Fault, what: &str, bucket: &Bucket, now: Timestamp) -> Result<(), CloudError> {
    world.note(format!("azure {what}: {fault:?}, as the script says"));
    let (what, code, message) = (what.to_owned(), "Scripted".to_owned(), "as the script says".to_owned());
    match fault {
        Fault::Throttled => {
            let retry_after = Duration::from_secs(RETRY_AFTER).mul_f64(world.scale);
            world.told.remove(bucket);
            world.closed.insert(bucket.clone(), now.checked_add(retry_after).unwrap_or(Timestamp::MAX));
            Err(CloudError::Throttled { what, bucket: bucket.clone(), retry_after })
        }
        Fault::LostRequest => Err(CloudError::Uncertain { what, detail: "timed out".into() }),
        Fault::LostAnswer => Ok(()),
        Fault::Busy => Err(CloudError::Busy { what, code, message }),
        Fault::Denied => Err(CloudError::Denied { what, code, message }),
    }
}

/// What happens on the way in.
fn arrive(world: &mut World, what: &str, bucket: &Bucket, mutates: bool, now: Timestamp) -> Result<(), CloudError> {
    let throttled = |retry_after| CloudError::Throttled { what: what.to_owned(), bucket: bucket.clone(), retry_after };
    if let Some(until) = world.closed.get(bucket).copied()
        && until > now
    {
        if world.told.contains(bucket) {
            world.early.push(format!("{what} came before {until}"));
        }
        return Err(throttled(Duration::from_secs(RETRY_AFTER).mul_f64(world.scale)));
    }
    *world.exercised.entry("throttle: requests let in").or_default() += 1;
    let chance = world.faults.throttles;
    if world.faults.strikes(chance, &mut world.rng) {
        let retry_after = Duration::from_secs(RETRY_AFTER).mul_f64(world.scale);
        world.told.remove(bucket);
        world.closed.insert(bucket.clone(), now.checked_add(retry_after).unwrap_or(Timestamp::MAX));
        world.note(format!("azure {what}: 429, Retry-After {}", retry_after.as_secs()));
        return Err(throttled(retry_after));
    }
    let chance = world.faults.lost_requests;
    if mutates && world.faults.strikes(chance, &mut world.rng) {
        world.note(format!("azure {what}: the request is lost"));
        return Err(CloudError::Uncertain { what: what.to_owned(), detail: "timed out".into() });
    }
    Ok(())
}

fn accepted(operation: Operation, told: Option<u64>, scale: f64) -> Accepted {
    Accepted {
        operation: Some(operation),
        retry_after: told.map(|seconds| Duration::from_secs(seconds).mul_f64(scale)),
        request_id: None,
        said: None,
    }
}

fn gone(what: &str, code: &str) -> CloudError {
    CloudError::Gone { what: what.to_owned(), code: code.into(), message: "not found".into() }
}

fn refused(what: &str, message: &str) -> CloudError {
    CloudError::Refused { what: what.to_owned(), code: "BadRequest".into(), message: message.into() }
}

fn busy_with<T>(resource: Option<&mut Resource<T>>, number: usize, change: impl FnOnce(&mut T)) {
    if let Some(resource) = resource {
        resource.operation = Some(number);
        change(&mut resource.value);
    }
}

/// A partial storage profile resets what it leaves out (Azure/azure-rest-api-specs#10373, #13164).
fn apply_patch(model: &mut Value, body: &Value, habits: Habits, otherwise: &BTreeSet<u32>) {
    let patch = &body["properties"]["virtualMachineProfile"];
    if let Some(storage) = patch.get("storageProfile") {
        let before = model["properties"]["virtualMachineProfile"]["storageProfile"].clone();
        let mut after = storage.clone();
        if let Some(image) = after.get_mut("imageReference") {
            let sent = image.as_object().cloned().unwrap_or_default();
            let mut whole = if habits.patch_merges_image {
                before["imageReference"].as_object().cloned().unwrap_or_default()
            } else {
                serde_json::Map::new()
            };
            whole.remove("exactVersion");
            whole.extend(sent);
            whole.retain(|_, value| !value.is_null());
            *image = Value::Object(whole);
        }
        if let Some(disk) = after.get_mut("osDisk").and_then(Value::as_object_mut) {
            for field in ["osType", "createOption", "name"] {
                if let Some(value) = before["osDisk"].get(field) {
                    disk.insert(field.into(), value.clone());
                }
            }
            if otherwise.contains(&2) {
                disk.insert("caching".into(), "None".into());
            }
        } else {
            after["osDisk"] =
                json!({ "osType": before["osDisk"]["osType"], "createOption": "FromImage", "caching": "None" });
        }
        model["properties"]["virtualMachineProfile"]["storageProfile"] = after;
    }
    if let Some(extensions) = patch.get("extensionProfile") {
        let mut shown = extensions.clone();
        for extension in shown["extensions"].as_array_mut().into_iter().flatten() {
            if let Some(properties) = extension.get_mut("properties").and_then(Value::as_object_mut) {
                properties.remove("protectedSettings");
            }
        }
        model["properties"]["virtualMachineProfile"]["extensionProfile"] = shown;
    }
    if otherwise.contains(&56) && !patch.is_null() && model["properties"].get("upgradePolicy").is_none() {
        model["properties"]["upgradePolicy"] = json!({ "mode": "Automatic" });
    }
    if otherwise.contains(&47) && body.get("sku").is_some() {
        model["properties"]["overprovision"] = true.into();
    }
    if let Some(capacity) = body.pointer("/sku/capacity") {
        model["sku"]["capacity"] = capacity.clone();
    }
    if let Some(policy) = body["properties"].get("upgradePolicy") {
        model["properties"]["upgradePolicy"] = policy.clone();
    }
}

/// Looks at a resource, and at the operation on it: `None` while a fresh one can't be seen.
fn see<T: Clone>(world: &mut World, find: impl Fn(&World) -> Option<&Resource<T>>) -> Option<T> {
    let resource = find(world)?;
    let (visible, operation) = (resource.visible, resource.operation);
    if visible > world.now() {
        return None;
    }
    if let Some(number) = operation {
        world.look(number);
    }
    find(world).map(|resource| resource.value.clone())
}

#[async_trait]
impl Cloud for SimCloud {
    async fn scale_set(&self, id: &ScaleSetId) -> Result<Option<ScaleSet>, CloudError> {
        let key = id.key();
        self.call(Call::read("scale_set", CallKind::ScaleSetRead, id.id()), |world| {
            Ok(see(world, |world| world.scale_sets.get(&key)).and_then(|model| scale_set_from_json(&model).ok()))
        })
        .await
    }

    async fn scale_sets(&self, subscription: &str) -> Result<Vec<ScaleSet>, CloudError> {
        let call = Call {
            what: "scale_sets".into(),
            verb: "scale_sets",
            kind: CallKind::ScaleSetList,
            key: String::new(),
            subscription: subscription.to_owned(),
            mutates: false,
        };
        self.call(call, |world| {
            Ok(world.scale_sets.values().filter_map(|set| scale_set_from_json(&set.value).ok()).collect())
        })
        .await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError> {
        let key = id.key();
        self.call(Call::read("instance", CallKind::InstanceRead, id.id()), |world| {
            Ok(world.instances.get(&key).cloned())
        })
        .await
    }

    async fn instances(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Instance>, CloudError> {
        self.call(Call::read("instances", CallKind::InstanceRead, id.id()), |world| {
            Ok(world.listed_instances(id, orchestration).cloned().collect())
        })
        .await
    }

    async fn power(&self, id: &InstanceId) -> Result<Option<MachinePower>, CloudError> {
        let key = id.key();
        self.call(Call::read("power", CallKind::InstanceRead, id.id()), |world| {
            if world.otherwise(54) {
                let (what, code) = ("power".into(), "AuthorizationFailed".into());
                return Err(CloudError::Denied { what, code, message: "no right to read instanceView".into() });
            }
            let vm_id = world.instances.get(&key).map(|instance| instance.vm_id.clone());
            let state = world.machines.get(&key).map(|machine| machine.power.clone());
            Ok(vm_id.zip(state).map(|(vm_id, state)| MachinePower { vm_id, state }))
        })
        .await
    }

    async fn begin_power_off(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.turn("begin_power_off", id, false).await
    }

    async fn begin_start(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.turn("begin_start", id, true).await
    }

    async fn begin_restart(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        let key = id.key();
        self.call(Call::write("begin_restart", CallKind::InstanceWrite, id.id()), |world| {
            if world.restart(&key) { Ok(Accepted::default()) } else { Err(gone("begin_restart", "ResourceNotFound")) }
        })
        .await
    }

    async fn machines(&self, subscription: &str) -> Result<Vec<Machine>, CloudError> {
        let call = Call {
            what: "machines".into(),
            verb: "machines",
            kind: CallKind::InstanceRead,
            key: String::new(),
            subscription: subscription.to_owned(),
            mutates: false,
        };
        self.call(call, |world| Ok(world.all_virtual_machines())).await
    }

    async fn powers(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Powered>, CloudError> {
        self.call(Call::read("powers", CallKind::InstanceRead, id.id()), |world| {
            let of_set = world.listed_instances(id, orchestration);
            let told = |id: &InstanceId| world.off.get(&id.key()).cloned();
            let power = |id: &InstanceId| {
                let real = world.machines.get(&id.key()).map(|machine| machine.power.clone());
                told(id).or(real).unwrap_or(Power::Running)
            };
            Ok(of_set.map(|instance| Powered { power: power(&instance.id), id: instance.id.clone() }).collect())
        })
        .await
    }

    async fn disk(&self, id: &DiskId) -> Result<Option<Disk>, CloudError> {
        let key = id.key();
        self.call(Call::read("disk", CallKind::DiskRead, id.id()), |world| {
            Ok(see(world, |world| world.disks.get(&key)))
        })
        .await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, CloudError> {
        let key = id.key();
        self.call(Call::read("snapshot", CallKind::SnapshotRead, id.id()), |world| {
            Ok(see(world, |world| world.snapshots.get(&key)))
        })
        .await
    }

    async fn gallery(&self, id: &GalleryId) -> Result<Option<Gallery>, CloudError> {
        let key = id.key();
        self.call(Call::read("gallery", CallKind::GalleryRead, id.id()), |world| {
            Ok(see(world, |world| world.galleries.get(&key)))
        })
        .await
    }

    async fn definition(&self, id: &DefinitionId) -> Result<Option<Definition>, CloudError> {
        let key = id.key();
        self.call(Call::read("definition", CallKind::GalleryRead, id.id()), |world| {
            Ok(see(world, |world| world.definitions.get(&key)))
        })
        .await
    }

    async fn version(&self, id: &VersionId) -> Result<Option<Version>, CloudError> {
        let (key, named) = (id.key(), id.version().ok());
        let beside = format!("{}/versions/", id.definition().key());
        self.call(Call::read("version", CallKind::VersionRead, id.id()), |world| {
            // Names are numbers: zeros before them say nothing.
            let same = |known: &&String| {
                let name = known.strip_prefix(&beside).and_then(|name| VersionName::parse(name).ok());
                name.is_some() && name == named
            };
            let known = world.versions.keys().find(same).filter(|_| !world.otherwise(23)).cloned();
            let key = known.unwrap_or(key);
            Ok(see(world, |world| world.versions.get(&key)))
        })
        .await
    }

    async fn versions(&self, id: &DefinitionId) -> Result<Vec<Version>, CloudError> {
        let key = id.key();
        self.call(Call::read("versions", CallKind::VersionRead, id.id()), |world| {
            if !world.definitions.contains_key(&key) {
                return Err(gone("versions", "ParentResourceNotFound"));
            }
            let prefix = format!("{key}/versions/");
            let now = world.now();
            let visible = world.versions.iter().filter(|(key, found)| key.starts_with(&prefix) && found.visible <= now);
            Ok(visible.map(|(_, found)| Version { replication: Replication::Unknown, ..found.value.clone() }).collect())
        })
        .await
    }

    async fn leftovers(&self, group: &GroupId) -> Result<Leftovers, CloudError> {
        let disks = self.disks(group).await?.into_iter().filter(|disk| disk.run.is_some()).collect();
        let snapshots = self.snapshots(group).await?.into_iter().filter(|it| it.run.is_some()).collect();
        Ok(Leftovers { disks, snapshots })
    }

    async fn autoscale(&self, subscription: &str) -> Result<Vec<Autoscale>, CloudError> {
        let call = Call {
            what: "autoscale".into(),
            verb: "autoscale",
            kind: CallKind::OperationRead,
            key: String::new(),
            subscription: subscription.to_owned(),
            mutates: false,
        };
        self.call(call, |world| Ok(world.autoscale.clone())).await
    }

    async fn operation(&self, operation: &Operation) -> Result<OperationState, CloudError> {
        let subscription = operation.0.split('/').nth(4).unwrap_or_default().to_owned();
        let call = Call {
            what: "operation".into(),
            verb: "operation",
            kind: CallKind::OperationRead,
            key: String::new(),
            subscription,
            mutates: false,
        };
        self.call(call, |world| {
            let Some(number) = world.jobs.iter().position(|job| job.url == operation.0) else {
                return Ok(OperationState::Unknown);
            };
            world.look(number);
            let scale = world.scale;
            let Some(job) = world.jobs.get(number) else { return Ok(OperationState::Unknown) };
            if job.finished && world.otherwise(9) {
                return Ok(OperationState::Unknown);
            }
            Ok(match (&job.fails, job.finished) {
                (_, false) => OperationState::Running(Some(Duration::from_secs(30).mul_f64(scale))),
                (None, true) => OperationState::Succeeded,
                (Some((code, message)), true) => {
                    OperationState::Failed { code: code.clone(), message: message.clone() }
                }
            })
        })
        .await
    }

    async fn begin_snapshot(&self, want: &SnapshotSpec) -> Result<Accepted, CloudError> {
        let key = want.id.key();
        let what = format!("begin_snapshot {}", want.id.name());
        self.call(Call::write("begin_snapshot", CallKind::SnapshotWrite, want.id.id()), |world| {
            if world.otherwise(14)
                && let (now, Some(found)) = (world.now(), world.snapshots.get_mut(&key))
            {
                found.value.created = Some(now);
                found.value.source = Some(want.source.clone());
                return Ok(Accepted::default());
            }
            if let Some(found) = world.snapshots.get(&key) {
                // Same name, same source: Azure says yes and does nothing (Azure/azure-cli#28879).
                return if found.value.source.as_ref() == Some(&want.source) {
                    Ok(Accepted::default())
                } else {
                    Err(refused(&what, "changing property 'sourceResourceId' is not allowed for an existing disk"))
                };
            }
            let Some(disk) = world.disks.get(&want.source.key()).map(|disk| disk.value.clone()) else {
                return Err(gone(&what, "NotFound"));
            };
            if world.otherwise(13) && disk.state == DiskState::Attached {
                let message = "the disk is attached".into();
                return Err(CloudError::Busy { what, code: "Conflict".into(), message });
            }
            if want.incremental {
                world.incremental.insert(key.clone());
            }
            world.sources.push((key.clone(), want.source.key()));
            // As clean as its disk is at this moment, if nothing can write to it.
            let off = world.machines.values().any(|it| it.disk == want.source.key() && it.power == Power::Stopped);
            if let Some(nonce) = world.cleaned.get(&want.source.key()).filter(|_| off).cloned() {
                world.cleaned.insert(key.clone(), nonce);
            }
            let snapshot = Snapshot {
                id: want.id.clone(),
                provisioning: Provisioning::Running,
                source: Some(want.source.clone()),
                created: Some(world.now()),
                size_gib: disk.size_gib,
                run: run_of(&want.tags),
                cluster: want.tags.get("kamino-wf-cluster").cloned(),
            };
            Ok(Self::make(world, Kind::Snapshot, &key, snapshot, |world| &mut world.snapshots, 5..60, Some(5)))
        })
        .await
    }

    async fn begin_delete_snapshot(&self, id: &SnapshotId) -> Result<Accepted, CloudError> {
        self.delete("begin_delete_snapshot", CallKind::SnapshotWrite, Kind::Snapshot, id.id()).await
    }

    async fn begin_copy_disk(&self, want: &DiskCopy) -> Result<Accepted, CloudError> {
        let key = want.id.key();
        let what = format!("begin_copy_disk {}", want.id.name());
        self.call(Call::write("begin_copy_disk", CallKind::DiskWrite, want.id.id()), |world| {
            if world.untouchable.contains(&key) {
                world.trespasses.push(format!("begin_copy_disk {key}"));
            }
            if world.disks.contains_key(&key) {
                return Ok(Accepted::default());
            }
            let Some(source) = world.snapshots.get(&want.source.key()).map(|found| found.value.clone()) else {
                return Err(gone(&what, "NotFound"));
            };
            if source.provisioning != Provisioning::Succeeded {
                return Err(CloudError::Busy {
                    what,
                    code: "Conflict".into(),
                    message: "the snapshot is not ready".into(),
                });
            }
            if world.otherwise(15) && want.zone.is_some() {
                return Err(refused(&what, "a zonal disk can't be made from this snapshot"));
            }
            if world.otherwise(48) && world.incremental.contains(&want.source.key()) {
                return Err(refused(&what, "an incremental snapshot can't be copied"));
            }
            let unique_id = format!("{:032x}", world.rng.u128(..));
            let disk = Disk {
                id: want.id.clone(),
                unique_id,
                location: want.location.clone(),
                zone: want.zone.clone(),
                provisioning: Provisioning::Running,
                state: DiskState::Unattached,
                managed: false,
                attached_to: None,
                size_gib: source.size_gib,
                sku: want.sku.clone(),
                generation: want.generation.clone(),
                architecture: want.architecture,
                security_type: want.security_type.clone().filter(|_| !world.otherwise(16)),
                controllers: want.controllers.clone().filter(|_| !world.otherwise(50)),
                plan: None,
                source: Some(want.source.to_string()),
                created: Some(world.now()),
                version_storage: want.tags.get("kamino-wf-storage").cloned(),
                run: run_of(&want.tags),
                cluster: want.tags.get("kamino-wf-cluster").cloned(),
            };
            Ok(Self::make(world, Kind::Disk, &key, disk, |world| &mut world.disks, 10..120, Some(5)))
        })
        .await
    }

    async fn begin_tag_disk(&self, id: &DiskId, tags: &Tags) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("begin_tag_disk {}", id.name());
        self.call(Call::write("begin_tag_disk", CallKind::DiskWrite, id.id()), |world| {
            if world.untouchable.contains(&key) {
                world.trespasses.push(format!("begin_tag_disk {key}"));
            }
            let Some(found) = world.disks.get_mut(&key) else { return Err(gone(&what, "ResourceNotFound")) };
            if found.operation.is_some() {
                return Err(CloudError::Busy { what, code: "Conflict".into(), message: "in progress".into() });
            }
            let kept = found.value.version_storage.take().filter(|_| world.otherwise.contains(&46));
            // What is left out goes, as Azure has it.
            found.value.run = run_of(tags);
            found.value.cluster = tags.get("kamino-wf-cluster").cloned();
            found.value.version_storage = tags.get("kamino-wf-storage").cloned().or(kept);
            Ok(Accepted::default())
        })
        .await
    }

    async fn begin_delete_disk(&self, id: &DiskId) -> Result<Accepted, CloudError> {
        self.delete("begin_delete_disk", CallKind::DiskWrite, Kind::Disk, id.id()).await
    }

    async fn begin_attach(&self, to: &InstanceId, disk: &DiskId, lun: u32) -> Result<Accepted, CloudError> {
        let call = Call::write("begin_attach", CallKind::InstanceWrite, to.id());
        self.call(call, |world| world.attach(to, disk, lun).map(|()| Accepted::default())).await
    }

    async fn begin_detach(&self, from: &InstanceId, disk: &DiskId) -> Result<Accepted, CloudError> {
        let call = Call::write("begin_detach", CallKind::InstanceWrite, from.id());
        self.call(call, |world| world.detach(from, disk).map(|()| Accepted::default())).await
    }

    async fn begin_gallery(&self, id: &GalleryId, location: &Region) -> Result<Accepted, CloudError> {
        let key = id.key();
        self.call(Call::write("begin_gallery", CallKind::GalleryWrite, id.id()), |world| {
            if world.galleries.contains_key(&key) {
                return Ok(Accepted::default());
            }
            let gallery = Gallery { id: id.clone(), location: location.clone(), provisioning: Provisioning::Running };
            Ok(Self::make(world, Kind::Gallery, &key, gallery, |world| &mut world.galleries, 5..30, Some(10)))
        })
        .await
    }

    async fn begin_definition(&self, want: &DefinitionSpec) -> Result<Accepted, CloudError> {
        let key = want.id.key();
        let what = format!("begin_definition {}", want.id.name());
        self.call(Call::write("begin_definition", CallKind::GalleryWrite, want.id.id()), |world| {
            if !world.galleries.contains_key(&want.id.gallery().key()) {
                return Err(gone(&what, "ParentResourceNotFound"));
            }
            if let Some(found) = world.definitions.get(&key) {
                return if found.value.spec == *want {
                    Ok(Accepted::default())
                } else {
                    Err(refused(&what, "changing property 'galleryImage.properties' is not allowed"))
                };
            }
            let definition = Definition { spec: want.clone(), generalized: true, provisioning: Provisioning::Running };
            Ok(Self::make(world, Kind::Definition, &key, definition, |world| &mut world.definitions, 5..30, Some(10)))
        })
        .await
    }

    async fn begin_version(&self, want: &NewVersion) -> Result<Accepted, CloudError> {
        let key = want.id.key();
        let what = format!("begin_version {}", want.id.name());
        self.call(Call::write("begin_version", CallKind::VersionWrite, want.id.id()), |world| {
            if !world.definitions.contains_key(&want.id.definition().key()) {
                return Err(gone(&what, "ParentResourceNotFound"));
            }
            if let Some(found) = world.versions.get(&key) {
                if found.value.storage.as_deref() != Some(want.storage.as_str()) {
                    return Err(refused(
                        &what,
                        "changing property 'publishingProfile.storageAccountType' is not allowed",
                    ));
                }
                return if found.value.source.as_deref() == Some(want.source.as_str()) {
                    Ok(Accepted::default())
                } else {
                    Err(refused(&what, "changing property 'storageProfile.osDiskImage.source.id' is not allowed"))
                };
            }
            let busy = |message: &str| CloudError::Busy {
                what: what.clone(),
                code: "Conflict".into(),
                message: message.into(),
            };
            if world.otherwise(18) && want.source.kind().ends_with("/disks") {
                return Err(refused(&what, "a version can't be made from a disk"));
            }
            let source = want.source.key();
            let snapshot = world.snapshots.get(&source).map(|found| &found.value);
            let disk = world.disks.get(&source).map(|found| &found.value);
            let size_gib = match (snapshot, disk) {
                (Some(snapshot), _) if snapshot.provisioning == Provisioning::Succeeded => snapshot.size_gib,
                (Some(_), _) => return Err(busy("the snapshot is being taken")),
                (None, Some(disk)) if disk.managed || disk.state != DiskState::Unattached => {
                    return Err(busy("the disk is in use"));
                }
                (None, Some(disk)) if disk.provisioning != Provisioning::Succeeded => {
                    return Err(busy("the disk is being made"));
                }
                (None, Some(disk)) => disk.size_gib,
                (None, None) => return Err(gone(&what, "NotFound")),
            };
            let version = Version {
                id: want.id.clone(),
                provisioning: Provisioning::Running,
                replication: Replication::InProgress(0),
                excluded_from_latest: true,
                regions: want.regions.clone(),
                storage: Some(want.storage.clone()),
                source: Some(want.source.to_string()),
                size_gib: Some(size_gib),
                created: Some(world.now()),
                tags: want.tags.clone(),
                run: run_of(&want.tags),
            };
            let accepted =
                Self::make(world, Kind::Version, &key, version, |world| &mut world.versions, 300..2400, Some(60));
            if want.storage == "Standard_ZRS" && !world.zrs {
                world.fail_newest(NO_ZRS);
            }
            Ok(accepted)
        })
        .await
    }

    async fn begin_publish(&self, id: &VersionId, published: bool) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("begin_publish {} {published}", id.name());
        // Two intents, though one request: to publish it, and to take it back.
        let verb = if published { "begin_publish" } else { "begin_withdraw" };
        self.call(Call::write(verb, CallKind::VersionWrite, id.id()), |world| {
            let Some(found) = world.versions.get(&key) else { return Err(gone(&what, "ResourceNotFound")) };
            if found.operation.is_some() {
                return Err(CloudError::Busy { what, code: "Conflict".into(), message: "in progress".into() });
            }
            let owner = found.value.run;
            let faults = std::mem::replace(&mut world.faults, super::Faults::none());
            let (number, operation) = world.begin(Kind::Version, &key, Effect::Make, 10..90);
            world.faults = faults;
            let replaced = world.otherwise(21);
            if let Some(found) = world.versions.get_mut(&key) {
                if replaced {
                    found.value.regions.clear();
                }
                found.value.excluded_from_latest = !published;
                found.value.provisioning = Provisioning::Running;
                found.operation = Some(number);
            }
            if published {
                if let Some(anchor) = world.anchors.iter().find(|(_, run)| Some(**run) == owner).map(|(name, _)| name) {
                    let text = format!("{} was published while the token of {anchor} lives", name(&key));
                    world.harm.push(("I16", text));
                }
                world.published.push((key.clone(), owner));
            }
            Ok(accepted(operation, Some(15), world.scale))
        })
        .await
    }

    async fn begin_delete_version(&self, id: &VersionId) -> Result<Accepted, CloudError> {
        if self.shared.world().referenced().contains(&id.key()) {
            let mut world = self.shared.world();
            let line = format!("delete of {} which is referenced", name(&id.key()));
            world.trespasses.push(line);
        }
        self.delete("begin_delete_version", CallKind::VersionWrite, Kind::Version, id.id()).await
    }

    async fn begin_tag_version(&self, id: &VersionId, tag: &str, value: Option<&str>) -> Result<Accepted, CloudError> {
        let key = id.key();
        let what = format!("begin_tag_version {} {tag}", id.name());
        let (tag, value) = (tag.to_owned(), value.map(str::to_owned));
        self.call(Call::write("begin_tag_version", CallKind::VersionWrite, id.id()), |world| {
            let Some(found) = world.versions.get(&key) else { return Err(gone(&what, "ResourceNotFound")) };
            if found.operation.is_some() {
                return Err(CloudError::Busy { what, code: "Conflict".into(), message: "in progress".into() });
            }
            // The provider is told of the tag by a PATCH of its own, and says that it is updating meanwhile.
            let faults = std::mem::replace(&mut world.faults, super::Faults::none());
            let (number, operation) = world.begin(Kind::Version, &key, Effect::Make, 5..60);
            world.faults = faults;
            let all = world.otherwise(42);
            if let Some(found) = world.versions.get_mut(&key) {
                found.value.tags.retain(|name, _| !all && !name.eq_ignore_ascii_case(&tag));
                found.value.tags.extend(value.map(|value| (tag, value)));
                found.value.provisioning = Provisioning::Running;
                found.operation = Some(number);
            }
            Ok(accepted(operation, Some(5), world.scale))
        })
        .await
    }

    async fn begin_model_change(&self, want: &ModelChange) -> Result<Accepted, CloudError> {
        let live = self
            .raw_scale_set(&want.scale_set)
            .ok_or_else(|| gone(&format!("model of {}", want.scale_set.name()), "ResourceNotFound"))?;
        if want.outdated(&live) {
            return Err(CloudError::Preempted {
                what: format!("model of {}", want.scale_set.name()),
                code: "ETagMismatch".into(),
                message: "the model has another etag than the one that was found good".into(),
            });
        }
        let etag = live["etag"].as_str().map(str::to_owned);
        self.patch_scale_set(&want.scale_set, etag.as_deref(), &want.body(&live)).await
    }

    async fn begin_scale_out(&self, id: &ScaleSetId, _run: RunId, capacity: u32) -> Result<Accepted, CloudError> {
        let live =
            self.raw_scale_set(id).ok_or_else(|| gone(&format!("capacity of {}", id.name()), "ResourceNotFound"))?;
        if live["sku"]["capacity"].as_u64().is_none_or(|now| now >= u64::from(capacity)) {
            return Ok(Accepted::default());
        }
        let etag = live["etag"].as_str().map(str::to_owned);
        let body = json!({ "sku": { "capacity": capacity }, "properties": { "upgradePolicy": live["properties"]["upgradePolicy"] } });
        self.patch_scale_set(id, etag.as_deref(), &body).await
    }
}

fn run_of(tags: &crate::cloud::Tags) -> Option<RunId> {
    tags.get("kamino-wf-run").and_then(|text| uuid::Uuid::try_parse(text).ok()).map(RunId)
}
