//! Which of the rights of the list this identity lacks: for `doctor`, before a run finds out half-way.

use futures_util::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::KubernetesCluster;
use crate::{
    cluster::ClusterError,
    permissions::{ClusterRight, Installation},
};

impl KubernetesCluster {
    /// Asks the API server about each of `rights`. Everybody who is known to it may ask that about themselves.
    pub async fn missing_rights(
        &self,
        rights: &[ClusterRight],
        at: &Installation,
    ) -> Result<Vec<ClusterRight>, ClusterError> {
        let answers = try_join_all(rights.iter().map(|right| self.has(right, at))).await?;
        Ok(rights.iter().zip(answers).filter(|(_, has)| !has).map(|(right, _)| *right).collect())
    }

    async fn has(&self, right: &ClusterRight, at: &Installation) -> Result<bool, ClusterError> {
        let what = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(right.resource.to_owned()),
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
