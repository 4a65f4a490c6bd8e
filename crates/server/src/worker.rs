//! The workers of one app: who is free, who waits, and when one is replaced.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use wasgi_engine::Request;

use crate::log::Log;
use crate::runner::Runner;

/// First and longest wait between two tries to start a replacement.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The workers of one app. Each is an instance that handles one request at a time.
///
/// Requests wait for a free worker in the order they came, at most `queue` of them, each at most `queue-time`.
pub struct Pool<R: Runner> {
    runner: R,
    log: Log,
    /// Free workers, the one used last on top: its memory is in the caches.
    free: Mutex<Vec<Worker<R::Instance>>>,
    /// As many permits as there are free workers. Fair: who waits longest is next.
    permits: Semaphore,
    waiting: AtomicUsize,
    running: AtomicUsize,
    /// Told when `running` has come to 0.
    quiet: Notify,
    queue: usize,
    queue_time: Duration,
    max_requests: Option<u64>,
}

struct Worker<I> {
    /// 1 to `workers`; a replacement takes over the number.
    number: u32,
    instance: I,
    /// Requests until it is replaced.
    left: u64,
}

/// Why a request gets no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// `queue` requests are waiting already.
    #[error("all workers are busy and the queue is full")]
    Full,
    /// None was free within `queue-time`.
    #[error("all workers stayed busy for the whole queue-time")]
    TimedOut,
}

impl<R: Runner> Pool<R> {
    /// Starts `workers` instances, at least one; of `limits` it takes `queue` and `queue-time`.
    ///
    /// A worker is replaced after `max_requests` requests, or up to a tenth more, so that they do not all go at once.
    ///
    /// # Errors
    /// Why the first instance that did not start did not.
    pub async fn start(
        runner: R,
        workers: u32,
        max_requests: Option<u64>,
        limits: &wasgi_config::Limits,
        log: Log,
    ) -> Result<Arc<Self>, R::Error> {
        let pool = Arc::new(Self {
            runner,
            log,
            free: Mutex::new(Vec::new()),
            permits: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            quiet: Notify::new(),
            queue: limits.queue,
            queue_time: limits.queue_time,
            max_requests,
        });
        for number in 1..=workers.max(1) {
            let instance = pool.runner.start().await?;
            pool.add(number, instance);
        }
        Ok(pool)
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        self.runner.name()
    }

    /// How long a client that got no worker should wait before it tries again.
    pub(crate) fn retry_after(&self) -> Duration {
        self.queue_time.max(Duration::from_secs(1))
    }

    /// Waits for a free worker. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Busy`], when there is no room to wait or the wait took too long.
    pub(crate) async fn checkout(self: &Arc<Self>) -> Result<Lease<R>, Busy> {
        // Never overtakes: permits go to those who wait before they can be had here.
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting, self.queue).ok_or(Busy::Full)?;
                match timeout(self.queue_time, self.permits.acquire()).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) | Err(_) => return Err(Busy::TimedOut),
                }
            }
        };
        permit.forget();
        let worker = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.running.fetch_add(1, Ordering::Relaxed);
        Ok(Lease {
            number: worker.as_ref().map_or(0, |worker| worker.number),
            pool: Arc::clone(self),
            worker,
        })
    }

    /// Waits until no worker handles a request.
    pub(crate) async fn quiet(&self) {
        loop {
            let told = self.quiet.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            told.await;
        }
    }

    fn add(&self, number: u32, instance: R::Instance) {
        let left = self
            .max_requests
            .map_or(u64::MAX, |max| max + rand::random_range(0..=max / 10));
        self.put_back(Worker {
            number,
            instance,
            left,
        });
    }

    fn put_back(&self, worker: Worker<R::Instance>) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(worker);
        self.permits.add_permits(1);
    }

    /// Starts a new instance for a number, in the background, however often it takes.
    fn replace(self: &Arc<Self>, number: u32, old: Option<R::Instance>) {
        // Without a runtime the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let pool = Arc::clone(self);
        runtime.spawn(async move {
            drop(old);
            let mut wait = BACKOFF.0;
            loop {
                match pool.runner.start().await {
                    Ok(instance) => return pool.add(number, instance),
                    Err(error) => {
                        let name = pool.name();
                        pool.log.error(format_args!(
                            "app {name}: worker {number} does not start, next try in {wait:?}: {error}"
                        ));
                    }
                }
                sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
            }
        });
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        (before < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker that is taken for one request. When dropped before that is over, the worker is replaced.
pub(crate) struct Lease<R: Runner> {
    pool: Arc<Pool<R>>,
    number: u32,
    worker: Option<Worker<R::Instance>>,
}

impl<R: Runner> Lease<R> {
    /// The worker's number, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Takes the worker through a request, then gives it back or has it replaced.
    pub(crate) async fn handle(mut self, request: Request) {
        let Some(worker) = &mut self.worker else { return };
        let report = R::handle(&mut worker.instance, request).await;
        let (name, number) = (self.pool.name(), self.number);
        worker.left = worker.left.saturating_sub(1);
        if !report.reusable {
            let why = report.why_not.as_deref().unwrap_or("not reusable");
            self.pool
                .log
                .warn(format_args!("app {name}: {why}; worker {number} is replaced"));
        } else if worker.left == 0 {
            self.pool.log.note(format_args!(
                "app {name}: max-requests reached; worker {number} is replaced"
            ));
        } else if let Some(worker) = self.worker.take() {
            self.pool.put_back(worker);
        }
    }
}

impl<R: Runner> Drop for Lease<R> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.pool.replace(worker.number, Some(worker.instance));
        }
        if self.pool.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pool.quiet.notify_waiters();
        }
    }
}
