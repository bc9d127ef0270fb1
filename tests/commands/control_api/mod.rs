//! The API on its real socket, over a real engine and journal on the simulated world: what is asked for well and badly, once
//! and again, before and after a crash.

mod backup;
mod changes;
mod events;
mod persons;
mod process;
mod routes;
mod watch;
