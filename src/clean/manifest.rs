//! What is removed, as data: one table per column and profile.
//!
//! The donor column holds secrets and what tenants left; a donor may lose it and go on. The clone column holds identity, which only
//! a copy may lose. A copy cleaned offline gets both. The hash of the table goes into the report, so that a controller knows which
//! list an image was cleaned by.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::model::{Containerd, Credential, Line, Profile};

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Overwrite every file, sync, then remove: for contents that are secret.
    Erase,
    /// Remove; the freed blocks are trimmed later.
    Unlink,
    /// Leave an empty file of the same name: its absence would mean something else.
    Empty,
}

/// On which disks a line applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Also on a donor that goes on as itself.
    Donor,
    /// Only on a copy that becomes somebody new.
    Clone,
}

/// One line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// On which disks.
    pub column: Column,
    /// What is done.
    pub verb: Verb,
    /// An absolute path of the copy; `*` stands for any part of one name, a leading dot included.
    pub pattern: Cow<'static, str>,
}

/// The lines of one profile, in the order in which they are applied.
#[derive(Debug, Clone)]
pub struct Manifest {
    entries: Vec<Entry>,
}

impl Manifest {
    /// Both columns of a profile: what a copy loses that is cleaned before it boots.
    #[must_use]
    pub fn for_copy(profile: &Profile) -> Self {
        let guard = GUARD.iter().map(|&(verb, pattern)| Entry { column: Column::Clone, verb, pattern: pattern.into() });
        let halves = [Column::Donor, Column::Clone].into_iter().flat_map(|column| half(profile, column));
        Self { entries: halves.chain(guard).collect() }
    }

    /// What a donor may lose, which is to come back as itself: with a credential that it keeps, or a new one.
    #[must_use]
    pub fn for_donor(profile: &Profile, credential: Credential) -> Self {
        let mut entries = half(profile, Column::Donor);
        if credential == Credential::Rebootstrap {
            // In its place is what the new one is asked for with.
            entries.retain(|entry| entry.pattern != BOOTSTRAP_CONFIG);
            entries.extend(RENEWED.iter().map(|&(verb, path)| Entry {
                column: Column::Donor,
                verb,
                pattern: path.into(),
            }));
        }
        Self { entries }
    }

    /// What the guard takes from a copy at its first boot: the rest.
    #[must_use]
    pub fn for_clone(profile: &Profile) -> Self {
        Self { entries: half(profile, Column::Clone) }
    }

    /// The lines, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// `sha256:` and the hash of the lines as text.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for entry in &self.entries {
            hasher.update(format!("{:?} {:?} {}\n", entry.column, entry.verb, entry.pattern));
        }
        let hex: Vec<String> = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{}", hex.concat())
    }
}

