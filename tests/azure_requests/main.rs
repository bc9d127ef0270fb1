//! The real adapter against the loopback ARM face: what goes over the wire, and what comes of what the wire does.

#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests, outside of test functions")]

// Its macro is for those after it.
#[macro_use]
mod requests;

mod credentials;
mod first_contact;
mod flexible;
mod restore;
mod secrets;
mod stage;
#[path = "../support/trial.rs"]
mod trial;
mod troubles;
mod update;
