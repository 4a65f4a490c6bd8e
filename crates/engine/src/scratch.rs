//! The folder that instances have their `/tmp` in: one a process, removed with it, and after it if it was killed.
//!
//! The folder is locked as long as its process lives. Whoever starts later and gets the lock knows that its owner is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;

/// Names of such folders begin so. One that is being made has another name until it is locked.
const PREFIX: &str = "wasgi-";

/// How often removing it is tried, and the pause between two tries.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// This process's folder.
pub(crate) struct Scratch {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Scratch {
    /// Makes the folder in `parent`, and removes those there whose processes are gone.
    pub(crate) fn make(parent: &Path) -> io::Result<Self> {
        // Folders are shown to guests only by paths without links.
        let parent = &parent.canonicalize()?;
        remove_left(parent);
        let name = format!("{PREFIX}{}-{:08x}", std::process::id(), rand::random::<u32>());
        let (new, path) = (parent.join(format!(".{name}")), parent.join(name));
        DirBuilder::new().mode(0o700).create(&new)?;
        let locked = lock(&new)
            .and_then(|lock| lock.ok_or_else(|| io::Error::other("the new folder is locked by another")))
            .and_then(|lock| fs::rename(&new, &path).map(|()| lock));
        match locked {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err(error) => {
                let _ = fs::remove_dir(&new);
                Err(error)
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder, whoever still holds it: the process is about to end. An instance that has not ended yet, on a
    /// thread of its own, may make or remove something there meanwhile, so that it is tried again.
    pub(crate) fn remove(&self) {
        for _ in 0..TRIES {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(PAUSE),
                _ => return,
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether a name is one that `make` gives: `wasgi-1234-0123abcd`.
fn is_name(name: &str) -> bool {
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(process, random)| {
        process.parse::<u32>().is_ok() && random.len() == 8 && random.bytes().all(|it| it.is_ascii_hexdigit())
    })
}

/// `None` if another process holds the lock.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(folder)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes this user's folders whose owners are gone. What cannot be removed stays: it is litter, not danger.
fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(is_name);
        let ours = || {
            entry
                .metadata()
                .is_ok_and(|it| it.is_dir() && it.uid() == rustix::process::geteuid().as_raw())
        };
        if named
            && ours()
            && let Ok(Some(_lock)) = lock(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lives_as_long_as_its_owner() {
        let parent = tempfile::tempdir().expect("folder");
        let first = Scratch::make(parent.path()).expect("made");
        fs::write(first.path().join("file"), "x").expect("write");
        let second = Scratch::make(parent.path()).expect("made");
        assert!(first.path().join("file").exists(), "another's start removed it");
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_goes_with_the_next_start() {
        let parent = tempfile::tempdir().expect("folder");
        let left = parent.path().join("wasgi-1-00000000");
        fs::create_dir_all(left.join("deep")).expect("mkdir");
        let others = [
            "somebody-else",
            "wasgi-backup",
            "wasgi-1-backup",
            "wasgi-old-00000000",
        ];
        let others = others.map(|name| parent.path().join(name));
        for other in &others {
            fs::create_dir(other).expect("mkdir");
        }
        let _scratch = Scratch::make(parent.path()).expect("made");
        assert!(!left.exists());
        assert!(others.iter().all(|other| other.exists()));
    }
}
