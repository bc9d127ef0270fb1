//! Look, ask once, look until it is there, and then at all of it.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cloud::{
        CloudError, Fingerprint, Restoration,
        azure::{AzureCloud, scale_set_from_json},
    },
    model::{Class, RunId, ScaleSetId},
    policy::preflight::{Refusal, still_refused},
};

/// How often it is looked, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks: Azure rations reads by the minute.
    pub look: Duration,
    /// A look is not further behind than this (docs/ASSUMPTIONS.md).
    pub settles: Duration,
    /// For all of it. A change of the model takes a minute, and as long as what is under way before it.
    pub within: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look: Duration::from_secs(5), settles: Duration::from_mins(1), within: Duration::from_hours(1) }
    }
}

/// What would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prospect {
    /// What new nodes are made from now.
    pub image_now: Value,
    /// What they will be made from.
    pub image_then: Value,
    /// Custom data are sent; what they are now can't be read.
    pub custom_data: bool,
    /// Extensions that the model has under that name, and that are replaced.
    pub extensions_replaced: Vec<String>,
    /// Extensions that come back.
    pub extensions_added: Vec<String>,
    /// The model shows all of it that Azure shows.
    pub already: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// The model showed it before, and nothing was asked.
    Already,
    /// It was asked for and is there. The parts of the model that changed.
    Done(Vec<String>),
}

/// Why it was not done, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is none of that name.
    #[error("there is no scale set {0}")]
    NoSuchScaleSet(ScaleSetId),
    /// A run would not change this model either. Nothing was asked.
    #[error("the model of scale set {set} is not to be changed: {refusals}")]
    Refused {
        /// Which.
        set: String,
        /// Each reason.
        refusals: String,
    },
    /// Azure does not say, or refuses.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Accepted, and it did not come.
    #[error(
        "scale set {set} says {state} and does not show what was asked for: see its activity log in Azure, then ask again"
    )]
    NotShown {
        /// Which.
        set: String,
        /// Its `provisioningState`.
        state: String,
    },
    /// Nothing is settled after all this time.
    #[error("scale set {set} is still {state} after {} min: look again later, with the same command", .within.as_secs() / 60)]
    TooLong {
        /// Which.
        set: String,
        /// What it is.
        state: String,
        /// How long.
        within: Duration,
    },
    /// More has changed than was asked for.
    #[error("besides what was put back, these parts of scale set {set}'s model changed meanwhile: {}", .parts.join(", "))]
    More {
        /// Which.
        set: String,
        /// JSON pointers.
        parts: Vec<String>,
    },
}

impl RestoreError {
    /// The page that says what to do.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchScaleSet(_) => Some("KW0221"),
            Self::More { .. } => Some("KW0703"),
            // Each reason names its page.
            Self::Refused { .. } | Self::Cloud(_) | Self::NotShown { .. } | Self::TooLong { .. } => None,
        }
    }
}

/// What would change, and whether it may. Asks for nothing.
///
/// # Errors
/// [`RestoreError::NoSuchScaleSet`], [`RestoreError::Refused`], or Azure does not answer.
pub async fn look(azure: &AzureCloud, set: &ScaleSetId, want: &Restoration) -> Result<Prospect, RestoreError> {
    let live = azure.raw_scale_set(set).await?.ok_or_else(|| RestoreError::NoSuchScaleSet(set.clone()))?;
    refuse(set, &live)?;
    Ok(prospect(want, &live))
}

fn prospect(want: &Restoration, live: &Value) -> Prospect {
    let (extensions_replaced, extensions_added) = want.extensions_in(live);
    Prospect {
        image_now: live["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"].clone(),
        image_then: Value::Object(want.image_reference.clone()),
        custom_data: want.custom_data.is_some(),
        extensions_replaced,
        extensions_added,
        already: want.is_shown(live),
    }
}

fn refuse(set: &ScaleSetId, live: &Value) -> Result<(), RestoreError> {
    let refused = |refusals: String| Err(RestoreError::Refused { set: set.name().to_owned(), refusals });
    match scale_set_from_json(live) {
        Ok(model) => {
            let refusals: Vec<String> = still_refused(&model, &[]).iter().map(Refusal::to_string).collect();
            if refusals.is_empty() { Ok(()) } else { refused(refusals.join("; ")) }
        }
        Err(error) => refused(format!("Azure's answer can't be read: {error}")),
    }
}

