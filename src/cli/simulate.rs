//! `kamino-wf simulate`: a whole update on the simulated world, as a newcomer can follow it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    args::{Output, SimulateArgs},
    exit::Code,
    render,
};
use crate::{
    config::ConfigError,
    model::Capture,
    policy::canary::{Canary, Limits},
    sim::{Faults, Line, Newcomer, Outcome, Scene, Session, Stop, Watcher},
    workflow::{Event, Run, find, stages},
};

/// What may go wrong on the simulated day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Trouble {
    /// All of what follows.
    All,
    /// None of it: a good day.
    None,
    /// Runs nothing, and says which there are.
    List,
    /// Answers get lost after the request took effect: it has to look before it asks again.
    LostAnswers,
    /// Requests get lost before they arrive.
    LostRequests,
    /// What was just made is not there for a while: an absence proves nothing.
    StaleReads,
    /// Operations fail minutes after they were accepted, and answer so with a 200.
    Failures,
    /// Requests are throttled, for twenty minutes at a time.
    Throttles,
    /// Cleaning pods are killed half-way.
    KilledPods,
}

impl Trouble {
    const SINGLE: [Self; 6] =
        [Self::LostAnswers, Self::LostRequests, Self::StaleReads, Self::Failures, Self::Throttles, Self::KilledPods];

    /// Its name, and what it is in words.
    fn told(self) -> (String, String) {
        let value = self.to_possible_value();
        let name = value.as_ref().map_or_else(String::new, |value| value.get_name().to_owned());
        let help = value.and_then(|value| value.get_help().map(ToString::to_string));
        (name, help.unwrap_or_default())
    }
}

/// How the donor's disk is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CaptureWay {
    /// While it goes on working: a copy of its disk is cleaned.
    Live,
    /// Drained, cleaned and off for its snapshot, and given back.
    Stop,
}

/// What comes of the first node that is made from a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FirstNode {
    /// It is as good as its donor.
    Good,
    /// Its machine never becomes a node.
    NeverJoins,
    /// The same, and an autoscaler gives up on it.
    GivenUp,
    /// It is never Ready.
    NeverReady,
    /// It is Ready, and soon silent.
    FallsSilent,
    /// It is short of disk.
    UnderPressure,
    /// It has the donor's machine id.
    SameMachineId,
    /// It has the donor's system UUID.
    SameSystemUuid,
    /// It has another kubelet.
    OtherKubelet,
}

/// The day of a seed, as far as it was not said otherwise.
fn scene(args: &SimulateArgs, troubles: &[Trouble]) -> Scene {
    let scene = Scene::of_seed(args.seed, day(troubles));
    let capture = match args.capture {
        CaptureWay::Live => Capture::Live,
        CaptureWay::Stop => Capture::Stop,
    };
    let Some(first) = args.canary else { return Scene { capture, ..scene } };
    let newcomer = match first {
        FirstNode::Good => Newcomer::Good,
        FirstNode::NeverJoins => Newcomer::NeverJoins,
        FirstNode::GivenUp => Newcomer::GivenUp,
        FirstNode::NeverReady => Newcomer::NeverReady,
        FirstNode::FallsSilent => Newcomer::FallsSilent,
        FirstNode::UnderPressure => Newcomer::UnderPressure,
        FirstNode::SameMachineId => Newcomer::SameMachineId,
        FirstNode::SameSystemUuid => Newcomer::SameSystemUuid,
        FirstNode::OtherKubelet => Newcomer::OtherKubelet,
    };
    // Of a pool that follows the definition already: there is a version to go back to, and it grows by one.
    Scene { capture, canary: Canary::FirstNode(Limits::default()), newcomer, adopted: true, ..scene }
}

/// Those that were chosen, each once.
fn chosen(names: &[Trouble]) -> Result<Vec<Trouble>, ConfigError> {
    match names {
        [Trouble::All] => return Ok(Trouble::SINGLE.to_vec()),
        [Trouble::None] => return Ok(Vec::new()),
        _ => {}
    }
    if let Some(alone) = names.iter().find(|name| !Trouble::SINGLE.contains(name)) {
        let value = names.iter().map(|name| name.told().0).collect::<Vec<_>>().join(",");
        let remedy = format!("{} stands alone; name others without it", alone.told().0);
        return Err(ConfigError::Bad { setting: "--faults".into(), value, remedy });
    }
    Ok(Trouble::SINGLE.into_iter().filter(|one| names.contains(one)).collect())
}

