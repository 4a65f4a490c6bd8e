//! Files and folders of the host: found, and inside what the file may name.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Resolver;
use crate::address::UNIX_PATH_MAX;
use crate::problem::{At, Place};
use crate::raw::Raw;

impl Resolver<'_> {
    /// The app's folder: as typed, or that of the file named on the command line, or that of `app.toml`.
    pub(super) fn root(&mut self, raw: &Raw) -> Option<PathBuf> {
        if let Some(at) = &raw.root {
            return self.folder(at);
        }
        match &raw.wsgi_file {
            Some(at) if at.place == Place::Option => {
                self.find(at, Kind::File, None)?.parent().map(Path::to_owned)
            }
            _ => Some(self.file_folder.clone().unwrap_or_else(|| self.current.clone())),
        }
    }

    pub(super) fn venv(&mut self, at: &At<String>) -> Vec<PathBuf> {
        let Some(venv) = self.folder(at) else {
            return Vec::new();
        };
        let versions = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3."))
            .map(|entry| entry.path().join("site-packages"))
            .filter_map(|path| fs::canonicalize(path).ok())
            .filter(|path| path.is_dir() && self.is_allowed(path))
            .collect();
        folders.sort();
        if folders.is_empty() {
            let installed = fs::read_dir(&venv).into_iter().flatten().flatten();
            let target = installed
                .map(|entry| entry.path())
                .any(|path| path.extension().is_some_and(|e| e == "dist-info"));
            let hint = match target {
                true => format!(
                    "packages lie in it directly: write python-path = [\"{}\"] instead",
                    at.value
                ),
                false => format!(
                    "create it: python3 -m venv {0} && {0}/bin/pip install flask",
                    at.value
                ),
            };
            self.problems.push(at.problem(
                format!("`{}` holds no lib/python3.*/site-packages", at.value),
                hint,
            ));
        }
        folders
    }

    /// The path of a unix socket that need not be there, in a folder that must.
    pub(crate) fn socket(&mut self, at: &At<String>, path: &Path) -> Option<PathBuf> {
        let path = self.base(at).join(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            self.problems
                .push(at.problem("names no file", "write \"unix:/run/hello.sock\""));
            return None;
        };
        let Ok(folder) = fs::canonicalize(folder) else {
            self.problems.push(at.problem(
                format!("the folder of `{}` is not there", at.value),
                "create the folder, or correct the path",
            ));
            return None;
        };
        let path = folder.join(name);
        let length = path.as_os_str().len();
        if length > UNIX_PATH_MAX {
            self.problems.push(at.problem(
                format!("the socket's path has {length} bytes; the system takes at most {UNIX_PATH_MAX}"),
                "put the socket into a folder with a shorter path, such as /run",
            ));
            return None;
        }
        Some(path)
    }

    pub(crate) fn base(&self, at: &At<String>) -> &Path {
        match (&self.file_folder, at.place) {
            (Some(folder), Place::Line(_)) => folder,
            _ => &self.current,
        }
    }

    pub(super) fn is_allowed(&self, path: &Path) -> bool {
        let allowed = self.allowed.as_ref();
        allowed.is_none_or(|folders| folders.iter().any(|folder| path.starts_with(folder)))
    }

    pub(crate) fn folder(&mut self, at: &At<String>) -> Option<PathBuf> {
        self.find(at, Kind::Folder, None)
    }

    /// `root` is what the path is relative to, unless that is the folder of the file or the current one.
    pub(super) fn find(&mut self, at: &At<String>, kind: Kind, root: Option<&Path>) -> Option<PathBuf> {
        let (noun, typed) = (kind.noun(), at.value.as_str());
        let relative = match at.place {
            _ if root.is_some() => "the app's root",
            Place::Option => "the current folder",
            _ => "this file's folder",
        };
        let found = root.unwrap_or(self.base(at)).join(typed);
        let problem = match fs::canonicalize(&found) {
            _ if typed.is_empty() => at.problem(
                format!("names no {noun}"),
                format!("write a path, relative to {relative} or absolute"),
            ),
            Ok(path) if !self.is_allowed(&path) => at.problem(
                format!("{noun} `{typed}` is outside the app's own folder"),
                "put it into the app's folder, or have the operator of the server grant it",
            ),
            Ok(path) if path.is_dir() == (kind == Kind::Folder) => return Some(path),
            Ok(_) if kind == Kind::Folder => at.problem(
                format!("`{typed}` is a file, not a folder"),
                "name the folder that it is in",
            ),
            Ok(_) => at.problem(
                format!("`{typed}` is a folder, not a file"),
                "name the file in it",
            ),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => at
                .problem(
                    format!("{noun} `{typed}` is not there"),
                    match typed.starts_with('~') {
                        true => "`~` is not expanded: write the whole path".to_owned(),
                        false => format!("create it, or correct the path; it is relative to {relative}"),
                    },
                ),
            Err(error) => at.problem(
                format!("{noun} `{typed}` cannot be opened: {}", crate::lower(&error)),
                "give the user that runs wasgi the right to read it",
            ),
        };
        self.problems.push(problem);
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
        }
    }
}
