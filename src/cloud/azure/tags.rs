//! One tag of a resource, by the tags API and not by a PATCH of the resource itself.
//!
//! A PATCH of a resource with `tags` replaces all of them, and whether one without the rest resets what it leaves out is the
//! provider's affair (docs/ASSUMPTIONS.md). The tags API names the one tag and what to do with it: nothing else is sent, so
//! nothing else can be lost, not even a tag that somebody adds at the same moment.

use http::{Method, Uri};
use serde_json::{Value, json};

use super::{
    arm::NoReply,
    classify,
    client::{AzureCloud, Call, How},
};
use crate::{
    cloud::{Accepted, CallKind, CloudError},
    model::ResourceId,
};

const TAGS_API: &str = "2021-04-01";

/// What becomes of a tag.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    /// It gets this value.
    Set(&'a str, &'a str),
    /// It goes; named with the value that it has, since whether a name alone is enough is told differently.
    Remove(&'a str, &'a str),
}

impl AzureCloud {
    /// Sets one tag, or removes it.
    pub(super) async fn tag(
        &self,
        id: &ResourceId,
        kind: CallKind,
        change: Change<'_>,
    ) -> Result<Accepted, CloudError> {
        let body = body(change);
        let call = Call::new("PATCH", "tags of", id, kind).with(&body);
        let path = format!("{id}/providers/Microsoft.Resources/tags/default?api-version={TAGS_API}");
        let silence = |error: NoReply| classify::silence(&call.what, &call.bucket, error);
        let url: Uri = self.arm.url(&path).map_err(silence)?;
        self.begin_as(call, How::Own(&Method::PATCH, &url)).await
    }
}

/// `Merge` and `Delete` leave alone what is not named.
fn body(change: Change<'_>) -> Value {
    let (operation, tag, value) = match change {
        Change::Set(tag, value) => ("Merge", tag, value),
        Change::Remove(tag, value) => ("Delete", tag, value),
    };
    json!({ "operation": operation, "properties": { "tags": { tag: value } } })
}
