//! docs/refusals.md, from the list.

use std::fmt::Write as _;

use super::{CLAUSES, Clause};

const HEAD: &str = "\
# What is refused

A run refuses what it can't do well before it touches anything, in words that name the field, its value and the remedy. This
is the whole list; it is made from the code (`src/policy/preflight/clauses.rs`), and so are the refusals themselves. A run that
is refused, `kamino-wf doctor` and `kamino-wf plan` look at the same.

*When*: `choose` is before anything is touched, `prepare` before anything is captured. What may change in the hours between is
looked at again: `publish` means right before new nodes may take the version, `patch` right before the model is changed, in
the very read whose etag the change names, so that nothing can come in between. A clause with *stop* applies only where the donor
is taken out of service. What speaks against a single node is no refusal but a reason to take another one: see
[choosing a donor](choosing.md).

| code | field | value | what to do | when | test |
| --- | --- | --- | --- | --- | --- |
";

/// The document.
#[must_use]
pub fn document() -> String {
    CLAUSES.iter().fold(HEAD.to_owned(), |mut text, clause| {
        let Clause { code, field, value, remedy, when, stop_only, test: (file, name) } = clause;
        let mut when: Vec<&str> = when.iter().map(|moment| moment.word()).collect();
        if *stop_only {
            when.push("*stop*");
        }
        let when = when.join(", ");
        let _ = writeln!(
            text,
            "| [{code}](errors/{code}.md) | {field} | {value} | {remedy} | {when} | `{file}`: `{name}` |"
        );
        text
    })
}
