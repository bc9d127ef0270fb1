//! Images of containers, made of files: one layer and a configuration, in the archive that `docker save` would write.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use kamino_wf::clock::{Clock, SystemClock};
use serde_json::json;
use sha2::{Digest, Sha256};

/// An image as it is to be.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Path in the image, and the file of the machine that is to be there.
    files: Vec<(String, PathBuf)>,
    entrypoint: Vec<String>,
    user: String,
}

impl Image {
    pub fn new() -> Self {
        Self::default()
    }

    /// A file with the mode that it has.
    #[must_use]
    pub fn file(mut self, path: &str, from: &Path) -> Self {
        self.files.push((path.to_owned(), from.to_owned()));
        self
    }

    /// A program with the libraries that it is linked to, which are found where they are on this machine.
    #[must_use]
    pub fn program(mut self, path: &str, from: &Path) -> Self {
        let output = Command::new("ldd").arg(from).output().expect("ldd runs");
        // Of a static program it says on its other output that there are none.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        let known: BTreeSet<String> = self.files.iter().map(|(path, _)| path.clone()).collect();
        for library in libraries.filter(|library| !known.contains(*library)) {
            self.files.push((library.to_owned(), PathBuf::from(library)));
        }
        self.file(path, from)
    }

    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// As in `65532:65532`; root by default.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Writes the archive into a folder, where there is room for the image twice meanwhile.
    pub fn write(&self, reference: &str, folder: &Path) -> Result<PathBuf, String> {
        let work = folder.join(format!("image-{}", SystemClock.new_id().simple()));
        let archive = self.write_in(reference, &work).map_err(|error| error.to_string());
        let kept = work.with_extension("tar");
        let moved = archive.and_then(|it| fs::rename(it, &kept).map_err(|error| error.to_string()));
        fs::remove_dir_all(&work).map_err(|error| error.to_string())?;
        moved.map(|()| kept)
    }

    fn write_in(&self, reference: &str, work: &Path) -> io::Result<PathBuf> {
        let root = work.join("root");
        fs::create_dir_all(&root)?;
        for (path, from) in &self.files {
            let to = root.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::copy(from, to)?;
        }
        let parts = work.join("parts");
        fs::create_dir(&parts)?;
        tar(&root, &parts.join("layer.tar"))?;
        fs::remove_dir_all(&root)?;
        let digest = Sha256::digest(fs::read(parts.join("layer.tar"))?);
        let digest = digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/:/usr/bin:/bin"], "User": self.user },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        fs::write(parts.join("config.json"), config.to_string())?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"] }]);
        fs::write(parts.join("manifest.json"), manifest.to_string())?;
        let archive = work.join("archive.tar");
        tar(&parts, &archive)?;
        Ok(archive)
    }
}

fn tar(folder: &Path, to: &Path) -> io::Result<()> {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0"]);
    let output = command.arg("-C").arg(folder).arg("-cf").arg(to).arg(".").output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}
