//! What one app is and may see, in the engine's own terms.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{InstancePre, Linker, Store};

use crate::engine::{Engine, EngineError};
use crate::exchange::AppLog;
use crate::guest::{Guest, MemoryLimit};
use crate::instance::{self, End, Instance};
use crate::lines::InstanceLog;
use crate::locks::Locks;
use crate::time_limit::TimeLimit;
use crate::wasi::{self, MountError, Streams};
use crate::{abi, block, host};

/// One app: which code to load, what of the host's files it sees, and its limits.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// Marks the app's lines in the log.
    pub name: String,
    /// Where the WSGI callable is.
    pub entry: Entry,
    /// Guest folders put on `sys.path` ahead of the standard library, in order.
    pub sys_path: Vec<String>,
    /// Guest folders added to `sys.path` behind those, whose `.pth` files count: a virtual environment's site-packages.
    pub site_dirs: Vec<String>,
    /// Folders of the host that the guest sees.
    pub mounts: Vec<Mount>,
    /// The whole of `os.environ`.
    pub env: Vec<(String, String)>,
    /// Guest folder the app starts in.
    pub working_dir: String,
    /// What each instance and request may use.
    pub limits: Limits,
}

/// Where the WSGI callable of an app is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `module:callable`, imported from `sys.path`; `callable` may be dotted.
    Module {
        /// Dotted module name.
        module: String,
        /// Name of the callable in the module.
        callable: String,
    },
    /// A file run as a module, as mod_wsgi and uWSGI's `wsgi-file` do.
    File {
        /// Path as the guest sees it.
        path: String,
        /// Name of the callable in the file; `application` is usual.
        callable: String,
    },
}

/// A folder of the host shown to the guest. `..` and symbolic links lead nowhere outside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Folder on the host.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: String,
    /// Whether the app may change what is in it.
    pub write: bool,
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock per request; at its end Python gets an exception and the client a 504.
    pub time: Duration,
    /// How long after that Python may unwind before the instance is stopped.
    pub grace: Duration,
    /// Wall clock for starting Python and importing the app.
    pub start: Duration,
    /// Linear memory and tables per instance, in bytes.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(30),
            grace: Duration::from_secs(1),
            start: Duration::from_secs(60),
            memory: 256 << 20,
        }
    }
}

/// An app bound to the engine: makes instances. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    spec: AppSpec,
    log: Arc<dyn AppLog>,
    linked: InstancePre<Guest>,
    locks: Locks,
}

