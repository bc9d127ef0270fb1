//! What a person asks of image versions: prune now, pin, unpin. Done by whoever holds the store, as runs are.
//!
//! Why there: these change the world, so they need what runs need: the Lease with enough time left, the store's epoch, and the
//! knowledge of which runs are open. A second process beside the daemon would have none of it. What goes was shown to the
//! person first; it is decided again from fresh looks before each request, and only less can come of that.
//!
//! Absent: loops that wait. An answer says what was asked for; that it is done, the next look shows.

use std::collections::BTreeSet;

use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    engine::{Engine, EngineError},
    janitor::known,
    step::{Ports, StepError},
};
use crate::{
    cloud::Provisioning,
    model::{Class, DefinitionId, VersionId},
    policy::{
        leftovers::KnownRun,
        provenance::{Maker, PINNED, tag},
        retention::{Rules, Runs, Verdict},
    },
    steps::image_use::{subscriptions, verdicts},
};

/// Deletions in one request: each costs a look at every scale set. The next request goes on.
const DELETIONS_MAX: usize = 10;

/// Old versions of one definition that a person lets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneAsk {
    /// The definition.
    pub definition: DefinitionId,
    /// The subscription whose machines may use it, besides the gallery's own.
    pub subscription: String,
    /// What stays.
    pub rules: Rules,
    /// The versions that the person has seen, oldest first; no other goes.
    pub versions: Vec<VersionId>,
}

/// A version, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its name.
    pub version: String,
    /// In one line.
    pub text: String,
}

/// What came of a request to prune.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Azure has accepted that they go.
    pub going: Vec<Told>,
    /// They stay, and why: what changed since the plan, a lock, a policy.
    pub stay: Vec<Told>,
    /// Not looked at: ask again.
    pub left: usize,
    /// Why it was broken off, if it was.
    pub broken_off: Option<String>,
    /// Before this nothing more may be asked for.
    pub not_before: Option<Timestamp>,
}

/// A version that is to stay whatever the rules say, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinAsk {
    /// The version.
    pub version: VersionId,
    /// Why, for whoever finds it; `None` takes the pin away.
    pub why: Option<String>,
}

/// What came of a request to pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinReport {
    /// The version's name.
    pub version: String,
    /// False where it was so already.
    pub changed: bool,
}

/// Why nothing was done about an image version.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// This process may not change anything now.
    #[error("this process does not hold the Lease: ask again, it answers when it does")]
    NoAuthority,
    /// There is no such version.
    #[error("there is no version {0}; `kamino-wf images list` shows those there are")]
    NoSuchVersion(VersionId),
    /// It is not for us to touch.
    #[error(
        "KW0502: version {0} was made by somebody else: kamino-wf neither deletes nor tags it, so there is nothing to pin"
    )]
    Foreign(VersionId),
    /// An operation is under way on it.
    #[error("an operation on version {0} is under way: ask again in a minute")]
    Busy(VersionId),
    /// A call failed.
    #[error("{}: {}", .0.code, .0.text)]
    Call(StepError),
}

impl From<StepError> for ImageError {
    fn from(error: StepError) -> Self {
        Self::Call(error)
    }
}

impl Engine {
    /// Asks for the end of versions that a person lets go, as far as that is still right.
    ///
    /// # Errors
    /// The store fails, or this process may not change anything. What Azure said is in the report.
    pub async fn prune_images(&self, ask: &PruneAsk) -> Result<PruneReport, ImageError> {
        if !self.authority().may_change() {
            return Err(ImageError::NoAuthority);
        }
        let runs = || async { Ok(self.summaries().await?.iter().map(known).collect()) }.boxed();
        Ok(prune::<EngineError>(self.ports(), ask, &|| self.authority().may_change(), &runs).await?)
    }

    /// Pins a version, or takes the pin away.
    ///
    /// # Errors
    /// There is no such version, it is another's, or Azure refused.
    pub async fn pin_image(&self, ask: &PinAsk) -> Result<PinReport, ImageError> {
        if !self.authority().may_change() {
            return Err(ImageError::NoAuthority);
        }
        pin(self.ports(), ask).await
    }
}

