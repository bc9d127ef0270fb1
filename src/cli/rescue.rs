//! `rescue`: nodes that are out of service, and one of them brought back.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    args::Output,
    exit::Code,
    list::all_runs,
    render::{table, text},
    run::print_json,
};
use crate::{
    app::{self, Rescues, Wish},
    config::Config,
    http::VERSION as API_VERSION,
    model::NodeName,
    workflow::rescue::Rescued,
};

#[derive(Debug, Args)]
pub(super) struct RescueArgs {
    /// The node to bring back; without it, all that are out of service are listed.
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Also from this run, which is open or may be: its first twelve digits, as the refusal names them.
    #[arg(long, value_name = "RUN", requires = "node")]
    despite_run: Option<String>,
    /// The node carries no claim, and is cordoned, held or off as the Python tool (kamino) leaves nodes: take it for that.
    #[arg(long, requires = "node")]
    kamino: bool,
    /// Say what would be done, and change nothing.
    #[arg(long, requires = "node")]
    dry_run: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(config: &Config, args: &RescueArgs) -> Result<Code> {
    let Some(node) = &args.node else { return list(config, args.output).await };
    // A store that can't be read is what this command is for.
    let runs = match all_runs(config).await {
        Ok(runs) => runs,
        Err(error) => {
            eprintln!("the store can't be asked, so nothing is known of runs: {error:#}");
            Vec::new()
        }
    };
    let wish = Wish { node, despite: args.despite_run.as_deref(), kamino: args.kamino, dry_run: args.dry_run };
    // The same words again and again say nothing new.
    let newest = Mutex::new(String::new());
    let say = |words: &str| {
        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest != words {
            eprintln!("{words}");
            words.clone_into(&mut newest);
        }
    };
    let (way, rescued) = app::rescue(config, &wish, &runs, &say).await?;
    let (word, sentence) = match rescued {
        None => ("planned", String::new()),
        Some(Rescued::Back) => ("back", format!("node {node} is back in service")),
        Some(Rescued::Nothing) => ("nothing", "nothing was to be done".into()),
        Some(Rescued::Lost) => ("lost", format!("the machine of node {node} is gone: there is nothing to give back")),
    };
    match args.output {
        Output::Table if rescued.is_none() => println!("{}", way.words().join("\n")),
        Output::Table => println!("{sentence}"),
        Output::Json => {
            let steps = way.words();
            print_json(
                &json!({ "apiVersion": API_VERSION, "kind": "Rescue", "node": node, "result": word, "steps": steps }),
            )?;
        }
    }
    Ok(Code::Ok)
}

async fn list(config: &Config, output: Output) -> Result<Code> {
    let rescues = app::rescues(config).await?;
    match output {
        Output::Table => println!("{}", rendered(&rescues)),
        Output::Json => {
            let mut value = serde_json::to_value(&rescues)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "Rescues".into();
            print_json(&value)?;
        }
    }
    Ok(if rescues.troubles.is_empty() { Code::Ok } else { Code::Failed })
}

fn rendered(rescues: &Rescues) -> String {
    let Rescues { claims, kamino, troubles } = rescues;
    let mut blocks = Vec::new();
    if claims.is_empty() {
        blocks.push("No node carries a claim.".to_owned());
    } else {
        let mut all = table(&["NODE", "RUN", "SINCE", "BACK BY", "NOW", "REMEDY"]);
        for claim in claims {
            let at = |time: Option<jiff::Timestamp>| time.map_or_else(|| "-".into(), |time| format!("{time:.0}"));
            let late = if claim.overdue { " (late)" } else { "" };
            all.add_row([
                claim.node.to_string(),
                claim.run.clone().unwrap_or_else(|| "-".into()),
                at(claim.since),
                format!("{}{late}", at(claim.deadline)),
                claim.seen.clone(),
                claim.remedy.clone(),
            ]);
        }
        blocks.push(text(&all));
    }
    blocks.extend(kamino.iter().map(|it| format!("Of kamino   {}: {}\n            {}", it.thing, it.seen, it.remedy)));
    blocks.extend(troubles.iter().map(|trouble| format!("Not read    {trouble}")));
    blocks.join("\n\n")
}
