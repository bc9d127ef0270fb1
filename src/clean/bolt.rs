//! Zeroes what containerd's databases no longer use.
//!
//! bbolt never gives pages back: the spec of a removed container, its command and environment included, stays readable in free
//! pages of `meta.db` until they happen to be used again. Deleting the file would lose the image cache. So every page that the
//! newest tree does not reach is overwritten with zeros, and so is the file's tail beyond the high-water mark.
//!
//! Fails closed: a page that is both used and free, or neither, or anything else not understood, and not one byte is written.
//! Format: bbolt `page.go`, `meta.go`, `freelist.go`, version 2, little endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BUCKET: u32 = 0x01;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const META_CHECKED: usize = 56;
/// The value of a meta's free-list page when the list is not stored.
const NO_FREELIST: u64 = u64::MAX;
/// `meta.db` of a node with hundreds of images is a few MiB; it is read into memory whole.
const SIZE_MAX: u64 = 1 << 30;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Unknown,
    Used,
    Free,
}

struct Meta {
    page_size: usize,
    root: u64,
    freelist: u64,
    high_water: u64,
    txid: u64,
}

/// Zeroes the unused pages of one database that nobody has open. Returns how many were not zero before.
pub(super) fn scrub(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(0);
    }
    if size > SIZE_MAX {
        return Err(not_understood(&format!("{size} bytes is more than any database of a node")));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let (pages, page_size) = unused(&bytes)?;
    let zeros = vec![0; page_size];
    let mut count = 0;
    for page in pages {
        let start = page * page_size;
        let end = (start + page_size).min(bytes.len());
        if bytes[start..end].iter().any(|&byte| byte != 0) {
            file.write_all_at(&zeros[..end - start], start as u64)?;
            count += 1;
        }
    }
    file.sync_data()?;
    Ok(count)
}

/// The numbers of all unused pages, and the page size.
fn unused(bytes: &[u8]) -> io::Result<(Vec<usize>, usize)> {
    let meta = newest_meta(bytes)?;
    let size = meta.page_size;
    let high_water = usize::try_from(meta.high_water).map_err(io::Error::other)?;
    if high_water < 3 || high_water.checked_mul(size).is_none_or(|end| end > bytes.len()) {
        return Err(not_understood("the high-water mark lies outside the file"));
    }
    let mut pages = vec![Use::Unknown; high_water];
    pages[0] = Use::Used;
    pages[1] = Use::Used;

    let mut free = Vec::new();
    if meta.freelist != NO_FREELIST {
        let page = page(bytes, size, meta.freelist, high_water)?;
        if page.flags != FREELIST {
            return Err(not_understood("the free list is no free list"));
        }
        mark_used(&mut pages, &page)?;
        free = freelist(page.bytes, page.count)?;
    }
    let mut waiting = vec![meta.root];
    while let Some(id) = waiting.pop() {
        let page = page(bytes, size, id, high_water)?;
        // Each page is reached once, so this also ends a tree that has been bent into a circle.
        mark_used(&mut pages, &page)?;
        match page.flags {
            BRANCH => branch_children(&page, &mut waiting)?,
            LEAF => leaf_buckets(&page, &mut waiting)?,
            other => return Err(not_understood(&format!("page {id} of the tree has type {other:#x}"))),
        }
    }
    for id in free {
        match usize::try_from(id).ok().and_then(|at| pages.get_mut(at)) {
            Some(page) if *page == Use::Unknown => *page = Use::Free,
            Some(_) | None => return Err(not_understood(&format!("free page {id} is in use or outside the file"))),
        }
    }
    if meta.freelist != NO_FREELIST
        && let Some(lost) = pages.iter().position(|&page| page == Use::Unknown)
    {
        return Err(not_understood(&format!("page {lost} is neither used nor free")));
    }
    let within = (0..high_water).filter(|&at| pages[at] != Use::Used);
    let beyond = high_water..bytes.len().div_ceil(size);
    Ok((within.chain(beyond).collect(), size))
}

struct Page<'a> {
    id: u64,
    flags: u16,
    count: u16,
    overflow: u32,
    /// With its header, and with the pages that it flows over into.
    bytes: &'a [u8],
}

