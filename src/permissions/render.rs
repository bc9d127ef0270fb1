//! The list of rights as roles of Kubernetes, role definitions of Azure, and a page for people.

use serde_json::{Value, json};

use super::{AzureRight, AzureScope, ClusterRight, ClusterScope, EVENTS, Part, in_azure, in_kubernetes};

/// Where and as whom kamino-wf runs in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The controller's namespace.
    pub namespace: String,
    /// The namespace of cleaning pods.
    pub clean_namespace: String,
    /// The controller's service account, in its namespace.
    pub service_account: String,
}

impl Installation {
    /// What its roles for a part are called. Two installations in one cluster must not overwrite each other's.
    fn role_name(&self, part: Part) -> String {
        let name = format!("kamino-wf:{}", self.namespace);
        match part {
            Part::Every => name,
            Part::Stop => format!("{name}:stop"),
            Part::ForcedDrain => format!("{name}:forced-drain"),
            Part::Rebootstrap => format!("{name}:rebootstrap"),
            Part::Attach => format!("{name}:attach"),
        }
    }

    /// The namespace of a scope's role; none for the cluster's.
    pub(crate) fn namespace_of(&self, scope: ClusterScope) -> Option<&str> {
        match scope {
            ClusterScope::Cluster => None,
            ClusterScope::NodeLeases => Some("kube-node-lease"),
            ClusterScope::Cleaning => Some(&self.clean_namespace),
            ClusterScope::Own => Some(&self.namespace),
            ClusterScope::Default => Some(EVENTS),
        }
    }
}

const PARTS: [Part; 5] = [Part::Every, Part::Stop, Part::ForcedDrain, Part::Rebootstrap, Part::Attach];
const SCOPES: [ClusterScope; 5] =
    [ClusterScope::Cluster, ClusterScope::NodeLeases, ClusterScope::Cleaning, ClusterScope::Own, ClusterScope::Default];

/// Roles and their bindings to the controller's service account, ready to be applied. `rights` are [`super::KUBERNETES`] and
/// the others, or less.
#[must_use]
pub fn kubernetes_roles(rights: &[ClusterRight], at: &Installation) -> Vec<Value> {
    let mut objects = Vec::new();
    for (part, scope) in PARTS.iter().flat_map(|part| SCOPES.map(|scope| (*part, scope))) {
        let here: Vec<&ClusterRight> =
            rights.iter().filter(|right| (right.part, right.scope) == (part, scope)).collect();
        if here.is_empty() {
            continue;
        }
        let name = at.role_name(part);
        let namespace = at.namespace_of(scope);
        let (role, binding) =
            if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
        let mut metadata = json!({
            "name": name,
            "labels": { "app.kubernetes.io/name": "kamino-wf", "app.kubernetes.io/component": "controller" },
        });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": role,
            "metadata": metadata,
            "rules": rules(&here),
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": binding,
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": at.service_account, "namespace": at.namespace }],
        }));
    }
    objects
}

/// One rule for each resource, in the order of the list.
fn rules(rights: &[&ClusterRight]) -> Vec<Value> {
    let mut rules: Vec<(&ClusterRight, Vec<&str>)> = Vec::new();
    for right in rights {
        let same = |other: &ClusterRight| {
            (other.group, other.resource, other.names) == (right.group, right.resource, right.names)
        };
        match rules.iter_mut().find(|(first, _)| same(first)) {
            Some((_, verbs)) => verbs.push(right.verb),
            None => rules.push((right, vec![right.verb])),
        }
    }
    let rule = |(right, verbs): &(&ClusterRight, Vec<&str>)| {
        let mut rule = json!({ "apiGroups": [right.group], "resources": [right.resource], "verbs": verbs });
        if !right.names.is_empty() {
            rule["resourceNames"] = json!(right.names);
        }
        rule
    };
    rules.iter().map(rule).collect()
}

/// The ids of what roles are assigned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `/subscriptions/<id>`
    pub subscription: String,
    /// The scale sets' resource group.
    pub scale_sets: String,
    /// The resource group of snapshots and copies.
    pub temporaries: String,
    /// The gallery's resource group, or the gallery.
    pub gallery: String,
    /// The resource groups of the network and of the nodes' identities.
    pub linked: Vec<String>,
}

const AZURE_SCOPES: [AzureScope; 5] =
    [AzureScope::Subscription, AzureScope::ScaleSets, AzureScope::Temporaries, AzureScope::Gallery, AzureScope::Linked];

