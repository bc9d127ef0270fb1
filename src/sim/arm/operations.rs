//! Operation URLs: three kilobytes, signed, good only as they were given, byte for byte.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::target::Target;
use crate::cloud::Operation;

/// As long as the certificate that real URLs carry since 2024.
pub(super) const CERTIFICATE_LENGTH: usize = 2700;

/// What the face says of an accepted request.
pub(super) struct Urls {
    /// For `Azure-AsyncOperation`.
    pub(super) status: String,
    /// For `Location`.
    pub(super) monitor: String,
}

/// The operations that were given out.
#[derive(Debug, Default)]
pub(super) struct Operations(Mutex<BTreeMap<String, (Operation, String)>>);

impl Operations {
    /// A pair of URLs for one of the world's operations. Three families, as Azure's: scale sets, disks, galleries.
    pub(super) fn give(
        &self,
        base: &str,
        subscription: &str,
        target: &Target,
        world: Operation,
        guid: Uuid,
        certificate_length: usize,
    ) -> Urls {
        let family = match target {
            Target::Disk(_) | Target::Disks(_) | Target::Snapshot(_) | Target::Snapshots(_) => "DiskOperations",
            Target::Gallery(_) | Target::Definition(_) | Target::Version(_) | Target::Versions(_) | Target::Tags(_) => {
                "capsOperations"
            }
            Target::ScaleSet(_)
            | Target::ScaleSets(_)
            | Target::Instance(_)
            | Target::Order(..)
            | Target::Instances(_)
            | Target::MachinesOf(_)
            | Target::Machines(_)
            | Target::TagsOfSet(_)
            | Target::Autoscale(_)
            | Target::Operation(_)
            | Target::Permissions(_) => "operations",
        };
        let guid = guid.hyphenated().to_string();
        let signature = hex(&guid);
        let certificate: String = (0..)
            .flat_map(|n| hex(&format!("{guid}{n}")).into_bytes())
            .map(char::from)
            .take(certificate_length)
            .collect();
        let path =
            format!("/subscriptions/{subscription}/providers/Microsoft.Compute/locations/westus/{family}/{guid}");
        let query = format!(
            "p={guid}&api-version=2024-07-01&t=638602581384722287&c=MIIHhz{certificate}&s={signature}&h=jExK5M"
        );
        let suffix = format!("{path}?{query}");
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.insert(guid, (world, suffix.clone()));
        Urls { status: format!("{base}{suffix}"), monitor: format!("{base}{suffix}&monitor=true") }
    }

    /// The world's operation, and whether this is the `Location`; `Err` when the URL is not as it was given.
    pub(super) fn find(&self, guid: &str, path_and_query: &str) -> Option<Result<(Operation, bool), ()>> {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (operation, suffix) = given.get(&guid.to_ascii_lowercase())?;
        let monitor = path_and_query.ends_with("&monitor=true");
        let asked = path_and_query.strip_suffix("&monitor=true").unwrap_or(path_and_query);
        Some(if asked == suffix { Ok((operation.clone(), monitor)) } else { Err(()) })
    }
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
