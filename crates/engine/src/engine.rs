//! CPython compiled to machine code, once for every app.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmtime::{Config, InstancePre, Linker, Module, OptLevel};

use crate::background::Background;
use crate::checked_images::CheckedImages;
use crate::checks;
use crate::code_cache;
use crate::cpu::Cpu;
use crate::folder_state::FolderState;
use crate::guest::Guest;
use crate::guest_module::{self, ModuleError};
use crate::image::Image;
use crate::image_key::NoKey;
use crate::looks::Looks;
use crate::memory::{GUARD, Memories, RESERVED};
use crate::mounts::Usages;
use crate::private_folder::checksum;
use crate::python::PythonFiles;
use crate::python_stack::PythonLayout;
use crate::scratch::Scratch;
use crate::ticker::Ticker;
use crate::ticks::Ticks;
use crate::{host, wasi};

/// Stack for compiled code. CPython bounds its own C recursion; this is what that bound needs, with room. Only pages
/// that are used take memory.
const WASM_STACK: usize = 16 << 20;

/// The fiber's stack also carries the host functions that the guest calls.
const FIBER_STACK: usize = WASM_STACK + (2 << 20);

/// The version of wasmtime this is built with.
pub const WASMTIME_VERSION: &str = env!("WASGI_WASMTIME_VERSION");

/// The compiled interpreter. Cheap to clone; make one per process.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    /// The guest with the host's functions: what an instance of any app is made from.
    pub(crate) linked: InstancePre<Guest>,
    bare: Arc<OnceLock<Arc<Image>>>,
    layout: Arc<OnceLock<Option<Arc<PythonLayout>>>>,
    library: Arc<Mutex<Option<Arc<FolderState>>>>,
    pub(crate) ticks: Arc<Ticks>,
    /// Tells the guest from others.
    pub(crate) digest: u128,
    /// Where machine code and, in a folder of their own, images are kept.
    pub(crate) cache: PathBuf,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) cpu: Arc<Cpu>,
    pub(crate) python: PythonFiles,
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) usages: Arc<Usages>,
    /// What is done for the first requests before they come.
    pub(crate) background: Arc<Background>,
    pub(crate) looks: Arc<Looks>,
    pub(crate) checked: Arc<CheckedImages>,
}

impl Engine {
    /// Compiles the guest, or takes the machine code from `cache` if it was made there before from the same guest by
    /// the same wasmtime for the same kind of processor. Compiling takes some seconds; `progress` gets a line first.
    ///
    /// # Errors
    /// [`EngineError`]; a cache that cannot be used is not one, it is told to `progress`.
    ///
    /// [`EngineError::Wasmtime`] also if the guest asks for functions that this host does not have: another version's.
    pub fn new(
        python: &PythonFiles,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, EngineError> {
        Self::make(python, cache, |wasmtime, wasm, digest| {
            let code = || Ok(checks::add(wasm)?);
            code_cache::load(wasmtime, digest, cache, code, progress)
        })
    }

    /// As `new`, with the [`machine_code`](Self::machine_code) of another process of this program, for the same `python`. It
    /// must belong to this user or to root, and nobody else may write to it.
    ///
    /// # Errors
    /// As `new`, and [`EngineError::Code`].
    pub fn with_code(python: &PythonFiles, cache: &Path, code: File) -> Result<Self, EngineError> {
        Self::make(python, cache, |wasmtime, _, _| {
            code_cache::load_file(wasmtime, code)
        })
    }

    /// The guest.
    pub fn python(&self) -> &PythonFiles {
        &self.python
    }

    /// The folder that machine code and images are kept in.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The file of the guest's machine code, opened for reading; `None` if it could not be kept.
    pub fn machine_code(&self) -> Option<File> {
        code_cache::file(&self.wasmtime, self.digest, &self.cache)
    }

    fn make(
        python: &PythonFiles,
        cache: &Path,
        module: impl FnOnce(&wasmtime::Engine, &[u8], u128) -> Result<Module, EngineError>,
    ) -> Result<Self, EngineError> {
        let ticks = Arc::new(Ticks::new(RESERVED, GUARD).map_err(EngineError::Image)?);
        let wasmtime = wasmtime::Engine::new(&config(ticks.clone())).map_err(EngineError::Wasmtime)?;
        let wasm = read(python)?;
        let digest = checksum(&wasm);
        let module = module(&wasmtime, &wasm, digest)?;
        let linked = link(&wasmtime, &module).map_err(EngineError::Wasmtime)?;
        let scratch = Scratch::make(&std::env::temp_dir()).map_err(EngineError::Scratch)?;
        let ticker = Ticker::start(ticks.clone()).map_err(EngineError::Thread)?;
        let background = Background::start().map_err(EngineError::Thread)?;
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        Ok(Self {
            wasmtime,
            linked,
            bare: Arc::default(),
            layout: Arc::default(),
            library: Arc::default(),
            cpu: Arc::new(Cpu::new(cores, ticks.clone())),
            ticks,
            digest,
            cache: cache.to_owned(),
            ticker: Arc::new(ticker),
            python: python.clone(),
            scratch: Arc::new(scratch),
            usages: Arc::default(),
            background: Arc::new(background),
            looks: Arc::default(),
            checked: Arc::new(CheckedImages::new(cache)),
        })
    }

    /// Removes temporary folders, when the process is about to end: instances that still run, on threads that nobody waits
    /// for, hold the engine beyond the end of `main`. Nothing can be started after that.
    pub fn end(&self) {
        self.scratch.remove();
    }

    /// Memory as the module's data segments make it: what an instance without a snapshot starts from, and what images have
    /// in common. Made when it is first asked for.
    ///
    /// # Errors
    /// [`EngineError`]; also when the guest's file is not the one that was compiled any more.
    pub(crate) fn bare(&self) -> Result<Arc<Image>, EngineError> {
        if let Some(image) = self.bare.get() {
            return Ok(image.clone());
        }
        let wasm = read(&self.python)?;
        if checksum(&wasm) != self.digest {
            return Err(EngineError::Replaced(self.python.wasm.clone()));
        }
        let memory = guest_module::first_memory(&wasm)?;
        let image = Image::of_parts(memory.length, memory.data).map_err(EngineError::Image)?;
        Ok(self.bare.get_or_init(|| Arc::new(image)).clone())
    }
}

impl Engine {
    /// The standard library's files. It belongs to the guest, whose module is not read again either: after the first time
    /// they are not looked at any more, unless the library was being written just then.
    pub(crate) fn library(&self, passed_over: &[&Path]) -> Result<Arc<FolderState>, NoKey> {
        let folder = &self.python.lib;
        if passed_over.iter().any(|path| path.starts_with(folder)) {
            return FolderState::look(folder, passed_over).map(Arc::new);
        }
        let library = || self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let known = library().clone();
        if let Some(state) = known {
            return Ok(state);
        }
        // Without the lock: one that must be quick does not wait for one that has time.
        let state = Arc::new(FolderState::look(folder, passed_over)?);
        *library() = state.is_settled().then(|| state.clone());
        Ok(state)
    }

