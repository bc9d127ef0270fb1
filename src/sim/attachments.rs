//! Data disks that an order attaches to an instance: seen on the disk a while later, and gone from it later still.

use jiff::Timestamp;

use super::world::World;
use crate::{
    cloud::{CloudError, DiskState, Provisioning},
    model::{DiskId, InstanceId},
};

/// A data disk of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Whose it is.
    pub instance: InstanceId,
    /// Behind which number.
    pub lun: u32,
    /// When the disk says so.
    pub due: Timestamp,
    /// Set when it is being detached: gone after this.
    pub gone_at: Option<Timestamp>,
}

fn refused(what: &str, code: &str, message: &str) -> CloudError {
    CloudError::Refused { what: what.to_owned(), code: code.to_owned(), message: message.to_owned() }
}

fn gone(what: &str) -> CloudError {
    CloudError::Gone { what: what.to_owned(), code: "ResourceNotFound".into(), message: "not found".into() }
}

fn busy(what: &str, message: &str) -> CloudError {
    CloudError::Busy { what: what.to_owned(), code: "OperationNotAllowed".into(), message: message.to_owned() }
}

impl World {
    /// An order to attach a disk is accepted, or is not.
    pub(super) fn attach(&mut self, to: &InstanceId, disk: &DiskId, lun: u32) -> Result<(), CloudError> {
        let what = format!("attach {} to {}", disk.name(), to.name());
        let (Some(instance), Some(found)) = (self.instances.get(&to.key()), self.disks.get(&disk.key())) else {
            return Err(gone(&what));
        };
        if found.value.provisioning != Provisioning::Succeeded {
            return Err(busy(&what, "the disk is not ready"));
        }
        if let Some(there) = self.attachments.get(&disk.key()) {
            return match there.instance == *to && there.gone_at.is_none() {
                true if there.lun == lun => Ok(()),
                true => Err(refused(&what, "InvalidParameter", "the disk has another lun")),
                false => Err(busy(&what, "the disk is attached, or being detached")),
            };
        }
        if found.value.managed || found.value.state != DiskState::Unattached {
            return Err(refused(&what, "AttachDiskWhileBeingAttached", "the disk belongs to another machine"));
        }
        if instance.luns.contains(&lun) {
            return Err(refused(&what, "InvalidParameter", "a disk at that lun already exists"));
        }
        let zone_of = |id: &InstanceId| self.nodes.iter().find(|it| id.key() == it.provider_id.to_ascii_lowercase());
        if found.value.zone.is_some() && zone_of(to).is_some_and(|node| node.zone != found.value.zone) {
            return Err(refused(&what, "BadRequest", "the disk and the machine are in different zones"));
        }
        if self.otherwise(61) {
            return Ok(());
        }
        let due = self.now() + self.span(10..60);
        self.attachments.insert(disk.key(), Attachment { instance: to.clone(), lun, due, gone_at: None });
        Ok(())
    }

    /// An order to detach a disk is accepted, or is not.
    pub(super) fn detach(&mut self, from: &InstanceId, disk: &DiskId) -> Result<(), CloudError> {
        let what = format!("detach {} from {}", disk.name(), from.name());
        let mounted = self.pods.values().any(|pod| pod.spec.at.is_some() && pod.spec.disk == *disk);
        if mounted {
            self.trespasses.push(format!("{what}, and a pod has it"));
        }
        let gone_at = self.now() + self.span(20..120);
        match self.attachments.get_mut(&disk.key()).filter(|it| it.instance == *from) {
            Some(there) => {
                there.gone_at.get_or_insert(gone_at);
                Ok(())
            }
            None => Err(refused(&what, "InvalidParameter", "the machine has no such disk")),
        }
    }

    /// What becomes of them as time passes.
    pub(super) fn pass_attachments(&mut self) {
        let now = self.now();
        let due: Vec<(String, Attachment)> = self
            .attachments
            .iter()
            .filter(|(_, it)| it.due <= now)
            .map(|(key, it)| (key.clone(), it.clone()))
            .collect();
        for (key, Attachment { instance, lun, due: _, gone_at }) in due {
            let going = gone_at.is_some_and(|at| at <= now);
            if let Some(disk) = self.disks.get_mut(&key) {
                disk.value.managed = !going;
                disk.value.state = if going { DiskState::Unattached } else { DiskState::Attached };
                disk.value.attached_to = Some(instance.clone()).filter(|_| !going);
            }
            if let Some(machine) = self.instances.get_mut(&instance.key()) {
                machine.luns.retain(|it| *it != lun);
                if !going {
                    machine.luns.push(lun);
                }
            }
            if going {
                self.attachments.remove(&key);
            }
        }
    }
}
