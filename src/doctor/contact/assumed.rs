//! What is believed of Azure: the tables of docs/ASSUMPTIONS.md, and what is tried of them.

const DOCUMENT: &str = include_str!("../../../docs/ASSUMPTIONS.md");

/// A row of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assumption {
    /// It stays.
    pub(super) number: u32,
    /// What is believed.
    pub(super) believed: &'static str,
    /// What happens where it is not so.
    pub(super) otherwise: &'static str,
}

/// All of them, in order.
pub(super) fn all() -> impl Iterator<Item = Assumption> {
    DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let number = cells.next()?.parse().ok()?;
        let believed = cells.next()?;
        // Which of them the simulated world can answer both ways is a matter of tests.
        let believed = believed.split(" *Switch").next().unwrap_or(believed);
        Some(Assumption { number, believed, otherwise: cells.nth(1)? })
    })
}

/// What is tried, what kamino-wf does where it is as believed, and what of it is not seen.
pub(super) const TRIED: &[(u32, &str, &str)] = &[
    (1, "one PATCH is the whole change", ""),
    (2, "one PATCH with the complete live profile changes the image and nothing else", ""),
    (3, "the change is sent under the etag that was looked at, and somebody else's change comes first", ""),
    (6, "waits for the operation that is named, and looks at the scale set", ""),
    (8, "the operation is stored and asked how far it is", ""),
    (9, "after a restart the stored operation is asked", "a day"),
    (10, "an operation that is at its end is a reason to look", "an operation that fails"),
    (12, "the operation is stored whole", ""),
    (13, "the donor stays in service while its disk is captured", "that it is one moment of the disk"),
    (14, "a request that is repeated makes nothing new; a snapshot is compared with what was asked for", ""),
    (15, "snapshots are kept in the cheaper storage", ""),
    (16, "the image starts machines of the pool's security type", "its VM guest state"),
    (18, "the version is made of the cleaned disk, without another snapshot", "an attached disk"),
    (19, "snapshot and copy are deleted once the version is verified", "what comes hours later"),
    (21, "publishing is one PATCH", ""),
    (23, "a version is found by its name in either form", ""),
    (26, "each of these answers is taken for accepted", ""),
    (39, "doctor and plan say which rights are missing", "an identity without the right to read permissions"),
    (40, "a sweep sees within a minute what was left", ""),
    (42, "a version is pinned without touching the rest of it", ""),
    (46, "the copy's tags are sent whole", "what the disk holds"),
    (47, "scaling out changes the number and nothing else", ""),
    (48, "with snapshot: incremental only what differs is stored", "completionPercent"),
    (
        50,
        "the copy and the image can be behind what the donor's disk can be behind",
        "what comes of it in a definition",
    ),
    (51, "the donor is switched off once and stays allocated", "that the system ends in an orderly way"),
    (52, "the donor comes back as the same machine", "its address"),
    (54, "the power is read with the rights of the list", ""),
    (56, "a Flexible scale set without an upgrade policy is taken for Manual", ""),
    (57, "the model of a Flexible scale set is changed as that of a Uniform one", "custom data"),
    (59, "a machine of a Flexible scale set is known by its vmId after a stop", ""),
    (61, "with cleaning.attach: instance a copy is cleaned on another node of the pool", ""),
];

/// What is not, and why.
pub(super) const NOT_TRIED: &[(&[u32], &str)] = &[
    (&[4], "an extension would run on the instances, and what is secret in it can't be put back"),
    (&[5, 7], "custom data is never shown, so it could not be put back"),
    (&[11], "an operation that fails after its effect can't be ordered"),
    (&[17, 53, 58, 62], "needs a node of the cluster"),
    (&[20, 22, 41, 60], "needs a new instance"),
    (&[24], "would take a version away from under the scale set"),
    (&[25, 34, 45], "needs a region without zones, or another version that fails"),
    (&[27, 28, 29, 30, 31, 49], "needs a ration that is used up, and others live on it"),
    (&[32, 33, 35, 38], "needs a trouble that can't be ordered"),
    (&[36, 37], "needs a token that is withdrawn"),
    (&[43], "needs a lock or a policy, which this identity should not be able to make"),
    (&[44], "needs a metadata service that is being updated"),
    (&[55], "how many machines there are is told by that very list"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_read_and_is_tried_or_says_why_not() {
        let numbers: Vec<u32> = all().map(|row| row.number).collect();
        let count = u32::try_from(numbers.len()).expect("a number");
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "a row of docs/ASSUMPTIONS.md is not as the others");
        let rows = DOCUMENT.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
        assert_eq!(rows.clone().count(), numbers.len());
        for row in rows {
            assert_eq!(row.split(" | ").count(), 4, "{row}");
        }
        let tried = TRIED.iter().map(|(number, ..)| *number);
        let all_of_them: Vec<u32> = tried.chain(NOT_TRIED.iter().flat_map(|(numbers, _)| *numbers).copied()).collect();
        assert_eq!(all_of_them.iter().collect::<BTreeSet<_>>().len(), all_of_them.len(), "each once");
        assert_eq!(all_of_them.iter().copied().collect::<BTreeSet<_>>(), numbers.into_iter().collect());
    }

    #[test]
    fn the_document_says_which_are_tried() {
        let list = TRIED.iter().map(|(number, ..)| number.to_string()).collect::<Vec<_>>().join(", ");
        let sentence = format!("Tried: {list}.");
        let flat = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(&sentence), "docs/ASSUMPTIONS.md is to say: {sentence}");
    }

    #[test]
    fn rows_are_read_without_what_is_for_tests() {
        let first = all().next().expect("a row");
        assert!(first.believed.ends_with("(terraform relies on it)."), "{first:?}");
        assert!(first.otherwise.starts_with("The change asks for an explicit null"), "{first:?}");
    }
}
