//! Pure decisions: plain data and `now` in, a choice and its reasons out. No port, no clock, no store; a test enforces it.

pub mod lease;
pub mod leftovers;
pub mod preflight;
pub mod ranking;
pub mod retention;
pub mod scale_out;
pub mod schedule;
pub mod window;
