//! The store's volume fills up while a run is under way: the run comes to its end with the room that was set aside for that,
//! and no other begins before there is room again.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    START,
    support::{
        cluster::shared,
        world::{Plan, Site},
    },
};

/// A small tmpfs where the store will be; gone when dropped.
struct Volume(PathBuf);

impl Volume {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).expect("a directory");
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::NOSUID, c"size=64m")
            .expect("only root can");
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("somebody-elses-log")
    }

    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("it is made");
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_on_a_full_disk_and_no_other_begins_there() {
    let Some(cluster) = shared() else { return };
    let site = Site::new(cluster, Plan { scale: 0.004, ..Plan::default() }).await;
    let volume = Volume::mount(&site.store);
    let process = site.binary.start(START);
    process.until("SnapshotDisk: asked").await;
    assert!(site.store.join("ballast").exists(), "room was set aside");
    volume.fill();
    let ended = process.ended().await;
    ended.assert(0, &["done: new nodes are made from the new image"]);
    assert!(!site.store.join("ballast").exists(), "the room was needed");

    site.binary.run(&["list"]).await.assert(0, &["pool1", "done"]);
    let run = ended.stdout.lines().next().expect("its id").to_owned();
    site.binary.run(&["describe", &run]).await.assert(0, &["PruneVersions", "done"]);
    site.binary.run(START).await.assert(1, &["nearly full", "free space on it or enlarge it", "KW0118"]);
    assert_eq!(site.binary.run(&["list", "-o", "name"]).await.stdout.lines().count(), 1, "none was begun");
    fs::remove_file(volume.filler()).expect("it was ours");
    site.binary.run(&START[..3]).await.assert(0, &["is recorded"]);
    assert!(site.store.join("ballast").exists(), "and room is set aside again");
}
