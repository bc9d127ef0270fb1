//! Does the disk do what it is told when blocks are discarded? Not all that accept a discard do: a layer in between may swallow it
//! and say nothing, and a disk that works in units of megabytes leaves alone every unit of which a part is in use.
//!
//! So it is tried: a file of known content is written, every other block of it is freed and discarded like all other free
//! blocks, and the places where those were are read from the raw disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, fadvise, fallocate};
use rustix::ioctl::{Direction, Opcode, Updater, ioctl, opcode};

/// Of every file system that the cleaner meets; smaller ones only make the test finer.
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 256;
/// A file of this size on a file system with any free space at all has far fewer pieces.
const EXTENTS: usize = 64;
const PATTERN: &[u8; 32] = b"kamino-wf canary: not discarded\n";
/// `struct fiemap` has 32 bytes before its extents, and only those count in the number of the request.
const FIEMAP: Opcode = opcode::from_components(Direction::ReadWrite, b'f', 11, 32);

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved_long: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// The whole disk, under its file system.
pub(super) struct RawDisk<'a> {
    pub(super) disk: &'a File,
    /// Where the file system begins.
    pub(super) offset: u64,
}

/// The file, half of it freed; gone when dropped.
pub(super) struct Canary {
    /// Keeps the other half in use.
    _file: File,
    /// Where the freed blocks were, from the start of the file system.
    freed: Vec<u64>,
}

impl Canary {
    /// None of a disk that has no room for it counts as one that takes no discard.
    pub(super) fn plant(root: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(root, c".", flags, Mode::from_raw_mode(0o600))?);
        let text = PATTERN.repeat(usize::try_from(BLOCK * BLOCKS).unwrap_or(0) / PATTERN.len());
        match file.write_all(&text) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Ok(Self { _file: file, freed: Vec::new() });
            }
            Err(error) => return Err(error),
        }
        file.sync_all()?;
        let extents = extents(&file)?;
        let mut freed = Vec::new();
        for logical in (0..BLOCKS).step_by(2).map(|block| block * BLOCK) {
            let inside = |extent: &&Extent| (extent.logical..extent.logical + extent.length).contains(&logical);
            if let Some(extent) = extents.iter().find(inside) {
                fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, logical, BLOCK)?;
                freed.push(extent.physical + (logical - extent.logical));
            }
        }
        Ok(Self { _file: file, freed })
    }

    /// Whether none of the freed blocks can be read any more. Unknown counts as no.
    pub(super) fn is_gone(&self, raw: &RawDisk<'_>) -> io::Result<bool> {
        // What was read of the disk before may be remembered, and be older than the canary.
        fadvise(raw.disk, 0, None, Advice::DontNeed)?;
        for place in &self.freed {
            let mut block = [0; PATTERN.len()];
            raw.disk.read_exact_at(&mut block, raw.offset + place)?;
            if &block == PATTERN {
                return Ok(false);
            }
        }
        Ok(!self.freed.is_empty())
    }
}

#[expect(unsafe_code, reason = "no safe wrapper for FS_IOC_FIEMAP")]
fn extents(file: &File) -> io::Result<Vec<Extent>> {
    let room = u32::try_from(EXTENTS).unwrap_or(0);
    let extents = [Extent::default(); EXTENTS];
    let mut map = ExtentMap { start: 0, length: u64::MAX, flags: 0, mapped: 0, room, reserved: 0, extents };
    // SAFETY: `ExtentMap` has the layout of `struct fiemap` with room for `room` extents, which is all that the kernel writes.
    unsafe { ioctl(file, Updater::<FIEMAP, ExtentMap>::new(&mut map)) }?;
    Ok(map.extents.into_iter().take(map.mapped as usize).collect())
}
