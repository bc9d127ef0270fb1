//! The order of the candidates, and a verdict on every node that was looked at.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Absence, Boots, Patched, Rules,
    absence::{Others, needed},
    health::unfit,
    signal::{Reading, read, reboot},
};
use crate::{
    cluster::Node,
    model::{DonorChoice, InstanceId, Members, NodeName},
};

/// What was decided about a node, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The node.
    pub node: NodeName,
    /// It could be the donor.
    pub fit: bool,
    /// In one line.
    pub reason: String,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whose nodes.
    pub members: &'a Members,
    /// Any of them, or one.
    pub choice: &'a DonorChoice,
    /// How long the donor must have been ready since its reboot.
    pub min_ready: Duration,
    /// What the settings say.
    pub rules: &'a Rules,
    /// What is remembered of their boots.
    pub boots: &'a Boots,
    /// The donor is to be taken out of service: what is known of the world without it.
    pub taken_out: Option<&'a Absence>,
    /// The servers' time.
    pub now: Timestamp,
}

/// A node that could be the donor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: Node,
    /// Its instance.
    pub instance: InstanceId,
    /// How recently it was patched.
    pub patched: Patched,
}

/// The order of the candidates, best first, and a verdict on every node that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Fit nodes, best first.
    pub candidates: Vec<Candidate>,
    /// How many would be fit if none had been asked for by name.
    pub fit: usize,
    /// One a node, best first, then by name.
    pub verdicts: Vec<Verdict>,
}

/// Ranks the nodes of a scale set.
#[must_use]
pub fn rank(nodes: &[Node], asked: &Question<'_>) -> Ranking {
    let Question { members, choice, min_ready, rules, boots, taken_out, now } = *asked;
    let of_the_pool = |node: &Node| members.instance(&node.provider_id);
    let pool: Vec<(&Node, InstanceId)> = nodes.iter().filter_map(|node| Some((node, of_the_pool(node)?))).collect();
    let unhealthy: Vec<Option<String>> = pool.iter().map(|(node, _)| unfit(node, rules, min_ready, now)).collect();
    let healthy_in_pool = unhealthy.iter().filter(|why| why.is_none()).count();
    let others = Others { all: nodes, healthy_in_pool, own: rules.own_node.as_ref() };

    let mut fit: Vec<(Candidate, Reading)> = Vec::new();
    let mut against: Vec<Verdict> = Vec::new();
    let mut unasked = 0;
    for ((node, instance), unhealthy) in pool.into_iter().zip(unhealthy) {
        let named = matches!(choice, DonorChoice::Node(wanted) if *wanted == node.name);
        let read = || match unhealthy.or_else(|| taken_out.and_then(|absence| needed(node, absence, others))) {
            Some(reason) => Err(reason),
            None => read(node, &rules.signal, boots, named, now),
        };
        let reading = read();
        unasked += usize::from(reading.is_ok());
        match (reading, choice) {
            (_, DonorChoice::Node(wanted)) if !named => {
                let reason = format!("not the node that was asked for ({wanted})");
                against.push(Verdict { node: node.name.clone(), fit: false, reason });
            }
            (Err(reason), _) => against.push(Verdict { node: node.name.clone(), fit: false, reason }),
            (Ok(reading), _) => {
                let patched = reading.patched.clone();
                fit.push((Candidate { node: node.clone(), instance, patched }, reading));
            }
        }
    }
    // The newest patch, then the newest reboot; the name breaks ties.
    fit.sort_by(|(a, _), (b, _)| {
        let newest = |it: &Candidate| (it.patched.clone(), reboot(&it.node, boots));
        newest(b).cmp(&newest(a)).then_with(|| a.node.name.cmp(&b.node.name))
    });
    against.sort_by(|a, b| a.node.cmp(&b.node));
    let own = rules.own_node.as_ref();
    let mut verdicts: Vec<Verdict> =
        fit.iter().enumerate().map(|(place, (it, reading))| praise(place + 1, it, reading, own)).collect();
    verdicts.append(&mut against);
    Ranking { candidates: fit.into_iter().map(|(candidate, _)| candidate).collect(), fit: unasked, verdicts }
}

