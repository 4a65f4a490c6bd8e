//! Folders of this user alone, and the files in them: what is taken from there is trusted without a look at who wrote it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use twox_hash::XxHash3_128;

/// A new file's name until it is whole. One for all: they are written one at a time.
const NEW: &str = "new.part";

/// A folder that belongs to this user, and that nobody else may write to.
#[derive(Clone)]
pub(crate) struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    /// Takes the folder if it is this user's alone; makes it if it is not there.
    ///
    /// # Errors
    /// Those of making it, and `PermissionDenied` with the reason if it may not be trusted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Err(denied("it is a link to a folder, not a folder"));
        }
        check_owner(&metadata)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file for reading; `None` if it is not there.
    ///
    /// # Errors
    /// Those of opening it, and `PermissionDenied` with the reason if it may not be trusted.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<File>> {
        let opened = OpenOptions::new()
            .read(true)
            // Opening what is no file, such as a pipe, must not wait for another process.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path.join(name));
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(denied("it is a link")),
            file => file?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(denied("it is not a file"));
        }
        check_owner(&metadata)?;
        Ok(Some(file))
    }

    /// Adds one more entry of a length that all have to a file; begins anew if that would make more than `most` bytes, or if
    /// the last entry was cut.
    ///
    /// # Errors
    /// Those of opening and writing it, and `PermissionDenied` with the reason if it may not be trusted.
    pub(crate) fn append(&self, name: &str, entry: &[u8], most: u64) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(denied("it is not a file"));
        }
        check_owner(&metadata)?;
        let (length, more) = (metadata.len(), entry.len() as u64);
        if length + more > most || length % more != 0 {
            file.set_len(0)?;
        }
        file.write_all(entry)
    }

    /// Puts a file there, in place of the old one if there is one. Whoever reads meanwhile sees the old one or the whole
    /// new one, after a loss of power too.
    ///
    /// # Errors
    /// Those of `write` and of the system; the old file is as it was then.
    pub(crate) fn replace(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = File::open(&self.path)?;
        // Until `folder` is closed, what has the name NEW is ours, or was left by a process that was killed.
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
        let new = self.path.join(NEW);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                write(&mut file)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&new, self.path.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// What tells damage to a file: XXH3, which is fast, and no help against somebody who may write the file.
pub(crate) fn checksum(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// Takes a file that somebody else has opened if it is this user's or root's, and nobody else may write to it.
pub(crate) fn check_trusted(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(denied("it is not a file"));
    }
    if metadata.uid() == 0 && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    check_owner(&metadata)
}

fn check_owner(metadata: &Metadata) -> io::Result<()> {
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(denied("it belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(denied("others may write to it"));
    }
    Ok(())
}

fn denied(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, reason)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn put(folder: &PrivateFolder, name: &str, text: &str) {
        folder
            .replace(name, |file| file.write_all(text.as_bytes()))
            .expect("written");
    }

    fn text(folder: &PrivateFolder, name: &str) -> String {
        let mut text = String::new();
        let mut file = folder.read(name).expect("opens").expect("is there");
        file.read_to_string(&mut text).expect("reads");
        text
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn folder_and_files_are_for_this_user_alone() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = PrivateFolder::open(&parent.path().join("a/b")).expect("made");
        assert!(folder.read("x").expect("looks").is_none());
        put(&folder, "x", "one");
        put(&folder, "x", "two");
        assert_eq!(text(&folder, "x"), "two");
        assert_eq!(
            (mode(folder.path()), mode(&folder.path().join("x"))),
            (0o700, 0o600)
        );
    }

    #[test]
    fn what_another_may_have_written_is_not_taken() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = PrivateFolder::open(&parent.path().join("folder")).expect("made");
        put(&folder, "x", "text");
        let file = folder.path().join("x");
        let said = |folder: &PrivateFolder, name: &str| folder.read(name).expect_err("refused").to_string();

        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).expect("chmod");
        assert_eq!(said(&folder, "x"), "others may write to it");
        symlink("x", folder.path().join("link")).expect("symlink");
        assert_eq!(said(&folder, "link"), "it is a link");
        fs::create_dir(folder.path().join("dir")).expect("mkdir");
        assert_eq!(said(&folder, "dir"), "it is not a file");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .expect("mkfifo");
        assert_eq!(said(&folder, "pipe"), "it is not a file");

        let open = |path: &Path| PrivateFolder::open(path).err().expect("refused").to_string();
        let link = parent.path().join("link");
        symlink(folder.path(), &link).expect("symlink");
        assert_eq!(open(&link), "it is a link to a folder, not a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert_eq!(open(folder.path()), "others may write to it");
    }

    #[test]
    fn what_belongs_to_another_user_is_not_taken() {
        let said = |error: Option<io::Error>| error.expect("refused").to_string();
        // Only root can give a file away; for others root's own folder is such a one.
        if !rustix::process::geteuid().is_root() {
            let error = PrivateFolder::open(Path::new("/")).err();
            assert_eq!(said(error), "it belongs to another user");
            return;
        }
        let parent = tempfile::tempdir().expect("folder");
        let folder = PrivateFolder::open(&parent.path().join("folder")).expect("made");
        put(&folder, "x", "text");
        std::os::unix::fs::chown(folder.path().join("x"), Some(65534), None).expect("chown");
        assert_eq!(said(folder.read("x").err()), "it belongs to another user");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = PrivateFolder::open(&parent.path().join("folder")).expect("made");
        put(&folder, "x", "old");
        let failed = folder.replace("x", |file| {
            file.write_all(b"half")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        });
        assert_eq!(failed.expect_err("fails").kind(), ErrorKind::StorageFull);
        assert_eq!(text(&folder, "x"), "old");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
        // What a killed process left is in nobody's way.
        fs::write(folder.path().join(NEW), "left").expect("write");
        put(&folder, "x", "new");
        assert_eq!(text(&folder, "x"), "new");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }
}
