//! `kamino-wf list`: runs, newest first; which of them, and what happens to them from now on.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    exit::Code,
    render,
    run::{existing, reading},
    select::{SelectArgs, Selection},
    view::{View, print},
    watch::Interrupts,
};
use crate::{
    app,
    clock::{Clock as _, SystemClock},
    config::{Config, ConfigError},
    http::{Answer, AuditEntry, AuditList, Client, RunList, VERSION, audit_entries, audit_prefix},
    model::RunId,
    workflow::{Summary, summaries},
};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Who asked for what, and what came of it, instead of runs; newest first.
    #[arg(long)]
    audit: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Go on with a line for each run that changes, until a signal comes.
    #[arg(short, long, conflicts_with = "audit")]
    watch: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: View,
}

/// Between two looks at the one that holds the store: it answers from memory.
const LOOK: Duration = Duration::from_secs(1);
/// Without anybody who holds the store. A pod that moves to another node with its volume takes a minute or two.
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) async fn run(config: &Config, args: &ListArgs) -> Result<Code> {
    let refused = |remedy: &str| {
        let value = args.output.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
        ConfigError::Bad { setting: "--output".into(), value, remedy: remedy.into() }
    };
    let selection = args.select.looked_up(config, SystemClock.now())?;
    if args.audit {
        if args.output == View::Name {
            return Err(refused("who asked for what has no names; expected table, wide, json or yaml").into());
        }
        let entries: Vec<AuditEntry> =
            audit(config).await?.into_iter().filter(|entry| selection.takes_time(entry.at)).collect();
        let people = |wide| render::audit(&entries, wide);
        let data = || Ok(serde_json::to_value(Answer::new("AuditList", AuditList { entries: entries.clone() }))?);
        print(args.output, data, people, Vec::new)?;
        return Ok(Code::Ok);
    }
    if !args.watch {
        let runs = chosen(all_runs(config).await?, &selection);
        say(args.output, &runs, &selection)?;
        return Ok(Code::Ok);
    }
    if args.output == View::Yaml {
        return Err(refused("lines as they come are no YAML; expected table, wide, json or name").into());
    }
    let interrupts = Interrupts::listen()?;
    tokio::select! {
        biased;
        signal = interrupts.next() => Ok(Code::Signal(signal)),
        ended = watch(config, args.output, &selection) => ended,
    }
}

fn chosen(runs: Vec<Summary>, selection: &Selection) -> Vec<Summary> {
    runs.into_iter().filter(|run| selection.takes(run)).collect()
}

fn say(output: View, runs: &[Summary], selection: &Selection) -> Result<()> {
    let people = |wide| {
        if runs.is_empty() && !selection.is_all() {
            "No run is as you asked; without --state, --pool and --since all are shown.".into()
        } else {
            render::list_as(runs, SystemClock.now(), wide)
        }
    };
    let data = || Ok(serde_json::to_value(Answer::new("RunList", RunList { runs: runs.to_vec() }))?);
    print(output, data, people, || runs.iter().rev().map(|run| run.run.clone()).collect())
}

pub(super) async fn all_runs(config: &Config) -> Result<Vec<Summary>> {
    if let Some(client) = Client::connect(&config.store).await? {
        return Ok(client.list().await?);
    }
    if !existing(&config.store)? {
        return Ok(Vec::new());
    }
    reading(&app::place(config), async |journal| Ok(summaries(journal).await?)).await
}

async fn audit(config: &Config) -> Result<Vec<AuditEntry>> {
    if let Some(client) = Client::connect(&config.store).await? {
        return Ok(client.audit().await?);
    }
    if !existing(&config.store)? {
        return Ok(Vec::new());
    }
    reading(&app::place(config), async |journal| Ok(audit_entries(journal.facts(audit_prefix()).await?))).await
}

