//! How much an app keeps in a folder that it may write to, and how much it may.
//!
//! A folder is counted once, when the first app that is shown it starts; from then on its [`Usage`] follows what the guests'
//! calls do to it. What the system counts, and what is counted here:
//!
//! - bytes: the sizes of files, holes included, so that no later write into one can need room that was not asked for. A file
//!   with several names counts once. One that was deleted while it was open gives its bytes back when it is closed. While a
//!   guest has a file open, its size is what the guests' calls have made it: the system is not asked at each write.
//! - files: names, whatever they are of: files, folders, symbolic links, further names of a file.
//!
//! A call holds the usage's lock from its look at a file's size to the change of it, so no two calls, of whatever
//! instances, can take the same room.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::spec::Quota;

/// What a guest's call would take beyond the quota.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// A folder's usage, and how much of it one app may have.
#[derive(Clone)]
pub(crate) struct Account {
    usage: Arc<Usage>,
    quota: Quota,
}

/// What is in a folder.
#[derive(Default)]
pub(crate) struct Usage {
    state: Mutex<State>,
    /// What it is a part of.
    total: Option<Arc<Total>>,
}

/// The sum of some folders, with a quota over all of them.
pub(crate) struct Total {
    bytes: AtomicU64,
    files: AtomicU64,
    quota: Quota,
}

#[derive(Default)]
struct State {
    /// Whether what was there before is in the sums.
    counted: bool,
    bytes: u64,
    files: u64,
    /// Files that guests hold open, by WASI's inode number.
    open: HashMap<u64, Open>,
}

struct Open {
    times: usize,
    /// What is taken for it.
    size: u64,
    has_name: bool,
}

/// An account that is being used: nobody else changes it meanwhile.
pub(crate) struct Held<'a> {
    state: MutexGuard<'a, State>,
    total: Option<&'a Total>,
    quota: Quota,
}

impl Usage {
    /// Counts what is in a folder, and in the folders in it, unless that is done. Whoever else wants to know waits.
    ///
    /// # Errors
    /// If something cannot be looked at: what cannot be counted cannot be bounded.
    pub(crate) fn count(&self, folder: &OwnedFd) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.counted {
            (state.bytes, state.files) = walk(folder)?;
            state.counted = true;
        }
        Ok(())
    }

    /// That of an empty folder whose contents count against `total` until it is dropped.
    pub(crate) fn part_of(total: Arc<Total>) -> Self {
        Self {
            state: Mutex::default(),
            total: Some(total),
        }
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = &self.total {
            total.give_back(state.bytes, state.files);
        }
    }
}

impl Total {
    pub(crate) fn new(quota: Quota) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            quota,
        }
    }

    fn take(&self, bytes: u64, files: u64) -> Result<(), Full> {
        take(&self.bytes, bytes, self.quota.bytes)?;
        take(&self.files, files, self.quota.files).inspect_err(|_| give_back(&self.bytes, bytes))
    }

    fn give_back(&self, bytes: u64, files: u64) {
        give_back(&self.bytes, bytes);
        give_back(&self.files, files);
    }
}

fn take(used: &AtomicU64, more: u64, limit: Option<u64>) -> Result<(), Full> {
    let taken = used.fetch_update(Relaxed, Relaxed, |used| grown(used, more, limit));
    taken.map(drop).map_err(|_| Full)
}

fn give_back(used: &AtomicU64, less: u64) {
    let _ = used.fetch_update(Relaxed, Relaxed, |used| Some(used.saturating_sub(less)));
}

/// `None` if that is too much. What takes nothing is never too much, even of a quota that was lowered.
fn grown(used: u64, more: u64, limit: Option<u64>) -> Option<u64> {
    let grown = used.checked_add(more)?;
    (more == 0 || limit.is_none_or(|limit| grown <= limit)).then_some(grown)
}

impl Account {
    pub(crate) fn new(usage: Arc<Usage>, quota: Quota) -> Self {
        Self { usage, quota }
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        Held {
            state: self.usage.state.lock().unwrap_or_else(PoisonError::into_inner),
            total: self.usage.total.as_deref(),
            quota: self.quota,
        }
    }

    /// Whether what one of them has room for, the other has.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.usage, &other.usage)
    }
}

impl Held<'_> {
    /// Takes room for what is about to be made.
    pub(crate) fn take(&mut self, bytes: u64, files: u64) -> Result<(), Full> {
        let all_bytes = grown(self.state.bytes, bytes, self.quota.bytes).ok_or(Full)?;
        let all_files = grown(self.state.files, files, self.quota.files).ok_or(Full)?;
        if let Some(total) = self.total {
            total.take(bytes, files)?;
        }
        (self.state.bytes, self.state.files) = (all_bytes, all_files);
        Ok(())
    }

    /// Gives back room of what was not made after all, or is gone. What somebody else has made in the folder was never
    /// taken; it gives back no more than there is.
    pub(crate) fn give_back(&mut self, bytes: u64, files: u64) {
        let (bytes, files) = (bytes.min(self.state.bytes), files.min(self.state.files));
        self.state.bytes -= bytes;
        self.state.files -= files;
        if let Some(total) = self.total {
            total.give_back(bytes, files);
        }
    }

    /// What is taken for a file that a guest has open.
    pub(crate) fn size(&self, inode: u64) -> Option<u64> {
        self.state.open.get(&inode).map(|open| open.size)
    }

    /// A guest has opened a file of this size.
    pub(crate) fn opened(&mut self, inode: u64, size: u64) {
        let open = self.state.open.entry(inode).or_insert(Open {
            times: 0,
            size,
            has_name: true,
        });
        open.times += 1;
    }

    /// A guest has closed a file that it had opened.
    pub(crate) fn closed(&mut self, inode: u64) {
        let Some(open) = self.state.open.get_mut(&inode) else {
            return;
        };
        open.times = open.times.saturating_sub(1);
        if open.times == 0
            && let Some(Open { size, has_name, .. }) = self.state.open.remove(&inode)
            && !has_name
        {
            self.give_back(size, 0);
        }
    }

    /// An open file has this size now.
    pub(crate) fn resized(&mut self, inode: u64, size: u64) {
        if let Some(open) = self.state.open.get_mut(&inode) {
            open.size = size;
        }
    }

    /// A file of this size has lost its last name.
    pub(crate) fn nameless(&mut self, inode: u64, size: u64) {
        match self.state.open.get_mut(&inode) {
            Some(open) => open.has_name = false,
            None => self.give_back(size, 0),
        }
    }
}

