//! What the two ends of a connection, below and above hyper, tell each other.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use wasgi_protocol::http::{Head, Refusal};

use crate::answer::Turn;

/// The requests of one connection that hyper has been handed and that have not been replied to.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One verdict per request that hyper has been handed and not handed on, in order.
    verdicts: VecDeque<Verdict>,
    /// Whether a request has been handed to hyper and its reply has not been completed.
    busy: bool,
    /// The wire, when it waits for `busy` to end.
    waiting: Option<Waker>,
    /// Why the body of the present request cannot be read on.
    broken: Option<Refusal>,
}

/// What became of a request head.
pub(super) type Verdict = Result<Head, Refused>;

/// Why a request is not given to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its head is not valid.
    Invalid(Refusal),
    /// Its head did not come within `head-time`.
    TimedOut,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a turn: hyper is handed a request.
    pub(super) fn begin(&self, verdict: Verdict) {
        let mut state = self.lock();
        state.busy = true;
        state.broken = None;
        state.verdicts.push_back(verdict);
    }

    /// The verdict on the request that hyper hands on.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.lock().verdicts.pop_front()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.lock().busy
    }

    /// Has `waker` woken when the turn ends; false if it has ended.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if state.busy {
            state.waiting = Some(waker.clone());
        }
        state.busy
    }

    /// Notes that the framing of the present body is broken.
    pub(super) fn set_broken(&self, refusal: Refusal) {
        self.lock().broken = Some(refusal);
    }
}

impl Turn for Turns {
    /// hyper has all of the reply, or there will be none.
    fn end(&self) {
        let waiting = {
            let mut state = self.lock();
            state.busy = false;
            state.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    fn broken(&self) -> Option<String> {
        self.lock().broken.map(|refusal| refusal.to_string())
    }
}
