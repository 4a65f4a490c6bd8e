//! CPython compiled to machine code, once for every app.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::{Config, Module, OptLevel};

use crate::code_cache;
use crate::guest_module::{self, ModuleError};
use crate::image::Image;
use crate::memory::{GUARD, Memories, RESERVED};
use crate::python::PythonFiles;
use crate::scratch::Scratch;
use crate::ticker::Ticker;
use crate::ticks::Ticks;

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
    pub(crate) module: Module,
    /// Memory as the module's data segments make it: what an instance without a snapshot starts from.
    pub(crate) bare: Arc<Image>,
    pub(crate) ticks: Arc<Ticks>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) python: PythonFiles,
    pub(crate) scratch: Arc<Scratch>,
}

impl Engine {
    /// Compiles the guest, or takes the machine code from `cache` if it was made there before from the same guest by
    /// the same wasmtime for the same kind of processor. Compiling takes some seconds; `progress` gets a line first.
    ///
    /// # Errors
    /// [`EngineError`]; a cache that cannot be used is not one, it is told to `progress`.
    pub fn new(
        python: &PythonFiles,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, EngineError> {
        let ticks = Arc::new(Ticks::new(RESERVED, GUARD).map_err(EngineError::Image)?);
        let wasmtime = wasmtime::Engine::new(&config(ticks.clone())).map_err(EngineError::Wasmtime)?;
        let wasm = std::fs::read(&python.wasm).map_err(|source| EngineError::Python {
            path: python.wasm.clone(),
            source,
        })?;
        let memory = guest_module::first_memory(&wasm)?;
        let module = code_cache::load(&wasmtime, &wasm, cache, progress)?;
        let bare = Image::of_parts(memory.length, memory.data).map_err(EngineError::Image)?;
        let scratch = Scratch::make(&std::env::temp_dir()).map_err(EngineError::Scratch)?;
        let ticker = Ticker::start(ticks.clone()).map_err(EngineError::Thread)?;
        Ok(Self {
            wasmtime,
            module,
            bare: Arc::new(bare),
            ticks,
            ticker: Arc::new(ticker),
            python: python.clone(),
            scratch: Arc::new(scratch),
        })
    }
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
    /// wasmtime refused the guest.
    #[error("wasmtime cannot load the Python guest: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// The guest is not one that images can be made of.
    #[error("the Python guest cannot be used")]
    Module(#[from] ModuleError),
    /// Memory for the guest's first image, or for the clock, cannot be had.
    #[error("cannot make the Python guest's memory image")]
    Image(#[source] std::io::Error),
    /// The folder for the instances' temporary files cannot be made.
    #[error("cannot make a folder in {}", std::env::temp_dir().display())]
    Scratch(#[source] std::io::Error),
    /// The clock's thread could not be started.
    #[error("cannot start the engine's clock thread")]
    Thread(#[source] std::io::Error),
}