/// The runs as they are, and then each that changes, as it is then.
async fn watch(config: &Config, output: View, selection: &Selection) -> Result<Code> {
    let held = Client::connect(&config.store).await?.is_some();
    let mut lines = Lines::new(output);
    lines.changed(all_runs(config).await?, selection)?;
    if !held {
        eprintln!("nobody holds the store in {}: nothing moves, and this is all there is", config.store.display());
        return Ok(Code::Ok);
    }
    let mut alone: Option<Instant> = None;
    loop {
        sleep(LOOK).await;
        let seen = match Client::connect(&config.store).await? {
            // One that is just stopping may not answer; the next one does.
            Some(client) => client.list().await.ok(),
            None => None,
        };
        if let Some(runs) = seen {
            if alone.take().is_some() {
                eprintln!("somebody holds the store again");
            }
            lines.changed(runs, selection)?;
            continue;
        }
        let since = *alone.get_or_insert_with(|| {
            eprintln!("the process that held the store is gone; waiting for the next, up to 5 minutes");
            Instant::now()
        });
        if since.elapsed() > PATIENCE {
            bail!("nobody has held the store for {} minutes; nothing moves meanwhile", PATIENCE.as_secs() / 60);
        }
    }
}

/// What was printed of each run, and in which columns.
struct Lines {
    output: View,
    widths: Vec<usize>,
    seen: BTreeMap<RunId, Summary>,
    /// Runs that were shown once are followed, also where they no longer are as asked: that is news.
    shown: Vec<RunId>,
}

impl Lines {
    fn new(output: View) -> Self {
        Self { output, widths: Vec::new(), seen: BTreeMap::new(), shown: Vec::new() }
    }

    fn changed(&mut self, runs: Vec<Summary>, selection: &Selection) -> Result<()> {
        let mut news: Vec<Summary> = runs
            .into_iter()
            .filter(|run| selection.takes(run) || self.shown.contains(&run.id))
            .filter(|run| self.seen.get(&run.id) != Some(run))
            .collect();
        news.sort_by_key(|run| (run.moved, run.id));
        let now = SystemClock.now();
        let wide = self.output == View::Wide;
        let rows: Vec<Vec<String>> = news.iter().map(|run| render::row(run, now, wide)).collect();
        if matches!(self.output, View::Table | View::Wide) && self.widths.is_empty() {
            self.widths = widths(render::columns(wide), &rows);
            self.line(&padded(render::columns(wide).iter().copied(), &self.widths))?;
        }
        for (run, row) in news.into_iter().zip(rows) {
            match self.output {
                View::Table | View::Wide => self.line(&padded(row.iter().map(String::as_str), &self.widths))?,
                View::Name => self.line(&run.run)?,
                View::Json | View::Yaml => {
                    let line = json!({ "apiVersion": VERSION, "kind": "RunChanged", "run": run });
                    self.line(&line.to_string())?;
                }
            }
            if !self.shown.contains(&run.id) {
                self.shown.push(run.id);
            }
            self.seen.insert(run.id, run);
        }
        Ok(())
    }

    /// A reader that has gone (`| head`) ends it.
    #[expect(clippy::unused_self, reason = "one way out for all lines")]
    fn line(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).context("failed to print a run")
    }
}

/// What later rows will need too: states and steps of other lengths come.
fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let least = |name: &str| match name {
        "RUN" => 12,
        "STATE" => "needs-approval".len(),
        "STEP" => "DeleteTemporaries".len(),
        "DONOR" | "VERSION" => 24,
        "AGE" => "23h 59m".len(),
        other => other.len(),
    };
    let longest = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    header.iter().enumerate().map(|(at, name)| least(name).max(longest(at))).collect()
}

fn padded<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let cells = cells.zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_where_they_are_when_longer_words_come() {
        let widths = widths(&["RUN", "STATE", "WHY"], &[vec!["0123456789ab".into(), "done".into(), String::new()]]);
        let line = |state: &str| padded(["0123456789ab", state, "why"].into_iter(), &widths);
        assert_eq!(line("done").find("why"), line("needs-approval").find("why"));
        assert!(line("done").starts_with("0123456789ab  done"), "{}", line("done"));
    }
}
