//! The `Cloud` port over the resource manager: which call each method is, and what every call goes through.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use azure_mgmt_compute::package_2024_07_01::{Client, models};
use futures_util::{FutureExt as _, TryFutureExt as _};
use http::{StatusCode, Uri};
use serde_json::Value;

use super::{
    arm::{Arm, Generated, NoReply, Ticket, header},
    bodies, classify, operation,
    project::{self, Unreadable},
    settings::{AzureSettings, AzureSetupError},
    transport::Reply,
};
use crate::{
    clock::Clock,
    cloud::{
        Accepted, Bucket, CallKind, Cloud, CloudError, Definition, DefinitionSpec, Disk, DiskCopy, Gallery, Instance,
        Limiter, ModelChange, NewVersion, Operation, OperationState, ScaleSet, Snapshot, SnapshotSpec, Version,
    },
    model::{
        DefinitionId, DiskId, GalleryId, InstanceId, Region, ResourceId, RunId, ScaleSetId, SnapshotId, VersionId,
    },
};

/// What the generated client asks for; lists have no `.send()` there, so they say it themselves.
const SCALE_SETS_API: &str = "2024-07-01";
const GALLERIES_API: &str = "2023-07-03";

/// More pages than any list of ours can have: a `nextLink` that leads in a circle comes to an end.
const PAGES_MAX: usize = 500;

/// Azure.
pub struct AzureCloud {
    arm: Arc<Arm>,
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for AzureCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureCloud").field("arm", &self.arm).finish_non_exhaustive()
    }
}

/// One call, before it is known how to send it.
struct Call<'a> {
    /// As in `GET snapshot kwf-pool1-0123456789ab`.
    what: String,
    bucket: Bucket,
    run: Option<RunId>,
    body: Option<&'a Value>,
}

impl<'a> Call<'a> {
    fn new(verb: &str, noun: &str, id: &ResourceId, kind: CallKind) -> Self {
        Self {
            what: format!("{verb} {noun} {}", id.names().join("/")),
            bucket: Bucket { subscription: id.subscription().to_owned(), kind },
            run: None,
            body: None,
        }
    }

    fn of(self, run: Option<RunId>) -> Self {
        Self { run, ..self }
    }

