//! One live copy of Python with an app in it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTableError;
use wasmtime::{Store, Trap, TypedFunc, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::abi;
use crate::app::Limits;
use crate::block;
use crate::engine::Engine;
use crate::exchange::{Failure, Request};
use crate::guest::{Guest, begin};
use crate::time_limit::{self, Stopped, TimeLimit};

/// A live copy of the interpreter with the app loaded. Handles one request at a time.
pub struct Instance {
    engine: Engine,
    store: Store<Guest>,
    handle: TypedFunc<i32, i32>,
    limits: Limits,
}

/// What became of a request, for the server.
#[derive(Debug)]
pub struct Report {
    /// Whether the instance may take another request.
    pub reusable: bool,
    /// Why not, for the log: `time limit of 30s reached`.
    pub why_not: Option<String>,
    /// Time the guest ran, waits left out.
    pub cpu: Duration,
    /// Linear memory of the instance after the request, in bytes.
    pub memory: u64,
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

/// A store ready to run: yields at each tick, obeys the limits.
pub(crate) fn store(engine: &Engine, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(&engine.wasmtime, guest);
    store.limiter(|guest| &mut guest.memory_limit);
    store.epoch_deadline_callback(|store| {
        time_limit::check(store)?;
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

/// Calls an export that takes a block. Also gives the time the guest ran.
pub(crate) async fn call(
    engine: &Engine,
    store: &mut Store<Guest>,
    function: &TypedFunc<i32, i32>,
    block_length: usize,
) -> (Result<i32, End>, Duration) {
    let _running = engine.ticker.run();
    store.set_epoch_deadline(1);
    let mut spent = Duration::ZERO;
    let result = Timed {
        call: pin!(function.call_async(store, block_length as i32)),
        spent: &mut spent,
    }
    .await;
    (result.map_err(End::of), spent)
}

impl Instance {
    pub(crate) fn new(
        engine: Engine,
        store: Store<Guest>,
        handle: TypedFunc<i32, i32>,
        limits: Limits,
    ) -> Self {
        Self {
            engine,
            store,
            handle,
            limits,
        }
    }

    /// Takes one request through the app.
    ///
    /// The reply goes to `request.reply` while the app runs. Between the start and the end of this call the instance is
    /// not in a state to be used again: if the future is dropped, drop the instance.
    pub async fn handle(&mut self, request: Request) -> Report {
        let limits = self.limits;
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
            TimeLimit::new(limits.time, limits.grace),
        );
        let (result, cpu) = call(&self.engine, &mut self.store, &self.handle, length).await;
        let guest = self.store.data_mut();
        let exchange = guest.exchange.take();
        let refused = guest.memory_limit.refused;
        guest.log.mark(None);
        let struck = guest.limit.struck();
        let (failure, mut why_not) = match result {
            Ok(abi::OK) => (
                Failure::BadReply("the app ended without finishing its reply".into()),
                None,
            ),
            Ok(_) => (Failure::App, None),
            Err(End::TimeLimit) => (Failure::TimeLimit, None),
            Err(End::Exited(code)) => (
                Failure::Exited(code),
                Some(format!("the app ended its interpreter with exit code {code}")),
            ),
            Err(End::Crashed(how)) => {
                let why = format!("the instance crashed: {how}");
                (Failure::Crashed(how), Some(why))
            }
        };
        if let Some(mut exchange) = exchange {
            exchange.fail(failure);
        }
        if struck {
            why_not = Some(format!("time limit of {:?} reached", limits.time));
        } else if refused {
            // Said first of a crash, too: running out of memory is the likely reason of an abort in C code.
            let end = why_not.map(|why| format!("; {why}")).unwrap_or_default();
            why_not = Some(format!(
                "memory limit of {} MiB reached{end}",
                limits.memory >> 20
            ));
        }
        self.report(why_not, cpu)
    }

    fn report(&self, why_not: Option<String>, cpu: Duration) -> Report {
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

/// Adds up the time that a call takes of its thread.
struct Timed<'a, F> {
    call: Pin<&'a mut F>,
    spent: &'a mut Duration,
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = Instant::now();
        let result = self.call.as_mut().poll(cx);
        *self.spent += start.elapsed();
        result
    }
}
