//! What a run of a pool would do right now, found out by the very looks and rules of its own steps. Changes nothing.

mod objects;
mod pool;
mod report;

pub use pool::{Known, Wanted, pool};
pub use report::{Change, Object, PoolPlan, Prospect};
