//! What people read, as they read it; what programs read, in every form; and what shells are told.
//!
//! The store is the frozen one of the first release, so its ids and times never change. Ages do: they are cut out.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::binary::{Binary, PRODUCT};
use kamino_wf::sim::{Scene, spec};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Desk {
    folder: TempDir,
    binary: Binary,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        copied(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/v1"), &folder.path().join("store"));
        let spec = spec(&Scene::nominal());
        let config = folder.path().join("config.yaml");
        let settings = json!({
            "store": folder.path().join("store"),
            "azure": { "tenant": "some-tenant", "client": "some-client" },
            "pools": [{ "name": "blue", "scaleSet": spec.scale_set, "profile": "kubeadm", "gallery": spec.gallery,
                "keepFor": "14d", "regions": ["northeurope"] }],
        });
        fs::write(&config, settings.to_string()).expect("a settings file");
        let binary = Binary::new(folder.path(), &config);
        Self { folder, binary }
    }

    async fn says(&self, arguments: &[&str]) -> String {
        let ended = self.binary.run(arguments).await;
        ended.assert(0, &[]).stdout.replace(self.folder.path().to_str().expect("a plain name"), "/desk")
    }
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("the frozen store") {
        let (path, target) = {
            let entry = entry.expect("an entry");
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copied(&path, &target);
        } else {
            fs::copy(path, target).expect("copied");
        }
    }
}

/// `12h 04m` or `3d 04h`, wherever it stands, becomes `[age]`; columns that follow one are two spaces away.
fn ageless(text: &str) -> String {
    let is = |word: &str, units: &str| {
        let (number, unit) = word.split_at(word.len().saturating_sub(1));
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && units.contains(unit)
    };
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        let mut at = 0;
        while at < words.len() {
            let age = is(words[at], "dh") && words.get(at + 1).is_some_and(|next| is(next.trim_end_matches(','), "hm"));
            if age {
                words[at] = if words[at + 1].ends_with(',') { "[age]," } else { "[age]" };
                words.remove(at + 1);
            }
            if age || words[at] == "AGE" || words[at] == "TOOK" {
                let spaces = words[at + 1..].iter().take_while(|word| word.is_empty()).count();
                if spaces > 1 {
                    words.drain(at + 2..at + 1 + spaces);
                }
            }
            at += 1;
        }
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Columns two spaces apart, where what is in them is longer on another day or in another folder.
fn squeezed(text: &str) -> String {
    let line =
        |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_list_in_every_form() {
    let desk = Desk::new();
    insta::assert_snapshot!("list", ageless(&desk.says(&["list"]).await));
    insta::assert_snapshot!("list_wide", ageless(&desk.says(&["list", "-o", "wide"]).await));
    let names = desk.says(&["list", "-o", "name"]).await;
    let json: Value = serde_json::from_str(&desk.says(&["list", "-o", "json"]).await).expect("JSON");
    let yaml: Value = serde_saphyr::from_str(&desk.says(&["list", "-o", "yaml"]).await).expect("YAML");
    assert_eq!(json, yaml);
    assert_eq!((&json["apiVersion"], &json["kind"]), (&json!("kamino-wf/v1"), &json!("RunList")));
    let runs = json["runs"].as_array().expect("runs");
    assert_eq!(names.lines().count(), runs.len());
    // For `xargs`: each of them is a run that can be asked for.
    for name in names.lines().take(2) {
        assert_eq!(desk.says(&["describe", name, "-o", "name"]).await.trim(), name);
    }
}

#[tokio::test]
async fn a_run_in_every_form() {
    let desk = Desk::new();
    let name = desk.says(&["list", "-o", "name"]).await.lines().nth(3).expect("a run").to_owned();
    insta::assert_snapshot!("describe", squeezed(&ageless(&desk.says(&["describe", &name]).await)));
    let wide = desk.says(&["describe", &name, "-o", "wide"]).await;
    assert!(!wide.contains('…'), "{wide}");
    let json: Value = serde_json::from_str(&desk.says(&["describe", &name, "-o", "json"]).await).expect("JSON");
    let yaml: Value = serde_saphyr::from_str(&desk.says(&["describe", &name, "-o", "yaml"]).await).expect("YAML");
    assert_eq!(json, yaml);
    desk.binary.run(&["describe", &name, "--watch", "-o", "yaml"]).await.assert(2, &["--output is yaml", "-o json"]);
}

#[tokio::test]
async fn a_list_of_some_runs() {
    let desk = Desk::new();
    let count = async |flags: &[&str]| desk.says(&[&["list", "-o", "name"], flags].concat()).await.lines().count();
    let all = count(&[]).await;
    assert!(all > 5);
    let (open, ended) = (count(&["--state", "open"]).await, count(&["--state", "ended"]).await);
    assert_eq!(open + ended, all);
    assert!(open > 0);
    assert_eq!(count(&["--pool", "blue"]).await, all);
    assert_eq!(count(&["--since", "2001-01-01T00:00:00Z"]).await, all);
    let none = desk.says(&["list", "--state", "cancelled"]).await;
    assert_eq!(none.trim(), "No run is as you asked; without --state, --pool and --since all are shown.");
    desk.binary.run(&["list", "--pool", "green"]).await.assert(4, &["--pool \"green\"", "expected one of blue"]);
    desk.binary.run(&["list", "--state", "asleep"]).await.assert(2, &["asleep", "needs-person"]);
    desk.binary.run(&["list", "--since", "soon"]).await.assert(2, &["soon", "24h"]);
    desk.binary.run(&["list", "--audit", "--state", "open"]).await.assert(2, &["cannot be used with"]);
    desk.binary.run(&["list", "--audit", "-o", "name"]).await.assert(2, &["--output is name", "table, wide"]);
    desk.binary.run(&["list", "--watch", "-o", "yaml"]).await.assert(2, &["--output is yaml", "table, wide"]);
    desk.binary.run(&["list", "--watch"]).await.assert(0, &["STATE", "nobody holds the store", "this is all there is"]);
}

#[tokio::test]
async fn settings_say_where_they_come_from() {
    let desk = Desk::new();
    // Nobody has a credential here; the settings are good all the same.
    insta::assert_snapshot!("config", squeezed(&desk.says(&["config"]).await));
    let secret = desk.binary.with("KAMINO_AZURE_CLIENT_SECRET", "hunter2").with("KAMINO_STORE", "/elsewhere");
    let ended = secret.run(&["config", "--context", "here", "-o", "json"]).await;
    let json = ended.assert(0, &[]).json();
    assert!(!ended.stdout.contains("hunter2") && !ended.stderr.contains("hunter2"), "{ended:?}");
    let of = |name: &str| {
        let all = json["settings"].as_array().expect("settings");
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no {name} in {json}")).clone()
    };
    assert_eq!(of("store"), json!({ "name": "store", "value": "/elsewhere", "from": { "variable": "KAMINO_STORE" } }));
    assert_eq!(of("kubernetes.context")["from"], json!({ "flag": "--context" }));
    assert_eq!(of("polling.first")["from"], "default");
    assert_eq!(of("the client's secret")["value"], "set, and not shown");
    let missing = Binary::new(desk.folder.path(), &desk.folder.path().join("missing.yaml"));
    missing.run(&["config"]).await.assert(2, &["missing.yaml", "--config"]);
}

/// Colours are for whoever asks for them; with `NO_COLOR` nobody gets any, whatever else is set.
#[tokio::test]
async fn no_color_means_none() {
    let desk = Desk::new();
    let binary = desk.binary.with("NO_COLOR", "1").with("TERM", "xterm-256color");
    for arguments in [&["list"][..], &["--help"], &["list", "--nonsense"], &["config"], &["store", "check"]] {
        let ended = binary.run(arguments).await;
        assert!(!ended.stdout.contains('\u{1b}') && !ended.stderr.contains('\u{1b}'), "{arguments:?}: {ended:?}");
        assert!(!ended.stdout.is_empty() || !ended.stderr.is_empty());
    }
}

/// A shell reads what it is given, and offers what there is. Shells that are not here are left out.
#[tokio::test]
async fn shells_can_complete_commands() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.says(&["completion", shell]).await;
        for word in ["describe", "quarantine", "--kubeconfig", "needs-person"] {
            assert!(script.contains(word.trim_start_matches("--")), "{shell}: no {word}");
        }
        let file = desk.folder.path().join(shell);
        fs::write(&file, &script).expect("a file");
        // `-n` reads and runs nothing.
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(error) => eprintln!("{shell} is not here: {error}"),
        }
    }
    desk.binary.run(&["completion", "tcsh"]).await.assert(2, &["tcsh", "fish"]);
    // As bash itself would ask the function that was registered.
    let ask = r#"source "$1"; COMP_WORDS=(kamino-wf store qua); COMP_CWORD=2; "$(complete -p kamino-wf | sed 's/.*-F \([^ ]*\).*/\1/')" kamino-wf qua store; printf '%s\n' "${COMPREPLY[@]}""#;
    let bash = Command::new("bash").args(["-c", ask, "bash"]).arg(desk.folder.path().join("bash")).output();
    let said = String::from_utf8(bash.expect("bash is here").stdout).expect("text");
    assert_eq!(said.trim(), "quarantine");
}

