//! How files are told from what they were: by what the system says of them without reading them.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files and folders that are looked at for one app.
const MOST: usize = 20_000;

/// One file; `None` if it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp(Option<(u64, u64, i64, i64)>);

impl FileStamp {
    pub(super) fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|found| stamp(&found)))
    }
}

fn stamp(found: &Metadata) -> (u64, u64, i64, i64) {
    (found.ino(), found.size(), found.mtime(), found.mtime_nsec())
}

/// All files of a folder together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree(u64);

impl Tree {
    /// Looks at a folder, but for what changes as an app runs: `written`, hidden folders and `__pycache__`.
    pub(super) fn look(root: &Path, written: &[PathBuf]) -> Self {
        let mut hasher = DefaultHasher::new();
        let (mut folders, mut left) = (vec![root.to_owned()], MOST);
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            let mut entries: Vec<_> = entries.flatten().take(left).collect();
            left -= entries.len();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let (name, path) = (entry.file_name(), entry.path());
                let passed_over = name.as_encoded_bytes().starts_with(b".") || name == "__pycache__";
                let Ok(found) = entry.metadata() else { continue };
                if passed_over || written.contains(&path) {
                    continue;
                }
                if found.is_dir() {
                    folders.push(path);
                } else {
                    path.hash(&mut hasher);
                    stamp(&found).hash(&mut hasher);
                }
            }
        }
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_file_is_seen_and_what_the_app_writes_is_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("app.py", "a");
        write("templates/a.html", "a");
        let data = [root.path().join("data")];
        let mut before = Tree::look(root.path(), &data);
        for (name, text, changes) in [
            ("app.py", "ab", true),
            ("templates/b.html", "", true),
            ("data/notes.db", "x", false),
            ("__pycache__/app.pyc", "x", false),
            (".git/index", "x", false),
        ] {
            write(name, text);
            let after = Tree::look(root.path(), &data);
            assert_eq!(after != before, changes, "{name}");
            before = after;
        }
        fs::remove_file(root.path().join("templates/b.html")).unwrap();
        assert_ne!(Tree::look(root.path(), &data), before);
    }
}
