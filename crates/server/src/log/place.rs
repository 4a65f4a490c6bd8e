//! Where a log file is: at a path that the operator has chosen, or in a folder that an app writes to as well.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use wasgi_engine::{HeldRoom, Room};

/// Opens an app's folder.
pub type OpenRoom = Box<dyn Fn() -> io::Result<Room> + Send>;

pub(super) enum Place {
    /// The operator's word: links in it count, but for the file itself.
    Path(PathBuf),
    /// In an app's folder. Whatever the app or its owner put there, nothing outside is written to, and what is written
    /// counts against the folder's quota.
    OfApp {
        open: OpenRoom,
        room: Option<Arc<Room>>,
        /// The file's path below the folder.
        inside: PathBuf,
    },
}

/// The folder of a log file, as it is for the moment.
pub(super) struct Folder<'a> {
    folder: OwnedFd,
    /// Of an app's folder, whose names do not change while it is held.
    held: Option<HeldRoom<'a>>,
}

impl Place {
    /// What its account is held with; `None` for a path. Taken out before [`folder`](Self::folder), which it outlives.
    pub(super) fn room(&mut self) -> io::Result<Option<Arc<Room>>> {
        match self {
            Place::Path(_) => Ok(None),
            Place::OfApp { room: Some(room), .. } => Ok(Some(Arc::clone(room))),
            Place::OfApp { open, room, .. } => Ok(Some(Arc::clone(room.insert(Arc::new(open()?))))),
        }
    }

    /// Lets go of the folder.
    pub(super) fn rest(&mut self) {
        if let Place::OfApp { room, .. } = self {
            *room = None;
        }
    }

    pub(super) fn folder<'a>(&self, room: Option<&'a Room>) -> io::Result<Folder<'a>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (path, held) = match (self, room) {
            (Place::Path(path), _) => (path, None),
            (Place::OfApp { inside, .. }, room) => (inside, room.map(Room::hold)),
        };
        let parent = path.parent().unwrap_or(path);
        let folder = match room {
            None if parent.as_os_str().is_empty() => rustix::fs::open(".", flags, Mode::empty())?,
            None => rustix::fs::open(parent, flags, Mode::empty())?,
            Some(room) => {
                let mut folder = room.as_fd().try_clone_to_owned()?;
                for part in parent.components() {
                    // A name at a time, none of them a link: there is no way out.
                    let Component::Normal(name) = part else {
                        return Err(ErrorKind::InvalidFilename.into());
                    };
                    folder = rustix::fs::openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
                }
                folder
            }
        };
        Ok(Folder { folder, held })
    }

    pub(super) fn name(&self) -> &OsStr {
        let (Place::Path(path) | Place::OfApp { inside: path, .. }) = self;
        path.file_name().unwrap_or_default()
    }

    /// The name of the file that was put aside as the `number`th.
    pub(super) fn numbered(&self, number: u32) -> OsString {
        let mut name = self.name().to_owned();
        name.push(format!(".{number}"));
        name
    }

    pub(super) fn is_of_app(&self) -> bool {
        matches!(self, Place::OfApp { .. })
    }

    /// The operator's path, for messages.
    pub(super) fn path(&self) -> Option<String> {
        match self {
            Place::Path(path) => Some(path.display().to_string()),
            Place::OfApp { .. } => None,
        }
    }
}

impl Folder<'_> {
    /// Device and inode of what has this name.
    pub(super) fn identity(&self, name: &OsStr) -> Option<(u64, u64)> {
        self.look(name).ok().map(|seen| (seen.st_dev, seen.st_ino))
    }

    fn look(&self, name: &OsStr) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens a file to append to it, and makes it if it is not there.
    pub(super) fn open(&mut self, name: &OsStr) -> io::Result<File> {
        let is_new = self.held.is_some() && self.look(name).err() == Some(Errno::NOENT);
        self.take(0, u64::from(is_new))?;
        // Not to wait for a reader if it is a pipe. A link would let who may write to the folder choose the file.
        let flags = OFlags::APPEND | OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
        let opened = rustix::fs::openat(&self.folder, name, flags, mode);
        if opened.is_err() {
            self.give_back(0, u64::from(is_new));
        }
        let file = File::from(opened?);
        let seen = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        // Its owner's own file may be anybody's by another name.
        if self.held.is_some() && seen.st_nlink > 1 {
            return Err(io::Error::other("the file has several names"));
        }
        Ok(file)
    }

    /// Gives a file another name, in the place of what has that name.
    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        self.look(from)?;
        let replaced = self.look(to).is_ok();
        if replaced && self.held.is_some() {
            self.empty(to)?;
        }
        rustix::fs::renameat(&self.folder, from, &self.folder, to)?;
        self.give_back(0, u64::from(replaced));
        Ok(())
    }

    /// Makes a file of an app's folder that is about to lose its name one of no bytes: the app may have it open, and what it
    /// keeps so would be beyond its quota.
    fn empty(&mut self, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            // A link or a pipe, which hold no bytes. A folder cannot be replaced.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let seen = rustix::fs::fstat(&file)?;
        let is_file = FileType::from_raw_mode(seen.st_mode) == FileType::RegularFile;
        if is_file && seen.st_nlink == 1 {
            rustix::fs::ftruncate(&file, 0)?;
            self.give_back(u64::try_from(seen.st_size).unwrap_or(0), 0);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, bytes: u64, files: u64) -> io::Result<()> {
        self.held.as_mut().map_or(Ok(()), |held| held.take(bytes, files))
    }

    pub(super) fn give_back(&mut self, bytes: u64, files: u64) {
        if let Some(held) = &mut self.held {
            held.give_back(bytes, files);
        }
    }
}
