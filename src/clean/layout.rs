//! Where the file systems of a disk are, read from its bytes: a GPT, or a bare ext4 file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A GPT of a node has a handful of entries; the header may claim any number.
const ENTRIES_MAX: u32 = 256;
const EXT4_MAGIC: u16 = 0xEF53;
/// `s_state`: the kernel has met an error in this file system.
const EXT4_ERRORS: u16 = 0x2;
/// `s_feature_incompat`: extents, which tell ext4 from its forerunners.
const EXT4_EXTENTS: u32 = 0x40;
/// `s_feature_incompat`: the journal is not empty.
const EXT4_RECOVER: u32 = 0x4;

/// What the superblock says of the last time that the file system was mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Unmounted in order.
    Settled,
    /// Snapshotted while in use: what the journal holds is still to be written to its places.
    NeedsReplay,
    /// The kernel met errors in it.
    HasErrors,
}

/// An ext4 file system on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Number of its partition, none on a bare disk.
    pub(super) partition: Option<u32>,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) state: State,
}

impl Candidate {
    pub(super) fn name(&self) -> String {
        match self.partition {
            Some(number) => format!("gpt partition {number}"),
            None => "bare ext4".to_owned(),
        }
    }
}

/// All ext4 file systems of a disk, or in words what is there instead.
pub(super) fn candidates(disk: &File, size: u64) -> io::Result<Result<Vec<Candidate>, String>> {
    if let Some(state) = ext4(disk, 0)? {
        return Ok(Ok(vec![Candidate { partition: None, offset: 0, size, state }]));
    }
    for sector in [512, 4096] {
        let Some(partitions) = gpt(disk, sector)? else { continue };
        let mut found = Vec::new();
        for (number, offset, length) in partitions {
            let fits = offset.checked_add(length).is_some_and(|end| end <= size);
            if fits && let Some(state) = ext4(disk, offset)? {
                found.push(Candidate { partition: Some(number), offset, size: length, state });
            }
        }
        return Ok(if found.is_empty() { Err("a GPT without any ext4 partition".to_owned()) } else { Ok(found) });
    }
    Ok(Err(other(disk)?.to_owned()))
}

/// The state of the ext4 file system that begins at an offset, if one does.
fn ext4(disk: &File, offset: u64) -> io::Result<Option<State>> {
    let Some(superblock) = read::<1024>(disk, offset.saturating_add(1024))? else { return Ok(None) };
    let half = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    let features = word(&superblock, 0x60);
    Ok(match () {
        () if half(0x38) != EXT4_MAGIC || features & EXT4_EXTENTS == 0 => None,
        () if half(0x3A) & EXT4_ERRORS != 0 => Some(State::HasErrors),
        () if features & EXT4_RECOVER != 0 => Some(State::NeedsReplay),
        () => Some(State::Settled),
    })
}

/// Number, offset and size of every used entry of a GPT with a valid header.
fn gpt(disk: &File, sector: u64) -> io::Result<Option<Vec<(u32, u64, u64)>>> {
    let Some(header) = read::<512>(disk, sector)? else { return Ok(None) };
    let length = word(&header, 12) as usize;
    if !header.starts_with(b"EFI PART") || !(92..=512).contains(&length) {
        return Ok(None);
    }
    let mut summed = header[..length].to_vec();
    summed[16..20].fill(0);
    let (count, size) = (word(&header, 80), word(&header, 84));
    if crc32fast::hash(&summed) != word(&header, 16) || count > ENTRIES_MAX || !(128..=512).contains(&size) {
        return Ok(None);
    }
    let first = long(&header, 72).saturating_mul(sector);
    let mut partitions = Vec::new();
    for index in 0..count {
        let at = first.saturating_add(u64::from(index) * u64::from(size));
        let Some(entry) = read::<128>(disk, at)? else { return Ok(None) };
        let (start, end) = (long(&entry, 32), long(&entry, 40));
        if entry[..16] != [0; 16] && start <= end {
            let length = (end - start).saturating_add(1).saturating_mul(sector);
            partitions.push((index + 1, start.saturating_mul(sector), length));
        }
    }
    Ok(Some(partitions))
}

/// Names what is known of disks that the cleaner does not take.
fn other(disk: &File) -> io::Result<&'static str> {
    let Some(start) = read::<1024>(disk, 0)? else { return Ok("less than 1 KiB of data") };
    Ok(match () {
        () if start.starts_with(b"XFSB") => "an xfs file system",
        () if start.starts_with(b"LUKS") => "an encrypted disk",
        () if start[512..].starts_with(b"LABELONE") => "an LVM volume",
        () if start[512..].starts_with(b"EFI PART") => "a damaged GPT",
        () if start[510..512] == [0x55, 0xAA] => "an MBR partition table",
        () => "no partition table and no file system that it knows",
    })
}

/// Exactly `N` bytes, or none when the disk ends before.
fn read<const N: usize>(disk: &File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match disk.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        // Also an offset that no disk can have (a GPT may claim any).
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: &[u8]) -> Result<Vec<Candidate>, String> {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(bytes, 0).expect("writes");
        candidates(&file, bytes.len() as u64).expect("reads")
    }

    fn put_ext4(bytes: &mut [u8], offset: usize) {
        bytes[offset + 1024 + 0x38..offset + 1024 + 0x3A].copy_from_slice(&EXT4_MAGIC.to_le_bytes());
        bytes[offset + 1024 + 0x60] = 0x40;
    }

    fn put_gpt(bytes: &mut [u8], first: u64, last: u64) {
        let mut header = [0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes[512..604].copy_from_slice(&header);
        bytes[1024] = 1;
        bytes[1024 + 32..1024 + 40].copy_from_slice(&first.to_le_bytes());
        bytes[1024 + 40..1024 + 48].copy_from_slice(&last.to_le_bytes());
    }

    #[test]
    fn bare_and_partitioned_disks() {
        let mut bytes = vec![0; 1 << 20];
        assert!(disk(&bytes).is_err());
        put_gpt(&mut bytes, 256, 511);
        assert_eq!(disk(&bytes), Err("a GPT without any ext4 partition".to_owned()));
        put_ext4(&mut bytes, 256 * 512);
        let found = Candidate { partition: Some(1), offset: 256 * 512, size: 256 * 512, state: State::Settled };
        assert_eq!(disk(&bytes), Ok(vec![found]));
        put_ext4(&mut bytes, 0);
        assert_eq!(disk(&bytes).map(|found| found[0].partition), Ok(None));
        bytes[1024 + 0x60] |= 0x4;
        assert_eq!(disk(&bytes).map(|found| found[0].state), Ok(State::NeedsReplay));
        bytes[1024 + 0x3A] = 0x3;
        assert_eq!(disk(&bytes).map(|found| found[0].state), Ok(State::HasErrors));
    }

    #[test]
    fn a_gpt_that_lies_is_refused() {
        let mut bytes = vec![0; 1 << 20];
        put_gpt(&mut bytes, u64::MAX / 512, u64::MAX);
        assert!(disk(&bytes).is_err());
        put_gpt(&mut bytes, 256, 1 << 40);
        put_ext4(&mut bytes, 256 * 512);
        assert!(disk(&bytes).is_err(), "a partition that ends after the disk");
        bytes[600] ^= 1;
        assert_eq!(disk(&bytes), Err("a damaged GPT".to_owned()));
    }
}
