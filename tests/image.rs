//! The container image, as `scripts/image` makes it: what is in it, as whom it runs, and what it says of itself.
#![expect(clippy::expect_used, reason = "a helper that cannot go on ends the test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// What a node pulls, at most.
const BYTES_MAX: u64 = 25_000_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The image's archive. `None`, loudly, where it can't be made; in CI that is a failure.
fn archive() -> Option<PathBuf> {
    let output = Command::new(root().join("scripts/image")).stderr(Stdio::inherit()).output().expect("a shell");
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        return text.lines().last().map(PathBuf::from);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "scripts/image failed; see its words above");
    // Not `eprintln`: the test harness would keep that to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED: tests of the image: scripts/image failed");
    None
}

/// The image, unpacked: its configuration, and a folder with its files.
struct Image {
    beside: PathBuf,
    config: Value,
    files: tempfile::TempDir,
}

fn unpack(archive: &Path, into: &Path) {
    let status = Command::new("tar").arg("xf").arg(archive).arg("-C").arg(into).status().expect("tar");
    assert!(status.success(), "{} is an archive", archive.display());
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

fn image() -> Option<Image> {
    let archive = archive()?;
    let (parts, files) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    // Others than root have to find what is in it.
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    unpack(&archive, parts.path());
    let manifest = json(&parts.path().join("manifest.json"));
    let part = |name: &Value| parts.path().join(name.as_str().expect("a name"));
    for layer in manifest[0]["Layers"].as_array().expect("layers") {
        unpack(&part(layer), files.path());
    }
    let config = json(&part(&manifest[0]["Config"]))["config"].clone();
    Some(Image { beside: archive.parent().expect("a folder").to_owned(), config, files })
}

/// All files below a folder, with their sizes.
fn files(folder: &Path, below: &Path, found: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, below, found);
        } else {
            let name = path.strip_prefix(below).expect("below").display().to_string();
            found.push((name, path.metadata().expect("a file").len()));
        }
    }
}

#[test]
fn there_is_one_binary_in_it_and_the_authorities() {
    let Some(image) = image() else { return };
    let mut found = Vec::new();
    files(image.files.path(), image.files.path(), &mut found);
    found.sort();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["etc/ssl/certs/ca-certificates.crt", "kamino-wf"]);
    let size: u64 = found.iter().map(|(_, size)| size).sum();
    assert!(size <= BYTES_MAX, "{size} bytes");
    assert_eq!((&image.config["User"], &image.config["Entrypoint"][0]), (&"65532:65532".into(), &"/kamino-wf".into()));
    assert_eq!(image.config["Cmd"][0], "serve");
    // The cleaning pod says `kamino-wf` without a path.
    assert_eq!(image.config["Env"], serde_json::json!(["PATH=/"]));
    assert_eq!(image.config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
}

/// Runs it where there is nothing else, as nobody.
fn run(image: &Image, arguments: &[&str]) -> Output {
    let mut command = Command::new("chroot");
    command.arg("--userspec=65532:65532").arg(image.files.path()).arg("/kamino-wf").args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).output().expect("chroot")
}

#[test]
fn it_runs_where_there_is_nothing_else_and_has_no_simulated_world() {
    let Some(image) = image() else { return };
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "chroot needs root");
        let _ = writeln!(std::io::stderr(), "SKIPPED: the image's binary in a root of its own: needs root");
        return;
    }
    let output = run(&image, &["version", "-o", "json"]);
    assert!(output.status.success(), "{output:?}");
    let version: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(version["release"], env!("CARGO_PKG_VERSION"));
    let output = run(&image, &["simulate"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("unrecognized subcommand 'simulate'"), "{output:?}");
    let output = run(&image, &["clean", "--help"]);
    assert!(output.status.success(), "the cleaning pod has its command: {output:?}");
}

/// The bill says what cargo says, for this binary and no other.
#[test]
fn the_bill_of_materials_is_that_of_the_binary() {
    let Some(image) = image() else { return };
    let bill = json(&image.beside.join("kamino-wf.cdx.json"));
    let output = Command::new("sha256sum").arg(image.files.path().join("kamino-wf")).output().expect("sha256sum");
    let sum = String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(bill["metadata"]["component"]["hashes"][0]["content"], sum);

    let listed: BTreeSet<String> = bill["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|it| format!("{} v{}", it["name"].as_str().expect("a name"), it["version"].as_str().expect("a version")))
        .collect();
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        "--no-default-features",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo");
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let needed: BTreeSet<String> = tree
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("(proc-macro)") && !line.starts_with("kamino-wf "))
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let missing: Vec<&String> = needed.difference(&listed).collect();
    assert!(needed.len() > 100 && missing.is_empty(), "in the binary and not in the bill: {missing:?}");
    let simulated: Vec<&String> = listed.iter().filter(|it| it.starts_with("rcgen ")).collect();
    assert!(simulated.is_empty(), "what only the simulated world needs: {simulated:?}");
}

/// `docker build` sees what `.dockerignore` lets through: enough to read the manifest and find every target.
#[test]
fn the_build_context_has_what_cargo_needs() {
    let context = tempfile::tempdir().expect("a folder");
    let ignore = fs::read_to_string(root().join(".dockerignore")).expect("the list");
    let let_through = ignore.lines().filter_map(|line| line.strip_prefix('!'));
    for name in let_through {
        let status = Command::new("cp").arg("-r").arg(root().join(name)).arg(context.path()).status().expect("cp");
        assert!(status.success(), "{name}");
    }
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(context.path()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
