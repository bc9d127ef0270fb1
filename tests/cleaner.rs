//! What an operator notices of `kamino-wf clean`: nothing is left in the raw disk, nothing else is harmed, a kill does not matter,
//! and what is no node's disk is left alone.
//!
//! Needs root and loop devices; the first time `scripts/guest-image` makes the base disk.

#![expect(clippy::expect_used, clippy::panic, reason = "a test may, and so may what it is made of")]

#[path = "cleaner/custom.rs"]
mod custom;
#[path = "cleaner/devices.rs"]
mod devices;
#[path = "cleaner/guest.rs"]
mod guest;
#[path = "cleaner/plant.rs"]
mod plant;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use devices::{Attached, Memory};
use guest::{Cleaned, Disk, Form, Lab, command, run, text};
use plant::{KEPT, KEPT_AKS_ENGINE, plant, plant_mounted, write};

#[test]
fn a_kubeadm_disk_caught_while_running_holds_nothing_planted_afterwards() {
    let Some(lab) = Lab::new() else { return };
    let live = lab.base(Form::Gpt, "live.img");
    let mount = live.mount("rw");
    let words = plant_mounted(&mount, "kubeadm");
    write(mount.path(), "var/log/pods/tenant_web-0_6f1c/app/1.log", "written last, in the journal\n");
    run(Command::new("sync").arg("-f").arg(mount.path()));
    // As a snapshot is: of a mounted disk, its journal not replayed.
    let disk = live.copy_as("snapshot.img");
    drop(mount);
    holds_nothing_afterwards(&disk, "kubeadm", &words, KEPT);
}

#[test]
fn an_aks_engine_disk_holds_nothing_planted_afterwards_but_the_pools_credentials() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.base(Form::Bare, "disk.img");
    let words = plant(&disk, "aks-engine");
    let kept: Vec<&str> = KEPT.iter().chain(KEPT_AKS_ENGINE).copied().collect();
    holds_nothing_afterwards(&disk, "aks-engine", &words, &kept);
}

fn holds_nothing_afterwards(disk: &Disk, profile: &str, words: &[String], kept: &[&str]) {
    let before = disk.planted();
    for word in words {
        assert!(before.contains_key(word), "control: {word} can be read before; found {before:?}");
    }
    assert!(words.len() >= 25);
    let kept_before = hashes(disk, kept);
    let blobs_before = blobs(disk);
    assert!(!blobs_before.is_empty());

    let cleaned = disk.clean(profile);
    assert_clean(&cleaned, disk);
    assert_eq!(cleaned.report["containers"], 1, "{}", cleaned.report);
    assert_eq!(cleaned.report["images"], 1, "{}", cleaned.report);
    assert_eq!(cleaned.report["discard"], "honoured", "{}", cleaned.report);
    assert!(cleaned.report["pages_zeroed"].as_u64() > Some(0), "{}", cleaned.report);

    assert_eq!(disk.planted(), BTreeMap::new(), "readable in the raw disk after cleaning");
    assert_eq!(hashes(disk, kept), kept_before);
    assert_eq!(blobs(disk), blobs_before, "the cached images' content");
    let again = disk.clean(profile);
    assert_clean(&again, disk);
    assert_eq!(again.report["files"], 0, "a second time there is nothing to do: {}", again.report);
    assert_cached(disk);
    eprintln!("cleaned {profile}: {}", cleaned.report);
}

/// The copy's own containerd still has its image, and can make a container of it; asked on a copy, since asking writes.
fn assert_cached(disk: &Disk) {
    let asked = disk.copy_as("asked.img");
    let mount = asked.mount("rw");
    assert_eq!(mount.path().join("etc/machine-id").metadata().map(|file| file.len()).ok(), Some(0));
    let answer = mount.in_guest(
        "ctr images ls -q; ctr images check -q; ctr containers ls -q; \
         ctr containers create docker.io/kamino/tiny:1 next /bin/busybox true; ctr containers ls -q",
    );
    assert_eq!(answer.lines().collect::<Vec<_>>(), ["docker.io/kamino/tiny:1", "docker.io/kamino/tiny:1", "next"]);
}

