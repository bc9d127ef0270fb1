//! The commands: what they are called, what they say, and with which code they end.

mod args;
mod exit;
mod plan;
mod plugin;
mod render;
mod run;
#[cfg(feature = "sim")]
mod simulate;
mod watch;

pub use args::Cli;
pub use exit::Code;
pub use run::main;
