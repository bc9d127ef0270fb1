//! Whole updates in the simulated world, and what else speaks to all of it: under paused time, by seed, crashed at every point.
#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test says what should have held")]

mod attached;
mod canary;
mod determinism;
mod drain;
mod flexible;
mod harness;
mod janitor;
mod kamino;
mod lease;
mod persons;
mod plan;
mod planted;
mod ranking;
mod refusals;
mod rescue;
mod retention;
mod schedule;
mod stop;
mod takeover;
mod update;
mod upgrade;
