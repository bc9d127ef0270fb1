//! The control socket: whoever holds the store answers here, beside the store, and only to those who may open the socket.

mod client;
mod control;
mod health;
mod metrics;

pub use client::{CallError, Client};
pub use control::{By, Problem, Start, Started, router, socket_path};
pub use health::{Vitals, probes};
pub use metrics::Metrics;
