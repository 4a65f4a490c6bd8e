//! One live copy of Python with an app in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wasmtime::component::ResourceTableError;
use wasmtime::{AsContext, Store, Trap, TypedFunc, WasmParams, WasmResults};
use wasmtime_wasi::I32Exit;

use crate::abi;
use crate::app::App;
use crate::block;
use crate::engine::Engine;
use crate::exchange::{Failure, Request};
use crate::guest::{Guest, begin};
use crate::image::PAGE;
use crate::mounts::MountError;
use crate::rewind::{Rewind, difference};
use crate::snapshot::Snapshot;
use crate::stack_log;
use crate::time_limit::{Reason, Stopped, TimeLimit};
use crate::track::At;

/// What an instance takes beside its linear memory, in bytes, about: a fiber's stack, tables, what WASI holds.
const BESIDE_MEMORY: u64 = 256 << 10;

/// A live copy of the interpreter with the app loaded. Handles one request at a time.
pub struct Instance {
    app: App,
    store: Store<Guest>,
    handle: TypedFunc<i32, i32>,
    restored: TypedFunc<i32, i32>,
    /// What `wasgi_restored` is given: the secrets.
    secrets: Vec<u8>,
    /// What it was made from, if the app can be copied.
    snapshot: Option<Arc<Snapshot>>,
    rewind: Rewind,
}

/// What going back to the snapshot took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rewound {
    /// Pages that had been written, 4 KiB each; `None` where the kernel does not tell.
    pub pages: Option<usize>,
    /// Wall clock.
    pub time: Duration,
}

/// Why an instance cannot go back to its snapshot. It must not be used again.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// The app could not be copied to begin with.
    #[error("the app has no snapshot to go back to")]
    NoSnapshot,
    /// Memory grew past the image's size, and cannot shrink.
    #[error("the app's memory grew by {0} KiB beyond its snapshot")]
    Grown(usize),
    /// The system did not do its part.
    #[error("cannot restore the instance's memory and files")]
    System(#[source] std::io::Error),
    /// A folder cannot be shown to the guest again.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A hook given to `wasgi.after_restore` or `os.register_at_fork` raised, or did not come back.
    #[error("a hook of wasgi.after_restore or os.register_at_fork failed")]
    Hook,
    /// The comparison that was asked for found a difference.
    #[error("memory differs from the snapshot at {0:#x} after a rewind")]
    Differs(usize),
}

/// What became of a request, for the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Report {
    /// Whether the instance may take another request.
    pub reusable: bool,
    /// Why not, in words for the log.
    pub why_not: Option<WhyNot>,
    /// Time the guest ran, waits left out.
    pub cpu: Duration,
    /// Linear memory of the instance after the request, in bytes.
    pub memory: u64,
}

/// Why an instance may not take another request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Deserialize, Serialize)]
pub enum WhyNot {
    /// Its request ran into [`Limits::time`](crate::Limits::time).
    #[error("time limit of {0:?} reached")]
    TimeLimit(Duration),
    /// Its request ran into [`Limits::cpu`](crate::Limits::cpu).
    #[error("limit of {0:?} of CPU time reached")]
    CpuLimit(Duration),
    /// The operator has ended its request.
    #[error("the operator has ended its request")]
    Killed,
    /// Growth of its memory was refused, and memory does not shrink.
    #[error("memory limit of {} MiB reached{end}", .limit >> 20)]
    MemoryLimit {
        /// The limit, in bytes.
        limit: u64,
        /// How the call ended, if not by returning: `; ` and the words for it.
        end: String,
    },
    /// The app ended its interpreter, with this exit code.
    #[error("the app ended its interpreter with exit code {0}")]
    Exited(i32),
    /// WebAssembly stopped it.
    #[error("the instance crashed: {0}")]
    Crashed(String),
}

/// How a call into the guest can end other than by returning.
#[derive(Debug)]
pub(crate) enum End {
    TimeLimit,
    Exited(i32),
    Crashed(String),
}

