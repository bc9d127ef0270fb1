//! A source file as the rules see it: comments, tests and (for most rules) the text of strings blanked, lines kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A source file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// As in `src/steps/mod.rs`.
    pub(crate) path: String,
    /// As in `["steps"]`.
    pub(crate) module: Vec<String>,
    /// Without comments, tests and the text of strings.
    pub(crate) code: String,
    /// Without comments and tests.
    pub(crate) text: String,
}

/// A path that a file names, from `use` or in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    /// Ours begin with `crate`; any other begins with a library's name or something local.
    pub(crate) path: Vec<String>,
}

/// All of the product's own sources.
pub(crate) fn product() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for top in ["src", "chaos"] {
        rust_files(&root.join(top), &mut files);
    }
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let path = file.strip_prefix(root).expect("below the root").to_str().expect("a plain name").to_owned();
        (path, fs::read_to_string(file).expect("a readable source"))
    };
    let raw: Vec<(String, String)> = files.iter().map(read).collect();
    let tests: BTreeSet<String> = raw.iter().flat_map(|(path, text)| test_files(path, text)).collect();
    assert!(raw.len() > 50, "the sources are where they are looked for");
    raw.iter().filter(|(path, _)| !tests.contains(path)).map(|(path, text)| Source::new(path, text)).collect()
}

fn rust_files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

impl Source {
    pub(crate) fn new(path: &str, raw: &str) -> Self {
        let (code, text) = blank(raw);
        let spans = test_items(&code);
        Self { path: path.to_owned(), module: module(path), code: erase(&code, &spans), text: erase(&text, &spans) }
    }

    /// Where `needle` stands in the code, by line.
    pub(crate) fn lines_with(&self, needle: &str) -> Vec<usize> {
        self.code.match_indices(needle).map(|(at, _)| line(&self.code, at)).collect()
    }

    /// Every path that the code names; `modules` are those of the crate.
    pub(crate) fn named(&self, modules: &BTreeSet<Vec<String>>) -> Vec<Named> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let (_, word) = tokens[at];
            if word == "use" && at.checked_sub(1).is_none_or(|before| tokens[before].1 != ">") {
                at = tree(&tokens, at + 1, &mut Vec::new(), &mut found);
            } else if ident(word) && at.checked_sub(1).is_none_or(|before| tokens[before].1 != "::") {
                let start = at;
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|next| next.1 == "::")
                    && tokens.get(at + 2).is_some_and(|next| ident(next.1))
                {
                    path.push(tokens[at + 2].1.to_owned());
                    at += 2;
                }
                if path.len() > 1 {
                    found.push(Named { line: tokens[start].0, path });
                }
                at += 1;
            } else {
                at += 1;
            }
        }
        for named in &mut found {
            named.path = self.resolve(&named.path, modules);
        }
        found
    }

    /// From the crate's root, if it is ours.
    fn resolve(&self, path: &[String], modules: &BTreeSet<Vec<String>>) -> Vec<String> {
        let ours =
            |module: &[String], rest: &[String]| [vec!["crate".to_owned()], module.to_vec(), rest.to_vec()].concat();
        match path[0].as_str() {
            "crate" | "kamino_wf" => ours(&[], &path[1..]),
            "self" => ours(&self.module, &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                ours(&self.module[..self.module.len().saturating_sub(ups)], &path[ups..])
            }
            first => {
                let child = [self.module.clone(), vec![first.to_owned()]].concat();
                if modules.contains(&child) { ours(&child, &path[1..]) } else { path.to_vec() }
            }
        }
    }
}

/// `src/a/b.rs` is `[a, b]`.
fn module(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/main");
    if inner == "lib" { vec![] } else { inner.split('/').map(str::to_owned).collect() }
}

/// The modules of a set of files.
pub(crate) fn modules(sources: &[Source]) -> BTreeSet<Vec<String>> {
    sources.iter().map(|source| source.module.clone()).collect()
}

