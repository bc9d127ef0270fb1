//! A version of the copy: its name, its tags, its publication, and what becomes of it without its source.

use tokio::time::Instant;

use super::{
    hands::Ask,
    names::{NOTE_TAG, Thing, tags},
    trial::{FirstContact, refusal},
};
use crate::{
    cloud::{CloudError, DefinitionSpec, Disk, NewVersion, Provisioning, Replication, ScaleSet, Tags, Version},
    model::{Region, VersionId},
};

/// What is seen here.
pub(super) const IMAGES: &[u32] = &[18, 19, 21, 23, 42];

impl FirstContact<'_> {
    /// True when there is a published version that a model may follow.
    pub(super) async fn images(&self, set: &ScaleSet, copy: &Disk) -> Result<bool, CloudError> {
        let (hands, book, names) = (self.hands, self.book, &self.names);
        let tags = tags(self.run);
        let location = Region(set.location.key());
        (self.tell)("a gallery, a definition and a version: that takes a while");
        hands.ask(Ask::Gallery(&names.gallery, &location, &tags)).await?;
        hands.made(&Thing::Gallery(names.gallery.clone())).await?;
        hands.ask(Ask::Definition(&self.definition_of(set, copy, &location), &tags)).await?;
        hands.made(&Thing::Definition(names.definition.clone())).await?;
        let want = NewVersion {
            id: names.version.clone(),
            location: location.clone(),
            regions: vec![location],
            replicas: 1,
            replicas_in: std::collections::BTreeMap::new(),
            storage: "Standard_LRS".into(),
            source: copy.id.id().clone(),
            tags,
        };
        let version = Thing::Version(names.version.clone());
        let refused = match hands.ask(Ask::Version(&want)).await {
            Ok(_) => None,
            Err(error) if refusal(&error) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        let made = refused.is_none() && hands.made(&version).await?;
        book.note(18, made, refused.unwrap_or_else(|| if made { "it was made" } else { "it failed" }.to_owned()));
        if !made {
            return Ok(false);
        }

        let [padded, plain] = [&names.version, &names.plain].map(|id| hands.cloud.version(id));
        let (padded, plain) = (padded.await?.is_some(), plain.await?.is_some());
        let listed = hands.cloud.versions(&names.definition).await?;
        let listed = listed.first().map_or_else(|| "nothing".to_owned(), |it| it.id.name().to_owned());
        let found = |found: bool| if found { "found" } else { "not found" };
        let (one, other) = (names.version.name(), names.plain.name());
        let seen = format!("{one} is {}, {other} is {}, listed as {listed}", found(padded), found(plain));
        book.note(23, padded && plain, seen);

        (self.tell)("a tag of the version");
        let before = self.version().await?;
        let with = self.tagged(Some("first contact")).await?;
        let without = self.tagged(None).await?;
        let differs = [differences(&before, &with), differences(&before, &without)].concat();
        book.note(42, differs.is_empty(), said(&differs));

        (self.tell)("publishing it, for nobody");
        hands.ask(Ask::Publish(&names.version)).await?;
        let after = self.until(&|version| !version.excluded_from_latest).await?;
        let differs = differences(&without, &after);
        book.note(21, differs.is_empty(), said(&differs));

        (self.tell)("its source goes");
        for thing in [Thing::Disk(names.copy.clone()), Thing::Snapshot(names.snapshot.clone())] {
            hands.ask(Ask::Delete(&thing)).await?;
            hands.gone(&thing).await?;
        }
        let after = self.version().await?;
        let whole = after.provisioning == Provisioning::Succeeded && after.replication == Replication::Completed;
        let seen = if whole { "it is whole a moment later" } else { "it is not whole any more" };
        book.note(19, whole, seen);
        Ok(whole)
    }

    fn definition_of(&self, set: &ScaleSet, copy: &Disk, location: &Region) -> DefinitionSpec {
        DefinitionSpec {
            id: self.names.definition.clone(),
            location: location.clone(),
            generation: copy.generation.clone(),
            architecture: copy.architecture,
            security_type: set.security_type.clone().or_else(|| copy.security_type.clone()),
            disk_controllers: set.disk_controller.clone(),
            plan: set.plan.clone().or_else(|| copy.plan.clone()),
            publisher: "kamino-wf".into(),
            offer: self.names.gallery.name().to_owned(),
            sku: self.names.definition.name().to_owned(),
        }
    }

    async fn version(&self) -> Result<Version, CloudError> {
        self.until(&|_| true).await
    }

    async fn tagged(&self, value: Option<&str>) -> Result<Version, CloudError> {
        self.hands.ask(Ask::TagVersion(&self.names.version, NOTE_TAG, value)).await?;
        let mut version = self.until(&|version| version.tags.contains_key(NOTE_TAG) == value.is_some()).await?;
        version.tags.remove(NOTE_TAG);
        Ok(version)
    }

    /// The version once it is at rest and as wanted.
    async fn until(&self, wanted: &dyn Fn(&Version) -> bool) -> Result<Version, CloudError> {
        let (hands, id): (_, &VersionId) = (self.hands, &self.names.version);
        let thing = Thing::Version(id.clone());
        let since = Instant::now();
        loop {
            hands.made(&thing).await?;
            if let Some(version) = hands.cloud.version(id).await?.filter(|found| wanted(found)) {
                return Ok(version);
            }
            hands.pause(&thing, since, hands.pace.busy).await?;
        }
    }
}

/// What of a version differs that neither a tag nor its publication is to change.
fn differences(before: &Version, after: &Version) -> Vec<&'static str> {
    let tags = |version: &Version| -> Tags { version.tags.clone() };
    let parts = [
        ("its regions", before.regions == after.regions),
        ("its storage", before.storage == after.storage),
        ("its source", before.source == after.source),
        ("its size", before.size_gib == after.size_gib),
        ("its tags", tags(before) == tags(after)),
        ("its state", before.provisioning == after.provisioning && before.replication == after.replication),
    ];
    parts.into_iter().filter(|(_, same)| !same).map(|(part, _)| part).collect()
}

fn said(differs: &[&str]) -> String {
    if differs.is_empty() {
        "nothing else of it differs".to_owned()
    } else {
        format!("{} differ too", differs.join(", "))
    }
}
