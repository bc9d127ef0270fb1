//! Block devices that do not do what others do, undone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guest::{run, text};

/// A ramfs, unmounted when dropped.
pub(crate) struct Memory(PathBuf);

impl Memory {
    pub(crate) fn new(at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a folder");
        run(Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&at));
        Self(at)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A loop device that stays until dropped.
pub(crate) struct Attached {
    pub(crate) node: PathBuf,
    /// Made for this test, to be removed with what was set on it.
    own: Option<u32>,
}

impl Attached {
    pub(crate) fn new(image: &Path) -> Self {
        let node = text(&run(Command::new("losetup").args(["--find", "--show"]).arg(image)));
        Self { node: PathBuf::from(node.trim()), own: None }
    }

    /// One that passes no discard on. What is set on a loop device stays after it is detached, so it has to be our own.
    pub(crate) fn lying(image: &Path) -> Self {
        let number = 1000 + std::process::id() % 100_000;
        let attached = Self { node: PathBuf::from(format!("/dev/loop{number}")), own: Some(number) };
        run(Command::new("losetup").arg(&attached.node).arg(image));
        fs::write(format!("/sys/block/loop{number}/queue/discard_max_bytes"), "0").expect("takes discard away");
        attached
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-q").arg(&self.node).stderr(Stdio::null()).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.node).status();
        if let Some(number) = self.own {
            remove_loop(number);
        }
    }
}

#[expect(unsafe_code, reason = "no tool of Debian 12 and no safe wrapper asks for LOOP_CTL_REMOVE")]
fn remove_loop(number: u32) {
    const LOOP_CTL_REMOVE: rustix::ioctl::Opcode = 0x4C81;
    let control = fs::File::open("/dev/loop-control").expect("opens");
    // SAFETY: the argument is a number, and nothing is written.
    let removal = unsafe { rustix::ioctl::IntegerSetter::<LOOP_CTL_REMOVE>::new_usize(number as usize) };
    // SAFETY: see above.
    let _ = unsafe { rustix::ioctl::ioctl(control, removal) };
}
