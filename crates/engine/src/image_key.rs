//! What an image was made from: whatever goes into an app's start is in the key, so that an image of other ingredients is
//! not taken for this app's.
//!
//! Files count by what the system tells of them without reading them. What the app reads in folders that it may write to
//! is not in the key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use twox_hash::XxHash3_128;

use crate::engine::Engine;
use crate::folder_state::{FolderState, MOST};
use crate::spec::{AppSpec, Entry, Isolation, Limits, Mount};

/// Told from others by all that goes into an app's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) u128);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Key {
    /// The key at `since` or later: of folders that others have been looked at for since then it takes what was seen.
    ///
    /// # Errors
    /// Those of [`Ingredients::look`].
    pub(crate) fn since(engine: &Engine, spec: &AppSpec, since: Instant) -> Result<Self, NoKey> {
        let passed_over = passed_over(engine, spec);
        let mut folders = Vec::new();
        for folder in folders_read(spec) {
            folders.push(engine.looks.digest(folder, &passed_over, since)?);
        }
        folders.push(engine.library(&passed_over)?.digest());
        Ok(Self::of(settings(engine, spec), folders))
    }

    fn of(settings: u128, folders: impl IntoIterator<Item = u128>) -> Self {
        let mut digest = Digest::default();
        digest.bytes(&settings.to_le_bytes());
        for folder in folders {
            digest.bytes(&folder.to_le_bytes());
        }
        Self(digest.finish())
    }
}

/// What goes into an image beside files.
fn settings(engine: &Engine, spec: &AppSpec) -> u128 {
    let mut digest = Digest::default();
    digest.bytes(env!("CARGO_PKG_VERSION").as_bytes());
    digest.bytes(&engine.digest.to_le_bytes());
    digest.spec(spec);
    digest.finish()
}

/// The folders that the app can only read.
fn folders_read(spec: &AppSpec) -> impl Iterator<Item = &Path> {
    let read = spec.mounts.iter().filter(|mount| !mount.write);
    read.map(|mount| &*mount.host)
}

/// What is not looked at in them. An app's folder may hold its data. It also may be its user's home, with the cache in it.
fn passed_over<'a>(engine: &'a Engine, spec: &'a AppSpec) -> Vec<&'a Path> {
    let written = spec.mounts.iter().filter(|mount| mount.write);
    written
        .map(|mount| &*mount.host)
        .chain([&*engine.cache])
        .collect()
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
#[derive(PartialEq)]
pub(crate) struct Ingredients {
    /// The guest and the app's spec.
    settings: u128,
    /// Those that the app can only read, in the order it is shown them.
    folders: Vec<Arc<FolderState>>,
}

impl Ingredients {
    /// Looks at everything; at the standard library only once in a process, since all apps have the same.
    ///
    /// # Errors
    /// [`NoKey`] if that is too much, or cannot be looked at.
    pub(crate) fn look(engine: &Engine, spec: &AppSpec) -> Result<Self, NoKey> {
        let passed_over = passed_over(engine, spec);
        let mut folders = Vec::new();
        for folder in folders_read(spec) {
            folders.push(Arc::new(FolderState::look(folder, &passed_over)?));
        }
        folders.push(engine.library(&passed_over)?);
        Ok(Self {
            settings: settings(engine, spec),
            folders,
        })
    }

    /// How long to wait for a change to show.
    pub(crate) const SETTLE: Duration = FolderState::SETTLE;

    pub(crate) fn key(&self) -> Key {
        Key::of(self.settings, self.folders.iter().map(|folder| folder.digest()))
    }

    /// A file or folder that is not there in the same way in both.
    pub(crate) fn difference(&self, other: &Self) -> Option<PathBuf> {
        let mut folders = self.folders.iter().zip(&other.folders);
        folders.find_map(|(ours, others)| ours.difference(others))
    }

    /// Whether a change to a file from now on will show.
    pub(crate) fn is_settled(&self) -> bool {
        self.folders.iter().all(|folder| folder.is_settled())
    }
}

/// A hash of parts, each with its length, so that no two lists of parts are the same bytes.
#[derive(Default)]
pub(crate) struct Digest(XxHash3_128);

impl Digest {
    pub(crate) fn finish(&self) -> u128 {
        self.0.finish_128()
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.write(bytes);
    }

    pub(crate) fn number(&mut self, number: u64) {
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
            weight: _,
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
            quota: _,
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
            slow: _,
            memory,
            temp: _,
            open_files: _,
            cpu: _,
            cpu_per_minute: _,
        } = limits;
        for limit in [time, grace, start] {
            self.time(*limit);
        }
        self.number(*memory);
    }
}
