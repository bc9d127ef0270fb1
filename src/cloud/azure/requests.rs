//! The `Cloud` port over the resource manager: which call each method is.

use async_trait::async_trait;
use azure_mgmt_compute::package_2024_07_01::{Client, models};
use futures_util::{FutureExt as _, TryFutureExt as _};
use serde_json::Value;

use super::{
    arm::Generated,
    bodies,
    client::{AzureCloud, Call, How, unreadable},
    operation, project,
    tags::Change,
};
use crate::{
    cloud::{
        Accepted, Autoscale, Bucket, CallKind, Cloud, CloudError, Definition, DefinitionSpec, Disk, DiskCopy, Gallery,
        Instance, Leftovers, Machine, MachinePower, ModelChange, NewVersion, Operation, OperationState, Orchestration,
        Powered, ScaleSet, Snapshot, SnapshotSpec, Tags, Version,
    },
    model::{
        DefinitionId, DiskId, GalleryId, GroupId, InstanceId, Region, ResourceId, RunId, ScaleSetId, SnapshotId,
        VersionId,
    },
};

/// What the generated client asks for; lists have no `.send()` there, so they say it themselves.
pub(super) const SCALE_SETS_API: &str = "2024-07-01";
pub(super) const GALLERIES_API: &str = "2023-07-03";
const DISKS_API: &str = "2024-03-02";
const AUTOSCALE_API: &str = "2022-10-01";

impl AzureCloud {
    /// A scale set's model as Azure shows it.
    pub(super) async fn model(&self, id: &ScaleSetId) -> Result<Option<Value>, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("GET", "scale set", id, CallKind::ScaleSetRead);
        let send: Generated<'_> = sent!(|it| it.virtual_machine_scale_sets_client().get(&group, &name, &subscription));
        self.read(&call, How::Generated(send)).await
    }

    /// Sends the PATCH of a scale set, under an etag if one is given.
    pub(super) async fn send_patch(
        &self,
        id: &ScaleSetId,
        call: Call<'_>,
        body: &Value,
        etag: Option<&str>,
    ) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let send: Generated<'_> = sent!(|it| {
            let update = it.virtual_machine_scale_sets_client().update(
                &group,
                &name,
                models::VirtualMachineScaleSetUpdate::new(),
                &subscription,
            );
            match etag {
                Some(etag) => update.if_match(etag),
                None => update,
            }
        });
        self.begin(call.with(body), send).await
    }

    /// A version as Azure shows it, with its replication.
    async fn raw_version(&self, id: &VersionId) -> Result<Option<Value>, CloudError> {
        let (subscription, group, version) = plain(id);
        let [gallery, image] = parents(id);
        let call = Call::new("GET", "version", id, CallKind::VersionRead);
        let send: Generated<'_> = sent!(|it| it
            .gallery_image_versions_client()
            .get(&subscription, &group, &gallery, &image, &version)
            .expand("ReplicationStatus"));
        self.read(&call, How::Generated(send)).await
    }
}

/// The list of one kind of thing in a resource group.
fn in_group(group: &GroupId, noun: &str, kind: CallKind) -> (Call<'static>, String) {
    let what = format!("GET {noun} of resource group {}", group.name());
    let call = Call::anywhere(what, Bucket::new(group.subscription(), kind));
    (call, format!("{group}/providers/Microsoft.Compute/{noun}?api-version={DISKS_API}"))
}

/// Subscription, resource group and the leaf's name: what generated methods take.
pub(super) fn plain(id: &ResourceId) -> (String, String, String) {
    (id.subscription().to_owned(), id.resource_group().to_owned(), id.name().to_owned())
}

/// The names of a gallery and of a definition in it, of a scale set and of an instance.
pub(super) fn parents(id: &ResourceId) -> [String; 2] {
    let names = id.names();
    [0, 1].map(|at| names.get(at).copied().unwrap_or_default().to_owned())
}

/// What generated methods want of a body that ours takes the place of.
fn stand_in(location: &Region) -> models::Resource {
    models::Resource::new(location.0.clone())
}

/// Nothing was sent: what was found good is not what is there.
fn outdated(what: String) -> CloudError {
    let message = "the model has another etag than the one that was found good";
    CloudError::Preempted { what, code: "ETagMismatch".into(), message: message.into() }
}

fn gone(what: String, message: &str) -> CloudError {
    CloudError::Gone { what, code: "ResourceNotFound".into(), message: message.to_owned() }
}

