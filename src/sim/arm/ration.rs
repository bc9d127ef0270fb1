//! A ration of requests: a bucket that fills by itself, and 429 when it is empty [Microsoft's "Compute throttling limits"].

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::handle::{Answer, pause};

/// A bucket is full after so long.
const FILLS: Duration = Duration::from_mins(3);
/// What a request to an empty one is told.
const RETRY_AFTER: Duration = Duration::from_mins(2);

#[derive(Debug)]
struct Bucket {
    capacity: f64,
    left: f64,
    at: Instant,
}

/// None at first.
#[derive(Debug, Default)]
pub(super) struct Ration(Mutex<Option<Bucket>>);

impl Ration {
    pub(super) fn set(&self, capacity: u32, left: u32) {
        let bucket = Bucket { capacity: capacity.into(), left: left.into(), at: Instant::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bucket);
    }

    /// Takes one; the answer when there is none.
    pub(super) fn take(&self) -> Option<Answer> {
        let mut ration = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = ration.as_mut()?;
        bucket.fill();
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return None;
        }
        let error = json!({ "error": {
            "code": "OperationNotAllowed",
            "message": "The server rejected the request because too many requests have been received for this subscription.",
            "details": [{ "code": "TooManyRequests", "target": "GetDisk3Min", "message": "{}" }],
        }});
        Some(Answer { status: StatusCode::TOO_MANY_REQUESTS, headers: pause(RETRY_AFTER), body: error })
    }

    /// As a header says it.
    pub(super) fn left(&self) -> Option<String> {
        let mut ration = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = ration.as_mut()?;
        bucket.fill();
        Some(format!("Microsoft.Compute/GetDisk3Min;{}", bucket.left.floor()))
    }
}

impl Bucket {
    fn fill(&mut self) {
        let passed = self.at.elapsed().as_secs_f64() / FILLS.as_secs_f64();
        self.at = Instant::now();
        self.left = (self.left + passed * self.capacity).min(self.capacity);
    }
}
