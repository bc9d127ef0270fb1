//! The control socket: whoever holds the store answers here, beside the store, and only to those who may open the socket.
//!
//! What can be asked stands in `api.rs`, once for both sides.

mod api;
mod backup;
mod client;
mod control;
mod events;
mod failure;
mod follow;
mod health;
mod images;
mod listen;
mod metrics;
mod mutations;
mod pieces;
mod to_the_end;

pub use api::{
    Answer, AuditEntry, AuditList, By, Changed, Peer, Problem, ProblemKind, RunList, RunView, Start, VERSION, Verb,
    Verdict, socket_path,
};
pub use client::{CallError, Client, Terms};
pub use control::serve;
pub use follow::{Follow, Heard};
pub use health::{Vitals, probes};
pub use images::{PinRequest, PruneRequest};
pub use listen::listen;
pub use metrics::Metrics;
pub use mutations::{Mutations, What, audit_entries, audit_prefix};
pub use pieces::Pieces;