#[async_trait]
impl Cloud for AzureCloud {
    async fn scale_set(&self, id: &ScaleSetId) -> Result<Option<ScaleSet>, CloudError> {
        let found = self.model(id).await?;
        let call = Call::new("GET", "scale set", id, CallKind::ScaleSetRead);
        found.map(|json| project::scale_set(&json).map_err(|error| unreadable(&call, &error))).transpose()
    }

    async fn scale_sets(&self, subscription: &str) -> Result<Vec<ScaleSet>, CloudError> {
        let what = format!("GET scale sets of subscription {subscription}");
        let call = Call::anywhere(what, Bucket::new(subscription, CallKind::ScaleSetList));
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachineScaleSets?api-version={SCALE_SETS_API}"
        );
        self.list(call, &path, project::scale_set).await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError> {
        self.read_instance(id).await
    }

    async fn instances(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Instance>, CloudError> {
        self.list_instances(id, orchestration).await
    }

    async fn power(&self, id: &InstanceId) -> Result<Option<MachinePower>, CloudError> {
        self.read_power(id).await
    }

    async fn begin_attach(&self, to: &InstanceId, disk: &DiskId, lun: u32) -> Result<Accepted, CloudError> {
        self.send_disks(to, "attachment of disk to instance", &bodies::attach(disk, lun)).await
    }

    async fn begin_detach(&self, from: &InstanceId, disk: &DiskId) -> Result<Accepted, CloudError> {
        self.send_disks(from, "detachment of disk from instance", &bodies::detach(disk)).await
    }

    async fn begin_power_off(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.send_power_off(id).await
    }

    async fn begin_start(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.send_start(id).await
    }

    async fn begin_restart(&self, id: &InstanceId) -> Result<Accepted, CloudError> {
        self.send_restart(id).await
    }

    async fn machines(&self, subscription: &str) -> Result<Vec<Machine>, CloudError> {
        self.list_machines(subscription).await
    }

    async fn powers(&self, id: &ScaleSetId, orchestration: Orchestration) -> Result<Vec<Powered>, CloudError> {
        self.list_powers(id, orchestration).await
    }

    async fn disk(&self, id: &DiskId) -> Result<Option<Disk>, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("GET", "disk", id, CallKind::DiskRead);
        self.read_as(call, sent!(|it| it.disks_client().get(&subscription, &group, &name)), project::disk).await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("GET", "snapshot", id, CallKind::SnapshotRead);
        self.read_as(call, sent!(|it| it.snapshots_client().get(&subscription, &group, &name)), project::snapshot).await
    }

