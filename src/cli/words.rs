//! What people say to a run: pause, approve, reject, cancel. Whoever holds the store is told; nobody there, this process is.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::{
    args::RunArgs,
    exit::Code,
    run::{existing, look, rest, terms},
    talk,
};
use crate::{
    app,
    config::{Config, ConfigError},
    http::{Client, Mutations, RunView, What},
    model::RunId,
    store::Revision,
    workflow::{Engine, Outcome, Rejected, Run, RunState, Summary, left},
};

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    #[command(flatten)]
    pub(super) of: RunArgs,
    /// Give a node back that is out of service, but leave all else that the run has made, also past the point of no return, and
    /// print what that is. The way out of a run that can neither go on nor be undone.
    #[arg(long)]
    pub(super) abandon: bool,
    /// Yes, leave it. Without this, what would be left is only shown.
    #[arg(long, requires = "abandon")]
    pub(super) yes: bool,
}

/// The words that end when they are said: driving the run is somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Pause,
    Approve,
    Reject,
}

impl Word {
    fn what(self, run: String) -> What {
        match self {
            Self::Pause => What::Pause(run),
            Self::Approve => What::Approve(run),
            Self::Reject => What::Reject(run),
        }
    }

    fn said(self, run: &str) -> String {
        match self {
            Self::Pause => format!("run {run} stops before its next stage; `kamino-wf resume {run}` lets it go on"),
            Self::Approve => format!("run {run} is approved, and goes on"),
            Self::Reject => format!("run {run} is rejected, and what it made is taken away"),
        }
    }
}

pub(super) async fn say(config: &Config, args: &RunArgs, word: Word, by: String) -> Result<Code> {
    if let Some(client) = Client::connect(&config.store).await? {
        let terms = terms(by, args.revision);
        let said = match word {
            Word::Pause => client.pause(&args.run, &terms).await?,
            Word::Approve => client.approve(&args.run, &terms).await?,
            Word::Reject => client.reject(&args.run, &terms).await?,
        };
        eprintln!("{}", word.said(&said.run));
        return Ok(Code::Ok);
    }
    let (_, _, id) = here(config, args, word.what(args.run.clone()), &by).await?;
    eprintln!("{}; nobody drives it now: `kamino-wf resume --wait` does", word.said(&id.short()));
    Ok(Code::Ok)
}

pub(super) async fn cancel(config: &Config, args: &CancelArgs, by: String) -> Result<Code> {
    let CancelArgs { of, abandon, yes } = args;
    let client = Client::connect(&config.store).await?;
    if *abandon && !yes {
        let view = look(config, client.as_ref(), &of.run).await?;
        let Summary { run, state, .. } = view.description.summary.clone();
        if !view.description.summary.open() {
            return Err(Rejected::Ended { run, state }.into());
        }
        let left = left_of(&view)?;
        let what = if left.is_empty() { "nothing".into() } else { left.join("; ") };
        let remedy = format!("this would be left behind: {what}. Say --yes if it may, or cancel without --abandon");
        return Err(ConfigError::Bad { setting: "--abandon".into(), value: of.run.clone(), remedy }.into());
    }
    if let Some(client) = client {
        let terms = terms(by, of.revision);
        if *abandon {
            let run = client.abandon(&of.run, &terms).await?.run;
            eprintln!(
                "run {run} is being abandoned; `kamino-wf describe {run}` shows when it has ended. This may be left:"
            );
            tell(&left_of(&look(config, Some(&client), &run).await?)?);
        } else {
            let run = client.cancel(&of.run, &terms).await?.run;
            eprintln!("run {run} is being cancelled; `kamino-wf describe {run}` shows how far it is");
        }
        return Ok(Code::Ok);
    }
    let what = if *abandon { What::Abandon(of.run.clone()) } else { What::Cancel(of.run.clone()) };
    let (engine, store, id) = here(config, of, what, &by).await?;
    // Nobody else holds the store: what the run owes is paid, and what it made taken away, here and now.
    let code = rest(engine, store, id).await?;
    if *abandon {
        tell(&left_of(&look(config, None, &id.short()).await?)?);
    }
    Ok(code)
}

fn tell(left: &[String]) {
    for what in left {
        println!("{what}");
    }
}

/// What a run that is or would be abandoned leaves.
fn left_of(view: &RunView) -> Result<Vec<String>> {
    let run = Run::fold(view.description.summary.id, view.description.events.iter().cloned())?;
    Ok(match &run.state {
        RunState::Ended(Outcome::Abandoned { left }) => left.clone(),
        RunState::Ended(_)
        | RunState::Running { .. }
        | RunState::Waiting { .. }
        | RunState::Parked { .. }
        | RunState::Paused { .. }
        | RunState::NeedsApproval { .. } => left(&run),
    })
}

/// Says it in this process, which holds the store from here on.
async fn here(config: &Config, args: &RunArgs, what: What, by: &str) -> Result<(Arc<Engine>, app::OpenStore, RunId)> {
    if !existing(&config.store)? {
        return Err(Rejected::NoSuchRun(args.run.clone()).into());
    }
    let store = app::open_store(&app::place(config))?;
    let cluster = app::cluster(config).await?;
    let engine = app::engine_of_command(config, cluster, store.journal.clone(), talk::talking()).await?;
    let id = Mutations::new(Arc::clone(&engine)).here(by, args.revision.map(Revision), what).await??.id;
    Ok((engine, store, id))
}
