//! An app bound to the engine: loads it, takes its snapshot, and makes instances of that.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use wasmtime::{Store, WasmParams};
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::clock::Clock;
use crate::cpu::{CpuShare, Turns};
use crate::engine::{Engine, EngineError};
use crate::exchange::AppLog;
use crate::files::Files;
use crate::guest::{Guest, MemoryLimit, View};
use crate::image::Image;
use crate::instance::{self, End, Instance, RewindError};
use crate::lines::InstanceLog;
use crate::locks::Locks;
use crate::memory::with_image;
use crate::mounts::MountError;
use crate::quota::{Account, Total, Usage};
use crate::snapshot::Snapshot;
use crate::spec::{AppSpec, Entry, Mount, Quota, Secret};
use crate::time_limit::TimeLimit;
use crate::wasi::{self, Streams};
use crate::{abi, block};

/// Where each instance has a folder of its own.
const TEMP: &str = "/tmp";

/// An app bound to the engine: makes instances. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    spec: AppSpec,
    log: Arc<dyn AppLog>,
    /// When it was bound to the engine.
    since: Instant,
    locks: Locks,
    cpu: Arc<CpuShare>,
    /// Of the spec's mounts. What is in them is counted by the first start.
    accounts: OnceCell<Vec<Option<Account>>>,
    /// What the instances have in their `/tmp`s.
    temp: Arc<Total>,
    /// Made by the first start; `None` in it when the app cannot be copied.
    snapshot: OnceCell<Option<Arc<Snapshot>>>,
}

