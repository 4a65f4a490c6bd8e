//! Log files: found again when they were moved, and put aside when they are large.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::place::{Folder, Place};
use super::sink::{Failed, Sink};

/// Between two looks at whether the file is still the one with its name.
const LOOK: Duration = Duration::from_secs(1);

/// How long a file that is not written to stays open.
const REST: Duration = Duration::from_secs(60);

/// When a file is put aside: its size, and how many of those put aside are kept, as `a.log.1` (the newest) and so on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    pub(super) size: u64,
    pub(super) keep: u32,
}

pub(super) struct LogFile {
    place: Place,
    rotation: Option<Rotation>,
    open: Option<Open>,
    /// What was written last has no line end: the disk was full.
    is_cut: bool,
}

struct Open {
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    looked: Instant,
    used: Instant,
}

impl LogFile {
    /// A file that is opened when there is something to write.
    pub(super) fn new(place: Place, rotation: Option<Rotation>) -> Self {
        Self {
            place,
            rotation,
            open: None,
            is_cut: false,
        }
    }

    /// Opens the file now.
    ///
    /// # Errors
    /// Why it cannot be written to.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let room = self.place.room()?;
        let mut folder = self.place.folder(room.as_deref())?;
        self.opened(&mut folder, Instant::now()).map(|_| ())
    }

    /// The file, opened anew if it is not the one with its name any more.
    fn opened(&mut self, folder: &mut Folder<'_>, now: Instant) -> io::Result<&mut Open> {
        let name = self.place.name();
        if let Some(open) = &self.open
            && folder.identity(name) != Some(open.identity)
        {
            // Moved away or deleted, with its folder perhaps: what is written to it nobody would find.
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(Open::of(folder.open(name)?, now)?),
        };
        open.looked = now;
        Ok(open)
    }

    /// What of `text` is for this file: up to the end of the line with which it is large enough to be put aside.
    fn portion<'a>(&mut self, text: &'a str) -> &'a str {
        let Some(rotation) = self.rotation else {
            return text;
        };
        if self.open.is_none() {
            // Why it cannot be, the write will tell.
            let _ = self.open();
        }
        let size = self.open.as_ref().map_or(0, |open| open.size);
        let left = usize::try_from(rotation.size.saturating_sub(size)).unwrap_or(usize::MAX);
        let last = left.saturating_sub(1);
        let after = text.as_bytes().get(last..).unwrap_or_default();
        match after.iter().position(|&byte| byte == b'\n') {
            Some(end) => &text[..=last + end],
            None => text,
        }
    }

    fn write_all(&mut self, text: &str, now: Instant) -> io::Result<()> {
        let end = if self.is_cut { "\n" } else { "" };
        self.append(end, now)?;
        self.append(text, now)
    }

    fn append(&mut self, text: &str, now: Instant) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // In an app's folder names change at any time but while it is held.
            let looked = self.open.as_ref().map(|open| open.looked);
            let is_known = looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK);
            let written = match &mut self.open {
                Some(open) if is_known && !self.place.is_of_app() => open.file.write(rest),
                _ => {
                    let room = self.place.room()?;
                    let mut folder = self.place.folder(room.as_deref())?;
                    let open = self.opened(&mut folder, now)?;
                    folder.take(rest.len() as u64, 0)?;
                    let written = open.file.write(rest);
                    let unused = rest.len() - written.as_ref().unwrap_or(&0);
                    folder.give_back(unused as u64, 0);
                    written
                }
            };
            let Some(open) = &mut self.open else { continue };
            open.used = now;
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    open.size += written as u64;
                    self.is_cut = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Moves the file to `a.log.1`, that one to `a.log.2`, and so on; the last is written over.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(rotation) = self.rotation else {
            return Ok(());
        };
        if self.open.as_ref().is_none_or(|open| open.size < rotation.size) {
            return Ok(());
        }
        let room = self.place.room()?;
        let mut folder = self.place.folder(room.as_deref())?;
        let numbered = |number| self.place.numbered(number);
        for number in (1..rotation.keep).rev() {
            match folder.rename(&numbered(number), &numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        folder.rename(self.place.name(), &numbered(1))?;
        self.open = None;
        Ok(())
    }
}

impl Open {
    fn of(file: File, now: Instant) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            looked: now,
            used: now,
        })
    }
}

