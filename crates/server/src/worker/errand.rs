//! A request from when it is given to the workers until both its ends are done with it: the connection that takes the
//! reply, and the worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use wasgi_engine::{At, Request, Track};

/// One request. Each of its ends holds a clone.
#[derive(Clone, Debug)]
pub(crate) struct Errand(Arc<State>);

#[derive(Debug)]
struct State {
    id: String,
    track: Arc<Track>,
    /// Of the worker that has taken it, from 1; 0 for nobody yet.
    number: AtomicU32,
    since: Instant,
    waited_nanos: AtomicU64,
    listed: Arc<Errands>,
}

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Errands(Mutex<HashMap<usize, Weak<State>>>);

impl Errands {
    /// Begins one; it is listed as long as there is a clone.
    pub(super) fn begin(self: &Arc<Self>, request: &Request) -> Errand {
        let errand = Errand(Arc::new(State {
            id: request.id.clone(),
            track: Arc::clone(&request.track),
            number: AtomicU32::new(0),
            since: Instant::now(),
            waited_nanos: AtomicU64::new(0),
            listed: Arc::clone(self),
        }));
        self.lock().insert(errand.0.key(), Arc::downgrade(&errand.0));
        errand
    }

    /// All that are under way, in no order.
    pub(crate) fn list(&self) -> Vec<Errand> {
        let listed = self.lock();
        listed.values().filter_map(Weak::upgrade).map(Errand).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Weak<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Errand {
    /// What the log and the client call it.
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    pub(crate) fn track(&self) -> &Track {
        &self.0.track
    }

    /// How long ago it was given to the workers.
    pub(crate) fn age(&self) -> Duration {
        self.0.since.elapsed()
    }

    /// The number of the worker that has taken it, if one has.
    pub(crate) fn number(&self) -> Option<u32> {
        match self.0.number.load(Ordering::Acquire) {
            0 => None,
            number => Some(number),
        }
    }

    /// How long it has waited for a worker, until now if none has it.
    pub(crate) fn waited(&self) -> Duration {
        match self.number() {
            Some(_) => Duration::from_nanos(self.0.waited_nanos.load(Ordering::Relaxed)),
            None => self.0.since.elapsed(),
        }
    }

    /// Where it is, in a word.
    pub(crate) fn place(&self) -> &'static str {
        match (self.number(), self.0.track.at()) {
            (None, _) => "queue",
            (Some(_), At::Waits) => "start",
            (Some(_), At::Runs) => "guest",
            (Some(_), At::Sleeps) => "sleep",
            (Some(_), At::ReadsBody) => "body",
            (Some(_), At::SendsReply | At::Over) => "sending",
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A worker has it from now on.
    pub(super) fn taken_by(&self, number: u32) {
        let nanos = self.0.since.elapsed().as_nanos() as u64;
        self.0.waited_nanos.store(nanos, Ordering::Relaxed);
        // After the time that goes with it.
        self.0.number.store(number, Ordering::Release);
    }
}

impl State {
    /// Where it is in memory: nothing else comes there before the list has let go of it.
    fn key(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let unlisted = self.listed.lock().remove(&self.key());
        drop(unlisted);
    }
}