/// Bytes and names below a folder. Follows no links, so that it stays in there.
fn walk(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let (mut bytes, mut files) = (0u64, 0);
    let mut shared = std::collections::HashSet::new();
    let mut left = vec![".".to_owned().into_bytes()];
    while let Some(path) = left.pop() {
        let entries = match open_below(folder, &path) {
            Ok(entries) => entries,
            // Removed meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        for entry in Dir::read_from(&entries)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let seen = match rustix::fs::statat(&entries, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(seen) => seen,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            files += 1;
            match FileType::from_raw_mode(seen.st_mode) {
                FileType::Directory => left.push([&path[..], b"/", name.to_bytes()].concat()),
                FileType::RegularFile if seen.st_nlink < 2 || shared.insert((seen.st_dev, seen.st_ino)) => {
                    bytes = bytes.saturating_add(u64::try_from(seen.st_size).unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    Ok((bytes, files))
}

fn open_below(folder: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(folder.as_fd(), path, flags, Mode::empty(), beneath) {
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(folder, path, flags, Mode::empty()),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    fn quota(bytes: u64, files: u64) -> Quota {
        Quota {
            bytes: Some(bytes),
            files: Some(files),
        }
    }

    fn account(bytes: u64, files: u64) -> Account {
        Account::new(Arc::default(), quota(bytes, files))
    }

    fn used(account: &Account) -> (u64, u64) {
        let held = account.hold();
        (held.state.bytes, held.state.files)
    }

    #[test]
    fn a_quota_is_met_to_the_byte() {
        let account = account(10, 2);
        assert_eq!(account.hold().take(10, 1), Ok(()));
        assert_eq!(account.hold().take(1, 0), Err(Full));
        assert_eq!(account.hold().take(0, 1), Ok(()));
        assert_eq!(account.hold().take(0, 1), Err(Full));
        account.hold().give_back(4, 1);
        assert_eq!(account.hold().take(5, 0), Err(Full));
        assert_eq!(account.hold().take(4, 1), Ok(()));
        assert_eq!(used(&account), (10, 2));
    }

    #[test]
    fn what_takes_nothing_goes_on_beyond_a_lowered_quota() {
        let much = account(100, 100);
        much.hold().take(50, 5).expect("room");
        let less = Account::new(much.usage.clone(), quota(10, 1));
        assert_eq!(less.hold().take(0, 0), Ok(()));
        assert_eq!(less.hold().take(1, 0), Err(Full));
        assert!(less.is(&much));
    }

    #[test]
    fn many_at_once_do_not_pass_a_quota() {
        let total = Arc::new(Total::new(quota(1000, 1000)));
        let shared = account(1000, 1000);
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    let own = Account::new(Arc::new(Usage::part_of(total.clone())), Quota::default());
                    let shared = &shared;
                    scope.spawn(move || {
                        let got = |account: &Account| {
                            (0..1000).filter(|_| account.hold().take(1, 1).is_ok()).count()
                        };
                        (got(shared), got(&own), own)
                    })
                })
                .collect();
            let got: Vec<_> = takers.into_iter().map(|it| it.join().expect("joins")).collect();
            assert_eq!(got.iter().map(|it| it.0).sum::<usize>(), 1000);
            assert_eq!(got.iter().map(|it| it.1).sum::<usize>(), 1000);
        });
        assert_eq!(
            total.bytes.load(Relaxed),
            0,
            "parts give back when they are dropped"
        );
        assert_eq!(total.files.load(Relaxed), 0);
    }

    #[test]
    fn a_deleted_file_gives_back_when_it_is_closed_by_all() {
        let account = account(100, 10);
        let mut held = account.hold();
        held.take(60, 1).expect("room");
        held.opened(7, 60);
        held.opened(7, 60);
        held.nameless(7, 60);
        held.give_back(0, 1);
        held.take(20, 0).expect("room");
        held.resized(7, 80);
        held.closed(7);
        assert_eq!(held.take(30, 0), Err(Full));
        held.closed(7);
        assert_eq!(held.take(100, 0), Ok(()));
        assert!(held.state.open.is_empty());
    }

    #[test]
    fn a_folder_is_counted_with_its_holes_and_without_what_links_lead_to() {
        let (folder, elsewhere) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        fs::write(elsewhere.path().join("big"), [0; 5000]).expect("write");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("deep/er")).expect("mkdir");
        fs::write(at("deep/er/file"), [0; 30]).expect("write");
        fs::hard_link(at("deep/er/file"), at("same")).expect("link");
        File::create(at("hole"))
            .expect("create")
            .set_len(1000)
            .expect("hole");
        symlink(elsewhere.path(), at("away")).expect("symlink");
        let usage = Usage::default();
        let opened = File::open(folder.path()).expect("open").into();
        usage.count(&opened).expect("counts");
        fs::write(at("later"), "x").expect("write");
        usage.count(&opened).expect("was counted");
        let state = usage.state.lock().expect("state");
        assert_eq!((state.bytes, state.files), (1030, 6));
    }
}
