//! Pods, budgets and evictions over the wire, and what each answer to an eviction means.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::Pod as KubePod,
        policy::v1::{Eviction as KubeEviction, PodDisruptionBudget},
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, LabelSelector, ObjectMeta, Preconditions},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
    core::Status,
};
use serde::de::DeserializeOwned;

use super::{
    KubernetesCluster,
    error::{cut, from_status},
};
use crate::{
    cluster::{Budget, ClusterError, Controller, Eviction, Pod, PodLife, PodRef, Requirement, Selector},
    model::NodeName,
};

/// Of pods or budgets in one answer. A node has some hundred pods at most.
const PAGE: u32 = 250;
/// No list is longer than this many pages: a server that never ends one must not keep us for ever.
const PAGES_MAX: usize = 100;

/// Annotation of a static pod's shadow.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl KubernetesCluster {
    pub(super) async fn list_pods_on(&self, node: &NodeName) -> Result<Vec<Pod>, ClusterError> {
        let pods: Api<KubePod> = Api::all(self.client.clone());
        let bound = format!("spec.nodeName={node}");
        let found = self.pages(&format!("list pods on {node}"), &pods, ListParams::default().fields(&bound)).await?;
        Ok(found.into_iter().map(pod).collect())
    }

    pub(super) async fn get_pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, ClusterError> {
        let pods: Api<KubePod> = self.namespaced(namespace);
        Ok(self.call(format!("get pod {namespace}/{name}"), pods.get_opt(name)).await?.map(pod))
    }

    pub(super) async fn has_daemon_set(&self, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        let sets: Api<DaemonSet> = self.namespaced(namespace);
        Ok(self.call(format!("get daemonset {namespace}/{name}"), sets.get_opt(name)).await?.is_some())
    }

    pub(super) async fn list_budgets(&self, namespace: &str) -> Result<Vec<Budget>, ClusterError> {
        let budgets: Api<PodDisruptionBudget> = self.namespaced(namespace);
        let what = format!("list poddisruptionbudgets {namespace}");
        Ok(self.pages(&what, &budgets, ListParams::default()).await?.into_iter().map(budget).collect())
    }

    pub(super) async fn ask_to_go(&self, id: &PodRef) -> Result<Eviction, ClusterError> {
        let pods: Api<KubePod> = self.namespaced(&id.namespace);
        let what = format!("evict pod {id}");
        let how = PostParams::default();
        // Every status is read as an answer, also one that says with 201 that it failed (more than one budget).
        let wanted = eviction(id);
        let asked = pods.create_subresource::<KubeEviction, Status>("eviction", &id.name, &how, &wanted);
        match self.answer(what.clone(), asked).await? {
            Ok(status) if !status.is_failure() => Ok(Eviction::Accepted),
            Ok(status) => classify(what, &status),
            Err(status) => classify(what, &status),
        }
    }

    /// Sends one request. What the server says against it is for the caller to understand.
    async fn answer<T>(
        &self,
        what: impl Into<String>,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Result<T, Box<Status>>, ClusterError> {
        let answered = async {
            match request.await {
                Ok(answer) => Ok(Ok(answer)),
                Err(kube::Error::Api(status)) => Ok(Err(status)),
                Err(other) => Err(other),
            }
        };
        self.call(what, answered).await
    }

    /// Every page of a list. A list that its server has forgotten half-way is begun anew at the next look.
    async fn pages<K>(&self, what: &str, api: &Api<K>, from: ListParams) -> Result<Vec<K>, ClusterError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let uncertain = |detail: String| ClusterError::Uncertain { what: what.to_owned(), detail };
        let mut all = Vec::new();
        let mut page = from.limit(PAGE);
        for _ in 0..PAGES_MAX {
            let list = match self.answer(what, api.list(&page)).await? {
                Ok(list) => list,
                Err(expired) if expired.code == 410 => return Err(uncertain(expired.message)),
                Err(status) => return Err(from_status(what.to_owned(), &status)),
            };
            all.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(all),
            }
        }
        Err(uncertain(format!("the list has more than {} entries", all.len())))
    }
}

/// What is asked. `kube`'s own `evict` (5.0) writes `delete_options`, which a server does not know and so ignores: the uid would be
/// no precondition. No grace of ours: the pod's own counts, however long.
fn eviction(id: &PodRef) -> KubeEviction {
    KubeEviction {
        metadata: ObjectMeta {
            namespace: Some(id.namespace.clone()),
            name: Some(id.name.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions { uid: Some(id.uid.clone()), resource_version: None }),
            ..DeleteOptions::default()
        }),
    }
}

