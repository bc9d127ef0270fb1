//! The `chaos` command: sweeps seeds over the simulated world.

fn main() {}
