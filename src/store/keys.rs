//! Where entries are. Big-endian, so that a range of keys is a range of runs and of time (run ids are UUID v7).
//!
//! ```text
//! 00              store id, schema
//! 02              totals: commit number, newest fence, counts, seal
//! 10 | run        head
//! 11 | run | seq  record
//! 30 | key        fact
//! ```

use uuid::Uuid;

pub(super) const META: &[u8] = &[0x00];
pub(super) const TOTALS: &[u8] = &[0x02];
const HEAD: u8 = 0x10;
const RECORD: u8 = 0x11;
const FACT: u8 = 0x30;

/// A key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Meta,
    Totals,
    Head(Uuid),
    Record(Uuid, u64),
    Fact(String),
}

pub(super) fn head(run: Uuid) -> Vec<u8> {
    [&[HEAD], run.as_bytes().as_slice()].concat()
}

/// The prefix of all records of one run.
pub(super) fn records(run: Uuid) -> Vec<u8> {
    [&[RECORD], run.as_bytes().as_slice()].concat()
}

pub(super) fn record(run: Uuid, seq: u64) -> Vec<u8> {
    [&[RECORD], run.as_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

pub(super) fn fact(key: &str) -> Vec<u8> {
    [&[FACT], key.as_bytes()].concat()
}

pub(super) fn parse(key: &[u8]) -> Option<Key> {
    match key {
        META => Some(Key::Meta),
        TOTALS => Some(Key::Totals),
        [HEAD, run @ ..] => Some(Key::Head(Uuid::from_slice(run).ok()?)),
        [RECORD, rest @ ..] => {
            let (run, seq) = rest.split_first_chunk::<16>()?;
            Some(Key::Record(Uuid::from_bytes(*run), u64::from_be_bytes(seq.try_into().ok()?)))
        }
        [FACT, name @ ..] => Some(Key::Fact(std::str::from_utf8(name).ok()?.to_owned())),
        _ => None,
    }
}

/// For messages.
pub(super) fn name(key: &[u8]) -> String {
    match parse(key) {
        Some(Key::Meta) => "the store's own entry".into(),
        Some(Key::Totals) => "the totals".into(),
        Some(Key::Head(run)) => format!("head of run {run}"),
        Some(Key::Record(run, seq)) => format!("record {seq} of run {run}"),
        Some(Key::Fact(key)) => format!("fact {key:?}"),
        None => format!("key {}", key.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_round_and_sort_by_sequence() {
        let run = Uuid::from_u128(7);
        assert_eq!(parse(&head(run)), Some(Key::Head(run)));
        assert_eq!(parse(&record(run, 300)), Some(Key::Record(run, 300)));
        assert_eq!(parse(&fact("throttle/x")), Some(Key::Fact("throttle/x".into())));
        assert_eq!(parse(&[0x11, 1, 2]), None);
        assert_eq!(parse(&[0x77]), None);
        assert!(record(run, 255) < record(run, 256));
        assert!(head(run) < record(Uuid::nil(), 1), "heads are read before records");
    }
}