/// Says which runs there are, each time anew.
pub type Known<'a, E> = &'a (dyn Fn() -> BoxFuture<'a, Result<Vec<KnownRun>, E>> + Sync);

/// As [`Engine::prune_images`], over any ports. `known` is asked before each request.
///
/// # Errors
/// What `known` says.
pub async fn prune<E>(
    ports: Ports<'_>,
    ask: &PruneAsk,
    may_change: &(dyn Fn() -> bool + Sync),
    known: Known<'_, E>,
) -> Result<PruneReport, E> {
    let mut report = PruneReport::default();
    let subscriptions: BTreeSet<String> = subscriptions(&ask.subscription, &ask.definition);
    for (at, id) in ask.versions.iter().enumerate() {
        report.left = ask.versions.len() - at;
        if report.going.len() >= DELETIONS_MAX {
            return Ok(report);
        }
        let known = known().await?;
        let fresh = verdicts(ports, &subscriptions, &ask.definition, Runs::Known(&known), ask.rules).await;
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(error) => return Ok(broken_off(report, ports, &error)),
        };
        let version = id.name().to_owned();
        let Some(verdict) = fresh.into_iter().find(|verdict| verdict.version == *id) else {
            report.stay.push(Told { version, text: "it is not there any more".into() });
            continue;
        };
        if !verdict.delete {
            report.stay.push(Told { version, text: verdict.reason });
            continue;
        }
        if !may_change() {
            report.broken_off = Some("the Lease was lost; ask again".into());
            return Ok(report);
        }
        match ports.cloud.begin_delete_version(id).await.map_err(StepError::from) {
            Ok(_) => {
                info!(version = %id, reason = verdict.reason, "asked to go by a person");
                report.going.push(Told { version, text: verdict.reason });
            }
            Err(error) if matches!(error.class, Class::Denied | Class::Refused | Class::Busy) => {
                report.stay.push(Told { version, text: error.text });
            }
            Err(error) => return Ok(broken_off(report, ports, &error)),
        }
    }
    report.left = 0;
    Ok(report)
}

fn broken_off(mut report: PruneReport, ports: Ports<'_>, error: &StepError) -> PruneReport {
    if let Class::Throttled { retry_after } = error.class {
        report.not_before = ports.clock.now().checked_add(retry_after).ok();
    }
    report.broken_off = Some(format!("{}: {}", error.code, error.text));
    report
}

/// As [`Engine::pin_image`], over any ports.
///
/// # Errors
/// As there.
pub async fn pin(ports: Ports<'_>, ask: &PinAsk) -> Result<PinReport, ImageError> {
    let id = &ask.version;
    let found = ports.cloud.version(id).await.map_err(StepError::from)?;
    let Some(found) = found else { return Err(ImageError::NoSuchVersion(id.clone())) };
    if Maker::of(&found) == Maker::Foreign {
        return Err(ImageError::Foreign(id.clone()));
    }
    let version = id.name().to_owned();
    let pinned = tag(&found, PINNED);
    if pinned.is_some() == ask.why.is_some() {
        return Ok(PinReport { version, changed: false });
    }
    if found.provisioning == Provisioning::Running {
        return Err(ImageError::Busy(id.clone()));
    }
    ports.cloud.begin_tag_version(id, PINNED, ask.why.as_deref()).await.map_err(StepError::from)?;
    Ok(PinReport { version, changed: true })
}

impl PruneReport {
    /// Nothing of the plan is left to be asked for.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.left == 0 && self.broken_off.is_none()
    }
}

/// The versions of a plan that go, oldest first: what a person is asked about.
#[must_use]
pub fn going(verdicts: &[Verdict]) -> Vec<VersionId> {
    verdicts.iter().rev().filter(|verdict| verdict.delete).map(|verdict| verdict.version.clone()).collect()
}
