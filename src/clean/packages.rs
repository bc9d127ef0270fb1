//! A snapshot of a running node may catch a package upgrade half-way. Such a disk boots, or does not; it makes no image.

use super::beneath::Beneath;
use super::error::CleanError;

/// Files that exist only while rpm or its front ends are in the middle of something.
const RPM_UNDERWAY: [&str; 4] = [
    "/var/lib/rpm/rpmdb.sqlite-journal",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite-journal",
    "/var/lib/rpm/.dbenv.lock.rebuild",
    "/var/lib/rpmrebuilddb",
];

/// Refuses a disk on which packages are neither the old nor the new ones.
pub(super) fn refuse_halfway(copy: &Beneath) -> Result<(), CleanError> {
    match halfway(copy).map_err(CleanError::Unreadable)? {
        Some(what) => Err(CleanError::Unfit { what: format!("a package upgrade was caught half-way: {what}") }),
        None => Ok(()),
    }
}

fn halfway(copy: &Beneath) -> Result<Option<String>, super::error::PathError> {
    for folder in ["/var/lib/dpkg/updates", "/var/lib/dpkg/tmp.ci"] {
        if let Some(name) = copy.names(folder)?.first() {
            return Ok(Some(format!("{folder}/{} exists", name.to_string_lossy())));
        }
    }
    if copy.is_dir("/var/lib/dpkg")? {
        let Some(status) = copy.read_text("/var/lib/dpkg/status")? else {
            return Ok(Some("/var/lib/dpkg/status is missing".to_owned()));
        };
        if let Some(what) = unfinished(&status) {
            return Ok(Some(what));
        }
    }
    for path in RPM_UNDERWAY {
        if copy.exists(path)? {
            return Ok(Some(format!("{path} exists")));
        }
    }
    let yum = copy.names("/var/lib/yum")?;
    if let Some(name) = yum.iter().find(|name| name.to_bytes().starts_with(b"transaction-all.")) {
        return Ok(Some(format!("/var/lib/yum/{} is an unfinished transaction", name.to_string_lossy())));
    }
    // What dpkg and rpm call a file while they put it in the place of another.
    for folder in ["/boot", "/usr/bin", "/usr/sbin"] {
        if let Some(name) =
            copy.names(folder)?.iter().map(|name| name.to_string_lossy()).find(|name| is_temporary(name))
        {
            return Ok(Some(format!("{folder}/{name} is a file half put in place")));
        }
    }
    Ok(None)
}

/// The first package of dpkg's status file that is between two states.
fn unfinished(status: &str) -> Option<String> {
    let mut package = "";
    for line in status.lines() {
        if let Some(name) = line.strip_prefix("Package: ") {
            package = name;
        } else if let Some(state) = line.strip_prefix("Status: ") {
            let mut words = state.split_whitespace().skip(1);
            let settled = words.next() == Some("ok")
                && matches!(words.next(), Some("installed" | "config-files" | "not-installed"));
            if !settled {
                return Some(format!("package {package} is \"{state}\""));
            }
        }
    }
    None
}

fn is_temporary(name: &str) -> bool {
    let rpm = name
        .rsplit_once(';')
        .is_some_and(|(_, tail)| tail.len() == 8 && tail.bytes().all(|byte| byte.is_ascii_hexdigit()));
    rpm || name.ends_with(".dpkg-new") || name.ends_with(".dpkg-tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_the_settled_ones_is_unfinished() {
        for state in ["installed", "config-files", "not-installed"] {
            assert_eq!(unfinished(&format!("Package: a\nStatus: install ok {state}\n")), None, "{state}");
        }
        for state in ["half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending", ""] {
            let status =
                format!("Package: a\nStatus: install ok installed\n\nPackage: b\nStatus: install ok {state}\n");
            assert!(unfinished(&status).is_some_and(|what| what.contains("package b")), "{state}");
        }
        assert!(unfinished("Package: a\nStatus: install reinstreq installed\n").is_some());
    }

    #[test]
    fn names_of_files_half_put_in_place() {
        for name in ["vmlinuz-6.1.dpkg-new", "bash;5f3a0b1c", "x.dpkg-tmp"] {
            assert!(is_temporary(name), "{name}");
        }
        for name in ["bash", "x;y", "vmlinuz.dpkg-dist"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
