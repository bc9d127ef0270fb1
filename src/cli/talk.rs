//! What happens to runs while somebody looks on: a line for each event, and on a terminal, below the lines, a bar for each run
//! that is under way. Where stderr is no terminal there are lines only.
//!
//! Whatever else is written meanwhile, the log too, goes through here: it would tear the bars otherwise.

use std::{
    collections::BTreeMap,
    io::{self, Write, stderr},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::render;
use crate::{
    clock::{Clock, SystemClock},
    model::RunId,
    workflow::{Event, Observer, Position, Run, RunState},
};

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
/// The clock of a bar goes on while Azure works.
const TICK: Duration = Duration::from_millis(500);
const LAYOUT: &str = "{prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}";

/// Tells a person on stderr what happens to runs.
pub(super) fn talking() -> Observer {
    let bars = Mutex::new(Bars::default());
    Box::new(move |run: &Run, event: &Event| {
        if let Some(line) = render::progress(run, event) {
            say(&line);
        }
        bars.lock().unwrap_or_else(PoisonError::into_inner).show(run);
    })
}

/// A line on stderr.
pub(super) fn say(line: &str) {
    beside(|| eprintln!("{line}"));
}

/// Writes something where bars may be.
pub(super) fn beside<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// Takes all bars away: the command is at its end.
pub(super) fn over() {
    // A terminal that has gone is no reason to fail.
    let _ = BARS.clear();
}

/// Where the log goes.
pub(super) fn log() -> impl Write {
    Log
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        beside(|| stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// The bars of runs that move by themselves.
#[derive(Debug, Default)]
pub(super) struct Bars(BTreeMap<RunId, ProgressBar>);

impl Bars {
    /// How far a run is.
    pub(super) fn show(&mut self, run: &Run) {
        if BARS.is_hidden() {
            return;
        }
        let Some(position) = run.position().filter(|_| !run.stands()) else {
            if let Some(bar) = self.0.remove(&run.id) {
                bar.finish_and_clear();
            }
            return;
        };
        let bar = self.0.remove(&run.id).unwrap_or_else(|| begun(run));
        let bar = bar.with_elapsed(past(since(position)));
        bar.set_length(u64::try_from(run.plan.len()).unwrap_or_default());
        bar.set_position(u64::try_from(position.step()).unwrap_or_default());
        bar.set_message(doing(run, position));
        self.0.insert(run.id, bar);
    }
}

fn begun(run: &Run) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(0));
    if let Ok(style) = ProgressStyle::with_template(LAYOUT) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(format!("{} {}", run.spec.scale_set.name(), run.id));
    bar.enable_steady_tick(TICK);
    bar
}

/// Since when it is at what it is at.
fn since(position: &Position) -> Timestamp {
    match position {
        Position::Forward { since, .. } | Position::Back { since, .. } => *since,
        Position::Paying(paying) => paying.since,
    }
}

fn past(since: Timestamp) -> Duration {
    Duration::try_from(SystemClock.now().duration_since(since)).unwrap_or_default()
}

fn doing(run: &Run, position: &Position) -> String {
    let step = run.step_name().unwrap_or("to its end");
    let way = match position {
        Position::Forward { .. } => "",
        Position::Paying(_) => "gives the node back: ",
        Position::Back { .. } => "goes back: ",
    };
    match &run.state {
        RunState::Waiting { why, .. } => format!("{way}{step}: {why}"),
        RunState::Running { .. }
        | RunState::Parked { .. }
        | RunState::Paused { .. }
        | RunState::NeedsApproval { .. }
        | RunState::Ended(_) => format!("{way}{step}"),
    }
}
