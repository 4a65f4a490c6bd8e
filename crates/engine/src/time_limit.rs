//! The time limit of one call into the guest, in two stages: an exception in Python, then the end of the instance.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use wasmtime::{Caller, Memory, StoreContextMut};

use crate::guest::Guest;
use crate::stack_log::{self, At};

/// When a call is interrupted, and when it is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    /// Python gets an exception from here on.
    strike: Instant,
    /// The instance is stopped from here on.
    stop: Instant,
    /// From here on, after this long, the log is told where it is.
    pub(crate) slow: Option<(Instant, Duration)>,
    struck: bool,
}

/// The guest went on after its grace: the trap that ends it.
#[derive(Debug, thiserror::Error)]
#[error("time limit and grace are over")]
pub(crate) struct Stopped;

/// How a wait in the host ended.
pub(crate) enum Waited<T> {
    Done(T),
    /// The limit was reached while waiting: the guest gets EINTR.
    Struck,
    /// The grace was over while waiting: the guest is stopped.
    Stopped,
}

impl TimeLimit {
    /// Starts now. Limits of a century are as good as none.
    pub(crate) fn new(limit: Duration, grace: Duration) -> Self {
        let longest = Duration::from_secs(100 * 365 * 86_400);
        let strike = Instant::now() + limit.min(longest);
        Self {
            strike,
            stop: strike + grace.min(longest),
            slow: None,
            struck: false,
        }
    }

    /// The log is told where a call is that takes longer than `slow`.
    pub(crate) fn slow(mut self, slow: Option<Duration>) -> Self {
        self.slow = slow.and_then(|slow| Some((Instant::now().checked_add(slow)?, slow)));
        self
    }

    pub(crate) fn struck(&self) -> bool {
        self.struck
    }

    /// The next stage.
    fn next(&self) -> Instant {
        if self.struck { self.stop } else { self.strike }
    }

    /// Waits for `work`, at most until the next stage of the limit.
    async fn wait<T>(&self, work: impl Future<Output = T>) -> Waited<T> {
        match tokio::time::timeout_at(self.next().into(), work).await {
            Ok(value) => Waited::Done(value),
            Err(_) if self.struck => Waited::Stopped,
            Err(_) => Waited::Struck,
        }
    }
}

/// Waits in the host for `work`, at most until the next stage of the limit.
pub(crate) async fn wait<T>(
    caller: &mut Caller<'_, Guest>,
    at: At,
    work: impl Future<Output = T>,
) -> Waited<T> {
    let mut work = pin!(work);
    let limit = caller.data().limit;
    if let Some((when, slow)) = stack_log::due(caller.data())
        && when < limit.next()
    {
        match tokio::time::timeout_at(when.into(), work.as_mut()).await {
            Ok(value) => return Waited::Done(value),
            Err(_) => stack_log::tell_slow(caller, slow, at),
        }
    }
    limit.wait(work).await
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
    if now >= limit.strike && !limit.struck {
        strike(&mut store);
    }
    if let Some((when, slow)) = stack_log::due(store.data())
        && now >= when
    {
        stack_log::tell_slow(&mut store, slow, At::Runs);
    }
    Ok(())
}

/// The first stage: answers the client, and makes Python run its SIGXCPU handler.
pub(crate) fn strike(store: &mut StoreContextMut<'_, Guest>) {
    store.data_mut().limit.struck = true;
    if let Some(exchange) = &mut store.data_mut().exchange {
        exchange.fail(crate::Failure::TimeLimit);
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
