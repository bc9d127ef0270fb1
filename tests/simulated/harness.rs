//! A run of a scene from its start to its rest, and what is asked of every one.

use kamino_wf::{
    sim::{Outcome, Scene, Session, Stop},
    workflow::{self, RunState},
};

/// Runs `body` under paused time, all on one thread.
pub(crate) fn simulated<T>(body: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be built").block_on(body())
}

/// The run that a scene asks for, in a session that was prepared before; and the session, to look around in.
pub(crate) fn run(scene: &Scene, prepare: impl FnOnce(&mut Session)) -> (Outcome, Session) {
    simulated(async || {
        let mut session = Session::new(scene.clone());
        prepare(&mut session);
        let outcome = session.run(Stop::AtRest).await.expect("the store never fails for good");
        (outcome, session)
    })
}

pub(crate) fn done(outcome: &Outcome) -> bool {
    outcome.run.as_ref().is_some_and(|run| run.state == RunState::Ended(workflow::Outcome::Done))
}

/// The state's word, as people read it.
pub(crate) fn state(outcome: &Outcome) -> String {
    outcome.summary.as_ref().map(|summary| summary.state.clone()).unwrap_or_default()
}

/// The points of an undisturbed run, each with its name.
pub(crate) fn points(scene: &Scene) -> Vec<String> {
    let (_, session) = run(scene, |session| session.shared.crash.trace());
    session.shared.crash.traced()
}

/// What befalls us on top of a bad day: killed again and again, or cancelled somewhere.
pub(crate) fn trouble(session: &mut Session, seed: u64) {
    if seed % 3 == 1 {
        session.shared.crash.arm_every(1 + seed % 7);
    }
    if seed % 5 == 2 {
        session.cancel_at = Some(seed * 7 % 400);
    }
}
