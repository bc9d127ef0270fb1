//! The engine's contract.
//!
//! A run is a list of steps with a journal. Before a request goes out, its input and the intent to ask are durable; after
//! it was accepted, the operation is; a step is done when a look has seen its effect, never because a call returned.
//! So a crash between any two lines lands on a look. What is promised: at most one surviving effect per intent, and every
//! run ends, or says what it waits for. What is not: that a request is sent only once when its answer was lost.

mod age_out;
mod authority;
mod backup;
mod boots;
mod boundary;
mod delay;
mod describe;
mod driver;
mod ending;
mod engine;
mod gate;
mod images;
mod janitor;
mod janitor_versions;
mod leadership;
mod left;
mod memory;
mod pay;
mod plan;
mod reads;
pub mod recovery;
mod requests;
pub mod rescue;
mod run;
mod scheduler;
mod shown;
mod spec;
mod step;
mod summary;
mod told;
mod turn;
mod words;

pub use authority::Authority;
pub use delay::Pace;
pub use describe::{ApprovalView, Description, StepView};
pub use driver::Driver;
pub use engine::{Engine, EngineError, Next, Observer, Parts};
pub use images::{ImageError, Known, PinAsk, PinReport, PruneAsk, PruneReport, Told, going, pin, prune};
pub use janitor::{Held, SweepReport, Swept, Trouble, known, sweep};
pub use janitor_versions::{Place, failed_runs, sweep_versions};
pub use leadership::{Leadership, LostLease};
pub use left::left;
pub use memory::{memory_of, memory_prefix};
pub use plan::{ATTACHED, ATTACHED_CANARY, LIVE, LIVE_CANARY, OnFailure, STOP, STOP_CANARY, Stage, find, plan, stages};
pub use reads::{News, describe, events, find_run, load, summaries};
pub use requests::{Change, Note, Rejected};
pub use run::{Approval, Event, IllegalEvent, Outcome, Paying, Phase, PlannedStep, Position, Run, RunState};
pub use scheduler::{Followed, Scheduled, follow, follow_once, next_run};
pub use shown::shown;
pub use spec::RunSpec;
pub use step::{Affects, AnyStep, Context, Decide, Decides, Effect, Ports, Seen, StepError, Undone};
pub use summary::{Summary, left_in_words, needless};
