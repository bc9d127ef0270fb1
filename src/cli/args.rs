//! The commands and their arguments.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "sim")]
use super::simulate::{CaptureWay, FirstNode, Trouble};
use super::{
    completion::{CompletionArgs, ManArgs},
    doctor::DoctorArgs,
    exit,
    images::ImagesCommand,
    list::ListArgs,
    rescue::RescueArgs,
    restore::RestoreArgs,
    status::StatusArgs,
    view::{View, ViewArgs},
    words::CancelArgs,
};
use crate::{clean::cli::CleanArgs, config::Overrides, model::NodeName};

/// Flags that every command has, after its own.
const EVERYWHERE: &str = "Options of every command";

/// Keeps the node image of self-managed Kubernetes pools on Azure VM scale sets fresh.
///
/// It takes the most recently rebooted healthy node of a pool, snapshots its OS disk while the node goes on working, cleans a
/// copy of it, makes an image version of the copy, proves it, and makes new nodes start from it. Kill it anywhere: started
/// again, it goes on, with one of everything.
#[derive(Debug, Parser)]
#[command(name = "kamino-wf", version, after_help = exit::TABLE, propagate_version = true)]
pub struct Cli {
    /// Settings file (YAML); /etc/kamino-wf/config.yaml if it is there.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the store; settings say `store`.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// Kubeconfig; in a pod its own service account is the default.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// What to log on stderr, as in `info` or `kamino_wf=debug`; by default `info` when serving, nothing in a simulation,
    /// `warn` otherwise.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Who asks, for the record; `kubectl kamino` says it.
    #[arg(long, global = true, help_heading = EVERYWHERE, hide = true, value_name = "NAME")]
    by: Option<String>,
    /// How to log; JSON when serving, unless told otherwise.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "KAMINO_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// What to log.
    pub(super) fn log(&self) -> &str {
        let quiet = match self.command {
            #[cfg(feature = "sim")]
            Command::Simulate(_) => "off",
            Command::Serve(_) | Command::Auto(_) => "info",
            Command::Start(_)
            | Command::List(_)
            | Command::Describe(_)
            | Command::Resume(_)
            | Command::Cancel(_)
            | Command::Pause(_)
            | Command::Approve(_)
            | Command::Reject(_)
            | Command::Clean(_)
            | Command::Doctor(_)
            | Command::Plan(_)
            | Command::Images(_)
            | Command::Status(_)
            | Command::Rescue(_)
            | Command::Restore(_)
            | Command::Store(_)
            | Command::Config(_)
            | Command::Completion(_)
            | Command::Man(_)
            | Command::Version(_) => "warn",
        };
        self.log.as_deref().unwrap_or(quiet)
    }

    /// Who asks, if that was said.
    pub(super) fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// How to log.
    pub(super) fn log_format(&self) -> LogFormat {
        let serving = matches!(self.command, Command::Serve(_) | Command::Auto(_));
        self.log_format.unwrap_or(if serving { LogFormat::Json } else { LogFormat::Text })
    }

