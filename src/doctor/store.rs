//! The place of the store: whose it is, what it is on, and whether what is written there stays.

use std::path::Path;

use super::Check;
use crate::{
    http::Client,
    store::{Enough, Place, StoreError, Survey, holder, survey, try_out},
};

const NAME: &str = "store";

/// Looks at the directory of the store. Nothing is tried out where somebody holds it: it works for them.
pub async fn store(at: impl Into<Place>) -> Vec<Check> {
    let at = at.into();
    let dir = at.dir.as_path();
    let place = match survey(at.clone()) {
        Ok(place) => place,
        Err(error) => return vec![Check::wrong(NAME, error.to_string(), remedy(&error))],
    };
    let mut checks = vec![match Client::connect(dir).await {
        Ok(Some(_)) => held(dir),
        Ok(None) => tried(dir, &place),
        Err(error) => Check::warning(NAME, error.to_string(), "run this as the user that holds the store"),
    }];
    checks.extend(room(dir, &place));
    checks
}

fn held(dir: &Path) -> Check {
    let by = holder(dir).map_or_else(
        || "a process".to_owned(),
        |it| format!("process {} of release {}, since {:.0}", it.pid, it.release, it.since),
    );
    Check::ok(NAME, format!("{} is held by {by}, which answers", dir.display()))
}

fn tried(dir: &Path, place: &Survey) -> Check {
    let what = match (place.there, place.store) {
        (false, _) => "is not there yet and can be made",
        (true, false) => "is empty and can be written and synced",
        (true, true) => "holds a store that nobody has open, and can be written and synced",
    };
    match if place.there { try_out(dir) } else { Ok(()) } {
        Ok(()) => Check::ok(NAME, format!("{} {what}; {} MiB are free", dir.display(), place.free >> 20)),
        Err(error) => {
            let seen = format!("{}: a file can't be written, synced and renamed there: {error}", dir.display());
            Check::wrong(NAME, seen, "let this user (65532 in the image) write there: fsGroup, or the volume's owner")
        }
    }
}

fn room(dir: &Path, place: &Survey) -> Vec<Check> {
    const LARGER: &str = "give the volume 1 GiB";
    let mut checks = Vec::new();
    match place.enough {
        Enough::Yes => {}
        Enough::Barely => {
            checks.push(Check::warning(
                NAME,
                format!("only {} MiB are free: no run is begun there", place.free >> 20),
                LARGER,
            ));
        }
        Enough::No => checks.push(Check::wrong(NAME, format!("only {} KiB are free", place.free >> 10), LARGER)),
    }
    if let Some(kind) = place.forgetful {
        let seen = format!(
            "{} is on {kind}: what is written there does not outlive the container or the machine",
            dir.display()
        );
        checks.push(Check::warning(NAME, seen, "mount a volume there; for `doctor` alone it does not matter"));
    }
    checks
}

fn remedy(error: &StoreError) -> &'static str {
    if matches!(error, StoreError::NetworkFileSystem { .. }) {
        "use a local disk or a block volume (ReadWriteOncePod), never NFS or SMB (on Azure a disk, not Azure Files)"
    } else if matches!(error, StoreError::NotAStore { .. }) {
        "name a directory of its own with --store, KAMINO_STORE or the setting store"
    } else {
        "let this user (65532 in the image) read and write there: fsGroup, or the volume's owner"
    }
}
