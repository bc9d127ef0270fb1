//! The power of one instance.

use super::{
    hands::Ask,
    names::{OFF_TAG, Thing},
    trial::{FirstContact, refusal},
};
use crate::{
    cloud::{CloudError, Instance, Orchestration, Power},
    model::{Class, InstanceId},
};

/// What is seen here.
pub(super) const POWER: &[u32] = &[51, 52, 54, 59];

impl FirstContact<'_> {
    pub(super) async fn power(&self, instance: &Instance) -> Result<(), CloudError> {
        let (hands, book, id) = (self.hands, self.book, &instance.id);
        let machine = match self.hands.cloud.power(id).await {
            Ok(machine) => machine,
            Err(error) if error.class() == Class::Denied => {
                book.note(54, false, error.to_string());
                None
            }
            Err(error) => return Err(error),
        };
        let Some(machine) = machine else {
            book.skip(POWER, "its power can't be read");
            return Ok(());
        };
        book.note(54, true, format!("it is {:?}", machine.state));
        if machine.state != Power::Running {
            book.skip(POWER, "the instance does not run");
            return Ok(());
        }
        (self.tell)("an instance is switched off, and on again");
        hands.ask(Ask::TagSet(&self.set, OFF_TAG, id.name(), true)).await?;
        let mut seen = Vec::new();
        let mut good = true;
        for (ask, want, word) in [(Ask::Off(id), Power::Stopped, "off"), (Ask::Start(id), Power::Running, "on")] {
            hands.ask(ask).await?;
            let there = hands.powered(id, &want).await?;
            good &= there;
            seen.push(format!("{word}: {}", if there { "it is" } else { "it is not in time" }));
            if !there {
                continue;
            }
            // What it is already.
            let repeated = match hands.ask(ask).await {
                Ok(_) => hands.powered(id, &want).await?,
                Err(error) if refusal(&error) => false,
                Err(error) => return Err(error),
            };
            good &= repeated;
            seen.push(if repeated { "asked again to no effect" } else { "asked again it is refused" }.to_owned());
        }
        book.note(51, good, seen.join(", "));
        let now = hands.cloud.instance(id).await?;
        let same = now.is_some_and(|now| now.vm_id == instance.vm_id && now.os_disk == instance.os_disk);
        let seen = if same { "vmId and disk are the same" } else { "vmId or disk are others" };
        match self.orchestration {
            Orchestration::Uniform => {
                book.note(52, same, seen);
                book.skip(&[59], "the scale set is Uniform");
            }
            Orchestration::Flexible => {
                book.note(59, same, seen);
                book.note(52, same, seen);
            }
        }
        self.started(id).await
    }

    /// Has an instance running, and forgets that it was switched off.
    pub(super) async fn started(&self, id: &InstanceId) -> Result<(), CloudError> {
        let hands = self.hands;
        if hands.cloud.instance(id).await?.is_some() {
            match hands.ask(Ask::Start(id)).await {
                Err(error) if !refusal(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
            if !hands.powered(id, &Power::Running).await? {
                let what = Thing::Set(self.set.clone()).words();
                let detail = format!("instance {} does not start", id.name());
                return Err(CloudError::Uncertain { what, detail });
            }
        }
        hands.ask(Ask::TagSet(&self.set, OFF_TAG, id.name(), false)).await?;
        Ok(())
    }
}
