//! The README shows what the command really prints. `UPDATE_DOCS=1` writes it anew.
#![cfg(feature = "sim")]

use std::process::Command;

const BEGIN: &str = "<!-- simulate-output -->\n```text\n";
const END: &str = "```\n<!-- end of simulate-output -->\n";

#[test]
fn the_readme_shows_what_simulate_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_kamino-wf")).args(["simulate", "--speed", "0"]).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // It is shown as it is by default: 1,200 times faster than real.
    let printed =
        String::from_utf8(output.stdout).expect("text").replace("shown at once", "shown 1200 times faster than real");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("a place for it");
    let (shown, after) = rest.split_once(END).expect("an end of that place");
    if shown != printed && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{printed}{END}{after}")).expect("written");
        return;
    }
    assert_eq!(shown, printed, "UPDATE_DOCS=1 cargo test --test readme writes it anew");
}
