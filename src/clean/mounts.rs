//! Mounts that nobody else sees: a mount namespace of this thread's own, a tmpfs in it, and the copy mounted there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};
use rustix::thread::UnshareFlags;

use super::patience::Patience;

/// Mounted by every container runtime, for shared memory.
const ALWAYS_THERE: &str = "/dev/shm";

/// Gives the calling thread namespaces of its own; the rest of the process stays where it is.
#[expect(unsafe_code, reason = "unshare is unsafe for the sake of one flag")]
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` could take descriptors away from other threads, and no caller passes it.
    unsafe { rustix::thread::unshare_unsafe(flags - UnshareFlags::FILES) }?;
    if flags.contains(UnshareFlags::NEWNS) {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    }
    Ok(())
}

/// An empty tmpfs, visible to this thread only, in which everything else is mounted.
pub(super) struct Workbench {
    at: PathBuf,
    mount_point: PathBuf,
}

impl Workbench {
    /// Call [`unshare`] with `NEWNS` before.
    ///
    /// The tmpfs goes over the work folder or, where there is none, over the nearest folder above it: the root file system may be
    /// read-only, and nothing made on it would have to be removed again.
    pub(super) fn new(workdir: &Path) -> io::Result<Self> {
        let wanted = workdir.ancestors().find(|path| path.is_dir()).filter(|path| path.parent().is_some());
        // An image made from nothing has no folder of its own, but every container is given this one.
        let Some(over) = wanted.or(Some(Path::new(ALWAYS_THERE)).filter(|path| path.is_dir())) else {
            let text = format!("no folder at or above {} but the root, and no {ALWAYS_THERE}", workdir.display());
            return Err(io::Error::other(text));
        };
        let over = over.canonicalize()?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("kamino-wf", &over, "tmpfs", flags, c"size=1m,mode=700")?;
        let at = over.join("bench");
        fs::create_dir(&at)?;
        Ok(Self { at, mount_point: over })
    }

    /// The folder for device nodes and mount points.
    pub(super) fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts an ext4 file system. Its own idea of what to do about errors is overruled: it might be to panic this machine.
    pub(super) fn mount_ext4(&self, source: &Path, read_only: bool) -> io::Result<Mounted> {
        let at = self.at.join("copy");
        match fs::create_dir(&at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let (flags, options) = if read_only {
            // Without a replay of the journal: a first look must not write.
            (MountFlags::RDONLY, c"noload,errors=continue")
        } else {
            (MountFlags::empty(), c"errors=remount-ro")
        };
        let flags = flags | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
        mount(source, &at, "ext4", flags, options)?;
        Ok(Mounted { at: Some(at) })
    }

    /// The root file system of this machine alone, without anything that is mounted in it: volumes of tenants above all.
    pub(super) fn bind_root(&self) -> io::Result<Mounted> {
        let at = self.at.join("root");
        fs::create_dir(&at)?;
        mount_bind("/", &at)?;
        Ok(Mounted { at: Some(at) })
    }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        let _ = unmount(&self.mount_point, UnmountFlags::DETACH);
    }
}

/// A mounted copy, or the machine's own root seen once more; unmounted when dropped.
pub(super) struct Mounted {
    at: Option<PathBuf>,
}

impl Mounted {
    pub(super) fn at(&self) -> &Path {
        self.at.as_deref().unwrap_or(Path::new("/nonexistent"))
    }

    /// Unmounts, so that an error is heard.
    pub(super) fn unmount(mut self) -> io::Result<()> {
        match self.at.take() {
            Some(at) => Ok(unmount(at, UnmountFlags::empty())?),
            None => Ok(()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let _ = unmount(at, UnmountFlags::DETACH);
        }
    }
}

/// Waits until nobody has a block device mounted any more, in any namespace: namespaces let go a moment after their last thread.
pub(super) fn wait_until_free(node: &Path, at_most: Duration) -> io::Result<bool> {
    let patience = Patience::for_at_most(at_most);
    loop {
        match open(node, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
            Ok(_) => return Ok(true),
            Err(Errno::BUSY) if patience.wait() => {}
            Err(Errno::BUSY) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}
