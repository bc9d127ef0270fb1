//! What trying Azure out needs and no run does: the raw model, a PATCH of one's own, and deletions of what is only made for that.

use http::{Method, Uri};
use serde_json::{Value, json};

use super::{
    arm::NoReply,
    bodies, classify,
    client::{AzureCloud, Call, How},
    requests::GALLERIES_API,
    tags::Change,
};
use crate::{
    cloud::{Accepted, CallKind, CloudError, DefinitionSpec, Operation, Tags},
    model::{GalleryId, Region, ResourceId, RunId, ScaleSetId},
};

impl AzureCloud {
    /// A scale set's model as Azure shows it.
    pub async fn raw_scale_set(&self, id: &ScaleSetId) -> Result<Option<Value>, CloudError> {
        self.model(id).await
    }

    /// The body that asks a scale set for the capacity that it has.
    #[must_use]
    pub fn same_capacity(live: &Value) -> Value {
        let capacity = live.pointer("/sku/capacity").and_then(Value::as_u64).unwrap_or_default();
        bodies::scale_out(live, u32::try_from(capacity).unwrap_or_default())
    }

    /// Whether an operation's URL is on the resource manager's own host, however long it is.
    #[must_use]
    pub fn is_own(&self, operation: &Operation) -> bool {
        let host = operation.0.strip_prefix("https://").and_then(|rest| rest.split('/').next());
        host.is_some_and(|host| self.arm.own(&format!("https://{host}/")).is_ok())
    }

    /// Asks for this change of a scale set, under this etag.
    pub async fn begin_patch(
        &self,
        id: &ScaleSetId,
        run: RunId,
        body: &Value,
        etag: Option<&str>,
    ) -> Result<Accepted, CloudError> {
        let call = Call::new("PATCH", "scale set", id, CallKind::ScaleSetWrite).of(Some(run));
        self.send_patch(id, call, body, etag).await
    }

    /// Asks for a tag of a scale set, or for its end. It is named with its value in both.
    pub async fn begin_tag_scale_set(
        &self,
        id: &ScaleSetId,
        tag: &str,
        value: &str,
        on: bool,
    ) -> Result<Accepted, CloudError> {
        let change = if on { Change::Set(tag, value) } else { Change::Remove(tag, value) };
        self.tag(id, CallKind::ScaleSetWrite, change).await
    }

    /// Asks for a gallery with tags.
    pub async fn begin_tagged_gallery(
        &self,
        id: &GalleryId,
        location: &Region,
        tags: &Tags,
    ) -> Result<Accepted, CloudError> {
        self.in_gallery(&Method::PUT, "gallery", id, Some(tagged(bodies::gallery(location), tags))).await
    }

    /// Asks for a definition with tags.
    pub async fn begin_tagged_definition(&self, want: &DefinitionSpec, tags: &Tags) -> Result<Accepted, CloudError> {
        self.in_gallery(&Method::PUT, "definition", &want.id, Some(tagged(bodies::definition(want), tags))).await
    }

    /// Asks for the deletion of a gallery, or of a definition. What is gone already is as good as accepted.
    pub async fn begin_delete_in_gallery(&self, noun: &str, id: &ResourceId) -> Result<Accepted, CloudError> {
        match self.in_gallery(&Method::DELETE, noun, id, None).await {
            Err(CloudError::Gone { .. }) => Ok(Accepted::default()),
            other => other,
        }
    }

    async fn in_gallery(
        &self,
        method: &Method,
        noun: &str,
        id: &ResourceId,
        body: Option<Value>,
    ) -> Result<Accepted, CloudError> {
        let mut call = Call::new(method.as_str(), noun, id, CallKind::GalleryWrite);
        call.body = body.as_ref();
        let silence = |error: NoReply| classify::silence(&call.what, &call.bucket, error);
        let url: Uri = self.arm.url(&format!("{id}?api-version={GALLERIES_API}")).map_err(silence)?;
        self.begin_as(call, How::Own(method, &url)).await
    }
}

fn tagged(mut body: Value, tags: &Tags) -> Value {
    body["tags"] = json!(tags);
    body
}
