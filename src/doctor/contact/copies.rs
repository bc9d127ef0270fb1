//! Snapshots and copies of an instance's OS disk, and the operations that make them.

use tokio::time::{Instant, sleep};

use super::{
    hands::Ask,
    names::{Thing, tags},
    trial::{FirstContact, refusal},
};
use crate::{
    cloud::{CloudError, Disk, DiskCopy, Operation, OperationState, SnapshotSpec, azure::Heard},
    model::{DiskId, SnapshotId},
};

/// What is seen here.
pub(super) const COPIES: &[u32] = &[8, 9, 10, 12, 13, 14, 15, 16, 26, 40, 46, 48, 50];

/// Longest URL of an operation that a run stores.
const URL_BYTES_MAX: usize = 64 << 10;

impl FirstContact<'_> {
    /// The copy of the disk, and the operation that made the snapshot.
    pub(super) async fn copies(&self, disk: &Disk) -> Result<Option<(Disk, Option<Operation>)>, CloudError> {
        let (hands, book, names) = (self.hands, self.book, &self.names);
        let absent = match hands.ask(Ask::Delete(&Thing::Snapshot(names.nothing.clone()))).await {
            Ok(_) => hands.azure.heard().status,
            Err(error) if refusal(&error) => {
                book.note(26, false, format!("deleting what is not there: {error}"));
                0
            }
            Err(error) => return Err(error),
        };

        let want = self.snapshot_of(disk.id.clone(), &names.snapshot, false, disk);
        (self.tell)("snapshot of an attached disk");
        match hands.ask(Ask::Snapshot(&want)).await {
            Ok(_) => {}
            Err(error) if refusal(&error) => {
                book.note(13, false, error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let heard = hands.azure.heard();
        if absent != 0 {
            let seen = format!("a snapshot: {}; deleting what is not there: {absent}", heard.status);
            book.note(26, [201, 202].contains(&heard.status) && [204, 404].contains(&absent), seen);
        }
        let snapshot = Thing::Snapshot(names.snapshot.clone());
        let operation = self.operation(&heard, &snapshot).await?;
        let made = hands.made(&snapshot).await?;
        let seen = if made { "accepted and made while the disk is attached" } else { "it failed" };
        book.note(13, made, seen);
        if !made {
            return Ok(None);
        }
        self.listed(&names.snapshot).await?;
        let Some(copy) = self.copy(disk).await? else { return Ok(None) };
        self.taken_again(&want, &copy).await?;

        (self.tell)("tags of a disk");
        hands.ask(Ask::TagDisk(&copy.id, &tags(self.run))).await?;
        hands.made(&Thing::Disk(copy.id.clone())).await?;
        let kept = hands.cloud.disk(&copy.id).await?.and_then(|disk| disk.version_storage).is_some();
        book.note(
            46,
            !kept,
            if kept { "a tag that was not sent is still there" } else { "a tag that was not sent is gone" },
        );

        self.increment(disk).await?;
        Ok(Some((copy, operation)))
    }

    fn snapshot_of(&self, source: DiskId, id: &SnapshotId, incremental: bool, disk: &Disk) -> SnapshotSpec {
        SnapshotSpec {
            id: id.clone(),
            source,
            location: disk.location.clone(),
            generation: disk.generation.clone(),
            incremental,
            tags: tags(self.run),
        }
    }

    fn copy_of(&self, source: &SnapshotId, id: &DiskId, disk: &Disk) -> DiskCopy {
        let mut tags = tags(self.run);
        tags.insert("kamino-wf-storage".into(), "Standard_LRS".into());
        DiskCopy {
            id: id.clone(),
            source: source.clone(),
            location: disk.location.clone(),
            zone: disk.zone.clone(),
            sku: disk.sku.clone(),
            generation: disk.generation.clone(),
            architecture: disk.architecture,
            security_type: disk.security_type.clone(),
            controllers: disk.controllers.clone(),
            tags,
        }
    }

    /// What its two URLs are like, and what they say until the end. The first is returned, if it may be asked again.
    async fn operation(&self, heard: &Heard, thing: &Thing) -> Result<Option<Operation>, CloudError> {
        let (hands, book) = (self.hands, self.book);
        let Some(operation) = &heard.operation else {
            book.skip(&[8, 9, 10, 12], "the answer names no operation");
            return Ok(None);
        };
        let own = hands.azure.is_own(operation);
        book.note(8, own, if own { "on the resource manager's own host" } else { "on another host" });
        let length = operation.0.len();
        book.note(12, length <= URL_BYTES_MAX && operation.0.is_ascii(), format!("{length} bytes"));
        let Some(location) = heard.location.as_ref().filter(|_| own && length <= URL_BYTES_MAX) else {
            book.skip(&[9, 10], "there are no two URLs that may be asked");
            return Ok(None);
        };
        let since = Instant::now();
        loop {
            // In this order: what is at its end by now is so a moment later.
            let at_end = match hands.cloud.operation(location).await? {
                OperationState::Running(_) | OperationState::Unknown => false,
                OperationState::Succeeded | OperationState::Failed { .. } => true,
            };
            let fits = match hands.cloud.operation(operation).await? {
                OperationState::Running(_) if at_end => false,
                OperationState::Running(_) => {
                    hands.pause(thing, since, hands.pace.within).await?;
                    continue;
                }
                OperationState::Succeeded => hands.made(thing).await?,
                OperationState::Failed { .. } => !hands.made(thing).await?,
                OperationState::Unknown => {
                    book.skip(&[10], "its URL was forgotten first");
                    return Ok(Some(operation.clone()));
                }
            };
            let seen =
                if fits { "both URLs say as the resource does" } else { "a URL says otherwise than the resource" };
            book.note(10, fits, seen);
            return Ok(Some(operation.clone()));
        }
    }

    /// By how much a list is behind.
    async fn listed(&self, id: &SnapshotId) -> Result<(), CloudError> {
        let since = Instant::now();
        loop {
            let all = self.hands.cloud.leftovers(&self.set.group()).await?;
            let there = all.snapshots.iter().any(|snapshot| snapshot.id == *id);
            let passed = since.elapsed();
            if there || passed > self.hands.pace.lag {
                let seen = if there { "a new snapshot is listed after" } else { "a new snapshot is not listed after" };
                self.book.note(40, there, format!("{seen} {} s", passed.as_secs()));
                return Ok(());
            }
            sleep(self.hands.pace.look).await;
        }
    }

    async fn copy(&self, disk: &Disk) -> Result<Option<Disk>, CloudError> {
        let (hands, book) = (self.hands, self.book);
        (self.tell)("a disk of the snapshot");
        let zonal = disk.zone.is_some() && disk.sku.starts_with("Premium");
        let refused = match hands.ask(Ask::Copy(&self.copy_of(&self.names.snapshot, &self.names.copy, disk))).await {
            Ok(_) => None,
            Err(error) if refusal(&error) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let made = refused.is_none() && hands.made(&Thing::Disk(self.names.copy.clone())).await?;
        let seen = refused.unwrap_or_else(|| if made { "both were made" } else { "the disk failed" }.to_owned());
        if zonal {
            book.note(15, made, seen);
        } else {
            book.skip(&[15], "the instance's disk is not both zonal and Premium");
        }
        let Some(copy) = hands.cloud.disk(&self.names.copy).await?.filter(|_| made) else { return Ok(None) };
        for (number, asked, got) in
            [(16, &disk.security_type, &copy.security_type), (50, &disk.controllers, &copy.controllers)]
        {
            match asked {
                Some(asked) => {
                    let seen = format!("of {asked} came {}", got.as_deref().unwrap_or("nothing"));
                    book.note(number, Some(asked) == got.as_ref(), seen);
                }
                None => book.skip(&[number], "the instance's disk says nothing of it"),
            }
        }
        Ok(Some(copy))
    }

    /// The same name again: of the same disk, and of another.
    async fn taken_again(&self, want: &SnapshotSpec, copy: &Disk) -> Result<(), CloudError> {
        let hands = self.hands;
        let snapshot = Thing::Snapshot(want.id.clone());
        let taken = async || Ok::<_, CloudError>(hands.cloud.snapshot(&want.id).await?.and_then(|it| it.created));
        (self.tell)("the same snapshot again");
        let before = taken().await?;
        hands.ask(Ask::Snapshot(want)).await?;
        hands.made(&snapshot).await?;
        let same = taken().await? == before;
        let other = SnapshotSpec { source: copy.id.clone(), ..want.clone() };
        let refused = match hands.ask(Ask::Snapshot(&other)).await {
            Ok(_) => {
                hands.made(&snapshot).await?;
                "accepted".to_owned()
            }
            Err(error) if refusal(&error) => "refused".to_owned(),
            Err(error) => return Err(error),
        };
        let again = if same { "did nothing" } else { "took it anew" };
        let seen = format!("of the same disk it {again}; of another it was {refused}");
        self.book.note(14, same && refused == "refused", seen);
        Ok(())
    }

    async fn increment(&self, disk: &Disk) -> Result<(), CloudError> {
        let (hands, names) = (self.hands, &self.names);
        (self.tell)("an incremental snapshot, and a disk of it");
        let want = self.snapshot_of(disk.id.clone(), &names.increment, true, disk);
        let mut made = false;
        let mut seen = String::new();
        for (ask, thing) in [
            (Ask::Snapshot(&want), Thing::Snapshot(names.increment.clone())),
            (Ask::Copy(&self.copy_of(&names.increment, &names.second, disk)), Thing::Disk(names.second.clone())),
        ] {
            made = match hands.ask(ask).await {
                Ok(_) => hands.made(&thing).await?,
                Err(error) if refusal(&error) => {
                    seen = error.to_string();
                    false
                }
                Err(error) => return Err(error),
            };
            if !made {
                break;
            }
        }
        if seen.is_empty() {
            seen.push_str(if made { "both were made" } else { "it failed" });
        }
        self.book.note(48, made, seen);
        Ok(())
    }

    /// Whether the first operation is still known when all is over.
    pub(super) async fn remembered(&self, operation: &Operation, since: Instant) -> Result<(), CloudError> {
        let minutes = since.elapsed().as_secs() / 60;
        match self.hands.cloud.operation(operation).await? {
            OperationState::Running(_) => self.book.skip(&[9], "it says that it is running"),
            OperationState::Succeeded | OperationState::Failed { .. } => {
                self.book.note(9, true, format!("after {minutes} min it still answers"));
            }
            OperationState::Unknown => {
                self.book.note(9, false, format!("after {minutes} min it is not known any more"));
            }
        }
        Ok(())
    }
}
