//! The commands: what they are called, what they say, and with which code they end.

mod args;
mod completion;
mod doctor;
mod exit;
mod images;
mod list;
mod plan;
mod plugin;
mod render;
mod rescue;
mod restore;
mod run;
mod select;
mod settings;
#[cfg(feature = "sim")]
mod simulate;
mod status;
mod store;
mod talk;
mod view;
mod watch;
mod words;

pub use args::Cli;
pub use exit::Code;
pub use run::main;
