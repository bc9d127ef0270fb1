//! The high-water mark: the newest commit that may have been acknowledged, kept outside the tree.
//!
//! sled can lose the tail of its log without a word (a flipped bit there looks like a torn write). The tree then looks
//! whole, only older. Only something outside the tree can tell.

use uuid::Uuid;

use super::error::StoreError;

/// Both ends of one slot: far below a disk sector, so that a torn write is unlikely to begin with.
pub(super) const SLOT_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"kwfmark1";

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) store: Uuid,
    pub(super) commit: u64,
}

impl Mark {
    pub(super) fn encode(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(self.store.as_bytes());
        bytes[24..32].copy_from_slice(&self.commit.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SLOT_BYTES] = bytes.try_into().ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if !body.starts_with(MAGIC) || crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let store = Uuid::from_slice(&body[8..24]).ok()?;
        let commit = u64::from_be_bytes(body[24..32].try_into().ok()?);
        Some(Self { store, commit })
    }
}

/// The newest readable slot, and which slot to write next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) newest: Option<Mark>,
    pub(super) next_slot: usize,
}

/// One unreadable slot is a write that a crash cut short: it was not acknowledged. Two are damage.
pub(super) fn read(slots: &[Option<Vec<u8>>; 2]) -> Result<Marks, StoreError> {
    let decoded = [0, 1].map(|slot| slots[slot].as_deref().map(Mark::decode));
    match decoded {
        [Some(Some(first)), Some(Some(second))] if first.store != second.store => {
            Err(damaged("its two slots belong to different stores"))
        }
        [Some(Some(first)), Some(Some(second))] if second.commit > first.commit => {
            Ok(Marks { newest: Some(second), next_slot: 0 })
        }
        [Some(Some(first)), _] => Ok(Marks { newest: Some(first), next_slot: 1 }),
        [_, Some(Some(second))] => Ok(Marks { newest: Some(second), next_slot: 0 }),
        // Nothing yet, or the very first mark cut short: only the store's own entry was written before it.
        [None | Some(None), None] => Ok(Marks { newest: None, next_slot: 0 }),
        [None | Some(None), Some(None)] => Err(damaged("no slot of it can be read")),
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged { key: "the high-water mark".into(), what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(commit: u64) -> Vec<u8> {
        Mark { store: Uuid::from_u128(1), commit }.encode().to_vec()
    }

    #[test]
    fn the_newest_good_slot_counts_and_the_other_is_written_next() {
        let cases = [
            ([None, None], None, 0),
            ([Some(good(1)), None], Some(1), 1),
            ([Some(good(1)), Some(good(2))], Some(2), 0),
            ([Some(good(3)), Some(good(2))], Some(3), 1),
            ([Some(vec![1; SLOT_BYTES]), Some(good(2))], Some(2), 0),
            ([Some(good(3)), Some(vec![1; SLOT_BYTES])], Some(3), 1),
            ([Some(vec![1; SLOT_BYTES]), None], None, 0),
        ];
        for (slots, newest, next_slot) in cases {
            let marks = read(&slots).expect("at least one slot is good");
            assert_eq!((marks.newest.map(|mark| mark.commit), marks.next_slot), (newest, next_slot), "{slots:?}");
        }
        assert!(read(&[Some(vec![1; SLOT_BYTES]), Some(vec![])]).is_err());
    }

    #[test]
    fn a_flipped_bit_makes_a_slot_unreadable() {
        let good = good(77);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&bad), None, "bit {bit}");
        }
    }
}
