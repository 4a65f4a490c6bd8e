//! The built guest on disk: the interpreter's module and its standard library.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;

/// Where a built guest is: `python.wasm`, `lib/` and `VERSION` in one folder, as `make python` leaves them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PythonFiles {
    /// The interpreter and our entry, a WASI preview 1 reactor.
    pub wasm: PathBuf,
    /// Shown to the guest as `/lib`; holds `python3.13/`. No part of its path is a symbolic link.
    pub lib: PathBuf,
    /// Version of CPython, such as `3.13.5`.
    pub version: String,
}

impl PythonFiles {
    /// Looks at `dir` and takes it if all parts are there.
    ///
    /// # Errors
    /// [`EngineError::Python`] naming the missing part.
    pub fn open(dir: &Path) -> Result<Self, EngineError> {
        let missing = |path: &Path, source| EngineError::Python {
            path: path.to_owned(),
            source,
        };
        let version_file = dir.join("VERSION");
        let version = std::fs::read_to_string(&version_file)
            .map_err(|error| missing(&version_file, error))?
            .trim()
            .to_owned();
        let wasm = dir.join("python.wasm");
        let lib = dir.join("lib");
        let lib = lib.canonicalize().map_err(|error| missing(&lib, error))?;
        for path in [&wasm, &lib.join("python3.13").join("os.py")] {
            std::fs::metadata(path).map_err(|error| missing(path, error))?;
        }
        Ok(Self { wasm, lib, version })
    }
}
