//! The three verbs of the manifest, by directory and name: nothing here takes a path.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, SeekFrom, fstat, ftruncate, ioctl_getflags, ioctl_setflags, openat, seek,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::beneath::{kind, names_in};

/// Deeper trees are made by somebody who wants the cleaner to run out of stack.
const DEPTH_MAX: u32 = 512;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Overwrites every file at and below a name with zeros, in place. Returns the bytes written.
pub(super) fn overwrite(dir: &OwnedFd, name: &CStr) -> io::Result<u64> {
    overwrite_at(dir, name, 0)
}

fn overwrite_at(dir: &OwnedFd, name: &CStr, depth: u32) -> io::Result<u64> {
    match kind(dir, name)? {
        Some(FileType::Directory) => {
            let (below, names) = enter(dir, name, depth)?;
            names.iter().try_fold(0, |sum, name| Ok(sum + overwrite_at(&below, name, depth + 1)?))
        }
        Some(FileType::RegularFile) => overwrite_file(dir, name),
        Some(_) | None => Ok(0),
    }
}

fn overwrite_file(dir: &OwnedFd, name: &CStr) -> io::Result<u64> {
    // Another name of the same file may be one that stays.
    if statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink != 1 {
        return Ok(0);
    }
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::PERM) => {
            make_mutable(dir, name)?;
            openat(dir, name, flags, Mode::empty())?
        }
        Err(errno) => return Err(errno.into()),
    };
    let size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    let file = File::from(file);
    let (mut at, mut written) = (0, 0);
    // Only what is really there: filling the holes of a sparse file could fill the disk.
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start))?.min(size);
        at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_all_at(&ZEROS[..length], at)?;
            at += length as u64;
        }
        written += end - start;
    }
    Ok(written)
}

/// Removes a name and all below it. Returns how many names other than directories went.
pub(super) fn remove(dir: &OwnedFd, name: &CStr) -> io::Result<u64> {
    remove_at(dir, name, 0)
}

fn remove_at(dir: &OwnedFd, name: &CStr, depth: u32) -> io::Result<u64> {
    match kind(dir, name)? {
        None => Ok(0),
        Some(FileType::Directory) => {
            let (below, names) = enter(dir, name, depth)?;
            let count =
                names.iter().try_fold(0, |sum, name| io::Result::Ok(sum + remove_at(&below, name, depth + 1)?))?;
            unlink(dir, name, AtFlags::REMOVEDIR)?;
            Ok(count)
        }
        Some(_) => {
            unlink(dir, name, AtFlags::empty())?;
            Ok(1)
        }
    }
}

/// Leaves an empty file in the place of whatever has the name. Returns 1 if it was not empty already.
pub(super) fn empty(dir: &OwnedFd, name: &CStr) -> io::Result<u64> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind(dir, name)? {
        None => Ok(0),
        Some(FileType::RegularFile) => {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_size == 0 {
                return Ok(0);
            }
            ftruncate(openat(dir, name, flags, Mode::empty())?, 0)?;
            Ok(1)
        }
        // A link here may point at a file that stays: a plain empty file takes its place.
        Some(_) => {
            remove(dir, name)?;
            openat(dir, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::from_raw_mode(0o644))?;
            Ok(1)
        }
    }
}

fn enter(dir: &OwnedFd, name: &CStr, depth: u32) -> io::Result<(OwnedFd, Vec<std::ffi::CString>)> {
    if depth >= DEPTH_MAX {
        return Err(io::Error::other(format!("directories are nested deeper than {DEPTH_MAX}")));
    }
    let below = openat(dir, name, DIRECTORY, Mode::empty())?;
    let names = names_in(&below)?;
    Ok((below, names))
}

fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => {
            make_mutable(dir, name)?;
            Ok(unlinkat(dir, name, flags)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// `chattr +i` and `+a` stop even root; tenants' privileged pods use them.
fn make_mutable(dir: &OwnedFd, name: &CStr) -> io::Result<()> {
    let hindering = IFlags::IMMUTABLE | IFlags::APPEND;
    let clear = |fd: OwnedFd| -> io::Result<()> {
        let flags = ioctl_getflags(&fd)?;
        if flags.intersects(hindering) {
            ioctl_setflags(&fd, flags - hindering)?;
        }
        Ok(())
    };
    clear(openat(dir, c".", DIRECTORY, Mode::empty())?)?;
    match kind(dir, name)? {
        Some(FileType::Directory | FileType::RegularFile) => {
            clear(openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn dir() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fd = rustix::fs::open(dir.path(), DIRECTORY, Mode::empty()).expect("opens");
        (dir, fd)
    }

    #[test]
    fn overwriting_spares_other_names_of_a_file_and_links() {
        let (dir, fd) = dir();
        fs::create_dir(dir.path().join("pods")).expect("a directory");
        fs::write(dir.path().join("kept"), "kept").expect("a file");
        fs::hard_link(dir.path().join("kept"), dir.path().join("pods/other-name")).expect("a hard link");
        symlink("../kept", dir.path().join("pods/link")).expect("a link");
        fs::write(dir.path().join("pods/secret"), "secret").expect("a file");
        assert_eq!(overwrite(&fd, c"pods").expect("overwrites"), 6);
        assert_eq!(fs::read(dir.path().join("pods/secret")).expect("reads"), [0; 6]);
        assert_eq!(remove(&fd, c"pods").expect("removes"), 3);
        assert_eq!(fs::read_to_string(dir.path().join("kept")).expect("still there"), "kept");
        assert_eq!(remove(&fd, c"pods").expect("a second time"), 0);
    }

    #[test]
    fn a_sparse_file_is_not_filled() {
        let (dir, fd) = dir();
        let file = fs::File::create(dir.path().join("sparse")).expect("a file");
        file.set_len(1 << 40).expect("a terabyte of nothing");
        file.write_all_at(b"secret", 1 << 39).expect("one block");
        assert!(overwrite(&fd, c"sparse").expect("overwrites") <= 1 << 20);
    }

    #[test]
    fn emptying_a_link_leaves_its_target() {
        let (dir, fd) = dir();
        fs::write(dir.path().join("target"), "kept").expect("a file");
        symlink("target", dir.path().join("machine-id")).expect("a link");
        assert_eq!(empty(&fd, c"machine-id").expect("empties"), 1);
        assert_eq!(empty(&fd, c"machine-id").expect("a second time"), 0);
        assert_eq!(fs::read_to_string(dir.path().join("target")).expect("still there"), "kept");
        assert_eq!(empty(&fd, c"absent").expect("absent stays absent"), 0);
        assert!(!dir.path().join("absent").exists());
    }
}