/// Custom role definitions, as `az role definition create` reads them: one for each kind of place, so that no assignment
/// gives more than is needed there.
#[must_use]
pub fn azure_roles(at: &Places) -> Vec<Value> {
    let role = |part: Part, scope: AzureScope| {
        let here = in_azure().filter(|right| (right.part, right.scope) == (part, scope));
        let actions: Vec<&str> = here.map(|right| right.action).collect();
        let (name, title) = match part {
            Part::Every => (azure_name(scope).to_owned(), "kamino-wf"),
            Part::Stop | Part::ForcedDrain | Part::Rebootstrap => {
                (format!("{} stop", azure_name(scope)), "kamino-wf, capture: stop")
            }
            Part::Attach => (format!("{} attach", azure_name(scope)), "kamino-wf, cleaning.attach: instance"),
        };
        let scopes: Vec<&String> = match scope {
            AzureScope::Subscription => vec![&at.subscription],
            AzureScope::ScaleSets => vec![&at.scale_sets],
            AzureScope::Temporaries => vec![&at.temporaries],
            AzureScope::Gallery => vec![&at.gallery],
            AzureScope::Linked => at.linked.iter().collect(),
        };
        json!({
            "Name": format!("kamino-wf {name}"),
            "IsCustom": true,
            "Description": format!("{title}: {}", azure_place(scope)),
            "Actions": actions,
            "NotActions": [],
            "DataActions": [],
            "NotDataActions": [],
            "AssignableScopes": scopes,
        })
    };
    let mut roles: Vec<Value> = AZURE_SCOPES.into_iter().map(|scope| role(Part::Every, scope)).collect();
    roles.push(role(Part::Stop, AzureScope::ScaleSets));
    roles.push(role(Part::Attach, AzureScope::ScaleSets));
    roles
}

fn azure_name(scope: AzureScope) -> &'static str {
    match scope {
        AzureScope::Subscription => "subscription",
        AzureScope::ScaleSets => "scale sets",
        AzureScope::Temporaries => "temporaries",
        AzureScope::Gallery => "gallery",
        AzureScope::Linked => "linked",
    }
}

fn azure_place(scope: AzureScope) -> &'static str {
    match scope {
        AzureScope::Subscription => "the subscription of the scale sets",
        AzureScope::ScaleSets => "the resource group of the scale sets",
        AzureScope::Temporaries => "the resource group of snapshots and copies (by default the scale sets' own)",
        AzureScope::Gallery => "the resource group of the gallery",
        AzureScope::Linked => "the resource groups of the network and of the nodes' identities",
    }
}

const HEAD: &str = "\
# Permissions

