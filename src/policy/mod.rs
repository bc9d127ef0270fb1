//! Pure decisions: plain data and `now` in, a choice and its reasons out. No port, no clock, no store; a test enforces it.

pub mod canary;
pub mod drain;
pub mod evictions;
pub mod gates;
pub mod history;
pub mod lease;
pub mod leftovers;
pub mod obligations;
pub mod preflight;
pub mod provenance;
pub mod ranking;
pub mod rescue;
pub mod retention;
pub mod scale_out;
pub mod schedule;
pub mod takeover;
pub mod unproven;
pub mod window;
