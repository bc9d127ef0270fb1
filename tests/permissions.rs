//! `docs/permissions.md` says what the list of rights says.

use std::{fs, path::Path};

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/permissions.md");
    let expected = kamino_wf::permissions::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).expect("docs can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "docs/permissions.md is stale: UPDATE_DOCS=1 cargo test --test permissions");
}
