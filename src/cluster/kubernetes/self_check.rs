//! What a diagnosis asks: is there an API server, is our clock in step with its, and which of the rights of the list does this
//! identity lack. For `doctor`, before a run finds out half-way.

use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Limited};
use jiff::SignedDuration;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::ConfigMap,
};
use kube::{Api, api::PostParams, client::Body, core::Status};
use serde_json::Value;

use super::{KubernetesCluster, dated::date, error::from_status};
use crate::{
    clock::{Clock as _, SystemClock},
    cluster::ClusterError,
    permissions::{ClusterRight, Installation, PROOFS},
};

/// A version is a few hundred bytes.
const VERSION_BYTES_MAX: usize = 64 * 1024;

/// An API server that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// As in `v1.36.3`.
    pub version: String,
    /// By how much its clock is ahead of ours, to a second; `None` if something on the way took its date away.
    pub ahead: Option<SignedDuration>,
}

impl KubernetesCluster {
    /// Asks for the API server's version, which everybody who is known to it may.
    pub async fn about(&self) -> Result<About, ClusterError> {
        let what = "get version";
        let senseless = |detail: String| ClusterError::Uncertain { what: what.to_owned(), detail };
        let request = http::Request::get("/version").body(Body::empty());
        let request = request.map_err(|error| senseless(error.to_string()))?;
        let (head, body) = self.call(what, self.client.send(request)).await?.into_parts();
        let ahead = date(&head.headers).map(|date| date.duration_since(SystemClock.now()));
        let body = Limited::new(body, VERSION_BYTES_MAX).collect().await;
        let body = body.map_err(|error| senseless(error.to_string()))?.to_bytes();
        if !head.status.is_success() {
            let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
            status.code = head.status.as_u16();
            return Err(from_status(what.to_owned(), &status));
        }
        let json: Value = serde_json::from_slice(&body).map_err(|error| senseless(error.to_string()))?;
        Ok(About { version: json["gitVersion"].as_str().unwrap_or("of no version").to_owned(), ahead })
    }

    /// Asks the API server about each of `rights`. Everybody who is known to it may ask that about themselves.
    pub async fn missing_rights(
        &self,
        rights: &[ClusterRight],
        at: &Installation,
    ) -> Result<Vec<ClusterRight>, ClusterError> {
        let answers = try_join_all(rights.iter().map(|right| self.has(right, at))).await?;
        Ok(rights.iter().zip(answers).filter(|(_, has)| !has).map(|(right, _)| *right).collect())
    }

    /// Whether a donor's cleaner has somewhere to leave its proof.
    pub async fn takes_proofs(&self, namespace: &str) -> Result<bool, ClusterError> {
        let maps: Api<ConfigMap> = self.namespaced(namespace);
        let what = format!("get config map {namespace}/{PROOFS}");
        Ok(self.call(what, maps.get_opt(PROOFS)).await?.is_some())
    }

    async fn has(&self, right: &ClusterRight, at: &Installation) -> Result<bool, ClusterError> {
        // Rules spell a subresource with its resource, questions do not.
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (right.resource, None),
        };
        let what = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(right.verb.to_owned()),
            namespace: at.namespace_of(right.scope).map(str::to_owned),
            name: right.names.first().map(|name| (*name).to_owned()),
            ..ResourceAttributes::default()
        };
        self.allowed(what, format!("ask whether we may {} {}", right.verb, right.resource)).await
    }

    /// Asks the API server about one right of whoever we are.
    pub(super) async fn allowed(&self, right: ResourceAttributes, what: String) -> Result<bool, ClusterError> {
        let question = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(right), non_resource_attributes: None },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = self.call(what, reviews.create(&PostParams::default(), &question)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