/// Seeded, so that a failing moment can be tried again.
#[test]
fn killed_at_any_moment_and_run_again_it_gives_the_same_disk() {
    const MOMENTS: u64 = 30;
    let Some(lab) = Lab::new() else { return };
    let planted = lab.base(Form::Gpt, "planted.img");
    // What the cleaner never reads only makes the copies slow.
    {
        let mount = planted.mount("rw");
        for folder in ["usr/share", "usr/lib/python3"] {
            fs::remove_dir_all(mount.path().join(folder)).expect("removes");
        }
        plant_mounted(&mount, "kubeadm");
        for n in 0..300 {
            write(mount.path(), &format!("var/lib/kubelet/pods/many/volumes/{}/{n}", n % 7), "PLANT-many\n");
        }
    }
    let undisturbed = planted.copy_as("undisturbed.img");
    let cleaned = undisturbed.clean("kubeadm");
    assert_clean(&cleaned, &undisturbed);
    let wanted = undisturbed.listing();
    let took = cleaned.report["took_ms"].as_u64().expect("its duration");
    // Control: two disturbed by nothing are the same. The quicker of both is the measure of moments: the first may be slow.
    let second = planted.copy_as("undisturbed.img");
    let cleaned = second.clean("kubeadm");
    assert_clean(&cleaned, &second);
    assert_eq!(differences(&wanted, &second.listing()), Vec::<String>::new());
    let took = took.min(cleaned.report["took_ms"].as_u64().expect("its duration"));

    let mut chance = fastrand::Rng::with_seed(20_261_124);
    let mut killed = 0;
    for moment in 0..MOMENTS {
        let disk = planted.copy_as("killed.img");
        let kills = chance.u32(1..=2);
        for _ in 0..kills {
            let after = Duration::from_micros(chance.u64(0..=took * 1000));
            killed += u32::from(kill_after(&disk, after));
        }
        let cleaned = disk.clean("kubeadm");
        assert_clean(&cleaned, &disk);
        let differing = differences(&wanted, &disk.listing());
        assert!(differing.is_empty(), "moment {moment}: {differing:#?}");
        // Reading all of the raw disk takes longer than all the rest.
        if moment % 6 == 0 {
            assert_eq!(disk.planted(), BTreeMap::new(), "moment {moment}");
        }
    }
    assert!(
        u64::from(killed) >= MOMENTS / 3,
        "only {killed} kills came before the end; an undisturbed run took {took} ms"
    );
    assert_cached(&Disk { image: lab.path().join("killed.img"), form: Form::Gpt });
    eprintln!("killed {killed} times within {took} ms");
}

/// Whether the kill came before the end.
#[expect(clippy::disallowed_methods, reason = "a kill must come at a moment of real time")]
fn kill_after(disk: &Disk, after: Duration) -> bool {
    let report = tempfile::NamedTempFile::new().expect("a file for the report");
    let mut child = command(&disk.image, "kubeadm", report.path()).process_group(0).spawn().expect("starts");
    std::thread::sleep(after);
    let in_time = child.try_wait().expect("its state").is_none();
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().expect("ends");
    in_time
}

#[test]
fn links_and_odd_names_lead_to_nothing_outside_the_copy() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.base(Form::Bare, "disk.img");
    plant(&disk, "kubeadm");
    let outside = lab.path().join("outside");
    let sentinels = ["0.log", "ssh_host_rsa_key", "machine-id", "0.settings", ".hidden", "system.journal", "app/0.log"];
    for name in sentinels {
        write(&outside, name, "sentinel\n");
    }
    let upwards = format!("../../../../../../../../../..{}", outside.display());
    {
        let mount = disk.mount("rw");
        let root = mount.path();
        for (target, link) in [
            (outside.to_str().expect("a plain path"), "var/log/pods"),
            (&upwards, "etc/ssh"),
            (&upwards, "var/log/journal"),
            ("/proc/self/root/", "var/crash"),
            (outside.to_str().expect("a plain path"), "var/lib/cni/networks"),
            (&format!("{}/machine-id", outside.display()), "etc/machine-id"),
            (&upwards, "var/lib/kubelet/pods/link"),
            (&upwards, "var/lib/waagent/evil-1.0"),
            (&upwards, "var/lib/cloud/instances/evil"),
            ("/etc/kubernetes", "var/lib/kubelet/pods/system"),
            ("../../../../../../..", "tmp/*"),
            (&upwards, "tmp/[a-z]*"),
        ] {
            let link = root.join(link);
            match fs::symlink_metadata(&link) {
                Ok(there) if there.is_dir() => fs::remove_dir_all(&link).expect("removes"),
                Ok(_) => fs::remove_file(&link).expect("removes"),
                Err(_) => fs::create_dir_all(link.parent().expect("a folder")).expect("a folder"),
            }
            symlink(target, link).expect("a link");
        }
        for name in ["*", "-rf", "a\nb", "$(reboot)", "{etc,usr}", ".. ", "\u{fffd}"] {
            write(root, &format!("var/tmp/odd/{name}/x"), "odd\n");
        }
    }
    let before = listing_of(&outside);
    let cleaned = disk.clean("kubeadm");
    assert_clean(&cleaned, &disk);
    assert_eq!(listing_of(&outside), before);
    let mount = disk.mount("ro");
    assert_eq!(fs::read_to_string(mount.path().join("etc/kubernetes/kept.conf")).expect("kept"), "kept\n");
    for emptied in ["var/lib/kubelet/pods", "tmp", "var/tmp"] {
        let left = mount.path().join(emptied).read_dir().map_or(0, Iterator::count);
        assert_eq!(left, 0, "{emptied}");
    }
    let machine_id = fs::symlink_metadata(mount.path().join("etc/machine-id")).expect("there");
    assert!(machine_id.is_file() && machine_id.len() == 0, "an empty file took the place of the link");
}

