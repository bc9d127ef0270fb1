//! systemd's services on the donor, and the containers that its runtime runs.

use std::fs;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use super::machine::RUNTIME;
use crate::clean::error::CleanError;
use crate::clean::patience::Patience;
use crate::clean::programs::{bounded, complaint, plain};
use crate::clean::runtime::Client;
use crate::model::{Containerd, Profile};

/// For a question to systemd.
pub(super) const ANSWERS: Duration = Duration::from_secs(20);
/// A service that does not end is killed by systemd after 90 s.
const STOPS: Duration = Duration::from_mins(2);
/// For all containers together. Killed processes end at once, unless a disk holds them up.
const CONTAINERS_END: Duration = Duration::from_mins(2);
/// Nothing of these may write while and after the disk is cleaned; all that are there are running again at the next boot.
const WRITERS: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dnf-automatic.timer",
    "walinuxagent.service",
    "waagent.service",
    "syslog.socket",
    "rsyslog.service",
];
/// These start the kubelet again when it does not answer.
const AKS_ENGINE_WATCHERS: [&str; 4] =
    ["kubelet-monitor.timer", "kubelet-monitor.service", "containerd-monitor.timer", "containerd-monitor.service"];
/// What the kubelet mounted.
const KUBELET: &str = "/var/lib/kubelet/";

/// A property of a unit, as systemd writes it.
pub(super) fn property(unit: &str, name: &str, patience: &Patience) -> Result<String, CleanError> {
    let mut command = plain("systemctl");
    command.args(["show", "--property", name, "--value", unit]);
    let asked = format!("ask systemd for {name} of {unit}");
    let output = bounded(&mut command, patience).map_err(CleanError::unprepared(asked))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Stops the kubelet and whoever would start it again, then the containers, the runtime, and those that write to the disk.
pub(super) fn stop_all(profile: &Profile) -> Result<(), CleanError> {
    if *profile == Profile::AksEngine {
        AKS_ENGINE_WATCHERS.into_iter().try_for_each(stop)?;
    }
    stop("kubelet.service")?;
    end_containers()?;
    stop("containerd.service")?;
    for unit in WRITERS {
        stop(unit)?;
    }
    // Its stop saves a seed, to be removed with the rest; stopped, it saves none when the machine is switched off.
    stop("systemd-random-seed.service")?;
    keep_journal_in_memory()
}

/// Whether somebody has started the kubelet or the runtime again: then the disk is not clean any more.
pub(super) fn still_down() -> Result<(), CleanError> {
    for unit in ["kubelet.service", "containerd.service"] {
        let state = property(unit, "ActiveState", &Patience::for_at_most(ANSWERS))?;
        if !matches!(state.as_str(), "inactive" | "failed") {
            return Err(failure(format!("keep {unit} down: it is {state}, somebody has started it again")));
        }
    }
    Ok(())
}

/// Stops a unit. One that this machine does not have is as good as stopped.
fn stop(unit: &str) -> Result<(), CleanError> {
    let output = bounded(plain("systemctl").args(["stop", unit]), &Patience::for_at_most(STOPS));
    let output = output.map_err(CleanError::part_way(format!("stop {unit}")))?;
    if output.status.success() || property(unit, "LoadState", &Patience::for_at_most(ANSWERS))? == "not-found" {
        return Ok(());
    }
    let text = complaint(&String::from_utf8_lossy(&output.stderr));
    Err(failure(format!("stop {unit}: systemctl ended with {}: {text}", output.status)))
}

/// Kills what runs in containers, by the runtime that runs them: it takes their mounts away as well. The pod that started all this
/// is one of them.
fn end_containers() -> Result<(), CleanError> {
    let client = Client::of(RUNTIME, &Containerd::default())?;
    let patience = Patience::for_at_most(CONTAINERS_END);
    loop {
        let mut left = Vec::new();
        for space in client.spaces()? {
            for task in client.list(&space, &["tasks", "ls", "-q"])? {
                // Either may find it gone, or not yet gone: the next look tells.
                let _ = client.run(&space, &["tasks", "kill", "--all", "--signal", "SIGKILL", &task]);
                let _ = client.run(&space, &["tasks", "delete", "--force", &task]);
                left.push(task);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if !patience.wait() {
            let text = format!(
                "end the containers: still there after {} s: {}",
                patience.at_most().as_secs(),
                left.join(", ")
            );
            return Err(failure(text));
        }
    }
}

/// The deleted journal would be written again.
fn keep_journal_in_memory() -> Result<(), CleanError> {
    let told = || CleanError::part_way("tell journald to keep its journal in memory until the next boot");
    fs::create_dir_all("/run/systemd/journald.conf.d").map_err(told())?;
    fs::write("/run/systemd/journald.conf.d/kamino-wf.conf", "[Journal]\nStorage=volatile\n").map_err(told())?;
    let output =
        bounded(plain("systemctl").args(["restart", "systemd-journald.service"]), &Patience::for_at_most(STOPS));
    let output = output.map_err(told())?;
    if output.status.success() {
        return Ok(());
    }
    let text = complaint(&String::from_utf8_lossy(&output.stderr));
    Err(failure(format!("restart systemd-journald: systemctl ended with {}: {text}", output.status)))
}

/// Takes the volumes of pods away, so that what is on them is written back. One that is busy goes when its last user does; its files
/// are out of reach for the cleaning either way.
pub(super) fn unmount_volumes() -> Result<(), CleanError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(CleanError::part_way("read the mounts"))?;
    for place in below_kubelet(&table).iter().rev() {
        if unmount(place.as_str(), UnmountFlags::empty()).is_err() {
            unmount(place.as_str(), UnmountFlags::DETACH)
                .map_err(|errno| CleanError::part_way(format!("unmount {place}"))(errno.into()))?;
        }
    }
    Ok(())
}

/// Mount points of the kubelet's, in the order in which they were mounted.
fn below_kubelet(mountinfo: &str) -> Vec<String> {
    let places = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    places.filter(|place| place.starts_with(KUBELET)).collect()
}

/// The kernel writes a space, a tab, a newline and a backslash of a path as `\` and three octal digits.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

fn failure(what: String) -> CleanError {
    CleanError::Machine { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_found_in_the_order_of_their_mounts() {
        let table = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     40 24 0:40 / /var/lib/kubelet/pods/a/volumes/kubernetes.io~secret/s rw - tmpfs tmpfs rw\n\
                     41 24 8:33 / /var/lib/kubelet/pods/a\\040b rw - ext4 /dev/sdc1 rw\n\
                     42 24 8:33 / /var/lib/kubeletx rw - ext4 /dev/sdc1 rw\n";
        let found = ["/var/lib/kubelet/pods/a/volumes/kubernetes.io~secret/s", "/var/lib/kubelet/pods/a b"];
        assert_eq!(below_kubelet(table), found);
    }
}