    /// What flags and variables say about settings.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            store: self.store.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Watch a whole update on a simulated cluster and cloud; nothing real is touched.
    #[cfg(feature = "sim")]
    Simulate(SimulateArgs),
    /// Serve as a daemon: drive all runs, follow schedules, answer commands, until a signal comes.
    ///
    /// In a pod (`KAMINO_NAMESPACE`) it takes the Lease first: one process at a time changes the world. Probes and metrics are
    /// on `serve.listen`, commands on the control socket in the store's directory.
    Serve(ServeArgs),
    /// Update all pools once and end, for a scheduled Job.
    ///
    /// Goes on with interrupted runs first, then begins a run for each pool that is due (those without a schedule always are),
    /// and waits until nothing moves by itself. Ends as the run does that needs a person most.
    Auto(AutoArgs),
    /// Start an update of one pool.
    ///
    /// With --wait this process drives the run and ends when the run does; stopped and started again it goes on with it.
    /// Without --wait the run is given to the process that holds the store, or recorded for the next one.
    Start(StartArgs),
    /// Show what a run would do, and change nothing: every node's verdict, what would be refused, what would be made,
    /// changed and taken away, by name, and which rights are missing.
    ///
    /// Takes no Lease, and no lock of a store that another process holds. Ends with 0 when it could look; with
    /// --detailed-exitcode with 3 when a run would change something, and with 7 when one would be refused.
    Plan(PlanArgs),
    /// List runs, newest first.
    List(ListArgs),
    /// Show one run: what it waits for, and its steps.
    Describe(DescribeArgs),
    /// Go on with a parked, paused or waiting run now; without RUN and with --wait, with all open runs.
    Resume(ResumeArgs),
    /// Stop a run before its next stage. A node that is out of service is given back first.
    Pause(RunArgs),
    /// Say yes to what a run asks before a stage (`pools[].approve`); `describe` says what that is.
    Approve(RunArgs),
    /// Say no to it: what the run made is taken away again. No answer within 7 days is a no.
    Reject(RunArgs),
    /// Cancel a run: what it made is taken away again. Refused past the point of no return.
    Cancel(CancelArgs),
    /// Clean a copy of a node's disk; runs in the cleaning pod.
    Clean(Box<CleanArgs>),
    /// Look for whatever would keep a run from going well: store, API server, Azure, rights, clocks, and each pool.
    ///
    /// Changes nothing. Ends with 0 when nothing is wrong, also with warnings, and with 1 when something is.
    ///
    /// With --azure it is another command: once, before kamino-wf is trusted with a pool, it tries out what is believed of Azure
    /// and could not be known without one. It needs a scale set that is there to be thrown away, best with one instance and an
    /// image from the marketplace, and says what it would make, change and cost; with --yes it does. What it makes is named
    /// kwf-doctor-... and taken away again, also after an error, a signal, or by the next one after a crash. Ends with 0 whatever
    /// was seen, with 1 when something is left, and with 2 when the scale set is not one to try things out on.
    Doctor(DoctorArgs),
    /// Show each pool: its scale set, its image, who runs which, its runs, and what the Python tool (kamino) has left.
    ///
    /// Changes nothing. Ends with 0 when all could be read, and with 1 otherwise: what could not is said for each pool.
    Status(StatusArgs),
    /// Bring back a node that a run has left out of service, when that run can't any more; without --node, list such nodes.
    ///
    /// Needs no store: the claim on the node says all of it. Refused while the run may be at it (5), unless --despite-run names
    /// the run. Ends with 0 when the node is in service or nothing was wrong with it, with 4 when there is no such node, and
    /// with 1 when it could not be brought back: asked again it goes on from there.
    Rescue(RescueArgs),
    /// Put back what the first update of a pool overwrote in its scale set's model: image, custom data, extensions.
    ///
    /// Custom data and protected settings can't be read back from Azure: they come from a file of yours, and are kept nowhere. Refused
    /// while a run of the scale set is open, and while the settings would have the next run adopt it again (5). Ends with 0
    /// when the model is as the file says, and with 1 otherwise; asked again it goes on from there.
    Restore(RestoreArgs),
    /// Look at image versions, and decide which stay.
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Look after the store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show the settings that are in force, each with where it comes from. Secrets are never shown.
    Config(ViewArgs),
    /// Print a script that completes commands and flags, for a shell to read.
    ///
    /// bash: `source <(kamino-wf completion bash)` in ~/.bashrc. zsh: into a file `_kamino-wf` in a directory of `$fpath`. fish:
    /// into ~/.config/fish/completions/kamino-wf.fish.
    Completion(CompletionArgs),
    /// Write a man page for each command into a directory, for packagers.
    #[command(hide = true)]
    Man(ManArgs),
    /// Show the version.
    Version(OutputArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct AutoArgs {
    /// Once, and not for ever: that is what `serve` is for.
    #[arg(long, required = true)]
    pub(super) once: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Move no open run before a person resumes or cancels it, and follow no schedule: to look first, after trouble.
    #[arg(long)]
    pub(super) hold_on_start: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs; stable, with apiVersion.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// The pool, by its name in the settings: its best node is the donor.
    #[arg(long, value_name = "NAME", required_unless_present = "node")]
    pub(super) pool: Option<String>,
    /// The donor, by its node's name: this one or none.
    #[arg(long, value_name = "NODE")]
    pub(super) node: Option<NodeName>,
    /// Allow the change of a scale set's model that can't be taken back, on the first run for it.
    #[arg(long)]
    pub(super) adopt: bool,
    /// Drive the run in this process until it ends; where another process holds the store, follow it.
    #[arg(long)]
    pub(super) wait: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["pool", "all"]))]
