//! What a store's directory is on: refused where locks and syncs promise nothing, said where it forgets.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// Where a store is, and what may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The store's directory.
    pub dir: PathBuf,
    /// Somebody who knows says that a file system in user space is as good as a disk there.
    pub fuse: bool,
}

impl<T: AsRef<Path> + ?Sized> From<&T> for Place {
    fn from(dir: &T) -> Self {
        Self { dir: dir.as_ref().to_owned(), fuse: false }
    }
}

const FUSE: u32 = 0x6573_5546;

/// `f_type` of statfs(2), linux/magic.h.
const NETWORK: [(u32, &str); 11] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB2"),
    (0xFF53_4D42, "CIFS"),
    (FUSE, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
];

impl Place {
    /// Refuses what the network serves. Nothing is made there.
    pub(super) fn refuse_network(&self) -> Result<(), StoreError> {
        // The directory may not be there yet; then what it would be made in counts.
        let existing = existing(&self.dir);
        let unreadable = |source| StoreError::Unreadable { what: "look at", path: existing.clone(), source };
        let stat = rustix::fs::statfs(&existing).map_err(|errno| unreadable(errno.into()))?;
        let magic = magic(i128::from(stat.f_type));
        // Not refused: somebody may want just that. But they should know.
        if let Some(kind) = forgets(magic) {
            tracing::warn!(dir = %self.dir.display(), kind, "the store does not outlive this container or machine");
        }
        match network(magic) {
            Some(_) if magic == FUSE && self.fuse => Ok(()),
            Some(kind) => {
                let kind = match mounted_as(&existing) {
                    Some(name) => format!("{kind} ({name})"),
                    None => kind.to_owned(),
                };
                Err(StoreError::NetworkFileSystem { dir: self.dir.clone(), kind })
            }
            None => Ok(()),
        }
    }
}

/// The directory, or the nearest one above that is there.
pub(super) fn existing(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if found.as_os_str().is_empty() { PathBuf::from(".") } else { found.to_owned() }
}

/// The type of `f_type` differs between machines, and on some the high bit makes it negative.
fn magic(f_type: i128) -> u32 {
    u32::try_from(f_type & 0xFFFF_FFFF).unwrap_or(0)
}

fn network(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, kind)| *kind)
}

/// The name that the file system was mounted under, as in `fuse.blobfuse2`: the number does not tell these apart.
fn mounted_as(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mount_type(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &device)
}

/// See `proc_pid_mountinfo(5)`: the third field is the device, the one after the lonely dash the type.
fn mount_type(mountinfo: &str, device: &str) -> Option<String> {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// The kind of file system that a directory is on, if it is one that forgets.
pub(super) fn forgetful(dir: &Path) -> std::io::Result<Option<&'static str>> {
    let stat = rustix::fs::statfs(dir)?;
    Ok(forgets(magic(i128::from(stat.f_type))))
}

fn forgets(magic: u32) -> Option<&'static str> {
    match magic {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58F6 => Some("ramfs"),
        0x794C_7630 => Some("overlayfs (is a volume mounted there?)"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number_also_when_it_came_out_negative() {
        assert_eq!(network(0x6969), Some("NFS"));
        assert_eq!(network(magic(i128::from(0xFF53_4D42_u32.cast_signed()))), Some("CIFS"));
        assert_eq!(network(0xEF53), None, "ext4");
    }

    #[test]
    fn what_is_mounted_there_is_named() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      99 22 0:53 / /data rw,nosuid shared:9 master:2 - fuse.blobfuse2 blobfuse2 rw,user_id=0\n";
        assert_eq!(mount_type(mounts, "0:53").as_deref(), Some("fuse.blobfuse2"));
        assert_eq!(mount_type(mounts, "8:1").as_deref(), Some("ext4"));
        assert_eq!(mount_type(mounts, "0:1"), None);
    }

    #[test]
    fn a_refusal_names_the_place_the_kind_and_what_to_use_instead() {
        let refusal = |kind: &str| StoreError::NetworkFileSystem { dir: "/data".into(), kind: kind.into() }.to_string();
        let smb = refusal("SMB2 (cifs)");
        for word in ["/data", "SMB2 (cifs)", "disk.csi.azure.com", "not Azure Files"] {
            assert!(smb.contains(word), "no {word:?} in {smb}");
        }
        assert!(!smb.contains("storeOnFuse"), "{smb}");
        assert!(refusal("FUSE (fuse.sshfs)").contains("storeOnFuse: true"));
    }
}
