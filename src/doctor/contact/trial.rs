//! The trial: what is tried in which order, and what is taken away and put back before and after it.

use std::{collections::BTreeMap, fmt};

use tokio::time::Instant;

use super::{
    admit::{ContactError, Nodes, Pools, admit},
    attach::ATTACH,
    book::Book,
    copies::COPIES,
    hands::{Ask, Hands, Pace},
    images::IMAGES,
    model::MODEL,
    names::{IMAGE_TAG, Names, OFF_TAG, Remnant, Thing},
    power::POWER,
};
use crate::{
    cloud::{CloudError, Granted, Instance, Operation, Orchestration, ScaleSet, azure::AzureCloud},
    model::{Class, InstanceId, RunId, ScaleSetId},
    permissions::FIRST_CONTACT,
};

/// Told what is being done.
type Tell<'a> = &'a (dyn Fn(&str) + Sync);

/// A scale set that may be tried on.
pub struct FirstContact<'a> {
    pub(super) hands: Hands<'a>,
    pub(super) names: Names,
    pub(super) set: ScaleSetId,
    pub(super) orchestration: Orchestration,
    pub(super) run: RunId,
    pub(super) book: &'a Book,
    pub(super) tell: Tell<'a>,
    found: ScaleSet,
    instance: Option<Instance>,
}

impl fmt::Debug for FirstContact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstContact").field("set", &self.set).finish_non_exhaustive()
    }
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// What would be made, by its id, and taken away again.
    pub makes: Vec<String>,
    /// What would be changed, and put back.
    pub changes: Vec<String>,
    /// What it costs.
    pub costs: String,
    /// The actions that it needs besides those of a run, and what for.
    pub rights: BTreeMap<&'static str, &'static str>,
}

impl<'a> FirstContact<'a> {
    /// Looks whether a scale set may be tried on. Asks for nothing.
    ///
    /// # Errors
    /// [`ContactError::Refused`] says what speaks against it; choose another, or tag it.
    pub async fn admit(
        azure: &'a AzureCloud,
        pace: Pace,
        (set, run): (&ScaleSetId, RunId),
        (pools, nodes): (&Pools, &Nodes),
        (book, tell): (&'a Book, Tell<'a>),
    ) -> Result<Self, ContactError> {
        let (hands, names) = (Hands { azure, cloud: azure, pace }, Names::of(set)?);
        let (found, instances) = admit(hands, set, &names, pools, nodes).await?;
        let instance = instances.into_iter().find(|instance| instance.os_disk.is_some());
        let (set, orchestration) = (set.clone(), found.orchestration);
        Ok(Self { hands, names, set, orchestration, run, book, tell, found, instance })
    }

    /// What [`Self::run`] would do.
    #[must_use]
    pub fn plan(&self) -> Planned {
        let set = self.set.name();
        let mut makes: Vec<String> = self.names.things().iter().rev().map(|thing| thing.id().to_string()).collect();
        let mut changes = vec![
            format!("scale set {set} is asked for the capacity that it has"),
            format!(
                "scale set {set} follows an image of its own instance for some minutes, if its image is from the marketplace"
            ),
        ];
        match &self.instance {
            Some(instance) => {
                let name = instance.id.name();
                changes
                    .push(format!("instance {name} of {set} has a copy of its disk as a data disk for some minutes"));
                changes.push(format!("instance {} of {set} is switched off, and on again", instance.id.name()));
            }
            None => makes.clear(),
        }
        let costs = if self.instance.is_some() {
            "about an hour of storage for five copies of the instance's OS disk; no new instance"
        } else {
            "nothing: without an instance nothing is made. Scale the set to one instance to have more tried"
        };
        Planned { makes, changes, costs: costs.to_owned(), rights: FIRST_CONTACT.iter().copied().collect() }
    }

    /// Takes away what an earlier trial has left, then tries everything. What comes of it is in the book.
    pub async fn run(&self) {
        if let Some(first) = self.take_away().await.first() {
            self.skip_all(&format!("an earlier trial has left {}: {}", first.what, first.why));
            return;
        }
        let since = Instant::now();
        self.rights().await;
        let mut operation = None;
        let mut imaged = false;
        if let Some(instance) = &self.instance {
            let copied = self.ended(COPIES, Box::pin(self.copied(instance)).await);
            match copied.flatten() {
                Some((copy, first)) => {
                    operation = first;
                    self.ended(ATTACH, Box::pin(self.attach(instance, &copy)).await);
                    imaged = self.ended(IMAGES, Box::pin(self.images(&self.found, &copy)).await).unwrap_or(false);
                    self.book.skip(IMAGES, "there is no version");
                }
                None => self.book.skip(&[ATTACH, IMAGES].concat(), "there is no copy"),
            }
            self.book.skip(COPIES, "there is no snapshot, or no copy of it");
            self.ended(POWER, Box::pin(self.power(instance)).await);
        } else {
            self.book.skip(
                &[COPIES, ATTACH, IMAGES, POWER].concat(),
                "the scale set has no instance with a disk of its own",
            );
        }
        self.ended(MODEL, Box::pin(self.model(imaged)).await);
        if let Some(operation) = operation {
            self.ended(&[9], self.remembered(&operation, since).await);
        }
    }

