//! Runs a command: settings, then the holder of the store, or the store itself.

use std::{
    path::Path,
    pin::{Pin, pin},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};
use serde_json::json;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{
    args::{AutoArgs, Cli, Command, DescribeArgs, LogFormat, Output, ResumeArgs, StartArgs},
    completion,
    exit::{Code, page},
    images, plugin, render, rescue, status, talk,
    view::{View, print},
    watch::{self, Interrupts, Lines},
    words::{self, Word},
};
use crate::{
    app::{self, Drove, NoCredential, NoSuchImage, NoSuchNode, NotNow, UnusableAccess},
    clean::{ApiServer, ProofPlace, cli::CleanArgs},
    clock::{Clock, SystemClock},
    config::{Config, ConfigError, check_variables},
    doctor::ContactError,
    http::{Answer, CallError, Client, Mutations, ProblemKind, RunView, Terms, VERSION as API_VERSION, What},
    model::{BadName, RunId},
    restore::{BadBundle, RestoreError},
    store::{Journal, Place, Revision, StoreError},
    workflow::{Engine, ImageError, Rejected, Summary, describe, find_run, rescue::RescueError, summaries},
};

/// Parses, runs, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    if plugin::called(name.as_ref()) {
        return plugin::main(arguments);
    }
    if completion::called(name.as_ref()) {
        return completion::for_kubectl(arguments);
    }
    let cli = Cli::parse();
    if let Command::Clean(args) = cli.command {
        return clean(*args);
    }
    let ended = prepare(&cli).and_then(|()| dispatch(cli));
    talk::over();
    match ended {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("kamino-wf: {error:#}{}", page(&error));
            code_of(&error).into()
        }
    }
}

/// The cleaner has no settings, no store and no runtime; what it asks of the cluster is sent for it.
fn clean(args: CleanArgs) -> ExitCode {
    crate::clean::cli::run(args, &PodsOwn)
}

/// The cluster, as the pod of a donor's cleaner may reach it.
struct PodsOwn;

impl ApiServer for PodsOwn {
    fn leave_proof(&self, place: &ProofPlace, words: &str) -> Result<(), String> {
        let ProofPlace { kubeconfig, namespace, name, key } = place;
        app::leave_proof(kubeconfig.clone(), namespace, name, key, words).map_err(|error| format!("{error:#}"))
    }

    fn bound_token(&self, place: &ProofPlace, secret: &str) -> Result<(String, Duration), String> {
        let ProofPlace { kubeconfig, namespace, .. } = place;
        app::bound_token(kubeconfig.clone(), namespace, secret).map_err(|error| format!("{error:#}"))
    }

    fn may_bootstrap(&self, kubeconfig: &Path) -> Result<(), String> {
        app::may_bootstrap(kubeconfig.to_path_buf()).map_err(|error| format!("{error:#}"))
    }
}

