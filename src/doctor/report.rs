//! What was looked at, what was seen, and what to do about it.

use jiff::SignedDuration;
use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing speaks against it.
    Ok,
    /// It could not be looked at; the text says why.
    Skipped,
    /// It works now, and may not tomorrow.
    Warning,
    /// A run would fail, or be refused.
    Wrong,
}

impl State {
    /// The word in tables and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, as in `API server`.
    pub name: String,
    /// How it came out.
    pub state: State,
    /// What was seen, or why nothing was.
    pub seen: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub fn ok(name: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, seen: seen.into(), remedy: None }
    }

    /// It could not be looked at.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Skipped, seen: why.into(), remedy: None }
    }

    /// It may not go well for ever.
    pub fn warning(name: impl Into<String>, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Warning, seen: seen.into(), remedy: Some(remedy.into()) }
    }

    /// It does not go.
    pub fn wrong(name: impl Into<String>, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Wrong, seen: seen.into(), remedy: Some(remedy.into()) }
    }

    /// Two clocks, of which the other is `ahead`. Tokens are refused from five minutes on; times in the store, in tags and in
    /// the Lease are misread long before.
    pub(super) fn clock(name: &str, ahead: Option<SignedDuration>) -> Self {
        const REMEDY: &str = "let NTP or chrony set this node's clock";
        let Some(ahead) = ahead else { return Self::skipped(name, "its answers carry no date") };
        let seconds = ahead.as_secs();
        let seen = match seconds {
            -1..=1 => "in step with ours".to_owned(),
            2.. => format!("{seconds} s ahead of ours"),
            _ => format!("{} s behind ours", -seconds),
        };
        match seconds.unsigned_abs() {
            0..=30 => Self::ok(name, seen),
            31..=300 => Self::warning(name, seen, REMEDY),
            _ => Self::wrong(name, seen, REMEDY),
        }
    }
}

/// All that was looked at, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// One each.
    pub checks: Vec<Check>,
}

impl Report {
    /// How many came out so.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }

    /// A run would go well, as far as can be told.
    #[must_use]
    pub fn good(&self) -> bool {
        self.count(State::Wrong) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_half_a_minute() {
        let state = |seconds| Check::clock("clock", Some(SignedDuration::from_secs(seconds))).state;
        assert_eq!([0, 30, -30].map(state), [State::Ok; 3]);
        assert_eq!([31, -31, 300, -300].map(state), [State::Warning; 4]);
        assert_eq!([301, -301, 86_400].map(state), [State::Wrong; 3]);
        assert_eq!(Check::clock("clock", None).state, State::Skipped);
        assert_eq!(Check::clock("clock", Some(SignedDuration::from_secs(-40))).seen, "40 s behind ours");
    }
}
