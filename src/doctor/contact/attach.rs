//! A copy on the instance as a data disk, and off it again: what `cleaning.attach: instance` does with another node of a pool.

use super::{
    hands::Ask,
    trial::{FirstContact, refusal},
};
use crate::{
    cloud::{CloudError, Disk, Instance, LUNS},
    model::DiskId,
};

/// What is seen here.
pub(super) const ATTACH: &[u32] = &[61];

impl FirstContact<'_> {
    /// Before the instance is switched off and on: with two disks alike it might start from either.
    pub(super) async fn attach(&self, instance: &Instance, copy: &Disk) -> Result<(), CloudError> {
        let (hands, book, id) = (self.hands, self.book, &instance.id);
        let Some(before) = hands.cloud.instance(id).await? else {
            book.skip(ATTACH, "the instance is gone");
            return Ok(());
        };
        let Some(lun) = (0..LUNS).rev().find(|lun| !before.luns.contains(lun)) else {
            book.skip(ATTACH, "the instance has no free logical unit number");
            return Ok(());
        };
        (self.tell)("a copy is attached to the instance, and detached");
        match hands.ask(Ask::Attach(id, &copy.id, lun)).await {
            Ok(_) => {}
            Err(error) if refusal(&error) => {
                book.note(61, false, error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let attached = hands.attached(&copy.id, Some(id)).await?;
        let with = Instance { luns: [before.luns.clone(), vec![lun]].concat(), ..before.clone() };
        let alone = attached && hands.cloud.instance(id).await?.is_some_and(|now| same(&now, &with));
        let detached = attached && self.detached(&copy.id).await? && {
            let now = hands.cloud.instance(id).await?;
            now.is_some_and(|now| same(&now, &before))
        };
        let seen = match (attached, alone, detached) {
            (false, ..) => "the disk does not say that it is attached".to_owned(),
            (true, false, _) => "the disk is attached, and the instance differs in more than that".to_owned(),
            (true, true, false) => "it was attached, and is not detached".to_owned(),
            (true, true, true) => {
                format!("behind number {lun} and off it again, and nothing else of the instance differs")
            }
        };
        book.note(61, detached && alone, seen);
        Ok(())
    }

    async fn detached(&self, id: &DiskId) -> Result<bool, CloudError> {
        self.hands.let_go(id).await?;
        self.hands.attached(id, None).await
    }
}

/// But for what changes with every change.
fn same(one: &Instance, other: &Instance) -> bool {
    let luns = |instance: &Instance| {
        let mut luns = instance.luns.clone();
        luns.sort_unstable();
        luns
    };
    (&one.vm_id, &one.os_disk, &one.image, luns(one)) == (&other.vm_id, &other.os_disk, &other.image, luns(other))
}