/// Logging, and variables with a typo.
fn prepare(cli: &Cli) -> Result<()> {
    check_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
    let filter = EnvFilter::try_new(cli.log()).map_err(|error| ConfigError::Bad {
        setting: "--log".into(),
        value: cli.log().to_owned(),
        remedy: format!("expected a filter such as info or kamino_wf=debug ({error})"),
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(talk::log);
    match cli.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
    Ok(())
}

/// The exit code of an error, by who can do something about it.
pub(super) fn code_of(error: &anyhow::Error) -> Code {
    for cause in error.chain() {
        if matches!(cause.downcast_ref(), Some(ConfigError::NoSuchPool { .. })) || cause.is::<NoSuchNode>() {
            return Code::NotFound;
        }
        let setting = cause.is::<ConfigError>() || cause.is::<UnusableAccess>() || cause.is::<NoCredential>();
        if setting || cause.is::<BadName>() {
            return Code::Usage;
        }
        if let Some(error) = cause.downcast_ref::<ContactError>() {
            return match error {
                ContactError::NoSuchScaleSet(_) => Code::NotFound,
                ContactError::Refused { .. } | ContactError::Name(_) => Code::Usage,
                ContactError::Cloud(_) => Code::Failed,
            };
        }
        if cause.is::<NotNow>() {
            return Code::Conflict;
        }
        if cause.is::<BadBundle>() {
            return Code::Usage;
        }
        if let Some(error) = cause.downcast_ref::<RestoreError>() {
            return match error {
                RestoreError::NoSuchScaleSet(_) => Code::NotFound,
                RestoreError::Refused { .. } => Code::Conflict,
                RestoreError::Cloud(_)
                | RestoreError::NotShown { .. }
                | RestoreError::TooLong { .. }
                | RestoreError::More { .. } => Code::Failed,
            };
        }
        if cause.is::<NoSuchImage>() {
            return Code::NotFound;
        }
        if let Some(error) = cause.downcast_ref::<ImageError>() {
            return match error {
                ImageError::NoSuchVersion(_) => Code::NotFound,
                ImageError::NoAuthority | ImageError::Foreign(_) | ImageError::Busy(_) => Code::Conflict,
                ImageError::Engine(_) | ImageError::Call(_) => Code::Failed,
            };
        }
        if let Some(error) = cause.downcast_ref::<RescueError>() {
            return match error {
                RescueError::NoSuchNode(_) => Code::NotFound,
                RescueError::Kept(_) | RescueError::Unreadable(_) | RescueError::NobodysSignature { .. } => {
                    Code::Conflict
                }
                RescueError::NotBack { .. } | RescueError::Step(_) => Code::Failed,
            };
        }
        if let Some(rejected) = cause.downcast_ref::<Rejected>() {
            return match rejected {
                Rejected::NoSuchRun(_) | Rejected::Ambiguous { .. } => Code::NotFound,
                Rejected::Occupied { .. }
                | Rejected::Ended { .. }
                | Rejected::PastReturn { .. }
                | Rejected::NotStopped { .. }
                | Rejected::Asks { .. }
                | Rejected::NotAsked { .. }
                | Rejected::NoPause { .. }
                | Rejected::Changed { .. }
                | Rejected::KeyReused(_)
                | Rejected::NeedsRelease { .. } => Code::Conflict,
            };
        }
        if let Some(CallError::Refused(problem)) = cause.downcast_ref::<CallError>() {
            return match problem.kind {
                ProblemKind::NotFound => Code::NotFound,
                ProblemKind::Conflict | ProblemKind::Changed | ProblemKind::KeyReused => Code::Conflict,
                ProblemKind::BadRequest => Code::Usage,
                ProblemKind::Failed => Code::Failed,
            };
        }
        let store = cause.downcast_ref::<StoreError>();
        if matches!(store, Some(StoreError::InUse { .. } | StoreError::NotEmpty { .. } | StoreError::Sound { .. })) {
            return Code::Conflict;
        }
        if matches!(store, Some(StoreError::Import { .. })) {
            return Code::Usage;
        }
    }
    Code::Failed
}

fn dispatch(cli: Cli) -> Result<Code> {
    let overrides = cli.overrides();
    let by = cli.by().map_or_else(asker, str::to_owned);
    let config = || Config::load(overrides.clone(), &|name| std::env::var(name).ok());
    match cli.command {
        #[cfg(feature = "sim")]
        Command::Simulate(args) => super::simulate::run(&args),
        Command::Version(args) => {
            match args.output {
                Output::Table => println!("kamino-wf {}", app::RELEASE),
                Output::Json => print_json(&json!({ "apiVersion": API_VERSION, "release": app::RELEASE }))?,
            }
            Ok(Code::Ok)
        }
        Command::Clean(args) => {
            // Handled before anything else is prepared.
            let _ = clean(*args);
            Ok(Code::Ok)
        }
        Command::Doctor(args) => super::doctor::run(&config()?, &args),
        Command::Plan(args) => super::plan::run(&config()?, &args),
        Command::Status(args) => wait(status::run(&config()?, &args)),
        Command::Rescue(args) => wait(rescue::run(&config()?, &args)),
        Command::Restore(args) => wait(super::restore::run(&config()?, &args)),
        Command::Images(command) => wait(images::run(&config()?, &command, &by)),
        Command::Store(command) => super::store::run(&config()?, command),
        Command::Auto(AutoArgs { once: _ }) => wait(auto(&config()?)),
        Command::Serve(args) => {
            let signal = wait(app::serve(&config()?, args.hold_on_start))?;
            info!(signal, "stopped");
            Ok(Code::Ok)
        }
        Command::List(args) => wait(super::list::run(&config()?, &args)),
        Command::Config(args) => super::settings::run(&overrides, args.output),
        Command::Completion(args) => completion::script(&args),
        Command::Man(args) => completion::pages(&args),
        Command::Describe(args) => wait(describe_run(&config()?, &args)),
        Command::Cancel(args) => wait(words::cancel(&config()?, &args, by)),
        Command::Pause(args) => wait(words::say(&config()?, &args, Word::Pause, by)),
        Command::Approve(args) => wait(words::say(&config()?, &args, Word::Approve, by)),
        Command::Reject(args) => wait(words::say(&config()?, &args, Word::Reject, by)),
        Command::Start(args) => wait(start(&config()?, &args, by)),
        Command::Resume(args) => wait(resume(&config()?, &args, by)),
    }
}

/// Waits for a command's end. What it waits for has no type of its own here: each would bring a runtime of its own, and its own
/// code twice.
pub(super) fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime()?;
    let future: Pin<&mut dyn Future<Output = Result<T>>> = pin!(future);
    runtime.block_on(future)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

pub(super) fn print_json(value: &serde_json::Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Who asks, as far as the system knows.
pub(super) fn asker() -> String {
    let name = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
    let user = name("USER").or_else(|| name("LOGNAME")).unwrap_or_else(|| "uid 0".into());
    match name("HOSTNAME") {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}

/// Reading needs a store: without one there is nothing to say, and none is made.
pub(super) fn existing(store: &Path) -> Result<bool> {
    // The mark stays where a database is gone: that is no empty place.
    let any = ["db", "mark", "ready"].iter().map(|name| store.join(name).try_exists());
    any.reduce(|any, next| Ok(any? || next?))
        .unwrap_or(Ok(false))
        .with_context(|| format!("failed to look for a store in {}", store.display()))
}

/// Reads a store that nobody holds.
pub(super) async fn reading<T>(store: &Place, read: impl AsyncFnOnce(&Journal) -> Result<T>) -> Result<T> {
    let (journal, guard) = app::read_store(store)?;
    let result = read(&journal).await;
    drop(journal);
    let closed = guard.close();
    let result = result?;
    closed?;
    Ok(result)
}

/// A run, by whoever holds the store, or as it is stored.
pub(super) async fn look(config: &Config, client: Option<&Client>, run: &str) -> Result<RunView> {
    if let Some(client) = client {
        return Ok(client.describe(run).await?);
    }
    if !existing(&config.store)? {
        return Err(Rejected::NoSuchRun(run.to_owned()).into());
    }
    reading(&app::place(config), async |journal| {
        let id = find_run(&summaries(journal).await?, run)?;
        Ok(RunView::of(describe(journal, id).await??))
    })
    .await
}

async fn describe_run(config: &Config, args: &DescribeArgs) -> Result<Code> {
    let interrupts = if args.watch { Some(Interrupts::listen()?) } else { None };
    let client = Client::connect(&config.store).await?;
    let view = look(config, client.as_ref(), &args.run).await?;
    let data = || Ok(serde_json::to_value(Answer::new("Run", &view))?);
    let people = |wide| render::describe(&view.description, SystemClock.now(), wide);
    if args.watch && matches!(args.output, View::Yaml | View::Name) {
        let remedy = "events come as words or, with -o json, as JSON".into();
        let value = args.output.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
        return Err(ConfigError::Bad { setting: "--output".into(), value, remedy }.into());
    }
    let lines = if args.output == View::Json { Lines::Json } else { Lines::Words };
    if !(args.watch && args.output == View::Json) {
        print(args.output, data, people, || vec![view.description.summary.run.clone()])?;
    }
    let Some(interrupts) = interrupts else { return Ok(Code::Ok) };
    watch::from(&config.store, &view.description, lines, client.is_some(), interrupts).await
}

/// On which terms this process asks whoever holds the store.
pub(super) fn terms(by: String, revision: Option<u64>) -> Terms {
    Terms { by, key: SystemClock.new_id().to_string(), revision }
}

async fn start(config: &Config, args: &StartArgs, by: String) -> Result<Code> {
    app::ready(config, args.pool.as_deref())?;
    let cluster = app::cluster(config).await?;
    let spec = app::spec(config, &cluster, args.pool.as_deref(), args.node.clone(), args.adopt).await?;
    if let Some(client) = Client::connect(&config.store).await? {
        let started = client.start(spec, &terms(by, None)).await?;
        eprintln!("run {} is driven by the process that holds the store", started.run);
        let code = say_run(started.id, args.output)?;
        return if args.wait { watch::to_rest(&config.store, &client, &started.run).await } else { Ok(code) };
    }
    let store = app::open_store(&app::place(config))?;
    let engine = app::engine_of_command(config, cluster, store.journal.clone(), talk::talking()).await?;
    let scale_set = spec.scale_set.clone();
    let open = engine.open_run(&scale_set).await;
    if open.is_none() {
        // Said at once and with nothing recorded; the run itself would go on asking for half an hour.
        engine.first_contact(&scale_set).await.context("failed to reach Azure, and no run was begun")?;
    }
    let id = match open {
        // Started before and interrupted: this is how it goes on.
        Some(id) if args.wait => {
            eprintln!("run {id} is open for scale set {}: going on with it", scale_set.name());
            id
        }
        Some(_) | None => Mutations::new(Arc::clone(&engine)).here(&by, None, What::Start(Box::new(spec))).await??.id,
    };
    if !args.wait {
        eprintln!("run {id} is recorded and nothing drives it yet; `kamino-wf resume --wait` does");
        return say_run(id, args.output);
    }
    say_run(id, args.output)?;
    rest(engine, store, id).await
}

fn say_run(id: RunId, output: Output) -> Result<Code> {
    match output {
        Output::Table => println!("{id}"),
        Output::Json => print_json(&json!({ "apiVersion": API_VERSION, "run": id.short(), "id": id.0 }))?,
    }
    Ok(Code::Ok)
}

async fn resume(config: &Config, args: &ResumeArgs, by: String) -> Result<Code> {
    if let Some(client) = Client::connect(&config.store).await? {
        let run = args.run.as_deref().context("say which run; the process that holds the store drives all of them")?;
        let resumed = client.resume(run, &terms(by, args.revision)).await?;
        eprintln!("run {} goes on", resumed.run);
        return if args.wait { watch::to_rest(&config.store, &client, &resumed.run).await } else { Ok(Code::Ok) };
    }
    if !existing(&config.store)? {
        let given = args.run.clone().unwrap_or_else(|| "any".into());
        return Err(Rejected::NoSuchRun(given).into());
    }
    let store = app::open_store(&app::place(config))?;
    let cluster = app::cluster(config).await?;
    let engine = app::engine_of_command(config, cluster, store.journal.clone(), talk::talking()).await?;
    let open: Vec<Summary> = engine.summaries().await?.into_iter().filter(Summary::open).collect();
    let id = match &args.run {
        Some(run) => {
            let id = engine.find(run).await??;
            let stopped =
                open.iter().any(|summary| summary.id == id && summary.state != "running" && summary.state != "undoing");
            // One that was only interrupted goes on by itself, once somebody drives it.
            if stopped || !args.wait {
                let resume = What::Resume(run.clone());
                Mutations::new(Arc::clone(&engine)).here(&by, args.revision.map(Revision), resume).await??;
            }
            id
        }
        None => match open.last() {
            Some(summary) => summary.id,
            None => return Err(Rejected::NoSuchRun("that is open".into()).into()),
        },
    };
    if !args.wait {
        eprintln!("run {id} will go on when something drives it; `kamino-wf resume --wait` does");
        return Ok(Code::Ok);
    }
    rest(engine, store, id).await
}

/// Once through all pools.
async fn auto(config: &Config) -> Result<Code> {
    let (drove, runs) = app::auto(config, talk::talking()).await?;
    println!("{}", render::list(&runs, SystemClock.now()));
    Ok(match drove {
        Drove::Signal(signal) => Code::Signal(signal),
        Drove::ToRest => Code::worst(&runs),
    })
}

/// Drives all open runs until the given one is at rest, and ends as it did.
pub(super) async fn rest(engine: Arc<Engine>, store: app::OpenStore, id: RunId) -> Result<Code> {
    match app::drive(engine, store, id).await? {
        (Drove::Signal(signal), _) => Ok(Code::Signal(signal)),
        (Drove::ToRest, summary) => {
            let code = Code::of(&summary);
            if code == Code::NeedsPerson {
                eprintln!("{}", render::to_a_person(&summary, " --wait"));
            }
            Ok(code)
        }
    }
}
