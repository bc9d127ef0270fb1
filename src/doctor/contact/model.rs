//! Changes of the scale set's model, and how it is put back.

use serde_json::{Value, json};

use super::{
    hands::Ask,
    names::{IMAGE_TAG, Thing},
    trial::{FirstContact, refusal},
};
use crate::{
    cloud::{
        CloudError, Fingerprint, ModelChange, Orchestration,
        azure::{AzureCloud, Heard},
    },
    model::Class,
};

/// What is seen here.
pub(super) const MODEL: &[u32] = &[1, 2, 3, 6, 47, 56, 57];

/// Where a model says which image it is.
const IMAGE: &str = "/properties/virtualMachineProfile/storageProfile/imageReference";
const STORAGE: &str = "/properties/virtualMachineProfile/storageProfile/";
/// The parts of a marketplace image.
const MARKET: [&str; 4] = ["publisher", "offer", "sku", "version"];
/// Azure takes no longer value of a tag.
const TAG_VALUE_MAX: usize = 256;
/// How often a change is built anew because another came first.
const PREEMPTED_MAX: u32 = 5;

impl FirstContact<'_> {
    /// `imaged`: there is a version that the model may follow for a while.
    pub(super) async fn model(&self, imaged: bool) -> Result<(), CloudError> {
        let (hands, book) = (self.hands, self.book);
        let set = Thing::Set(self.set.clone());
        (self.tell)("changes of the scale set that change nothing");
        let before = self.live().await?;
        let body = AzureCloud::same_capacity(&before);
        hands.ask(Ask::Patch(&self.set, self.run, &body, before["etag"].as_str())).await?;
        hands.made(&set).await?;
        let after = self.live().await?;
        let differs = Fingerprint::of(&before).diff(&Fingerprint::of(&after));
        book.note(47, differs.is_empty(), format!("asked for the capacity that it has, {}", parts(&differs)));
        self.stale(&before, &after).await?;

        let live = self.live().await?;
        let market = words(live.pointer(IMAGE).unwrap_or(&Value::Null));
        let market = market.filter(|words| words.len() <= TAG_VALUE_MAX && imaged);
        if let Some(words) = &market {
            (self.tell)("the scale set follows another image, and then its own again");
            hands.ask(Ask::TagSet(&self.set, IMAGE_TAG, words, true)).await?;
        } else {
            let why = if imaged { "its image is not from the marketplace" } else { "there is no version to follow" };
            book.skip(&[1], why);
        }
        let made_from = async || {
            let all = hands.cloud.instances(&self.set, self.orchestration).await?;
            Ok::<_, CloudError>(all.into_iter().map(|it| (it.id, it.image)).collect::<Vec<_>>())
        };
        let instances = made_from().await?;
        let flexible = self.orchestration == Orchestration::Flexible;
        let (before, heard) = match self.follow(market.is_some()).await {
            Ok(followed) => followed,
            Err(error) if refusal(&error) && flexible => {
                book.note(57, false, error.to_string());
                book.skip(MODEL, "the change of the model was refused");
                return self.forget(market.as_deref()).await;
            }
            Err(error) => return Err(error),
        };
        let accepted = [("an operation", &heard.operation), ("a Location", &heard.location)];
        let named: Vec<&str> = accepted.iter().filter(|(_, url)| url.is_some()).map(|(name, _)| *name).collect();
        let as_recorded = heard.status == 200 && heard.operation.is_some() && heard.location.is_none();
        book.note(6, as_recorded, format!("{} with {}", heard.status, named.join(" and ")));
        let made = hands.made(&set).await?;
        let after = self.live().await?;
        let differs = Fingerprint::of(&before).diff(&Fingerprint::of(&after));
        let storage: Vec<String> =
            differs.iter().filter(|part| part.starts_with(STORAGE) && !part.starts_with(IMAGE)).cloned().collect();
        book.note(2, made && storage.is_empty(), parts(&storage));
        if flexible {
            book.note(
                57,
                made && made_from().await? == instances,
                "accepted; the machines that are there stay as they are",
            );
            if before.pointer("/properties/upgradePolicy").is_some() {
                book.skip(&[56], "it has an upgrade policy");
            } else {
                let policy = differs.iter().any(|part| part.starts_with("/properties/upgradePolicy"));
                book.note(56, !policy, if policy { "one appeared" } else { "there was none and there is none" });
            }
        } else {
            book.skip(&[56, 57], "the scale set is Uniform");
        }
        let Some(market) = market else { return Ok(()) };
        let mixed = after.pointer(IMAGE).and_then(|image| image.get("publisher")).is_some();
        let null = self.put_back(&market).await?;
        let seen = if mixed { "publisher and the others are still there" } else { "only the id is there" };
        book.note(1, !mixed, format!("{seen}; {null}"));
        self.forget(Some(&market)).await
    }

    async fn live(&self) -> Result<Value, CloudError> {
        let found = self.hands.azure.raw_scale_set(&self.set).await?;
        found.ok_or_else(|| CloudError::Gone {
            what: format!("GET scale set {}", self.set.name()),
            code: "NotFound".into(),
            message: "it went meanwhile".into(),
        })
    }

    /// A change under an etag that is not the newest.
    async fn stale(&self, before: &Value, after: &Value) -> Result<(), CloudError> {
        let etag = |model: &Value| model["etag"].as_str().map(str::to_owned);
        let Some(newest) = etag(after) else {
            self.book.note(3, false, "the scale set shows no etag");
            return Ok(());
        };
        let stale = etag(before).filter(|old| *old != newest).unwrap_or_else(|| "\"0\"".to_owned());
        let body = AzureCloud::same_capacity(after);
        match self.hands.ask(Ask::Patch(&self.set, self.run, &body, Some(&stale))).await {
            Ok(_) => {
                self.book.note(3, false, "a change under an old etag was accepted");
                self.hands.made(&Thing::Set(self.set.clone())).await?;
            }
            Err(error) if error.class() == Class::Preempted => self.book.note(3, true, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// One PATCH with the complete live storage profile, under the live etag. What the model was, and how it was answered.
    async fn follow(&self, another: bool) -> Result<(Value, Heard), CloudError> {
        let mut left = PREEMPTED_MAX;
        loop {
            let live = self.live().await?;
            let mut reference = live.pointer(IMAGE).cloned().unwrap_or_default();
            if another {
                reference = json!({ "id": self.names.definition.as_str() });
            } else if let Some(fields) = reference.as_object_mut() {
                fields.remove("exactVersion");
            }
            let body = self.body(&live, reference);
            match self.hands.ask(Ask::Patch(&self.set, self.run, &body, live["etag"].as_str())).await {
                Ok(_) => return Ok((live, self.hands.azure.heard())),
                // A tag of ours changes the etag as well.
                Err(error) if error.class() == Class::Preempted && left > 0 => left -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// As a run sends it, with this image.
    fn body(&self, live: &Value, reference: Value) -> Value {
        let change = ModelChange {
            scale_set: self.set.clone(),
            run: self.run,
            image: self.names.definition.clone(),
            empty_custom_data: false,
            remove_extensions: Vec::new(),
            under: None,
        };
        let mut body = change.body(live);
        body["properties"]["virtualMachineProfile"]["storageProfile"]["imageReference"] = reference;
        body
    }

    /// Gives the scale set the image that it had. What an explicit null does is said in words.
    pub(super) async fn put_back(&self, market: &str) -> Result<&'static str, CloudError> {
        let hands = self.hands;
        let set = Thing::Set(self.set.clone());
        hands.made(&set).await?;
        let own = MARKET.into_iter().zip(market.split(' ')).map(|(name, value)| (name.to_owned(), value.into()));
        let own: serde_json::Map<String, Value> = own.collect();
        let mut with_null = own.clone();
        with_null.insert("id".into(), Value::Null);
        let live = self.live().await?;
        let (with_null, own) = (self.body(&live, with_null.into()), self.body(&live, own.into()));
        let mut said = "an explicit null takes an id away";
        match hands.ask(Ask::Patch(&self.set, self.run, &with_null, None)).await {
            Err(error) if error.class() == Class::Refused => {
                said = "an explicit null is refused";
                hands.ask(Ask::Patch(&self.set, self.run, &own, None)).await?;
            }
            other => drop(other?),
        }
        hands.made(&set).await?;
        let live = self.live().await?;
        let image = live.pointer(IMAGE).unwrap_or(&Value::Null);
        if words(image).as_deref() == Some(market) && image.get("id").is_none_or(Value::is_null) {
            return Ok(said);
        }
        let (what, code) = (format!("PATCH scale set {}", self.set.name()), "NotPutBack".to_owned());
        Err(CloudError::Refused { what, code, message: format!("its image is {image}, and was {market}") })
    }

    async fn forget(&self, market: Option<&str>) -> Result<(), CloudError> {
        if let Some(market) = market {
            self.hands.ask(Ask::TagSet(&self.set, IMAGE_TAG, market, false)).await?;
        }
        Ok(())
    }
}

/// Publisher, offer, sku and version of a marketplace image.
fn words(image: &Value) -> Option<String> {
    let words: Option<Vec<&str>> = MARKET.into_iter().map(|part| image[part].as_str()).collect();
    Some(words?.join(" ")).filter(|words| words.split(' ').count() == MARKET.len())
}

fn parts(differs: &[String]) -> String {
    if differs.is_empty() { "nothing else differs".to_owned() } else { format!("{} differ", differs.join(", ")) }
}
