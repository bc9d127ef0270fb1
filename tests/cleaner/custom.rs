//! A profile that the operator wrote: k3s' example, on a disk whose containerd lies where k3s has it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use crate::guest::{Disk, Form, Lab};
use crate::plant::{KEPT, lines, plant, write};
use crate::{assert_cached, assert_clean, assert_refused_by, blobs, hashes, node};

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/profile-k3s.yaml");
const USUAL: &str = "var/lib/containerd";
const ROOT: &str = "var/lib/rancher/k3s/agent/containerd";
const PROGRAMS: &str = "var/lib/rancher/k3s/data/0123/bin";
/// What the agent leaves besides.
const PLANTED: [(&str, &str); 5] = [
    ("node-password", "etc/rancher/node/password"),
    ("agent-key", "var/lib/rancher/k3s/agent/client-kubelet.key"),
    ("agent-kubeconfig", "var/lib/rancher/k3s/agent/kubelet.kubeconfig"),
    ("containerd-log", "var/lib/rancher/k3s/agent/containerd/containerd.log"),
    ("agent-log", "var/log/k3s-agent.log.1"),
];

/// Moves containerd, its data and its programs, to where k3s has them; or back, where the other tests look.
fn moved(disk: &Disk, back: bool) {
    let mount = disk.mount("rw");
    let root = mount.path();
    let programs = ["containerd", "ctr", "containerd-shim-runc-v2"];
    let pairs = programs.map(|name| (format!("usr/bin/{name}"), format!("{PROGRAMS}/{name}")));
    for (here, there) in pairs.into_iter().chain([(USUAL.to_owned(), ROOT.to_owned())]) {
        let (from, to) = if back { (there, here) } else { (here, there) };
        fs::create_dir_all(root.join(&to).parent().expect("a folder")).expect("a folder");
        fs::rename(root.join(from), root.join(to)).expect("moves");
    }
    if !back {
        symlink("0123", root.join("var/lib/rancher/k3s/data/current")).expect("a link");
        for (name, path) in PLANTED {
            write(root, path, &lines(name));
        }
        write(root, "etc/rancher/k3s/config.yaml", "kept\n");
    }
}

#[test]
fn a_disk_of_another_kind_holds_nothing_planted_afterwards() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.base(Form::Gpt, "disk.img");
    let words = plant(&disk, "k3s");
    let content = blobs(&disk);
    moved(&disk, false);
    let kept: Vec<&str> = KEPT.iter().filter(|path| !path.contains("containerd")).copied().collect();
    let kept =
        [kept.as_slice(), &["etc/rancher/k3s/config.yaml", "var/lib/rancher/k3s/data/0123/bin/containerd"]].concat();
    let (before, kept_before) = (disk.planted(), hashes(&disk, &kept));
    let planted = PLANTED.iter().map(|(name, _)| format!("PLANT-{name}"));
    // What was deleted before all this was written may be overwritten by it.
    for word in words.into_iter().chain(planted).filter(|word| word != "PLANT-deleted-file") {
        assert!(before.contains_key(&word), "control: {word} can be read before; found {before:?}");
    }

    // As a kubeadm node it is none; and it may not be cleaned as one by halves.
    assert_refused_by(&disk, "kubeadm", "/var/lib/containerd");
    let cleaned = disk.clean(PROFILE);
    assert_clean(&cleaned, &disk);
    let report = &cleaned.report;
    assert_eq!(
        (&report["profile"], &report["containers"], &report["images"]),
        (&"k3s".into(), &1.into(), &1.into()),
        "{report}"
    );
    assert!(report["pages_zeroed"].as_u64() > Some(0), "{report}");
    assert_eq!(disk.planted(), BTreeMap::new(), "readable in the raw disk after cleaning");
    assert_eq!(hashes(&disk, &kept), kept_before);
    let again = disk.clean(PROFILE);
    assert_clean(&again, &disk);
    assert_eq!(again.report["files"], 0, "a second time there is nothing to do: {}", again.report);

    moved(&disk, true);
    assert_eq!(blobs(&disk), content, "the cached images' content");
    assert_cached(&disk);
}

#[test]
fn a_disk_that_lacks_what_the_profile_keeps_is_of_another_kind() {
    let Some(lab) = Lab::new() else { return };
    let disk = node(&lab, "disk.img", "etc/hostname", "other\n");
    assert_refused_by(&disk, PROFILE, "/var/lib/rancher/k3s/agent/containerd");
    let profile = lab.path().join("mine.yaml");
    let text = "version: 1\nname: mine\nbootstrap: model\nkeep: [/etc/mine]\n";
    fs::write(&profile, text).expect("a file");
    assert_refused_by(&disk, profile.to_str().expect("text"), "/etc/mine, which profile mine keeps");
    // Data of two runtimes: the lines would look at one.
    moved(&disk, false);
    write(disk.mount("rw").path(), "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db", "another\n");
    assert_refused_by(&disk, PROFILE, "containers' data at /var/lib/containerd besides");
}
