//! What a step is: a decision taken once, or an effect that is looked for, asked for and looked for again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::spec::RunSpec;
use crate::{
    clock::Clock,
    cloud::{Accepted, Cloud, CloudError},
    cluster::{Cluster, ClusterError},
    model::{Class, RunId},
    policy::obligations::{Duty, Written},
};

/// What steps may reach of the world.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// Azure.
    pub cloud: &'a dyn Cloud,
    /// Kubernetes.
    pub cluster: &'a dyn Cluster,
    /// Wall time and ids, for decisions.
    pub clock: &'a dyn Clock,
}

/// What a step may know of its run.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The run.
    pub run: RunId,
    /// When the run began, by our clock.
    pub started: Timestamp,
    /// The Lease's epoch, 0 without one.
    pub epoch: u64,
    /// When this is decided, by our clock.
    pub now: Timestamp,
    /// The steps that a request has gone out for, or may have.
    pub asked: &'a BTreeSet<String>,
    /// What was asked for.
    pub spec: &'a RunSpec,
    /// The outputs of the steps before.
    pub outputs: &'a BTreeMap<String, Value>,
    /// Facts that outlive runs, by key.
    pub memory: &'a BTreeMap<String, Value>,
    /// The store as it is; none where there is no run.
    pub store: Option<Written>,
}

impl Context<'_> {
    /// The output of an earlier step.
    ///
    /// # Errors
    /// It is missing or can't be read by this release: the run needs the release that wrote it.
    pub fn output<T: DeserializeOwned>(&self, step: &'static str) -> Result<T, StepError> {
        let value = self.outputs.get(step).ok_or_else(|| {
            StepError::refused("KW0002", format!("the run has no output of step {step}, which this step builds on"))
        })?;
        decode(step, "output", value)
    }
}

/// Reads a stored value of a step.
pub(crate) fn decode<T: DeserializeOwned>(step: &str, what: &str, value: &Value) -> Result<T, StepError> {
    serde_json::from_value(value.clone()).map_err(|error| {
        StepError::refused("KW0002", format!("the stored {what} of step {step} can't be read by this release: {error}"))
    })
}

/// A failed step, or a failed call in it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct StepError {
    /// Who can do something about it.
    pub class: Class,
    /// The page in docs/errors.
    pub code: &'static str,
    /// What happened, with its names and values.
    pub text: String,
}

impl StepError {
    /// The request can never succeed as it is; `text` says which field, its value and the remedy.
    #[must_use]
    pub fn refused(code: &'static str, text: impl Into<String>) -> Self {
        Self { class: Class::Refused, code, text: text.into() }
    }

    /// What the run is about has vanished.
    #[must_use]
    pub fn gone(code: &'static str, text: impl Into<String>) -> Self {
        Self { class: Class::Gone, code, text: text.into() }
    }
}

impl From<CloudError> for StepError {
    fn from(error: CloudError) -> Self {
        Self { class: error.class(), code: "KW0300", text: error.to_string() }
    }
}
impl From<ClusterError> for StepError {
    fn from(error: ClusterError) -> Self {
        Self { class: error.class(), code: "KW0400", text: error.to_string() }
    }
}

/// What a look at the world says of an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<O> {
    /// Nothing of it is there. Right after an accepted request this may be a stale read.
    Absent,
    /// Some of it is there, and the next request is due now; the text says which.
    Partly(String),
    /// It was asked for and is not at an end; the text says what it waits for.
    Underway(String),
    /// It waits for others, who may take hours: nobody looks again before the pause has passed, and who looks costs nothing
    /// meanwhile.
    Awaited {
        /// For what.
        what: String,
        /// Until the next look.
        pause: Duration,
    },
    /// It is there.
    Present(O),
    /// Ours, and failed: it has to go before it is asked for again.
    Broken(String),
    /// Somebody else's, or not what was asked for: left alone.
    Foreign(String),
}

/// How far an undo is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// Nothing of ours is left.
    Gone,
    /// Asked for the next thing to go, or waiting for it; the text says which.
    Going(String),
}