Made from `src/permissions.rs`; `UPDATE_DOCS=1 cargo test --test permissions` writes it anew. These are all the rights that there are:
first those that every installation needs, then those of [`capture: stop`](#capture-stop) and of
[`cleaning.attach: instance`](#cleaningattach-instance), which nobody else gives. With
`capture: live` nothing can write to a Node, evict a pod, read a secret or stop an instance. Those of a [trial](#first-contact) are in
no role.

## Kubernetes

For the controller's ServiceAccount. The pod that cleans a copy gets no token.

| where | resource | verb | steps | why |
| --- | --- | --- | --- | --- |
";

const BETWEEN: &str = "
What these rights still allow: whoever holds the controller's token can run any pod, also a privileged one, in the cleaning
namespace, or make a volume of any disk or host path, and so become root on a node. RBAC cannot say what a pod or a volume may look
like: the chart's admission policies say it, where the server has them. Keep everything else out of that namespace.

## Azure

For the controller's identity. One role for each place. The identity of the disk driver (`disk.csi.azure.com`) needs its usual rights on
the resource group of the copies as well.

| where | action | steps | why |
| --- | --- | --- | --- |
";

const STOPPING: &str = "
## capture: stop

Only where a pool says so. In Kubernetes the chart gives them with `capture.stop: true`; in Azure they are a role of their own,
[scale-sets-stop](azure-roles/scale-sets-stop.json).

| where | resource | verb | steps | why |
| --- | --- | --- | --- | --- |
";

const FORCED: &str = "
Only where such a pool grants `drain.force`; in the chart `capture.forcedDrain: true`:

| where | resource | verb | steps | why |
| --- | --- | --- | --- | --- |
";

const RENEWING: &str = "
Only where such a pool says [`credential: rebootstrap`](cleaning.md#a-credential-that-is-not-in-the-image); in the chart
`capture.rebootstrap: true`:

| where | resource | verb | steps | why |
| --- | --- | --- | --- | --- |
";

const POWER: &str = "
| where | action | steps | why |
| --- | --- | --- | --- |
";

const LAST: &str = "
The pod that cleans a donor runs as the ServiceAccount `kamino-wf-cleaner` of the cleaning namespace, which may patch the one
ConfigMap `kamino-wf-proofs` there and nothing else. It has its node's root: whoever may make such a pod is root on every node. The
chart's admission policies let through only a pod of exactly that shape, made by the controller, and of a node only
`spec.unschedulable` and the annotations `kamino-wf.io/claim`, `cluster-autoscaler.kubernetes.io/scale-down-disabled` and
`karpenter.sh/do-not-disrupt`. With `capture.rebootstrap` the cleaner may also ask for tokens of the ServiceAccount `kamino-wf-bootstrap`, which
is bound to the cluster's roles `system:node-bootstrapper` and `system:certificates.k8s.io:certificatesigningrequests:nodeclient`: it may ask for a
node's client certificate, and it is approved, as with any bootstrap token. Where the server has no such policies (before 1.30), nothing but the roles holds.
";

const ATTACHING: &str = "
## cleaning.attach: instance

Only where the cluster has no disk driver, and the settings say so. Nothing in Kubernetes; in Azure a role of its own,
[scale-sets-attach](azure-roles/scale-sets-attach.json).

| where | action | steps | why |
| --- | --- | --- | --- |
";

const TRIAL: &str = "
## First contact

In no role: what [`doctor --azure`](ASSUMPTIONS.md#first-contact-trying-them-out) needs in the resource group of a scale set that is
there to be thrown away, besides what runs need there. Give it for as long as that takes. What is missing is not tried, and said.

| action | why |
| --- | --- |
";

/// `docs/permissions.md`.
#[must_use]
pub fn document() -> String {
    let in_cluster =
        |part: Part| in_kubernetes().filter(move |right| right.part == part).map(cluster_row).collect::<String>();
    let in_cloud = |part: Part| in_azure().filter(move |right| right.part == part).map(azure_row).collect::<String>();
    let parts = [
        (HEAD, in_cluster(Part::Every)),
        (BETWEEN, in_cloud(Part::Every)),
        (STOPPING, in_cluster(Part::Stop)),
        (FORCED, in_cluster(Part::ForcedDrain)),
        (RENEWING, in_cluster(Part::Rebootstrap)),
        (POWER, in_cloud(Part::Stop)),
        (LAST, String::new()),
        (ATTACHING, in_cloud(Part::Attach)),
        (TRIAL, super::FIRST_CONTACT.iter().map(trial_row).collect()),
    ];
    parts.map(|(words, rows)| format!("{words}{rows}")).concat()
}

fn cluster_row(right: &ClusterRight) -> String {
    let place = match right.scope {
        ClusterScope::Cluster => "the cluster",
        ClusterScope::NodeLeases => "`kube-node-lease`",
        ClusterScope::Cleaning => "the cleaning namespace",
        ClusterScope::Own => "the controller's own namespace",
        ClusterScope::Default => "`default`",
    };
    let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
    let names = if right.names.is_empty() { String::new() } else { format!(" (only {})", right.names.join(", ")) };
    let ClusterRight { resource, verb, why, .. } = right;
    format!("| {place} | `{resource}{group}`{names} | `{verb}` | {} | {why} |\n", right.steps.join(", "))
}

fn trial_row((action, why): &(&str, &str)) -> String {
    format!("| `{action}` | {why} |\n")
}

fn azure_row(right: &AzureRight) -> String {
    let AzureRight { action, scope, why, .. } = right;
    format!("| {} | `{action}` | {} | {why} |\n", azure_place(*scope), right.steps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_roles_are_these() {
        let at = Installation {
            namespace: "kamino-wf".into(),
            clean_namespace: "kamino-wf-clean".into(),
            service_account: "kamino-wf".into(),
        };
        let all: Vec<ClusterRight> = in_kubernetes().copied().collect();
        insta::assert_json_snapshot!("kubernetes", kubernetes_roles(&all, &at));
    }

    #[test]
    fn the_azure_roles_are_these() {
        let group = |name: &str| format!("/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/{name}");
        let at = Places {
            subscription: "/subscriptions/00000000-1111-2222-3333-444444444444".into(),
            scale_sets: group("nodes"),
            temporaries: group("nodes"),
            gallery: group("images"),
            linked: vec![group("network"), group("identities")],
        };
        insta::assert_json_snapshot!("azure", azure_roles(&at));
    }
}