type Known = (Verb, &'static str);
use Verb::{Empty, Erase, Unlink};

/// One column: what all nodes have, and what those of this profile have besides.
fn half(profile: &Profile, column: Column) -> Vec<Entry> {
    let of = |donor: &'static [Known], clone: &'static [Known]| match column {
        Column::Donor => donor,
        Column::Clone => clone,
    };
    let (own, custom) = match profile {
        Profile::Kubeadm => (of(KUBEADM_DONOR, KUBEADM_CLONE), None),
        Profile::AksEngine => (of(&[], AKS_ENGINE_CLONE), None),
        Profile::Custom(custom) => (of(&[], &[]), Some(custom)),
    };
    let known = of(DONOR, CLONE).iter().chain(own).map(|&(verb, pattern)| {
        let moved = custom.and_then(|it| rerooted(pattern, &it.containerd));
        Entry { column, verb, pattern: moved.map_or(Cow::Borrowed(pattern), Cow::Owned) }
    });
    let lines = custom.map_or(&[][..], |it| match column {
        Column::Donor => &it.donor,
        Column::Clone => &it.clone,
    });
    let theirs = lines.iter().map(|line| {
        let verb = match line {
            Line::Erase(_) => Erase,
            Line::Unlink(_) => Unlink,
            Line::Empty(_) => Empty,
        };
        Entry { column, verb, pattern: Cow::Owned(line.pattern().to_owned()) }
    });
    known.chain(theirs).collect()
}

/// A path of containerd's, where another containerd has it.
fn rerooted(pattern: &str, containerd: &Containerd) -> Option<String> {
    let below = pattern.strip_prefix(CONTAINERD_ROOT)?;
    Some(format!("{}{below}", containerd.root))
}

/// Where containerd keeps what it has unless told otherwise.
pub(super) const CONTAINERD_ROOT: &str = "/var/lib/containerd";

const DONOR: &[Known] = &[
    (Erase, "/var/lib/kubelet/pods/*"),
    (Erase, "/var/log/pods/*"),
    (Unlink, "/var/log/containers/*"),
    // Containers themselves are removed by containerd before this list; these are what its CRI plugin keeps beside them.
    (Erase, "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/*"),
    (Erase, "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*"),
    (Unlink, "/var/lib/containerd/io.containerd.runtime.v2.task/*/*"),
    (Unlink, "/var/lib/cni/networks/*"),
    (Unlink, "/var/lib/cni/results/*"),
    (Erase, "/var/lib/cloud/instances/*/user-data.txt*"),
    (Erase, "/var/lib/cloud/instances/*/vendor-data*.txt*"),
    (Erase, "/var/lib/cloud/instances/*/vendor-cloud-config.txt"),
    (Erase, "/var/lib/cloud/instances/*/cloud-config.txt"),
    (Erase, "/var/lib/cloud/instances/*/scripts/*"),
    (Erase, "/var/lib/cloud/instances/*/obj.pkl"),
    (Erase, "/var/log/journal/*"),
    (Erase, "/var/log/cloud-init*.log*"),
    (Erase, "/var/log/azure/*"),
    (Erase, "/var/log/waagent*.log*"),
    (Erase, "/var/log/syslog*"),
    (Erase, "/var/log/messages*"),
    (Erase, "/var/log/auth.log*"),
    (Erase, "/var/log/daemon.log*"),
    (Erase, "/var/log/kern.log*"),
    (Erase, "/var/log/user.log*"),
    (Erase, "/var/log/audit/*"),
    (Empty, "/var/log/wtmp"),
    (Empty, "/var/log/lastlog"),
    (Empty, "/var/log/btmp"),
    (Erase, "/var/lib/waagent/history/*"),
    (Erase, "/var/lib/waagent/events/*"),
    (Erase, "/root/.bash_history"),
    (Erase, "/home/*/.bash_history"),
    (Erase, "/var/lib/systemd/coredump/*"),
    (Erase, "/var/crash/*"),
    (Unlink, "/var/lib/systemd/random-seed"),
    (Unlink, "/tmp/*"),
    (Unlink, "/var/tmp/*"),
];

/// What a kubelet asks for its first credential with, where kubeadm has it.
pub(super) const BOOTSTRAP_CONFIG: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// The kubelet's credential, where kubeadm has it: how it is used, and the certificates with their keys.
pub(super) const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.conf";
pub(super) const KUBELET_KEYS: &str = "/var/lib/kubelet/pki";
/// What is appended to their names before they are erased: a power cut leaves none of them half erased under its own name.
pub(super) const ASIDE: &str = ".kamino-wf";

const KUBEADM_DONOR: &[Known] = &[
    (Erase, BOOTSTRAP_CONFIG),
    (Erase, "/etc/kubernetes/bootstrap-kubelet.conf.kamino-wf"),
    (Erase, "/etc/kubernetes/bootstrap-kubelet.conf.draft"),
    (Erase, "/etc/kubernetes/kubelet.conf.kamino-wf"),
    (Erase, "/var/lib/kubelet/pki.kamino-wf"),
];

/// With `credential: rebootstrap`. They were put aside before; these lines see to it that they are.
const RENEWED: &[Known] = &[(Erase, KUBELET_CONFIG), (Erase, KUBELET_KEYS)];

const CLONE: &[Known] = &[
    // Empty, not absent: systemd then makes a new one without taking the boot for the very first. The copy of D-Bus must go,
    // else systemd takes the old id back from there.
    (Empty, "/etc/machine-id"),
    (Unlink, "/var/lib/dbus/machine-id"),
    (Erase, "/var/lib/systemd/credential.secret"),
    (Empty, "/etc/hostname"),
    (Erase, "/etc/ssh/ssh_host_*"),
    (Unlink, "/var/lib/cloud/instance"),
    (Erase, "/var/lib/cloud/instances"),
    (Unlink, "/var/lib/cloud/data"),
    (Unlink, "/var/lib/cloud/sem"),
    // These name the network card of the donor by its MAC address.
    (Unlink, "/etc/netplan/50-cloud-init.yaml"),
    (Unlink, "/etc/udev/rules.d/70-persistent-net.rules"),
    (Unlink, "/var/lib/dhcp/*"),
    (Unlink, "/var/lib/systemd/network/*"),
    (Unlink, "/var/lib/NetworkManager/*lease"),
    // `provisioned` stays: the agent compares the machine with it, and only then clears what its extensions remember.
    (Erase, "/var/lib/waagent/*.prv"),
    (Unlink, "/var/lib/waagent/*.crt"),
    (Erase, "/var/lib/waagent/*.pem"),
    (Erase, "/var/lib/waagent/*.xml"),
    (Erase, "/var/lib/waagent/*.p7m"),
    (Unlink, "/var/lib/waagent/history"),
    (Unlink, "/var/lib/waagent/events"),
    (Unlink, "/var/lib/waagent/*/mrseq"),
    (Erase, "/var/lib/waagent/*/config/*.settings"),
    (Unlink, "/var/lib/waagent/*/config/HandlerStatus"),
    (Erase, "/var/lib/waagent/*/status/*.status"),
    (Unlink, "/var/lib/kubelet/pods"),
    (Unlink, "/var/lib/kubelet/checkpoints"),
    (Unlink, "/var/lib/kubelet/device-plugins"),
    (Unlink, "/var/lib/kubelet/plugins_registry"),
    (Unlink, "/var/lib/kubelet/pod-resources"),
    (Unlink, "/var/lib/kubelet/*_state"),
    (Erase, KUBELET_KEYS),
];

const KUBEADM_CLONE: &[Known] = &[
    // kubeadm's own checks refuse to join a machine that has these.
    (Unlink, "/var/lib/kubelet/config.yaml"),
    (Unlink, "/var/lib/kubelet/instance-config.yaml"),
    (Unlink, "/var/lib/kubelet/kubeadm-flags.env"),
    (Erase, KUBELET_CONFIG),
    // A donor that was given a new credential has this one still.
    (Erase, BOOTSTRAP_CONFIG),
    (Erase, "/etc/kubernetes/pki"),
];

const AKS_ENGINE_CLONE: &[Known] = &[
    // Made again for the new name before the kubelet starts. All else in /etc/kubernetes must stay: nothing brings it back.
    (Erase, "/etc/kubernetes/certs/kubeletserver.key"),
    (Unlink, "/etc/kubernetes/certs/kubeletserver.crt"),
];

/// A donor that was cleaned in place has a guard, which would do once more at the first boot what is done here. It looks for this.
const GUARD: &[Known] = &[(Unlink, "/var/lib/kamino-wf/donor.json")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_absolute_and_plain() {
        for profile in Profile::SHIPPED {
            for entry in Manifest::for_copy(&profile).entries() {
                let pattern = &entry.pattern;
                let rest = pattern.strip_prefix('/').expect("an absolute path");
                assert!(
                    rest.split('/').all(|name| !matches!(name, "" | "." | ".." | "*"))
                        || rest.ends_with('*')
                        || pattern.contains("/*/")
                );
                assert!(rest.split('/').count() >= 2, "{pattern} would take a top directory away");
                assert!(!rest.starts_with('*') && !pattern.contains(".."), "{pattern}");
            }
        }
    }

    #[test]
    fn what_a_node_cannot_get_again_is_in_no_line() {
        let kept = [
            "/etc/kubernetes/azure.json",
            "/etc/kubernetes/certs/client.key",
            "/var/lib/kubelet/kubeconfig",
            "/opt/azure/containers/provision.complete",
            "/var/lib/waagent/provisioned",
        ];
        for entry in Manifest::for_copy(&Profile::AksEngine).entries() {
            for path in kept {
                assert_ne!(entry.pattern, path);
                assert!(!path.starts_with(&format!("{}/", entry.pattern)), "{} takes {path}", entry.pattern);
            }
        }
    }

    #[test]
    fn a_donor_keeps_what_makes_it_that_node() {
        let identity =
            ["/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_", "/var/lib/kubelet/pki", "/var/lib/cloud/sem"];
        let identity =
            [identity.as_slice(), &["/etc/kubernetes/kubelet.conf", "/var/lib/cloud/data", "/var/lib/waagent/*/mrseq"]];
        for profile in Profile::SHIPPED {
            let (donor, clone, copy) = (
                Manifest::for_donor(&profile, Credential::Keep),
                Manifest::for_clone(&profile),
                Manifest::for_copy(&profile),
            );
            let under = |pattern: &str, kept: &str| {
                pattern.starts_with(kept) && !pattern.starts_with(&format!("{kept}{ASIDE}"))
            };
            for kept in identity.concat() {
                assert!(donor.entries().iter().all(|entry| !under(&entry.pattern, kept)), "{kept}");
            }
            assert!(clone.entries().iter().any(|entry| entry.pattern == "/etc/machine-id"));
            assert_eq!(donor.entries().len() + clone.entries().len() + GUARD.len(), copy.entries().len());
        }
    }

    #[test]
    fn a_donor_with_a_new_credential_loses_the_old_one_and_keeps_what_it_asks_with() {
        let lines = |manifest: Manifest| -> Vec<String> {
            manifest.entries().iter().map(|entry| entry.pattern.to_string()).collect()
        };
        let renewed = lines(Manifest::for_donor(&Profile::Kubeadm, Credential::Rebootstrap));
        let kept = lines(Manifest::for_donor(&Profile::Kubeadm, Credential::Keep));
        for lost in [KUBELET_CONFIG, KUBELET_KEYS] {
            assert!(renewed.iter().any(|it| it == lost) && !kept.iter().any(|it| it == lost), "{lost}");
            assert!(kept.contains(&format!("{lost}{ASIDE}")), "{lost}: what a power cut may have left");
        }
        assert!(!renewed.iter().any(|it| it == BOOTSTRAP_CONFIG) && kept.iter().any(|it| it == BOOTSTRAP_CONFIG));
        let clone = lines(Manifest::for_clone(&Profile::Kubeadm));
        assert!(clone.iter().any(|it| it == BOOTSTRAP_CONFIG), "a copy has no business with the donor's token");
    }

    #[test]
    fn profiles_have_hashes_of_their_own() {
        let hash = |profile: Profile| Manifest::for_copy(&profile).hash();
        assert_ne!(hash(Profile::AksEngine), hash(Profile::Kubeadm));
        assert_eq!(hash(Profile::Kubeadm), hash(Profile::Kubeadm));
        let donor = |credential| Manifest::for_donor(&Profile::Kubeadm, credential).hash();
        assert_ne!(donor(Credential::Keep), donor(Credential::Rebootstrap));
    }
}