impl End {
    fn of(error: wasmtime::Error) -> Self {
        if error.is::<Stopped>() {
            return Self::TimeLimit;
        }
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Self::Exited(*code);
        }
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Self::Crashed("too many open files".into());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Self::Crashed("stack overflow".into()),
            // What C's abort() comes down to; CPython writes the reason to standard error first.
            Some(Trap::UnreachableCodeReached) => Self::Crashed("abort".into()),
            Some(trap) => Self::Crashed(trap.to_string()),
            None => Self::Crashed(format!("{error:#}")),
        }
    }
}

/// A store that obeys the memory limit.
pub(crate) fn store(engine: &Engine, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(&engine.wasmtime, guest);
    store.limiter(|guest| &mut guest.memory_limit);
    store
}

/// Calls an export. Also gives the time the guest ran.
pub(crate) async fn call<P: WasmParams + Sync, R: WasmResults + Sync>(
    engine: &Engine,
    store: &mut Store<Guest>,
    function: &TypedFunc<P, R>,
    params: P,
) -> (Result<R, End>, Duration) {
    let _running = engine.ticker.run();
    let turns = store.data().turns.clone();
    let (result, spent) = turns.run(function.call_async(store, params)).await;
    (result.map_err(End::of), spent)
}

impl Instance {
    pub(crate) fn new(
        app: App,
        mut store: Store<Guest>,
        instance: wasmtime::Instance,
        secrets: Vec<u8>,
        snapshot: Option<Arc<Snapshot>>,
    ) -> wasmtime::Result<Self> {
        let handle = instance.get_typed_func(&mut store, abi::HANDLE)?;
        let restored = instance.get_typed_func(&mut store, abi::RESTORED)?;
        Ok(Self {
            app,
            store,
            handle,
            restored,
            secrets,
            snapshot,
            rewind: Rewind::default(),
        })
    }

