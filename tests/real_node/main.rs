//! Pods on a real kubelet, containerd and runc: the product's image, its cleaning pods and whole updates.
//!
//! All tests share one cluster. Needs root, loop devices, Debian's containerd, runc and CNI plugins, and the binaries of
//! `scripts/cluster-binaries`; says `SKIPPED:` where they are missing, and fails there in CI.
#![cfg(feature = "sim")]
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on ends the test")]

#[path = "../cleaner/guest.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod guest;
#[path = "../cleaner/plant.rs"]
#[expect(dead_code, reason = "the cleaner's own tests use the rest")]
mod plant;
#[path = "../support/mod.rs"]
mod support;

mod cleaning;
mod daemon;
mod install_page;
mod lifecycle;
mod page;
mod plugin;
mod pods;
mod release;
mod update;

use std::{path::Path, sync::OnceLock};

use support::{
    binary::PRODUCT,
    node::{
        image::Image,
        real_cluster::{self, RealCluster},
    },
    world::CLEANER_IMAGE,
};

/// The shared cluster, with the product's image on its node.
fn with_product() -> Option<&'static RealCluster> {
    static IMPORTED: OnceLock<()> = OnceLock::new();
    let cluster = real_cluster::shared()?;
    IMPORTED.get_or_init(|| {
        let image = Image::new().program("/kamino-wf", Path::new(PRODUCT)).entrypoint(&["/kamino-wf"]);
        cluster.import_image(CLEANER_IMAGE, &image);
    });
    Some(cluster)
}
