//! What a run of each pool would meet right now, by the very looks and rules of a run's first two steps.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, State};
use crate::{
    model::{Class, Members, RunId},
    policy::preflight::Refusal,
    steps::{
        preflight::{self, Examined},
        rank_nodes::{best, identify, ranking},
    },
    workflow::{Context, Ports, RunSpec, StepError},
};

/// The refusal that a person lifts by saying that they want it.
const NOT_ADOPTED: &str = "KW0213";

/// A pool, and what a run of it would be asked to do.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What people call it.
    pub name: String,
    /// As a schedule would ask; `--adopt` is a person's.
    pub spec: RunSpec,
    /// Runs begin by themselves: nobody is there to say `--adopt`.
    pub scheduled: bool,
}

/// Looks at one pool.
pub async fn pool(ports: Ports<'_>, wanted: &Wanted) -> Vec<Check> {
    let name = format!("pool {}", wanted.name);
    let mut checks = Vec::new();
    let members = match preflight::examine(ports, &wanted.spec).await {
        Ok(Examined { set, refusals, members, .. }) => {
            if refusals.is_empty() {
                let (set, count) = (set.id.name(), set.capacity);
                let seen = format!("scale set {set} with {count} instances; nothing speaks against a run");
                checks.push(Check::ok(&name, seen));
            }
            checks.extend(refusals.into_iter().map(|refusal| refused(&name, wanted, refusal)));
            members
        }
        Err(error) => {
            let gone = error.class == Class::Gone;
            checks.push(failed(&name, &error));
            if gone {
                return checks;
            }
            // As far as nodes say it themselves.
            Members::of(&wanted.spec.scale_set, [])
        }
    };
    let now = ports.clock.now();
    // No run: the step asks for nothing of one.
    let (outputs, memory, asked) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let context = Context {
        run: RunId(uuid::Uuid::nil()),
        started: now,
        epoch: 0,
        now,
        asked: &asked,
        spec: &wanted.spec,
        outputs: &outputs,
        memory: &memory,
        store: None,
    };
    let donor = format!("{name}, donor");
    checks.push(match would_be(ports, context, &members).await {
        Ok(seen) => Check::ok(donor, seen),
        Err(error) => failed(&donor, &error),
    });
    checks
}

/// Which node would be the donor. A young image is no reason to look at none.
async fn would_be(ports: Ports<'_>, context: Context<'_>, members: &Members) -> Result<String, StepError> {
    let (ranking, _) = ranking(ports, context, members).await?;
    let donor = identify(ports, best(context, &ranking)?).await?;
    let (fit, all) = (ranking.fit, ranking.verdicts.len());
    Ok(format!("would be {}, kernel {}; {fit} of {all} nodes are fit", donor.node, donor.kernel))
}

fn refused(name: &str, wanted: &Wanted, refusal: Refusal) -> Check {
    let Refusal { code, field, value, remedy } = refusal;
    let lifted = code == NOT_ADOPTED && !wanted.scheduled;
    let seen = format!("would be refused: {field} is {value} [{code}]");
    let state = if lifted { State::Warning } else { State::Wrong };
    let remedy = if code == NOT_ADOPTED { format!("{remedy}, or by adopt: true in the settings") } else { remedy };
    Check { name: name.to_owned(), state, seen, remedy: Some(remedy) }
}

fn failed(name: &str, error: &StepError) -> Check {
    let page = format!("docs/errors/{}.md says what to do", error.code);
    let seen = format!("{} [{}]", error.text, error.code);
    match error.class {
        Class::Throttled { .. } | Class::Busy => Check::warning(name, seen, "ask again later"),
        Class::Uncertain | Class::Preempted | Class::Denied | Class::Gone | Class::Refused => {
            Check::wrong(name, seen, page)
        }
    }
}
