//! `doctor`: what would keep a run from going well; and what is believed of Azure, tried out.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    args::Output,
    exit::Code,
    render,
    run::{print_json, wait},
};
use crate::{
    app::{self, Contact},
    config::Config,
    doctor::{Line, Planned, Remnant, TAG, Verdict},
    http::VERSION as API_VERSION,
    model::ScaleSetId,
};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Try out what is believed of Azure (docs/ASSUMPTIONS.md), on a scale set that is there to be thrown away.
    #[arg(long, requires = "scale_set")]
    azure: bool,
    /// That scale set, by its full id. It carries the tag kamino-wf-throw-away: true, is no pool's, and has no node.
    #[arg(long, value_name = "RESOURCE_ID", requires = "azure")]
    scale_set: Option<ScaleSetId>,
    /// Do it. Without it, only what would be made, changed and paid is said.
    #[arg(long, requires = "azure")]
    yes: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) fn run(config: &Config, args: &DoctorArgs) -> Result<Code> {
    let Some(set) = args.scale_set.as_ref().filter(|_| args.azure) else { return look(config, args.output) };
    let tell = |words: &str| eprintln!("{words}");
    let contact = wait(app::first_contact(config, set, args.yes, &tell))?;
    match contact {
        Contact::Planned(planned) => {
            match args.output {
                Output::Table => println!("{}", plan(set, &planned)),
                Output::Json => {
                    print_json(&json!({ "apiVersion": API_VERSION, "kind": "FirstContact", "dryRun": true,
                                                    "scaleSet": set, "plan": planned }))?;
                }
            }
            eprintln!("nothing was touched: say --yes to try it");
            Ok(Code::Ok)
        }
        Contact::Tried { lines, left, signal } => {
            match args.output {
                Output::Table => println!("{}", tried(&lines, &left)),
                Output::Json => {
                    print_json(&json!({ "apiVersion": API_VERSION, "kind": "FirstContact", "dryRun": false,
                                                    "scaleSet": set, "assumptions": lines, "left": left }))?;
                }
            }
            Ok(match signal {
                Some(signal) => Code::Signal(signal),
                None if left.is_empty() => Code::Ok,
                None => Code::Failed,
            })
        }
    }
}

fn look(config: &Config, output: Output) -> Result<Code> {
    let report = wait(async { Ok(app::doctor(config).await) })?;
    match output {
        Output::Table => println!("{}", render::doctor(&report)),
        Output::Json => {
            let mut value = serde_json::to_value(&report)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "Diagnosis".into();
            value["good"] = report.good().into();
            print_json(&value)?;
        }
    }
    Ok(if report.good() { Code::Ok } else { Code::Failed })
}

fn plan(set: &ScaleSetId, planned: &Planned) -> String {
    let Planned { makes, changes, costs, rights } = planned;
    let mut text = format!("Scale set {} may be tried on ({TAG}: true).\n\nMade, and taken away again:\n", set.name());
    let mut list = |title: &str, lines: &mut dyn Iterator<Item = String>| {
        text.push_str(title);
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    };
    list("", &mut makes.iter().cloned());
    list("\nChanged, and put back:\n", &mut changes.iter().cloned());
    list("\nCosts:\n", &mut std::iter::once(costs.clone()));
    let rights = rights.iter().map(|(action, why)| format!("{action}: {why}"));
    list(
        "\nRights in its resource group besides those of a run, to be taken back afterwards:\n",
        &mut rights.into_iter(),
    );
    text.truncate(text.trim_end().len());
    text
}

fn tried(lines: &[Line], left: &[Remnant]) -> String {
    let mut text = String::new();
    for line in lines {
        let _ = writeln!(text, "{:>3} {:<14} {}", line.number, line.verdict.as_str(), line.assumed);
        let (word, then) = match line.verdict {
            Verdict::Holds => ("seen", line.if_it_holds),
            Verdict::DoesNotHold => ("seen", Some(line.otherwise)),
            Verdict::NotTried => ("why", None),
        };
        let unseen = line.not_seen.map_or_else(String::new, |it| format!("; not seen: {it}"));
        let _ = writeln!(text, "{:>18} {word}: {}{unseen}", "", line.seen);
        if let Some(then) = then {
            let _ = writeln!(text, "{:>18} then: {then}", "");
        }
    }
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let [holds, not, untried] = [Verdict::Holds, Verdict::DoesNotHold, Verdict::NotTried].map(count);
    let _ = writeln!(text, "\nHolds: {holds}. Does not hold: {not}. Not tried: {untried}.");
    for Remnant { what, why, command } in left {
        let _ = writeln!(text, "Left: {what}: {why}\n      {command}");
    }
    if left.is_empty() {
        text.push_str("Nothing of it is left.");
    }
    text.truncate(text.trim_end().len());
    text
}
