//! Paths of the copy, resolved inside the copy and nowhere else.
//!
//! The copy is full of absolute links and may hold hostile ones. `openat2` with `RESOLVE_IN_ROOT` makes the mounted copy the root of
//! every walk, `RESOLVE_NO_XDEV` keeps it on its file system. Below the fixed part of a pattern no link is followed at all, and
//! names are bytes taken from the directory, never text that something would interpret.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use rustix::io::Errno;

use super::error::PathError;

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// What a node must keep. A listed directory that is a link to, into or above one of these is refused: nobody keeps pods' logs in
/// /etc, but somebody who wants /etc cleaned away could say so with a link.
const KEPT: [&str; 12] = ["bin", "boot", "dev", "etc", "home", "lib", "lib64", "opt", "root", "sbin", "srv", "usr"];

/// No text file that the cleaner reads is larger; dpkg's status of a full node is about 2 MiB.
const TEXT_SIZE_MAX: u64 = 64 << 20;

/// One failure in a row is rare on a busy machine, this many are none.
const AGAIN_MAX: u32 = 10_000;

/// The root of a mounted copy.
pub(super) struct Beneath {
    root: OwnedFd,
    /// Where it is mounted, to recognise paths that the kernel shows.
    mounted_at: PathBuf,
}

/// One existing path that a pattern stands for, as its directory and name.
pub(super) struct Found {
    pub(super) dir: Rc<OwnedFd>,
    pub(super) name: CString,
    /// For messages.
    pub(super) path: String,
}