/// The line of a byte, from 1.
pub(crate) fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Blanks comments, and in the first result the text of strings as well.
fn blank(raw: &str) -> (String, String) {
    let bytes = raw.as_bytes();
    let (mut code, mut text) = (bytes.to_vec(), bytes.to_vec());
    let hide = |buffer: &mut [u8], from: usize, to: usize| {
        for byte in &mut buffer[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let boundary = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            let end = at + raw[at..].find('\n').unwrap_or(rest.len());
            hide(&mut text, at, end);
            hide(&mut code, at, end);
            end
        } else if rest.starts_with(b"/*") {
            let end = block_comment_end(bytes, at);
            hide(&mut text, at, end);
            hide(&mut code, at, end);
            end
        } else if let Some((open, close)) = raw_string(&raw[at..]).filter(|_| boundary || rest[0] == b'"') {
            let end = raw[at + open..].find(&close).map_or(bytes.len(), |found| at + open + found);
            hide(&mut code, at + open, end);
            end + close.len()
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            hide(&mut code, at + 1, end.min(bytes.len()));
            end + 1
        } else if let Some(length) = char_literal(&raw[at..]) {
            hide(&mut code, at + 1, at + length - 1);
            at + length
        } else {
            at + 1
        };
        at = end.min(bytes.len());
    }
    let string = |bytes: Vec<u8>| String::from_utf8(bytes).expect("only whole characters were blanked");
    (string(code), string(text))
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Length of the opening and text of the close of `r"`, `r#"`, `br#"`.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let inner = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = inner.bytes().take_while(|byte| *byte == b'#').count();
    inner[hashes..]
        .starts_with('"')
        .then(|| (text.len() - inner.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// Length of a character literal; `None` for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escaped) = inner.strip_prefix('\\') {
        let skipped = escaped.chars().next()?.len_utf8();
        return escaped[skipped..].find('\'').map(|found| 2 + skipped + found + 1);
    }
    let first = inner.chars().next()?;
    inner[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

const TEST: &str = "#[cfg(test)]";

/// Where items stand that are compiled for tests only.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    code.match_indices(TEST).map(|(at, _)| (at, item_end(code, at + TEST.len()))).collect()
}

/// The end of the item that begins at `from`: its closing brace, or its semicolon.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code[from..].bytes().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' if depth <= 1 => return from + offset + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn erase(text: &str, spans: &[(usize, usize)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (from, to) in spans {
        for byte in &mut bytes[*from..*to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(bytes).expect("only whole characters were blanked")
}

/// The files of `#[cfg(test)] mod name;`.
fn test_files(path: &str, raw: &str) -> Vec<String> {
    let (code, _) = blank(raw);
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
        Some(_) | None => path.trim_end_matches(".rs").to_owned(),
    };
    let item = |(from, to): &(usize, usize)| {
        let name = code[*from..*to].strip_suffix(';')?.rsplit_once("mod ")?.1.trim().to_owned();
        // `#[path = "…"]` puts the file beside the one that names it.
        let beside = raw[*from..*to].split_once("#[path = \"").and_then(|(_, rest)| rest.split_once('"'));
        Some(match beside {
            Some((file, _)) => format!("{}/{file}", path.rsplit_once('/')?.0),
            None => format!("{folder}/{name}.rs"),
        })
    };
    test_items(&code).iter().filter_map(item).collect()
}

fn ident(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Words and signs, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut lines = 1;
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|next: char| !(next.is_alphanumeric() || next == '_')).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if first == '\n' {
            lines += 1;
        } else if !first.is_whitespace() {
            found.push((lines, &rest[..length]));
        }
        rest = &rest[length..];
    }
    found
}

/// Reads a tree of `use` from `at`, adds its leaves, and says where it ends.
fn tree(tokens: &[(usize, &str)], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Named>) -> usize {
    let depth = prefix.len();
    while let Some((line, word)) = tokens.get(at) {
        match *word {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.1 != "}") {
                    at = tree(tokens, at, prefix, found);
                    if tokens.get(at).is_some_and(|token| token.1 == ",") {
                        at += 1;
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "::" => at += 1,
            "as" => at += 2,
            word if ident(word) || word == "*" => {
                prefix.push(word.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|next| next.1 != "::") {
                    found.push(Named { line: *line, path: prefix.clone() });
                }
            }
            _ => break,
        }
    }
    prefix.truncate(depth);
    at
}

#[test]
fn what_is_no_code_is_not_read() {
    let source = Source::new(
        "src/steps/x.rs",
        "// HashMap\nfn f() -> &'static str { \"loop { \\\" HashMap\" }\n/* a /* HashMap */ */ const C: char = '\"';\n\
         #[cfg(test)]\nmod tests { use std::collections::HashMap; fn g() { \"}\"; } }\nfn h() { sleep(1) }\n",
    );
    assert!(source.lines_with("HashMap").is_empty(), "{}", source.code);
    assert!(source.text.contains("loop {"), "strings stay in the text");
    assert_eq!(source.lines_with("sleep("), [6], "what follows the tests is read");
}

#[test]
fn trees_of_use_and_paths_in_expressions_are_named_from_the_root() {
    let all = [vec!["cloud".to_owned()], vec!["cloud".to_owned(), "azure".to_owned()]].into();
    let source = Source::new(
        "src/cloud/mod.rs",
        "use crate::{model::{self, RunId as Id}, store::*};\npub use azure::{Arm, arm::Y};\nfn f() { super::steps::g::<tokio::T>() }\n",
    );
    let named: Vec<String> = source.named(&all).into_iter().map(|named| named.path.join("::")).collect();
    let expected = [
        "crate::model::self",
        "crate::model::RunId",
        "crate::store::*",
        "crate::cloud::azure::Arm",
        "crate::cloud::azure::arm::Y",
        "crate::steps::g",
        "tokio::T",
    ];
    assert_eq!(named, expected);
}

#[test]
fn files_of_tests_are_found() {
    let raw = "#[cfg(test)]\nmod x_tests;\n#[cfg(test)]\n#[path = \"z.rs\"]\nmod y;\n#[cfg(test)]\nfn f() {}\n";
    assert_eq!(test_files("src/a/mod.rs", raw), ["src/a/x_tests.rs", "src/a/z.rs"]);
    assert_eq!(test_files("src/a/b.rs", raw)[0], "src/a/b/x_tests.rs");
}
