//! Makes freed blocks unreadable: a removed file is only a name less, its bytes stay in the raw disk until the block is discarded
//! or written again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, StatVfs, fstatvfs, major, minor, open, syncfs};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::report::Discard;

const FITRIM: Opcode = opcode::read_write::<TrimRange>(b'X', 121);
/// Of the zeros written at once.
const CHUNK: usize = 1 << 20;

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

/// Discards all free blocks of the mounted copy, or fills them with zeros where the disk takes no discard.
pub(super) fn trim(mounted: &Path) -> io::Result<Trimmed> {
    let root = open(mounted, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Blocks are free only once the removals are committed; before that a trim would pass them by.
    syncfs(&root)?;
    let block = fstatvfs(&root)?.f_frsize;
    // A disk that discards in larger units than blocks leaves those alone of which a part is in use.
    let fine = granularity(&root)?.is_some_and(|bytes| bytes <= block);
    let mut discard = Discard::Honoured;
    if !fine {
        fill_with_zeros(&root)?;
        discard = Discard::ZeroFilled;
    }
    let mut bytes = 0;
    match fitrim(&root) {
        Ok(trimmed) => bytes = trimmed,
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) if !fine => {}
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => {
            fill_with_zeros(&root)?;
            discard = Discard::ZeroFilled;
        }
        Err(errno) => return Err(errno.into()),
    }
    syncfs(&root)?;
    let StatVfs { f_blocks, f_bfree, .. } = fstatvfs(&root)?;
    Ok(Trimmed { discard, bytes, size_bytes: f_blocks * block, free_bytes: f_bfree * block })
}

/// The unit in which the disk under a folder discards; none if it does not.
fn granularity(root: impl AsFd) -> io::Result<Option<u64>> {
    let device = File::from(root.as_fd().try_clone_to_owned()?).metadata()?.dev();
    let folder = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // A partition has the queue of its disk.
    for queue in [format!("{folder}/queue"), format!("{folder}/../queue")] {
        let number = |name: &str| fs::read_to_string(format!("{queue}/{name}")).ok()?.trim().parse::<u64>().ok();
        if let Some(largest) = number("discard_max_bytes") {
            return Ok(number("discard_granularity").filter(|&unit| unit > 0 && largest > 0));
        }
    }
    Ok(None)
}

#[expect(unsafe_code, reason = "no safe wrapper for FITRIM")]
fn fitrim(root: impl AsFd) -> Result<u64, Errno> {
    let mut range = TrimRange { start: 0, length: u64::MAX, length_min: 0 };
    // SAFETY: `TrimRange` has the layout of `struct fstrim_range`, which the kernel reads and writes.
    unsafe { ioctl(root, Updater::<FITRIM, TrimRange>::new(&mut range)) }?;
    Ok(range.length)
}

/// One file without a name takes all free blocks. If we are killed, the kernel frees it when the disk is mounted next.
fn fill_with_zeros(root: impl AsFd) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(root, c".", flags, Mode::from_raw_mode(0o600))?);
    let zeros = vec![0; CHUNK];
    let mut size = CHUNK;
    // Smaller and smaller pieces, down to the last block.
    while size >= 512 {
        match file.write_all(&zeros[..size]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
            Err(error) => return Err(error),
        }
    }
    file.sync_all()
}