#[tokio::test]
async fn kubectl_is_told_how_to_complete_the_plugin() {
    let folder = TempDir::new().expect("a folder");
    let link = folder.path().join("kubectl_complete-kamino");
    std::os::unix::fs::symlink(PRODUCT, &link).expect("a link");
    let said = Command::new(&link).args(["store", "qu"]).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "quarantine\n:4\n");
}

#[tokio::test]
async fn packagers_get_a_man_page_for_each_command() {
    let desk = Desk::new();
    let man: PathBuf = desk.folder.path().join("man");
    let name = man.to_str().expect("a plain name");
    desk.binary.run(&["man", name]).await.assert(1, &["failed to write man pages", name]);
    fs::create_dir(&man).expect("a directory");
    desk.binary.run(&["man", name]).await.assert(0, &[]);
    for page in ["kamino-wf.1", "kamino-wf-list.1", "kamino-wf-store.1", "kamino-wf-store-quarantine.1"] {
        let text = fs::read_to_string(man.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let first = fs::read_to_string(man.join("kamino-wf.1")).expect("it was there");
    assert!(first.contains("the run waits for a person"), "exit codes are in it");
}

/// Every command's help, as people read it first.
#[tokio::test]
async fn help_teaches() {
    let desk = Desk::new();
    let mut text = String::new();
    for command in [
        "list",
        "describe",
        "config",
        "completion",
        "store",
        "store export",
        "store import",
        "store compact",
        "store quarantine",
    ] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = desk.says(&words).await;
        // What every command has is not its own.
        let own = help.split("\nOptions of every command:").next().unwrap_or_default();
        writeln!(text, "$ kamino-wf {command} --help\n{own}").expect("into memory");
    }
    insta::assert_snapshot!("help", text);
}