fn praise(place: usize, candidate: &Candidate, reading: &Reading, own: Option<&NodeName>) -> Verdict {
    let Candidate { node, .. } = candidate;
    let mut reason = format!("place {place}: {}, kernel {}", reading.words, node.kernel);
    if let Some(note) = &reading.note {
        reason.push_str("; ");
        reason.push_str(note);
    }
    // A donor that is only read goes on serving us.
    if own == Some(&node.name) {
        reason.push_str("; kamino-wf itself runs on it");
    }
    Verdict { node: node.name.clone(), fit: true, reason }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{DONOR, IGNORE, KURED_NEEDED, Signal},
        *,
    };
    use crate::model::ScaleSetId;

    const SCALE_SET: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/G/providers/\
                             Microsoft.Compute/virtualMachineScaleSets/pool1";

    pub(in super::super) fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    /// A healthy node that has been Ready for some hours.
    pub(in super::super) fn node(number: u32, hours: u64) -> Node {
        Node {
            name: NodeName::parse(&format!("pool1-vmss{number:06}")).expect("a name"),
            version: String::new(),
            uid: format!("uid-{number}"),
            // cloud-provider-azure lower-cases the resource group.
            provider_id: format!("{}/virtualMachines/{number}", SCALE_SET.replace("/G/", "/g/")),
            boot_id: String::new(),
            machine_id: String::new(),
            system_uuid: String::new(),
            kernel: "6.8".into(),
            kubelet: "v1.33.4".into(),
            ready: true,
            ready_since: Some(now() - Duration::from_hours(hours)),
            lease_renewed: Some(now() - Duration::from_secs(9)),
            unschedulable: false,
            control_plane: false,
            linux: true,
            under_pressure: vec![],
            conditions: vec![],
            taints: vec![],
            zone: None,
            created: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            seen: Some(now()),
        }
    }

    fn ranked_by(nodes: &[Node], choice: &DonorChoice, rules: &Rules, taken_out: Option<&Absence>) -> Ranking {
        let members = Members::of(&ScaleSetId::parse(SCALE_SET).expect("an id"), []);
        let (min_ready, boots) = (Duration::from_hours(1), Boots::default());
        let question = Question { members: &members, choice, min_ready, rules, boots: &boots, taken_out, now: now() };
        rank(nodes, &question)
    }

    fn ranked(nodes: &[Node], choice: &DonorChoice) -> Ranking {
        ranked_by(nodes, choice, &Rules::default(), None)
    }

    fn order(ranking: &Ranking) -> Vec<&str> {
        ranking.candidates.iter().map(|it| it.node.name.as_str()).collect()
    }

    #[test]
    fn the_most_recently_rebooted_is_first_and_the_name_breaks_ties() {
        let ranking = ranked(&[node(3, 9), node(2, 2), node(1, 9), node(0, 100)], &DonorChoice::Pool);
        assert_eq!(order(&ranking), ["pool1-vmss000002", "pool1-vmss000001", "pool1-vmss000003", "pool1-vmss000000"]);
        assert_eq!(ranking.verdicts[0].reason, "place 1: ready since 2026-11-24T10:00:00Z, kernel 6.8");
    }

    #[test]
    fn nodes_of_other_pools_get_no_verdict_and_a_choice_leaves_one() {
        let mut other = node(7, 2);
        other.provider_id = other.provider_id.replace("/pool1/", "/xpool1/");
        let mut bare = node(8, 2);
        bare.provider_id.clear();
        let choice = DonorChoice::Node(NodeName::parse("pool1-vmss000001").expect("a name"));
        let ranking = ranked(&[other, bare, node(0, 2), node(1, 9)], &choice);
        assert_eq!((ranking.verdicts.len(), ranking.fit), (2, 2));
        assert_eq!(order(&ranking), ["pool1-vmss000001"]);
        assert_eq!(ranking.verdicts[1].reason, "not the node that was asked for (pool1-vmss000001)");
    }

    #[test]
    fn an_unfit_node_says_why_and_the_others_are_ranked() {
        let ignored = Node { annotations: [(IGNORE.to_owned(), String::new())].into(), ..node(0, 2) };
        let ranking = ranked(&[ignored, node(1, 50)], &DonorChoice::Pool);
        assert_eq!(order(&ranking), ["pool1-vmss000001"]);
        assert_eq!(
            (ranking.verdicts[1].fit, ranking.verdicts[1].reason.as_str()),
            (false, "it carries kamino-wf.io/ignore")
        );
    }

    #[test]
    fn the_signal_decides_and_the_newest_reboot_breaks_its_ties() {
        let annotated = |number, hours, day: &str| Node {
            annotations: [(KURED_NEEDED.to_owned(), format!("{day}T00:00:00Z"))].into(),
            ..node(number, hours)
        };
        let kured = Rules { signal: Signal::Kured, ..Rules::default() };
        let nodes =
            [annotated(0, 2, "2026-11-01"), annotated(1, 90, "2026-11-20"), annotated(2, 9, "2026-11-20"), node(3, 1)];
        let ranking = ranked_by(&nodes, &DonorChoice::Pool, &kured, None);
        assert_eq!(order(&ranking), ["pool1-vmss000002", "pool1-vmss000001", "pool1-vmss000000"]);
        assert!(ranking.verdicts[3].reason.contains("kured has never marked it"), "{:?}", ranking.verdicts[3]);
        let kernel = Rules { signal: Signal::Kernel, ..Rules::default() };
        let of = |number, hours, kernel: &str| Node { kernel: kernel.into(), ..node(number, hours) };
        let nodes = [of(0, 2, "6.8.0-999-azure"), of(1, 90, "6.8.0-1031-azure"), of(2, 9, "6.8.0-1031-azure")];
        let ranking = ranked_by(&nodes, &DonorChoice::Pool, &kernel, None);
        assert_eq!(order(&ranking), ["pool1-vmss000002", "pool1-vmss000001", "pool1-vmss000000"]);
        let manual = Rules { signal: Signal::Manual, ..Rules::default() };
        let marked = Node { labels: [(DONOR.to_owned(), "true".to_owned())].into(), ..node(1, 90) };
        assert_eq!(order(&ranked_by(&[node(0, 2), marked], &DonorChoice::Pool, &manual, None)), ["pool1-vmss000001"]);
        let named = DonorChoice::Node(NodeName::parse("pool1-vmss000000").expect("a name"));
        assert_eq!(order(&ranked_by(&[node(0, 2), node(1, 3)], &named, &manual, None)), ["pool1-vmss000000"]);
    }

    #[test]
    fn what_only_an_absence_forbids_does_not_count_for_a_donor_that_is_only_read() {
        let own = Rules { own_node: Some(node(0, 2).name), ..Rules::default() };
        let live = ranked_by(&[node(0, 2)], &DonorChoice::Pool, &own, None);
        assert!(live.verdicts[0].reason.ends_with("; kamino-wf itself runs on it"), "{:?}", live.verdicts);
        assert_eq!(order(&live), ["pool1-vmss000000"]);
        let stop = ranked_by(&[node(0, 2), node(1, 3)], &DonorChoice::Pool, &own, Some(&Absence::default()));
        assert_eq!(order(&stop), ["pool1-vmss000001"]);
        let unready = Node { ready: false, ..node(0, 2) };
        let last = ranked_by(&[unready, node(1, 3)], &DonorChoice::Pool, &Rules::default(), Some(&Absence::default()));
        assert!(last.candidates.is_empty());
        assert_eq!(last.verdicts[1].reason, "it is the last healthy node of its pool");
    }
}
