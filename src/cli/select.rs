//! Which runs `list` shows.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::{
    config::{Config, ConfigError},
    model::ScaleSetId,
    workflow::Summary,
};

/// States as `list` prints them, and two words for many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// Not at an end.
    Open,
    /// At an end, whichever.
    Ended,
    /// A step is under way.
    Running,
    /// Until a time.
    Waiting,
    /// Going back.
    Undoing,
    /// A person is asked.
    Parked,
    /// By a person, before a stage.
    Paused,
    /// A person is asked whether a stage may begin.
    NeedsApproval,
    /// With a new image.
    Done,
    /// Failed, and nothing is left.
    Undone,
    /// By a person.
    Cancelled,
    /// By a person, and something is left.
    Abandoned,
    /// Failed, and something is left.
    NeedsPerson,
}

impl State {
    fn fits(self, run: &Summary) -> bool {
        match self {
            Self::Open => run.open(),
            Self::Ended => !run.open(),
            Self::Running
            | Self::Waiting
            | Self::Undoing
            | Self::Parked
            | Self::Paused
            | Self::NeedsApproval
            | Self::Done
            | Self::Undone
            | Self::Cancelled
            | Self::Abandoned
            | Self::NeedsPerson => self.to_possible_value().is_some_and(|word| word.get_name() == run.state),
        }
    }
}

#[derive(Debug, Clone, Default, Args)]
pub(super) struct SelectArgs {
    /// Only runs in one of these states, as in `--state parked,needs-person`; `open` and `ended` stand for several.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE", conflicts_with = "audit")]
    state: Vec<State>,
    /// Only runs of these pools, by their names in the settings.
    #[arg(long, value_delimiter = ',', value_name = "NAME", conflicts_with = "audit")]
    pool: Vec<String>,
    /// Only what moved since then: a span as in `24h` or `7d`, or a time as in `2026-11-24T00:00:00Z`.
    #[arg(long, value_parser = since, value_name = "SPAN|TIME")]
    since: Option<Since>,
}

/// A moment, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    Ago(Duration),
    At(Timestamp),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse() {
        return Ok(Since::At(at));
    }
    let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let ago = span.ok().and_then(|span| Duration::try_from(span).ok());
    ago.map(Since::Ago).ok_or_else(|| "expected a span as in 24h or 7d, or a time as in 2026-11-24T00:00:00Z".into())
}

/// What was asked for, with names looked up.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    states: Vec<State>,
    scale_sets: Option<Vec<ScaleSetId>>,
    after: Option<Timestamp>,
}

impl SelectArgs {
    /// # Errors
    /// A pool that the settings do not have.
    pub(super) fn looked_up(&self, config: &Config, now: Timestamp) -> Result<Selection, ConfigError> {
        let pools: Vec<ScaleSetId> = self
            .pool
            .iter()
            .map(|name| Ok(config.pool(name)?.scale_set.clone()))
            .collect::<Result<_, ConfigError>>()?;
        let after = self.since.map(|since| match since {
            Since::At(at) => at,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        });
        Ok(Selection { states: self.state.clone(), scale_sets: Some(pools).filter(|it| !it.is_empty()), after })
    }
}

impl Selection {
    pub(super) fn takes(&self, run: &Summary) -> bool {
        let Self { states, scale_sets, after: _ } = self;
        (states.is_empty() || states.iter().any(|state| state.fits(run)))
            && scale_sets.as_ref().is_none_or(|sets| sets.contains(&run.scale_set))
            && self.takes_time(run.moved)
    }

    /// Whether something that happened then is late enough.
    pub(super) fn takes_time(&self, at: Timestamp) -> bool {
        self.after.is_none_or(|after| at >= after)
    }

    /// Whether everything is shown.
    pub(super) fn is_all(&self) -> bool {
        let Self { states, scale_sets, after } = self;
        states.is_empty() && scale_sets.is_none() && after.is_none()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Asked {
        #[command(flatten)]
        select: SelectArgs,
        #[arg(long)]
        audit: bool,
    }

    fn run(state: &str, pool: &str, moved: &str) -> Summary {
        let scale_set = format!(
            "/subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/virtualMachineScaleSets/{pool}"
        );
        serde_json::from_value(json!({
            "id": "01900000-0000-7000-8000-000000000001", "run": "000000000001", "scale_set": scale_set, "state": state,
            "stage": null, "step": null, "why": null, "until": null, "donor": null, "version": null,
            "started": "2026-11-01T00:00:00Z", "moved": moved, "warnings": 0,
        }))
        .expect("a summary")
    }

    fn config() -> Config {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        let pool = |name: &str| {
            json!({ "name": format!("the-{name}"), "profile": "kubeadm", "scaleSet": run("done", name, "2026-11-01T00:00:00Z").scale_set,
            "gallery": "/subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/galleries/protos" })
        };
        std::fs::write(&path, json!({ "pools": [pool("a"), pool("b")] }).to_string()).expect("a file");
        let overrides = crate::config::Overrides { config: Some(path), ..Default::default() };
        Config::load(overrides, &|_| None).expect("good settings")
    }

    #[test]
    fn runs_are_chosen_by_state_pool_and_time() {
        let runs = [
            run("running", "a", "2026-11-24T10:00:00Z"),
            run("parked", "a", "2026-11-20T10:00:00Z"),
            run("done", "b", "2026-11-24T11:00:00Z"),
            run("needs-person", "b", "2026-11-01T10:00:00Z"),
        ];
        let now = "2026-11-24T12:00:00Z".parse().expect("a time");
        for (flags, expected) in [
            ("", vec![0, 1, 2, 3]),
            ("--state open", vec![0, 1]),
            ("--state ended", vec![2, 3]),
            ("--state parked,needs-person", vec![1, 3]),
            ("--state running --state done", vec![0, 2]),
            ("--pool the-a", vec![0, 1]),
            ("--pool the-a,the-b --state open", vec![0, 1]),
            ("--since 24h", vec![0, 2]),
            ("--since 7d", vec![0, 1, 2]),
            ("--since 2026-11-24T10:30:00Z", vec![2]),
            ("--pool the-b --since 7d --state done", vec![2]),
        ] {
            let words = ["list"].into_iter().chain(flags.split_whitespace());
            let asked = Asked::try_parse_from(words).expect("good flags");
            let selection = asked.select.looked_up(&config(), now).expect("the pools are there");
            let found: Vec<usize> = (0..runs.len()).filter(|at| selection.takes(&runs[*at])).collect();
            assert_eq!(found, expected, "{flags}");
            assert_eq!(selection.is_all(), flags.is_empty());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in
            ["--since yesterday", "--since", "--state sleeping", "--audit --state open", "--audit --pool the-a"]
        {
            let words = ["list"].into_iter().chain(flags.split_whitespace());
            assert!(Asked::try_parse_from(words).is_err(), "{flags}");
        }
        let asked = Asked::try_parse_from(["list", "--pool", "c"]).expect("a name");
        let error = asked.select.looked_up(&config(), Timestamp::UNIX_EPOCH).expect_err("no such pool").to_string();
        assert!(error.contains("\"c\"") && error.contains("the-a, the-b"), "{error}");
    }
}
