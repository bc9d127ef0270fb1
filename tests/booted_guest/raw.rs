//! What can be read in the raw bytes of a disk, whatever its file system says.

use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use crate::{guest::Disk, machine::Machine};

/// Read at a time.
const PIECE: u64 = 1 << 20;

/// Control: all of these can be read in the disk of a machine that was not cleaned.
pub(crate) fn all_readable(machine: &Machine, words: &[String]) {
    let before = machine.snapshot("before.img");
    let found = readable(&before, words);
    let missing: Vec<_> = words.iter().filter(|word| !found.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "control: not readable before cleaning: {missing:?}");
    std::fs::remove_file(before.image).expect("the control");
}

/// Which of the words are there. Holes, which read as zeros, are passed over: three quarters of a disk are holes.
pub(crate) fn readable<'a>(disk: &Disk, words: &'a [String]) -> BTreeSet<&'a str> {
    let file = File::open(&disk.image).expect("the disk");
    let overlap = words.iter().map(String::len).max().unwrap_or_default() as u64;
    let starts = Starts::of(words);
    let mut found = BTreeSet::new();
    let mut hole = 0;
    loop {
        let mut at = match seek(&file, SeekFrom::Data(hole)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return found,
            Err(error) => panic!("{}: {error}", disk.image.display()),
        };
        hole = seek(&file, SeekFrom::Hole(at)).expect("every file ends with a hole");
        while at < hole {
            // A little more than a piece, for a word that lies across the border.
            let end = hole.min(at + PIECE + overlap);
            let mut bytes = vec![0; usize::try_from(end - at).expect("a piece")];
            file.read_exact_at(&mut bytes, at).expect("reads");
            starts.search(&bytes, words, &mut found);
            at += PIECE;
        }
    }
}

/// By which two bytes any of the words begin: a quick look before a thorough one.
struct Starts(Vec<bool>);

impl Starts {
    fn of(words: &[String]) -> Self {
        let mut starts = vec![false; 1 << 16];
        for pair in words.iter().filter_map(|word| word.as_bytes().first_chunk::<2>()) {
            starts[usize::from(u16::from_ne_bytes(*pair))] = true;
        }
        Self(starts)
    }

    fn search<'a>(&self, bytes: &[u8], words: &'a [String], found: &mut BTreeSet<&'a str>) {
        for (index, pair) in bytes.windows(2).enumerate() {
            if self.0[usize::from(u16::from_ne_bytes([pair[0], pair[1]]))] {
                let rest = &bytes[index..];
                found.extend(words.iter().map(String::as_str).filter(|word| rest.starts_with(word.as_bytes())));
            }
        }
    }
}