pub(super) struct PlanArgs {
    /// The pool, by its name in the settings.
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    /// All pools in the settings.
    #[arg(long)]
    pub(super) all: bool,
    /// As `start --adopt` would: not refused because the scale set does not follow the image definition yet.
    #[arg(long)]
    pub(super) adopt: bool,
    /// Say in the exit code whether a run would change something.
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The run: the first digits of its id are enough.
    pub(super) run: String,
    /// Go on with a line for each event as it comes, until the run is at rest; ends as it did.
    #[arg(short, long)]
    pub(super) watch: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: View,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The run: the first digits of its id are enough.
    pub(super) run: String,
    /// Only if the run has not moved since: its `revision` in `describe -o json`. For programs.
    #[arg(long, value_name = "NUMBER")]
    pub(super) revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The run: the first digits of its id are enough.
    #[arg(required_unless_present = "wait")]
    pub(super) run: Option<String>,
    /// Only if the run has not moved since: its `revision` in `describe -o json`. For programs.
    #[arg(long, value_name = "NUMBER", requires = "run")]
    pub(super) revision: Option<u64>,
    /// Drive it in this process until it ends; where another process holds the store, follow it.
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read every byte of the store and say what it holds and whether it is sound. Changes nothing.
    Check(OutputArgs),
    /// Write the whole store to a file, as lines of JSON that people can read and `import` takes.
    ///
    /// Also while a daemon holds it: nothing is stopped. The file is written beside its name and renamed when it is whole.
    Export(ExportArgs),
    /// Make a store of an export, where there is none. Refuses a file that is not whole and right.
    ///
    /// The store keeps its id, its commit number and the newest epoch of the Lease.
    Import(ImportArgs),
    /// Give back the room that deleted and replaced records take: rewrite the store, read it back, swap it in.
    ///
    /// Nobody may hold the store. Killed anywhere, the old store is there or the new one.
    Compact(OutputArgs),
    /// Move a store that can't be trusted aside, and say what its runs may have left in the world.
    ///
    /// Refused for a sound store. Nothing is deleted, in the store or in the world.
    Quarantine(OutputArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write, which may not be there yet; `-` for stdout.
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file that `export` wrote; `-` for stdin.
    pub(super) file: PathBuf,
}

#[cfg(feature = "sim")]
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Everything by chance comes from it: the same seed gives the same update to the last byte.
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    pub(super) seed: u64,
    /// How much faster than real time to show it; 0 shows it at once.
    #[arg(long, value_name = "FACTOR", default_value_t = 1200)]
    pub(super) speed: u32,
    /// What goes wrong now and then, as in `throttles,lost-answers`. What Azure always does is there with every choice:
    /// operations take minutes, and reads lag behind.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME", default_value = "all")]
    pub(super) faults: Vec<Trouble>,
    /// How the donor's disk is captured.
    #[arg(long, value_enum, value_name = "HOW", default_value = "live")]
    pub(super) capture: CaptureWay,
    /// Have the first node that is made from the version watched, and say what comes of it.
    #[arg(long, value_enum, value_name = "FIRST_NODE")]
    pub(super) canary: Option<FirstNode>,
    /// Let kamino-wf crash after every K-th thing it records, and start it again.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) crash_every: Option<u64>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Output,
}
