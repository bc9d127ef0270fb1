//! Disks of the node, for the stand-in of Azure's driver: which file is which disk, and a cloud that attaches them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use super::{super::kubelet::CloudDisks, real_cluster::RealCluster};

/// Between two looks at what the driver wants.
const TURN: Duration = Duration::from_millis(25);

/// A cloud that serves the node's driver until this is dropped. Several may: each knows its own disks.
pub struct Attaching {
    attached: Arc<Mutex<Vec<String>>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RealCluster {
    /// `image` is the disk with this id, or with another that ends in the same name.
    pub fn place_disk(&self, id: &str, image: &Path) {
        place(&self.folder.join("disks"), id, image);
    }

    /// Disks that `place_disk` did not name are the cloud's: it is asked when a pod needs one, and told when nothing on the
    /// node uses it any more.
    pub fn attach_by(&self, mut cloud: CloudDisks) -> Attaching {
        let folder = self.folder.join("disks");
        let attached: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn({
            let attached = Arc::clone(&attached);
            move || {
                let mut ours = BTreeSet::new();
                while stopped.recv_timeout(TURN) == Err(mpsc::RecvTimeoutError::Timeout) {
                    for (note, id) in notes(&folder, "wanted") {
                        // Another's, or it can't be attached yet: the driver gives up after a while, and the kubelet asks again.
                        let Ok(image) = (cloud.attach)(&id) else { continue };
                        let _ = fs::remove_file(note);
                        place(&folder, &id, &image);
                        attached.lock().expect("a lock").push(id.clone());
                        ours.insert(id);
                    }
                    for (note, id) in notes(&folder, "released") {
                        if ours.remove(&id) {
                            let _ = fs::remove_file(&note);
                            fs::remove_file(note.with_extension("")).expect("the disk was there");
                            (cloud.detached)(&id);
                        }
                    }
                }
            }
        });
        Attaching { attached, stop: Some(stop), thread: Some(thread) }
    }
}

impl Attaching {
    /// The ids of all disks that were attached so far, in lower case; one that was attached twice is there twice.
    pub fn attached(&self) -> Vec<String> {
        self.attached.lock().expect("a lock").clone()
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the cloud's thread panicked");
        }
    }
}

fn place(folder: &Path, id: &str, image: &Path) {
    let name = id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    symlink(image, folder.join(name)).expect("the disk has no file yet");
}

/// What the driver left there: the file, and the disk's id in it.
fn notes(folder: &Path, kind: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let of_kind = entries.filter(|path| path.extension().is_some_and(|it| it == kind));
    of_kind.filter_map(|path| fs::read_to_string(&path).ok().map(|id| (path, id.to_ascii_lowercase()))).collect()
}
