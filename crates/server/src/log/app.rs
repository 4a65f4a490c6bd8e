//! What the log knows of one app.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use wasgi_engine::{News, Repeats};

use super::bucket::{Bucket, HeldBack, Verdict};
use super::own::Own;
use super::recent::{Recent, Tail};

#[derive(Debug)]
pub(super) struct App {
    pub(super) name: Arc<str>,
    /// Which of its desk's places takes its lines.
    pub(super) place: usize,
    /// Bytes of its lines that wait there. Changed under the desk's lock alone.
    waiting: AtomicUsize,
    said: Mutex<Said>,
    own: RwLock<Option<Arc<Own>>>,
}

#[derive(Debug)]
struct Said {
    bucket: Bucket,
    recent: Recent,
    repeats: Repeats,
}

impl App {
    pub(super) fn new(name: &str, place: usize) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            name: name.into(),
            place,
            waiting: AtomicUsize::new(0),
            said: Mutex::new(Said {
                bucket: Bucket::new(None, now),
                recent: Recent::new(now),
                repeats: Repeats::default(),
            }),
            own: RwLock::default(),
        })
    }

    pub(super) fn set_rate(&self, rate: Option<u64>) {
        self.said().bucket.set_rate(rate);
    }

    /// Whether a line of so many bytes may be written.
    pub(super) fn takes(&self, bytes: usize, now: Instant) -> Verdict {
        self.said().bucket.take(bytes, now)
    }

    pub(super) fn held_back(&self) -> Option<HeldBack> {
        self.said().bucket.report()
    }

    /// Whether a failure is told whole.
    pub(super) fn fails(&self, what: &str, request: Option<&str>, now: Instant) -> News {
        self.said().repeats.take(what, request, now)
    }

    /// What it has failed in again.
    pub(super) fn repeated(&self, now: Instant) -> Vec<String> {
        self.said().repeats.report(now)
    }

    /// Keeps a line for [`tail`](Self::tail).
    pub(super) fn keep(&self, line: &str, now: Instant) {
        self.said().recent.push(line, now);
    }

    pub(super) fn tail(&self) -> Tail {
        self.said().recent.tail()
    }

    /// Gives up what is kept of an app that has been quiet; true if there is something still.
    pub(super) fn rest(&self, now: Instant) -> bool {
        self.said().recent.rest(now)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn set_waiting(&self, bytes: usize) {
        self.waiting.store(bytes, Ordering::Relaxed);
    }

    /// Where its lines go besides.
    pub(super) fn own(&self) -> Option<Arc<Own>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_own(&self, own: Option<Arc<Own>>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = own;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
