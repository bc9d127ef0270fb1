//! `kamino-wf store`: what a person does with the memory of all runs, as opposed to the runs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{
    args::{ExportArgs, ImportArgs, Output, StoreCommand},
    exit::Code,
    run::{print_json, wait},
};
use crate::{
    app,
    clock::{Clock as _, SystemClock},
    config::Config,
    http::{Client, VERSION as API_VERSION},
    store::{
        Compacted, Counts, Export, Place, Quarantined, StoreError, check_dir, compact_dir, import_dir, quarantine_dir,
    },
    workflow::{Held, Summary, SweepReport},
};

pub(super) fn run(config: &Config, command: StoreCommand) -> Result<Code> {
    let place = app::place(config);
    match command {
        StoreCommand::Check(args) => check(&place, args.output),
        StoreCommand::Export(args) => wait(export(&place, &args)),
        StoreCommand::Import(args) => import(&place, &args),
        StoreCommand::Compact(args) => compact(&place, args.output),
        StoreCommand::Quarantine(args) => wait(quarantine(config, &place, args.output)),
    }
}

fn check(place: &Place, output: Output) -> Result<Code> {
    let report = check_dir(place.clone())?;
    match output {
        Output::Table => println!(
            "The store in {} is sound: {} runs, {} records, {} facts, commit {}, {} bytes of data in {} bytes of files.",
            place.dir.display(),
            report.runs,
            report.records,
            report.facts,
            report.commit,
            report.live_bytes,
            report.file_bytes
        ),
        Output::Json => {
            let mut value = serde_json::to_value(&report)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "StoreCheck".into();
            print_json(&value)?;
        }
    }
    Ok(Code::Ok)
}

/// To stdout, or to a file that has its name only when it is whole.
async fn export(place: &Place, args: &ExportArgs) -> Result<Code> {
    if args.file == Path::new("-") {
        let counts = exported(place, &mut io::stdout().lock()).await?;
        eprintln!("{}", in_words("exported", counts.as_ref()));
        return Ok(Code::Ok);
    }
    let mut target = Target::begin(&args.file)?;
    let counts = exported(place, &mut target.file).await?;
    target.finish()?;
    eprintln!("{} to {}", in_words("exported", counts.as_ref()), args.file.display());
    Ok(Code::Ok)
}

async fn exported(place: &Place, to: &mut impl io::Write) -> Result<Option<Counts>> {
    const TO: &str = "failed to write the export";
    if let Some(client) = Client::connect(&place.dir).await? {
        let (mut pieces, mut newest) = (client.export().await?, Vec::new());
        while let Some(piece) = pieces.next().await? {
            to.write_all(&piece).context(TO)?;
            newest.extend_from_slice(&piece);
            newest.drain(..newest.len().saturating_sub(LAST_LINE_BYTES));
        }
        to.flush().context(TO)?;
        if !whole(&newest) {
            bail!("the process that holds the store ended the export early; nothing of it can be imported: ask again");
        }
        return Ok(None);
    }
    if !super::run::existing(&place.dir)? {
        bail!(StoreError::NotAStore { dir: place.dir.clone(), what: "there is no database in it".into() });
    }
    let (journal, guard) = app::read_store(place)?;
    let result = async {
        let mut export = Export::begin(&journal, app::RELEASE, SystemClock.now()).await?;
        while let Some(text) = export.next().await? {
            to.write_all(&text).context(TO)?;
        }
        to.flush().context(TO)?;
        Ok::<_, anyhow::Error>(export.counts())
    }
    .await;
    drop(journal);
    let closed = guard.close();
    let counts = result?;
    closed?;
    Ok(Some(counts))
}

/// Five numbers and a checksum.
const LAST_LINE_BYTES: usize = 400;

/// An answer that was cut ends like one that was not; its last line tells.
fn whole(newest: &[u8]) -> bool {
    let text = String::from_utf8_lossy(newest);
    text.trim_end().rsplit('\n').next().is_some_and(|line| line.contains("\"line\":\"end\""))
}

fn in_words(verb: &str, counts: Option<&Counts>) -> String {
    match counts {
        None => verb.to_owned(),
        Some(Counts { store, commit, fence, runs, records, facts }) => {
            format!(
                "{verb} {runs} runs, {records} records and {facts} facts of store {store}, commit {commit}, epoch {fence}"
            )
        }
    }
}

/// A file that is being written beside its name.
struct Target {
    file: File,
    partly: PathBuf,
    name: PathBuf,
}

impl Target {
    fn begin(name: &Path) -> Result<Self> {
        if name.try_exists().with_context(|| format!("failed to look for {}", name.display()))? {
            bail!("{} is there already; an export never replaces a file, name another", name.display());
        }
        let mut partly = name.as_os_str().to_owned();
        partly.push(format!(".partly-{}", std::process::id()));
        let partly = PathBuf::from(partly);
        // It holds all that the store holds, and that is its owner's.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partly);
        let file = file.with_context(|| format!("failed to make {}", partly.display()))?;
        Ok(Self { file, partly, name: name.to_owned() })
    }

