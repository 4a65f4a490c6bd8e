//! Keeps the guest's machine code on disk, so that only the first start compiles it.
//!
//! What is loaded from here runs as native code in this process. A file is taken only if it, and the folder it is in,
//! belong to this user and nobody else may write them, and if its checksum is the one noted when it was written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module};

use crate::checks;
use crate::engine::EngineError;

/// The module of the guest `wasm`, with checks and without data: from `folder` if it is there and sound, else compiled and
/// put there.
pub(crate) fn load(
    engine: &Engine,
    wasm: &[u8],
    folder: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Module, EngineError> {
    let entry = match Entry::open(engine, wasm, folder) {
        Ok(entry) => Some(entry),
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
            Err(error) => progress(&format!("{}: {error}; making it anew", entry.code.display())),
        }
    }
    progress("compiling Python to machine code (once, some seconds)");
    let code = engine
        .precompile_module(&checks::add(wasm)?)
        .map_err(EngineError::Wasmtime)?;
    if let Some(Err(error)) = entry.map(|entry| entry.write(&code)) {
        progress(&format!(
            "machine code could not be kept in {}: {error}",
            folder.display()
        ));
    }
    // SAFETY: `code` is what `precompile_module` has just returned, unchanged.
    unsafe { Module::deserialize(engine, &code) }.map_err(EngineError::Wasmtime)
}

/// One guest's place in the cache.
struct Entry {
    code: PathBuf,
    checksum: PathBuf,
}

impl Entry {
    fn open(engine: &Engine, wasm: &[u8], folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        check_owner(&fs::symlink_metadata(folder)?)?;
        // What wasmtime compiles depends on its version and settings too; it tells by a hash. What is added to the guest
        // depends on our own.
        let mut settings = DefaultHasher::new();
        checks::VERSION.hash(&mut settings);
        engine.precompile_compatibility_hash().hash(&mut settings);
        let name = format!(
            "python-{:.16}-{:016x}",
            hex(&Sha256::digest(wasm)),
            settings.finish()
        );
        Ok(Self {
            code: folder.join(format!("{name}.cwasm")),
            checksum: folder.join(format!("{name}.sha256")),
        })
    }

    /// `None` if nothing is there yet.
    fn read(&self, engine: &Engine) -> Result<Option<Module>, String> {
        let open = |path| {
            OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
        };
        let mut file = match open(&self.code) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| error.to_string())?,
        };
        let noted = fs::read_to_string(&self.checksum).map_err(|error| format!("no checksum: {error}"))?;
        file.metadata()
            .and_then(|metadata| check_owner(&metadata))
            .map_err(|error| error.to_string())?;
        if checksum(&mut file).map_err(|error| error.to_string())? != noted.trim() {
            return Err("damaged: its checksum is not the one noted".into());
        }
        // SAFETY: the file holds what `write` put there (the checksum was just compared, on this descriptor), and only
        // this user can have changed it: `check_owner` holds for it and, in `open`, for its folder.
        unsafe { Module::deserialize_open_file(engine, file) }
            .map(Some)
            .map_err(|error| format!("made by another wasmtime: {error}"))
    }

    /// Whoever reads sees the old files or the new ones: each is written aside and renamed, the code last.
    fn write(&self, code: &[u8]) -> io::Result<()> {
        let replace = |path: &Path, bytes: &[u8]| {
            let aside = path.with_extension(format!("{}.part", std::process::id()));
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&aside)?;
            file.write_all(bytes)?;
            fs::rename(&aside, path)
        };
        replace(&self.checksum, hex(&Sha256::digest(code)).as_bytes())?;
        replace(&self.code, code)
    }
}

fn checksum(file: &mut File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || metadata.mode() & 0o022 != 0 {
        let words = if ours {
            "others may write to it"
        } else {
            "it belongs to another user"
        };
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// `(module (import "wasgi" "tick" (func (result i32))) (memory 1) (global i32 (i32.const 0)) (func))`
    const WASM: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x08\x02\x60\0\x01\x7f\x60\0\0\
        \x02\x0e\x01\x05wasgi\x04tick\0\0\
        \x03\x02\x01\x01\
        \x05\x03\x01\0\x01\
        \x06\x06\x01\x7f\0\x41\0\x0b\
        \x0a\x04\x01\x02\0\x0b";

    fn messages(engine: &Engine, folder: &Path) -> Vec<String> {
        let mut messages = Vec::new();
        load(engine, WASM, folder, &mut |line| messages.push(line.to_owned())).expect("loads");
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
