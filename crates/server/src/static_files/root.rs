//! A folder that files are opened beneath.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

/// How often a lookup is begun again that others' renaming disturbed.
const ATTEMPTS: usize = 4;

/// Last second of the year 9999, beyond which HTTP has no dates.
const LAST_SECOND: u64 = 253_402_300_799;

/// A folder, opened once. The kernel resolves each path beneath it: neither `..` nor a symbolic link, whoever puts one
/// there and when, leads out of it.
#[derive(Debug)]
pub(super) struct Root {
    folder: OwnedFd,
    resolve: ResolveFlags,
    /// Whether the kernel can be asked for what it has in memory alone (`RESOLVE_CACHED`, since Linux 5.12).
    has_cached: bool,
}

/// How long a lookup may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as memory takes; what has to be read from disk is [`Trouble::NotInMemory`].
    Never,
    /// As long as the disk takes: not on a thread that others wait for.
    ForDisk,
}

/// Why it is not known whether a file is there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The disk would have to be asked.
    #[error("not in memory")]
    NotInMemory,
    /// The system could not open it, as when file descriptors run out.
    #[error("cannot open a file: {0}")]
    System(io::Error),
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Entry {
    File(File),
    Folder(OwnedFd),
}

/// A regular file, open for reading.
#[derive(Debug)]
pub(super) struct File {
    pub(super) fd: OwnedFd,
    pub(super) size: u64,
    pub(super) inode: u64,
    /// When it was changed, from 1970 to 9999.
    pub(super) modified: SystemTime,
}

impl Root {
    /// Opens a folder by a path without symbolic links. `links` says whether those within it are followed; they lead
    /// nowhere outside it either way.
    ///
    /// # Errors
    /// The system's; `Unsupported` before Linux 5.6, which has no way to open beneath a folder.
    pub(super) fn open(path: &Path, links: bool) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let plain = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let folder = openat2(CWD, path, flags, Mode::empty(), plain)?;
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if !links {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let cached = openat2(&folder, ".", flags, Mode::empty(), resolve | ResolveFlags::CACHED);
        Ok(Self {
            folder,
            resolve,
            has_cached: !matches!(cached, Err(Errno::INVAL)),
        })
    }

    /// What is at a path beneath the folder: a regular file or a folder that this process may read. Anything else, a FIFO
    /// or device among them, is as if it were not there.
    ///
    /// # Errors
    /// [`Trouble`] when that is not known.
    pub(super) fn find(&self, path: &[u8], wait: Wait) -> Result<Option<Entry>, Trouble> {
        // A FIFO is opened without waiting for its other end, a terminal without becoming this process's own.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut resolve = self.resolve;
        match wait {
            Wait::Never if self.has_cached => resolve |= ResolveFlags::CACHED,
            Wait::Never => return Err(Trouble::NotInMemory),
            Wait::ForDisk => {}
        }
        let path = if path.is_empty() { b"." } else { path };
        let mut opened = Err(Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            opened = openat2(&self.folder, path, flags, Mode::empty(), resolve);
            match (&opened, wait) {
                (Err(Errno::AGAIN), Wait::Never) => return Err(Trouble::NotInMemory),
                (Err(Errno::AGAIN | Errno::INTR), _) => {}
                _ => break,
            }
        }
        let fd = match opened {
            Ok(fd) => fd,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO)) => {
                return Err(Trouble::System(error.into()));
            }
            // Not there, no access, out of the folder, a link, a name too long: nothing to serve.
            Err(_) => return Ok(None),
        };
        let stat = fstat(&fd).map_err(|error| Trouble::System(error.into()))?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Entry::File(File {
                fd,
                size: u64::try_from(stat.st_size).unwrap_or_default(),
                inode: stat.st_ino,
                modified: modified(&stat),
            })),
            FileType::Directory => Some(Entry::Folder(fd)),
            _ => None,
        })
    }
}

fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or_default().min(LAST_SECOND);
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    UNIX_EPOCH + Duration::new(seconds, nanoseconds.min(999_999_999))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn is_file(root: &Root, path: &str) -> bool {
        let found = root.find(path.as_bytes(), Wait::ForDisk).unwrap();
        matches!(found, Some(Entry::File(_)))
    }

    #[test]
    fn links_lead_nowhere_outside_and_inside_only_if_they_may() {
        let outer = tempfile::tempdir().unwrap();
        let outer = fs::canonicalize(outer.path()).unwrap();
        let folder = outer.join("in");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(outer.join("secret"), "s").unwrap();
        fs::write(folder.join("a"), "a").unwrap();
        symlink("../secret", folder.join("out")).unwrap();
        symlink(outer.join("secret"), folder.join("absolute")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("/proc/self/root", folder.join("magic")).unwrap();
        symlink("a", folder.join("inside")).unwrap();
        symlink("../a", folder.join("sub/back")).unwrap();
        for links in [false, true] {
            let root = Root::open(&folder, links).unwrap();
            assert!(is_file(&root, "a"));
            for path in [
                "out",
                "absolute",
                "up/secret",
                "magic/etc/passwd",
                "../secret",
                "sub/../../secret",
                "/etc/passwd",
                "a\0",
            ] {
                assert!(!is_file(&root, path), "{path} {links}");
            }
            assert_eq!(is_file(&root, "inside"), links);
            assert_eq!(is_file(&root, "sub/back"), links);
        }
        // The folder itself is not found through a link.
        symlink("in", outer.join("link")).unwrap();
        assert!(Root::open(&outer.join("link"), true).is_err());
    }

    #[test]
    fn what_is_no_file_or_folder_is_not_there_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        rustix::fs::mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(path.join("socket")).unwrap();
        let root = Root::open(&path, false).unwrap();
        for name in ["fifo", "socket", "nothing"] {
            assert!(
                root.find(name.as_bytes(), Wait::ForDisk).unwrap().is_none(),
                "{name}"
            );
        }
        assert!(matches!(
            root.find(b"", Wait::ForDisk),
            Ok(Some(Entry::Folder(_)))
        ));
    }

    #[test]
    fn a_folder_that_becomes_a_link_again_and_again_leads_nowhere() {
        let outer = tempfile::tempdir().unwrap();
        let outer = fs::canonicalize(outer.path()).unwrap();
        let folder = outer.join("in");
        fs::create_dir_all(folder.join("real")).unwrap();
        fs::create_dir_all(outer.join("other")).unwrap();
        fs::write(folder.join("real/a"), "in").unwrap();
        fs::write(outer.join("other/a"), "secret").unwrap();
        symlink("../other", folder.join("link")).unwrap();
        let root = Root::open(&folder, true).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (real, link) = (folder.join("real"), folder.join("link"));
                while !done.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &real, CWD, &link, flags).unwrap();
                }
            });
            let mut seen = 0;
            for _ in 0..20_000 {
                if let Some(Entry::File(file)) = root.find(b"real/a", Wait::ForDisk).unwrap() {
                    assert_eq!(file.size, 2, "the file outside has 6 bytes");
                    seen += 1;
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(seen > 0);
        });
    }
}
