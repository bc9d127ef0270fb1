//! The chart's README has a table of all values, made from `values.yaml`.

use std::fmt::Write;

use crate::{chart, chart_file, up_to_date, values::documented};

const BEGIN: &str = "<!-- values: made from values.yaml by `UPDATE_DOCS=1 cargo test --test chart` -->\n";
const END: &str = "<!-- end of values -->";

fn table() -> String {
    let mut table = "| value | default | what it is |\n| --- | --- | --- |\n".to_owned();
    for value in documented() {
        let default = match value.default.as_str() {
            Some("") => "empty".to_owned(),
            Some(text) => format!("`{text}`"),
            None if value.default.is_null() => "none".to_owned(),
            None => format!("`{}`", value.default),
        };
        let about = value.about.replace('|', "\\|");
        writeln!(table, "| `{}` | {default} | {about} |", value.key).expect("a string");
    }
    table
}

#[test]
fn the_readme_has_every_value() {
    let text = chart_file("README.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table's beginning");
    let (_, after) = rest.split_once(END).expect("the table's end");
    up_to_date(&chart().join("README.md"), &format!("{before}{BEGIN}{}{END}{after}", table()));
}
