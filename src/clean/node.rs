//! Is this the disk of a node, and one that the manifests cover in full?

use std::path::Path;

use super::beneath::Beneath;
use super::error::{CleanError, PathError};
use super::programs::PROGRAM_FOLDERS;
use super::runtime::META_DB;

/// Traces that every node of either profile has.
const TRACES: [&str; 2] = ["/var/lib/kubelet", "/var/lib/containerd"];
/// Places that the manifests reach into: on a disk of their own they would be missed.
const ON_ROOT: [&str; 6] = ["/var", "/etc", "/root", "/home", "/tmp", "/usr"];
/// Where containerd keeps what it has unless told otherwise.
const CONTAINERD_ROOT: &str = "/var/lib/containerd";

/// The first trace of a node that is missing.
pub(super) fn missing(copy: &Beneath) -> Result<Option<String>, PathError> {
    if !copy.exists("/etc/os-release")? && !copy.exists("/usr/lib/os-release")? {
        return Ok(Some("/etc/os-release".to_owned()));
    }
    for trace in TRACES {
        if !copy.is_dir(trace)? {
            return Ok(Some(trace.to_owned()));
        }
    }
    Ok(None)
}

/// Refuses a node on which tenants' data may lie where no line of the manifest looks.
pub(super) fn refuse_unknown(copy: &Beneath, device: &Path) -> Result<(), CleanError> {
    let unknown = |found: String| Err(CleanError::UnknownLayout { device: device.to_path_buf(), found });
    let fstab = copy.read_text("/etc/fstab").map_err(CleanError::Unreadable)?.unwrap_or_default();
    if let Some(place) = elsewhere(&fstab) {
        return unknown(format!("/etc/fstab mounts another disk at {place}"));
    }
    let config = copy.read_text("/etc/containerd/config.toml").map_err(CleanError::Unreadable)?.unwrap_or_default();
    if let Some(root) = containerd_root(&config).filter(|root| *root != CONTAINERD_ROOT) {
        return unknown(format!("containerd keeps its data at {root}"));
    }
    if copy.exists(&format!("/{META_DB}")).map_err(CleanError::Unreadable)? {
        for program in ["containerd", "ctr"] {
            let found = PROGRAM_FOLDERS.iter().map(|folder| copy.exists(&format!("{folder}/{program}")));
            let found = found.collect::<Result<Vec<_>, _>>();
            if !found.map_err(CleanError::Unreadable)?.contains(&true) {
                return unknown(format!("containers' data, but no {program} in {}", PROGRAM_FOLDERS.join(", ")));
            }
        }
    }
    let docker = "/var/lib/docker/containers";
    if !copy.names(docker).map_err(CleanError::Unreadable)?.is_empty() {
        return unknown(format!("containers of Docker in {docker}"));
    }
    Ok(())
}

/// A place of the manifests at which fstab mounts something that outlives a boot.
fn elsewhere(fstab: &str) -> Option<&str> {
    fstab.lines().find_map(|line| {
        let mut fields = line.split_whitespace().take_while(|field| !field.starts_with('#'));
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let reached = ON_ROOT
            .iter()
            .any(|top| place == *top || place.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')));
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
