//! Which images were found whole since the system was started, by this process or another: these need not be read again
//! to be used.
//!
//! A checksum tells what a loss of power, a disk, or a copy from elsewhere did to a file. Who writes to it while the
//! system runs changes its times. What is left is what can happen to a file that a server has mapped for as long.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use crate::folder_state::TICK;
use crate::image_key::Digest;
use crate::private_folder::PrivateFolder;

/// In the cache's folder: marks, one behind the other.
const FILE: &str = "images.checked";

/// Marks of files that have gone, and of days before the system was started, stay until there are so many bytes.
const MOST: u64 = 1 << 20;

/// A file as it was when it was found whole, since the system was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(u128);

/// The images that were found whole.
pub(crate) struct CheckedImages {
    folder: PathBuf,
    /// Of this start of the system; empty if that cannot be told, and then no other process's marks count.
    boot: String,
    marks: OnceLock<Mutex<HashSet<Mark>>>,
}

impl CheckedImages {
    pub(crate) fn new(cache: &Path) -> Self {
        Self {
            folder: cache.to_owned(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            marks: OnceLock::new(),
        }
    }

    /// The mark of a file; `None` if it was changed so lately that one more change would not show.
    pub(crate) fn mark(&self, file: &Metadata) -> Option<Mark> {
        let changed = Duration::new(file.ctime().try_into().ok()?, file.ctime_nsec() as u32);
        let age = (SystemTime::UNIX_EPOCH + changed).elapsed().ok()?;
        if age <= TICK {
            return None;
        }
        let mut digest = Digest::default();
        digest.bytes(self.boot.as_bytes());
        for number in [file.dev(), file.ino(), file.size()] {
            digest.number(number);
        }
        for time in [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()] {
            digest.number(time as u64);
        }
        Some(Mark(digest.finish()))
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.marks().contains(&mark)
    }

    /// Notes that a file is whole, for other processes as well if that can be written.
    pub(crate) fn add(&self, mark: Mark) {
        if self.marks().insert(mark) && !self.boot.is_empty() {
            // Without it they look for themselves.
            let _ = self.write(mark);
        }
    }

    fn marks(&self) -> MutexGuard<'_, HashSet<Mark>> {
        let read = || Mutex::new(self.read().unwrap_or_default());
        let marks = self.marks.get_or_init(read);
        marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> io::Result<HashSet<Mark>> {
        let mut bytes = Vec::new();
        if !self.boot.is_empty()
            && let Some(file) = PrivateFolder::open(&self.folder)?.read(FILE)?
        {
            file.take(MOST).read_to_end(&mut bytes)?;
        }
        let (marks, _) = bytes.as_chunks();
        Ok(marks
            .iter()
            .map(|mark| Mark(u128::from_le_bytes(*mark)))
            .collect())
    }

    fn write(&self, mark: Mark) -> io::Result<()> {
        PrivateFolder::open(&self.folder)?.append(FILE, &mark.0.to_le_bytes(), MOST)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn a_file_is_known_as_long_as_nobody_changes_it_to_others_as_well() {
        let cache = tempfile::tempdir().expect("folder");
        let image = cache.path().join("image");
        let checked = || CheckedImages::new(cache.path());
        let (ours, mut others) = (checked(), checked());
        let mark = || ours.mark(&fs::metadata(&image).expect("is there"));
        let mut last = None;
        for text in ["a", "b"] {
            fs::write(&image, text).expect("write");
            sleep(2 * TICK);
            let mark = mark().expect("it is old enough");
            assert!(last != Some(mark) && !ours.has(mark) && !others.has(mark));
            ours.add(mark);
            others = checked();
            assert!(ours.has(mark) && others.has(mark), "{text}");
            last = Some(mark);
        }
        fs::write(&image, "c").expect("write");
        assert_eq!(mark(), None, "a change now would not show");

        let mut rebooted = checked();
        rebooted.boot = "another".into();
        sleep(2 * TICK);
        let mark = rebooted.mark(&fs::metadata(&image).expect("is there"));
        others.add(last.expect("a mark"));
        assert!(!rebooted.has(mark.expect("it is old enough")));
    }

    #[test]
    fn marks_do_not_grow_for_ever_and_half_a_one_harms_nobody() {
        let cache = tempfile::tempdir().expect("folder");
        let checked = CheckedImages::new(cache.path());
        let length = || fs::metadata(cache.path().join(FILE)).expect("is there").len();
        let folder = PrivateFolder::open(cache.path()).expect("private");
        folder
            .append(FILE, &vec![7; MOST as usize], MOST)
            .expect("appends");
        for cut in [0, 7] {
            fs::write(cache.path().join(FILE), vec![7; length() as usize - cut]).expect("write");
            checked.add(Mark(1 + cut as u128));
            assert_eq!(length(), 16, "begun anew");
            let others = CheckedImages::new(cache.path());
            assert!(others.has(Mark(1 + cut as u128)) && !others.has(Mark(1000)));
        }
    }
}
