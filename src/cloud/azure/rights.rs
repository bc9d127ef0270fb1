//! What a diagnosis asks: is there a token, what may we do, and is our clock in step. For `doctor`; no run needs it.

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    classify,
    client::{AzureCloud, Call},
    project::Unreadable,
};
use crate::{
    cloud::{Bucket, CallKind, CloudError, Granted},
    model::{GalleryId, GroupId},
};

/// Azure's own API for "what may I do here": of a resource group and of a resource; there is none for a subscription.
const PERMISSIONS: &str = "/providers/Microsoft.Authorization/permissions?api-version=2022-04-01";

impl AzureCloud {
    /// Fetches a token, or has one.
    ///
    /// # Errors
    /// `Denied` when the authority says no or the token file can't be read.
    pub async fn credential(&self) -> Result<(), CloudError> {
        let what = "GET token".to_owned();
        // A token is for no subscription, and nothing is rationed but by the authority itself.
        let bucket = Bucket::new("any", CallKind::OperationRead);
        self.arm.credential().await.map_err(|error| classify::silence(&what, &bucket, error))
    }

    /// What we may do in a resource group, by assignments there and above.
    pub async fn granted_in(&self, group: &GroupId) -> Result<Vec<Granted>, CloudError> {
        let what = format!("GET permissions of resource group {}", group.name());
        self.granted(what, group.subscription(), &group.to_string()).await
    }

    /// What we may do with a gallery, by assignments on it and above.
    pub async fn granted_on(&self, gallery: &GalleryId) -> Result<Vec<Granted>, CloudError> {
        let what = format!("GET permissions of gallery {}", gallery.name());
        self.granted(what, gallery.subscription(), gallery.as_str()).await
    }

    async fn granted(&self, what: String, subscription: &str, scope: &str) -> Result<Vec<Granted>, CloudError> {
        let bucket = Bucket::new(subscription, CallKind::OperationRead);
        let call = Call::anywhere(what, bucket);
        self.list(call, &format!("{scope}{PERMISSIONS}"), granted).await
    }

    /// By how much the resource manager's clock was ahead of ours at its newest answer, to a second.
    #[must_use]
    pub fn ahead(&self) -> Option<SignedDuration> {
        self.offset()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of all projections of a list's items")]
fn granted(json: &Value) -> Result<Granted, Unreadable> {
    let texts = |field: &str| {
        let all = json[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        all.map(ToOwned::to_owned).collect()
    };
    Ok(Granted { actions: texts("actions"), not_actions: texts("notActions") })
}
