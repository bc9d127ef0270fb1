//! Looks at one pool as a run's first steps would, and goes on where they would stop: whoever asks wants all of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    PoolPlan, Prospect,
    objects::{Missing, creates, model, temporaries},
};
use crate::{
    cloud::{Provisioning, Replication, Version},
    model::{Class, Region, RunId, VersionId},
    steps::{
        ChooseNames, EnsureDefinition, EnsureGallery, Names, Preflight, RankNodes, Ranked, plan_prune,
        preflight::{examine, preflighted},
        rank_nodes::{best, identify, needed, ranking, servers_time},
    },
    workflow::{Context, Decide as _, Effect as _, Ports, RunSpec, Seen, StepError},
};

/// A pool, and what a run of it would be asked to do.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What people call it.
    pub name: String,
    /// As a start would ask.
    pub spec: RunSpec,
}

/// What the store knows, as far as it could be asked.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Facts that outlive runs.
    pub memory: BTreeMap<String, Value>,
    /// The pool's open run.
    pub open: Option<String>,
}

/// No run: names end in its digits, and are shown without.
const NOBODY: RunId = RunId(uuid::Uuid::nil());

/// The plan of one pool.
pub async fn pool(ports: Ports<'_>, wanted: &Wanted, known: &Known) -> PoolPlan {
    let Wanted { name, spec } = wanted;
    let mut plan = PoolPlan::new(name, &spec.scale_set, spec.capture);
    plan.canary = spec.canary.limits().map(|limits| limits.in_words());
    if let Err(error) = look(ports, spec, known, &mut plan).await {
        stop(&mut plan, &error);
    }
    if plan.prospect == Prospect::Update && !plan.refusals.is_empty() {
        plan.prospect = Prospect::Refused;
        plan.why = Some("see what speaks against it".into());
    }
    if let Some(run) = &known.open {
        plan.prospect = Prospect::Open;
        plan.why = Some(format!("run {run} is open for this scale set: `kamino-wf describe {run}`"));
        plan.open_run = Some(run.clone());
    }
    plan
}

/// What a failed step means for the plan. The first one counts.
fn stop(plan: &mut PoolPlan, error: &StepError) {
    if plan.prospect != Prospect::Update {
        return;
    }
    plan.prospect = match (error.code, error.class) {
        ("KW0235", _) => Prospect::NotNeeded,
        (_, Class::Refused | Class::Gone | Class::Denied) => Prospect::Refused,
        (_, Class::Throttled { .. } | Class::Uncertain | Class::Busy | Class::Preempted) => Prospect::Unknown,
    };
    plan.why = Some(format!("{} [{}]", error.text, error.code));
}

/// Nothing was asked for.
static NOTHING: BTreeSet<String> = BTreeSet::new();

/// A run that is none, as far as it has come.
struct Look<'a> {
    ports: Ports<'a>,
    spec: &'a RunSpec,
    memory: &'a BTreeMap<String, Value>,
    started: Timestamp,
    outputs: BTreeMap<String, Value>,
}

impl Look<'_> {
    fn context(&self) -> Context<'_> {
        let (outputs, memory) = (&self.outputs, self.memory);
        let (started, now, epoch) = (self.started, self.started, 0);
        Context { run: NOBODY, started, epoch, now, asked: &NOTHING, spec: self.spec, outputs, memory, store: None }
    }

    fn keep<T: Serialize>(&mut self, step: &str, output: &T) -> Result<(), StepError> {
        let value = serde_json::to_value(output).map_err(|error| StepError::refused("KW0002", error.to_string()))?;
        self.outputs.insert(step.to_owned(), value);
        Ok(())
    }
}

async fn look(ports: Ports<'_>, spec: &RunSpec, known: &Known, plan: &mut PoolPlan) -> Result<(), StepError> {
    let started = ports.clock.now();
    let mut look = Look { ports, spec, memory: &known.memory, started, outputs: BTreeMap::new() };
    let mut seen = examine(ports, spec).await?;
    plan.refusals = std::mem::take(&mut seen.refusals);
    let dated = seen.nodes.iter().any(|node| node.seen.is_some());
    plan.clock_ahead = dated.then(|| servers_time(&seen.nodes, started).duration_since(ports.clock.now()).as_secs());
    let (set, members) = (seen.set.clone(), seen.members.clone());
    let found = preflighted(ports, look.context(), seen);
    plan.model = model(&set, &found.definition, spec.profile.bootstrap(), &found.remove_extensions);
    look.keep(Preflight::NAME, &found)?;

    let (ranked, now) = ranking(ports, look.context(), &members).await?;
    plan.nodes.clone_from(&ranked.verdicts);
    let candidate = best(look.context(), &ranked)?;
    plan.donor = Some(candidate.node.name.clone());
    plan.instance = Some(candidate.instance.clone());
    // Not the end of the look: what a run would do all the same is worth to be seen.
    if let Err(error) = needed(ports, look.context(), candidate, now).await {
        stop(plan, &error);
    }
    let donor = identify(ports, candidate).await?;
    let node = donor.node.clone();
    look.keep(RankNodes::NAME, &Ranked { donor, verdicts: Vec::new() })?;
    let names = ChooseNames.decide(ports, look.context()).await?;
    look.keep(ChooseNames::NAME, &names)?;
    plan.version = Some(names.version.clone());

    let missing = prepare(&mut look, set.location).await?;
    plan.creates = creates(spec, &names, missing, &node);
    plan.deletes = temporaries(spec, &names, &node);
    if !missing.definition {
        let coming = coming(&names, started);
        plan.versions = plan_prune::preview(ports, spec, &found.definition, coming).await?;
        plan.versions.retain(|verdict| verdict.version != names.version);
    }
    Ok(())
}

/// Gallery and definition: what is missing, and whether what is there will do.
async fn prepare(look: &mut Look<'_>, location: Region) -> Result<Missing, StepError> {
    let want = EnsureGallery.input(look.context())?;
    let gallery = match EnsureGallery.observe(look.ports, &want).await? {
        Seen::Present(found) => Some(found.location),
        Seen::Foreign(why) => return Err(StepError::refused("KW0004", why)),
        Seen::Absent | Seen::Partly(_) | Seen::Underway(_) | Seen::Awaited { .. } | Seen::Broken(_) => None,
    };
    let missing = gallery.is_none();
    look.keep(EnsureGallery::NAME, &json!({ "location": gallery.unwrap_or(location) }))?;
    let want = EnsureDefinition.input(look.context())?;
    let definition = match EnsureDefinition.observe(look.ports, &want).await? {
        Seen::Absent => true,
        Seen::Foreign(why) => return Err(StepError::refused("KW0004", why)),
        Seen::Present(_) | Seen::Partly(_) | Seen::Underway(_) | Seen::Awaited { .. } | Seen::Broken(_) => false,
    };
    Ok(Missing { gallery: missing, definition })
}

/// The version as it would be when old ones are pruned: published, and the newest.
fn coming(names: &Names, now: Timestamp) -> Version {
    let id: VersionId = names.version.clone();
    Version {
        id,
        provisioning: Provisioning::Succeeded,
        replication: Replication::Completed,
        excluded_from_latest: false,
        regions: Vec::new(),
        source: None,
        size_gib: None,
        storage: None,
        created: Some(now),
        tags: names.tags.clone(),
        run: Some(NOBODY),
    }
}
