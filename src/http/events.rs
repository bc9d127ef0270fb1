//! A run's events as they come: server-sent events whose id is the event's place in the run's journal.
//!
//! Whoever says which was the newest that it has gets exactly those after it, also from another process: what is sent is read
//! from the journal, and nothing is sent that is not durable. A reader that is slow holds one handful of events in memory.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tracing::warn;

use super::control::stopped;
use crate::{
    model::RunId,
    store::Revision,
    workflow::{Engine, News, shown},
};

/// Between two signs of life. Proxies give up on a silent connection after a minute, ours after three of them.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events in memory for one reader.
const HANDFUL: usize = 32;
/// The name of the event after the last.
pub(super) const END: &str = "end";

struct Reader {
    engine: Arc<Engine>,
    run: RunId,
    after: Revision,
    recorded: watch::Receiver<u64>,
    shutdown: watch::Receiver<bool>,
    ready: VecDeque<Sent>,
    finished: bool,
}

/// The events after a revision, then `end` once the run is at an end. Ends without one at shutdown: come again.
pub(super) fn stream(
    engine: Arc<Engine>,
    run: RunId,
    after: Revision,
    shutdown: watch::Receiver<bool>,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>>> {
    let recorded = engine.recorded();
    let reader = Reader { engine, run, after, recorded, shutdown, ready: VecDeque::new(), finished: false };
    let events = stream::unfold(reader, async |mut reader| {
        let next = reader.next().await?;
        Some((Ok(next), reader))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

impl Reader {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.finished {
                return None;
            }
            // Before the look: what is recorded after it wakes us again.
            self.recorded.mark_unchanged();
            if self.engine.revision(self.run).await.is_none_or(|revision| revision > self.after) {
                self.look().await;
            }
            if !self.ready.is_empty() || self.finished {
                continue;
            }
            tokio::select! {
                biased;
                () = stopped(self.shutdown.clone()) => return None,
                changed = self.recorded.changed() => changed.ok()?,
            }
        }
    }

    async fn look(&mut self) {
        let news = match self.engine.news(self.run, self.after, HANDFUL).await {
            Ok(Ok(news)) => news,
            Ok(Err(error)) => return self.give_up(&error),
            Err(error) => return self.give_up(&error),
        };
        let News { revision: _, events, end } = news;
        for (seq, event) in events {
            match Sent::default().id(seq.to_string()).event(event.kind()).json_data(shown(event)) {
                Ok(sent) => self.ready.push_back(sent),
                Err(error) => return self.give_up(&error),
            }
            self.after = Revision(seq);
        }
        if let Some(summary) = end {
            self.finished = true;
            // Without an id: it is no event of the journal.
            self.ready.extend(Sent::default().event(END).json_data(&summary).ok());
        }
    }

    /// The reader comes again, and is told then.
    fn give_up(&mut self, error: &dyn std::fmt::Display) {
        warn!(run = %self.run, %error, "a stream of events ended early");
        self.finished = true;
    }
}
