//! Documents and code agree: error pages, links, the index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::report;
use super::source::product;

/// Documents by path from the project's root.
type Documents = BTreeMap<String, String>;

fn documents() -> Documents {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Documents::new();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of documents") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_str().expect("a plain name").to_owned();
                found.insert(name, fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    for name in ["README.md", "CONTRIBUTING.md"] {
        found.insert(name.into(), fs::read_to_string(root.join(name)).expect("a text"));
    }
    found
}

/// Every `KW` and four digits.
fn codes(text: &str) -> BTreeSet<String> {
    let at = text.match_indices("KW").filter_map(|(at, _)| text.get(at..at + 6));
    at.filter(|code| code[2..].bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned).collect()
}

/// Codes without a page, pages without a code, and pages that speak of another.
fn pages(used: &BTreeSet<String>, documents: &Documents) -> Vec<String> {
    let page = |code: &str| format!("docs/errors/{code}.md");
    let mut found: Vec<String> = used
        .iter()
        .filter(|code| !documents.contains_key(&page(code)))
        .map(|code| format!("{code} is said in src/ and has no page: write {}", page(code)))
        .collect();
    for (path, text) in documents.iter().filter(|(path, _)| path.starts_with("docs/errors/")) {
        let code = path.trim_start_matches("docs/errors/").trim_end_matches(".md");
        if !used.contains(code) {
            found.push(format!(
                "{path}: nothing in src/ says {code}: remove the page, or say the code where it happens"
            ));
        }
        if !text.starts_with(&format!("# {code}: ")) {
            found.push(format!("{path}: begins with `# {code}: ` and what happened"));
        }
        for part in ["**What it means.**", "**How to get going again.**"] {
            if !text.contains(part) {
                found.push(format!("{path}: has no part {part}"));
            }
        }
    }
    found
}

/// Targets of a document's links, from the project's root, without anchors.
fn links(path: &str, text: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let raw = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')').map(|(link, _)| link));
    raw.filter(|link| !link.contains("://") && !link.starts_with('#') && !link.contains(' '))
        .map(|link| {
            let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            for part in link.split('#').next().unwrap_or_default().split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            parts.join("/")
        })
        .collect()
}

/// Documents that nobody finds. A link to a folder stands for what is in it.
fn unlinked(documents: &Documents) -> Vec<String> {
    let from = ["README.md", "docs/README.md"];
    let read = |path: &&str| documents.get(*path).map(|text| links(path, text)).unwrap_or_default();
    let linked: Vec<String> = from.iter().flat_map(read).collect();
    let found = |path: &String| linked.iter().any(|link| path == link || path.starts_with(&format!("{link}/")));
    documents
        .keys()
        .filter(|path| path.starts_with("docs/") && *path != "docs/README.md" && !found(path))
        .map(|path| format!("{path}: link it from docs/README.md"))
        .collect()
}

/// Links that lead nowhere.
fn broken(documents: &Documents, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let each = |(path, text): (&String, &String)| {
        let wrong = links(path, text).into_iter().filter(|link| !exists(link));
        wrong.map(|link| format!("{path}: links to {link}, which is not there")).collect::<Vec<_>>()
    };
    documents.iter().flat_map(each).collect()
}

/// The commands that there are, from their enum.
fn commands(arguments: &str) -> BTreeSet<String> {
    let inside = arguments.split_once("enum Command {").map_or("", |(_, rest)| rest);
    let inside = inside.split_once("\n}").map_or("", |(inside, _)| inside);
    let variants =
        inside.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase));
    variants.map(|line| line.split(['(', ',', ' ']).next().unwrap_or_default().to_lowercase()).collect()
}

/// Commands that a text tells people to give, and that are not there.
fn missing_commands(path: &str, text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let told = ["`kamino-wf ", "$ kamino-wf "].iter().flat_map(|before| text.split(before).skip(1));
    let words = told.map(|rest| rest.split(|next: char| !next.is_ascii_lowercase()).next().unwrap_or_default());
    words
        .filter(|word| !word.is_empty() && !known.contains(*word))
        .map(|word| format!("{path}: tells people to give `kamino-wf {word}`, which there is not"))
        .collect()
}

#[test]
fn people_are_told_of_commands_that_are_there() {
    let sources = product();
    let arguments = sources.iter().find(|source| source.path == "src/cli/args.rs").expect("the commands' arguments");
    let known = commands(&arguments.text);
    assert!(known.contains("describe") && known.contains("simulate"), "{known:?}");
    let mut found: Vec<String> =
        documents().iter().flat_map(|(path, text)| missing_commands(path, text, &known)).collect();
    found.extend(sources.iter().flat_map(|source| missing_commands(&source.path, &source.text, &known)));
    report("name a command that exists, or what to do without it", &found);
}

#[test]
fn every_error_code_has_its_page_and_every_page_its_code() {
    let used = product().iter().flat_map(|source| codes(&source.text)).collect();
    report("an operator who meets a code finds docs/errors/<code>.md", &pages(&used, &documents()));
}

#[test]
fn every_document_is_found_from_the_index() {
    report("docs/README.md is the index", &unlinked(&documents()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    report("links lead somewhere", &broken(&documents(), |link| root.join(link).exists()));
}

#[test]
fn each_rule_of_documents_can_fail() {
    let documents = |files: &[(&str, &str)]| -> Documents {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    let used: BTreeSet<String> = codes("\"KW0001\", \"KW0002: x\", \"KWmany\"");
    assert_eq!(used.len(), 2);
    let good = "# KW0001: x\n\n**What it means.** a\n\n**How to get going again.** b\n";
    let some = documents(&[("docs/errors/KW0001.md", good), ("docs/errors/KW0009.md", "# something\n")]);
    let found = pages(&used, &some).join("\n");
    for words in ["KW0002 is said in src/", "nothing in src/ says KW0009", "begins with `# KW0009: `", "has no part"] {
        assert!(found.contains(words), "{words}: {found}");
    }
    assert!(!found.contains("KW0001"), "{found}");

    let known = commands(
        "x\nenum Command {\n    /// Show one run.\n    Describe(Args),\n    Serve,\n}\nenum Other {\n    No,\n}\n",
    );
    assert_eq!(known, ["describe".to_owned(), "serve".to_owned()].into());
    let found = missing_commands(
        "x.md",
        "`kamino-wf describe <run>`, `kamino-wf rescue`\n$ kamino-wf no\n`kamino-wf --help`",
        &known,
    );
    assert_eq!(found.len(), 2, "{found:?}");

    let some = documents(&[
        ("docs/README.md", "[a](adr/1.md), [notes](notes/), [out](https://x/y), [up](../README.md#a), [gone](gone.md)"),
        ("docs/adr/1.md", ""),
        ("docs/notes/x.md", ""),
        ("docs/lost.md", ""),
        ("README.md", ""),
    ]);
    assert_eq!(unlinked(&some), ["docs/lost.md: link it from docs/README.md"]);
    let found = broken(&some, |link| some.contains_key(link) || link == "docs/notes");
    assert_eq!(found, ["docs/README.md: links to docs/gone.md, which is not there"]);
}