#[test]
fn a_link_to_what_a_node_must_keep_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.base(Form::Bare, "disk.img");
    plant(&disk, "kubeadm");
    symlink("/etc", disk.mount("rw").path().join("var/crash")).expect("a link");
    let cleaned = disk.clean("kubeadm");
    assert_eq!(cleaned.code, Some(3), "{cleaned:?}");
    assert!(disk.planted().len() > 25, "nothing was cleaned");
}

#[test]
fn what_is_no_nodes_disk_is_refused_and_not_written_to() {
    let Some(lab) = Lab::new() else { return };
    let not_a_node = lab.base(Form::Gpt, "not-a-node.img");
    assert_refused(&not_a_node, "kubelet");

    let separate = node(&lab, "separate.img", "etc/fstab", "/dev/sdb1 /var/log ext4 defaults 0 2\n");
    assert_refused(&separate, "/var/log");

    let elsewhere = node(&lab, "elsewhere.img", "etc/containerd/config.toml", "root = \"/mnt/containerd\"\n");
    assert_refused(&elsewhere, "/mnt/containerd");

    let noise = Disk { image: lab.path().join("noise.img"), form: Form::Bare };
    fs::write(&noise.image, "no disk at all\n".repeat(10_000)).expect("writes");
    assert_refused(&noise, "no partition table");

    for (device, why) in
        [("/dev/null", "neither a block device"), ("/nonexistent", "No such file"), ("/", "a directory")]
    {
        let cleaned = guest::clean(Path::new(device), "kubeadm");
        assert_eq!(cleaned.code, Some(3), "{cleaned:?}");
        assert!(cleaned.report["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{cleaned:?}");
    }
    let wrong = run_wrong(&["clean", "--device", "/dev/null", "--profile", "openshift", "--run", "r", "--nonce", "n"]);
    assert_eq!(wrong, Some(2), "a profile that there is not");
}

#[test]
fn an_upgrade_caught_half_way_is_refused_and_not_written_to() {
    let Some(lab) = Lab::new() else { return };
    let updates = node(&lab, "updates.img", "var/lib/dpkg/updates/0001", "");
    assert_refused(&updates, "/var/lib/dpkg/updates/0001");

    let halfway = lab.base(Form::Gpt, "halfway.img");
    {
        let mount = halfway.mount("rw");
        make_node(mount.path());
        let path = mount.path().join("var/lib/dpkg/status");
        let status = fs::read_to_string(&path).expect("dpkg's status");
        let changed = status.replacen("Status: install ok installed", "Status: install ok half-installed", 1);
        assert_ne!(status, changed);
        fs::write(path, changed).expect("writes");
    }
    assert_refused(&halfway, "half-installed");
}

#[test]
fn a_disk_in_use_is_refused_and_not_written_to() {
    let Some(lab) = Lab::new() else { return };
    let disk = node(&lab, "disk.img", "etc/some", "");
    let mount = disk.mount("ro,noload");
    assert_refused_with(&disk, &disk.image, "kubeadm", "attached to /dev/loop");
    drop(mount);
    let device = Attached::new(&disk.image);
    let at = lab.path().join("at");
    fs::create_dir(&at).expect("a folder");
    run(Command::new("mount").args(["-o", "ro,noload"]).args([&device.node, &at]));
    assert_refused_with(&disk, &device.node, "kubeadm", "mounted");
    run(Command::new("umount").arg(&at));
}

/// Block devices, as in a pod, over a file system that cannot free a part of a file.
#[test]
fn a_disk_that_takes_no_discard_is_filled_with_zeros() {
    let Some(lab) = Lab::new() else { return };
    let memory = Memory::new(lab.path().join("memory"));
    let disk = lab.base(Form::Bare, "memory/disk.img");
    let cleaned = cleaned_as_device(&disk, false);
    assert_eq!(cleaned.report["trimmed_bytes"], 0, "{}", cleaned.report);
    drop(memory);
}

/// The cleaner's own loop device for the partition accepts every discard, and the disk under it does nothing about it.
#[test]
fn a_disk_that_only_says_that_it_discards_is_filled_with_zeros() {
    let Some(lab) = Lab::new() else { return };
    let disk = lab.base(Form::Gpt, "disk.img");
    let cleaned = cleaned_as_device(&disk, true);
    assert!(cleaned.report["trimmed_bytes"].as_u64() > Some(0), "it says so: {}", cleaned.report);
}

fn cleaned_as_device(disk: &Disk, lies: bool) -> Cleaned {
    plant(disk, "kubeadm");
    assert!(disk.planted().len() > 25, "control");
    let device = if lies { Attached::lying(&disk.image) } else { Attached::new(&disk.image) };
    let cleaned = guest::clean(&device.node, "kubeadm");
    drop(device);
    assert_clean(&cleaned, disk);
    assert_eq!(disk.planted(), BTreeMap::new());
    assert_eq!(cleaned.report["discard"], "zero-filled", "{}", cleaned.report);
    cleaned
}

fn node(lab: &Lab, name: &str, path: &str, content: &str) -> Disk {
    let disk = lab.base(Form::Bare, name);
    let mount = disk.mount("rw");
    make_node(mount.path());
    write(mount.path(), path, content);
    drop(mount);
    disk
}

fn make_node(root: &Path) {
    for folder in ["var/lib/kubelet", "var/lib/containerd"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
}

fn assert_clean(cleaned: &Cleaned, disk: &Disk) {
    assert_eq!((cleaned.code, &cleaned.report["verdict"]), (Some(0), &"clean".into()), "{cleaned:?}");
    assert_eq!((&cleaned.report["version"], &cleaned.report["nonce"]), (&1.into(), &"n-1".into()));
    assert_eq!(disk.loops(), "", "no loop device is left");
}

fn assert_refused(disk: &Disk, why: &str) {
    assert_refused_by(disk, "kubeadm", why);
}

fn assert_refused_by(disk: &Disk, profile: &str, why: &str) {
    assert_refused_with(disk, &disk.image, profile, why);
    assert_eq!(disk.loops(), "", "no loop device is left");
}

fn assert_refused_with(disk: &Disk, device: &Path, profile: &str, why: &str) {
    let before = disk.hash();
    let cleaned = guest::clean(device, profile);
    assert_eq!((cleaned.code, &cleaned.report["verdict"]), (Some(3), &"refused".into()), "{cleaned:?}");
    assert!(cleaned.report["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{why}: {cleaned:?}");
    assert!(cleaned.stderr.contains(why), "{cleaned:?}");
    assert_eq!(disk.hash(), before, "not one byte was written");
}

fn run_wrong(args: &[&str]) -> Option<i32> {
    Command::new(env!("CARGO_BIN_EXE_kamino-wf")).args(args).output().expect("the command runs").status.code()
}

fn hashes(disk: &Disk, paths: &[&str]) -> String {
    text(&run(Command::new("sha256sum").args(paths).current_dir(disk.mount("ro,noload").path())))
}

fn blobs(disk: &Disk) -> String {
    let mut command = Command::new("find");
    command.args(["var/lib/containerd/io.containerd.content.v1.content/blobs", "-type", "f", "-size", "+0"]);
    let mount = disk.mount("ro,noload");
    let mut names: Vec<String> = text(&run(command.current_dir(mount.path()))).lines().map(ToOwned::to_owned).collect();
    names.sort();
    names.join("\n")
}

fn listing_of(folder: &Path) -> String {
    text(&run(Command::new("find").arg(folder).args(["-printf", "%p %m %s %T@ %C@ %n\n"])))
}

fn differences(wanted: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let paths = wanted.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    paths
        .into_iter()
        .filter(|path| wanted.get(*path) != found.get(*path))
        .map(|path| format!("{}: {:?}, undisturbed {:?}", path.display(), found.get(path), wanted.get(path)))
        .take(20)
        .collect()
}
