//! The commands: what they are called, what they say, and with which code they end.

mod args;
mod exit;
mod plugin;
mod render;
mod run;
#[cfg(feature = "sim")]
mod simulate;
mod store;
mod watch;

pub use args::Cli;
pub use exit::Code;
pub use run::main;
