//! A profile that an operator writes: read, and checked before it can take anything away.
//!
//! The worst that a wrong line can do is a copy that does not boot, which `canary` finds; and a line that is missing leaves a
//! secret in an image, which nobody finds. So it is checked what can be: that lines stay off the system itself, that nothing is taken
//! which is said to stay, and that a disk which lacks that is refused.

use std::path::{Path, PathBuf};

use super::beneath::matches_star;
use super::manifest::Manifest;
use crate::model::{CustomProfile, Profile};

/// The lines of one file; a kind of node has some dozens.
const LINES_MAX: usize = 200;
/// The file goes to a cleaning pod as an argument.
const SIZE_MAX: usize = 16 << 10;
/// Where a node keeps what makes it that node, and its tenants' data. All else is the system, which is what an image is for.
const TOPS: [&str; 6] = ["etc", "home", "opt", "root", "srv", "var"];

/// Why a file is no profile.
#[derive(Debug, thiserror::Error)]
pub enum BadProfile {
    /// It can't be read.
    #[error("read profile {path}: {source}; name a file that is there, or one of aks-engine, kubeadm")]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what a profile looks like.
    #[error("read a profile: {detail}; docs/profiles.md shows one")]
    Malformed {
        /// What the parser said.
        detail: String,
    },
    /// A field of it is wrong.
    #[error("take the profile: {field} is {value:?}: {remedy}")]
    Bad {
        /// As in `clone[2]`.
        field: String,
        /// What it says.
        value: String,
        /// What to do.
        remedy: String,
    },
}

fn bad(field: impl Into<String>, value: &dyn std::fmt::Display, remedy: impl Into<String>) -> BadProfile {
    BadProfile::Bad { field: field.into(), value: value.to_string(), remedy: remedy.into() }
}

/// Whether a text names a file of one's own, and none of the profiles that come with the program.
#[must_use]
pub fn is_file(text: &str) -> bool {
    let yaml =
        Path::new(text).extension().is_some_and(|it| it.eq_ignore_ascii_case("yaml") || it.eq_ignore_ascii_case("yml"));
    yaml || text.contains('/')
}

/// A profile as an argument says it: a name, a file, or the whole text of one.
///
/// # Errors
/// A sentence that names what is wrong with it and what is expected.
pub fn of_argument(text: &str) -> Result<Profile, String> {
    if text.trim_start().starts_with('{') {
        return parse(text).map_err(|error| error.to_string());
    }
    if is_file(text) {
        return read(Path::new(text)).map_err(|error| error.to_string());
    }
    text.parse().map_err(|error: crate::model::BadName| error.to_string())
}

/// The profile in a file.
///
/// # Errors
/// See [`BadProfile`].
pub fn read(path: &Path) -> Result<Profile, BadProfile> {
    let text = std::fs::read_to_string(path);
    parse(&text.map_err(|source| BadProfile::Unreadable { path: path.to_owned(), source })?)
}

/// The profile in a text, YAML or JSON.
///
/// # Errors
/// See [`BadProfile`].
pub fn parse(text: &str) -> Result<Profile, BadProfile> {
    if text.len() > SIZE_MAX {
        return Err(bad("its length", &text.len(), format!("expected at most {SIZE_MAX} bytes")));
    }
    let custom: CustomProfile =
        serde_saphyr::from_str(text).map_err(|error| BadProfile::Malformed { detail: error.to_string() })?;
    check(&custom)?;
    let profile = Profile::Custom(Box::new(custom));
    refuse_taken(&profile)?;
    Ok(profile)
}

fn check(custom: &CustomProfile) -> Result<(), BadProfile> {
    let CustomProfile { version, name, bootstrap: _, containerd, keep, donor, clone } = custom;
    if *version != 1 {
        return Err(bad("version", &version, "this release reads version 1"));
    }
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !plain || !(1..=40).contains(&name.len()) {
        return Err(bad("name", &name, "expected 1 to 40 small letters, digits or dashes"));
    }
    if Profile::SHIPPED.iter().any(|shipped| shipped.name() == name) {
        return Err(bad("name", &name, "this is a profile of the program's own; choose another name"));
    }
    let lines = donor.len() + clone.len() + keep.len();
    if lines > LINES_MAX {
        return Err(bad("the number of its lines", &lines, format!("expected at most {LINES_MAX}")));
    }
    let root = &containerd.root;
    let place = |field: String, path: &str, tops: &[&str]| {
        let problem = misplaced(path, tops).or_else(|| path.contains('*').then(|| "expected no `*`".to_owned()));
        problem.map_or(Ok(()), |remedy| Err(bad(field, &path, remedy)))
    };
    place("containerd.root".into(), root, &TOPS)?;
    for (index, folder) in containerd.programs.iter().enumerate() {
        place(format!("containerd.programs[{index}]"), folder, &[])?;
    }
    for (index, path) in keep.iter().enumerate() {
        place(format!("keep[{index}]"), path, &[])?;
    }
    for (column, lines) in [("donor", donor), ("clone", clone)] {
        for (index, line) in lines.iter().enumerate() {
            if let Some(remedy) = misplaced(line.pattern(), &TOPS) {
                return Err(bad(format!("{column}[{index}]"), &line.pattern(), remedy));
            }
        }
    }
    Ok(())
}

