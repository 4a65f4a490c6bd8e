//! What the system tells of the files in a folder without reading them: what is there, sizes, and the times of the last
//! change to contents and to metadata.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::image_key::{Digest, NoKey};

/// Most entries of one folder that are looked at.
pub(crate) const MOST: usize = 200_000;

/// The system notes times of change no finer than this.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// A folder that the app is shown, as it was when it was looked at.
#[derive(Debug)]
pub(crate) struct FolderState {
    path: PathBuf,
    files: Vec<Seen>,
    /// Of all files, but not of the folder's own path.
    digest: u128,
}

/// Compared by what is in it.
impl PartialEq for FolderState {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.files == other.files
    }
}

/// A file or folder in it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    stamp: Stamp,
}

#[derive(Debug, PartialEq, Eq)]
enum Stamp {
    /// What is in a folder has stamps of its own. Its times tell no more, and change with `__pycache__`.
    Folder,
    /// One that this process, and with it the app, cannot look into.
    Closed,
    Other {
        mode: u32,
        size: u64,
        /// Seconds and nanoseconds since 1970.
        modified: (i64, i64),
        changed: (i64, i64),
        /// What a link points to.
        target: Option<PathBuf>,
    },
}

impl FolderState {
    /// Looks at all that is in `path`, but for what is `passed_over`.
    ///
    /// # Errors
    /// [`NoKey`] if that is too much, or cannot be looked at.
    pub(crate) fn look(path: &Path, passed_over: &[&Path]) -> Result<Self, NoKey> {
        Self::look_at_most(path, passed_over, MOST)
    }

    fn look_at_most(path: &Path, passed_over: &[&Path], most: usize) -> Result<Self, NoKey> {
        let files = walk(path, passed_over, most)?;
        let mut digest = Digest::default();
        for Seen { path, stamp } in &files {
            digest.bytes(path.as_os_str().as_bytes());
            stamp.add_to(&mut digest);
        }
        Ok(Self {
            path: path.to_owned(),
            files,
            digest: digest.finish(),
        })
    }

    /// Tells states apart.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// A file or folder that is not there in the same way in both.
    pub(crate) fn difference(&self, other: &Self) -> Option<PathBuf> {
        let (ours, others) = (&self.files, &other.files);
        let index = ours.iter().zip(others).position(|(a, b)| a != b);
        let index = index.unwrap_or(ours.len().min(others.len()));
        let seen = match (ours.get(index), others.get(index)) {
            // What comes later in the other list was moved there by what has come or gone.
            (Some(a), Some(b)) if others[index + 1..].contains(a) => b,
            (a, b) => a.or(b)?,
        };
        Some(self.path.join(&seen.path))
    }

    /// Whether a change to a file from now on will show. One that comes within a tick of the last may not.
    pub(crate) fn is_settled(&self) -> bool {
        let newest = self.files.iter().filter_map(|seen| match seen.stamp {
            Stamp::Other { changed, .. } => Some(changed),
            Stamp::Folder | Stamp::Closed => None,
        });
        let Some((seconds, nanoseconds)) = newest.max() else {
            return true;
        };
        let newest = Duration::new(seconds.unsigned_abs(), nanoseconds as u32);
        (SystemTime::UNIX_EPOCH + newest)
            .elapsed()
            .is_ok_and(|age| age > TICK)
    }

    /// How long to wait for a change to show.
    pub(crate) const SETTLE: Duration = TICK.saturating_mul(2);
}

impl Stamp {
    fn add_to(&self, digest: &mut Digest) {
        match self {
            Self::Folder => digest.number(0),
            Self::Closed => digest.number(1),
            Self::Other {
                mode,
                size,
                modified,
                changed,
                target,
            } => {
                digest.number(2);
                digest.number((*mode).into());
                digest.number(*size);
                for part in [modified.0, modified.1, changed.0, changed.1] {
                    digest.number(part as u64);
                }
                let target = target.as_deref().unwrap_or(Path::new(""));
                digest.bytes(target.as_os_str().as_bytes());
            }
        }
    }
}