impl Beneath {
    pub(super) fn new(mounted_at: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(mounted_at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, mounted_at: mounted_at.to_path_buf() })
    }

    /// Opens a path of the copy; links on the way are followed beneath the copy.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, PathError> {
        // A FIFO in the place of a file must not make us wait; `openat2` takes no such flag together with `PATH`.
        let at_once = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | OFlags::CLOEXEC | at_once;
        let mut opened = Err(Errno::AGAIN);
        // The kernel gives up on `..` when anything is renamed or mounted meanwhile, anywhere on the machine, and says: again.
        for _ in 0..AGAIN_MAX {
            opened = openat2(&self.root, path, flags, Mode::empty(), RESOLVE);
            if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
            std::thread::yield_now();
        }
        match opened {
            Ok(fd) => Ok(Some(fd)),
            // A link that leads in circles is as good as none.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(error("open", path, errno)),
        }
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool, PathError> {
        Ok(self.open(path, OFlags::PATH)?.is_some())
    }

    pub(super) fn is_dir(&self, path: &str) -> Result<bool, PathError> {
        Ok(self.open(path, OFlags::PATH | OFlags::DIRECTORY)?.is_some())
    }

    /// The text of a file, if there is one.
    pub(super) fn read_text(&self, path: &str) -> Result<Option<String>, PathError> {
        let Some(fd) = self.open(path, OFlags::RDONLY)? else { return Ok(None) };
        let mut bytes = Vec::new();
        File::from(fd).take(TEXT_SIZE_MAX).read_to_end(&mut bytes).map_err(|source| PathError {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(super) fn names(&self, path: &str) -> Result<Vec<CString>, PathError> {
        match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)? {
            Some(dir) => names_in(&dir).map_err(|errno| error("list", path, errno)),
            None => Ok(Vec::new()),
        }
    }

    /// Every existing path that a pattern stands for. The last name is never followed.
    pub(super) fn expand(&self, pattern: &str) -> Result<Vec<Found>, PathError> {
        let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
        let Some((last, dirs)) = names.split_last() else { return Ok(Vec::new()) };
        let fixed = dirs.iter().take_while(|name| !name.contains('*')).count();
        let start = format!("/{}", dirs[..fixed].join("/"));
        let Some(dir) = self.open(&start, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        self.refuse_kept(&start, &dir)?;

        let mut level = vec![(Rc::new(dir), start.trim_end_matches('/').to_owned())];
        for wanted in &dirs[fixed..] {
            let mut below = Vec::new();
            for (dir, path) in level {
                for name in matching(&dir, wanted).map_err(|errno| error("list", &path, errno))? {
                    let path = format!("{path}/{}", name.to_string_lossy());
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(&*dir, &*name, flags, Mode::empty()) {
                        Ok(fd) => below.push((Rc::new(fd), path)),
                        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                        Err(errno) => return Err(error("open", &path, errno)),
                    }
                }
            }
            level = below;
        }
        let mut found = Vec::new();
        for (dir, path) in level {
            for name in matching(&dir, last).map_err(|errno| error("list", &path, errno))? {
                let path = format!("{path}/{}", name.to_string_lossy());
                found.push(Found { dir: Rc::clone(&dir), name, path });
            }
        }
        Ok(found)
    }

    /// A listed directory that turns out to be a link may lead to other data, but not to what a node must keep.
    fn refuse_kept(&self, asked: &str, dir: &OwnedFd) -> Result<(), PathError> {
        let shown = std::fs::read_link(format!("/proc/thread-self/fd/{}", dir.as_raw_fd()))
            .map_err(|source| PathError { doing: "resolve", path: asked.to_owned(), source })?;
        let Ok(real) = shown.strip_prefix(&self.mounted_at) else {
            return Err(refusal(asked, "it resolves to a place outside the copy"));
        };
        if Path::new("/").join(real) == Path::new(asked) {
            return Ok(());
        }
        let top = real.components().next().map(|name| name.as_os_str().as_bytes().to_vec());
        match top {
            Some(top) if !KEPT.iter().any(|kept| kept.as_bytes() == top) && real.components().count() > 1 => Ok(()),
            Some(_) | None => {
                Err(refusal(asked, &format!("it is a link to /{}, which a node must keep", real.display())))
            }
        }
    }
}

/// The names in a directory, sorted, without `.` and `..`.
pub(super) fn names_in(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The type of a name in a directory, without following it.
pub(super) fn kind(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<Option<FileType>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn matching(dir: &OwnedFd, wanted: &str) -> rustix::io::Result<Vec<CString>> {
    if !wanted.contains('*') {
        let name = CString::new(wanted).map_err(|_| Errno::INVAL)?;
        return Ok(kind(dir, &name)?.map(|_| name).into_iter().collect());
    }
    let mut names = names_in(dir)?;
    names.retain(|name| matches_star(wanted.as_bytes(), name.as_bytes()));
    Ok(names)
}

/// `*` in our own patterns stands for any bytes; all other bytes, on either side, for themselves.
pub(super) fn matches_star(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|&byte| byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&[u8]> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = (0..=rest.len()).find(|&at| rest[at..].starts_with(part)) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

pub(super) fn error(doing: &'static str, path: &str, errno: Errno) -> PathError {
    PathError { doing, path: path.to_owned(), source: errno.into() }
}

fn refusal(path: &str, why: &str) -> PathError {
    PathError { doing: "accept", path: path.to_owned(), source: io::Error::other(why.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn copy() -> (tempfile::TempDir, Beneath) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("root")).expect("a root");
        let root = dir.path().join("root").canonicalize().expect("its path");
        let beneath = Beneath::new(&root).expect("a directory");
        (dir, beneath)
    }

    fn paths(beneath: &Beneath, pattern: &str) -> Vec<String> {
        beneath.expand(pattern).expect("expands").into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn stars_match_bytes_and_nothing_else_does() {
        for (pattern, name, matched) in [
            ("*", ".hidden", true),
            ("*.prv", "a.prv", true),
            ("*.prv", "a.prv.bak", false),
            ("vendor-data*.txt*", "vendor-data2.txt.i", true),
            ("vendor-data*.txt*", "vendor.txt", false),
            ("a*a", "a", false),
            ("[ab]", "a", false),
            ("*lease", "[*]?-lease", true),
        ] {
            assert_eq!(matches_star(pattern.as_bytes(), name.as_bytes()), matched, "{pattern} {name}");
        }
    }

    #[test]
    fn links_lead_nowhere_but_into_the_copy() {
        let (dir, beneath) = copy();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).expect("a directory outside");
        std::fs::write(outside.join("sentinel"), "here").expect("a sentinel");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("var/log")).expect("directories");
        symlink(&outside, root.join("var/log/pods")).expect("an absolute link");
        symlink("../../../outside", root.join("var/log/journal")).expect("a relative link");
        assert!(paths(&beneath, "/var/log/pods/*").is_empty());
        assert!(paths(&beneath, "/var/log/journal/*").is_empty());
        // The link itself is what a final `*` finds, and a `*` in the middle does not go through it.
        assert_eq!(paths(&beneath, "/var/log/*"), ["/var/log/journal", "/var/log/pods"]);
        assert!(paths(&beneath, "/var/log/*/sentinel").is_empty());
    }

    #[test]
    fn a_link_may_lead_to_data_but_not_to_the_system() {
        let (dir, beneath) = copy();
        let root = dir.path().join("root");
        for made in ["var/log", "var/lib", "mnt/pods/a", "etc/kubernetes"] {
            std::fs::create_dir_all(root.join(made)).expect("directories");
        }
        symlink("/mnt/pods", root.join("var/log/pods")).expect("a link to data");
        assert_eq!(paths(&beneath, "/var/log/pods/*"), ["/var/log/pods/a"]);
        symlink("/etc", root.join("var/lib/cni")).expect("a link to the system");
        assert!(beneath.expand("/var/lib/cni/*").is_err());
        symlink("/", root.join("var/crash")).expect("a link to the root");
        assert!(beneath.expand("/var/crash/*").is_err());
    }
}