/// What is wrong with a path or a pattern: where it begins, how it is written, or how much it would take.
fn misplaced(pattern: &str, tops: &[&str]) -> Option<String> {
    let plain =
        pattern.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b'?' | b'['));
    let Some(rest) = pattern.strip_prefix('/').filter(|_| plain) else {
        return Some("expected an absolute path of plain characters; `*` stands for any part of one name".into());
    };
    let names: Vec<&str> = rest.split('/').collect();
    if names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        return Some("expected a path without empty names, `.` and `..`".into());
    }
    if !tops.is_empty() && !tops.contains(&names[0]) {
        return Some(format!("expected a path below /{}: all else is the system", tops.join(", /")));
    }
    if names.len() < 2 || names[0].contains('*') || names[1].chars().all(|c| c == '*') {
        return Some("it would take a whole top directory; name what is in it".into());
    }
    None
}

/// What is said to stay must not go by any line, neither one of the file nor one that applies to every node.
fn refuse_taken(profile: &Profile) -> Result<(), BadProfile> {
    let manifest = Manifest::for_copy(profile);
    for (index, kept) in profile.custom().map_or(&[][..], |custom| &custom.keep).iter().enumerate() {
        if let Some(entry) = manifest.entries().iter().find(|entry| takes(&entry.pattern, kept)) {
            let remedy = format!("the line {} takes it; leave one of the two out", entry.pattern);
            return Err(bad(format!("keep[{index}]"), &kept, remedy));
        }
    }
    Ok(())
}

/// Whether a pattern stands for a path, or for something above it.
fn takes(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() <= path.len()
        && pattern.iter().zip(&path).all(|(pattern, name)| matches_star(pattern.as_bytes(), name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bootstrap;

    const EXAMPLE: &str = include_str!("../../docs/examples/profile-k3s.yaml");

    #[test]
    fn the_example_in_the_documents_is_a_good_one_and_survives_the_way_to_a_pod() {
        let profile = parse(EXAMPLE).expect("a good profile");
        assert_eq!((profile.name(), profile.bootstrap()), ("k3s", Bootstrap::Model));
        assert_eq!(of_argument(&profile.as_argument()), Ok(profile.clone()));
        let patterns: Vec<String> =
            Manifest::for_copy(&profile).entries().iter().map(|it| it.pattern.to_string()).collect();
        let root = &profile.containerd().root;
        assert!(patterns.contains(&format!("{root}/io.containerd.grpc.v1.cri/containers/*")), "{patterns:?}");
        assert!(!patterns.iter().any(|it| it.starts_with("/var/lib/containerd/")), "{patterns:?}");
        assert!(patterns.contains(&"/etc/machine-id".to_owned()), "what every node loses");
        let hash = |profile: &Profile| Manifest::for_copy(profile).hash();
        assert_ne!(hash(&profile), hash(&Profile::Kubeadm));
    }

    #[test]
    fn a_profile_is_a_name_a_file_or_a_text() {
        assert_eq!(of_argument("kubeadm"), Ok(Profile::Kubeadm));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("mine.yaml");
        std::fs::write(&path, EXAMPLE).expect("a file");
        assert_eq!(of_argument(path.to_str().expect("text")), parse(EXAMPLE).map_err(|error| error.to_string()));
        for (text, words) in [
            ("talos", "expected aks-engine, kubeadm, or the path of a file"),
            ("none.yaml", "read profile none.yaml: No such file"),
            ("{ name: x", "read a profile: "),
        ] {
            let error = of_argument(text).expect_err("it is none");
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn each_bad_field_is_named_with_its_value_and_the_remedy() {
        let rows = [
            ("version: 1", "version: 2", "version is \"2\": this release reads version 1"),
            ("name: k3s", "name: kubeadm", "choose another name"),
            ("name: k3s", "name: K3s!", "name is \"K3s!\": expected 1 to 40 small letters"),
            ("bootstrap: model", "bootstrap: cloud", "cloud"),
            ("bootstrap: model", "bootstrap: model\ncolour: red", "colour"),
            (
                "root: /var/lib/rancher/k3s/agent/containerd",
                "root: containerd",
                "containerd.root is \"containerd\": expected an absolute",
            ),
            ("root: /var/lib/rancher/k3s/agent/containerd", "root: /usr/lib/containerd", "below /etc, /home"),
            ("clone:\n", "clone:\n- erase: /usr/bin/k3s\n", "clone[0] is \"/usr/bin/k3s\": expected a path below"),
            ("clone:\n", "clone:\n- unlink: /etc/*\n", "whole top directory"),
            ("clone:\n", "clone:\n- unlink: /var\n", "whole top directory"),
            ("clone:\n", "clone:\n- unlink: /var/lib/../../usr\n", "without empty names"),
            ("clone:\n", "clone:\n- unlink: /var/lib/x?\n", "plain characters"),
            ("clone:\n", "clone:\n- burn: /var/lib/x\n", "burn"),
            (
                "keep:\n",
                "keep:\n- /etc/rancher/node/password\n",
                "keep[0] is \"/etc/rancher/node/password\": the line /etc/rancher/node/password takes it",
            ),
            ("keep:\n", "keep:\n- /var/lib/cloud/instances/x/y\n", "the line /var/lib/cloud/instances takes it"),
            ("keep:\n", "keep:\n- /etc/rancher/*\n", "expected no `*`"),
        ];
        for (from, to, words) in rows {
            let text = EXAMPLE.replacen(from, to, 1);
            assert_ne!(text, EXAMPLE, "{from}");
            let error = parse(&text).expect_err(to).to_string();
            assert!(error.contains(words), "{to}: no {words:?} in {error}");
        }
        let long = format!("{EXAMPLE}{}", "- unlink: /var/lib/some/path\n".repeat(300));
        assert!(parse(&long).expect_err("too many").to_string().contains("expected at most 200"));
    }
}
