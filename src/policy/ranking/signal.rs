//! What a pool's signal says of a node: how recently it was patched, or why it can't be told.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{Boots, Signal, TimeFormat};
use crate::cluster::Node;

/// On a node that kured is about to reboot, or is rebooting, with when it began (`--annotate-nodes`, since kured 1.7.0).
/// It goes only when kured starts there with its lock and no more need to reboot: after any other reboot it stays.
pub const KURED_IN_PROGRESS: &str = "weave.works/kured-reboot-in-progress";
/// When kured last saw that the node needed a reboot: since 1.13.0 that may be days before the reboot itself.
pub const KURED_NEEDED: &str = "weave.works/kured-most-recent-reboot-needed";
/// A label or an annotation that makes a node a donor where a person chooses (`signal: manual`).
pub const DONOR: &str = "kamino-wf.io/donor";

/// How far a time may be ahead of the servers' before it is no past.
const AHEAD_MAX: i64 = 60;

/// How recently a node was patched. Of two, the greater is the newer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patched {
    /// By time.
    At(Timestamp),
    /// By its kernel's numbers.
    Kernel(Vec<u64>),
}

/// What a signal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) patched: Patched,
    /// As in `kured saw the need to reboot at ...`.
    pub(super) words: String,
    /// What somebody may want to know besides.
    pub(super) note: Option<String>,
}

/// Reads the signal, or says why the node can't be the donor.
pub(super) fn read(
    node: &Node,
    signal: &Signal,
    boots: &Boots,
    named: bool,
    now: Timestamp,
) -> Result<Reading, String> {
    let remark = kured(node, boots)?;
    let rebooted = reboot(node, boots).ok_or("it does not say since when it is Ready")?;
    let (patched, words) = match signal {
        Signal::Manual if !named && !node.annotations.contains_key(DONOR) && !node.labels.contains_key(DONOR) => {
            return Err(format!("it is not marked {DONOR}, and the pool's signal is manual"));
        }
        Signal::BootId | Signal::Manual => (Patched::At(rebooted), since(node, rebooted)),
        Signal::Kured => {
            let text = node.annotations.get(KURED_NEEDED).ok_or_else(|| {
                format!("kured has never marked it (no {KURED_NEEDED}; kured writes it with --annotate-nodes only)")
            })?;
            let at = time(text, TimeFormat::Rfc3339, now).map_err(|why| format!("annotation {KURED_NEEDED} {why}"))?;
            (Patched::At(at), format!("kured saw the need to reboot it at {at}"))
        }
        Signal::Annotation { key, format } => {
            let text = node.annotations.get(key).ok_or_else(|| format!("it has no annotation {key}"))?;
            let at = time(text, *format, now).map_err(|why| format!("annotation {key} {why}"))?;
            (Patched::At(at), format!("{key} says {at}"))
        }
        Signal::Kernel => (Patched::Kernel(kernel(&node.kernel)), since(node, rebooted)),
    };
    Ok(Reading { patched, words, note: remark })
}

/// When it was rebooted last: seen in its boot ids, or else when it turned Ready.
pub(super) fn reboot(node: &Node, boots: &Boots) -> Option<Timestamp> {
    let ready = node.ready_since?;
    Some(boots.rebooted(node).map_or(ready, |seen| seen.max(ready)))
}

fn since(node: &Node, rebooted: Timestamp) -> String {
    match node.ready_since {
        Some(ready) if ready != rebooted => format!("rebooted at {rebooted} or before, Ready all the time"),
        Some(_) | None => format!("ready since {rebooted}"),
    }
}

/// kured's mark, which counts whatever the signal is: a node that is about to go down is no donor.
fn kured(node: &Node, boots: &Boots) -> Result<Option<String>, String> {
    let Some(mark) = node.annotations.get(KURED_IN_PROGRESS) else { return Ok(None) };
    if boots.outlived(node, mark) {
        return Ok(Some(format!(
            "kured's mark of {mark} is stale, as it has rebooted since: remove {KURED_IN_PROGRESS}"
        )));
    }
    Err(format!("kured is about to reboot it, since {mark}"))
}

fn time(text: &str, format: TimeFormat, now: Timestamp) -> Result<Timestamp, String> {
    let (parsed, expected) = match format {
        TimeFormat::Rfc3339 => (text.parse::<Timestamp>().ok(), "a time as in 2026-11-24T10:00:00+01:00"),
        TimeFormat::Date => {
            let day = text.parse::<Date>().ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok());
            (day.map(|day| day.timestamp()), "a day as in 2026-11-24")
        }
        TimeFormat::UnixSeconds => {
            let seconds = text.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            (seconds, "seconds since 1970")
        }
    };
    let short: String = text.chars().take(60).collect();
    let at = parsed.ok_or_else(|| format!("says {short:?}, which is not {expected}"))?;
    if at.as_second() > now.as_second() + AHEAD_MAX {
        return Err(format!("says {short:?}, which is in the future"));
    }
    Ok(at)
}

