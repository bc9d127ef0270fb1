//! Pods and their budgets, as far as emptying a node needs them, and what the API server answers to an eviction.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One pod and no other: a name is used again (`StatefulSets`), a uid is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object's uid: the precondition of every request about it.
    pub uid: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a pod is in its life, as far as an eviction asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodLife {
    /// No container of it has run yet; budgets do not count it.
    Pending,
    /// It runs, or nobody knows (`Unknown`, which is what a lost node leaves behind).
    Running,
    /// `Succeeded` or `Failed`: nothing of it runs, and nothing will.
    Finished,
}

/// The owner reference with `controller: true`: who makes another when this pod is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// As in `apps`, without the version.
    pub group: String,
    /// As in `DaemonSet`.
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

/// A pod, as far as a drain needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Which one.
    pub id: PodRef,
    /// The node it is bound to.
    pub node: Option<String>,
    /// Where it is in its life.
    pub life: PodLife,
    /// Condition `Ready` is true: budgets count it as healthy.
    pub ready: bool,
    /// Who makes another.
    pub controller: Option<Controller>,
    /// A static pod's shadow: annotation `kubernetes.io/config.mirror`. Only the node's own files can remove what it stands for.
    pub mirror: bool,
    /// It has a volume `emptyDir`, whose content goes with it.
    pub empty_dir: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// `deletionTimestamp`: it was asked to go, and has until then.
    pub deleting: Option<Timestamp>,
    /// What has to happen before the object goes, by name.
    pub finalizers: Vec<String>,
    /// Labels, which budgets select by.
    pub labels: BTreeMap<String, String>,
    /// Annotations, which say what its owner wants of drains.
    pub annotations: BTreeMap<String, String>,
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// For the first two.
    pub values: Vec<String>,
}

/// Which pods a budget is for. An empty one takes every pod of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// And all of these conditions.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// As the API server reads it. One that it can't read takes no pod.
    #[must_use]
    pub fn takes(&self, labels: &BTreeMap<String, String>) -> bool {
        let meets = |it: &Requirement| {
            let value = labels.get(&it.key);
            let listed = value.is_some_and(|value| it.values.contains(value));
            match it.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value)) && self.requirements.iter().all(meets)
    }
}

/// A `PodDisruptionBudget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whose evictions it limits; none takes no pod.
    pub selector: Option<Selector>,
    /// Its numbers are those of its newest specification; until then every eviction is refused.
    pub current: bool,
    /// `disruptionsAllowed`: so many of its pods may go now.
    pub allowed: i32,
    /// How many of its pods are Ready.
    pub healthy: i32,
    /// How many must be.
    pub desired: i32,
    /// Pods that are not Ready may always go (`unhealthyPodEvictionPolicy: AlwaysAllow`).
    pub unready_may_go: bool,
    /// When it last ran out of room, by its own condition `DisruptionAllowed`; it survives every restart of ours.
    pub full_since: Option<Timestamp>,
    /// Why it can't be reckoned up, if it says so (`SyncFailed`).
    pub trouble: Option<String>,
}

impl Budget {
    /// It limits this pod's eviction.
    #[must_use]
    pub fn limits(&self, pod: &Pod) -> bool {
        self.namespace == pod.id.namespace && self.selector.as_ref().is_some_and(|it| it.takes(&pod.labels))
    }

    /// As people write it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What the API server answered to an eviction, as far as it is an answer about this pod; all else is a `ClusterError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eviction {
    /// The pod has been asked to go, and goes within its grace.
    Accepted,
    /// There is no pod of this name and uid any more.
    Gone,
    /// 429: a budget has no room. Its name where the answer says it, and the server's words.
    Blocked {
        /// As in `db`; in the pod's namespace.
        budget: Option<String>,
        /// Which numbers stand against it.
        message: String,
        /// When to ask again, if the server said.
        retry_after: Option<Duration>,
    },
    /// 403: the namespace is being deleted, which takes the pod away without us.
    NamespaceTerminates(String),
    /// 500: more than one budget is for this pod, which the API server never evicts.
    SeveralBudgets(String),
    /// An admission webhook or policy said no, or could not be asked: often it wants the owner to move the pod first.
    NotAdmitted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_as_the_api_server_reads_it() {
        let pod = BTreeMap::from([("app".to_owned(), "db".to_owned()), ("tier".to_owned(), "gold".to_owned())]);
        let labels = |pairs: &[(&str, &str)]| Selector {
            labels: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            requirements: vec![],
        };
        let where_ = |key: &str, operator: &str, values: &[&str]| Selector {
            labels: BTreeMap::new(),
            requirements: vec![Requirement {
                key: key.into(),
                operator: operator.into(),
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
        };
        for (selector, takes) in [
            (Selector::default(), true),
            (labels(&[("app", "db")]), true),
            (labels(&[("app", "db"), ("tier", "silver")]), false),
            (where_("app", "In", &["web", "db"]), true),
            (where_("app", "In", &["web"]), false),
            (where_("zone", "In", &["1"]), false),
            (where_("app", "NotIn", &["db"]), false),
            (where_("zone", "NotIn", &["1"]), true),
            (where_("app", "Exists", &[]), true),
            (where_("zone", "Exists", &[]), false),
            (where_("zone", "DoesNotExist", &[]), true),
            (where_("app", "DoesNotExist", &[]), false),
            (where_("app", "Gt", &["1"]), false),
        ] {
            assert_eq!(selector.takes(&pod), takes, "{selector:?}");
        }
    }
}
