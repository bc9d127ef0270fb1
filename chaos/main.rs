//! The `chaos` command: sweeps seeds over the simulated world, shows one seed's log, and serves the loopback ARM face.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use kamino_wf::{
    clock::{Clock, SystemClock},
    cloud::Orchestration,
    model::{Attach, Capture, Credential, Profile},
    policy::canary::{Canary, Limits},
    sim::{
        Faults, Newcomer, Outcome, Scene, Session, Shared, Stop,
        arm::{self, ArmOptions},
    },
};

/// Breaks simulated updates by seed until something gives.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
enum Command {
    /// Run many seeds; each is crashed, cancelled or left alone as it says itself. Prints those that break an invariant.
    Seeds {
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Stop after this many minutes, whatever was done by then.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Crash the nominal update at every pair of points, the second one in the recovery from the first.
    Pairs {
        /// Only every n-th first point.
        #[arg(long, default_value_t = 1)]
        every: u64,
        /// How many points after the first the second crash may be.
        #[arg(long, default_value_t = 40)]
        within: u64,
    },
    /// Show the log of one seed.
    Log {
        /// The seed.
        seed: u64,
    },
    /// Serve the simulated world as Azure's resource manager on a loopback address, in real time.
    ArmFace {
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where the certificate of its authority is written.
        #[arg(long)]
        ca: PathBuf,
        /// Where requests are logged, as JSON lines.
        #[arg(long)]
        log: Option<PathBuf>,
        /// Stretches or shrinks every duration.
        #[arg(long, default_value_t = 0.001)]
        scale: f64,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Seeds { from, count, minutes } => seeds(from, count, Duration::from_mins(minutes)),
        Command::Pairs { every, within } => pairs(every, within),
        Command::Log { seed } => {
            let outcome = of_seed(seed)?;
            for line in &outcome.log {
                println!("{line}");
            }
            Ok(report(&format!("seed {seed}"), &outcome))
        }
        Command::ArmFace { listen, ca, log, scale } => {
            let mut options = ArmOptions::new(&ca);
            options.listen = listen;
            options.log_path = log;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                let clock = SystemClock;
                let scene = Scene { scale, start: clock.now(), ..Scene::nominal() };
                arm::run(Shared::new(scene.world()), Arc::new(clock), options).await
            })?;
            Ok(true)
        }
    }
}

/// Runs a scene under paused time.
fn simulate(scene: &Scene, prepare: impl FnOnce(&mut Session)) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut session = Session::new(scene.clone());
        prepare(&mut session);
        session.run(Stop::AtRest).await.context("the engine stopped")
    })
}

/// The day of a seed, on one of the kinds of pools that there are.
fn scene(seed: u64) -> Scene {
    let scene = Scene::of_seed(seed, Faults::bad_day());
    let watched = Canary::FirstNode(Limits::default());
    match seed % 9 {
        1 => Scene { capture: Capture::Stop, ..scene },
        2 => Scene { orchestration: Orchestration::Flexible, ..scene },
        3 => Scene { canary: watched, ..scene },
        4 => Scene { canary: watched, adopted: true, newcomer: Newcomer::NeverReady, ..scene },
        5 => Scene { attach: Attach::Instance { path: "/dev/disk/azure/scsi1/lun{lun}".into() }, ..scene },
        6 => Scene { capture: Capture::Stop, canary: watched, adopted: true, ..scene },
        7 => Scene { capture: Capture::Stop, profile: Profile::Kubeadm, credential: Credential::Rebootstrap, ..scene },
        _ => scene,
    }
}

fn of_seed(seed: u64) -> Result<Outcome> {
    simulate(&scene(seed), |session| {
        if seed % 3 == 1 {
            session.shared.crash.arm_every(1 + seed % 7);
        }
        if seed % 3 == 2 {
            session.shared.crash.arm(seed * 31 % 1100);
        }
        if seed % 5 == 2 {
            session.cancel_at = Some(seed * 7 % 900);
        }
    })
}

fn report(what: &str, outcome: &Outcome) -> bool {
    for violation in &outcome.violations {
        eprintln!("{what}: {violation}");
    }
    outcome.violations.is_empty()
}

#[expect(clippy::disallowed_methods, reason = "bounds a sweep by the machine's time; simulations have their own")]
fn seeds(from: u64, count: u64, most: Duration) -> Result<bool> {
    let began = Instant::now();
    let (mut done, mut bad) = (0, 0);
    for seed in from..from.saturating_add(count) {
        if began.elapsed() > most {
            break;
        }
        bad += u64::from(!report(&format!("seed {seed}"), &of_seed(seed)?));
        done += 1;
    }
    println!("{done} seeds from {from}: {bad} broke an invariant; {:.0} a second", rate(done, began.elapsed()));
    Ok(bad == 0)
}

fn rate(count: u64, time: Duration) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from) / time.as_secs_f64().max(0.001)
}

#[expect(clippy::disallowed_methods, reason = "tells how long a sweep took; simulations have their own time")]
fn pairs(every: u64, within: u64) -> Result<bool> {
    let began = Instant::now();
    let scene = Scene::nominal();
    let points = simulate(&scene, |_| {})?.points;
    let (mut done, mut bad) = (0, 0);
    for first in (1..=points).step_by(usize::try_from(every.max(1))?) {
        for second in 1..=within {
            let outcome = simulate(&scene, |session| session.shared.crash.arm_both(first, first + second))?;
            let what = format!("crash at point {first}, and again {second} points later");
            bad += u64::from(!report(&what, &outcome));
            done += 1;
        }
    }
    println!(
        "{done} pairs of crashes over {points} points: {bad} broke an invariant; {:.0} a second",
        rate(done, began.elapsed())
    );
    Ok(bad == 0)
}
