//! A look at a place for a store, before anything is opened: for `doctor`. Leaves nothing behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use rustix::fs::Access;

use super::{
    error::StoreError,
    lock::Holder,
    open::refuse_strangers,
    place::{Place, existing, forgetful},
    room::{Enough, room_for_a_store},
};

/// The beginning of names that a trial uses; such a file makes no directory a stranger's.
pub(super) const TRIAL: &str = ".kamino-wf-trial";

/// What a place is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The directory is there; otherwise it would be made.
    pub there: bool,
    /// A store is in it.
    pub store: bool,
    /// A kind of file system that does not outlive the machine or the container.
    pub forgetful: Option<&'static str>,
    /// Bytes that we may still write.
    pub free: u64,
    /// Whether that is enough.
    pub enough: Enough,
}

/// Looks at the directory of a store, or at what it would be made in.
///
/// # Errors
/// What [`open_dir`](super::open_dir) would refuse at once: a network file system, somebody else's directory, none at all.
pub fn survey(place: impl Into<Place>) -> Result<Survey, StoreError> {
    let place = place.into();
    place.refuse_network()?;
    let dir = place.dir.as_path();
    refuse_strangers(dir)?;
    let there = dir.exists();
    let place = existing(dir);
    let unreadable = |source| StoreError::Unreadable { what: "look at", path: place.clone(), source };
    if !there {
        rustix::fs::access(&place, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| unreadable(errno.into()))?;
    }
    let (free, enough) = room_for_a_store(&place).map_err(unreadable)?;
    let forgetful = forgetful(&place).map_err(unreadable)?;
    Ok(Survey { there, store: dir.join("db").exists(), forgetful, free, enough })
}

/// Does in a directory what a store does there: a file is written, synced and renamed, and its directory synced. Then it is
/// removed again.
///
/// # Errors
/// The system's, at the first of these that fails.
pub fn try_out(dir: &Path) -> io::Result<()> {
    let name = format!("{TRIAL}-{}", std::process::id());
    let (first, second) = (dir.join(&name), dir.join(format!("{name}-renamed")));
    let done = write_and_rename(dir, &first, &second);
    for path in [&first, &second] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && done.is_ok() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    done
}

fn write_and_rename(dir: &Path, first: &Path, second: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(first)?;
    file.write_all(&[0x5A; 4096])?;
    file.sync_all()?;
    fs::rename(first, second)?;
    File::open(dir)?.sync_all()
}

/// Who holds the store, as the holder wrote; `None` where nobody did. It may have died since.
#[must_use]
pub fn holder(dir: &Path) -> Option<Holder> {
    serde_json::from_str(&fs::read_to_string(dir.join("LOCK")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_nothing_behind_and_makes_no_store() {
        let dir = tempfile::tempdir().expect("a directory");
        let seen = survey(dir.path()).expect("an empty directory will do");
        assert!(seen.there && !seen.store && seen.free > 0, "{seen:?}");
        try_out(dir.path()).expect("it can be written");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
        fs::write(dir.path().join(format!("{TRIAL}-1")), "").expect("a trial's rest");
        survey(dir.path()).expect("another's trial is no stranger");
    }

    #[test]
    fn a_directory_that_is_not_there_counts_by_what_it_would_be_made_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let seen = survey(&dir.path().join("a/b")).expect("it can be made");
        assert!(!seen.there && !seen.store, "{seen:?}");
        assert!(!dir.path().join("a").exists(), "and it is not");
    }
}