/// A decision: reads, then chooses. Stored, and never taken again in the same run.
#[async_trait]
pub trait Decide: Send + Sync {
    /// The name in records, logs and plans; stored format.
    const NAME: &'static str;
    /// Raised when the meaning of `Output` changes; stored format.
    const VERSION: u32 = 1;
    /// How long reads may fail before the stage fails.
    const DEADLINE: Duration = Duration::from_mins(30);
    /// What was decided.
    type Output: Serialize + DeserializeOwned + Send;

    /// Reads and decides.
    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Result<Self::Output, StepError>;

    /// A fact to keep beyond the run, stored before the decision is.
    fn remember(&self, _output: &Self::Output) -> Option<(String, Value)> {
        None
    }
}

/// An effect on the world. `observe` reads; `act` asks once and returns; `undo` looks, asks for the next reverse, and says
/// when nothing is left. No loop, sleep or retry: the engine has them all.
#[async_trait]
pub trait Effect: Send + Sync {
    /// The name in records, logs and plans; stored format.
    const NAME: &'static str;
    /// Raised when the meaning of `Input` or `Output` changes; stored format.
    const VERSION: u32 = 1;
    /// How long the effect may take, throttled time not counted.
    const DEADLINE: Duration;
    /// For how long after a request an absence may be a stale read. Zero where reads are consistent.
    const SETTLES: Duration = Duration::ZERO;
    /// For how long after a request its effect may be on its way without a look that could tell: it is not asked for again
    /// before. No setting shortens it.
    const TAKES: Duration = Duration::ZERO;
    /// What the run owes a node from this step's first request on.
    const OWES: &'static [Duty] = &[];
    /// What is paid when this effect is seen. Such a step is carried out whatever happens, once it is owed.
    const PAYS: &'static [Duty] = &[];
    /// What is told on the donor's node when this effect is seen while the node is out of service: a reason, and words.
    const TELLS: Option<(&'static str, &'static str)> = None;
    /// Everything that the requests are built from: a second attempt asks for the very same thing.
    type Input: Serialize + DeserializeOwned + Send + Sync;
    /// What later steps need to know of it.
    type Output: Serialize + DeserializeOwned + Send;

