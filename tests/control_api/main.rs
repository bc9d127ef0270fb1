//! The API on its real socket, over a real engine and journal on the simulated world: what is asked for well and badly, once
//! and again, before and after a crash.

#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod changes;
mod events;
mod persons;
mod process;
mod routes;
mod watch;
