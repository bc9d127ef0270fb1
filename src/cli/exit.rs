//! Exit codes: documented, stable, one meaning each.

use std::process::ExitCode;

use crate::{
    app::NotNow,
    cluster::ClusterError,
    doctor::ContactError,
    http::CallError,
    restore::RestoreError,
    store::StoreError,
    workflow::{EngineError, StepError, Summary, rescue::RescueError},
};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// As asked.
    Ok,
    /// It failed for a reason that has no code of its own.
    Failed,
    /// Arguments or settings that can't be used; nothing was touched.
    Usage,
    /// A run would change something (`plan --detailed-exitcode`).
    Changes,
    /// There is no such run, node or pool.
    NotFound,
    /// Another process or run is in the way, or the run's state does not allow it.
    Conflict,
    /// The run waits for a person.
    NeedsPerson,
    /// The run failed, and nothing of it is left.
    Undone,
    /// The run failed or was abandoned, and something of it is left.
    LeftDirty,
    /// The run was cancelled, and nothing of it is left.
    Cancelled,
    /// Stopped by a signal; the run goes on where it was.
    Signal(i32),
}

/// For `--help`.
pub(super) const TABLE: &str = "\
Exit codes:
  0    as asked
  1    failed for another reason
  2    arguments or settings that can't be used; nothing was touched
  3    a run would change something (plan --detailed-exitcode)
  4    no such run, node or pool
  5    another process or run is in the way, or the run's state does not allow it
  6    the run waits for a person: describe says why, and what to say to it
  7    the run failed, and nothing of it is left
  8    the run failed or was abandoned, and something of it is left: describe says what
  9    the run was cancelled, and nothing of it is left
  130, 143  stopped by SIGINT or SIGTERM; the run goes on where it was";

impl Code {
    /// The code of a run that has come to rest.
    #[must_use]
    pub fn of(summary: &Summary) -> Self {
        match summary.state.as_str() {
            "done" | "not-needed" => Self::Ok,
            "undone" => Self::Undone,
            "cancelled" => Self::Cancelled,
            "needs-person" | "abandoned" => Self::LeftDirty,
            "parked" | "paused" | "needs-approval" => Self::NeedsPerson,
            _ => Self::Failed,
        }
    }

    /// The code of several runs: of the one that needs a person most.
    #[must_use]
    pub fn worst(runs: &[Summary]) -> Self {
        let codes: Vec<Self> = runs.iter().map(Self::of).collect();
        let order = [Self::LeftDirty, Self::NeedsPerson, Self::Failed, Self::Undone, Self::Cancelled];
        order.into_iter().find(|code| codes.contains(code)).unwrap_or(Self::Ok)
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Changes => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::NeedsPerson => 6,
            Self::Undone => 7,
            Self::LeftDirty => 8,
            Self::Cancelled => 9,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        }
    }
}

/// The page of an error that has one, as it stands behind its words.
pub(super) fn page(error: &anyhow::Error) -> String {
    let store = |cause: &(dyn std::error::Error + 'static)| {
        let store = match cause.downcast_ref() {
            Some(EngineError::Store(store)) => Some(store),
            _ => cause.downcast_ref::<StoreError>(),
        };
        store.map(|it| it.code().to_owned())
    };
    let told = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        Some(CallError::Refused(problem)) => problem.code.clone(),
        _ => None,
    };
    let rescue = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<RescueError>().and_then(RescueError::code).map(str::to_owned)
    };
    let contact = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<ContactError>().and_then(ContactError::code).map(str::to_owned)
    };
    let restore = |cause: &(dyn std::error::Error + 'static)| {
        let code = cause.downcast_ref::<RestoreError>().and_then(RestoreError::code);
        code.or_else(|| cause.is::<NotNow>().then_some("KW0702")).map(str::to_owned)
    };
    let asked = |cause: &(dyn std::error::Error + 'static)| {
        let step = cause.downcast_ref::<StepError>().map(|it| it.code);
        step.or_else(|| cause.is::<ClusterError>().then_some("KW0400")).map(str::to_owned)
    };
    let code = error.chain().find_map(|cause| {
        let known = store(cause).or_else(|| told(cause)).or_else(|| rescue(cause));
        known.or_else(|| contact(cause)).or_else(|| restore(cause)).or_else(|| asked(cause))
    });
    code.map_or_else(String::new, |code| format!(" ({code}: docs/errors/{code}.md)"))
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_not_needed_is_no_failure() {
        let summary = |state: &str| {
            let set = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/g/providers/Microsoft.Compute/\
                       virtualMachineScaleSets/pool1";
            let (now, id) = ("2026-11-24T12:00:00Z", uuid::Uuid::nil());
            let value = serde_json::json!({ "id": id, "run": "0", "scale_set": set, "state": state, "stage": null,
                "step": null, "why": null, "until": null, "donor": null, "version": null, "started": now, "moved": now,
                "warnings": 0 });
            serde_json::from_value::<Summary>(value).expect("a summary")
        };
        assert_eq!(Code::of(&summary("not-needed")), Code::Ok);
        assert_eq!(Code::of(&summary("undone")), Code::Undone, "the control");
        assert_eq!(Code::worst(&[summary("not-needed"), summary("undone")]), Code::Undone);
    }
}
