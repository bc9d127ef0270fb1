//! Loop devices: a partition of a disk as a device of its own, also where the kernel makes no nodes for partitions.
//!
//! A loop device detaches itself when its last user goes (`LO_FLAGS_AUTOCLEAR`), so a killed cleaner leaves none behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, Setter, ioctl};

const LOOP_MAJOR: u32 = 7;
const LOOP_CONTROL: (u32, u32) = (10, 237);
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others attach loop devices too: the free one that the kernel names may be taken a moment later.
const ATTEMPTS_MAX: u32 = 20;

/// `struct loop_config` of `linux/loop.h`, with its `loop_info64` unfolded.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [[u8; 64]; 2],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// An attached loop device; detached when dropped.
pub(super) struct LoopDevice {
    fd: OwnedFd,
    node: PathBuf,
}

impl LoopDevice {
    /// Attaches a part of a disk. Device nodes are made in `nodes`, since a container's own `/dev` may have none.
    pub(super) fn attach(disk: &File, offset: u64, size: u64, read_only: bool, nodes: &Path) -> io::Result<Self> {
        let control = control(nodes)?;
        for _ in 0..ATTEMPTS_MAX {
            let number = free_number(&control)?;
            // The minor is the number wherever loop devices have no partitions, and says itself where they have.
            let minor = minor_of(number)?;
            let node = nodes.join(format!("loop{number}-{offset}"));
            make_node(&node, FileType::BlockDevice, LOOP_MAJOR, minor)?;
            let fd = open(&node, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            let flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
            let config = LoopConfig {
                fd: u32::try_from(disk.as_raw_fd()).map_err(io::Error::other)?,
                block_size: 0,
                device: 0,
                inode: 0,
                rdevice: 0,
                offset,
                size_limit: size,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags,
                names: [[0; 64]; 2],
                encrypt_key: [0; 32],
                init: [0; 2],
                reserved: [0; 8],
            };
            match configure(&fd, config) {
                Ok(()) => return Ok(Self { fd, node }),
                Err(Errno::BUSY) => std::fs::remove_file(&node)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other(format!("{ATTEMPTS_MAX} free loop devices in a row were taken by others")))
    }

    /// Its device node.
    pub(super) fn node(&self) -> &Path {
        &self.node
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Whoever still has it mounted keeps it until then: it clears itself.
        let _ = clear(&self.fd);
        let _ = std::fs::remove_file(&self.node);
    }
}

fn control(nodes: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match open("/dev/loop-control", flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOENT) => {
            let node = nodes.join("loop-control");
            make_node(&node, FileType::CharacterDevice, LOOP_CONTROL.0, LOOP_CONTROL.1)?;
            Ok(open(&node, flags, Mode::empty())?)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn minor_of(number: usize) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/block/loop{number}/dev"))?;
    let minor = text.trim().split(':').nth(1).and_then(|minor| minor.parse().ok());
    minor.ok_or_else(|| io::Error::other(format!("loop{number} has the device number {text:?}")))
}

/// Makes a device node, or keeps the one that is there.
pub(super) fn make_node(path: &Path, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
    match mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o600), makedev(major, minor)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[expect(unsafe_code, reason = "no safe wrapper for LOOP_CTL_GET_FREE, whose answer is the return value")]
fn free_number(control: &OwnedFd) -> io::Result<usize> {
    struct GetFree;
    // SAFETY: the request takes no argument and writes no memory; the number is what the call returns.
    unsafe impl rustix::ioctl::Ioctl for GetFree {
        type Output = usize;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> Opcode {
            LOOP_CTL_GET_FREE
        }
        fn as_ptr(&mut self) -> *mut core::ffi::c_void {
            core::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            out: rustix::ioctl::IoctlOutput,
            _: *mut core::ffi::c_void,
        ) -> rustix::io::Result<usize> {
            usize::try_from(out).map_err(|_| Errno::NODEV)
        }
    }
    // SAFETY: see above.
    Ok(unsafe { ioctl(control, GetFree) }?)
}

#[expect(unsafe_code, reason = "no safe wrapper for LOOP_CONFIGURE")]
fn configure(fd: &OwnedFd, config: LoopConfig) -> rustix::io::Result<()> {
    // SAFETY: `LoopConfig` has the layout of `struct loop_config`, which the kernel only reads.
    unsafe { ioctl(fd.as_fd(), Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }
}

#[expect(unsafe_code, reason = "no safe wrapper for LOOP_CLR_FD")]
fn clear(fd: &OwnedFd) -> rustix::io::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { ioctl(fd.as_fd(), NoArg::<LOOP_CLR_FD>::new()) }
}

const _: () = assert!(size_of::<LoopConfig>() == 304, "struct loop_config has 304 bytes");
