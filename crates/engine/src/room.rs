//! What the host writes itself in a folder of an app's, such as a log of its owner's: within the folder's quota, as the app does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::engine::Engine;
use crate::mounts::{self, MountError};
use crate::quota::{Account, Held};
use crate::spec::Mount;

/// A folder that an app may write to, opened for the host.
pub struct Room {
    folder: OwnedFd,
    account: Option<Account>,
}

/// A room that is being used: no call of a guest's takes or gives back any of its quota meanwhile.
pub struct HeldRoom<'a>(Option<Held<'a>>);

impl Engine {
    /// Opens the folder of a mount that the app may write to. Counts what is in it, if it has a quota and nobody has done so;
    /// that may take a while.
    ///
    /// # Errors
    /// If it is not there, cannot be counted, or has become a symbolic link.
    pub fn room(&self, mount: &Mount) -> Result<Room, MountError> {
        Ok(Room {
            folder: mounts::open(mount)?,
            account: self.usages.account(mount)?,
        })
    }
}

impl Room {
    /// Waits for who uses it.
    pub fn hold(&self) -> HeldRoom<'_> {
        HeldRoom(self.account.as_ref().map(Account::hold))
    }
}

impl AsFd for Room {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl HeldRoom<'_> {
    /// Takes room for bytes and names that are about to be made.
    ///
    /// # Errors
    /// If the quota has none left.
    pub fn take(&mut self, bytes: u64, files: u64) -> io::Result<()> {
        let taken = self.0.as_mut().map_or(Ok(()), |held| held.take(bytes, files));
        taken.map_err(|_| io::Error::new(io::ErrorKind::QuotaExceeded, "the folder's quota is used up"))
    }

    /// Gives back what was not made after all, or is gone.
    pub fn give_back(&mut self, bytes: u64, files: u64) {
        if let Some(held) = &mut self.0 {
            held.give_back(bytes, files);
        }
    }
}
