//! The workers of one app: who is free, who waits, and when one is replaced.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use wasgi_engine::{Failure, Request};

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
    /// From 1; a replacement takes over the number.
    number: u32,
    /// Absent until the worker is first needed, and again when it has not been for a while.
    instance: Option<I>,
    idle_since: Instant,
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
    /// Starts `workers.started` instances, at least one; of `limits` it takes `queue` and `queue-time`.
    ///
    /// A worker is replaced after `max_requests` requests, or up to a tenth more, so that they do not all go at once.
    ///
    /// # Errors
    /// Why the first instance that did not start did not.
    pub async fn start(
        runner: R,
        workers: Workers,
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
        let started = workers.started.max(1);
        // The last that is put back is the first to be taken: those that are there come before those that are not.
        for number in (started + 1..=workers.most).rev() {
            pool.add(number, None);
        }
        for number in (1..=started).rev() {
            let instance = pool.runner.start().await?;
            pool.add(number, Some(instance));
        }
        if workers.most > started {
            tokio::spawn(drop_idle(Arc::downgrade(&pool), started as usize));
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

    fn add(&self, number: u32, instance: Option<R::Instance>) {
        let left = self
            .max_requests
            .map_or(u64::MAX, |max| max + rand::random_range(0..=max / 10));
        self.put_back(Worker {
            number,
            instance,
            idle_since: Instant::now(),
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
                    Ok(instance) => return pool.add(number, Some(instance)),
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

/// How many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Started at once and kept.
    pub started: u32,
    /// As many as there may be; those beyond `started` come when they are needed and go when they are not.
    pub most: u32,
}

/// How long a worker beyond those that are kept stays without a request.
const IDLE: Duration = Duration::from_secs(30);

/// Gives back the memory of workers that have not been needed for a while, all but `kept` of them.
async fn drop_idle<R: Runner>(pool: Weak<Pool<R>>, kept: usize) {
    loop {
        sleep(IDLE / 3).await;
        let Some(pool) = pool.upgrade() else { return };
        let dropped: Vec<_> = {
            let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
            let there = free.iter().filter(|worker| worker.instance.is_some()).count();
            free.iter_mut()
                .filter(|worker| worker.instance.is_some() && worker.idle_since.elapsed() >= IDLE)
                .take(there.saturating_sub(kept))
                .map(|worker| worker.instance.take())
                .collect()
        };
        drop(dropped);
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
        let (name, number) = (self.pool.name(), self.number);
        let instance = match &mut worker.instance {
            Some(instance) => instance,
            absent => match self.pool.runner.start().await {
                Ok(instance) => absent.insert(instance),
                Err(error) => {
                    let mut reply = request.reply;
                    reply.fail(Failure::Crashed(format!(
                        "worker {number} does not start: {error}"
                    )));
                    return;
                }
            },
        };
        let report = R::handle(instance, request).await;
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
        } else if self.pool.runner.renew(instance).await
            && let Some(mut worker) = self.worker.take()
        {
            worker.idle_since = Instant::now();
            self.pool.put_back(worker);
        }
    }
}

impl<R: Runner> Drop for Lease<R> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.pool.replace(worker.number, worker.instance);
        }
        if self.pool.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pool.quiet.notify_waiters();
        }
    }
}
