//! What steps remember beyond their runs, for whoever looks without one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::engine::MEMORY;

/// Where such facts are in the store.
#[must_use]
pub fn memory_prefix() -> &'static str {
    MEMORY
}

/// The facts as steps see them, from those under [`memory_prefix`].
#[must_use]
pub fn memory_of(facts: Vec<(String, Value)>) -> BTreeMap<String, Value> {
    facts.into_iter().filter_map(|(key, value)| Some((key.strip_prefix(MEMORY)?.to_owned(), value))).collect()
}