    fn finish(self) -> Result<()> {
        let named = || -> io::Result<()> {
            self.file.sync_all()?;
            // Unlike a rename, a link never replaces what has come there meanwhile.
            fs::hard_link(&self.partly, &self.name)?;
            let folder = self.name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        named().with_context(|| format!("failed to give the export its name {}", self.name.display()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partly);
    }
}

fn import(place: &Place, args: &ImportArgs) -> Result<Code> {
    let holder = app::briefly();
    let counts = if args.file == Path::new("-") {
        import_dir(place, &holder, &mut io::stdin().lock(), "standard input", None)?
    } else {
        let file = File::open(&args.file).with_context(|| format!("failed to open {}", args.file.display()))?;
        let size = file.metadata().map(|meta| meta.len()).ok();
        import_dir(place, &holder, &mut BufReader::new(file), &args.file.display().to_string(), size)?
    };
    eprintln!("{} into {}", in_words("imported", Some(&counts)), place.dir.display());
    Ok(Code::Ok)
}

fn compact(place: &Place, output: Output) -> Result<Code> {
    let report = compact_dir(place, &app::briefly())?;
    match output {
        Output::Table => {
            let Compacted { before_bytes, after_bytes, live_bytes, runs, records } = report;
            println!(
                "The store in {} took {before_bytes} bytes and takes {after_bytes} now, for {live_bytes} bytes of data: \
                 {runs} runs, {records} records.",
                place.dir.display()
            );
        }
        Output::Json => {
            let mut value = serde_json::to_value(&report)?;
            value["apiVersion"] = API_VERSION.into();
            value["kind"] = "StoreCompaction".into();
            print_json(&value)?;
        }
    }
    Ok(Code::Ok)
}

/// First the store, which needs nobody; then a look at the world, which may not answer.
async fn quarantine(config: &Config, place: &Place, output: Output) -> Result<Code> {
    let Quarantined { to, why, runs, unreadable } = quarantine_dir(place, &app::briefly(), SystemClock.now())?;
    eprintln!("{}: it was right to stop: failed to {why}", why.code());
    let runs: Vec<Summary> = runs.into_iter().filter_map(|(_, summary)| serde_json::from_value(summary).ok()).collect();
    let groups = runs.iter().map(|run| run.scale_set.group());
    let world = app::remains(config, groups).await.map_err(|error| format!("{error:#}"));
    match output {
        Output::Table => println!("{}", told(&to, &runs, unreadable, &world)),
        Output::Json => print_json(&json!({
            "apiVersion": API_VERSION, "kind": "StoreQuarantine", "movedTo": to, "code": why.code(),
            "why": why.to_string(), "runs": runs, "unreadableEntries": unreadable,
            "inTheWorld": world.as_ref().ok().map(|report| &report.held),
            "notSeen": match &world {
                Ok(report) => report.troubles.iter().map(|trouble| format!("{}: {}", trouble.thing, trouble.text)).collect(),
                Err(error) => vec![error.clone()],
            },
        }))?,
    }
    Ok(Code::Ok)
}

/// What was moved, what is known of its runs, and what the world holds of them.
fn told(to: &Path, runs: &[Summary], unreadable: u64, world: &Result<SweepReport, String>) -> String {
    let mut lines = vec![format!("The store was moved to {}; nothing of it was deleted.", to.display()), String::new()];
    let open: Vec<&Summary> = runs.iter().filter(|run| run.open()).collect();
    lines.push(format!(
        "Of its runs {} could be read, {} of them open; {unreadable} entries could not. What they say may be old:",
        runs.len(),
        open.len()
    ));
    for run in open {
        let step = run.step.as_deref().unwrap_or("its beginning");
        let donor = run.donor.as_deref().map_or_else(String::new, |donor| format!(", donor {donor}"));
        lines.push(format!("  {}  {}  {} at {step}{donor}", run.run, run.scale_set.name(), run.state));
    }
    lines.push(String::new());
    match world {
        Ok(SweepReport { held, troubles, .. }) => {
            lines.push(match held.len() {
                0 => "In the world nothing carries a run's tag.".into(),
                count => format!("In the world {count} things carry a run's tag:"),
            });
            lines.extend(held.iter().map(|Held { thing, run, reason: _ }| format!("  {thing}, of run {run}")));
            lines.extend(troubles.iter().map(|trouble| format!("  not seen: {}: {}", trouble.thing, trouble.text)));
        }
        Err(error) => {
            lines.push(format!("The world was not looked at: {error}"));
            lines.push(
                "What is left carries the tag kamino-wf-run: `az resource list --tag kamino-wf-run -o table`.".into(),
            );
        }
    }
    lines.push(String::new());
    lines.push(
        "What now: import the newest export (`kamino-wf store import`), or begin anew: the daemon takes what is".into(),
    );
    lines.push("left away once it is older than serve.sweepUnknownAfter. docs/RUNBOOK.md has the rest.".into());
    lines.join("\n")
}
