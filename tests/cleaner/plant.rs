//! What a node and its tenants leave on a disk. Every planted word begins with `PLANT-`, so that all can be looked for at once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::guest::{Disk, Mount, run};

/// Words planted as files, by path. Those of one profile only are in [`plant`].
pub(crate) const FILES: &[(&str, &str)] = &[
    ("bash-history", "root/.bash_history"),
    ("home-history", "home/admin/.bash_history"),
    ("journal", "var/log/journal/0123456789abcdef0123456789abcdef/system.journal"),
    ("syslog", "var/log/syslog.1"),
    ("auth-log", "var/log/auth.log"),
    ("wtmp", "var/log/wtmp"),
    ("pod-log", "var/log/pods/tenant_web-0_6f1c/app/0.log"),
    ("container-log", "var/log/containers/web-0_tenant_app.log"),
    ("empty-dir", "var/lib/kubelet/pods/6f1c/volumes/kubernetes.io~empty-dir/cache/.hidden"),
    ("configmap", "var/lib/kubelet/pods/6f1c/volumes/kubernetes.io~configmap/settings/..data/key"),
    ("checkpoint", "var/lib/kubelet/checkpoints/web-0.json"),
    ("cri-container", "var/lib/containerd/io.containerd.grpc.v1.cri/containers/c0ffee/status"),
    ("cri-sandbox", "var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/5a4db0/resolv.conf"),
    ("cni-lease", "var/lib/cni/networks/pods/10.244.0.7"),
    ("cni-result", "var/lib/cni/results/pods-c0ffee-eth0"),
    ("user-data", "var/lib/cloud/instances/1111/user-data.txt"),
    ("user-data-i", "var/lib/cloud/instances/1111/user-data.txt.i"),
    ("vendor-data", "var/lib/cloud/instances/1111/vendor-data.txt"),
    ("cloud-config", "var/lib/cloud/instances/1111/cloud-config.txt"),
    ("user-script", "var/lib/cloud/instances/1111/scripts/part-001"),
    ("obj-pkl", "var/lib/cloud/instances/1111/obj.pkl"),
    ("cloud-log", "var/log/cloud-init-output.log"),
    ("waagent-history", "var/lib/waagent/history/2026-11-22.zip"),
    ("waagent-key", "var/lib/waagent/ABCDEF.prv"),
    ("waagent-pem", "var/lib/waagent/TransportPrivate.pem"),
    ("ovf-env", "var/lib/waagent/ovf-env.xml"),
    ("extension-settings", "var/lib/waagent/Microsoft.Azure.Extensions.CustomScript-2.1/config/0.settings"),
    ("extension-status", "var/lib/waagent/Microsoft.Azure.Extensions.CustomScript-2.1/status/0.status"),
    ("waagent-log", "var/log/waagent.log"),
    ("azure-log", "var/log/azure/cluster-provision.log"),
    ("ssh-host-key", "etc/ssh/ssh_host_ed25519_key"),
    ("kubelet-pki", "var/lib/kubelet/pki/kubelet-client-current.pem"),
    ("machine-id", "etc/machine-id"),
    ("hostname", "etc/hostname"),
    ("random-seed", "var/lib/systemd/random-seed"),
    ("credential-secret", "var/lib/systemd/credential.secret"),
    ("coredump", "var/lib/systemd/coredump/core.app.zst"),
    ("dhcp-lease", "var/lib/dhcp/dhclient.eth0.leases"),
    ("tmp-file", "tmp/.X11/upload"),
    ("var-tmp-file", "var/tmp/upload"),
];

/// What a new node needs and must find.
pub(crate) const KEPT: &[&str] = &[
    "etc/ssh/sshd_config",
    "etc/kubernetes/kept.conf",
    "usr/bin/containerd",
    "var/lib/waagent/provisioned",
    "var/lib/dpkg/status",
];
pub(crate) const KEPT_AKS_ENGINE: &[&str] = &[
    "etc/kubernetes/azure.json",
    "etc/kubernetes/certs/client.key",
    "var/lib/kubelet/kubeconfig",
    "opt/azure/containers/provision.complete",
];

/// Makes a used node of a base disk. Returns the words that were planted.
pub(crate) fn plant(disk: &Disk, profile: &str) -> Vec<String> {
    let mount = disk.mount("rw");
    let words = plant_mounted(&mount, profile);
    drop(mount);
    words
}

