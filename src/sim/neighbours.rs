//! Whatever people run on a node, by chance: what a drain meets on a bad day.

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::{Again, Tenant, Tenants};
use crate::model::NodeName;

/// Namespaces that people use; the last one may be deleted meanwhile.
const NAMESPACES: [&str; 3] = ["shop", "bank", "old"];

impl Tenants {
    /// Up to a dozen pods of a few applications on a node, with budgets that may overlap, graces longer than they should be,
    /// finalizers, webhooks that deny, and a namespace that goes.
    pub fn move_in(&mut self, node: &NodeName, now: Timestamp, rng: &mut Rng) {
        let seconds = |rng: &mut Rng, most: u32| SignedDuration::from_secs(i64::from(rng.u32(0..most)));
        let rarely = |rng: &mut Rng, times: u32| rng.u32(0..times) == 0;
        let long_ago = now - SignedDuration::from_hours(5);
        for number in 0..rng.u32(1..14) {
            let app = format!("app{}", rng.u32(0..4));
            let namespace = NAMESPACES[rng.usize(0..NAMESPACES.len())];
            let mut tenant = Tenant::new(&format!("{namespace}/{app}-{number}"), &app, node, long_ago);
            tenant.grace = seconds(rng, 240);
            tenant.takes = seconds(rng, 300);
            tenant.again = [Again::Elsewhere, Again::SameName, Again::Here, Again::Never][rng.usize(0..4)];
            tenant.denials = if rarely(rng, 6) { rng.u32(1..4) } else { 0 };
            tenant.pod.ready = !rarely(rng, 8);
            tenant.pod.empty_dir = rarely(rng, 12);
            if rarely(rng, 25) {
                tenant.pod.controller = None;
            }
            if rarely(rng, 25) {
                tenant.pod.finalizers = vec!["example.com/keep".into()];
                tenant.held_until = Some(now + SignedDuration::from_mins(i64::from(rng.u32(1..90))));
            }
            self.add(tenant);
        }
        for number in 0..rng.u32(0..3) {
            let app = format!("app{}", rng.u32(0..4));
            let least = i32::from(rng.u8(0..3));
            self.add_budget(NAMESPACES[0], &format!("budget{number}"), &app, least, now);
        }
        if rarely(rng, 4) {
            self.end_namespace(NAMESPACES[2], now + seconds(rng, 200));
        }
    }

    /// I10, gentle drain, and I5 for pods: what a drain of a node did that no drain may do. `forced` when a person has decided that
    /// pods may be deleted.
    #[must_use]
    pub fn violations(&self, node: &NodeName, forced: bool) -> Vec<String> {
        let mut found = self.wrongs.clone();
        for it in &self.departures {
            if it.node.as_deref() != Some(node.as_str()) {
                found.push(format!("{} was made to go, and is on {:?}, not on {node}", it.pod, it.node));
            }
            if it.deleted && !forced {
                found.push(format!("{} was deleted, past every budget, and nobody has decided that", it.pod));
            }
        }
        found
    }
}
