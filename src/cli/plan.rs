//! `plan`: what a run would do, for people and for programs.

use std::fmt::Display;

use anyhow::Result;

use super::{
    args::{Output, PlanArgs},
    exit::Code,
    render::{table, text},
    run::{print_json, wait},
};
use crate::{
    app::{self, Plan},
    config::Config,
    http::VERSION as API_VERSION,
    preview::{Object, PoolPlan, Prospect},
};

/// Makes the plans and prints them.
pub(super) fn run(config: &Config, args: &PlanArgs) -> Result<Code> {
    let plan = wait(app::plan(config, args.pool.as_deref(), args.adopt))?;
    match args.output {
        Output::Table => println!("{}", shown(&plan)),
        Output::Json => {
            let mut value = serde_json::to_value(&plan)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "Plan".into();
            print_json(&value)?;
        }
    }
    Ok(code(&plan, args.detailed_exitcode))
}

fn code(plan: &Plan, detailed: bool) -> Code {
    if plan.any(Prospect::Unknown) {
        return Code::Failed;
    }
    match detailed {
        true if plan.any(Prospect::Update) => Code::Changes,
        true if plan.any(Prospect::Refused) => Code::Undone,
        true | false => Code::Ok,
    }
}

fn shown(plan: &Plan) -> String {
    let Plan { pools, missing_rights, without_memory } = plan;
    if pools.is_empty() {
        return "There is no pool in the settings; docs/examples/config.yaml is a whole file.".into();
    }
    let mut blocks: Vec<String> = pools.iter().map(pool).collect();
    if !missing_rights.is_empty() {
        let lines: Vec<String> = missing_rights.iter().map(|right| format!("  {right}")).collect();
        blocks.push(format!("Missing rights\n{}", lines.join("\n")));
    }
    if let Some(why) = without_memory {
        blocks.push(format!(
            "The store could not be asked, so what it remembers of boots and versions is not in this: {why}"
        ));
    }
    blocks.join("\n\n")
}

/// Of a clock that is off by less nobody needs to hear.
const CLOCK_SECONDS_MAX: u64 = 5;

fn pool(plan: &PoolPlan) -> String {
    let mut blocks = vec![head(plan)];
    if !plan.refusals.is_empty() {
        blocks.push(listed("Speaks against it", &plan.refusals));
    }
    if !plan.nodes.is_empty() {
        let mut nodes = table(&["NODE", "FIT", "WHY"]);
        for verdict in &plan.nodes {
            nodes.add_row([verdict.node.as_str(), if verdict.fit { "yes" } else { "no" }, &verdict.reason]);
        }
        blocks.push(text(&nodes));
    }
    if !plan.creates.is_empty() {
        blocks.push(objects("CREATES", &plan.creates));
        blocks.push(changes(plan));
        blocks.push(objects("TAKES AWAY", &plan.deletes));
    }
    if !plan.versions.is_empty() {
        let mut versions = table(&["VERSION", "FATE", "WHY"]);
        for verdict in &plan.versions {
            let fate = if verdict.delete { "goes" } else { "stays" };
            versions.add_row([verdict.version.name(), fate, &verdict.reason]);
        }
        blocks.push(text(&versions));
    }
    blocks.join("\n\n")
}

fn head(plan: &PoolPlan) -> String {
    let PoolPlan { pool, scale_set, prospect, why, donor, version, clock_ahead, canary, .. } = plan;
    let mut lines = vec![format!("Pool       {pool}  ({scale_set})")];
    let would = match (prospect, donor, version) {
        (Prospect::Update, Some(donor), Some(version)) => format!("version {} from node {donor}", version.name()),
        _ => why.clone().unwrap_or_default(),
    };
    lines.push(format!("Prospect   {}: {would}", prospect.as_str()));
    if let (Prospect::Update, Some(canary)) = (prospect, canary) {
        lines.push(format!("Canary     {canary}"));
    }
    let ahead = clock_ahead.filter(|seconds| seconds.unsigned_abs() > CLOCK_SECONDS_MAX);
    if let Some(seconds) = ahead {
        lines
            .push(format!("Clock      the API server's is {seconds} s ahead of ours, and is the one that counts here"));
    }
    lines.join("\n")
}

fn changes(plan: &PoolPlan) -> String {
    if plan.model.is_empty() {
        return "The scale set's model stays as it is: it follows the image definition.".into();
    }
    let mut model = table(&["CHANGES IN THE MODEL", "FROM", "TO"]);
    for change in &plan.model {
        model.add_row([&change.field, &change.from, &change.to]);
    }
    text(&model)
}

fn objects(title: &str, all: &[Object]) -> String {
    let mut objects = table(&[title, "NAME", "WHY"]);
    for Object { kind, name, why } in all {
        objects.add_row([*kind, name, why]);
    }
    text(&objects)
}

fn listed<T: Display>(title: &str, all: &[T]) -> String {
    let lines: Vec<String> = all.iter().map(|it| format!("  {it}")).collect();
    format!("{title}\n{}", lines.join("\n"))
}