    /// Takes one request through the app.
    ///
    /// The reply goes to `request.reply` while the app runs. Between the start and the end of this call the instance is
    /// not in a state to be used again: if the future is dropped, drop the instance.
    pub async fn handle(&mut self, request: Request) -> Report {
        let limits = self.app.spec().limits;
        if !block::is_whole(&request.environ) {
            let mut reply = request.reply;
            reply.fail(Failure::BadReply(
                "the server made an environ block that is not one".into(),
            ));
            return self.report(None, Duration::ZERO);
        }
        let length = begin(
            self.store.data_mut(),
            request,
            TimeLimit::new(limits.time, limits.grace)
                .cpu(limits.cpu)
                .slow(limits.slow),
        );
        let (result, cpu) = call(self.app.engine(), &mut self.store, &self.handle, length as i32).await;
        match &result {
            Err(End::TimeLimit) => {
                let after = match self.store.data().limit.struck() {
                    Some(Reason::Killed) => "the operator had ended it",
                    Some(Reason::CpuLimit) => "its limit of CPU time",
                    Some(Reason::TimeLimit) | None => "its time limit",
                };
                let what = format!("was stopped {:?} after {after}", limits.grace);
                stack_log::tell(self.store.as_context(), &what);
            }
            Err(End::Crashed(how)) => {
                stack_log::tell(self.store.as_context(), &format!("crashed the instance: {how}"));
            }
            Ok(_) | Err(End::Exited(_)) => {}
        }
        stack_log::tell_refused(self.store.as_context());
        let memory = self
            .store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store));
        let guest = self.store.data_mut();
        let exchange = guest.exchange.take();
        let refused = guest.memory_limit.refused;
        guest.log.mark(None);
        if let Some(track) = guest.track.take() {
            track.set_at(At::Over);
            track.set_cost(cpu, memory as u64);
        }
        let struck = guest.limit.struck();
        let (failure, mut why_not) = match result {
            Ok(abi::OK) => (
                Failure::BadReply("the app ended without finishing its reply".into()),
                None,
            ),
            Ok(_) => (Failure::App, None),
            Err(End::TimeLimit) => (struck.map_or(Failure::TimeLimit, Reason::failure), None),
            Err(End::Exited(code)) => (Failure::Exited(code), Some(WhyNot::Exited(code))),
            Err(End::Crashed(how)) => (Failure::Crashed(how.clone()), Some(WhyNot::Crashed(how))),
        };
        if let Some(mut exchange) = exchange {
            exchange.fail(failure);
        }
        if let Some(reason) = struck {
            why_not = Some(match reason {
                Reason::TimeLimit => WhyNot::TimeLimit(limits.time),
                Reason::CpuLimit => WhyNot::CpuLimit(limits.cpu.unwrap_or_default()),
                Reason::Killed => WhyNot::Killed,
            });
        } else if refused {
            // Said first of a crash, too: running out of memory is the likely reason of an abort in C code.
            let end = why_not.map(|why| format!("; {why}")).unwrap_or_default();
            let limit = limits.memory;
            why_not = Some(WhyNot::MemoryLimit { limit, end });
        }
        self.report(why_not, cpu)
    }

    /// Whether it is a copy of the app's snapshot, and not an import of its own.
    pub fn is_copy(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Takes the instance back to the app's snapshot: memory, open files, temporary files, locks. Whatever a request left
    /// is gone, and the next one finds randomness of its own. Only between requests, and only of a reusable instance.
    ///
    /// With `verify` all of memory is compared with the image afterwards, which takes milliseconds.
    ///
    /// # Errors
    /// [`RewindError`]: drop the instance then.
    pub async fn rewind(&mut self, verify: bool) -> Result<Rewound, RewindError> {
        let start = Instant::now();
        let snapshot = self.snapshot.clone().ok_or(RewindError::NoSnapshot)?;
        // The host's work for the app is the app's.
        let turns = self.store.data().turns.clone();
        let (pages, _) = turns.run(async { self.restore(&snapshot, verify) }).await;
        let pages = pages?;
        // The request's own limit may be nearly over.
        self.store.data_mut().limit = self.app.start_limit();
        self.store.data_mut().block.clone_from(&self.secrets);
        let length = self.secrets.len() as i32;
        match call(self.app.engine(), &mut self.store, &self.restored, length).await {
            (Ok(abi::OK), _) => Ok(Rewound {
                pages,
                time: start.elapsed(),
            }),
            _ => Err(RewindError::Hook),
        }
    }

    /// The host's part of a rewind. Gives the pages that had been written.
    fn restore(&mut self, snapshot: &Snapshot, verify: bool) -> Result<Option<usize>, RewindError> {
        let memory = self.store.data().memory.ok_or(RewindError::NoSnapshot)?;
        let bytes = memory.data_mut(&mut self.store);
        if bytes.len() != snapshot.image.len() {
            return Err(RewindError::Grown((bytes.len() - snapshot.image.len()) >> 10));
        }
        let pages = (self.rewind.rewind(bytes, &snapshot.image)).map_err(RewindError::System)?;
        if verify {
            let image = snapshot.image.view().map_err(RewindError::System)?;
            if let Some(at) = difference(bytes, &image) {
                return Err(RewindError::Differs(at));
            }
        }
        self.app.renew_host_state(self.store.data_mut())?;
        snapshot.refresh_entropy(&mut self.store);
        Ok(pages)
    }

    /// Memory that the instance has for itself, in bytes: pages that are not its image's any more, and what it takes beside
    /// its linear memory. Only between requests. Where the kernel does not tell, all of its linear memory counts.
    pub fn memory(&mut self) -> u64 {
        let pages = self.store.data().memory.map_or(0, |memory| {
            let bytes = memory.data(&self.store);
            let own = self.rewind.own_pages(bytes).ok().flatten();
            own.unwrap_or(bytes.len() / PAGE)
        });
        BESIDE_MEMORY + (pages * PAGE) as u64
    }

    fn report(&self, why_not: Option<WhyNot>, cpu: Duration) -> Report {
        let memory = self
            .store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store) as u64);
        Report {
            reusable: why_not.is_none(),
            why_not,
            cpu,
            memory,
        }
    }
}
