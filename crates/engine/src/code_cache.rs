//! Keeps the guest's machine code on disk, so that only the first start compiles it.
//!
//! What is loaded from here runs as native code in this process. A file is taken only from a private folder, and if its
//! checksum is the one noted when it was written.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_128;
use wasmtime::{Engine, Module};

use crate::checks;
use crate::engine::EngineError;
use crate::private_folder::{self, PrivateFolder, checksum};

/// The module of a guest: from `folder` if it is there and sound, else compiled from `code` and put there. `digest` is
/// what tells the guest from others.
pub(crate) fn load(
    engine: &Engine,
    digest: u128,
    folder: &Path,
    code: impl FnOnce() -> Result<Vec<u8>, EngineError>,
    progress: &mut dyn FnMut(&str),
) -> Result<Module, EngineError> {
    let entry = match PrivateFolder::open(folder) {
        Ok(folder) => Some(Entry::new(engine, digest, folder)),
        Err(error) => {
            progress(&format!(
                "machine code will not be kept: {}: {error}",
                folder.display()
            ));
            None
        }
    };
    if let Some(entry) = &entry {
        match entry.read(engine) {
            Ok(Some(module)) => return Ok(module),
            Ok(None) => {}
            Err(error) => progress(&format!("{}: {error}; making it anew", entry.path().display())),
        }
    }
    let wasm = code()?;
    progress("compiling Python to machine code (once, some seconds)");
    let code = engine.precompile_module(&wasm).map_err(EngineError::Wasmtime)?;
    if let Some(Err(error)) = entry.map(|entry| entry.write(&code)) {
        progress(&format!(
            "machine code could not be kept in {}: {error}",
            folder.display()
        ));
    }
    // SAFETY: `code` is what `precompile_module` has just returned, unchanged.
    unsafe { Module::deserialize(engine, &code) }.map_err(EngineError::Wasmtime)
}

/// The file with a guest's machine code, if it is there and sound, for another process of this program.
pub(crate) fn file(engine: &Engine, digest: u128, folder: &Path) -> Option<File> {
    let folder = PrivateFolder::open(folder).ok()?;
    Entry::new(engine, digest, folder).sound().ok().flatten()
}

/// The module of what [`file`] gave another process.
pub(crate) fn load_file(engine: &Engine, file: File) -> Result<Module, EngineError> {
    private_folder::check_trusted(&file).map_err(EngineError::Code)?;
    // SAFETY: the file is one that `write` has made, and only this user or root can have changed it.
    unsafe { Module::deserialize_open_file(engine, file) }.map_err(EngineError::Wasmtime)
}

/// One guest's place in the cache.
struct Entry {
    folder: PrivateFolder,
    code: String,
    checksum: String,
}

impl Entry {
    fn new(engine: &Engine, digest: u128, folder: PrivateFolder) -> Self {
        // What wasmtime compiles depends on its version and settings too; it tells by a hash. What is added to the guest
        // depends on our own.
        let mut settings = DefaultHasher::new();
        checks::VERSION.hash(&mut settings);
        engine.precompile_compatibility_hash().hash(&mut settings);
        let name = format!("python-{digest:032x}-{:016x}", settings.finish());
        Self {
            folder,
            code: format!("{name}.cwasm"),
            checksum: format!("{name}.xxh3"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(&self.code)
    }

    /// The file with the code, as it was written; `None` if nothing is there yet.
    fn sound(&self) -> Result<Option<File>, String> {
        let open = |name| self.folder.read(name).map_err(|error| error.to_string());
        let Some(mut file) = open(&self.code)? else {
            return Ok(None);
        };
        let mut noted = String::new();
        let read = open(&self.checksum)?.map(|mut file| file.read_to_string(&mut noted));
        read.unwrap_or(Err(io::ErrorKind::NotFound.into()))
            .map_err(|error| format!("no checksum: {error}"))?;
        if checksum_of(&mut file).map_err(|error| error.to_string())? != noted.trim() {
            return Err("damaged: its checksum is not the one noted".into());
        }
        Ok(Some(file))
    }

    /// `None` if nothing is there yet.
    fn read(&self, engine: &Engine) -> Result<Option<Module>, String> {
        let Some(file) = self.sound()? else {
            return Ok(None);
        };
        // SAFETY: the file holds what `write` put there (the checksum was just compared, on this descriptor), and only
        // this user can have changed it: it comes from a private folder.
        unsafe { Module::deserialize_open_file(engine, file) }
            .map(Some)
            .map_err(|error| format!("made by another wasmtime: {error}"))
    }

    /// The code last: without it, nothing is there.
    fn write(&self, code: &[u8]) -> io::Result<()> {
        let noted = format!("{:032x}\n", checksum(code));
        self.folder
            .replace(&self.checksum, |file| file.write_all(noted.as_bytes()))?;
        self.folder.replace(&self.code, |file| file.write_all(code))
    }
}

fn checksum_of(file: &mut File) -> io::Result<String> {
    let mut checksum = XxHash3_128::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:032x}", checksum.finish_128())),
            count => checksum.write(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An empty module.
    const WASM: &[u8] = b"\0asm\x01\0\0\0";

    fn messages(engine: &Engine, folder: &Path) -> Vec<String> {
        let mut messages = Vec::new();
        let code = || Ok(WASM.to_vec());
        load(engine, 7, folder, code, &mut |line| {
            messages.push(line.to_owned())
        })
        .expect("loads");
        messages
    }

    fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
        let paths = fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").path());
        paths
            .filter(|path| path.extension().is_some_and(|it| it == extension))
            .collect()
    }

    #[test]
    fn only_the_first_start_compiles() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = folder.path().join("a/b");
        let engine = Engine::default();
        assert_eq!(
            messages(&engine, &cache),
            ["compiling Python to machine code (once, some seconds)"]
        );
        assert_eq!(messages(&engine, &cache), [""; 0]);
        assert_eq!(
            fs::metadata(&cache).expect("folder").permissions().mode() & 0o777,
            0o700
        );
        let code = &files(&cache, "cwasm")[0];
        assert_eq!(
            fs::metadata(code).expect("code").permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let folder = tempfile::tempdir().expect("folder");
        let engine = Engine::default();
        messages(&engine, folder.path());
        let code = &files(folder.path(), "cwasm")[0];
        let mut bytes = fs::read(code).expect("code");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(code, &bytes).expect("write");
        let said = messages(&engine, folder.path());
        assert!(
            said[0].contains("damaged") && said[1].starts_with("compiling"),
            "{said:?}"
        );
        assert_eq!(messages(&engine, folder.path()), [""; 0]);
    }

    #[test]
    fn what_others_may_write_is_not_loaded() {
        let folder = tempfile::tempdir().expect("folder");
        let engine = Engine::default();
        messages(&engine, folder.path());
        let code = &files(folder.path(), "cwasm")[0];
        fs::set_permissions(code, fs::Permissions::from_mode(0o666)).expect("chmod");
        let said = messages(&engine, folder.path());
        assert!(said[0].contains("others may write to it"), "{said:?}");

        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let said = messages(&engine, folder.path());
        assert!(said[0].starts_with("machine code will not be kept"), "{said:?}");
    }
}
