//! `images`: what versions there are, where they come from, which may go, and which must not.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{
    args::Output,
    exit::Code,
    list::all_runs,
    render::{cut, span, table, text},
    run::print_json,
    talk,
};
use crate::{
    app::{self, ImageView, Images, NoSuchImage},
    clock::{Clock as _, SystemClock},
    cloud::Provisioning,
    config::Config,
    http::VERSION as API_VERSION,
    model::VersionId,
    policy::{leftovers::KnownRun, provenance::Provenance},
    workflow::{PinAsk, PruneReport, known},
};

#[derive(Debug, Subcommand)]
pub(super) enum ImagesCommand {
    /// List image versions, newest first: who made each, who uses it, and what a prune would do with it.
    List(ListArgs),
    /// Delete old image versions that nothing uses.
    ///
    /// Shows first what would go and why the others stay. Without --yes that is all. Never goes: what a scale set's model or a
    /// machine of the subscription uses, what is pinned, the newest published (pools[].keep), what is younger than
    /// pools[].keepFor, what an open run has made, and what kamino-wf did not make. Each is looked at again right before it is
    /// deleted. Done by the process that holds the store, if there is one.
    Prune(PruneArgs),
    /// Keep a version whatever the rules say, or no longer (--remove).
    ///
    /// The pin is a tag on the version (kamino-wf-pinned): it holds for every process and outlives the store.
    Pin(PinArgs),
    /// Show what a version was made from: donor, kernel, kubelet, run, and its ancestors.
    Lineage(LineageArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Only of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Show what would go, and delete nothing; the default.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Delete what is shown.
    #[arg(long)]
    yes: bool,
    /// Let versions go by the same rules that the Python tool (kamino) has made.
    #[arg(long)]
    kamino: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The version, as in 2026.11.24000, or its full id.
    #[arg(value_name = "VERSION")]
    image: String,
    /// The pool, where several have a version of that name.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Take the pin away.
    #[arg(long)]
    remove: bool,
    /// Why, for whoever finds it; who and when are added.
    #[arg(long, value_name = "TEXT", conflicts_with = "remove")]
    why: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct LineageArgs {
    /// The version, as in 2026.11.24000, or its full id; the newest published one of each pool by default.
    #[arg(value_name = "VERSION")]
    image: Option<String>,
    /// Only of this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Azure takes 256 characters for a tag's value.
const PIN_CHARS_MAX: usize = 200;

pub(super) async fn run(config: &Config, command: &ImagesCommand, by: &str) -> Result<Code> {
    match command {
        ImagesCommand::List(args) => list(config, args).await,
        ImagesCommand::Prune(args) => prune(config, args, by).await,
        ImagesCommand::Pin(args) => pin(config, args, by).await,
        ImagesCommand::Lineage(args) => show_lineage(config, args).await,
    }
}

async fn read(config: &Config, pool: Option<&str>, kamino: bool) -> Result<Vec<Images>> {
    let runs: Vec<KnownRun> = all_runs(config).await?.iter().map(known).collect();
    app::images(config, pool, &runs, kamino).await
}

async fn list(config: &Config, args: &ListArgs) -> Result<Code> {
    let all = read(config, args.pool.as_deref(), false).await?;
    match args.output {
        Output::Table => println!("{}", listed(&all, SystemClock.now())),
        Output::Json => {
            print_json(&json!({ "apiVersion": API_VERSION, "kind": "ImageList", "definitions": all }))?;
        }
    }
    Ok(Code::Ok)
}

async fn prune(config: &Config, args: &PruneArgs, by: &str) -> Result<Code> {
    let all = read(config, args.pool.as_deref(), args.kamino).await?;
    let going: usize = all.iter().map(|images| images.going().len()).sum();
    if args.output == Output::Table {
        println!("{}", listed(&all, SystemClock.now()));
    }
    let mut reports = Vec::new();
    if args.yes {
        for images in all.iter().filter(|images| !images.going().is_empty()) {
            let report = app::prune(config, images, by, talk::talking()).await?;
            if args.output == Output::Table {
                tell(&report);
            }
            reports.push((images, report));
        }
    } else if args.output == Output::Table {
        eprintln!("{going} of these would go; nothing was deleted: say --yes to delete them");
    }
    let complete = reports.iter().all(|(_, report)| report.complete());
    if args.output == Output::Json {
        let reports: Vec<_> = reports
            .iter()
            .map(|(images, report)| json!({ "definition": images.definition, "report": report }))
            .collect();
        let value = json!({ "apiVersion": API_VERSION, "kind": "Prune", "dryRun": !args.yes, "definitions": all,
                            "reports": reports });
        print_json(&value)?;
    }
    Ok(if complete { Code::Ok } else { Code::Failed })
}

fn tell(report: &PruneReport) {
    for told in &report.going {
        eprintln!("version {} is being deleted", told.version);
    }
    for told in &report.stay {
        eprintln!("version {} stays: {}", told.version, told.text);
    }
    if let Some(why) = &report.broken_off {
        let until = report.not_before.map_or_else(String::new, |until| format!("; not before {until:.0}"));
        eprintln!("broken off, {} are left: {why}{until}", report.left);
    }
}

/// The one version that is meant.
fn meant(all: &[Images], given: &str) -> Result<VersionId> {
    let found: Vec<VersionId> = all.iter().filter_map(|images| images.version(given)).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(NoSuchImage { given: given.to_owned(), of: String::new() }.into()),
        _ => bail!("{given:?} is a version of more than one pool; say which with --pool"),
    }
}

async fn pin(config: &Config, args: &PinArgs, by: &str) -> Result<Code> {
    let all = read(config, args.pool.as_deref(), false).await?;
    let version = meant(&all, &args.image)?;
    let why = (!args.remove).then(|| {
        let why = args.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let text = format!("by {by} at {:.0}{why}", SystemClock.now());
        text.chars().filter(|c| !c.is_control()).take(PIN_CHARS_MAX).collect()
    });
    let report = app::pin(config, PinAsk { version: version.clone(), why }, by, talk::talking()).await?;
    match args.output {
        Output::Table => {
            let now = if args.remove { "not pinned" } else { "pinned" };
            let how = if report.changed { "now" } else { "already" };
            println!("version {} is {how} {now}", report.version);
        }
        Output::Json => {
            let value = json!({ "apiVersion": API_VERSION, "kind": "Pin", "id": version, "pinned": !args.remove,
                                "changed": report.changed });
            print_json(&value)?;
        }
    }
    Ok(Code::Ok)
}

async fn show_lineage(config: &Config, args: &LineageArgs) -> Result<Code> {
    let all = read(config, args.pool.as_deref(), false).await?;
    let of: Vec<VersionId> = match &args.image {
        Some(given) => vec![meant(&all, given)?],
        None => all.iter().filter_map(Images::newest).collect(),
    };
    let mut lines = Vec::new();
    for id in of {
        let Some(images) = all.iter().find(|images| images.definition == id.definition()) else { continue };
        let (line, gone) = images.lineage(&id);
        lines.push((images, line, gone));
    }
    match args.output {
        Output::Table => {
            let texts: Vec<String> =
                lines.iter().map(|(images, line, gone)| descent(images, line, gone.as_deref())).collect();
            println!(
                "{}",
                if texts.is_empty() { "There is no published version yet.".into() } else { texts.join("\n\n") }
            );
        }
        Output::Json => {
            let lines: Vec<_> = lines
                .iter()
                .map(|(images, line, gone)| json!({ "definition": images.definition, "line": line, "gone": gone }))
                .collect();
            print_json(&json!({ "apiVersion": API_VERSION, "kind": "Lineage", "lines": lines }))?;
        }
    }
    Ok(Code::Ok)
}

fn or_dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".into())
}

fn state(view: &ImageView) -> String {
    let word = match view.provisioning {
        Provisioning::Running => "under way",
        Provisioning::Failed => "failed",
        Provisioning::Succeeded if view.from.published => "published",
        Provisioning::Succeeded => "unpublished",
    };
    if view.from.pinned.is_some() { format!("{word}, pinned") } else { word.into() }
}

/// The table of `images list` and `images prune`, a definition after the other.
fn listed(all: &[Images], now: Timestamp) -> String {
    let of = |images: &Images| {
        let head = format!("{}  (pools: {})", images.definition.names().join("/"), images.pools.join(", "));
        if images.images.is_empty() {
            return format!("{head}\nThere are no versions yet.");
        }
        let mut table = table(&["VERSION", "MADE BY", "DONOR", "STATE", "AGE", "PRUNE", "WHY"]);
        for view in &images.images {
            let age = view.from.created.map_or_else(|| "-".into(), |at| span(now.duration_since(at)));
            table.add_row([
                view.from.version.clone(),
                view.from.maker.as_str().to_owned(),
                or_dash(view.from.donor.as_ref()),
                state(view),
                age,
                if view.delete { "goes" } else { "stays" }.to_owned(),
                cut(&view.reason, 100),
            ]);
        }
        format!("{head}\n{}", text(&table))
    };
    let texts: Vec<String> = all.iter().map(of).collect();
    if texts.is_empty() { "There is no pool in the settings.".into() } else { texts.join("\n\n") }
}

/// A version and its ancestors, the youngest first.
fn descent(images: &Images, line: &[Provenance], gone: Option<&str>) -> String {
    let mut table = table(&["VERSION", "MADE BY", "DONOR", "KERNEL", "KUBELET", "RUN", "BUILT AT"]);
    for from in line {
        table.add_row([
            from.version.clone(),
            from.maker.as_str().to_owned(),
            or_dash(from.donor.as_ref()),
            or_dash(from.kernel.as_ref()),
            or_dash(from.kubelet.as_ref()),
            or_dash(from.run.as_ref()),
            or_dash(from.built_at.as_ref()),
        ]);
    }
    let end = gone.map_or_else(String::new, |gone| format!("\nmade after {gone}, which is not there any more"));
    format!("{}\n{}{end}", images.definition.names().join("/"), text(&table))
}
