//! The commands' side of a stream of events.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    client::{CallError, Driving},
    events::{END, HEARTBEAT},
};
use crate::workflow::{Event, Summary};

/// After three signs of life that did not come, nobody is there.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());
/// A record is at most 64 KiB; its text as JSON in JSON is not much more.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Something that came.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An event of the run.
    Event {
        /// Its place in the run's journal.
        seq: u64,
        /// What happened.
        event: Box<Event>,
    },
    /// The run is at an end; nothing comes after this.
    End(Box<Summary>),
}

/// A run's events as they come.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Follow {
    path: PathBuf,
    body: Incoming,
    driving: Option<Driving>,
    parser: Parser,
}

impl Follow {
    pub(super) fn new(path: PathBuf, body: Incoming, driving: Driving) -> Self {
        Self { path, body, driving: Some(driving), parser: Parser::default() }
    }

    /// The next, or `None` when the stream has ended: come again with the number of the newest event.
    ///
    /// # Errors
    /// [`CallError::Broken`]: come again, too. What came before is good.
    pub async fn next(&mut self) -> Result<Option<Heard>, CallError> {
        let path = self.path.clone();
        let broken = move |detail: String| CallError::Broken { path: path.clone(), detail };
        loop {
            if let Some(frame) = self.parser.ready.pop_front() {
                match understood(&frame).map_err(&broken)? {
                    Some(heard) => return Ok(Some(heard)),
                    None => continue,
                }
            }
            let Ok(piece) = timeout(SILENCE, self.piece()).await else {
                return Err(broken(format!("no sign of life for {} s", SILENCE.as_secs())));
            };
            match piece.map_err(|error| broken(error.to_string()))? {
                Some(bytes) => self.parser.feed(&bytes).map_err(&broken)?,
                None => return Ok(None),
            }
        }
    }

    async fn piece(&mut self) -> hyper::Result<Option<Bytes>> {
        loop {
            let frame = match &mut self.driving {
                Some(driving) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    // The body says how it ended.
                    _ = driving => {
                        self.driving = None;
                        continue;
                    }
                },
                None => self.body.frame().await,
            };
            match frame.transpose()? {
                // Trailers say nothing.
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

fn understood(frame: &Frame) -> Result<Option<Heard>, String> {
    fn read<T: DeserializeOwned>(frame: &Frame) -> Result<T, String> {
        serde_json::from_str(&frame.data).map_err(|error| format!("an event of another release? {error}"))
    }
    match frame {
        // A heartbeat, or what a later release may say beside events.
        Frame { event, id, .. } if event != END && id.is_empty() => Ok(None),
        Frame { event, .. } if event == END => Ok(Some(Heard::End(Box::new(read(frame)?)))),
        Frame { id, .. } => {
            let seq = id.parse().map_err(|_| format!("{id:?} is no number of an event"))?;
            Ok(Some(Heard::Event { seq, event: Box::new(read(frame)?) }))
        }
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Frame {
    event: String,
    id: String,
    data: String,
}

/// Server-sent events out of bytes, wherever they are cut. As the HTML standard says, less what our server never sends.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    frame: Frame,
    ready: VecDeque<Frame>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.frame.data.len() > LINE_BYTES_MAX {
                    return Err("an event without end".into());
                }
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|error| error.to_string())?;
            self.take(line.strip_suffix('\r').unwrap_or(&line));
        }
        Ok(())
    }

    fn take(&mut self, line: &str) {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if !frame.data.is_empty() {
                self.ready.push_back(frame);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.event),
            "id" => value.clone_into(&mut self.frame.id),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            // A comment, or a field that is not for us.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let text =
            ": alive\n\nid: 7\nevent: cleared\ndata: {\"a\":\ndata: \"é\"}\n\nevent: end\ndata:{}\r\n\r\nid: 9\n\n";
        let whole = [
            Frame { event: "cleared".into(), id: "7".into(), data: "{\"a\":\n\"é\"}".into() },
            Frame { event: "end".into(), id: String::new(), data: "{}".into() },
        ];
        for cut in 0..=text.len() {
            let mut parser = Parser::default();
            let (front, back) = text.as_bytes().split_at(cut);
            parser.feed(front).expect("short");
            parser.feed(back).expect("short");
            assert_eq!(parser.ready, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 4096];
        let fed: Result<Vec<()>, String> = (0..=LINE_BYTES_MAX / piece.len()).map(|_| parser.feed(&piece)).collect();
        assert_eq!(fed, Err("an event without end".to_owned()));
    }
}
