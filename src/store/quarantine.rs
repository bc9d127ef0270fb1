//! A store that can't be trusted, moved aside by a person, and what can still be read of it.
//!
//! Never by itself: a daemon that began anew beside a damaged store would forget what it owes. What was read of the runs is
//! believed as little as the rest; it tells a person where to look.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::error::StoreError;
use super::frame::{Class, Frame};
use super::keys::{self, Key};
use super::lock::{Holder, Lock, PATIENCE};
use super::open::{open_tree, refuse_strangers};
use super::place::Place;
use super::replace::{refused, settle, sync_dir};
use super::tree::ByteTree;
use super::trial::{Copy, verify_copy};

/// A store that was moved aside.
#[derive(Debug)]
pub struct Quarantined {
    /// Where it is now.
    pub to: PathBuf,
    /// What is wrong with it.
    pub why: StoreError,
    /// Runs whose head could be read, with their summaries; there may be more.
    pub runs: Vec<(Uuid, Value)>,
    /// Entries that are no entries of ours.
    pub unreadable: u64,
}

/// Moves the store in a place aside, if it can't be trusted.
///
/// # Errors
/// [`StoreError::Sound`] if it can be; [`StoreError::Newer`] if only a newer release can tell. Nothing was moved.
pub fn quarantine_dir(place: &Place, holder: &Holder, now: Timestamp) -> Result<Quarantined, StoreError> {
    let dir = &place.dir;
    place.refuse_network()?;
    refuse_strangers(dir)?;
    let gone = !dir.join("db").exists() && !dir.join("mark").exists();
    if gone {
        return Err(StoreError::NotAStore { dir: dir.clone(), what: "there is no database in it".into() });
    }
    let mut lock = Lock::acquire(dir, PATIENCE)?;
    drop(lock.name(holder));
    settle(dir)?;
    let seen = if dir.join("db/db").exists() { verify_copy(dir).map(drop) } else { open_tree(dir).map(drop) };
    let why = match seen {
        Ok(()) => return Err(StoreError::Sound { dir: dir.clone() }),
        Err(why @ (StoreError::Damaged { .. } | StoreError::WentBack { .. })) => why,
        Err(other) => return Err(other),
    };
    let (runs, unreadable) = salvage(dir);
    let to = dir.join(format!("quarantine-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    moved(dir, &to, &why).map_err(|source| refused("move aside what is in", dir, source))?;
    Ok(Quarantined { to, why, runs, unreadable })
}

/// Killed between the two names, the rest is no store either: the command moves it, too, when it is given again.
fn moved(dir: &Path, to: &Path, why: &StoreError) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    let mut note = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to.join("WHY.txt"))?;
    writeln!(note, "{}: failed to {why}", why.code())?;
    note.sync_all()?;
    for name in ["db", "mark"] {
        match fs::rename(dir.join(name), to.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    sync_dir(to)?;
    sync_dir(dir)
}

/// What heads there are, and how much else is not readable. A damaged file may give none.
fn salvage(dir: &Path) -> (Vec<(Uuid, Value)>, u64) {
    let (mut runs, mut unreadable) = (Vec::new(), 0);
    let Ok(copy) = Copy::of(dir) else { return (runs, unreadable) };
    let Ok(tree) = super::sled_tree::SledTree::open(copy.dir()) else { return (runs, unreadable) };
    let read = tree.visit(&[], &mut |key, value| {
        match (keys::parse(key), Frame::decode(key, value)) {
            (Some(Key::Head(run)), Ok(frame)) if frame.class == Class::Head => {
                runs.push((run, frame.payload["summary"].clone()));
            }
            (Some(_), Ok(_)) => {}
            (None, _) | (_, Err(_)) => unreadable += 1,
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = read {
        tracing::warn!(error = error.text(), "the damaged store could only be read in part");
    }
    (runs, unreadable)
}