fn day(chosen: &[Trouble]) -> Faults {
    let bad = Faults::bad_day();
    let on = |one: Trouble, chance: u32| if chosen.contains(&one) { chance } else { 0 };
    Faults {
        stale_reads: on(Trouble::StaleReads, bad.stale_reads),
        lost_answers: on(Trouble::LostAnswers, bad.lost_answers),
        lost_requests: on(Trouble::LostRequests, bad.lost_requests),
        throttles: on(Trouble::Throttles, bad.throttles),
        failures: on(Trouble::Failures, bad.failures),
        killed_pods: on(Trouble::KilledPods, bad.killed_pods),
        budget: bad.budget,
    }
}

/// What `--faults list` prints.
fn list(output: Output) -> Result<Code> {
    let all = Trouble::SINGLE.map(Trouble::told);
    match output {
        Output::Table => println!("{}", render::rows(&["FAULT", "MEANS"], all.map(|(name, means)| vec![name, means]))),
        Output::Json => super::run::print_json(&json!({
            "apiVersion": "kamino-wf/v1",
            "kind": "FaultList",
            "faults": all.map(|(name, means)| json!({ "name": name, "means": means })),
        }))?,
    }
    Ok(Code::Ok)
}

/// Runs a simulation and prints its timeline.
pub(super) fn run(args: &SimulateArgs) -> Result<Code> {
    if args.faults == [Trouble::List] {
        return list(args.output);
    }
    let troubles = chosen(&args.faults)?;
    let scene = scene(args, &troubles);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .context("failed to start the runtime")?;
    let timeline =
        Arc::new(Mutex::new(Timeline { start: scene.start, speed: args.speed, shown: None, stage: "", process: 0 }));
    let watcher: Watcher = match args.output {
        Output::Table => {
            println!("{}", introduction(args, &scene, &troubles));
            let timeline = Arc::clone(&timeline);
            Arc::new(move |run, line| timeline.lock().unwrap_or_else(PoisonError::into_inner).show(run, line))
        }
        Output::Json => Arc::new(|_, _| {}),
    };
    let outcome = runtime.block_on(async {
        let session = Session::new(scene.clone()).watched(watcher);
        if let Some(every) = args.crash_every {
            session.shared.crash.arm_every(every);
        }
        session.run(Stop::AtRest).await
    })?;
    match args.output {
        Output::Table => println!("\n{}", conclusion(&outcome, scene.capture)),
        Output::Json => super::run::print_json(&json!({
            "apiVersion": "kamino-wf/v1",
            "kind": "Simulation",
            "seed": args.seed,
            "faults": troubles.iter().map(|one| one.told().0).collect::<Vec<_>>(),
            "run": outcome.summary,
            "crashes": outcome.crashes,
            "violations": outcome.violations,
            "log": outcome.log,
        }))?,
    }
    let code = outcome.summary.as_ref().map_or(Code::Failed, Code::of);
    Ok(if outcome.violations.is_empty() { code } else { Code::Failed })
}

fn introduction(args: &SimulateArgs, scene: &Scene, troubles: &[Trouble]) -> String {
    let speed = if args.speed == 0 { "at once".into() } else { format!("{} times faster than real", args.speed) };
    let crashes = args.crash_every.map_or_else(String::new, |every| {
        format!("\nkamino-wf is killed after every {} it records, and started again.", ordinal(every))
    });
    let first = if scene.adopted {
        "It follows the gallery's image already; old versions are there."
    } else {
        "It has never been updated before: its model will be changed."
    };
    let names: Vec<String> = troubles.iter().map(|one| one.told().0.replace('-', " ")).collect();
    let day = if names.is_empty() {
        "This Azure has a good day: nothing goes wrong but what always does.".into()
    } else {
        format!("This Azure has a bad day: {}.", names.join(", "))
    };
    format!(
        "A simulated pool of three nodes (profile {}) on a simulated Azure, seed {}, shown {speed}.\n{first}\n\
         {day}{crashes}",
        scene.profile, args.seed
    )
}

fn ordinal(number: u64) -> String {
    match number {
        1 => "single thing that".into(),
        2 => "2nd thing".into(),
        3 => "3rd thing".into(),
        _ => format!("{number}th thing"),
    }
}