/// What an answer that is no success means for the pod.
fn classify(what: String, status: &Status) -> Result<Eviction, ClusterError> {
    let message = cut(status.message.clone());
    let details = status.details.as_ref();
    let cause = |reason: &str| {
        let causes = details.map(|details| details.causes.as_slice()).unwrap_or_default();
        causes.iter().find(|cause| cause.reason == reason)
    };
    match status.code {
        404 => Ok(Eviction::Gone),
        // The name was used again between our look and the eviction.
        409 if message.contains("UID in") => Ok(Eviction::Gone),
        429 if let Some(budget) = cause("DisruptionBudget") => Ok(Eviction::Blocked {
            budget: named(&budget.message),
            message: cut(budget.message.clone()),
            retry_after: details
                .map(|details| details.retry_after_seconds)
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.into())),
        }),
        403 if cause("NamespaceTerminating").is_some() => Ok(Eviction::NamespaceTerminates(message)),
        // Of a budget whose numbers make no sense: it has to be reckoned up again first.
        403 if details
            .is_some_and(|details| details.kind == "poddisruptionbudgets" || details.kind == "poddisruptionbudget") =>
        {
            Ok(Eviction::Blocked {
                budget: details.map(|details| details.name.clone()).filter(|name| !name.is_empty()),
                message,
                retry_after: None,
            })
        }
        500 if message.contains("more than one PodDisruptionBudget") => Ok(Eviction::SeveralBudgets(message)),
        // A webhook chooses its own code; whether it refused or did not answer is the message's to say.
        400.. if from_admission(&message) => Ok(Eviction::NotAdmitted(message)),
        _ => Err(from_status(what, status)),
    }
}

/// The words that the API server puts around what an admission webhook or policy said, or around its silence.
fn from_admission(message: &str) -> bool {
    let webhook = message.contains("admission webhook \"") && message.contains("denied the request");
    let silent = message.contains("failed calling webhook") || message.contains("failed to call webhook");
    let policy = message.contains("ValidatingAdmissionPolicy '") && message.contains("denied request");
    webhook || silent || policy
}

