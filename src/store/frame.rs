//! How one entry looks in the tree.
//!
//! ```text
//! 'K' | version 1 | class u8 | schema u16 | previous 32 | name length u8 | payload length u32 | name | payload | crc32 u32
//! ```
//!
//! Numbers are big-endian. The CRC covers the key and everything before the CRC, so that a good value under a wrong key is
//! noticed too. `previous` is the hash of the record before this one (zero outside records).

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// SHA-256, as it is stored.
pub(super) type Hash = [u8; 32];

const MAGIC: u8 = b'K';
const VERSION: u8 = 1;
const HEADER: usize = 42;
const CRC: usize = 4;

/// The schema of stored payloads that this release writes, and the newest one it reads.
pub(super) const SCHEMA: u16 = 1;

/// What a frame is; must agree with the key that it is stored under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    Meta = 1,
    Totals = 2,
    Head = 3,
    Record = 4,
    Fact = 5,
}

impl Class {
    fn parse(byte: u8) -> Option<Self> {
        [Self::Meta, Self::Totals, Self::Head, Self::Record, Self::Fact].into_iter().find(|class| *class as u8 == byte)
    }
}

/// One entry, decoded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub(super) class: Class,
    pub(super) schema: u16,
    pub(super) previous: Hash,
    /// The record's kind; empty for the other classes.
    pub(super) name: String,
    pub(super) payload: Value,
}

/// Why bytes are not a frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{0}")]
    Bad(&'static str),
    #[error("checksum is {found:08x}, should be {should:08x}")]
    Checksum { found: u32, should: u32 },
    #[error("frame version {0} is newer than this release")]
    Newer(u8),
}

impl Frame {
    pub(super) fn new(class: Class, payload: Value) -> Self {
        Self { class, schema: SCHEMA, previous: [0; 32], name: String::new(), payload }
    }

    /// The bytes to store under `key`. A name over 255 bytes is cut: callers check names before (see `journal.rs`).
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        self.encode_as(key, &self.payload.to_string())
    }

    /// The same with the payload as it was written once: a number need not print as it was read.
    pub(super) fn encode_as(&self, key: &[u8], payload: &str) -> Vec<u8> {
        let name = &self.name.as_bytes()[..self.name.len().min(usize::from(u8::MAX))];
        let mut bytes = Vec::with_capacity(HEADER + name.len() + payload.len() + CRC);
        bytes.extend([MAGIC, VERSION, self.class as u8]);
        bytes.extend(self.schema.to_be_bytes());
        bytes.extend(self.previous);
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        // Payloads are capped far below 4 GiB before they come here.
        bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(name);
        bytes.extend(payload.as_bytes());
        bytes.extend(checksum(key, &bytes).to_be_bytes());
        bytes
    }

    /// Accepts exactly what `encode` made for this very key.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, FrameError> {
        // The checksum first: without it no other field means anything. Every version must keep it where it is.
        let [MAGIC, version, ..] = *bytes else { return Err(FrameError::Bad("does not start like a frame")) };
        let Some((body, crc)) = bytes.split_last_chunk::<CRC>() else { return Err(FrameError::Bad("too short")) };
        let (found, should) = (checksum(key, body), u32::from_be_bytes(*crc));
        if found != should {
            return Err(FrameError::Checksum { found, should });
        }
        if version != VERSION {
            return Err(FrameError::Newer(version));
        }
        let Some((header, rest)) = body.split_first_chunk::<HEADER>() else { return Err(FrameError::Bad("too short")) };
        let class = Class::parse(header[2]).ok_or(FrameError::Bad("is of an unknown class"))?;
        let schema = u16::from_be_bytes([header[3], header[4]]);
        let mut previous = [0; 32];
        previous.copy_from_slice(&header[5..37]);
        let payload_len = u32::from_be_bytes([header[38], header[39], header[40], header[41]]);
        let (name, payload) =
            rest.split_at_checked(usize::from(header[37])).ok_or(FrameError::Bad("is shorter than its name"))?;
        if u32::try_from(payload.len()) != Ok(payload_len) {
            return Err(FrameError::Bad("has another length than it says"));
        }
        let name = std::str::from_utf8(name).map_err(|_| FrameError::Bad("has a name that is not text"))?;
        let payload = serde_json::from_slice(payload).map_err(|_| FrameError::Bad("does not hold JSON"))?;
        Ok(Self { class, schema, previous, name: name.to_owned(), payload })
    }
}

/// The payload of a good frame, as it was written.
pub(super) fn payload_text(bytes: &[u8]) -> Option<&str> {
    let name = usize::from(*bytes.get(37)?);
    std::str::from_utf8(bytes.get(HEADER + name..bytes.len().checked_sub(CRC)?)?).ok()
}

/// The hash that the next record carries as `previous`, and that the head carries for the newest one.
pub(super) fn hash(key: &[u8], bytes: &[u8]) -> Hash {
    Sha256::new().chain_update(key).chain_update(bytes).finalize().into()
}

/// For JSON; hashes are stored as text so that people can compare them.
pub(super) fn to_hex(hash: &Hash) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The inverse of `to_hex`.
pub(super) fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(hash)
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Frame {
        Frame {
            class: Class::Record,
            schema: 1,
            previous: [7; 32],
            name: "asked".into(),
            payload: serde_json::json!({"attempt": 1, "why": "süß"}),
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let key = b"\x11key";
        let good = record().encode(key);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(key, &bad).is_err(), "bit {bit} flipped and not noticed");
        }
    }

    #[test]
    fn a_good_value_under_a_wrong_key_is_noticed() {
        let bytes = record().encode(b"one");
        assert!(matches!(Frame::decode(b"two", &bytes), Err(FrameError::Checksum { .. })));
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = record().encode(b"k");
        for len in 0..bytes.len() {
            assert!(Frame::decode(b"k", &bytes[..len]).is_err(), "cut to {len} bytes and not noticed");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = record().encode(b"k");
        bytes[1] = 2;
        let end = bytes.len() - CRC;
        let crc = checksum(b"k", &bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(Frame::decode(b"k", &bytes), Err(FrameError::Newer(2)));
    }

    #[test]
    fn hex_goes_round_and_refuses_the_rest() {
        let hash = hash(b"a", b"b");
        assert_eq!(from_hex(&to_hex(&hash)), Some(hash));
        assert_eq!(from_hex("zz"), None);
        assert_eq!(from_hex(&"ü".repeat(32)), None);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::vec((any::<String>(), inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            payload in json(), name in "[a-z-]{0,40}", schema in any::<u16>(), previous in any::<[u8; 32]>(),
            key in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let frame = Frame { class: Class::Record, schema, previous, name, payload };
            let (bytes, text) = (frame.encode(&key), frame.payload.to_string());
            prop_assert_eq!(payload_text(&bytes), Some(text.as_str()));
            prop_assert_eq!(Frame::decode(&key, &frame.encode(&key)), Ok(frame));
        }

        #[test]
        fn bytes_that_nobody_encoded_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frame::decode(b"k", &bytes).is_err());
        }
    }
}
