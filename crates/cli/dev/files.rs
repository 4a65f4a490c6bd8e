//! Has a file of the app changed? By size and time of all below its root, looked at a few times a second.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders that hold no source, by name; hidden ones are left out as well.
const LEFT_OUT: &[&str] = &["__pycache__", "node_modules", "venv"];

/// More files than this are not looked at: then it is not an app's folder.
const MOST: usize = 20_000;

/// The files below a folder.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Files(BTreeMap<PathBuf, (Option<SystemTime>, u64)>);

impl Files {
    /// What is there now, but for what lies in `written`, where the app itself makes changes.
    pub(super) fn look(root: &Path, written: &[PathBuf]) -> Self {
        let mut files = Self::default();
        files.folder(root, written);
        files
    }

    fn folder(&mut self, folder: &Path, written: &[PathBuf]) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let Ok(found) = entry.metadata() else { continue };
            let left_out = name.starts_with('.') || LEFT_OUT.contains(&&*name) || written.contains(&path);
            if left_out || self.0.len() >= MOST {
                continue;
            }
            if found.is_dir() {
                self.folder(&path, written);
            } else {
                self.0.insert(path, (found.modified().ok(), found.len()));
            }
        }
    }

    /// A file that is another than in `before`, new or gone.
    pub(super) fn changed<'f>(&'f self, before: &'f Self) -> Option<&'f Path> {
        let differs = |(path, stamp): &(&PathBuf, &(Option<SystemTime>, u64)), other: &Self| {
            other.0.get(*path) != Some(*stamp)
        };
        let new = self.0.iter().find(|entry| differs(entry, before));
        let gone = before.0.iter().find(|entry| differs(entry, self));
        new.or(gone).map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_removed_files_are_seen_and_what_is_no_source_is_not() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["lib", "__pycache__", "data", ".git"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("app.py"), "1").unwrap();
        fs::write(at("lib/a.py"), "1").unwrap();
        let look = || Files::look(place.path(), &[at("data")]);
        let before = look();
        for name in ["__pycache__/app.pyc", "data/notes.db", ".git/index"] {
            fs::write(at(name), "1").unwrap();
        }
        assert_eq!(look().changed(&before), None);
        fs::write(at("lib/a.py"), "22").unwrap();
        assert_eq!(look().changed(&before), Some(&*at("lib/a.py")));
        fs::write(at("lib/a.py"), "1").unwrap();
        let before = look();
        fs::write(at("lib/b.py"), "").unwrap();
        assert_eq!(look().changed(&before), Some(&*at("lib/b.py")));
        let before = look();
        fs::remove_file(at("app.py")).unwrap();
        assert_eq!(look().changed(&before), Some(&*at("app.py")));
    }
}