/// The budget of "The disruption budget db needs 2 healthy pods and has 2 currently".
fn named(message: &str) -> Option<String> {
    let rest = message.strip_prefix("The disruption budget ")?;
    rest.split(' ').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// A pod in our words.
fn pod(pod: KubePod) -> Pod {
    let (meta, status) = (pod.metadata, pod.status.unwrap_or_default());
    let spec = pod.spec.unwrap_or_default();
    let annotations = meta.annotations.unwrap_or_default();
    let controller = meta.owner_references.into_iter().flatten().find(|owner| owner.controller == Some(true));
    Pod {
        id: PodRef {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
        },
        node: spec.node_name,
        life: match status.phase.as_deref() {
            Some("Pending") => PodLife::Pending,
            Some("Succeeded" | "Failed") => PodLife::Finished,
            Some(_) | None => PodLife::Running,
        },
        ready: status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True"),
        controller: controller.map(|owner| Controller {
            group: owner.api_version.split_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: owner.kind,
            name: owner.name,
        }),
        mirror: annotations.contains_key(MIRROR),
        empty_dir: spec.volumes.iter().flatten().any(|volume| volume.empty_dir.is_some()),
        created: meta.creation_timestamp.map(|time| time.0),
        deleting: meta.deletion_timestamp.map(|time| time.0),
        finalizers: meta.finalizers.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        annotations,
    }
}

/// A budget in our words.
fn budget(budget: PodDisruptionBudget) -> Budget {
    let (meta, spec, status) = (budget.metadata, budget.spec.unwrap_or_default(), budget.status.unwrap_or_default());
    let condition = status.conditions.iter().flatten().find(|it| it.type_ == "DisruptionAllowed");
    let full = condition.filter(|it| it.status == "False");
    Budget {
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        selector: spec.selector.map(selector),
        current: status.observed_generation.unwrap_or_default() >= meta.generation.unwrap_or_default(),
        allowed: status.disruptions_allowed,
        healthy: status.current_healthy,
        desired: status.desired_healthy,
        unready_may_go: spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"),
        full_since: full.map(|it| it.last_transition_time.0),
        trouble: full.filter(|it| it.reason == "SyncFailed").map(|it| cut(it.message.clone())),
    }
}

fn selector(selector: LabelSelector) -> Selector {
    let requirements = selector.match_expressions.unwrap_or_default().into_iter().map(|it| Requirement {
        key: it.key,
        operator: it.operator,
        values: it.values.unwrap_or_default(),
    });
    Selector {
        labels: selector.match_labels.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
        requirements: requirements.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Class;

    fn answered(body: Value) -> Result<Eviction, Class> {
        let status: Status = serde_json::from_value(body).expect("a status");
        classify("evict pod shop/db-0".into(), &status).map_err(|error| error.class())
    }

    #[test]
    fn every_answer_to_an_eviction_has_its_meaning() {
        let full = "The disruption budget db needs 2 healthy pods and has 2 currently";
        let processed = "The disruption budget db is still being processed by the server.";
        let blocked = |message: &str, retry: u32| {
            json!({ "code": 429, "reason": "TooManyRequests", "message": "Cannot evict pod as it would violate the \
                pod's disruption budget.", "details": { "retryAfterSeconds": retry,
                "causes": [{ "reason": "DisruptionBudget", "message": message }] } })
        };
        let by = |message: &str, seconds: Option<u64>| Eviction::Blocked {
            budget: Some("db".into()),
            message: message.into(),
            retry_after: seconds.map(Duration::from_secs),
        };
        assert_eq!(answered(blocked(full, 0)), Ok(by(full, None)));
        assert_eq!(answered(blocked(processed, 10)), Ok(by(processed, Some(10))));
        let plain = |code: u16, reason: &str, message: &str| {
            answered(json!({ "code": code, "reason": reason, "message": message }))
        };
        assert_eq!(plain(404, "NotFound", "pods \"db-0\" not found"), Ok(Eviction::Gone));
        let recreated = "Operation cannot be fulfilled on Pod \"db-0\": the UID in the precondition (a) does not match \
                         the UID in record (b). The object might have been deleted and then recreated";
        assert_eq!(plain(409, "Conflict", recreated), Ok(Eviction::Gone));
        let deleted = "Precondition failed: UID in precondition: a, UID in object meta: b";
        assert_eq!(plain(409, "Conflict", deleted), Ok(Eviction::Gone));
        assert_eq!(plain(409, "Conflict", "the object has been modified"), Err(Class::Preempted));
        let several =
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        assert_eq!(plain(500, "", several), Ok(Eviction::SeveralBudgets(several.into())));
        assert_eq!(plain(500, "InternalError", "etcdserver: leader changed"), Err(Class::Uncertain));
        // Priority and fairness, not a budget.
        let busy = Class::Throttled { retry_after: Duration::from_secs(1) };
        assert_eq!(plain(429, "TooManyRequests", "Too many requests, please try again later."), Err(busy));
        for (code, message) in [
            (403, "admission webhook \"drain-cleaner.strimzi.io\" denied the request: The pod will be rolled"),
            (400, "admission webhook \"w.example\" denied the request without explanation"),
            (500, "Internal error occurred: failed calling webhook \"w.example\": no endpoints available"),
            (
                403,
                "pods \"db-0\" is forbidden: ValidatingAdmissionPolicy 'keep' with binding 'keep' denied request: no",
            ),
        ] {
            assert_eq!(plain(code, "", message), Ok(Eviction::NotAdmitted(message.into())), "{code}");
        }
        let rights =
            "pods \"db-0\" is forbidden: User \"u\" cannot create resource \"pods/eviction\" in API group \"\"";
        assert_eq!(plain(403, "Forbidden", rights), Err(Class::Denied));
        assert_eq!(plain(401, "Unauthorized", "Unauthorized"), Err(Class::Denied));
        let terminates = json!({ "code": 403, "reason": "Forbidden", "message": "shop is being terminated",
            "details": { "causes": [{ "reason": "NamespaceTerminating", "message": "m" }] } });
        assert_eq!(answered(terminates), Ok(Eviction::NamespaceTerminates("shop is being terminated".into())));
        let negative = json!({ "code": 403, "reason": "Forbidden", "message": "pdb disruptions allowed is negative",
            "details": { "kind": "poddisruptionbudget", "name": "db" } });
        let message = "pdb disruptions allowed is negative".into();
        assert_eq!(answered(negative), Ok(Eviction::Blocked { budget: Some("db".into()), message, retry_after: None }));
    }

    #[test]
    fn an_eviction_names_the_uid_where_the_server_looks_for_it() {
        let id = PodRef { namespace: "shop".into(), name: "db-0".into(), uid: "u1".into() };
        let expected = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "namespace": "shop", "name": "db-0" },
            "deleteOptions": { "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": "u1" } } });
        let mut body = serde_json::to_value(eviction(&id)).expect("JSON");
        // Whether the library writes the inner type's name is its own affair.
        body["deleteOptions"]["apiVersion"] = "v1".into();
        body["deleteOptions"]["kind"] = "DeleteOptions".into();
        assert_eq!(body, expected);
    }

    #[test]
    fn a_pod_that_says_little_is_taken_for_one_that_runs() {
        let bare: KubePod =
            serde_json::from_value(json!({ "metadata": { "namespace": "a", "name": "b" } })).expect("a pod");
        let bare = pod(bare);
        assert_eq!((bare.life, bare.ready, bare.controller, bare.node), (PodLife::Running, false, None, None));
        let owners = json!([{ "apiVersion": "v1", "kind": "ReplicationController", "name": "not", "uid": "1" },
            { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "2", "controller": true }]);
        let owned: KubePod = serde_json::from_value(json!({ "metadata": { "ownerReferences": owners },
            "status": { "phase": "Unknown" } }))
        .expect("a pod");
        let controller = Controller { group: "apps".into(), kind: "DaemonSet".into(), name: "log".into() };
        assert_eq!(pod(owned.clone()).controller, Some(controller), "the controller, not the first owner");
        assert_eq!(pod(owned).life, PodLife::Running);
    }
}