fn page(bytes: &[u8], size: usize, id: u64, high_water: usize) -> io::Result<Page<'_>> {
    let at = usize::try_from(id).map_err(io::Error::other)?;
    if at < 2 || at >= high_water {
        return Err(not_understood(&format!("page {id} lies outside the tree")));
    }
    let start = at * size;
    let overflow = u32_at(bytes, start + 12)?;
    let end_page = at + 1 + overflow as usize;
    if u64_at(bytes, start)? != id || end_page > high_water {
        return Err(not_understood(&format!("page {id} has another number, or flows over the end")));
    }
    Ok(Page {
        id,
        flags: u16_at(bytes, start + 8)?,
        count: u16_at(bytes, start + 10)?,
        overflow,
        bytes: &bytes[start..end_page * size],
    })
}

fn mark_used(pages: &mut [Use], page: &Page<'_>) -> io::Result<()> {
    let start = usize::try_from(page.id).map_err(io::Error::other)?;
    for used in &mut pages[start..=start + page.overflow as usize] {
        if *used != Use::Unknown {
            return Err(not_understood(&format!("page {} is reached twice", page.id)));
        }
        *used = Use::Used;
    }
    Ok(())
}

fn branch_children(page: &Page<'_>, waiting: &mut Vec<u64>) -> io::Result<()> {
    for index in 0..usize::from(page.count) {
        waiting.push(u64_at(page.bytes, PAGE_HEADER + index * ELEMENT + 8)?);
    }
    Ok(())
}

fn leaf_buckets(page: &Page<'_>, waiting: &mut Vec<u64>) -> io::Result<()> {
    for index in 0..usize::from(page.count) {
        let element = PAGE_HEADER + index * ELEMENT;
        if u32_at(page.bytes, element)? & BUCKET == 0 {
            continue;
        }
        let value = element + u32_at(page.bytes, element + 4)? as usize + u32_at(page.bytes, element + 8)? as usize;
        // A bucket whose root is page 0 lives inline, in this very value.
        match u64_at(page.bytes, value)? {
            0 => {}
            root => waiting.push(root),
        }
    }
    Ok(())
}

fn freelist(page: &[u8], count: u16) -> io::Result<Vec<u64>> {
    // A list too long for its 16 bits has its length in the first entry.
    let (first, count) = match count {
        u16::MAX => (1, usize::try_from(u64_at(page, PAGE_HEADER)?).map_err(io::Error::other)?),
        count => (0, usize::from(count)),
    };
    if count > page.len() / 8 {
        return Err(not_understood("the free list is longer than its pages"));
    }
    (first..first + count).map(|index| u64_at(page, PAGE_HEADER + index * 8)).collect()
}

fn newest_meta(bytes: &[u8]) -> io::Result<Meta> {
    let first = meta_at(bytes, 0).filter(|meta| meta.page_size.is_power_of_two() && meta.page_size >= 512);
    // The second meta page lies one page on; when the first is torn the size must be guessed.
    let sizes = first.as_ref().map_or_else(|| vec![4096, 8192, 16384, 65536], |meta| vec![meta.page_size]);
    let second = sizes.into_iter().find_map(|size| meta_at(bytes, size).filter(|meta| meta.page_size == size));
    first.into_iter().chain(second).max_by_key(|meta| meta.txid).ok_or_else(|| not_understood("no valid meta page"))
}

