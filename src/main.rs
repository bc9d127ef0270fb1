//! The `kamino-wf` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    kamino_wf::cli::main()
}