/// The same on a disk that stays mounted.
pub(crate) fn plant_mounted(mount: &Mount, profile: &str) -> Vec<String> {
    let root = mount.path();
    let mut words = Vec::new();
    let mut put = |name: &str, path: &str| {
        write(root, path, &lines(name));
        words.push(format!("PLANT-{name}"));
    };
    for (name, path) in FILES {
        put(name, path);
    }
    if profile == "kubeadm" {
        put("kubelet-conf", "etc/kubernetes/kubelet.conf");
        put("bootstrap-conf", "etc/kubernetes/bootstrap-kubelet.conf");
        put("cluster-ca", "etc/kubernetes/pki/ca.crt");
    } else if profile == "aks-engine" {
        put("serving-key", "etc/kubernetes/certs/kubeletserver.key");
        for path in KEPT_AKS_ENGINE {
            write(root, path, "kept\n");
        }
    }
    for path in ["etc/kubernetes/kept.conf", "var/lib/waagent/provisioned"] {
        write(root, path, "kept\n");
    }
    symlink("/var/lib/cloud/instances/1111", root.join("var/lib/cloud/instance")).expect("a link");
    write(root, "var/lib/cloud/data/instance-id", "1111\n");

    // Hidden from a plain removal: an immutable file, a name of odd characters, a sparse giant.
    put("immutable", "var/lib/kubelet/pods/6f1c/immutable");
    run(Command::new("chattr").arg("+i").arg(root.join("var/lib/kubelet/pods/6f1c/immutable")));
    put("odd-name", "var/lib/kubelet/pods/6f1c/-rf *[a] ?\n{b,c}");
    put("sparse", "var/lib/kubelet/pods/6f1c/sparse");
    let sparse = fs::OpenOptions::new().write(true).open(root.join("var/lib/kubelet/pods/6f1c/sparse")).expect("opens");
    sparse.set_len(64 << 30).expect("a file larger than the disk");

    words.extend(["container-env", "container-layer", "removed-env"].map(|name| format!("PLANT-{name}")));
    mount.in_guest(CONTAINERS);
    // Deleted before the snapshot; last of all, so that nothing else is written over it here.
    write(root, "root/deleted", &lines("deleted-file"));
    words.push("PLANT-deleted-file".to_owned());
    run(Command::new("sync").arg("-f").arg(root));
    fs::remove_file(root.join("root/deleted")).expect("removes");
    run(Command::new("sync").arg("-f").arg(root));
    words
}

/// An image of one static program, a container with a secret in its environment and one in its writable layer, and a container
/// that is gone, but for the free pages of the database.
const CONTAINERS: &str = r#"
mkdir -p /run/image/layer/bin
cp /bin/busybox /run/image/layer/bin/
tar -C /run/image/layer --mtime=@0 -cf /run/image/layer.tar bin
layer=$(sha256sum /run/image/layer.tar | cut -d' ' -f1)
cd /run/image
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}" > config.json
echo '[{"Config":"config.json","RepoTags":["docker.io/kamino/tiny:1"],"Layers":["layer.tar"]}]' > manifest.json
tar -cf image.tar manifest.json config.json layer.tar
cd /
ctr images import /run/image/image.tar > /dev/null
# What the import left over goes now, so that the content is the same before and after.
ctr leases create --id settled > /dev/null
ctr leases delete --sync settled > /dev/null
fill=$(head -c 3000 /dev/zero | tr '\0' x)
for n in 1 2 3 4 5 6 7 8; do
    ctr containers create --env SECRET=PLANT-removed-env --env "FILL=$fill" docker.io/kamino/tiny:1 "gone$n" /bin/busybox sleep 1
done
ctr containers create --env SECRET=PLANT-container-env docker.io/kamino/tiny:1 tenant /bin/busybox sleep 1
ctr containers rm gone1 gone2 gone3 gone4 gone5 gone6 gone7 gone8
mkdir /run/layer
eval "$(ctr snapshots mounts /run/layer tenant)"
echo PLANT-container-layer > /run/layer/written
umount /run/layer
"#;

pub(crate) fn lines(name: &str) -> String {
    format!("PLANT-{name}\n").repeat(400)
}

pub(crate) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("makes the folder");
    fs::write(path, text).expect("writes");
}