impl Sink for LogFile {
    fn write(&mut self, batch: &Batch, now: Instant) -> Result<(), Failed> {
        let text = &batch.text;
        let mut start = 0;
        let mut rotates = self.rotation.is_some();
        while start < text.len() {
            let portion = if rotates {
                self.portion(&text[start..])
            } else {
                &text[start..]
            };
            let before = self.open.as_ref().map(|open| open.size);
            if let Err(error) = self.write_all(portion, now) {
                let after = self.open.as_ref().map(|open| open.size);
                let kept = after
                    .zip(before)
                    .map_or(0, |(after, before)| after.saturating_sub(before));
                let kept = &text.as_bytes()[..text.len().min(start + kept as usize)];
                let whole = kept.iter().filter(|&&byte| byte == b'\n').count() as u64;
                self.open = None;
                return Err(Failed {
                    lost: batch.lines.saturating_sub(whole),
                    error,
                });
            }
            start += portion.len();
            // If it cannot be put aside it grows on: no line is lost for that.
            rotates &= self.rotate().is_ok();
        }
        Ok(())
    }

    fn name(&self) -> Option<String> {
        self.place.path()
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn rest(&mut self, now: Instant) -> bool {
        self.open
            .take_if(|open| now.saturating_duration_since(open.used) >= REST);
        if self.open.is_none() {
            self.place.rest();
        }
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::log::batch::{Line, Severity};

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for text in lines {
            let line = Line {
                text,
                mark: (0, ""),
                severity: Severity::Info,
                app: None,
                id: None,
            };
            batch.push(&line, false, false);
        }
        batch
    }

    #[test]
    fn a_file_is_put_aside_when_it_is_large_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut file = LogFile::new(Place::Path(path.clone()), Some(Rotation { size: 20, keep: 2 }));
        let now = Instant::now();
        for number in 0..7 {
            file.write(&batch(&[&format!("line {number} 89")]), now).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("a.log"), "line 6 89\n");
        assert_eq!(read("a.log.1"), "line 4 89\nline 5 89\n");
        assert_eq!(read("a.log.2"), "line 2 89\nline 3 89\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640,
            0
        );
    }

    #[test]
    fn many_lines_at_once_are_put_aside_as_they_would_be_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::new(Place::Path(path.clone()), Some(Rotation { size: 20, keep: 2 }));
        let lines: Vec<_> = (0..6).map(|number| format!("line {number} 89")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        file.write(&batch(&lines), Instant::now()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("a.log.2"), "line 2 89\nline 3 89\n");
        assert_eq!(read("a.log.1"), "line 4 89\nline 5 89\n");
        assert!(!path.exists());
        // What cannot be put aside grows on.
        fs::remove_file(folder.path().join("a.log.2")).unwrap();
        fs::create_dir(folder.path().join("a.log.2")).unwrap();
        file.write(&batch(&lines), Instant::now()).unwrap();
        assert_eq!(read("a.log").lines().count(), 6);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (path, moved) = (inner.join("a.log"), folder.path().join("moved"));
        let mut file = LogFile::new(Place::Path(path.clone()), None);
        let mut now = Instant::now();
        file.write(&batch(&["one"]), now).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.reopen();
        file.write(&batch(&["two"]), now).unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        // Without a word of it, and with the folder gone.
        fs::remove_dir_all(&inner).unwrap();
        now += LOOK;
        let failed = file.write(&batch(&["three", "four"]), now).unwrap_err();
        assert_eq!((failed.lost, failed.error.kind()), (2, io::ErrorKind::NotFound));
        fs::create_dir(&inner).unwrap();
        file.write(&batch(&["five"]), now).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "five\n");
    }

    #[test]
    fn links_and_what_is_no_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        symlink(&target, &link).unwrap();
        let mut file = LogFile::new(Place::Path(link), None);
        assert!(file.write(&batch(&["one"]), Instant::now()).is_err());
        assert!(!target.exists());
        let mut device = LogFile::new(Place::Path("/dev/null".into()), None);
        let failed = device.write(&batch(&["one"]), Instant::now()).unwrap_err();
        assert!(failed.error.to_string().contains("regular"), "{}", failed.error);
    }

    #[test]
    fn files_that_rest_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(Place::Path(folder.path().join("a.log")), None);
        let now = Instant::now();
        file.write(&batch(&["one"]), now).unwrap();
        assert!(file.rest(now));
        assert!(!file.rest(now + REST));
    }
}
