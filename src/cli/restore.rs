//! `restore`: what the first update of a pool overwrote, put back from the operator's own file.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::{args::Output, exit::Code, run::print_json};
use crate::{
    app::{self, Restoring},
    config::Config,
    http::VERSION as API_VERSION,
    restore::{self, Prospect, Restored},
};

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The pool whose scale set's model is put back.
    #[arg(long, value_name = "POOL")]
    pool: String,
    /// The file with what can't be read back from Azure (docs/restore.md); `-` for standard input. Nothing of it is kept.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Do it. Without it, only what would change is said.
    #[arg(long)]
    yes: bool,
    /// Ask also where the model shows all of it already: what custom data it has, nobody can see.
    #[arg(long, requires = "yes")]
    again: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(config: &Config, args: &RestoreArgs) -> Result<Code> {
    let text = if args.bundle.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(&args.bundle)
    };
    let text = text.with_context(|| format!("failed to read bundle {}", args.bundle.display()))?;
    let want = restore::parse(&text)?;
    let tell = |words: &str| eprintln!("{words}");
    match app::restore(config, &args.pool, &want, (args.yes, args.again), &tell).await? {
        Restoring::Planned(prospect) => {
            match args.output {
                Output::Table => println!("{}", planned(&prospect)),
                Output::Json => {
                    print_json(&json!({ "apiVersion": API_VERSION, "kind": "Restoration", "dryRun": true,
                                                    "pool": args.pool, "plan": prospect }))?;
                }
            }
            eprintln!("nothing was touched: say --yes to do it");
        }
        Restoring::Done(restored) => {
            let (result, changed, words) = match &restored {
                Restored::Already => (
                    "already",
                    &[][..],
                    "the model shows all of it already; --again sends custom data once more".to_owned(),
                ),
                Restored::Done(changed) => {
                    ("done", changed.as_slice(), format!("new nodes of pool {} are made as the bundle says", args.pool))
                }
            };
            match args.output {
                Output::Table => println!("{words}"),
                Output::Json => {
                    print_json(&json!({ "apiVersion": API_VERSION, "kind": "Restoration", "dryRun": false,
                                                    "pool": args.pool, "result": result, "changed": changed }))?;
                }
            }
        }
    }
    Ok(Code::Ok)
}

fn planned(prospect: &Prospect) -> String {
    let Prospect { image_now, image_then, custom_data, extensions_replaced, extensions_added, already } = prospect;
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let custom_data = if *custom_data { "replaced by the bundle's" } else { "stay as they are" };
    let mut lines = vec![
        format!("New nodes are made from  {image_now}"),
        format!("and would be from        {image_then}"),
        format!("Custom data              {custom_data}"),
        format!("Extensions that return   {}", list(extensions_added)),
        format!("and that are replaced    {}", list(extensions_replaced)),
    ];
    if *already {
        lines.push("The model shows all of it already.".into());
    }
    lines.join("\n")
}
