//! The folders that an app is shown, opened, and the accounts of those that it may write to.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::quota::{Account, Usage};
use crate::spec::Mount;

/// A mount that cannot be opened or counted.
#[derive(Debug, thiserror::Error)]
#[error("cannot show {} to the app as {}: {reason}", host.display(), guest)]
pub struct MountError {
    host: PathBuf,
    guest: String,
    reason: String,
}

impl MountError {
    pub(crate) fn new(mount: &Mount, reason: impl ToString) -> Self {
        Self {
            host: mount.host.clone(),
            guest: mount.guest.clone(),
            reason: reason.to_string(),
        }
    }

    fn of_system(mount: &Mount, error: io::Error) -> Self {
        Self::new(
            mount,
            match error.raw_os_error() {
                Some(libc::ELOOP) => {
                    "a part of its path has become a symbolic link since it was checked".to_owned()
                }
                _ => error.to_string(),
            },
        )
    }
}

/// Opens a mount's folder. Its path was resolved when the configuration was checked, so a symbolic link in it is one that
/// somebody has put there since: what lies behind it was not checked, and is not opened.
pub(crate) fn open(mount: &Mount) -> Result<OwnedFd, MountError> {
    open_folder(&mount.host).map_err(|error| MountError::of_system(mount, error))
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, or where a container's filter does not know the call: the last part is looked at, no others.
        Err(Errno::NOSYS | Errno::PERM) => {
            rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(Into::into)
        }
        opened => opened.map_err(Into::into),
    }
}

/// A path that leads to what is open, whatever has happened to its name.
pub(crate) fn path_of(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

/// What is known of the folders that apps write to, each counted once, however many apps and generations of them share it.
#[derive(Default)]
pub(crate) struct Usages(Mutex<HashMap<(u64, u64), Weak<Usage>>>);

impl Usages {
    /// The account of a mount with a quota, in an app that is starting. Counts the folder if nobody has; that may take a
    /// while.
    pub(crate) fn account(&self, mount: &Mount) -> Result<Option<Account>, MountError> {
        if !mount.write || mount.quota.is_none() {
            return Ok(None);
        }
        let folder = open(mount)?;
        let failed = |error: io::Error| MountError::of_system(mount, error);
        let seen = rustix::fs::fstat(&folder).map_err(|error| failed(error.into()))?;
        let usage = self.usage((seen.st_dev, seen.st_ino));
        usage.count(&folder).map_err(failed)?;
        Ok(Some(Account::new(usage, mount.quota)))
    }

    fn usage(&self, folder: (u64, u64)) -> Arc<Usage> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = known.get(&folder).and_then(Weak::upgrade) {
            return usage;
        }
        known.retain(|_, usage| usage.strong_count() > 0);
        let usage = Arc::default();
        known.insert(folder, Arc::downgrade(&usage));
        usage
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::spec::Quota;

    fn mount(host: &Path) -> Mount {
        Mount {
            host: host.to_owned(),
            guest: "/data".into(),
            write: true,
            quota: Quota {
                bytes: Some(100),
                files: None,
            },
        }
    }

    #[test]
    fn a_folder_swapped_for_a_link_is_not_opened() {
        let root = tempfile::tempdir().expect("folder");
        let root = fs::canonicalize(root.path()).expect("path");
        let (secret, tenant) = (root.join("secret"), root.join("tenant"));
        fs::create_dir_all(secret.join("data")).expect("mkdir");
        fs::create_dir_all(tenant.join("files/data")).expect("mkdir");
        let (last, within) = (mount(&tenant.join("files")), mount(&tenant.join("files/data")));
        open(&last).expect("opens");
        open(&within).expect("opens");
        fs::rename(tenant.join("files"), tenant.join("old")).expect("rename");
        symlink(&secret, tenant.join("files")).expect("symlink");
        for swapped in [last, within] {
            let error = open(&swapped).expect_err("refused").to_string();
            assert!(
                error.ends_with(
                    "to the app as /data: a part of its path has become a symbolic link since it was checked"
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn a_folder_has_one_usage_as_long_as_anybody_uses_it() {
        let folder = tempfile::tempdir().expect("folder");
        let host = fs::canonicalize(folder.path()).expect("path");
        fs::write(host.join("file"), [0; 40]).expect("write");
        let (usages, mount) = (Usages::default(), mount(&host));
        let account = || usages.account(&mount).expect("counts").expect("has a quota");
        let (first, second) = (account(), account());
        assert!(first.is(&second));
        assert!(first.hold().take(61, 0).is_err());
        first.hold().take(60, 0).expect("room");
        assert!(second.hold().take(1, 0).is_err());
        drop((first, second));
        account().hold().take(60, 0).expect("counted anew");
    }

    #[test]
    fn what_has_no_quota_is_not_counted() {
        let missing = Mount {
            quota: Quota::default(),
            ..mount(Path::new("/nowhere"))
        };
        assert!(
            Usages::default()
                .account(&missing)
                .expect("not looked at")
                .is_none()
        );
    }
}