    async fn copied(&self, instance: &Instance) -> Result<Option<(crate::cloud::Disk, Option<Operation>)>, CloudError> {
        let Some(id) = &instance.os_disk else { return Ok(None) };
        match self.hands.cloud.disk(id).await? {
            Some(disk) => self.copies(&disk).await,
            None => Ok(None),
        }
    }

    async fn rights(&self) {
        match self.hands.azure.granted_in(&self.set.group()).await {
            Ok(granted) => {
                let lacking = FIRST_CONTACT.iter().filter(|(action, _)| !Granted::any_allows(&granted, action));
                let lacking: Vec<&str> = lacking.map(|(action, _)| *action).collect();
                let lacking =
                    if lacking.is_empty() { String::new() } else { format!(", without {}", lacking.join(", ")) };
                self.book.note(39, true, format!("{} assignments{lacking}", granted.len()));
            }
            Err(error) if error.class() == Class::Denied => self.book.note(39, false, error.to_string()),
            Err(error) => self.book.skip(&[39], &error.to_string()),
        }
    }

    /// What a part came to; where it broke off, the rest of it was not tried.
    fn ended<T>(&self, numbers: &[u32], outcome: Result<T, CloudError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.book.skip(numbers, &error.to_string());
                None
            }
        }
    }

    fn skip_all(&self, why: &str) {
        self.book.skip(&[&[39], COPIES, ATTACH, IMAGES, POWER, MODEL].concat(), why);
    }

    /// Puts back what is noted on the scale set, and takes away all that bears a name of ours. What is left is returned.
    pub async fn take_away(&self) -> Vec<Remnant> {
        let mut left = Vec::new();
        match self.hands.cloud.scale_set(&self.set).await {
            Ok(Some(set)) => left.extend(Box::pin(self.reset(&set)).await),
            Ok(None) => {}
            Err(error) => left.push(self.remnant(&error.to_string())),
        }
        for thing in self.names.things() {
            if let Err(error) = self.take(&thing).await {
                left.push(Remnant::failed(&thing, &error));
            }
        }
        left
    }

    /// All that may be left of a trial whose taking away was broken off.
    #[must_use]
    pub fn unknown(&self) -> Vec<Remnant> {
        let why = "it was not looked at any more";
        let things = self.names.things();
        std::iter::once(self.remnant(why)).chain(things.iter().map(|thing| Remnant::of(thing, why))).collect()
    }

    async fn take(&self, thing: &Thing) -> Result<(), CloudError> {
        if self.hands.look(thing).await?.is_none() {
            return Ok(());
        }
        (self.tell)(&format!("{} goes", thing.words()));
        self.hands.ask(Ask::Delete(thing)).await?;
        self.hands.gone(thing).await
    }

    async fn reset(&self, set: &ScaleSet) -> Option<Remnant> {
        let outcome = async {
            if let Some(name) = set.tags.get(OFF_TAG) {
                let id = match self.orchestration {
                    Orchestration::Uniform => format!("{}/virtualMachines/{name}", self.set),
                    Orchestration::Flexible => {
                        format!("{}/providers/Microsoft.Compute/virtualMachines/{name}", self.set.group())
                    }
                };
                if let Ok(id) = InstanceId::parse(&id) {
                    self.started(&id).await?;
                }
            }
            if let Some(market) = set.tags.get(IMAGE_TAG) {
                self.put_back(market).await?;
                self.hands.ask(Ask::TagSet(&self.set, IMAGE_TAG, market, false)).await?;
            }
            Ok::<_, CloudError>(())
        };
        outcome.await.err().map(|error| self.remnant(&error.to_string()))
    }

    /// The scale set itself, as far as it is not as it was.
    fn remnant(&self, why: &str) -> Remnant {
        let what =
            format!("what the tags {IMAGE_TAG} and {OFF_TAG} of scale set {} name, if they are there", self.set.name());
        let command = format!("az vmss show --ids {} --query tags", self.set);
        Remnant { what, why: why.to_owned(), command }
    }
}

/// Azure says no: that is an answer, and not a failure to get one.
pub(super) fn refusal(error: &CloudError) -> bool {
    match error.class() {
        Class::Refused | Class::Busy | Class::Gone | Class::Preempted => true,
        Class::Throttled { .. } | Class::Uncertain | Class::Denied => false,
    }
}
