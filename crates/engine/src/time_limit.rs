//! The end of a call into the guest before its time, in two stages: an exception in Python, then the end of the instance.
//! The time limit brings it, the limit of CPU time, or the operator.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::{Duration, Instant};

use wasmtime::{AsContext, Caller, Memory, StoreContext, StoreContextMut};

use crate::abi;
use crate::exchange::Failure;
use crate::guest::Guest;
use crate::stack_log;
use crate::track::{At, Track};

/// When a call is interrupted, and when it is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    /// Python gets an exception from here on.
    strike: Instant,
    /// The instance is stopped from here on.
    stop: Instant,
    /// Python gets an exception when it has run for so long.
    cpu: Option<Duration>,
    /// From here on, after this long, the log is told where it is.
    pub(crate) slow: Option<(Instant, Duration)>,
    /// How long after the first stage the second comes.
    grace: Duration,
    struck: Option<Reason>,
}

/// Why a call is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It took too long.
    TimeLimit,
    /// The operator has ended it.
    Killed,
    /// It has run for too long.
    CpuLimit,
}

impl Reason {
    /// As the guest is told.
    pub(crate) fn code(self) -> i32 {
        match self {
            Reason::TimeLimit => abi::reason::TIME_LIMIT,
            Reason::Killed => abi::reason::KILLED,
            Reason::CpuLimit => abi::reason::CPU_LIMIT,
        }
    }

    /// What becomes of the reply.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Reason::TimeLimit => Failure::TimeLimit,
            Reason::Killed => Failure::Killed,
            Reason::CpuLimit => Failure::CpuLimit,
        }
    }
}

/// The guest went on after its grace: the trap that ends it.
#[derive(Debug, thiserror::Error)]
#[error("time limit and grace are over")]
pub(crate) struct Stopped;

/// How a wait in the host ended.
pub(crate) enum Waited<T> {
    Done(T),
    /// The first stage has come while waiting: the guest gets EINTR.
    Struck(Reason),
    /// The grace was over while waiting: the guest is stopped.
    Stopped,
}

impl TimeLimit {
    /// Starts now. Limits of a century are as good as none.
    pub(crate) fn new(limit: Duration, grace: Duration) -> Self {
        let longest = Duration::from_secs(100 * 365 * 86_400);
        let (strike, grace) = (Instant::now() + limit.min(longest), grace.min(longest));
        Self {
            strike,
            stop: strike + grace,
            cpu: None,
            slow: None,
            grace,
            struck: None,
        }
    }

    /// The call may run for `cpu`, waits left out.
    pub(crate) fn cpu(mut self, cpu: Option<Duration>) -> Self {
        self.cpu = cpu;
        self
    }

    /// The log is told where a call is that takes longer than `slow`.
    pub(crate) fn slow(mut self, slow: Option<Duration>) -> Self {
        self.slow = slow.and_then(|slow| Some((Instant::now().checked_add(slow)?, slow)));
        self
    }

    /// Why the first stage has come, if it has.
    pub(crate) fn struck(&self) -> Option<Reason> {
        self.struck
    }

    /// The next stage.
    fn next(&self) -> Instant {
        match self.struck {
            Some(_) => self.stop,
            None => self.strike,
        }
    }

