//! Whether the first node that is made from a new version is what it should be: the limits, and the verdict on one look. Pure.
//!
//! A version that nobody takes yet can't be tried in its own scale set, whose instances follow the newest published one. So it is
//! published, the first node that is born from it is watched, and the version is withdrawn when that node is not as its donor
//! is. When in doubt it is: what is withdrawn can be published again, and an older version takes its place meanwhile.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{cluster::Node, model::NodeName};

/// Whether a new version is watched after it was published. Stored format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Canary {
    /// Nobody watches.
    #[default]
    None,
    /// The first node that is made from it decides.
    FirstNode(Limits),
}

impl Canary {
    /// Nobody watches; not written then, so that an older release can still read the run.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.limits().is_none()
    }

    /// How long is waited, if somebody watches.
    #[must_use]
    pub fn limits(&self) -> Option<Limits> {
        match self {
            Self::None => None,
            Self::FirstNode(limits) => Some(*limits),
        }
    }
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// For a first node, in seconds.
    pub within_seconds: u64,
    /// For it to be Ready after its machine was made, in seconds.
    pub ready_within_seconds: u64,
    /// For how long it has to stay so, in seconds.
    pub stays_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let (day, minute) = (24 * 3600, 60);
        Self { within_seconds: day, ready_within_seconds: 20 * minute, stays_seconds: 5 * minute }
    }
}

impl Limits {
    /// For a first node.
    #[must_use]
    pub fn within(&self) -> Duration {
        Duration::from_secs(self.within_seconds)
    }

    /// For it to be Ready.
    #[must_use]
    pub fn ready_within(&self) -> Duration {
        Duration::from_secs(self.ready_within_seconds)
    }

    /// For it to stay so.
    #[must_use]
    pub fn stays(&self) -> Duration {
        Duration::from_secs(self.stays_seconds)
    }

    /// In a line, for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "the first node made from it within {} has to be Ready within {}, to stay so for {}, and to be nobody else; \
             otherwise the version is withdrawn",
            span(self.within()),
            span(self.ready_within()),
            span(self.stays())
        )
    }
}

/// As in `24 h`, `20 min` or `90 s`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => "0 s".into(),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// By what a system is taken for another one. A copy that has kept it is taken for its original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The platform's own id of the machine.
    pub system_uuid: String,
}

impl Identity {
    /// A node's.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self { machine_id: node.machine_id.clone(), system_uuid: node.system_uuid.clone() }
    }
}

/// The donor, as it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its name.
    pub node: NodeName,
    /// The boot in which it was.
    pub boot_id: String,
    /// Its kubelet.
    pub kubelet: String,
    /// Its identity, where it was noted.
    pub identity: Option<Identity>,
}

/// What one look says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Nothing yet; for what it waits.
    Waits(String),
    /// It is good.
    Passes {
        /// What was looked at, each with what was found.
        checks: Vec<String>,
        /// How long after its machine was made it was Ready.
        ready_after: Duration,
    },
    /// It is not.
    Fails {
        /// Each thing that is wrong.
        reasons: Vec<String>,
    },
}

/// A kubelet that has renewed its lease within this is alive; it does so each 10 s.
const SILENT: SignedDuration = SignedDuration::from_secs(40);

/// Judges a node by one look at it and at all others. `born` is when its machine was made; `node` is none while there is no Node
/// for it.
#[must_use]
pub fn judge(
    node: Option<&Node>,
    all: &[Node],
    original: &Original,
    born: Timestamp,
    limits: Limits,
    now: Timestamp,
) -> Judged {
    let late = elapsed(born, now) > limits.ready_within();
    let limit = span(limits.ready_within());
    let Some(node) = node else {
        return if late {
            Judged::Fails { reasons: vec![format!("there is no Node with its providerID {limit} after it was made")] }
        } else {
            Judged::Waits("there is no Node with its providerID yet".into())
        };
    };
    let checks = [own_machine(node, all, original), own_system(node, all, original), own_boot(node, original)];
    let (good, mut wrong) = parted(checks.into_iter().chain([same_kubelet(node, original)]));
    let name = &node.name;
    if let Some(why) = not_well(node, now) {
        if !late {
            return Judged::Waits(format!("node {name} is not there yet: {why}"));
        }
        wrong.insert(0, format!("{limit} after its machine was made, {why}"));
        return Judged::Fails { reasons: wrong };
    }
    let since = node.ready_since.unwrap_or(born);
    let stayed = elapsed(since, now);
    if stayed < limits.stays() {
        return Judged::Waits(format!(
            "node {name} is Ready, and is watched until it has been so for {}",
            span(limits.stays())
        ));
    }
    if wrong.is_empty() {
        let stays = format!("it has stayed Ready for {}, under no pressure", span(limits.stays()));
        let checks = good.into_iter().chain([stays]).collect();
        Judged::Passes { checks, ready_after: elapsed(born, since) }
    } else {
        Judged::Fails { reasons: wrong }
    }
}

/// What holds, and what does not.
fn parted(checks: impl Iterator<Item = Result<String, String>>) -> (Vec<String>, Vec<String>) {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for check in checks {
        match check {
            Ok(text) => good.push(text),
            Err(text) => wrong.push(text),
        }
    }
    (good, wrong)
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Why a node is not Ready and well, if it is not.
fn not_well(node: &Node, now: Timestamp) -> Option<String> {
    if !node.ready {
        return Some("it is not Ready".into());
    }
    if node.lease_renewed.is_none_or(|renewed| now.duration_since(renewed) > SILENT) {
        return Some(format!("its kubelet has been silent for more than {} s", SILENT.as_secs()));
    }
    (!node.under_pressure.is_empty()).then(|| format!("its conditions say {}", node.under_pressure.join(", ")))
}

/// Its own: neither another node's nor the donor's, which may be gone by now. What the donor does not say is not compared.
fn own(
    what: &str,
    node: &Node,
    all: &[Node],
    original: &Original,
    of: fn(&Identity) -> &str,
) -> Result<String, String> {
    let identity = Identity::of(node);
    let value = of(&identity);
    let donors = original.identity.as_ref().map_or("", of);
    if value.is_empty() {
        return if donors.is_empty() { Ok(format!("nobody says a {what}")) } else { Err(format!("it has no {what}")) };
    }
    if donors.eq_ignore_ascii_case(value) {
        return Err(format!("its {what} is that of the donor {}", original.node));
    }
    let twin = all.iter().find(|other| other.name != node.name && of(&Identity::of(other)).eq_ignore_ascii_case(value));
    match twin {
        Some(twin) => Err(format!("its {what} is that of node {}", twin.name)),
        None => Ok(format!("its {what} is its own")),
    }
}

fn own_machine(node: &Node, all: &[Node], original: &Original) -> Result<String, String> {
    own("machine id", node, all, original, |identity| &identity.machine_id)
}

fn own_system(node: &Node, all: &[Node], original: &Original) -> Result<String, String> {
    own("system UUID", node, all, original, |identity| &identity.system_uuid)
}

fn own_boot(node: &Node, original: &Original) -> Result<String, String> {
    if node.boot_id == original.boot_id {
        return Err(format!("its boot id is that of the donor {}", original.node));
    }
    Ok("its boot id is its own".into())
}

fn same_kubelet(node: &Node, original: &Original) -> Result<String, String> {
    if node.kubelet == original.kubelet {
        return Ok(format!("its kubelet is the donor's, {}", node.kubelet));
    }
    Err(format!("its kubelet is {}, and the donor's is {}", node.kubelet, original.kubelet))
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;
