//! Where things are.

use std::fs::{create_dir_all, write};
use std::path::{Path, PathBuf};

use crate::options::{Options, Part};

/// The folders and programs of a run, as absolute paths.
#[derive(Debug)]
pub struct Place {
    /// The project.
    pub root: PathBuf,
    /// `target/bench`: all that is made.
    pub out: PathBuf,
    /// The wasgi that is measured.
    pub wasgi: PathBuf,
}

impl Place {
    /// Finds them.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn find(options: &Options) -> Result<Self, String> {
        let root = absolute(&options.root)?;
        let wasgi = match &options.wasgi {
            Some(path) => absolute(path)?,
            None => root.join("target/release/wasgi"),
        };
        if !wasgi.is_file() {
            return Err(format!(
                "{}: not there; `make release` builds it",
                wasgi.display()
            ));
        }
        let place = Self {
            out: root.join("target/bench"),
            root,
            wasgi,
        };
        if options.part != Part::Density && !place.program("granian").is_file() {
            return Err(format!(
                "{}: no peers there; bench/setup.sh installs them",
                place.out.display()
            ));
        }
        Ok(place)
    }

    /// A program of the peers' virtual environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.out.join("venv/bin").join(name)
    }

    /// The folder of an app.
    pub fn app(&self, name: &str) -> PathBuf {
        self.root.join("bench/apps").join(name)
    }

    /// The folder of Flask and what it needs.
    ///
    /// # Errors
    /// Where it would be.
    pub fn packages(&self) -> Result<PathBuf, String> {
        let folders = [
            self.out.join("packages"),
            self.root.join("examples/hello/packages"),
        ];
        let found = folders.iter().find(|folder| folder.join("flask").is_dir());
        let missing = || {
            format!(
                "{}: no Flask there; `make packages` installs it",
                folders[1].display()
            )
        };
        found.cloned().ok_or_else(missing)
    }

    /// Writes a file below `target/bench`.
    ///
    /// # Errors
    /// In words, with the path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.out.join(name);
        let folder = path.parent().unwrap_or(Path::new("/"));
        create_dir_all(folder)
            .and_then(|()| write(&path, text))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))
}
