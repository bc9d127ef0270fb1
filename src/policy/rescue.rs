//! Whose a node is that a person wants back, and whether it may be taken from them. Pure; the claim on the node is all that is
//! known of the run.

use jiff::Timestamp;
use serde::Serialize;

use super::obligations::Claim;
use crate::{cluster::Node, model::NodeName};

/// What is known of the run that a claim names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is open in the store here, and gives the node back by itself.
    Open,
    /// It has come to its end in the store here, and the claim was left.
    Ended,
    /// There is no such run here: the store is gone, or it is another installation's.
    Unknown,
}

/// Why a node is not taken from a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// Somebody may be at it.
    #[error(
        "{why}; to bring node {node} back all the same, say --despite-run {run}: two hands on one node do no harm, but the run \
         fails"
    )]
    ByItsRun {
        /// The node.
        node: NodeName,
        /// The run, in its short form.
        run: String,
        /// What is known of it.
        why: String,
    },
    /// The claim says nothing about this node.
    #[error(
        "{why}: see whether anything is wrong with node {node}, then `kubectl annotate node {node} kamino-wf.io/claim-`"
    )]
    NotThisNode {
        /// The node.
        node: NodeName,
        /// What differs.
        why: String,
    },
}

impl Kept {
    /// The page in docs/errors.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ByItsRun { .. } => "KW0608",
            Self::NotThisNode { .. } => "KW0609",
        }
    }
}

/// Whether a node may be brought back by hand. `despite` is the run that a person has named all the same.
///
/// # Errors
/// It is a run's, or the claim is not about this node.
pub fn may(
    node: &Node,
    claim: &Claim,
    cluster: &str,
    owner: Owner,
    despite: Option<&str>,
    now: Timestamp,
) -> Result<(), Kept> {
    let stranger = |why: String| Err(Kept::NotThisNode { node: node.name.clone(), why });
    if claim.cluster != cluster {
        return stranger(format!("its claim is of cluster {}, and this is {cluster}", claim.cluster));
    }
    if claim.node_uid != node.uid {
        return stranger(format!(
            "its claim is of another node by that name (uid {}, not {})",
            claim.node_uid, node.uid
        ));
    }
    let run = claim.run.short();
    if despite.is_some_and(|named| named == run || named == claim.run.0.to_string()) {
        return Ok(());
    }
    let why = match owner {
        Owner::Ended => return Ok(()),
        Owner::Open => {
            format!("run {run} is open and gives it back by itself; `kamino-wf cancel {run}` has it do so now")
        }
        Owner::Unknown if claim.deadline <= now => return Ok(()),
        Owner::Unknown => format!(
            "run {run}, which this store does not know, may be at it until {:.0}: another installation's, or one whose store \
             is gone",
            claim.deadline
        ),
    };
    Err(Kept::ByItsRun { node: node.name.clone(), run, why })
}

/// A node that carries a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claimed {
    /// The node.
    pub node: NodeName,
    /// The run, in its short form; none where the claim can't be read.
    pub run: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it should be back.
    pub deadline: Option<Timestamp>,
    /// That time has passed.
    pub overdue: bool,
    /// How it is, or what is wrong with the claim.
    pub seen: String,
    /// What brings it back.
    pub remedy: String,
}

/// All nodes that carry a claim, those that are late first.
#[must_use]
pub fn claimed(nodes: &[Node], now: Timestamp) -> Vec<Claimed> {
    let one = |node: &Node| match Claim::on(node) {
        Ok(None) => None,
        Ok(Some(claim)) => Some(Claimed {
            node: node.name.clone(),
            run: Some(claim.run.short()),
            since: Some(claim.since),
            deadline: Some(claim.deadline),
            overdue: claim.deadline < now,
            seen: state(node),
            remedy: Claim::restore_command(&node.name),
        }),
        Err(error) => Some(Claimed {
            node: node.name.clone(),
            run: None,
            since: None,
            deadline: None,
            overdue: false,
            seen: format!("{}; {}", error.detail, state(node)),
            remedy: "put it right by hand: docs/errors/KW0604.md".into(),
        }),
    };
    let mut all: Vec<Claimed> = nodes.iter().filter_map(one).collect();
    all.sort_by(|a, b| (!a.overdue, &a.node).cmp(&(!b.overdue, &b.node)));
    all
}