    async fn gallery(&self, id: &GalleryId) -> Result<Option<Gallery>, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("GET", "gallery", id, CallKind::GalleryRead);
        self.read_as(call, sent!(|it| it.galleries_client().get(&subscription, &group, &name)), project::gallery).await
    }

    async fn definition(&self, id: &DefinitionId) -> Result<Option<Definition>, CloudError> {
        let (subscription, group, _) = plain(id);
        let [gallery, image] = parents(id);
        let call = Call::new("GET", "definition", id, CallKind::GalleryRead);
        let send: Generated<'_> = sent!(|it| it.gallery_images_client().get(&subscription, &group, &gallery, &image));
        self.read_as(call, send, project::definition).await
    }

    async fn version(&self, id: &VersionId) -> Result<Option<Version>, CloudError> {
        let found = self.raw_version(id).await?;
        let call = Call::new("GET", "version", id, CallKind::VersionRead);
        found.map(|json| project::version(&json).map_err(|error| unreadable(&call, &error))).transpose()
    }

    async fn versions(&self, id: &DefinitionId) -> Result<Vec<Version>, CloudError> {
        let call = Call::new("GET", "versions of definition", id, CallKind::VersionRead);
        let path = format!("{id}/versions?api-version={GALLERIES_API}");
        self.list(call, &path, project::version).await
    }

    async fn leftovers(&self, group: &GroupId) -> Result<Leftovers, CloudError> {
        let (call, path) = in_group(group, "disks", CallKind::DiskRead);
        let disks = self.list(call, &path, |json| project::tagged(json, project::disk)).await?;
        let (call, path) = in_group(group, "snapshots", CallKind::SnapshotRead);
        let snapshots = self.list(call, &path, |json| project::tagged(json, project::snapshot)).await?;
        Ok(Leftovers {
            disks: disks.into_iter().flatten().collect(),
            snapshots: snapshots.into_iter().flatten().collect(),
        })
    }

    async fn autoscale(&self, subscription: &str) -> Result<Vec<Autoscale>, CloudError> {
        let what = format!("GET autoscale settings of subscription {subscription}");
        let call = Call::anywhere(what, Bucket::new(subscription, CallKind::OperationRead));
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Insights/autoscalesettings?api-version={AUTOSCALE_API}"
        );
        self.list(call, &path, project::autoscale).await
    }

    async fn operation(&self, operation: &Operation) -> Result<OperationState, CloudError> {
        let Ok(url) = self.arm.own(&operation.0) else {
            tracing::warn!("an operation's URL on another host is not asked: the resource decides");
            return Ok(OperationState::Unknown);
        };
        let mut segments = url.path().split('/').skip_while(|part| !part.eq_ignore_ascii_case("subscriptions"));
        let bucket = Bucket::new(segments.nth(1).unwrap_or("unknown"), CallKind::OperationRead);
        let mut region = segments.skip_while(|part| !part.eq_ignore_ascii_case("locations")).skip(1);
        let region = region.next().map(|region| Region(region.to_owned()).key());
        let call = Call::anywhere("GET operation".into(), bucket.at(region));
        match self.exchange(&call, How::Url(&url)).await {
            Ok(reply) => Ok(operation::state(&reply, self.now())),
            Err(CloudError::Gone { .. }) => Ok(OperationState::Unknown),
            // A URL whose signature Azure does not take any more says nothing about the resource either.
            Err(CloudError::Refused { code, message, .. }) => {
                tracing::warn!(code, message, "an operation's URL was refused: the resource decides");
                Ok(OperationState::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin_snapshot(&self, want: &SnapshotSpec) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(&want.id);
        let body = bodies::snapshot(want);
        let call = Call::new("PUT", "snapshot", &want.id, CallKind::SnapshotWrite).of(project::run(&want.tags));
        let stand_in = models::Snapshot::new(stand_in(&want.location));
        let send: Generated<'_> =
            sent!(|it| it.snapshots_client().create_or_update(&subscription, &group, &name, stand_in.clone()));
        self.begin(call.with(&body), send).await
    }

    async fn begin_delete_snapshot(&self, id: &SnapshotId) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("DELETE", "snapshot", id, CallKind::SnapshotWrite);
        self.begin_delete(call, sent!(|it| it.snapshots_client().delete(&subscription, &group, &name))).await
    }

    async fn begin_copy_disk(&self, want: &DiskCopy) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(&want.id);
        let body = bodies::disk_copy(want);
        let call = Call::new("PUT", "disk", &want.id, CallKind::DiskWrite).of(project::run(&want.tags));
        let stand_in = models::Disk::new(stand_in(&want.location));
        let send: Generated<'_> =
            sent!(|it| it.disks_client().create_or_update(&subscription, &group, &name, stand_in.clone()));
        self.begin(call.with(&body), send).await
    }

    async fn begin_tag_disk(&self, id: &DiskId, tags: &Tags) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let body = bodies::disk_tags(tags);
        let call = Call::new("PATCH", "disk", id, CallKind::DiskWrite).of(project::run(tags)).with(&body);
        let send: Generated<'_> =
            sent!(|it| it.disks_client().update(&subscription, &group, &name, models::DiskUpdate::new()));
        self.begin(call, send).await
    }

    async fn begin_delete_disk(&self, id: &DiskId) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("DELETE", "disk", id, CallKind::DiskWrite);
        self.begin_delete(call, sent!(|it| it.disks_client().delete(&subscription, &group, &name))).await
    }

    async fn begin_gallery(&self, id: &GalleryId, location: &Region) -> Result<Accepted, CloudError> {
        let (subscription, group, name) = plain(id);
        let body = bodies::gallery(location);
        let call = Call::new("PUT", "gallery", id, CallKind::GalleryWrite);
        let stand_in = models::Gallery::new(stand_in(location));
        let send: Generated<'_> =
            sent!(|it| it.galleries_client().create_or_update(&subscription, &group, &name, stand_in.clone()));
        self.begin(call.with(&body), send).await
    }

    async fn begin_definition(&self, want: &DefinitionSpec) -> Result<Accepted, CloudError> {
        let (subscription, group, _) = plain(&want.id);
        let [gallery, image] = parents(&want.id);
        let body = bodies::definition(want);
        let call = Call::new("PUT", "definition", &want.id, CallKind::GalleryWrite);
        let stand_in = models::GalleryImage::new(stand_in(&want.location));
        let send: Generated<'_> = sent!(|it| it.gallery_images_client().create_or_update(
            &subscription,
            &group,
            &gallery,
            &image,
            stand_in.clone()
        ));
        self.begin(call.with(&body), send).await
    }

    async fn begin_version(&self, want: &NewVersion) -> Result<Accepted, CloudError> {
        let (subscription, group, version) = plain(&want.id);
        let [gallery, image] = parents(&want.id);
        let body = bodies::version(want);
        let call = Call::new("PUT", "version", &want.id, CallKind::VersionWrite).of(project::run(&want.tags));
        let stand_in = models::GalleryImageVersion::new(stand_in(&want.location));
        let send: Generated<'_> = sent!(|it| it.gallery_image_versions_client().create_or_update(
            &subscription,
            &group,
            &gallery,
            &image,
            &version,
            stand_in.clone()
        ));
        self.begin(call.with(&body), send).await
    }

    async fn begin_publish(&self, id: &VersionId, published: bool) -> Result<Accepted, CloudError> {
        let call = Call::new("PATCH", "version", id, CallKind::VersionWrite);
        let Some(live) = self.raw_version(id).await? else { return Err(gone(call.what, "the version is not there")) };
        let (subscription, group, version) = plain(id);
        let [gallery, image] = parents(id);
        let body = bodies::publish(&live, published);
        let run = project::version(&live).ok().and_then(|version| version.run);
        let send: Generated<'_> = sent!(|it| it.gallery_image_versions_client().update(
            &subscription,
            &group,
            &gallery,
            &image,
            &version,
            models::GalleryImageVersionUpdate::new()
        ));
        self.begin(call.of(run).with(&body), send).await
    }

    async fn begin_delete_version(&self, id: &VersionId) -> Result<Accepted, CloudError> {
        let (subscription, group, version) = plain(id);
        let [gallery, image] = parents(id);
        let call = Call::new("DELETE", "version", id, CallKind::VersionWrite);
        let send: Generated<'_> =
            sent!(|it| it.gallery_image_versions_client().delete(&subscription, &group, &gallery, &image, &version));
        self.begin_delete(call, send).await
    }

    async fn begin_tag_version(&self, id: &VersionId, tag: &str, value: Option<&str>) -> Result<Accepted, CloudError> {
        if let Some(value) = value {
            return self.tag(id, CallKind::VersionWrite, Change::Set(tag, value)).await;
        }
        let Some(live) = self.raw_version(id).await? else { return Ok(Accepted::default()) };
        let tags = live["tags"].as_object().into_iter().flatten();
        let found = tags.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(tag));
        let Some((name, value)) = found.and_then(|(name, value)| Some((name, value.as_str()?))) else {
            return Ok(Accepted::default());
        };
        self.tag(id, CallKind::VersionWrite, Change::Remove(name, value)).await
    }

    async fn begin_model_change(&self, want: &ModelChange) -> Result<Accepted, CloudError> {
        let id = &want.scale_set;
        let call = Call::new("PATCH", "scale set", id, CallKind::ScaleSetWrite).of(Some(want.run));
        let Some(live) = self.model(id).await? else { return Err(gone(call.what, "the scale set is not there")) };
        if want.outdated(&live) {
            return Err(outdated(call.what));
        }
        self.send_patch(id, call, &want.body(&live), live["etag"].as_str()).await
    }

    async fn begin_scale_out(&self, id: &ScaleSetId, run: RunId, capacity: u32) -> Result<Accepted, CloudError> {
        let call = Call::new("PATCH", "scale set", id, CallKind::ScaleSetWrite).of(Some(run));
        let Some(live) = self.model(id).await? else { return Err(gone(call.what, "the scale set is not there")) };
        // Only upward, whatever has happened since the last look.
        if live.pointer("/sku/capacity").and_then(Value::as_u64).is_none_or(|now| now >= u64::from(capacity)) {
            return Ok(Accepted::default());
        }
        self.send_patch(id, call, &bodies::scale_out(&live, capacity), live["etag"].as_str()).await
    }
}
