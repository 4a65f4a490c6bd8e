//! Record locks on files, between the instances of one app.
//!
//! WASI has none, and SQLite relies on them: without, two workers writing one database would corrupt it. Locks are held
//! in this process only; programs outside do not see them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most locks one instance may hold: a guest must not fill the host's memory with them.
const MAX_LOCKS: usize = 1024;

/// Which file, by device and inode.
type FileId = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// Bytes from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// A `length` of 0 reaches to the end of any file. `None` for what no file has.
    pub(crate) fn new(start: i64, length: i64) -> Option<Self> {
        let start = u64::try_from(start).ok()?;
        let end = match u64::try_from(length).ok()? {
            0 => u64::MAX,
            length => start.checked_add(length)?,
        };
        Some(Self { start, end })
    }

    fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    owner: u64,
    kind: Kind,
    range: Range,
}

#[derive(Default)]
struct Table {
    next_owner: u64,
    files: HashMap<FileId, Vec<Lock>>,
}

/// The locks of one app.
#[derive(Clone, Default)]
pub(crate) struct Locks {
    table: Arc<Mutex<Table>>,
}

/// One instance's share of the locks; all of them go when it is dropped, as a process's do when it ends.
pub(crate) struct Owner {
    id: u64,
    locks: Locks,
    held: usize,
}

/// Why a lock was not given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another instance holds it.
    Held,
    /// This instance has as many as it may.
    TooMany,
}

impl Locks {
    pub(crate) fn owner(&self) -> Owner {
        let mut table = self.lock();
        table.next_owner += 1;
        Owner {
            id: table.next_owner,
            locks: self.clone(),
            held: 0,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// Takes, changes or (`kind` of `None`) gives back a lock on part of a file, as POSIX `F_SETLK` does: an own lock on
    /// the same bytes is replaced, split where it reaches further. Never waits.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub(crate) fn set(&mut self, file: FileId, range: Range, kind: Option<Kind>) -> Result<(), Refused> {
        let mut table = self.locks.lock();
        if let Some(kind) = kind {
            if conflicts(&table, self.id, file, range, kind) {
                return Err(Refused::Held);
            }
            if self.held >= MAX_LOCKS {
                return Err(Refused::TooMany);
            }
        }
        let locks = table.files.entry(file).or_default();
        let before = locks.len();
        let mut pieces = Vec::new();
        locks.retain(|lock| {
            if lock.owner != self.id || !lock.range.overlaps(range) {
                return true;
            }
            let left = Range {
                start: lock.range.start,
                end: range.start,
            };
            let right = Range {
                start: range.end,
                end: lock.range.end,
            };
            pieces.extend(
                [left, right]
                    .into_iter()
                    .filter(|piece| piece.start < piece.end)
                    .map(|piece| Lock {
                        range: piece,
                        ..*lock
                    }),
            );
            false
        });
        locks.append(&mut pieces);
        if let Some(kind) = kind {
            locks.push(Lock {
                owner: self.id,
                kind,
                range,
            });
        }
        self.held = self.held + locks.len() - before;
        if locks.is_empty() {
            table.files.remove(&file);
        }
        Ok(())
    }

    /// Gives back all locks.
    pub(crate) fn release(&mut self) {
        if self.held > 0 {
            self.held = 0;
            self.locks.lock().files.retain(|_, locks| {
                locks.retain(|lock| lock.owner != self.id);
                !locks.is_empty()
            });
        }
    }

    /// Whether [`set`](Self::set) would be refused because another instance holds the lock.
    pub(crate) fn is_held_elsewhere(&self, file: FileId, range: Range, kind: Kind) -> bool {
        conflicts(&self.locks.lock(), self.id, file, range, kind)
    }
}

fn conflicts(table: &Table, owner: u64, file: FileId, range: Range, kind: Kind) -> bool {
    table.files.get(&file).is_some_and(|locks| {
        locks.iter().any(|lock| {
            lock.owner != owner
                && lock.range.overlaps(range)
                && (lock.kind == Kind::Write || kind == Kind::Write)
        })
    })
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = (1, 2);

    fn range(start: i64, length: i64) -> Range {
        Range::new(start, length).expect("valid range")
    }

    #[test]
    fn readers_share_and_a_writer_does_not() {
        let locks = Locks::default();
        let (mut a, mut b) = (locks.owner(), locks.owner());
        assert_eq!(a.set(FILE, range(0, 10), Some(Kind::Read)), Ok(()));
        assert_eq!(b.set(FILE, range(5, 10), Some(Kind::Read)), Ok(()));
        assert_eq!(b.set(FILE, range(9, 1), Some(Kind::Write)), Err(Refused::Held));
        assert_eq!(b.set(FILE, range(10, 1), Some(Kind::Write)), Ok(()));
        assert_eq!(b.set((1, 3), range(0, 0), Some(Kind::Write)), Ok(()));
        assert!(a.is_held_elsewhere(FILE, range(10, 0), Kind::Read));
        assert!(!b.is_held_elsewhere(FILE, range(10, 0), Kind::Write));
    }

    #[test]
    fn unlocking_the_middle_keeps_both_ends() {
        let locks = Locks::default();
        let (mut a, mut b) = (locks.owner(), locks.owner());
        a.set(FILE, range(0, 0), Some(Kind::Write)).expect("free");
        a.set(FILE, range(10, 10), None).expect("own");
        assert_eq!(b.set(FILE, range(10, 10), Some(Kind::Write)), Ok(()));
        assert_eq!(b.set(FILE, range(9, 1), Some(Kind::Read)), Err(Refused::Held));
        assert_eq!(b.set(FILE, range(20, 1), Some(Kind::Read)), Err(Refused::Held));
    }

    #[test]
    fn an_instance_that_is_gone_holds_nothing() {
        let locks = Locks::default();
        let (mut a, mut b) = (locks.owner(), locks.owner());
        a.set(FILE, range(0, 1), Some(Kind::Write)).expect("free");
        assert_eq!(b.set(FILE, range(0, 1), Some(Kind::Write)), Err(Refused::Held));
        drop(a);
        assert_eq!(b.set(FILE, range(0, 1), Some(Kind::Write)), Ok(()));
        b.set(FILE, range(0, 0), None).expect("own");
        assert!(locks.lock().files.is_empty());
    }

    #[test]
    fn an_instance_cannot_fill_the_table() {
        let locks = Locks::default();
        let mut a = locks.owner();
        for start in 0..MAX_LOCKS as i64 {
            assert_eq!(a.set(FILE, range(start * 2, 1), Some(Kind::Write)), Ok(()));
        }
        assert_eq!(a.set(FILE, range(1, 1), Some(Kind::Write)), Err(Refused::TooMany));
        a.set(FILE, range(0, 0), None).expect("own");
        assert_eq!(a.set(FILE, range(1, 1), Some(Kind::Write)), Ok(()));
    }
}