/// Why an instance of an app did not come up. What the app itself said is in its log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The app could not be imported; the text is the last line of its traceback.
    #[error("the app cannot be loaded: {0}")]
    Import(String),
    /// Starting took longer than [`Limits::start`](crate::Limits::start).
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
    /// The interpreter's memory cannot be had.
    #[error("cannot start Python")]
    Guest(#[source] Box<EngineError>),
    /// The snapshot's memory cannot be had.
    #[error("cannot keep a snapshot of the app")]
    Snapshot(#[source] std::io::Error),
    /// wasmtime could not make the instance.
    #[error("cannot make an instance: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// A setting is too long for the guest.
    #[error("{0} is longer than 65535 bytes")]
    TooLong(&'static str),
}

/// An instance that has no app yet, or whose app is not known to be good.
pub(crate) struct Raw {
    pub(crate) store: Store<Guest>,
    pub(crate) instance: wasmtime::Instance,
    pub(crate) log: InstanceLog,
}

impl Engine {
    /// Binds an app to this engine. Reads none of its files yet, and takes no more memory than its spec.
    pub fn app(&self, spec: AppSpec, log: Arc<dyn AppLog>) -> App {
        let root = spec.mounts.first().map(|root| root.host.clone());
        let key = (spec.name.clone(), root.unwrap_or_default());
        let shared = Shared {
            engine: self.clone(),
            cpu: Arc::new(self.cpu.share(key, spec.weight, spec.limits.cpu_per_minute)),
            temp: Arc::new(Total::new(spec.limits.temp)),
            spec,
            log,
            since: Instant::now(),
            locks: Locks::default(),
            accounts: OnceCell::new(),
            snapshot: OnceCell::new(),
        };
        App {
            shared: Arc::new(shared),
        }
    }
}

impl App {
    /// The app's name, as its spec has it.
    pub fn name(&self) -> &str {
        &self.shared.spec.name
    }

    /// How long until the app may run again, if it has run for [`Limits::cpu_per_minute`](crate::Limits::cpu_per_minute).
    pub fn cpu_wait(&self) -> Option<Duration> {
        self.shared.cpu.wait(Instant::now())
    }

    /// Makes an instance with the app in it. The first call starts Python, imports the app and takes its snapshot, or finds
    /// that in the image cache; from then on instances are copies of it, made in about a millisecond.
    ///
    /// An app that holds files open after its import is not copied, since a copy would not have them: each of its
    /// instances imports it again, and its log says which files they are.
    ///
    /// # Errors
    /// [`StartError`]; a traceback has gone to the app's log by then.
    pub async fn start(&self) -> Result<Instance, StartError> {
        // Before an import that would be for nothing.
        let secrets = secrets_block(self.spec())?;
        match self
            .shared
            .snapshot
            .get_or_try_init(|| self.first_snapshot())
            .await?
        {
            Some(snapshot) => {
                let raw = self.copy(snapshot).await?;
                self.finish(raw, secrets, Some(snapshot.clone())).await
            }
            None => {
                let raw = self.load().await?;
                self.finish(raw, secrets, None).await
            }
        }
    }

    /// Does what the first [`start`](Self::start) would do before it makes an instance, at the lowest priority as far as the
    /// app has an image. A start meanwhile does not wait for it, unless the app is being imported.
    ///
    /// # Errors
    /// As `start`.
    pub async fn prepare(&self) -> Result<(), StartError> {
        let snapshot = &self.shared.snapshot;
        if !snapshot.initialized()
            && let Some(found) = self.find_at_leisure().await
        {
            // Unless a start was quicker, and found the same.
            let _ = snapshot.set(Some(found));
            return Ok(());
        }
        let snapshot = snapshot.get_or_try_init(|| self.first_snapshot());
        snapshot.await.map(|_| ())
    }

    /// Runs Python as a command, with this process's standard streams: `args` are what follows `python3` on a command
    /// line. The spec's entry is not used, nor its time limits. Returns the exit code.
    ///
    /// # Errors
    /// [`StartError`] if Python does not come up, or crashes.
    pub async fn run_python(&self, args: &[String]) -> Result<i32, StartError> {
        let mut block = paths_block(&self.shared.spec)?;
        for arg in args {
            put(&mut block, "arg", arg, "an argument")?;
        }
        let log = InstanceLog::new(self.shared.log.clone());
        let limit = TimeLimit::new(Duration::MAX, Duration::MAX);
        let bare = self.bare()?;
        let mut raw = self
            .instantiate(&bare, Streams::Inherit, log, limit, Clock::of_process())
            .await?;
        self.initialize(&mut raw).await?;
        let length = raw.offer(block);
        match self.call(&mut raw, abi::MAIN, length).await? {
            Ok(code) | Err(End::Exited(code)) => Ok(code),
            Err(End::Crashed(how)) => Err(StartError::Crashed(how)),
            Err(End::TimeLimit) => unreachable!("a limit of a century"),
        }
    }

    /// A fresh instance that has imported the app.
    pub(crate) async fn load(&self) -> Result<Raw, StartError> {
        let log = InstanceLog::new(self.shared.log.clone());
        let limit = self.start_limit();
        let streams = Streams::Log(log.clone());
        let (bare, clock) = (self.bare()?, Clock::of_process());
        let mut raw = self.instantiate(&bare, streams, log, limit, clock).await?;
        self.initialize(&mut raw).await?;
        let length = raw.offer(start_block(self.spec())?);
        let started = self.call(&mut raw, abi::START, length).await?;
        raw.log.mark(None);
        match self.judge(&mut raw, started)? {
            abi::OK => Ok(raw),
            _ if raw.store.data().memory_limit.refused => Err(self.out_of_memory(raw.log.last_line())),
            _ => Err(StartError::Import(raw.log.last_line())),
        }
    }

    /// A copy of the snapshot. Nothing in it has run yet.
    async fn copy(&self, snapshot: &Arc<Snapshot>) -> Result<Raw, StartError> {
        let log = InstanceLog::new(self.shared.log.clone());
        let limit = self.start_limit();
        let streams = Streams::Log(log.clone());
        let mut raw = self
            .instantiate(&snapshot.image, streams, log, limit, snapshot.clock)
            .await?;
        snapshot
            .restore(&mut raw.store, &raw.instance)
            .map_err(StartError::Wasmtime)?;
        Ok(raw)
    }

    /// Gives an instance what is its own: secrets, and what the app's hooks make.
    async fn finish(
        &self,
        mut raw: Raw,
        secrets: Vec<u8>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Result<Instance, StartError> {
        let length = raw.offer(secrets.clone());
        let restored = self.call(&mut raw, abi::RESTORED, length).await?;
        raw.log.mark(None);
        match self.judge(&mut raw, restored)? {
            abi::OK => Instance::new(self.clone(), raw.store, raw.instance, secrets, snapshot)
                .map_err(StartError::Wasmtime),
            _ => Err(StartError::Import(raw.log.last_line())),
        }
    }

    /// The limit of whatever makes an instance ready, from now on.
    pub(crate) fn start_limit(&self) -> TimeLimit {
        let limits = self.shared.spec.limits;
        TimeLimit::new(limits.start, limits.grace)
    }

    /// A line in the app's log about its start.
    pub(crate) fn say(&self, text: &str) {
        self.shared.log.line(None, text);
    }

    pub(crate) fn bare(&self) -> Result<Arc<Image>, StartError> {
        self.shared
            .engine
            .bare()
            .map_err(|error| StartError::Guest(Box::new(error)))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn spec(&self) -> &AppSpec {
        &self.shared.spec
    }

    /// When it was bound to the engine: what its files were later on is what it is made of.
    pub(crate) fn since(&self) -> Instant {
        self.shared.since
    }

    /// What a call of the start came to, if it came back.
    pub(crate) fn judge(&self, raw: &mut Raw, result: Result<i32, End>) -> Result<i32, StartError> {
        let guest = raw.store.data();
        if guest.limit.struck().is_some() {
            return Err(StartError::TimeLimit(self.shared.spec.limits.start));
        }
        let error = match result {
            Ok(code) => return Ok(code),
            Err(End::TimeLimit) => return Err(StartError::TimeLimit(self.shared.spec.limits.start)),
            Err(End::Exited(code)) => StartError::Exited(code),
            Err(End::Crashed(how)) => StartError::Crashed(how),
        };
        Err(if guest.memory_limit.refused {
            self.out_of_memory(error.to_string())
        } else {
            error
        })
    }

    fn out_of_memory(&self, how: String) -> StartError {
        StartError::Memory {
            limit: self.shared.spec.limits.memory,
            how,
        }
    }

    pub(crate) async fn call<P: WasmParams + Sync>(
        &self,
        raw: &mut Raw,
        name: &str,
        params: P,
    ) -> Result<Result<i32, End>, StartError> {
        let function = raw
            .instance
            .get_typed_func(&mut raw.store, name)
            .map_err(StartError::Wasmtime)?;
        Ok(
            instance::call(&self.shared.engine, &mut raw.store, &function, params)
                .await
                .0,
        )
    }

    /// An instance whose memory is a copy of `image`. Nothing in it has run.
    async fn instantiate(
        &self,
        image: &Arc<Image>,
        streams: Streams,
        log: InstanceLog,
        limit: TimeLimit,
        clock: Clock,
    ) -> Result<Raw, StartError> {
        let Shared {
            engine,
            spec,
            locks,
            cpu,
            ..
        } = &*self.shared;
        let turns = Turns::new(cpu);
        let temp = tempfile::tempdir_in(engine.scratch.path()).map_err(StartError::Temp)?;
        let accounts = self.accounts().await?;
        let guest = Guest {
            wasi: self.wasi(temp.path(), clock, streams)?,
            memory: None,
            memory_limit: MemoryLimit {
                bytes: spec.limits.memory,
                refused: false,
                stack: None,
                view: None,
            },
            limit,
            turns: turns.clone(),
            ticks: engine.ticks.clone(),
            clock,
            interrupt_words: None,
            entropy: Vec::new(),
            block: Vec::new(),
            environ: Vec::new(),
            told_slow: false,
            track: None,
            python: engine.python_layout(),
            exchange: None,
            locks: locks.owner(),
            log: log.clone(),
            temp,
            files: self.files(accounts),
        };
        let mut store = instance::store(engine, guest);
        // Copies that WASI makes for the guest count as its memory does.
        store.set_hostcall_fuel(usize::try_from(spec.limits.memory).unwrap_or(usize::MAX));
        let make = with_image(image, engine.linked.instantiate_async(&mut store));
        let (made, _) = turns.run(make).await;
        let instance = made.map_err(|error| match store.data().memory_limit.refused {
            true => self.out_of_memory("not even Python fits".into()),
            false => StartError::Wasmtime(error),
        })?;
        let memory = instance.get_memory(&mut store, "memory");
        let python = engine.python_layout();
        store.data_mut().memory_limit.view = memory
            .zip(python)
            .map(|(memory, python)| View::new(memory, &store, python));
        store.data_mut().memory = memory;
        Ok(Raw { store, instance, log })
    }

    /// WASI for an instance with `/tmp` at `temp`. The order of mounts is that of the guest's descriptors, so it must be
    /// the same for a copy as it was for what the snapshot was taken of.
    fn wasi(&self, temp: &Path, clock: Clock, streams: Streams) -> Result<WasiP1Ctx, MountError> {
        let Shared { engine, spec, .. } = &*self.shared;
        let library = Mount {
            host: engine.python.lib.clone(),
            guest: "/lib".into(),
            write: false,
            quota: Quota::default(),
        };
        let scratch = Mount {
            host: temp.to_owned(),
            guest: TEMP.into(),
            write: true,
            quota: Quota::default(),
        };
        let scratch = self.has_own_temp().then_some(scratch);
        let mounts = spec.mounts.iter().chain([&library]).chain(&scratch);
        wasi::context(mounts, &spec.env, clock, streams)
    }

    /// `wasgi python` may show a folder of the user's there.
    fn has_own_temp(&self) -> bool {
        !self.spec().mounts.iter().any(|mount| mount.guest == TEMP)
    }

    /// The accounts of the spec's mounts.
    async fn accounts(&self) -> Result<&[Option<Account>], StartError> {
        let count = || async {
            let app = self.clone();
            let counting = move || {
                let Shared { engine, spec, .. } = &*app.shared;
                let mounts = spec.mounts.iter();
                mounts.map(|mount| engine.usages.account(mount)).collect()
            };
            // Most apps have nothing to count.
            match self.spec().mounts.iter().all(|mount| mount.quota.is_none()) {
                true => Ok(vec![None; self.spec().mounts.len()]),
                false => match tokio::task::spawn_blocking(counting).await {
                    Ok(counted) => counted,
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                },
            }
        };
        let accounts: Result<_, MountError> = self.shared.accounts.get_or_try_init(count).await;
        Ok(accounts?)
    }

    /// What an instance has open that has used no descriptor yet, with an empty `/tmp`. The order is that of `wasi`.
    fn files(&self, accounts: &[Option<Account>]) -> Files {
        let temp = self.has_own_temp().then(|| {
            let usage = Arc::new(Usage::part_of(self.shared.temp.clone()));
            Some(Account::new(usage, Quota::default()))
        });
        let all = accounts.iter().cloned().chain([None]).chain(temp).collect();
        Files::new(all, self.spec().limits.open_files)
    }

    /// Takes what the host holds for an instance back to how it was made: open files, temporary files, locks.
    pub(crate) fn renew_host_state(&self, guest: &mut Guest) -> Result<(), RewindError> {
        guest.locks.release();
        // WASI opens its streams and folders when a guest first uses a descriptor. Until then there is nothing to renew,
        // and the guest can have no files.
        if wasi::is_untouched(&mut guest.wasi) {
            return Ok(());
        }
        guest.wasi = self.wasi(guest.temp.path(), guest.clock, Streams::Log(guest.log.clone()))?;
        let entries = std::fs::read_dir(guest.temp.path()).map_err(RewindError::System)?;
        for entry in entries {
            let entry = entry.map_err(RewindError::System)?;
            let removed = match entry.file_type().map_err(RewindError::System)?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
            removed.map_err(RewindError::System)?;
        }
        // The files are closed and removed by now, and so their room is free.
        let accounts = self.shared.accounts.get().map_or(&[][..], Vec::as_slice);
        guest.files = self.files(accounts);
        Ok(())
    }

    /// Has libc find its folders and standard streams.
    async fn initialize(&self, raw: &mut Raw) -> Result<(), StartError> {
        let initialize: wasmtime::TypedFunc<(), ()> = raw
            .instance
            .get_typed_func(&mut raw.store, abi::INITIALIZE)
            .map_err(StartError::Wasmtime)?;
        let (result, _) = instance::call(&self.shared.engine, &mut raw.store, &initialize, ()).await;
        self.judge(raw, result.map(|()| abi::OK)).map(drop)
    }
}

impl Raw {
    /// Puts a block where the guest will take it from. Returns its length, for the call.
    fn offer(&mut self, block: Vec<u8>) -> i32 {
        let length = block.len() as i32;
        self.store.data_mut().block = block;
        length
    }
}

/// What both kinds of start need to know: where the guest starts, and where it imports from.
fn paths_block(spec: &AppSpec) -> Result<Vec<u8>, StartError> {
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
    Ok(block)
}

fn start_block(spec: &AppSpec) -> Result<Vec<u8>, StartError> {
    let mut block = paths_block(spec)?;
    for path in &spec.site_dirs {
        put(&mut block, "site", path, "a path")?;
    }
    for secret in &spec.secrets {
        put(&mut block, "secret", &secret.name, "the name of a secret")?;
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

fn secrets_block(spec: &AppSpec) -> Result<Vec<u8>, StartError> {
    let mut block = Vec::new();
    for Secret { name, value } in &spec.secrets {
        if name.len() > u16::MAX.into() {
            return Err(StartError::TooLong("the name of a secret"));
        }
        put(&mut block, name, value, "a secret")?;
    }
    Ok(block)
}

fn put(block: &mut Vec<u8>, key: &str, value: &str, what: &'static str) -> Result<(), StartError> {
    if value.len() > u16::MAX.into() {
        return Err(StartError::TooLong(what));
    }
    block::push(block, key, value);
    Ok(())
}