    /// Where Python's stack is found in a guest's memory. `None` if that cannot be told: then logs do without.
    pub(crate) fn python_layout(&self) -> Option<Arc<PythonLayout>> {
        let find = || {
            let image = self.bare().ok()?.view().ok()?;
            PythonLayout::find(&image).map(Arc::new)
        };
        self.layout.get_or_init(find).clone()
    }
}

fn link(wasmtime: &wasmtime::Engine, module: &Module) -> wasmtime::Result<InstancePre<Guest>> {
    let mut linker = Linker::new(wasmtime);
    wasi::add_to_linker(&mut linker)?;
    host::add_to_linker(&mut linker)?;
    linker.instantiate_pre(module)
}

fn read(python: &PythonFiles) -> Result<Vec<u8>, EngineError> {
    std::fs::read(&python.wasm).map_err(|source| EngineError::Python {
        path: python.wasm.clone(),
        source,
    })
}

pub(crate) fn config(ticks: Arc<Ticks>) -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_reservation(RESERVED as u64)
        .memory_guard_size(GUARD as u64)
        .with_host_memory(Arc::new(Memories(ticks)))
        // The one that `checks` adds; and its hints, which keep what a check calls out of the way.
        .wasm_multi_memory(true)
        .wasm_branch_hinting(true)
        // The guest is stripped: its frames have no names worth the memory that finding them takes.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false);
    config
}

/// Why the interpreter cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A part of the built guest is missing or unreadable.
    #[error("the Python guest is incomplete: {}", path.display())]
    Python {
        /// What was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The guest's module is another than when the engine was made.
    #[error("{} was replaced since it was read: start again", .0.display())]
    Replaced(PathBuf),
    /// wasmtime refused the guest.
    #[error("wasmtime cannot load the Python guest: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// The machine code that another process gave may not be trusted.
    #[error("cannot use the machine code handed over")]
    Code(#[source] std::io::Error),
    /// The guest is not one that images can be made of.
    #[error("the Python guest cannot be used")]
    Module(#[from] ModuleError),
    /// Memory for the guest's first image, or for the clock, cannot be had.
    #[error("cannot make the Python guest's memory image")]
    Image(#[source] std::io::Error),
    /// The folder for the instances' temporary files cannot be made.
    #[error("cannot make a folder in {}", std::env::temp_dir().display())]
    Scratch(#[source] std::io::Error),
    /// The clock's thread, or the one for what has time, could not be started.
    #[error("cannot start the engine's threads")]
    Thread(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_library_is_looked_at_once() {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let python = PythonFiles::open(&target.join("python")).expect("`make python` has built the guest");
        let engine = Engine::new(&python, &target.join("test-cache"), &mut |_| ()).expect("engine");
        let [a, b] = [(); 2].map(|()| engine.library(&[]).expect("looks"));
        assert!(Arc::ptr_eq(&a, &b));
        let c = engine.library(&[&python.lib.join("python3.13")]).expect("looks");
        assert!(*c != *a, "what is passed over is not in it");
    }
}
