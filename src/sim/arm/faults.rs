//! Troubles of the wire that no world knows of: planted one by one, each for a given number of requests.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The connection is cut before the world hears of it.
    CutBefore,
    /// The world acts, then the connection is cut.
    CutAfter,
    /// This answer, and the world hears nothing.
    Answer {
        /// The status.
        status: u16,
        /// Headers by their names in lower case.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Value,
    },
    /// The next page, or the operation, is said to be on this host.
    ForeignHost(String),
}

/// A fault and where it strikes.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// The method, as in `PUT`.
    pub method: &'static str,
    /// A part of the path, whatever its case.
    pub path_part: String,
    /// How many requests it strikes.
    pub times: u32,
    /// What happens to them.
    pub fault: Fault,
}

/// What is planted and has not struck yet.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Injection>>);

impl Faults {
    pub(super) fn plant(&self, injection: Injection) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(injection);
    }

    /// The first planted fault that fits, used up by one.
    pub(super) fn strike(&self, method: &str, path: &str) -> Option<Fault> {
        let mut planted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path.to_ascii_lowercase();
        let hit = planted
            .iter_mut()
            .find(|it| it.times > 0 && it.method == method && path.contains(&it.path_part.to_ascii_lowercase()))?;
        hit.times -= 1;
        Some(hit.fault.clone())
    }
}
