//! Log files: found again when they were moved, and put aside when they are large.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::batch::Batch;
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
    path: PathBuf,
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
    pub(super) fn new(path: PathBuf, rotation: Option<Rotation>) -> Self {
        Self {
            path,
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
        self.opened(Instant::now()).map(|_| ())
    }

    fn opened(&mut self, now: Instant) -> io::Result<&mut Open> {
        if let Some(open) = &mut self.open
            && now.saturating_duration_since(open.looked) >= LOOK
        {
            open.looked = now;
            // Moved away or deleted, with its folder perhaps: what is written to it nobody would find.
            if identity(&self.path) != Some(open.identity) {
                self.open = None;
            }
        }
        match &mut self.open {
            Some(open) => Ok(open),
            closed => Ok(closed.insert(open(&self.path, now)?)),
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
            let open = self.opened(now)?;
            open.used = now;
            match open.file.write(rest) {
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
        for number in (1..rotation.keep).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.open = None;
        Ok(())
    }
}

impl Sink for LogFile {
    fn write(&mut self, batch: &Batch, now: Instant) -> Result<(), Failed> {
        let before = self.open.as_ref().map(|open| open.size);
        let written = self.write_all(&batch.text, now);
        if let Err(error) = written {
            let after = self.open.as_ref().map(|open| open.size);
            let kept = after
                .zip(before)
                .map_or(0, |(after, before)| after.saturating_sub(before));
            let kept = &batch.text.as_bytes()[..batch.text.len().min(kept as usize)];
            let whole = kept.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.open = None;
            return Err(Failed {
                lost: batch.lines.saturating_sub(whole),
                error,
            });
        }
        // If it cannot be put aside it grows on: no line is lost for that.
        let _ = self.rotate();
        Ok(())
    }

    fn name(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    fn reopen(&mut self) {
        self.open = None;
    }

    fn rest(&mut self, now: Instant) -> bool {
        self.open
            .take_if(|open| now.saturating_duration_since(open.used) >= REST);
        self.open.is_some()
    }
}

fn open(path: &Path, now: Instant) -> io::Result<Open> {
    // Not to wait for a reader if it is a pipe. A link would let who may write to the folder choose the file.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(Open {
        file,
        identity: (metadata.dev(), metadata.ino()),
        size: metadata.len(),
        looked: now,
        used: now,
    })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
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
        let mut file = LogFile::new(path.clone(), Some(Rotation { size: 20, keep: 2 }));
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
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (path, moved) = (inner.join("a.log"), folder.path().join("moved"));
        let mut file = LogFile::new(path.clone(), None);
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
        let mut file = LogFile::new(link, None);
        assert!(file.write(&batch(&["one"]), Instant::now()).is_err());
        assert!(!target.exists());
        let mut device = LogFile::new("/dev/null".into(), None);
        let failed = device.write(&batch(&["one"]), Instant::now()).unwrap_err();
        assert!(failed.error.to_string().contains("regular"), "{}", failed.error);
    }

    #[test]
    fn files_that_rest_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LogFile::new(folder.path().join("a.log"), None);
        let now = Instant::now();
        file.write(&batch(&["one"]), now).unwrap();
        assert!(file.rest(now));
        assert!(!file.rest(now + REST));
    }
}
