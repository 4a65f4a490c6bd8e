//! Gives root up for good, once what only root may do is done.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};
use rustix::fs::OFlags;
use wasgi_config::User;

/// No program that this process becomes or starts has more rights than it, whatever its file says.
///
/// To be called before there are threads: it holds for the calling thread and those that it starts.
///
/// # Errors
/// What the system said.
pub fn no_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Makes this process `user`'s, with its groups, for good.
///
/// There may be threads by now: the C library's functions of these names change each of them, where the system calls of
/// the same names would change the caller alone, and leave the others root's.
///
/// # Errors
/// When the system refuses, or root could be had back. The process is to end then: it is neither root's nor the user's.
pub fn become_user(user: &User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Groups first: who is not root may not change them.
    match &user.name {
        Some(name) => unistd::initgroups(&CString::new(name.as_str())?, gid)?,
        None => unistd::setgroups(&[gid])?,
    }
    // Real, effective and saved: with the last of them left, root would be one call away.
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    let (uids, gids) = (unistd::getresuid()?, unistd::getresgid()?);
    let is_whole = [uids.real, uids.effective, uids.saved] == [uid; 3]
        && [gids.real, gids.effective, gids.saved] == [gid; 3];
    let root = Uid::from_raw(0);
    let is_for_good = uid == root || unistd::setresuid(root, root, root) == Err(Errno::EPERM);
    match is_whole && is_for_good {
        true => Ok(()),
        false => Err(io::Error::other("the rights of root could be had back")),
    }
}

/// Gives `user` a file that root has the rights to, and makes it if it is not there: one that the process goes on to
/// write, in a folder that may be root's alone.
///
/// # Errors
/// What the system said; and when it is no plain file of one name. In a folder that others may write to, a link could
/// stand for any file of root's.
pub fn give_file(path: &Path, user: &User) -> io::Result<()> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    match found.is_file() && found.nlink() == 1 {
        true => fchown(&file, Some(user.uid), Some(user.gid)),
        false => Err(io::Error::other("it is a link, or no file")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_to_another_file_is_not_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let [secret, hard, soft, own] =
            ["secret", "hard", "soft", "own"].map(|name| folder.path().join(name));
        fs::write(&secret, "hush").unwrap();
        let before = fs::metadata(&secret).unwrap().uid();
        fs::hard_link(&secret, &hard).unwrap();
        symlink(&secret, &soft).unwrap();
        let user = User {
            shown: "other".to_owned(),
            name: None,
            uid: before + 33,
            gid: 33,
        };
        for link in [&hard, &soft] {
            assert!(give_file(link, &user).is_err(), "{}", link.display());
        }
        assert_eq!(fs::metadata(&secret).unwrap().uid(), before);
        let given = give_file(&own, &user);
        if Uid::effective().is_root() {
            given.unwrap();
            assert_eq!(fs::metadata(&own).unwrap().uid(), 33);
        }
    }
}
