//! What of a run's events people and programs are shown: all but what gives access.
//!
//! The journal needs the signed URL of an operation, byte for byte, to ask how it is after a crash. Nobody else does: whoever
//! has it can read the operation's outcome without a login of their own. So it leaves the store on one way only, back to Azure.

use super::run::Event;
use crate::cloud::Accepted;

/// The event as it is shown.
#[must_use]
pub fn shown(event: Event) -> Event {
    match event {
        Event::Asked { at, accepted } => {
            let operation = accepted.operation.map(|operation| operation.without_signature());
            Event::Asked { at, accepted: Accepted { operation, ..accepted } }
        }
        other @ (Event::Started { .. }
        | Event::Decided { .. }
        | Event::Asking { .. }
        | Event::NotAsked { .. }
        | Event::SetBack { .. }
        | Event::Cleared { .. }
        | Event::Confirmed { .. }
        | Event::Waiting { .. }
        | Event::Skipped { .. }
        | Event::Undoing { .. }
        | Event::StepUndone { .. }
        | Event::Owed { .. }
        | Event::Paying { .. }
        | Event::Paid { .. }
        | Event::PersonAsked { .. }
        | Event::Parked { .. }
        | Event::Resumed { .. }
        | Event::CancelRequested { .. }
        | Event::AbandonRequested { .. }
        | Event::PauseRequested { .. }
        | Event::Paused { .. }
        | Event::ApprovalAsked { .. }
        | Event::Approved { .. }
        | Event::Rejected { .. }
        | Event::Ended { .. }) => other,
    }
}
