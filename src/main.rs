//! The `kamino-wf` command.

fn main() {}
