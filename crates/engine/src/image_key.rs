//! What an image was made from: whatever goes into an app's start is in the key, so that an image of other ingredients is
//! not taken for this app's.
//!
//! Files count by what the system tells of them without reading them: size, and the times of the last change to contents
//! and to metadata. What the app reads in folders that it may write to is not in the key.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use twox_hash::XxHash3_128;

use crate::engine::Engine;
use crate::spec::{AppSpec, Entry, Isolation, Limits, Mount};

/// Most entries of one folder that are looked at.
const MOST: usize = 200_000;

/// The system notes times of change no finer than this.
const TICK: Duration = Duration::from_millis(20);

/// Told from others by all that goes into an app's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u128);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    #[error("{} holds more than {MOST} files and folders", .0.display())]
    TooMany(PathBuf),
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

/// All that goes into an app's image, as it is now.
#[derive(PartialEq, Eq)]
pub(crate) struct Ingredients {
    /// The guest and the app's spec.
    settings: u128,
    files: Vec<Seen>,
}

/// A file or folder that the app can read.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The folder that the app is shown...
    folder: PathBuf,
    /// ...and the path in it.
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

impl Ingredients {
    /// Looks at everything.
    ///
    /// # Errors
    /// [`NoKey`] if that is too much, or cannot be looked at.
    pub(crate) fn look(engine: &Engine, spec: &AppSpec) -> Result<Self, NoKey> {
        let written = spec.mounts.iter().filter(|mount| mount.write);
        // An app's folder may hold its data. It also may be its user's home, with the cache in it.
        let passed_over: Vec<&Path> = written
            .map(|mount| &*mount.host)
            .chain([&*engine.cache])
            .collect();
        let read = spec.mounts.iter().filter(|mount| !mount.write);
        let mut files = Vec::new();
        for folder in read.map(|mount| &mount.host).chain([&engine.python.lib]) {
            walk(folder, &passed_over, MOST, &mut files)?;
        }
        let mut digest = Digest::default();
        digest.bytes(env!("CARGO_PKG_VERSION").as_bytes());
        digest.bytes(&engine.digest.to_le_bytes());
        digest.spec(spec);
        Ok(Self {
            settings: digest.0.finish_128(),
            files,
        })
    }

    pub(crate) fn key(&self) -> Key {
        let mut digest = Digest::default();
        digest.bytes(&self.settings.to_le_bytes());
        for Seen {
            folder: _,
            path,
            stamp,
        } in &self.files
        {
            digest.bytes(path.as_os_str().as_bytes());
            digest.stamp(stamp);
        }
        Key(digest.0.finish_128())
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
        Some(seen.folder.join(&seen.path))
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

/// Adds what is in `folder` to `files`, in an order that depends on names alone.
fn walk(folder: &Path, passed_over: &[&Path], most: usize, files: &mut Vec<Seen>) -> Result<(), NoKey> {
    let end = files.len() + most;
    let mut left = vec![folder.to_owned()];
    while let Some(parent) = left.pop() {
        let mut entries = match list(&parent, end - files.len()) {
            Ok(Some(entries)) => entries,
            Ok(None) => return Err(NoKey::TooMany(folder.to_owned())),
            Err(source) if parent == folder => {
                return Err(NoKey::Unreadable { path: parent, source });
            }
            Err(_) => {
                let below = parent.strip_prefix(folder).unwrap_or(&parent).to_owned();
                files.push(Seen {
                    folder: folder.to_owned(),
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
                folder: folder.to_owned(),
                path: path.strip_prefix(folder).unwrap_or(&path).to_owned(),
                stamp,
            });
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    Ok(())
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

/// A hash of parts, each with its length, so that no two lists of parts are the same bytes.
#[derive(Default)]
struct Digest(XxHash3_128);

impl Digest {
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.write(bytes);
    }

    fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    fn list<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a String>) {
        self.number(texts.len() as u64);
        for text in texts {
            self.bytes(text.as_bytes());
        }
    }

    fn time(&mut self, time: Duration) {
        self.bytes(&time.as_nanos().to_le_bytes());
    }

    fn stamp(&mut self, stamp: &Stamp) {
        match stamp {
            Stamp::Folder => self.number(0),
            Stamp::Closed => self.number(1),
            Stamp::Other {
                mode,
                size,
                modified,
                changed,
                target,
            } => {
                self.number(2);
                self.number((*mode).into());
                self.number(*size);
                for part in [modified.0, modified.1, changed.0, changed.1] {
                    self.number(part as u64);
                }
                let target = target.as_deref().unwrap_or(Path::new(""));
                self.bytes(target.as_os_str().as_bytes());
            }
        }
    }

    /// All that the guest sees of it before its snapshot. The name is in the image's file name; whether there is a cache changes nothing.
    fn spec(&mut self, spec: &AppSpec) {
        let AppSpec {
            name: _,
            entry,
            sys_path,
            site_dirs,
            mounts,
            env,
            secrets,
            working_dir,
            isolation,
            warmup,
            limits,
            snapshot_cache: _,
        } = spec;
        match entry {
            Entry::Module { module, callable } => {
                self.list(["module".to_owned(), module.clone(), callable.clone()].iter())
            }
            Entry::File { path, callable } => {
                self.list(["file".to_owned(), path.clone(), callable.clone()].iter())
            }
        }
        self.list(sys_path.iter());
        self.list(site_dirs.iter());
        self.number(mounts.len() as u64);
        for Mount {
            host: _,
            guest,
            write,
        } in mounts
        {
            self.bytes(guest.as_bytes());
            self.number((*write).into());
        }
        self.number(env.len() as u64);
        for (name, value) in env {
            self.bytes(name.as_bytes());
            self.bytes(value.as_bytes());
        }
        self.list(secrets.iter().map(|secret| &secret.name));
        self.bytes(working_dir.as_bytes());
        self.number(match isolation {
            Isolation::Worker => 0,
            Isolation::Request => 1,
        });
        self.list(warmup.iter());
        let Limits {
            time,
            grace,
            start,
            memory,
        } = limits;
        for limit in [time, grace, start] {
            self.time(*limit);
        }
        self.number(*memory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn look(folder: &Path) -> Vec<Seen> {
        let mut files = Vec::new();
        walk(folder, &[&folder.join("data")], 100, &mut files).expect("walks");
        files
    }

    fn paths(files: &[Seen]) -> Vec<&str> {
        files
            .iter()
            .map(|seen| seen.path.to_str().expect("UTF-8"))
            .collect()
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
        let error = walk(site.path(), &[], 6, &mut Vec::new()).expect_err("too many");
        assert!(
            matches!(&error, NoKey::TooMany(path) if path == site.path()),
            "{error}"
        );
        assert!(walk(&site.path().join("nowhere"), &[], 6, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_differs_is_named() {
        let site = site();
        let look = || Ingredients {
            settings: 0,
            files: look(site.path()),
        };
        let before = look();
        assert_eq!(before.difference(&look()), None);
        fs::write(site.path().join("c.py"), "").expect("write");
        let after = look();
        assert_eq!(after.difference(&before), Some(site.path().join("c.py")));
        assert_eq!(before.difference(&after), after.difference(&before));
        assert_ne!(after.key(), before.key());
        assert!(!after.is_settled(), "written just now");
        std::thread::sleep(Ingredients::SETTLE);
        assert!(after.is_settled());
    }
}
