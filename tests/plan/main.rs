//! `kamino-wf plan`: what it says is what the run then does; it changes nothing; and the README shows what it prints.
#![cfg(feature = "sim")]
#![expect(clippy::expect_used, reason = "a helper that cannot go on ends the test")]

#[path = "../support/mod.rs"]
mod support;

mod binary;
mod simulated;
