//! The `kamino-wf` command.

use std::process::ExitCode;

use clap::Parser;
use kamino_wf::clean::cli::{self, CleanArgs};

#[derive(Parser)]
#[command(name = "kamino-wf", version)]
enum Command {
    Clean(CleanArgs),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Clean(args) => cli::run(args),
    }
}
