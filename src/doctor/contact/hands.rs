//! Asks once more where that makes sense, and waits for what was asked for. Every wait has its end.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::names::Thing;
use crate::{
    cloud::{
        Accepted, Cloud, CloudError, DefinitionSpec, DiskCopy, NewVersion, Power, Provisioning, Replication,
        SnapshotSpec, Tags, azure::AzureCloud,
    },
    model::{Class, DiskId, GalleryId, InstanceId, Region, RunId, ScaleSetId, VersionId},
};

/// How long a trial waits, and how often it looks.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks.
    pub look: Duration,
    /// For anything to be made, changed or deleted.
    pub within: Duration,
    /// For another operation to end, or for an answer at all.
    pub busy: Duration,
    /// For a machine to stop or to start.
    pub power: Duration,
    /// A list is not further behind than this.
    pub lag: Duration,
}

impl Default for Pace {
    /// Azure rations reads by the minute. A version takes an hour at times; what a run waits for is what a trial waits for
    /// (docs/ASSUMPTIONS.md).
    fn default() -> Self {
        Self {
            look: Duration::from_secs(5),
            within: Duration::from_hours(3),
            busy: Duration::from_mins(10),
            power: Duration::from_mins(20),
            lag: Duration::from_mins(1),
        }
    }
}