/// The numbers in a kernel's version: `6.8.0-1031-azure` is 6, 8, 0, 1031.
pub(super) fn kernel(version: &str) -> Vec<u64> {
    let numbers = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    numbers.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::rank::tests::{node, now},
        *,
    };

    fn with(annotations: &[(&str, &str)]) -> Node {
        let pairs = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Node { annotations: pairs.collect(), ..node(0, 5) }
    }

    fn told(node: &Node, signal: &Signal) -> Result<Reading, String> {
        read(node, signal, &Boots::default(), false, now())
    }

    fn at(text: &str) -> Patched {
        Patched::At(text.parse().expect("a time"))
    }

    #[test]
    fn each_signal_reads_its_own_and_says_what_is_wrong() {
        let annotation = |format| Signal::Annotation { key: "patched.example/at".into(), format };
        let (rfc, date, unix) = (TimeFormat::Rfc3339, TimeFormat::Date, TimeFormat::UnixSeconds);
        let own = |value| with(&[("patched.example/at", value)]);
        let needed = |value| with(&[(KURED_NEEDED, value)]);
        let rows = [
            (node(0, 5), Signal::BootId, Ok(at("2026-11-24T07:00:00Z"))),
            (needed("2026-11-23T23:30:00+02:00"), Signal::Kured, Ok(at("2026-11-23T21:30:00Z"))),
            (needed("2026-11-23T21:30:00Z"), Signal::Kured, Ok(at("2026-11-23T21:30:00Z"))),
            (needed("yesterday"), Signal::Kured, Err("says \"yesterday\", which is not a time")),
            (needed("2026-11-25T00:00:00Z"), Signal::Kured, Err("in the future")),
            (node(0, 5), Signal::Kured, Err("kured has never marked it")),
            (own("2026-11-20T00:00:00Z"), annotation(rfc), Ok(at("2026-11-20T00:00:00Z"))),
            (own("2026-11-20"), annotation(date), Ok(at("2026-11-20T00:00:00Z"))),
            (own("20.11.2026"), annotation(date), Err("not a day as in")),
            (
                own("1795500000"),
                annotation(unix),
                Ok(Patched::At(Timestamp::from_second(1_795_500_000).expect("a time"))),
            ),
            (own("soon"), annotation(unix), Err("seconds since 1970")),
            (node(0, 5), annotation(rfc), Err("it has no annotation patched.example/at")),
            (node(0, 5), Signal::Kernel, Ok(Patched::Kernel(vec![6, 8]))),
            (node(0, 5), Signal::Manual, Err("it is not marked kamino-wf.io/donor")),
            (with(&[(DONOR, "")]), Signal::Manual, Ok(at("2026-11-24T07:00:00Z"))),
        ];
        for (node, signal, expected) in rows {
            let got = told(&node, &signal).map(|reading| reading.patched);
            match expected {
                Ok(patched) => assert_eq!(got, Ok(patched), "{signal:?}"),
                Err(words) => assert!(got.as_ref().is_err_and(|why| why.contains(words)), "{signal:?}: {got:?}"),
            }
        }
        assert!(read(&node(0, 5), &Signal::Manual, &Boots::default(), true, now()).is_ok(), "named by a person");
    }

    #[test]
    fn a_node_that_kured_is_about_to_reboot_is_no_donor_until_it_has_rebooted() {
        let mark = "2026-11-22T03:00:00+01:00";
        let marked = |boot: &str| Node {
            uid: "u".into(),
            boot_id: boot.into(),
            ..with(&[(KURED_IN_PROGRESS, mark), (KURED_NEEDED, mark)])
        };
        for signal in [Signal::BootId, Signal::Kured, Signal::Kernel] {
            let why = told(&marked("a"), &signal).expect_err("it is about to go");
            assert!(why.contains("about to reboot it") && why.contains(mark), "{why}");
            // Azure rebooted it, not kured: the mark stays, and no later boot of kured takes it away.
            let boots = Boots::default().after([&marked("a")], now()).after([&marked("b")], now());
            let reading = read(&marked("b"), &signal, &boots, false, now()).expect("a donor again");
            assert!(reading.note.is_some_and(|note| note.contains("stale") && note.contains(mark)));
        }
    }

    #[test]
    fn a_quick_reboot_counts_though_ready_never_turned() {
        let of = |boot: &str| Node { uid: "u".into(), boot_id: boot.into(), ..node(0, 500) };
        let seen = now() - jiff::SignedDuration::from_hours(2);
        let boots =
            Boots::default().after([&of("a")], seen - jiff::SignedDuration::from_hours(9)).after([&of("b")], seen);
        let reading = read(&of("b"), &Signal::BootId, &boots, false, now()).expect("fit");
        assert_eq!(reading.patched, Patched::At(seen));
        assert!(reading.words.starts_with("rebooted at 2026-11-24T10:00:00Z or before"), "{}", reading.words);
    }

    #[test]
    fn kernels_compare_as_numbers() {
        assert!(kernel("6.8.0-1031-azure") > kernel("6.8.0-999-azure"));
        assert!(kernel("6.11.0-1-azure") > kernel("6.8.0-1031-azure"));
        assert_eq!(kernel("none"), Vec::<u64>::new());
    }
}
