//! `credential: rebootstrap`: an empty Secret, and the token that lives as long as it.
//!
//! The API server takes a bound token for dead as soon as the object that it names is gone. So whoever may delete the Secret
//! can end the token without having seen it; and the Secret's owner is the node, so that the token of a node that was deleted
//! does not outlive it either.

use std::time::Duration;

use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        authorization::v1::ResourceAttributes,
        core::v1::{Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use super::{connect::KubernetesCluster, objects::labels_of};
use crate::{
    cluster::{Anchor, ClusterError},
    permissions::BOOTSTRAP,
};

/// Longer than a donor is away for any reason but a broken machine. It ends earlier, with its Secret.
const ASKED: Duration = Duration::from_hours(7 * 24);

impl KubernetesCluster {
    pub(super) async fn anchor_exists(&self, anchor: &Anchor) -> Result<bool, ClusterError> {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match self.post_anchor(anchor, &dry).await {
            Ok(()) => Ok(false),
            Err(ClusterError::Exists { .. }) => Ok(true),
            Err(other) => Err(other),
        }
    }

    pub(super) async fn post_anchor(&self, anchor: &Anchor, how: &PostParams) -> Result<(), ClusterError> {
        let Anchor { name, namespace, .. } = anchor;
        let secrets: Api<Secret> = self.namespaced(namespace);
        let what = if how.dry_run { "look for secret" } else { "create secret" };
        self.call(format!("{what} {namespace}/{name}"), secrets.create(how, &secret(anchor))).await?;
        Ok(())
    }

    pub(super) async fn drop_anchor(&self, anchor: &Anchor) -> Result<(), ClusterError> {
        let Anchor { name, namespace, .. } = anchor;
        let secrets: Api<Secret> = self.namespaced(namespace);
        let how = DeleteParams::default();
        match self.call(format!("delete secret {namespace}/{name}"), secrets.delete(name, &how)).await {
            Ok(_) | Err(ClusterError::Gone { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Asks for a token of [`BOOTSTRAP`] that lives as long as a Secret of its namespace, and says for how long it would at most.
    /// Not of the port: only the cleaner on a donor does this, with the token of its own pod.
    ///
    /// # Errors
    /// What the API server said; it may be asked again.
    pub async fn bound_token(&self, namespace: &str, secret: &str) -> Result<(String, Duration), ClusterError> {
        let accounts: Api<ServiceAccount> = self.namespaced(namespace);
        let what = format!("create token of service account {namespace}/{BOOTSTRAP} bound to secret {secret}");
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Secret".into()),
                    name: Some(secret.into()),
                    uid: None,
                }),
                expiration_seconds: i64::try_from(ASKED.as_secs()).ok(),
            },
            ..TokenRequest::default()
        };
        let how = PostParams::default();
        let granted = self.call(&what, accounts.create_token_request(BOOTSTRAP, &how, &request)).await?;
        let seconds = granted.spec.expiration_seconds.and_then(|it| u64::try_from(it).ok());
        match (granted.status, seconds) {
            (Some(status), Some(seconds)) => Ok((status.token, Duration::from_secs(seconds))),
            _ => Err(ClusterError::Refused { what, message: "the answer has no token".into() }),
        }
    }

    /// What whoever we are lacks to get the client certificate of a node: to ask, and to have it approved (the controller
    /// manager's approver asks the API server just that).
    pub async fn lacking_to_bootstrap(&self) -> Result<Vec<String>, ClusterError> {
        let mut lacking = Vec::new();
        let asking = [("create", None), ("get", None), ("list", None), ("watch", None)];
        for (verb, subresource) in asking.into_iter().chain([("create", Some("nodeclient"))]) {
            let resource = "certificatesigningrequests";
            let named = subresource.map_or_else(|| resource.to_owned(), |it| format!("{resource}/{it}"));
            let right = ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some(resource.into()),
                subresource: subresource.map(str::to_owned),
                verb: Some(verb.into()),
                ..ResourceAttributes::default()
            };
            if !self.allowed(right, format!("ask whether it may {verb} {named}")).await? {
                lacking.push(format!("{verb} {named}"));
            }
        }
        Ok(lacking)
    }
}

/// Without data: whoever reads it has learnt nothing.
fn secret(anchor: &Anchor) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(anchor.name.clone()),
            namespace: Some(anchor.namespace.clone()),
            labels: Some(labels_of(anchor.run)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: anchor.node.to_string(),
                uid: anchor.node_uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        ..Secret::default()
    }
}