/// Asks for it and waits until it is there. `again` asks also where the model shows it: custom data are not shown.
///
/// A repeat is safe: it asks for the same model, under the etag of the one that was looked at.
///
/// # Errors
/// See [`RestoreError`]. Asked again, it goes on where this ended.
pub async fn restore(
    azure: &AzureCloud,
    (set, run): (&ScaleSetId, RunId),
    want: &Restoration,
    again: bool,
    pace: Pace,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Restored, RestoreError> {
    let until = Instant::now() + pace.within;
    let name = || set.name().to_owned();
    let mut asked: Option<Asked> = None;
    loop {
        let live = match azure.raw_scale_set(set).await {
            Ok(live) => live.ok_or_else(|| RestoreError::NoSuchScaleSet(set.clone()))?,
            Err(error) => {
                sleep(bearable(error, pace, until)?).await;
                continue;
            }
        };
        let state = live["properties"]["provisioningState"].as_str().unwrap_or_default().to_owned();
        let settling = state != "Succeeded" && state != "Failed";
        match &asked {
            _ if Instant::now() > until => {
                return Err(RestoreError::TooLong { set: name(), state, within: pace.within });
            }
            _ if settling => tell(&format!("scale set {}: {state}", set.name())),
            None if want.is_shown(&live) && state == "Succeeded" && !again => return Ok(Restored::Already),
            Some(asked) if want.is_shown(&live) && state == "Succeeded" && asked.tells(&live) => {
                let changed = asked.before.diff(&Fingerprint::of(&live));
                let (changed, more): (Vec<_>, Vec<_>) = changed.into_iter().partition(|part| want.allows(part));
                return if more.is_empty() {
                    Ok(Restored::Done(changed))
                } else {
                    Err(RestoreError::More { set: name(), parts: more })
                };
            }
            Some(asked) if asked.since.elapsed() < pace.settles => {}
            Some(asked) if asked.accepted => return Err(RestoreError::NotShown { set: name(), state }),
            // Not asked, or the answer was lost and nothing came of it.
            None | Some(_) => {
                refuse(set, &live)?;
                tell(&format!("asking scale set {} for its former model", set.name()));
                let answer = azure.begin_patch(set, run, &want.body(&live), live["etag"].as_str()).await;
                let (before, etag, shown) = (Fingerprint::of(&live), live["etag"].clone(), want.is_shown(&live));
                let of = |accepted| Asked { before, etag, shown, since: Instant::now(), accepted };
                match answer {
                    Ok(_) => asked = Some(of(true)),
                    Err(error) => {
                        // It may have been done. A preempted one was not: whoever changed the model is in the next look.
                        if error.class() == Class::Uncertain {
                            asked = Some(of(false));
                        }
                        sleep(bearable(error, pace, until)?).await;
                        continue;
                    }
                }
            }
        }
        sleep(pace.look).await;
    }
}

/// The model before it was asked for a change, and how that was answered.
struct Asked {
    before: Fingerprint,
    etag: Value,
    /// The model showed all of it before, as it may when it is asked again.
    shown: bool,
    since: Instant,
    accepted: bool,
}

impl Asked {
    /// Whether a model that shows all of it says that the request arrived. Where it showed it before, and the answer was lost, only another
    /// etag does.
    fn tells(&self, live: &Value) -> bool {
        self.accepted || !self.shown || self.etag != live["etag"]
    }
}

/// How long to wait after an error that passes.
fn bearable(error: CloudError, pace: Pace, until: Instant) -> Result<Duration, RestoreError> {
    let left = until.saturating_duration_since(Instant::now());
    match error.class() {
        Class::Throttled { retry_after } if retry_after < left => Ok(retry_after),
        Class::Busy | Class::Uncertain | Class::Preempted if pace.look < left => Ok(pace.look),
        Class::Throttled { .. }
        | Class::Busy
        | Class::Uncertain
        | Class::Preempted
        | Class::Denied
        | Class::Gone
        | Class::Refused => Err(error.into()),
    }
}