fn state(node: &Node) -> String {
    let ready = if node.ready { "Ready" } else { "not Ready" };
    let cordoned = if node.unschedulable { ", cordoned" } else { "" };
    format!("{ready}{cordoned}")
}

#[cfg(test)]
mod tests {
    use super::{
        super::obligations::{
            CLAIM,
            tests::{at, bare, claim},
        },
        *,
    };

    #[test]
    fn a_node_is_taken_from_a_run_only_when_it_is_late_or_named() {
        let (name, claim) = claim("a", 0xabc, 0);
        let node = bare(&name);
        let run = claim.run.short();
        let ask = |owner, despite: Option<&str>, minute| may(&node, &claim, "c", owner, despite, at(minute));
        for (owner, minute, taken) in [
            (Owner::Open, 10, false),
            (Owner::Open, 99, false),
            (Owner::Unknown, 10, false),
            (Owner::Unknown, 45, true),
            (Owner::Ended, 10, true),
        ] {
            assert_eq!(ask(owner, None, minute).is_ok(), taken, "{owner:?} at {minute}");
            assert_eq!(ask(owner, Some("000000000001"), minute).is_ok(), taken, "another run was named");
            for named in [run.clone(), claim.run.0.to_string()] {
                assert!(ask(owner, Some(&named), minute).is_ok(), "{owner:?} at {minute}");
            }
        }
        let open = ask(Owner::Open, None, 1).expect_err("kept");
        assert_eq!(open.code(), "KW0608");
        for words in [format!("kamino-wf cancel {run}"), format!("--despite-run {run}")] {
            assert!(open.to_string().contains(&words), "{open}");
        }
        let unknown = ask(Owner::Unknown, None, 1).expect_err("kept").to_string();
        assert!(unknown.contains(&format!("until {:.0}", at(45))), "{unknown}");
    }

    #[test]
    fn a_claim_of_another_cluster_or_node_is_nobodys_order() {
        let (name, good) = claim("a", 1, 0);
        let run = good.run.short();
        for claim in
            [Claim { cluster: "theirs".into(), ..good.clone() }, Claim { node_uid: "made anew".into(), ..good }]
        {
            let kept = may(&bare(&name), &claim, "c", Owner::Ended, Some(&run), at(99)).expect_err("kept");
            assert_eq!(kept.code(), "KW0609");
            assert!(kept.to_string().contains("kubectl annotate node a kamino-wf.io/claim-"), "{kept}");
        }
    }

    #[test]
    fn all_claims_are_listed_and_late_ones_come_first() {
        let carry = |name: &str, minute: i64| {
            let (name, claim) = claim(name, 1, minute);
            let mut node = bare(&name);
            node.annotations.insert(CLAIM.into(), serde_json::to_string(&claim).expect("JSON"));
            node
        };
        let mut spoilt = carry("d", 0);
        spoilt.annotations.insert(CLAIM.into(), "?".into());
        let off = Node { ready: false, unschedulable: true, ..carry("c", 0) };
        let nobodys = bare(&NodeName::parse("a").expect("a name"));
        let all = claimed(&[nobodys, carry("b", 30), off, spoilt], at(50));
        let found: Vec<_> = all.iter().map(|it| (it.node.as_str(), it.overdue, it.run.is_some())).collect();
        assert_eq!(found, [("c", true, true), ("b", false, true), ("d", false, false)]);
        assert_eq!(
            (all[0].seen.as_str(), all[0].remedy.as_str()),
            ("not Ready, cordoned", "kamino-wf rescue --node c")
        );
        assert!(all[2].remedy.contains("KW0604"), "{all:?}");
    }
}