fn meta_at(bytes: &[u8], start: usize) -> Option<Meta> {
    if u16_at(bytes, start + 8).ok()? != META {
        return None;
    }
    let at = start + PAGE_HEADER;
    let checked = bytes.get(at..at + META_CHECKED)?;
    let valid = u32_at(bytes, at).ok()? == MAGIC
        && u32_at(bytes, at + 4).ok()? == VERSION
        && u64_at(bytes, at + META_CHECKED).ok()? == fnv1a(checked);
    valid.then_some(())?;
    Some(Meta {
        page_size: u32_at(bytes, at + 8).ok()? as usize,
        root: u64_at(bytes, at + 16).ok()?,
        freelist: u64_at(bytes, at + 32).ok()?,
        high_water: u64_at(bytes, at + 40).ok()?,
        txid: u64_at(bytes, at + 48).ok()?,
    })
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| not_understood(&format!("offset {at} lies outside its page")))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    Ok(u16::from_le_bytes(array(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u32::from_le_bytes(array(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    Ok(u64::from_le_bytes(array(bytes, at)?))
}

fn not_understood(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not understood, left alone: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SIZE: usize = 4096;

    /// Six pages: two metas, free list, a root leaf with one bucket, its leaf, one free page; then a tail of one page.
    fn database() -> Vec<u8> {
        let mut bytes = vec![0; SIZE * 7];
        for (at, txid) in [(0_usize, 1_u64), (1, 2)] {
            header(&mut bytes, at, META, 0, 0);
            let start = at * SIZE + PAGE_HEADER;
            put(&mut bytes, start, &MAGIC.to_le_bytes());
            put(&mut bytes, start + 4, &VERSION.to_le_bytes());
            put(&mut bytes, start + 8, &4096_u32.to_le_bytes());
            put(&mut bytes, start + 16, &3_u64.to_le_bytes());
            put(&mut bytes, start + 32, &2_u64.to_le_bytes());
            put(&mut bytes, start + 40, &6_u64.to_le_bytes());
            put(&mut bytes, start + 48, &txid.to_le_bytes());
            let sum = fnv1a(&bytes[start..start + META_CHECKED]);
            put(&mut bytes, start + META_CHECKED, &sum.to_le_bytes());
        }
        header(&mut bytes, 2, FREELIST, 1, 0);
        put(&mut bytes, 2 * SIZE + PAGE_HEADER, &5_u64.to_le_bytes());
        header(&mut bytes, 3, LEAF, 1, 0);
        let element = 3 * SIZE + PAGE_HEADER;
        put(&mut bytes, element, &BUCKET.to_le_bytes());
        put(&mut bytes, element + 4, &16_u32.to_le_bytes());
        put(&mut bytes, element + 8, &2_u32.to_le_bytes());
        put(&mut bytes, element + 12, &16_u32.to_le_bytes());
        put(&mut bytes, element + 16, b"v1");
        put(&mut bytes, element + 18, &4_u64.to_le_bytes());
        header(&mut bytes, 4, LEAF, 0, 0);
        put(&mut bytes, 4 * SIZE + 100, b"in use");
        header(&mut bytes, 5, LEAF, 0, 0);
        put(&mut bytes, 5 * SIZE + 100, b"secret of a removed container");
        put(&mut bytes, 6 * SIZE + 100, b"secret beyond the mark");
        bytes
    }

    fn header(bytes: &mut [u8], page: usize, flags: u16, count: u16, overflow: u32) {
        let start = page * SIZE;
        put(bytes, start, &(page as u64).to_le_bytes());
        put(bytes, start + 8, &flags.to_le_bytes());
        put(bytes, start + 10, &count.to_le_bytes());
        put(bytes, start + 12, &overflow.to_le_bytes());
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn scrubbed(bytes: &[u8]) -> (io::Result<u64>, Vec<u8>) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("writes");
        let outcome = scrub(&file);
        let mut after = vec![0; bytes.len()];
        file.read_exact_at(&mut after, 0).expect("reads");
        (outcome, after)
    }

    #[test]
    fn free_pages_and_the_tail_are_zeroed_and_nothing_else() {
        let before = database();
        let (outcome, after) = scrubbed(&before);
        assert_eq!(outcome.expect("scrubs"), 2);
        assert_eq!(after[..5 * SIZE], before[..5 * SIZE]);
        assert!(after[5 * SIZE..].iter().all(|&byte| byte == 0));
        assert_eq!(scrubbed(&after).0.expect("a second time"), 0);
    }

    #[test]
    fn whatever_is_not_understood_is_left_alone() {
        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage); 7] = [
            ("both metas torn", |bytes| {
                bytes[20] ^= 1;
                bytes[SIZE + 20] ^= 1;
            }),
            ("a used page is listed as free", |bytes| put(bytes, 2 * SIZE + PAGE_HEADER, &4_u64.to_le_bytes())),
            ("a page is neither", |bytes| header(bytes, 2, FREELIST, 0, 0)),
            ("a page of the tree has another type", |bytes| header(bytes, 4, 0x40, 0, 0)),
            ("the tree is a circle", |bytes| put(bytes, 3 * SIZE + PAGE_HEADER + 18, &3_u64.to_le_bytes())),
            ("a child outside the file", |bytes| put(bytes, 3 * SIZE + PAGE_HEADER + 18, &900_u64.to_le_bytes())),
            ("the file is cut", |bytes| bytes.truncate(4 * SIZE)),
        ];
        for (what, damage) in damages {
            let mut bytes = database();
            damage(&mut bytes);
            let (outcome, after) = scrubbed(&bytes);
            assert!(outcome.is_err(), "{what}");
            assert_eq!(after, bytes, "{what}");
        }
    }

    #[test]
    fn the_older_meta_is_used_when_the_newest_is_torn() {
        let mut bytes = database();
        bytes[SIZE + PAGE_HEADER + 48] = 9;
        assert_eq!(scrubbed(&bytes).0.expect("scrubs"), 2);
    }
}
