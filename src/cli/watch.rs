//! `describe --watch`: a line for each event of a run as it comes, over restarts of whoever drives it, until it is at rest.

use std::{
    io::{Write, stderr, stdout},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use super::{
    exit::Code,
    render,
    talk::{self, Bars},
};
use crate::{
    http::{CallError, Client, Heard, VERSION},
    workflow::{Description, Event, Run, Summary},
};

/// Without anybody who holds the store. A pod that moves to another node with its volume takes a minute or two.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks for somebody who does.
const LOOK: Duration = Duration::from_millis(500);

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// As words on stdout, from now on: the past was shown.
    Words,
    /// As words on stderr, from the beginning: stdout has other data.
    Talk,
    /// As a JSON object each on stdout, from the beginning.
    Json,
}

/// Signals, from the moment on that a person may think it watches.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(super) fn listen() -> Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }
}

impl Interrupts {
    /// The number of the signal that comes.
    pub(super) async fn next(self) -> i32 {
        let Self { mut interrupt, mut terminate } = self;
        tokio::select! {
            biased;
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        }
    }
}

/// From a run that was just looked at; `held` says whether somebody who holds the store was asked.
pub(super) async fn from(
    store: &Path,
    seen: &Description,
    lines: Lines,
    held: bool,
    interrupts: Interrupts,
) -> Result<Code> {
    let mut watch =
        Watch { run: Run::fold(seen.summary.id, seen.events.iter().cloned())?, seq: 0, lines, bars: Bars::default() };
    if lines == Lines::Words {
        watch.seq = u64::try_from(seen.events.len())?;
        if held && seen.summary.open() {
            say(stdout(), "")?;
        }
    } else {
        watch.past(&seen.events)?;
    }
    let rest = watch.rest();
    if !held {
        eprintln!("nobody holds the store in {}: nothing moves, and this is all there is", store.display());
        return Ok(Code::of(&Summary::of(&watch.run)));
    }
    if let Some(code) = rest {
        return watch.ended(code);
    }
    watch.bars.show(&watch.run);
    watch.interruptible(store, interrupts).await
}

/// A run that somebody else drives, until it is at rest: as if it was driven here.
pub(super) async fn to_rest(store: &Path, client: &Client, run: &str) -> Result<Code> {
    let interrupts = Interrupts::listen()?;
    let seen = client.describe(run).await?;
    from(store, &seen.description, Lines::Talk, true, interrupts).await
}

struct Watch {
    run: Run,
    /// The newest event that was printed.
    seq: u64,
    lines: Lines,
    bars: Bars,
}

impl Watch {
    /// Prints what was before.
    fn past(&mut self, events: &[Event]) -> Result<()> {
        let Some((first, later)) = events.split_first() else { return Ok(()) };
        self.run = Run::begin(self.run.id, first.clone())?;
        self.seq = 1;
        self.print(first)?;
        for (event, seq) in later.iter().zip(2..) {
            self.take(seq, event)?;
        }
        Ok(())
    }

    fn take(&mut self, seq: u64, event: &Event) -> Result<()> {
        if seq != self.seq + 1 {
            bail!("event {seq} came after {}: one is missing, or was sent twice; please report it", self.seq);
        }
        self.run.apply(event.clone())?;
        self.seq = seq;
        self.print(event)?;
        self.bars.show(&self.run);
        Ok(())
    }

    fn print(&self, event: &Event) -> Result<()> {
        let words = || render::progress(&self.run, event);
        match self.lines {
            Lines::Words => words().map_or(Ok(()), |line| say(stdout(), &line)),
            Lines::Talk => words().map_or(Ok(()), |line| say(stderr(), &line)),
            Lines::Json => {
                let line = json!({
                    "apiVersion": VERSION, "kind": "Event", "run": self.run.id.short(), "revision": self.seq,
                    "event": event,
                });
                say(stdout(), &line.to_string())
            }
        }
    }

    /// The code of a run that does not move by itself.
    fn rest(&self) -> Option<Code> {
        let rests = self.run.ended() || self.run.stands();
        rests.then(|| Code::of(&Summary::of(&self.run)))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as every end of a command")]
    fn ended(&self, code: Code) -> Result<Code> {
        if code == Code::NeedsPerson {
            eprintln!("{}", render::to_a_person(&Summary::of(&self.run), ""));
        }
        Ok(code)
    }

    async fn interruptible(&mut self, store: &Path, interrupts: Interrupts) -> Result<Code> {
        let Interrupts { mut interrupt, mut terminate } = interrupts;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(Code::Signal(2)),
            _ = terminate.recv() => Ok(Code::Signal(15)),
            code = self.follow(store) => self.ended(code?),
        }
    }

    async fn follow(&mut self, store: &Path) -> Result<Code> {
        loop {
            let client = self.holder(store).await?;
            let lost = match self.listen(&client).await? {
                Ok(code) => return Ok(code),
                Err(lost) => lost,
            };
            tracing::debug!(lost, seq = self.seq, "the stream of events has ended");
            // Not as fast as it can: whoever is stopping may still answer.
            sleep(LOOK).await;
        }
    }

    /// Whoever holds the store, also if it is just being replaced.
    async fn holder(&self, store: &Path) -> Result<Client> {
        let since = Instant::now();
        let mut said = false;
        loop {
            if let Some(client) = Client::connect(store).await? {
                if said {
                    talk::say("somebody holds the store again");
                }
                return Ok(client);
            }
            if since.elapsed() > PATIENCE {
                let (run, minutes) = (self.run.id, PATIENCE.as_secs() / 60);
                bail!("nobody has held the store for {minutes} minutes; run {run} does not move meanwhile");
            }
            if !said {
                talk::say("the process that held the store is gone; waiting for the next, up to 5 minutes");
                said = true;
            }
            sleep(LOOK).await;
        }
    }

    /// Until the run is at rest, or the stream ends for another reason.
    async fn listen(&mut self, client: &Client) -> Result<Result<Code, String>> {
        // The full id: digits that were enough may have become too few.
        let run = self.run.id.0.to_string();
        let mut stream = match client.follow(&run, self.seq).await {
            Ok(stream) => stream,
            Err(CallError::Broken { detail, .. }) => return Ok(Err(detail)),
            Err(refused @ CallError::Refused(_)) => return Err(refused.into()),
        };
        loop {
            match stream.next().await {
                Ok(Some(Heard::Event { seq, event })) => {
                    self.take(seq, &event)?;
                    if let Some(code) = self.rest() {
                        return Ok(Ok(code));
                    }
                }
                Ok(Some(Heard::End(summary))) => return Ok(Ok(Code::of(&summary))),
                Ok(None) => return Ok(Err("it ended".into())),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }
}

/// A reader that has gone (`| head`) is told nothing more; it is no fault of ours, and no success either.
fn say(mut to: impl Write, line: &str) -> Result<()> {
    let written = talk::beside(|| writeln!(to, "{line}").and_then(|()| to.flush()));
    written.context("failed to print an event")
}