fn conclusion(outcome: &Outcome, capture: Capture) -> String {
    let mut lines = Vec::new();
    if let Some(summary) = &outcome.summary {
        let took = render::span(summary.moved.duration_since(summary.started));
        let end = match summary.state.as_str() {
            "done" => format!(
                "Done: new nodes start from version {}, made from {}.",
                summary.version.as_deref().unwrap_or("?"),
                summary.donor.as_deref().unwrap_or("?")
            ),
            other => {
                format!("The run is {other}: {}.", summary.why.as_deref().unwrap_or("no reason").trim_end_matches('.'))
            }
        };
        let crashes = match outcome.crashes {
            0 => String::new(),
            1 => ", and kamino-wf was killed once".into(),
            times => format!(", and kamino-wf was killed {times} times"),
        };
        lines.push(format!("{end} It took {took} of simulated time{crashes}."));
    }
    if outcome.violations.is_empty() {
        let donor = match capture {
            Capture::Live => "never written to",
            Capture::Stop => "given back as it was found",
        };
        lines.push(format!(
            "Checked: one of everything, nothing left behind, nothing unproven published, the donor {donor}."
        ));
    } else {
        lines.push("These invariants were violated, which is a bug; please report the seed:".into());
        lines.extend(outcome.violations.iter().map(|violation| format!("  {violation}")));
    }
    lines.join("\n")
}

/// Prints events as they happen, faster than real time.
struct Timeline {
    start: Timestamp,
    speed: u32,
    shown: Option<Timestamp>,
    stage: &'static str,
    process: u64,
}

impl Timeline {
    fn show(&mut self, run: &Run, line: &Line) {
        self.pace(line.at);
        if line.process > self.process {
            let times = line.process - self.process;
            println!(
                "{:>9}  ✗ killed{}",
                self.clock(line.at),
                if times > 1 { format!(" {times} times") } else { String::new() }
            );
            self.process = line.process;
        }
        let Some(words) = render::words(run, &line.event) else { return };
        let stage = run
            .plan
            .iter()
            .find(|planned| Some(&planned.name) == line.step.as_ref())
            .and_then(|planned| find(stages(&run.spec), planned))
            .map(|(stage, _)| stage.name);
        if let Some(stage) = stage.filter(|stage| *stage != self.stage && !matches!(line.event, Event::Ended { .. })) {
            self.stage = stage;
            println!("\n{stage}");
        }
        println!("{:>9}  {words}", self.clock(line.at));
    }

    fn clock(&self, at: Timestamp) -> String {
        let seconds = at.duration_since(self.start).as_secs();
        format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)
    }

    /// Lets real time pass between two lines, a second at most.
    #[expect(
        clippy::disallowed_methods,
        reason = "simulated time stands still meanwhile; this is for the person who watches"
    )]
    fn pace(&mut self, at: Timestamp) {
        let since = self.shown.replace(at).map_or(SignedDuration::ZERO, |shown| at.duration_since(shown));
        if self.speed > 0 {
            let pause = Duration::try_from(since).unwrap_or_default() / self.speed;
            std::thread::sleep(pause.min(Duration::from_secs(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_faults_that_were_chosen_and_no_others() {
        let of = |names: &[Trouble]| chosen(names).map(|troubles| day(&troubles));
        assert_eq!(of(&[Trouble::All]).expect("a day"), Faults::bad_day());
        let (good, bad) = (of(&[Trouble::None]).expect("a day"), Faults::bad_day());
        assert_eq!(Faults { budget: 0, ..good }, Faults::none());
        let some = of(&[Trouble::Throttles, Trouble::KilledPods, Trouble::Throttles]).expect("a day");
        let expected =
            Faults { throttles: bad.throttles, killed_pods: bad.killed_pods, budget: bad.budget, ..Faults::none() };
        assert_eq!(some, expected);
        for alone in [Trouble::All, Trouble::None, Trouble::List] {
            let error = of(&[Trouble::Throttles, alone]).expect_err("it stands alone").to_string();
            assert!(error.contains("--faults is throttles,") && error.contains("stands alone"), "{error}");
        }
        assert!(Trouble::SINGLE.iter().all(|one| !one.told().1.is_empty()), "each is told in words");
    }
}
