//! The simulated world.

pub mod arm;
