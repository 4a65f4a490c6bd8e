//! Images on disk: the next server takes an app's memory from there instead of importing the app again.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::image_file::{self, Unusable, Whole};
use crate::image_key::Key;
use crate::private_folder::{PrivateFolder, checksum};
use crate::snapshot::Snapshot;
use crate::spec::AppSpec;

/// Closes the names of images.
const SUFFIX: &str = ".image";

/// Where an app's image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The file.
    pub path: PathBuf,
    /// What it takes on disk, in bytes.
    pub size: u64,
    /// Whether it was made just now, rather than found.
    pub new: bool,
}

/// One app's place in the folder of images.
#[derive(Clone)]
pub(crate) struct ImageCache {
    engine: Engine,
    folder: PrivateFolder,
    /// What the names of this app's images begin with.
    prefix: String,
}

impl ImageCache {
    /// Where images are kept.
    pub(crate) fn path(engine: &Engine) -> PathBuf {
        engine.cache.join("images")
    }

    /// # Errors
    /// If the folder cannot be made, or may not be trusted.
    pub(crate) fn open(engine: &Engine, spec: &AppSpec) -> io::Result<Self> {
        // What is checked is each folder by itself: the images' own would be made with the outer one.
        PrivateFolder::open(&engine.cache)?;
        Ok(Self {
            engine: engine.clone(),
            folder: PrivateFolder::open(&Self::path(engine))?,
            prefix: prefix(spec),
        })
    }

    /// The file that the image of this key has, or would have.
    pub(crate) fn file(&self, key: Key) -> PathBuf {
        self.folder.path().join(self.name(key))
    }

    fn name(&self, key: Key) -> String {
        format!("{}{key}{SUFFIX}", self.prefix)
    }

    /// The snapshot of this key, if there is one. Reading its file takes milliseconds, if that must be; `pause` is called
    /// every now and then.
    ///
    /// # Errors
    /// If what is there cannot be used.
    pub(crate) fn find(&self, key: Key, pause: &dyn Fn()) -> Result<Option<Snapshot>, Unusable> {
        let Some(file) = self.folder.read(&self.name(key))? else {
            return Ok(None);
        };
        let checked = &self.engine.checked;
        let mark = checked.mark(&file.metadata()?);
        let whole = match mark.is_some_and(|mark| checked.has(mark)) {
            true => Whole::Known,
            false => Whole::Read { pause },
        };
        // SAFETY: the file comes from a private folder. Only this user can change it, and wasgi itself writes a file before
        // it has its name, never after.
        let snapshot = unsafe { image_file::read(file, key, whole, || self.engine.bare()) }?;
        if let Some(mark) = mark {
            checked.add(mark);
        }
        Ok(Some(snapshot))
    }

    /// Keeps a snapshot, and removes those of other keys.
    ///
    /// # Errors
    /// When it cannot be written, for instance because the disk is full.
    pub(crate) fn store(&self, key: Key, snapshot: &Snapshot) -> io::Result<StoredImage> {
        let name = self.name(key);
        self.folder
            .replace(&name, |file| image_file::write(file, key, snapshot))?;
        self.remove_older(&name);
        self.stored(key, true)
    }

    /// What there is to say of the image that is there.
    pub(crate) fn stored(&self, key: Key, new: bool) -> io::Result<StoredImage> {
        let path = self.file(key);
        let size = fs::metadata(&path)?.blocks() * 512;
        Ok(StoredImage { path, size, new })
    }

    /// One that cannot be removed takes room and does no harm. Servers that run from one go on with it.
    fn remove_older(&self, newest: &str) {
        let Ok(entries) = fs::read_dir(self.folder.path()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name != newest && self.is_ours(name))
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        let key = name
            .strip_prefix(&self.prefix)
            .and_then(|rest| rest.strip_suffix(SUFFIX));
        key.is_some_and(|key| key.len() == 32 && key.bytes().all(|it| it.is_ascii_hexdigit()))
    }
}

/// The app's name, for people who look into the folder, and what tells apps of the same name apart: where their root is.
fn prefix(spec: &AppSpec) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '-'
        }
    };
    let name: String = spec.name.chars().map(plain).take(64).collect();
    let root = spec.mounts.first().map_or(Path::new(""), |mount| &mount.host);
    let root = checksum(root.as_os_str().as_bytes()) as u64;
    format!("{name}-{root:016x}-")
}
