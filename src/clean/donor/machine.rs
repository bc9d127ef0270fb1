//! Which machine this is, in which boot, and whether it can be cleaned in place.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{FsWord, statfs};

use super::DonorRequest;
use super::services::property;
use crate::clean::error::CleanError;
use crate::clean::manifest::CONTAINERD_ROOT;
use crate::clean::patience::Patience;
use crate::clean::runtime::META_DB;
use crate::model::Profile;

/// The same file that the kubelet reads for its Node's `systemUUID`, and the guard at the first boot of a copy.
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What systemd makes when it is the first process: `sd_booted(3)`.
const SYSTEMD: &str = "/run/systemd/system";
/// Where containerd listens unless told otherwise.
pub(super) const RUNTIME: &str = "/run/containerd/containerd.sock";
/// `EXT4_SUPER_MAGIC`: freed blocks are made unreadable in ways that were seen on ext4 only.
const EXT4: FsWord = 0xEF53;
/// One of these, and the kubelet starts when cloud-init has given the machine its name.
const NAMED_BEFORE: [&str; 5] =
    ["network-online.target", "cloud-init.service", "cloud-init.target", "cloud-config.service", "cloud-final.service"];

pub(super) fn product_uuid() -> io::Result<String> {
    let text = fs::read_to_string(PRODUCT_UUID)?;
    match text.trim() {
        "" => Err(io::Error::other(format!("{PRODUCT_UUID} is empty"))),
        uuid => Ok(uuid.to_owned()),
    }
}

/// Whether two product UUIDs are one machine's. Firmware may show the first three fields in either byte order, and letters in either
/// case; cloud-init takes all of these for the same instance.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || swapped(one).is_some_and(|swapped| swapped.eq_ignore_ascii_case(other))
}

/// The first three fields with their bytes in the other order.
fn swapped(uuid: &str) -> Option<String> {
    let uuid: uuid::Uuid = uuid.parse().ok()?;
    Some(uuid::Uuid::from_bytes_le(*uuid.as_bytes()).to_string())
}

/// Refuses a machine, or a boot of it, that the request does not mean.
pub(super) fn refuse_another(request: &DonorRequest) -> Result<(), CleanError> {
    let look = |path: &str| CleanError::unprepared(format!("read {path}"));
    let uuid = product_uuid().map_err(look(PRODUCT_UUID))?;
    if !is_same(&uuid, &request.product_uuid) {
        let expected = request.product_uuid.clone();
        return Err(CleanError::AnotherMachine { what: "product UUID", found: uuid, expected });
    }
    let boot = fs::read_to_string(BOOT_ID).map_err(look(BOOT_ID))?;
    if boot.trim() != request.boot_id {
        let expected = request.boot_id.clone();
        return Err(CleanError::AnotherMachine { what: "boot id", found: boot.trim().to_owned(), expected });
    }
    Ok(())
}

/// Refuses a machine whose copy would not become somebody new by the guard, or whose disk can't be cleaned from inside.
pub(super) fn refuse_unfit(profile: &Profile) -> Result<(), CleanError> {
    let unfit = |what: String| Err(CleanError::UnfitMachine { what });
    if let Some(custom) = profile.custom() {
        return unfit(format!(
            "profile {} is none of ours, and the guard was never seen at work on such a machine",
            custom.name
        ));
    }
    if !Path::new(SYSTEMD).is_dir() {
        return unfit("its first process is not systemd, which has to start the guard on a copy".into());
    }
    let kind =
        statfs("/").map_err(|errno| CleanError::unprepared("look at the root file system")(errno.into()))?.f_type;
    if kind != EXT4 {
        return unfit(format!("its root file system is of type {kind:#x}, not ext4"));
    }
    if Path::new(CONTAINERD_ROOT).join(META_DB).exists() && !Path::new(RUNTIME).exists() {
        return unfit(format!("it has containers' data, but containerd does not listen on {RUNTIME}"));
    }
    let patience = Patience::for_at_most(super::services::ANSWERS);
    let loaded = property("kubelet.service", "LoadState", &patience)?;
    if loaded != "loaded" {
        return unfit(format!(
            "kubelet.service is {loaded:?}: the guard could not keep the kubelet of a copy from starting"
        ));
    }
    let after = property("kubelet.service", "After", &patience)?;
    if !after.split_whitespace().any(|unit| NAMED_BEFORE.contains(&unit)) {
        return unfit(format!("kubelet.service is not ordered after any of {}", NAMED_BEFORE.join(", ")));
    }
    // kubeadm writes this flag to a file that a copy loses; elsewhere it is in a file that must stay.
    if *profile == Profile::AksEngine {
        let pid = property("kubelet.service", "MainPID", &patience)?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if let Some(flag) = line.split(|&byte| byte == 0).find(|word| word.starts_with(b"--hostname-override")) {
            let flag = String::from_utf8_lossy(flag);
            return unfit(format!("its kubelet runs with {flag}: a copy's would take the donor's name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_byte_order_and_either_case_are_the_same_machine() {
        let uuid = "11223344-5566-7788-99aa-bbccddeeff00";
        for same in [uuid, "11223344-5566-7788-99AA-BBCCDDEEFF00", "44332211-6655-8877-99aa-bbccddeeff00"] {
            assert!(is_same(uuid, same), "{same}");
        }
        for other in ["44332211-5566-7788-99aa-bbccddeeff00", "11223344-5566-7788-99aa-bbccddeeff01", ""] {
            assert!(!is_same(uuid, other), "{other}");
        }
        assert!(is_same("not-a-uuid", "NOT-A-UUID"));
    }
}
