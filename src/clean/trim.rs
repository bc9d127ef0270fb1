//! Makes freed blocks unreadable: a removed file is only a name less, its bytes stay in the raw disk until the block is discarded
//! or written again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfs, fstat, fstatvfs, major, minor, open, syncfs};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::canary::{Canary, RawDisk};
use super::report::Discard;

const FITRIM: Opcode = opcode::read_write::<TrimRange>(b'X', 121);
/// Of the zeros written at once.
const CHUNK: usize = 1 << 20;
/// Each takes what the one before could not: two or three do.
const FILLERS_MAX: usize = 64;

#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    length_min: u64,
}

/// What was done about free space.
pub(super) struct Trimmed {
    pub(super) discard: Discard,
    pub(super) bytes: u64,
    pub(super) size_bytes: u64,
    pub(super) free_bytes: u64,
}

/// Discards all free blocks of the mounted copy, or fills them with zeros where the disk does not do as it was told.
pub(super) fn trim(mounted: &Path, raw: &RawDisk<'_>) -> io::Result<Trimmed> {
    let root = open(mounted, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let canary = Canary::plant(&root)?;
    // Blocks are free only once the removals are committed; before that a trim would pass them by.
    syncfs(&root)?;
    let bytes = match fitrim(&root) {
        Ok(bytes) => Some(bytes),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => None,
        Err(errno) => return Err(errno.into()),
    };
    syncfs(&root)?;
    let discard = if bytes.is_some() && canary.is_gone(raw)? { Discard::Honoured } else { Discard::ZeroFilled };
    drop(canary);
    if discard == Discard::ZeroFilled {
        syncfs(&root)?;
        fill_with_zeros(&root)?;
    }
    // Once more for what the canary and the zeros took; where discards do nothing this does no harm.
    syncfs(&root)?;
    let _ = fitrim(&root);
    syncfs(&root)?;
    let StatVfs { f_blocks, f_bfree, f_frsize, .. } = fstatvfs(&root)?;
    let (size_bytes, free_bytes) = (f_blocks * f_frsize, f_bfree * f_frsize);
    Ok(Trimmed { discard, bytes: bytes.unwrap_or(0), size_bytes, free_bytes })
}

/// Where sysfs describes the device that a folder is on.
fn device_folder(root: &OwnedFd) -> io::Result<PathBuf> {
    let device = fstat(root)?.st_dev;
    Ok(PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device))))
}

#[expect(unsafe_code, reason = "no safe wrapper for FITRIM")]
fn fitrim(root: &OwnedFd) -> Result<u64, Errno> {
    let mut range = TrimRange { start: 0, length: u64::MAX, length_min: 0 };
    // SAFETY: `TrimRange` has the layout of `struct fstrim_range`, which the kernel reads and writes.
    unsafe { ioctl(root, Updater::<FITRIM, TrimRange>::new(&mut range)) }?;
    Ok(range.length)
}

/// Files without names take all free blocks. If we are killed, the kernel frees them when the disk is mounted next.
fn fill_with_zeros(root: &OwnedFd) -> io::Result<()> {
    // ext4 holds some blocks back even from root, and they hold old data like any others.
    let held_back = device_folder(root)?.canonicalize()?;
    let name = held_back.file_name().unwrap_or_default();
    let held_back = Path::new("/sys/fs/ext4").join(name).join("reserved_clusters");
    fs::write(&held_back, "0")
        .map_err(|error| io::Error::other(format!("write 0 to {}: {error}", held_back.display())))?;
    let zeros = vec![0; CHUNK];
    let mut fillers = Vec::new();
    // The first takes nearly all. What it had reserved for its own tree of extents is free again once it is written.
    while fillers.len() < FILLERS_MAX && fstatvfs(root)?.f_bfree > 0 {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(root, c".", flags, Mode::from_raw_mode(0o600))?);
        let mut size = CHUNK;
        // Smaller and smaller pieces, down to the last block.
        while size >= 512 {
            match file.write_all(&zeros[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error),
            }
        }
        file.sync_all()?;
        fillers.push(file);
    }
    match fstatvfs(root)?.f_bfree {
        0 => Ok(()),
        left => Err(io::Error::other(format!("{left} free blocks could not be filled with zeros"))),
    }
}
