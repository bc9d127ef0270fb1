//! What was seen, written down as it is seen: it outlives a trial that is broken off.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use super::assumed::{NOT_TRIED, TRIED, all};

/// How an assumption came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Azure does as was believed.
    Holds,
    /// Azure does otherwise; the line says what comes of it.
    DoesNotHold,
    /// It was not seen; the line says why.
    NotTried,
}

impl Verdict {
    /// The words in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::NotTried => "not tried",
        }
    }
}

/// One assumption and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its number in docs/ASSUMPTIONS.md.
    pub number: u32,
    /// What was believed.
    pub assumed: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, or why nothing was.
    pub seen: String,
    /// What kamino-wf does where it holds; none for what is never tried.
    pub if_it_holds: Option<&'static str>,
    /// What the assumption says besides, and nobody has seen.
    pub not_seen: Option<&'static str>,
    /// What happens where it does not hold.
    pub otherwise: &'static str,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Book(Mutex<BTreeMap<u32, (Verdict, String)>>);

impl Book {
    /// This was seen.
    pub(super) fn note(&self, number: u32, holds: bool, seen: impl Into<String>) {
        let verdict = if holds { Verdict::Holds } else { Verdict::DoesNotHold };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (verdict, seen.into()));
    }

    /// Nothing was seen of those of these of which nothing is noted.
    pub(super) fn skip(&self, numbers: &[u32], why: &str) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            noted.entry(*number).or_insert_with(|| (Verdict::NotTried, why.to_owned()));
        }
    }

    /// A line for each assumption, in order.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let never = |number| NOT_TRIED.iter().find(|(numbers, _)| numbers.contains(&number)).map(|(_, why)| *why);
        all()
            .map(|row| {
                let why = || (Verdict::NotTried, never(row.number).unwrap_or("it did not come to it").to_owned());
                let (verdict, seen) = noted.get(&row.number).cloned().unwrap_or_else(why);
                let tried = TRIED.iter().find(|(number, ..)| *number == row.number);
                let if_it_holds = tried.map(|(_, then, _)| *then);
                let not_seen = tried.map(|(.., not_seen)| *not_seen);
                let not_seen = not_seen.filter(|it| !it.is_empty() && verdict == Verdict::Holds);
                let (number, assumed, otherwise) = (row.number, row.believed, row.otherwise);
                Line { number, assumed, verdict, seen, if_it_holds, not_seen, otherwise }
            })
            .collect()
    }
}
