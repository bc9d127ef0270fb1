//! Is this the disk of a node, and one that the manifests cover in full?

use std::collections::BTreeSet;
use std::path::Path;

use super::beneath::Beneath;
use super::error::{CleanError, PathError};
use super::manifest::{CONTAINERD_ROOT, Entry, Manifest};
use super::programs::program_folders;
use super::runtime::META_DB;
use crate::model::Profile;

/// Every node has a kubelet.
const KUBELET: &str = "/var/lib/kubelet";

/// The first trace of a node of this kind that is missing.
pub(super) fn missing(copy: &Beneath, profile: &Profile) -> Result<Option<String>, PathError> {
    if !copy.exists("/etc/os-release")? && !copy.exists("/usr/lib/os-release")? {
        return Ok(Some("/etc/os-release".to_owned()));
    }
    for trace in [KUBELET, &profile.containerd().root] {
        if !copy.is_dir(trace)? {
            return Ok(Some(trace.to_owned()));
        }
    }
    for kept in profile.custom().map_or(&[][..], |custom| &custom.keep) {
        if !copy.exists(kept)? {
            return Ok(Some(format!("{kept}, which profile {profile} keeps")));
        }
    }
    Ok(None)
}

/// Refuses a node on which tenants' data may lie where no line of the manifest looks.
pub(super) fn refuse_unknown(copy: &Beneath, device: &Path, profile: &Profile) -> Result<(), CleanError> {
    let unknown = |found: String| Err(CleanError::UnknownLayout { device: device.to_path_buf(), found });
    let read = |path| copy.read_text(path).map_err(CleanError::Unreadable);
    let is_there = |path: &str| copy.exists(path).map_err(CleanError::Unreadable);
    if let Some(place) = elsewhere(&read("/etc/fstab")?.unwrap_or_default(), &tops(profile)) {
        return unknown(format!("/etc/fstab mounts another disk at {place}"));
    }
    let containerd = profile.containerd();
    if containerd.root == CONTAINERD_ROOT {
        let config = read("/etc/containerd/config.toml")?.unwrap_or_default();
        if let Some(root) = containerd_root(&config).filter(|root| *root != CONTAINERD_ROOT) {
            return unknown(format!("containerd keeps its data at {root}"));
        }
    } else if is_there(&format!("{CONTAINERD_ROOT}/{META_DB}"))? {
        return unknown(format!("containers' data at {CONTAINERD_ROOT} besides {}", containerd.root));
    }
    if is_there(&format!("{}/{META_DB}", containerd.root))? {
        let folders: Vec<&str> = program_folders(&containerd.programs).collect();
        for program in ["containerd", "ctr"] {
            let found = folders.iter().map(|folder| is_there(&format!("{folder}/{program}")));
            if !found.collect::<Result<Vec<_>, _>>()?.contains(&true) {
                return unknown(format!("containers' data, but no {program} in {}", folders.join(", ")));
            }
        }
    }
    let docker = "/var/lib/docker/containers";
    if !copy.names(docker).map_err(CleanError::Unreadable)?.is_empty() {
        return unknown(format!("containers of Docker in {docker}"));
    }
    Ok(())
}

/// The top directories that a profile's lines reach into, and where its programs are: on a disk of their own they would be missed.
fn tops(profile: &Profile) -> BTreeSet<String> {
    let manifest = Manifest::for_copy(profile);
    let top = |entry: &Entry| entry.pattern.split('/').nth(1).map(|name| format!("/{name}"));
    manifest.entries().iter().filter_map(top).chain(["/usr".to_owned()]).collect()
}

/// A place of the manifests at which fstab mounts something that outlives a boot.
fn elsewhere<'a>(fstab: &'a str, tops: &BTreeSet<String>) -> Option<&'a str> {
    fstab.lines().find_map(|line| {
        let mut fields = line.split_whitespace().take_while(|field| !field.starts_with('#'));
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let reached =
            tops.iter().any(|top| place == *top || place.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')));
        (reached && kind != "tmpfs").then_some(place)
    })
}

/// The value of the top-level `root` of containerd's configuration.
fn containerd_root(config: &str) -> Option<&str> {
    config.lines().map(str::trim).take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "root").then(|| value.split('#').next().unwrap_or("").trim().trim_matches(['"', '\'']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fstab_may_mount_what_the_manifests_do_not_reach() {
        let tops = tops(&Profile::Kubeadm);
        assert_eq!(tops.iter().collect::<Vec<_>>(), ["/etc", "/home", "/root", "/tmp", "/usr", "/var"]);
        let elsewhere = |fstab: &'static str| elsewhere(fstab, &tops);
        assert_eq!(
            elsewhere("UUID=1 / ext4 defaults 0 1\n/dev/sdb1 /mnt auto defaults 0 2\ntmpfs /tmp tmpfs x 0 0"),
            None
        );
        assert_eq!(elsewhere("# UUID=2 /var ext4\nUUID=3 /boot/efi vfat x 0 1"), None);
        assert_eq!(elsewhere("UUID=2 /var/lib/kubelet ext4 x 0 2"), Some("/var/lib/kubelet"));
        assert_eq!(elsewhere("UUID=2 /variable ext4 x 0 2"), None);
    }

    #[test]
    fn only_the_top_level_root_counts() {
        assert_eq!(containerd_root("version = 2\n[plugins]\nroot = \"/x\""), None);
        assert_eq!(containerd_root("root = \"/mnt/containerd\" # moved\n"), Some("/mnt/containerd"));
    }
}
