//! What people and programs ask of the real binary where there is neither Azure nor a cluster: what they type well and badly, what
//! they read, the API on its socket, and a whole store that is moved, compacted and damaged.
#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../support/strace.rs"]
#[expect(dead_code, reason = "the store's own tests use the rest")]
mod strace;
#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod cli;
mod control_api;
mod readme;
mod store_moves;
mod views;