    fn with(self, body: &'a Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// How a call is sent.
#[derive(Clone, Copy)]
enum How<'a> {
    Generated(Generated<'a>),
    Url(&'a Uri),
}

/// `client.method(args)` of the generated client, sent once. The only form in which its builders are used.
macro_rules! sent {
    (|$client:ident| $builder:expr) => {
        &|$client: Client| $builder.send().map_ok(drop).boxed()
    };
}

impl AzureCloud {
    /// Connects nowhere yet: the first call fetches a token.
    pub fn new(
        settings: &AzureSettings,
        limiter: Arc<Limiter>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AzureSetupError> {
        Ok(Self { arm: Arc::new(Arm::new(settings)?), limiter, clock })
    }

    /// Sends a call if its bucket is open; a 401 is tried once more with a fresh token, since nothing has happened.
    async fn exchange(&self, call: &Call<'_>, how: How<'_>) -> Result<Reply, CloudError> {
        let mut reply = self.attempt(call, how).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.arm.forget_token().await;
            reply = self.attempt(call, how).await?;
        }
        let now = self.clock.now();
        if reply.status.is_success() {
            if let Some(pause) = classify::spent(&reply.headers) {
                self.limiter.close(&call.bucket, now + pause);
            }
            return Ok(reply);
        }
        let error = classify::failure(&call.what, &call.bucket, &reply, now);
        if let CloudError::Throttled { retry_after, .. } = &error {
            for bucket in classify::closed_by(&call.bucket, &reply) {
                self.limiter.close(&bucket, now + *retry_after);
            }
        }
        Err(error)
    }

    async fn attempt(&self, call: &Call<'_>, how: How<'_>) -> Result<Reply, CloudError> {
        if let Some(retry_after) = self.limiter.wait(&call.bucket, self.clock.now()) {
            let (what, bucket) = (call.what.clone(), call.bucket.clone());
            return Err(CloudError::Throttled { what, bucket, retry_after });
        }
        let ticket = Ticket { attempt: self.clock.new_id(), run: call.run, body: call.body.cloned() };
        let attempt = ticket.attempt;
        let answer = match how {
            How::Generated(send) => self.arm.generated(ticket, send).await,
            How::Url(url) => self.arm.get(url, &ticket).await,
        };
        let reply = answer.map_err(|error| classify::silence(&call.what, &call.bucket, error))?;
        let azure_request_id = header(&reply.headers, "x-ms-request-id").unwrap_or_default();
        tracing::debug!(what = %call.what, status = reply.status.as_u16(), %attempt, azure_request_id, "answered");
        Ok(reply)
    }

    /// Reads one thing; `None` when it does not exist.
    async fn read(&self, call: &Call<'_>, how: How<'_>) -> Result<Option<Value>, CloudError> {
        match self.exchange(call, how).await {
            Ok(reply) => json(call, &reply).map(Some),
            // A whole group that is missing is told as such: it is more likely a mistake than an end.
            Err(CloudError::Gone { code, .. }) if !code.eq_ignore_ascii_case("ResourceGroupNotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_as<T>(
        &self,
        call: Call<'_>,
        send: Generated<'_>,
        project: fn(&Value) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, CloudError> {
        let found = self.read(&call, How::Generated(send)).await?;
        found.map(|json| project(&json).map_err(|error| unreadable(&call, &error))).transpose()
    }

    /// Reads a list to its end. `None` when what is listed has no parent.
    async fn list<T>(
        &self,
        call: Call<'_>,
        path_and_query: &str,
        project: fn(&Value) -> Result<T, Unreadable>,
    ) -> Result<Option<Vec<T>>, CloudError> {
        let silence = |error: NoReply| classify::silence(&call.what, &call.bucket, error);
        let mut url = self.arm.url(path_and_query).map_err(silence)?;
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(json) = self.read(&call, How::Url(&url)).await? else { return Ok(None) };
            let (items, next) = project::page(&json, project).map_err(|error| unreadable(&call, &error))?;
            all.extend(items);
            let Some(next) = next else { return Ok(Some(all)) };
            url = self.arm.own(next).map_err(silence)?;
        }
        Err(CloudError::Uncertain {
            what: call.what,
            detail: format!("the list does not end within {PAGES_MAX} pages"),
        })
    }

    /// Asks once for a change.
    async fn begin(&self, call: Call<'_>, send: Generated<'_>) -> Result<Accepted, CloudError> {
        let reply = self.exchange(&call, How::Generated(send)).await?;
        Ok(operation::accepted(&self.arm, &call.what, &reply, self.clock.now()))
    }

    /// Asks for a deletion. What is gone already is as good as accepted.
    async fn begin_delete(&self, call: Call<'_>, send: Generated<'_>) -> Result<Accepted, CloudError> {
        match self.begin(call, send).await {
            Err(CloudError::Gone { .. }) => Ok(Accepted::default()),
            other => other,
        }
    }

    /// A scale set's model as Azure shows it.
    async fn model(&self, id: &ScaleSetId) -> Result<Option<Value>, CloudError> {
        let (subscription, group, name) = plain(id);
        let call = Call::new("GET", "scale set", id, CallKind::ScaleSetRead);
        let send: Generated<'_> = sent!(|it| it.virtual_machine_scale_sets_client().get(&group, &name, &subscription));
        self.read(&call, How::Generated(send)).await
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

/// Subscription, resource group and the leaf's name: what generated methods take.
fn plain(id: &ResourceId) -> (String, String, String) {
    (id.subscription().to_owned(), id.resource_group().to_owned(), id.name().to_owned())
}

/// The names of a gallery and of a definition in it.
fn parents(id: &ResourceId) -> [String; 2] {
    let names = id.names();
    [0, 1].map(|at| names.get(at).copied().unwrap_or_default().to_owned())
}

/// What generated methods want of a body that ours takes the place of.
fn stand_in(location: &Region) -> models::Resource {
    models::Resource::new(location.0.clone())
}

fn json(call: &Call<'_>, reply: &Reply) -> Result<Value, CloudError> {
    serde_json::from_slice(&reply.body).map_err(|error| CloudError::Uncertain {
        what: call.what.clone(),
        detail: format!("{} with a body that is no JSON: {error}", reply.status),
    })
}

fn unreadable(call: &Call<'_>, error: &Unreadable) -> CloudError {
    CloudError::Uncertain { what: call.what.clone(), detail: error.to_string() }
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
        let call = Call {
            what: format!("GET scale sets of subscription {subscription}"),
            bucket: Bucket { subscription: subscription.to_owned(), kind: CallKind::ScaleSetList },
            run: None,
            body: None,
        };
        let path = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachineScaleSets?api-version={SCALE_SETS_API}"
        );
        let what = call.what.clone();
        let found = self.list(call, &path, project::scale_set).await?;
        found.ok_or_else(|| gone(what, "the subscription is not there"))
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, CloudError> {
        let (subscription, group, instance) = plain(id);
        let [set, _] = parents(id);
        let call = Call::new("GET", "instance", id, CallKind::InstanceRead);
        let send: Generated<'_> =
            sent!(|it| it.virtual_machine_scale_set_v_ms_client().get(&group, &set, &instance, &subscription));
        self.read_as(call, send, project::instance).await
    }

    async fn instances(&self, id: &ScaleSetId) -> Result<Vec<Instance>, CloudError> {
        let call = Call::new("GET", "instances of scale set", id, CallKind::InstanceRead);
        let what = call.what.clone();
        let path = format!("{id}/virtualMachines?api-version={SCALE_SETS_API}");
        let found = self.list(call, &path, project::instance).await?;
        found.ok_or_else(|| gone(what, "the scale set is not there"))
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
        // A definition that is not there yet has no versions: the first run of a pool asks before it makes one.
        Ok(self.list(call, &path, project::version).await?.unwrap_or_default())
    }

    async fn operation(&self, operation: &Operation) -> Result<OperationState, CloudError> {
        let Ok(url) = self.arm.own(&operation.0) else {
            tracing::warn!("an operation's URL on another host is not asked: the resource decides");
            return Ok(OperationState::Unknown);
        };
        let mut segments = url.path().split('/').skip_while(|part| !part.eq_ignore_ascii_case("subscriptions"));
        let call = Call {
            what: "GET operation".into(),
            bucket: Bucket {
                subscription: segments.nth(1).unwrap_or("unknown").to_owned(),
                kind: CallKind::OperationRead,
            },
            run: None,
            body: None,
        };
        match self.exchange(&call, How::Url(&url)).await {
            Ok(reply) => Ok(operation::state(&reply, self.clock.now())),
            Err(CloudError::Gone { .. }) => Ok(OperationState::Unknown),
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

    async fn begin_model_change(&self, want: &ModelChange) -> Result<Accepted, CloudError> {
        let id = &want.scale_set;
        let call = Call::new("PATCH", "scale set", id, CallKind::ScaleSetWrite).of(Some(want.run));
        let Some(live) = self.model(id).await? else { return Err(gone(call.what, "the scale set is not there")) };
        let (subscription, group, name) = plain(id);
        let body = want.body(&live);
        let etag = live["etag"].as_str().map(ToOwned::to_owned);
        let send: Generated<'_> = sent!(|it| {
            let update = it.virtual_machine_scale_sets_client().update(
                &group,
                &name,
                models::VirtualMachineScaleSetUpdate::new(),
                &subscription,
            );
            match &etag {
                Some(etag) => update.if_match(etag),
                None => update,
            }
        });
        self.begin(call.with(&body), send).await
    }
}