    /// Builds the input from what was decided; pure.
    fn input(&self, context: Context<'_>) -> Result<Self::Input, StepError>;
    /// Looks.
    async fn observe(&self, ports: Ports<'_>, want: &Self::Input) -> Result<Seen<Self::Output>, StepError>;
    /// Asks once.
    async fn act(&self, ports: Ports<'_>, want: &Self::Input) -> Result<Accepted, StepError>;
    /// Looks, and asks for the next reverse.
    async fn undo(&self, ports: Ports<'_>, want: &Self::Input) -> Result<Undone, StepError>;
}

/// A step as the engine sees it: typed inside, JSON at the edge.
#[async_trait]
pub trait AnyStep: Send + Sync {
    /// The step's name.
    fn name(&self) -> &'static str;
    /// The step's version.
    fn version(&self) -> u32;
    /// See [`Effect::DEADLINE`].
    fn deadline(&self) -> Duration;
    /// See [`Effect::SETTLES`].
    fn settles(&self) -> Duration;
    /// See [`Effect::TAKES`].
    fn takes(&self) -> Duration;
    /// See [`Effect::OWES`].
    fn owes(&self) -> &'static [Duty];
    /// See [`Effect::PAYS`].
    fn pays(&self) -> &'static [Duty];
    /// See [`Effect::TELLS`].
    fn tells(&self) -> Option<(&'static str, &'static str)>;
    /// A decision; `None` for an effect. The second value is a fact to remember.
    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Option<Result<Decision, StepError>>;
    /// An effect's input.
    fn input(&self, context: Context<'_>) -> Result<Value, StepError>;
    /// An effect's look.
    async fn observe(&self, ports: Ports<'_>, input: &Value) -> Result<Seen<Value>, StepError>;
    /// An effect's request.
    async fn act(&self, ports: Ports<'_>, input: &Value) -> Result<Accepted, StepError>;
    /// An effect's reverse.
    async fn undo(&self, ports: Ports<'_>, input: &Value) -> Result<Undone, StepError>;
}

impl fmt::Debug for dyn AnyStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name(), self.version())
    }
}

/// A decision's output, and a fact to keep beyond the run.
pub(super) type Decision = (Value, Option<(String, Value)>);

/// The erased form of a decision.
pub struct Decides<S>(pub S);
/// The erased form of an effect.
pub struct Affects<S>(pub S);

fn encode<T: Serialize>(step: &str, value: &T) -> Result<Value, StepError> {
    serde_json::to_value(value).map_err(|error| {
        StepError::refused("KW0002", format!("step {step} made a value that can't be stored: {error}"))
    })
}

fn not_an_effect(step: &str) -> StepError {
    StepError::refused("KW0001", format!("step {step} is a decision and has no effect to look for"))
}

#[async_trait]
impl<S: Decide> AnyStep for Decides<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn deadline(&self) -> Duration {
        S::DEADLINE
    }
    fn settles(&self) -> Duration {
        Duration::ZERO
    }
    fn takes(&self) -> Duration {
        Duration::ZERO
    }
    fn owes(&self) -> &'static [Duty] {
        &[]
    }
    fn pays(&self) -> &'static [Duty] {
        &[]
    }
    fn tells(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    async fn decide(&self, ports: Ports<'_>, context: Context<'_>) -> Option<Result<Decision, StepError>> {
        Some(match self.0.decide(ports, context).await {
            Ok(output) => encode(S::NAME, &output).map(|value| (value, self.0.remember(&output))),
            Err(error) => Err(error),
        })
    }
    fn input(&self, _context: Context<'_>) -> Result<Value, StepError> {
        Err(not_an_effect(S::NAME))
    }
    async fn observe(&self, _ports: Ports<'_>, _input: &Value) -> Result<Seen<Value>, StepError> {
        Err(not_an_effect(S::NAME))
    }
    async fn act(&self, _ports: Ports<'_>, _input: &Value) -> Result<Accepted, StepError> {
        Err(not_an_effect(S::NAME))
    }
    async fn undo(&self, _ports: Ports<'_>, _input: &Value) -> Result<Undone, StepError> {
        Ok(Undone::Gone)
    }
}

#[async_trait]
impl<S: Effect> AnyStep for Affects<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn deadline(&self) -> Duration {
        S::DEADLINE
    }
    fn settles(&self) -> Duration {
        S::SETTLES
    }
    fn takes(&self) -> Duration {
        S::TAKES
    }
    fn owes(&self) -> &'static [Duty] {
        S::OWES
    }
    fn pays(&self) -> &'static [Duty] {
        S::PAYS
    }
    fn tells(&self) -> Option<(&'static str, &'static str)> {
        S::TELLS
    }
    async fn decide(&self, _ports: Ports<'_>, _context: Context<'_>) -> Option<Result<Decision, StepError>> {
        None
    }
    fn input(&self, context: Context<'_>) -> Result<Value, StepError> {
        encode(S::NAME, &self.0.input(context)?)
    }
    async fn observe(&self, ports: Ports<'_>, input: &Value) -> Result<Seen<Value>, StepError> {
        let want: S::Input = decode(S::NAME, "input", input)?;
        Ok(match self.0.observe(ports, &want).await? {
            Seen::Absent => Seen::Absent,
            Seen::Partly(text) => Seen::Partly(text),
            Seen::Underway(text) => Seen::Underway(text),
            Seen::Awaited { what, pause } => Seen::Awaited { what, pause },
            Seen::Present(output) => Seen::Present(encode(S::NAME, &output)?),
            Seen::Broken(text) => Seen::Broken(text),
            Seen::Foreign(text) => Seen::Foreign(text),
        })
    }
    async fn act(&self, ports: Ports<'_>, input: &Value) -> Result<Accepted, StepError> {
        self.0.act(ports, &decode(S::NAME, "input", input)?).await
    }
    async fn undo(&self, ports: Ports<'_>, input: &Value) -> Result<Undone, StepError> {
        self.0.undo(ports, &decode(S::NAME, "input", input)?).await
    }
}
