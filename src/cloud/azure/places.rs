//! In which region things are, as far as requests and answers have said: Azure rations calls by subscription and region, and an id
//! names no region.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Region, ResourceId};

/// Many times what the pools of one daemon are made of; snapshots and disks come and go, so what is known is forgotten then.
const PLACES_MAX: usize = 1000;

/// The region of each thing that was read or made, by [`place_of`] its id.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<String, String>>);

/// What an answer says of where it is.
#[derive(Deserialize)]
struct Located {
    location: String,
}

/// What is below something is where that is: an instance with its scale set, a version with its gallery.
pub(super) fn place_of(id: &ResourceId) -> String {
    // An empty one, subscriptions, S, resourceGroups, G, providers, P, type, name.
    id.key().split('/').take(9).collect::<Vec<_>>().join("/")
}

/// The region that a request's body names.
pub(super) fn named(body: &Value) -> Option<String> {
    body["location"].as_str().map(|region| Region(region.to_owned()).key())
}

impl Places {
    /// Where it is, if that was said.
    pub(super) fn region(&self, place: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// Remembers what an answer about it says.
    pub(super) fn learn(&self, place: &str, answer: &[u8]) {
        let Ok(Located { location }) = serde_json::from_slice(answer) else { return };
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(place.to_owned(), Region(location).key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_where_its_scale_set_is() {
        let set = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/G/providers/Microsoft.Compute/\
                   virtualMachineScaleSets/pool1";
        let id = |text: &str| ResourceId::parse(text).expect("an id");
        let places = Places::default();
        let place = place_of(&id(set));
        assert_eq!(places.region(&place), None);
        places.learn(&place, br#"{ "name": "pool1", "location": "West Europe" }"#);
        for other in [format!("{set}/virtualMachines/3"), set.to_ascii_lowercase()] {
            assert_eq!(places.region(&place_of(&id(&other))).as_deref(), Some("westeurope"), "{other}");
        }
        assert_eq!(places.region(&place_of(&id(&format!("{set}0")))), None);
        // An operation, a list, no JSON: nothing is said.
        places.learn(&place, br#"{ "status": "Succeeded" }"#);
        places.learn(&place, b"oops");
        assert_eq!(places.region(&place).as_deref(), Some("westeurope"));
        for number in 0..2 * PLACES_MAX {
            places.learn(&number.to_string(), br#"{ "location": "x" }"#);
        }
        assert!(places.0.lock().expect("a lock").len() <= PLACES_MAX);
    }
}
