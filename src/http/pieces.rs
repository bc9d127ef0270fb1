//! An answer that is too large to be held, piece by piece.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::client::{CallError, Driving};

/// Between two pieces: each is one run's records, read from the disk under the store.
const SILENCE: Duration = Duration::from_mins(1);

/// The body of an answer as it comes.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Pieces {
    path: PathBuf,
    body: Incoming,
    driving: Option<Driving>,
}

impl Pieces {
    pub(super) fn new(path: PathBuf, body: Incoming, driving: Driving) -> Self {
        Self { path, body, driving: Some(driving) }
    }

    /// The next, or `None` when all has come.
    ///
    /// # Errors
    /// [`CallError::Broken`]: what came before is only a part.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let path = self.path.clone();
        let broken = move |detail: String| CallError::Broken { path, detail };
        match timeout(SILENCE, self.piece()).await {
            Ok(piece) => piece.map_err(|error| broken(error.to_string())),
            Err(_) => Err(broken(format!("nothing came for {} s", SILENCE.as_secs()))),
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
            match frame.transpose()?.map(hyper::body::Frame::into_data) {
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                // Trailers say nothing.
                Some(Err(_)) => {}
                None => return Ok(None),
            }
        }
    }
}