/// What is in `folder`, in an order that depends on names alone.
fn walk(folder: &Path, passed_over: &[&Path], most: usize) -> Result<Vec<Seen>, NoKey> {
    let mut files = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(parent) = left.pop() {
        let mut entries = match list(&parent, most - files.len()) {
            Ok(Some(entries)) => entries,
            Ok(None) => return Err(NoKey::TooMany(folder.to_owned())),
            Err(source) if parent == folder => {
                return Err(NoKey::Unreadable { path: parent, source });
            }
            Err(_) => {
                let below = parent.strip_prefix(folder).unwrap_or(&parent).to_owned();
                files.push(Seen {
                    path: below,
                    stamp: Stamp::Closed,
                });
                continue;
            }
        };
        entries.retain(|(path, metadata)| {
            let cache = metadata.is_dir() && path.file_name().is_some_and(|name| name == "__pycache__");
            !cache && !passed_over.contains(&&**path)
        });
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, metadata) in entries {
            let stamp = match metadata.is_dir() {
                true => Stamp::Folder,
                false => Stamp::Other {
                    mode: metadata.mode(),
                    size: metadata.size(),
                    modified: (metadata.mtime(), metadata.mtime_nsec()),
                    changed: (metadata.ctime(), metadata.ctime_nsec()),
                    target: metadata
                        .is_symlink()
                        .then(|| fs::read_link(&path).unwrap_or_default()),
                },
            };
            files.push(Seen {
                path: path.strip_prefix(folder).unwrap_or(&path).to_owned(),
                stamp,
            });
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(files)
}

/// What is in a folder; `None` if it is more than `most`.
fn list(folder: &Path, most: usize) -> io::Result<Option<Vec<(PathBuf, Metadata)>>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(_) if entries.len() == most => return Ok(None),
            Ok(metadata) => entries.push((entry.path(), metadata)),
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn look(folder: &Path) -> FolderState {
        FolderState::look(folder, &[&folder.join("data")]).expect("looks")
    }

    fn paths(state: &FolderState) -> Vec<&str> {
        let files = state.files.iter();
        files.map(|seen| seen.path.to_str().expect("UTF-8")).collect()
    }

    fn site() -> tempfile::TempDir {
        let site = tempfile::tempdir().expect("folder");
        for folder in ["package/__pycache__", "data", "empty"] {
            fs::create_dir_all(site.path().join(folder)).expect("mkdir");
        }
        for file in ["app.py", "package/a.py", "package/__pycache__/a.pyc", "data/rows"] {
            fs::write(site.path().join(file), file).expect("write");
        }
        symlink("app.py", site.path().join("link")).expect("symlink");
        site
    }

    #[test]
    fn everything_counts_but_compiled_files_and_data() {
        let site = site();
        assert_eq!(
            paths(&look(site.path())),
            ["app.py", "empty", "link", "package", "package/a.py"]
        );
    }

    #[test]
    fn each_change_shows_and_reading_does_not() {
        let site = site();
        let at = |name: &str| site.path().join(name);
        let mut before = look(site.path());
        fs::read(at("app.py")).expect("reads");
        fs::write(at("package/__pycache__/b.pyc"), "").expect("write");
        fs::write(at("data/rows"), "more").expect("write");
        assert_eq!(look(site.path()), before, "nothing that counts has changed");
        let changes: [(&str, &dyn Fn()); 7] = [
            ("contents", &|| fs::write(at("app.py"), "APP.py").expect("write")),
            ("a new file", &|| fs::write(at("empty/new"), "").expect("write")),
            ("a removed file", &|| {
                fs::remove_file(at("empty/new")).expect("rm")
            }),
            ("a name", &|| {
                fs::rename(at("package/a.py"), at("package/b.py")).expect("mv")
            }),
            ("a link", &|| {
                fs::remove_file(at("link")).expect("rm");
                symlink("package", at("link")).expect("symlink");
            }),
            ("permissions", &|| {
                fs::set_permissions(at("app.py"), fs::Permissions::from_mode(0o400)).expect("chmod");
            }),
            ("the time put back", &|| {
                let file = fs::File::options()
                    .append(true)
                    .open(at("package/b.py"))
                    .expect("open");
                let time = SystemTime::UNIX_EPOCH;
                file.set_modified(time).expect("utimes");
            }),
        ];
        for (what, change) in changes {
            std::thread::sleep(TICK);
            change();
            let after = look(site.path());
            assert_ne!(after, before, "{what}");
            before = after;
        }
    }

    #[test]
    fn a_folder_without_end_is_named() {
        let site = site();
        let error = FolderState::look_at_most(site.path(), &[], 6).expect_err("too many");
        assert!(
            matches!(&error, NoKey::TooMany(path) if path == site.path()),
            "{error}"
        );
        assert!(FolderState::look(&site.path().join("nowhere"), &[]).is_err());
    }

    #[test]
    fn what_differs_is_named() {
        let site = site();
        let look = || look(site.path());
        let before = look();
        assert_eq!(before.difference(&look()), None);
        fs::write(site.path().join("c.py"), "").expect("write");
        let after = look();
        assert_eq!(after.difference(&before), Some(site.path().join("c.py")));
        assert_eq!(before.difference(&after), after.difference(&before));
        assert_ne!(after.digest(), before.digest());
        assert!(!after.is_settled(), "written just now");
        std::thread::sleep(FolderState::SETTLE);
        assert!(after.is_settled());
    }
}