    /// Waits for `work`, at most until the next stage, which `track` may bring early.
    async fn wait<T>(&self, track: Option<&Track>, work: impl Future<Output = T>) -> Waited<T> {
        let killed = async {
            match track.filter(|_| self.struck.is_none()) {
                Some(track) => track.killed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            value = work => Waited::Done(value),
            () = killed => Waited::Struck(Reason::Killed),
            () = tokio::time::sleep_until(self.next().into()) => match self.struck {
                Some(_) => Waited::Stopped,
                None => Waited::Struck(Reason::TimeLimit),
            },
        }
    }
}

/// Waits in the host for `work`, at most until the next stage of the limit.
pub(crate) async fn wait<T>(
    caller: &mut Caller<'_, Guest>,
    at: At,
    work: impl Future<Output = T>,
) -> Waited<T> {
    let track = caller.data().track.clone();
    if let Some(track) = &track {
        track.set_at(at);
        tell_cost(track, &caller.as_context());
    }
    let waited = wait_for(caller, at, track.as_deref(), work).await;
    if let Some(track) = &track {
        track.set_at(At::Runs);
    }
    waited
}

async fn wait_for<T>(
    caller: &mut Caller<'_, Guest>,
    at: At,
    track: Option<&Track>,
    work: impl Future<Output = T>,
) -> Waited<T> {
    let mut work = pin!(work);
    let limit = caller.data().limit;
    if let Some((when, slow)) = stack_log::due(caller.data())
        && when < limit.next()
    {
        let until_slow = TimeLimit {
            strike: when,
            stop: when,
            ..limit
        };
        match until_slow.wait(track, work.as_mut()).await {
            Waited::Struck(Reason::TimeLimit) | Waited::Stopped => stack_log::tell_slow(caller, slow, at),
            ended => return ended,
        }
    }
    limit.wait(track, work).await
}

/// What the request has come to.
fn tell_cost(track: &Track, store: &StoreContext<'_, Guest>) {
    let guest = store.data();
    let memory = guest.memory.map_or(0, |memory| memory.data_size(store));
    track.set_cost(guest.turns.spent(), memory as u64);
}

/// What is looked at when a guest has seen a tick.
///
/// # Errors
/// [`Stopped`] when the grace is over.
pub(crate) fn check(mut store: StoreContextMut<'_, Guest>, now: Instant) -> wasmtime::Result<()> {
    let limit = store.data().limit;
    if now >= limit.stop {
        return Err(Stopped.into());
    }
    let track = store.data().track.clone();
    if let Some(track) = &track {
        tell_cost(track, &store.as_context());
    }
    if limit.struck.is_none() {
        let has_run = |cpu| store.data().turns.spent() >= cpu;
        if track.is_some_and(|track| track.is_killed()) {
            strike(&mut store, Reason::Killed);
        } else if now >= limit.strike {
            strike(&mut store, Reason::TimeLimit);
        } else if limit.cpu.is_some_and(has_run) {
            strike(&mut store, Reason::CpuLimit);
        }
    }
    if let Some((when, slow)) = stack_log::due(store.data())
        && now >= when
    {
        stack_log::tell_slow(&mut store, slow, At::Runs);
    }
    Ok(())
}

/// The first stage: answers the client, and makes Python run its SIGXCPU handler.
pub(crate) fn strike(store: &mut StoreContextMut<'_, Guest>, reason: Reason) {
    let limit = &mut store.data_mut().limit;
    limit.struck = Some(reason);
    if reason != Reason::TimeLimit {
        limit.stop = Instant::now() + limit.grace;
    }
    if let Some(exchange) = &mut store.data_mut().exchange {
        exchange.fail(reason.failure());
    }
    if let (Some(words), Some(memory)) = (store.data().interrupt_words, store.data().memory) {
        words.trip(memory, store);
    }
}

/// Where CPython looks for signals; see ABI.md, "The time limit".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InterruptWords {
    pub(crate) tripped: u32,
    pub(crate) is_tripped: u32,
    pub(crate) eval_breaker: u32,
    pub(crate) bit: u32,
}

impl InterruptWords {
    fn trip(self, memory: Memory, store: &mut StoreContextMut<'_, Guest>) {
        let bytes = memory.data_mut(store);
        let mut set = |address: u32, bits: u32| {
            let address = address as usize;
            // The addresses are the guest's word: one outside its memory interrupts nothing, and the second stage comes.
            if let Some(word) = bytes
                .get_mut(address..)
                .and_then(|rest| rest.first_chunk_mut::<4>())
            {
                *word = (u32::from_le_bytes(*word) | bits).to_le_bytes();
            }
        };
        set(self.tripped, 1);
        set(self.is_tripped, 1);
        set(self.eval_breaker, self.bit);
    }
}