/// One request.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    Snapshot(&'a SnapshotSpec),
    Copy(&'a DiskCopy),
    TagDisk(&'a DiskId, &'a Tags),
    Gallery(&'a GalleryId, &'a Region, &'a Tags),
    Definition(&'a DefinitionSpec, &'a Tags),
    Version(&'a NewVersion),
    Publish(&'a VersionId),
    TagVersion(&'a VersionId, &'a str, Option<&'a str>),
    Patch(&'a ScaleSetId, RunId, &'a Value, Option<&'a str>),
    /// Its value, and whether it comes or goes.
    TagSet(&'a ScaleSetId, &'a str, &'a str, bool),
    Delete(&'a Thing),
    Attach(&'a InstanceId, &'a DiskId, u32),
    Off(&'a InstanceId),
    Start(&'a InstanceId),
}

/// What a request is about, if it is there already.
fn about(ask: Ask<'_>) -> Option<Thing> {
    match ask {
        Ask::Patch(id, ..) | Ask::TagSet(id, ..) => Some(Thing::Set(id.clone())),
        Ask::Publish(id) | Ask::TagVersion(id, ..) => Some(Thing::Version(id.clone())),
        Ask::TagDisk(id, _) => Some(Thing::Disk(id.clone())),
        Ask::Delete(thing) => Some(thing.clone()),
        Ask::Snapshot(_)
        | Ask::Copy(_)
        | Ask::Gallery(..)
        | Ask::Definition(..)
        | Ask::Version(_)
        | Ask::Attach(..)
        | Ask::Off(_)
        | Ask::Start(_) => None,
    }
}

/// Who asks and waits.
#[derive(Clone, Copy)]
pub(super) struct Hands<'a> {
    pub(super) azure: &'a AzureCloud,
    /// The same as the port that runs use.
    pub(super) cloud: &'a dyn Cloud,
    pub(super) pace: Pace,
}

impl Hands<'_> {
    /// Asks until it is accepted, or the answer says that it can't be.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Accepted, CloudError> {
        let since = Instant::now();
        // What is being made can't be deleted before it is.
        let patience = if matches!(ask, Ask::Delete(_)) { self.pace.within } else { self.pace.busy };
        loop {
            // A machine that still has it is on no account asked to go: only to let go.
            if let Ask::Delete(Thing::Disk(id)) = ask {
                self.let_go(id).await?;
            }
            match self.send(ask).await {
                Ok(accepted) => return Ok(accepted),
                Err(error) => self.bear(error, since, patience).await?,
            }
            if let Some(thing) = about(ask) {
                self.look(&thing).await?;
            }
        }
    }

    async fn send(&self, ask: Ask<'_>) -> Result<Accepted, CloudError> {
        let (azure, cloud) = (self.azure, self.cloud);
        match ask {
            Ask::Snapshot(want) => cloud.begin_snapshot(want).await,
            Ask::Copy(want) => cloud.begin_copy_disk(want).await,
            Ask::TagDisk(id, tags) => cloud.begin_tag_disk(id, tags).await,
            Ask::Gallery(id, location, tags) => azure.begin_tagged_gallery(id, location, tags).await,
            Ask::Definition(want, tags) => azure.begin_tagged_definition(want, tags).await,
            Ask::Version(want) => cloud.begin_version(want).await,
            Ask::Publish(id) => cloud.begin_publish(id, true).await,
            Ask::TagVersion(id, tag, value) => cloud.begin_tag_version(id, tag, value).await,
            Ask::Patch(id, run, body, etag) => azure.begin_patch(id, run, body, etag).await,
            Ask::TagSet(id, tag, value, on) => azure.begin_tag_scale_set(id, tag, value, on).await,
            Ask::Delete(thing) => match thing {
                Thing::Set(_) => Ok(Accepted::default()),
                Thing::Version(id) => cloud.begin_delete_version(id).await,
                Thing::Definition(id) => azure.begin_delete_in_gallery(thing.noun(), id).await,
                Thing::Gallery(id) => azure.begin_delete_in_gallery(thing.noun(), id).await,
                Thing::Disk(id) => cloud.begin_delete_disk(id).await,
                Thing::Snapshot(id) => cloud.begin_delete_snapshot(id).await,
            },
            Ask::Attach(to, disk, lun) => cloud.begin_attach(to, disk, lun).await,
            Ask::Off(id) => cloud.begin_power_off(id).await,
            Ask::Start(id) => cloud.begin_start(id).await,
        }
    }

    /// Waits as an error asks for, unless it is for a person or has lasted too long.
    async fn bear(&self, error: CloudError, since: Instant, patience: Duration) -> Result<(), CloudError> {
        let passed = since.elapsed();
        let pause = match error.class() {
            Class::Throttled { retry_after } if passed + retry_after <= self.pace.within => retry_after,
            Class::Busy | Class::Uncertain if passed <= patience => self.pace.look,
            Class::Throttled { .. }
            | Class::Busy
            | Class::Uncertain
            | Class::Preempted
            | Class::Denied
            | Class::Gone
            | Class::Refused => return Err(error),
        };
        sleep(pause).await;
        Ok(())
    }

    /// How something is, if it is there, and whether it carries a run's tag. What is in a gallery is known by its name alone.
    pub(super) async fn look(&self, thing: &Thing) -> Result<Option<(Provisioning, bool)>, CloudError> {
        let since = Instant::now();
        loop {
            match self.read(thing).await {
                Ok(found) => return Ok(found),
                Err(error) => self.bear(error, since, self.pace.busy).await?,
            }
        }
    }

    async fn read(&self, thing: &Thing) -> Result<Option<(Provisioning, bool)>, CloudError> {
        let cloud = self.cloud;
        Ok(match thing {
            Thing::Set(id) => cloud.scale_set(id).await?.map(|it| (it.provisioning, true)),
            Thing::Version(id) => cloud.version(id).await?.map(|it| {
                let copied = matches!(it.replication, Replication::Completed | Replication::Failed(_));
                let whole = it.provisioning != Provisioning::Succeeded || copied;
                (if whole { it.provisioning } else { Provisioning::Running }, it.run.is_some())
            }),
            Thing::Definition(id) => cloud.definition(id).await?.map(|it| (it.provisioning, true)),
            Thing::Gallery(id) => cloud.gallery(id).await?.map(|it| (it.provisioning, true)),
            Thing::Disk(id) => cloud.disk(id).await?.map(|it| (it.provisioning, it.run.is_some())),
            Thing::Snapshot(id) => cloud.snapshot(id).await?.map(|it| (it.provisioning, it.run.is_some())),
        })
    }

    /// Waits until something is at rest: true when it succeeded.
    pub(super) async fn made(&self, thing: &Thing) -> Result<bool, CloudError> {
        let since = Instant::now();
        loop {
            let patience = match self.look(thing).await? {
                Some((Provisioning::Succeeded, _)) => return Ok(true),
                Some((Provisioning::Failed, _)) => return Ok(false),
                Some((Provisioning::Running, _)) => self.pace.within,
                // An accepted PUT may answer 404 for a while.
                None => self.pace.busy,
            };
            self.pause(thing, since, patience).await?;
        }
    }

    /// Waits until something is gone.
    pub(super) async fn gone(&self, thing: &Thing) -> Result<(), CloudError> {
        let since = Instant::now();
        while self.look(thing).await?.is_some() {
            self.pause(thing, since, self.pace.within).await?;
        }
        Ok(())
    }

    /// Has the machine that has a disk, if one has it, asked to detach it.
    pub(super) async fn let_go(&self, id: &DiskId) -> Result<(), CloudError> {
        let since = Instant::now();
        loop {
            let asked = match self.cloud.disk(id).await {
                Ok(found) => match found.and_then(|disk| disk.attached_to) {
                    Some(has) => self.cloud.begin_detach(&has, id).await.map(drop),
                    None => return Ok(()),
                },
                Err(error) => Err(error),
            };
            match asked {
                Ok(()) => return self.attached(id, None).await.map(drop),
                // It has been detached meanwhile, or is just being.
                Err(error) if error.class() == Class::Refused && since.elapsed() <= self.pace.busy => {
                    sleep(self.pace.look).await;
                }
                Err(error) => self.bear(error, since, self.pace.busy).await?,
            }
        }
    }

    /// Waits until a disk says that this machine has it, or none: false when it takes too long.
    pub(super) async fn attached(&self, id: &DiskId, to: Option<&InstanceId>) -> Result<bool, CloudError> {
        let since = Instant::now();
        loop {
            match self.cloud.disk(id).await {
                Ok(found) => {
                    let now = found.as_ref().and_then(|disk| disk.attached_to.as_ref());
                    if now == to && found.as_ref().is_none_or(|disk| disk.managed == to.is_some()) {
                        return Ok(true);
                    }
                    sleep(self.pace.look).await;
                }
                Err(error) => self.bear(error, since, self.pace.busy).await?,
            }
            if since.elapsed() > self.pace.busy {
                return Ok(false);
            }
        }
    }

    /// Waits until a machine is there: false when it takes too long.
    pub(super) async fn powered(&self, id: &InstanceId, want: &Power) -> Result<bool, CloudError> {
        let since = Instant::now();
        loop {
            match self.cloud.power(id).await {
                Ok(Some(power)) if power.state == *want => return Ok(true),
                Ok(_) => sleep(self.pace.look).await,
                Err(error) => self.bear(error, since, self.pace.busy).await?,
            }
            if since.elapsed() > self.pace.power {
                return Ok(false);
            }
        }
    }

    /// The pause between two looks.
    pub(super) async fn pause(&self, thing: &Thing, since: Instant, patience: Duration) -> Result<(), CloudError> {
        if since.elapsed() > patience {
            let detail = format!("not at an end within {} min", patience.as_secs() / 60);
            return Err(CloudError::Uncertain { what: thing.words(), detail });
        }
        sleep(self.pace.look).await;
        Ok(())
    }
}