/// Why an instance of an app did not come up. What the app itself said is in its log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The app could not be imported; the text is the last line of its traceback.
    #[error("the app cannot be loaded: {0}")]
    Import(String),
    /// Starting took longer than [`Limits::start`].
    #[error("the app did not finish its start within {0:?}")]
    TimeLimit(Duration),
    /// The app ended its interpreter while it was being imported.
    #[error("the app ended its interpreter with exit code {0} while starting")]
    Exited(i32),
    /// The instance crashed, or ran out of memory in a place where Python cannot go on.
    #[error("the instance crashed while starting: {0}")]
    Crashed(String),
    /// The memory limit was reached.
    #[error("the app needs more than limits.memory ({limit} MiB) to start: {how}", limit = .limit >> 20)]
    Memory {
        /// The limit, in bytes.
        limit: u64,
        /// How the start ended.
        how: String,
    },
    /// A folder cannot be shown to the guest.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The instance's own temporary folder cannot be made.
    #[error("cannot make a temporary folder for the app")]
    Temp(#[source] std::io::Error),
    /// wasmtime could not make the instance.
    #[error("cannot make an instance: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// A setting is too long for the guest.
    #[error("{0} is longer than 65535 bytes")]
    TooLong(&'static str),
}

impl Engine {
    /// Binds an app to this engine. Reads none of its files yet.
    ///
    /// # Errors
    /// [`EngineError::Wasmtime`] if the guest asks for functions that this host does not have: another version's guest.
    pub fn app(&self, spec: AppSpec, log: Arc<dyn AppLog>) -> Result<App, EngineError> {
        let mut linker = Linker::new(&self.wasmtime);
        wasi::add_to_linker(&mut linker)
            .and_then(|()| host::add_to_linker(&mut linker))
            .map_err(EngineError::Wasmtime)?;
        let linked = linker
            .instantiate_pre(&self.module)
            .map_err(EngineError::Wasmtime)?;
        let shared = Shared {
            engine: self.clone(),
            spec,
            log,
            linked,
            locks: Locks::default(),
        };
        Ok(App {
            shared: Arc::new(shared),
        })
    }
}

impl App {
    /// The app's name, as its spec has it.
    pub fn name(&self) -> &str {
        &self.shared.spec.name
    }

    /// Starts Python and imports the app.
    ///
    /// # Errors
    /// [`StartError`]; a traceback has gone to the app's log by then.
    pub async fn start(&self) -> Result<Instance, StartError> {
        let Shared {
            engine, spec, log, ..
        } = &*self.shared;
        let log = InstanceLog::new(log.clone());
        let limit = TimeLimit::new(spec.limits.start, spec.limits.grace);
        let (mut store, instance) = self
            .instantiate(Streams::Log(log.clone()), log.clone(), limit)
            .await?;
        let block = start_block(spec)?;
        let result = self.call(&mut store, &instance, abi::START, block).await?;
        log.mark(None);
        let guest = store.data_mut();
        let failed = |how: StartError| match guest.memory_limit.refused {
            true => StartError::Memory {
                limit: spec.limits.memory,
                how: how.to_string(),
            },
            false => how,
        };
        match result {
            _ if guest.limit.struck() => return Err(StartError::TimeLimit(spec.limits.start)),
            Ok(abi::OK) => {}
            Ok(_) => return Err(failed(StartError::Import(log.last_line()))),
            Err(End::TimeLimit) => return Err(StartError::TimeLimit(spec.limits.start)),
            Err(End::Exited(code)) => return Err(failed(StartError::Exited(code))),
            Err(End::Crashed(how)) => return Err(failed(StartError::Crashed(how))),
        }
        let handle = instance
            .get_typed_func(&mut store, abi::HANDLE)
            .map_err(StartError::Wasmtime)?;
        Ok(Instance::new(engine.clone(), store, handle, spec.limits))
    }

    /// Runs Python as a command, with this process's standard streams: `args` are what follows `python3` on a command
    /// line. The spec's entry is not used, nor its time limits. Returns the exit code.
    ///
    /// # Errors
    /// [`StartError`] if Python does not come up, or crashes.
    pub async fn run_python(&self, args: &[String]) -> Result<i32, StartError> {
        let spec = &self.shared.spec;
        let mut block = Vec::new();
        put(
            &mut block,
            "working-dir",
            &spec.working_dir,
            "the working directory",
        )?;
        for path in &spec.sys_path {
            put(&mut block, "sys.path", path, "a path")?;
        }
        for arg in args {
            put(&mut block, "arg", arg, "an argument")?;
        }
        let log = InstanceLog::new(self.shared.log.clone());
        let limit = TimeLimit::new(Duration::MAX, Duration::MAX);
        let (mut store, instance) = self.instantiate(Streams::Inherit, log, limit).await?;
        match self.call(&mut store, &instance, abi::MAIN, block).await? {
            Ok(code) | Err(End::Exited(code)) => Ok(code),
            Err(End::Crashed(how)) => Err(StartError::Crashed(how)),
            Err(End::TimeLimit) => unreachable!("a limit of a century"),
        }
    }

    async fn call(
        &self,
        store: &mut Store<Guest>,
        instance: &wasmtime::Instance,
        name: &str,
        block: Vec<u8>,
    ) -> Result<Result<i32, End>, StartError> {
        let function = instance
            .get_typed_func(&mut *store, name)
            .map_err(StartError::Wasmtime)?;
        let length = block.len();
        store.data_mut().block = block;
        Ok(instance::call(&self.shared.engine, store, &function, length)
            .await
            .0)
    }

    /// A fresh instance whose libc is ready, but not yet its Python.
    async fn instantiate(
        &self,
        streams: Streams,
        log: InstanceLog,
        limit: TimeLimit,
    ) -> Result<(Store<Guest>, wasmtime::Instance), StartError> {
        let Shared {
            engine,
            spec,
            linked,
            locks,
            ..
        } = &*self.shared;
        let temp = tempfile::Builder::new()
            .prefix("wasgi-")
            .tempdir()
            .map_err(StartError::Temp)?;
        let library = Mount {
            host: engine.python.lib.clone(),
            guest: "/lib".into(),
            write: false,
        };
        let scratch = Mount {
            host: temp.path().to_owned(),
            guest: "/tmp".into(),
            write: true,
        };
        let mounts = spec.mounts.iter().chain([&library, &scratch]);
        let guest = Guest {
            wasi: wasi::context(mounts, &spec.env, streams)?,
            memory: None,
            memory_limit: MemoryLimit {
                bytes: spec.limits.memory,
                refused: false,
            },
            limit,
            interrupt_words: None,
            block: Vec::new(),
            exchange: None,
            locks: locks.owner(),
            log,
            _temp: temp,
        };
        let mut store = instance::store(engine, guest);
        // Copies that WASI makes for the guest count as its memory does.
        store.set_hostcall_fuel(usize::try_from(spec.limits.memory).unwrap_or(usize::MAX));
        store.set_epoch_deadline(1);
        let instance = linked.instantiate_async(&mut store).await.map_err(|error| {
            match store.data().memory_limit.refused {
                true => StartError::Memory {
                    limit: spec.limits.memory,
                    how: "not even Python fits".into(),
                },
                false => StartError::Wasmtime(error),
            }
        })?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        let initialize: wasmtime::TypedFunc<(), ()> = instance
            .get_typed_func(&mut store, abi::INITIALIZE)
            .map_err(StartError::Wasmtime)?;
        initialize
            .call_async(&mut store, ())
            .await
            .map_err(StartError::Wasmtime)?;
        Ok((store, instance))
    }
}

fn start_block(spec: &AppSpec) -> Result<Vec<u8>, StartError> {
    let mut block = Vec::new();
    put(
        &mut block,
        "working-dir",
        &spec.working_dir,
        "the working directory",
    )?;
    for path in &spec.sys_path {
        put(&mut block, "sys.path", path, "a path")?;
    }
    for path in &spec.site_dirs {
        put(&mut block, "site", path, "a path")?;
    }
    let callable = match &spec.entry {
        Entry::Module { module, callable } => {
            put(&mut block, "module", module, "app.module")?;
            callable
        }
        Entry::File { path, callable } => {
            put(&mut block, "file", path, "app.wsgi-file")?;
            callable
        }
    };
    put(&mut block, "callable", callable, "app.callable")?;
    Ok(block)
}

fn put(block: &mut Vec<u8>, key: &str, value: &str, what: &'static str) -> Result<(), StartError> {
    if value.len() > u16::MAX.into() {
        return Err(StartError::TooLong(what));
    }
    block::push(block, key, value);
    Ok(())
}
