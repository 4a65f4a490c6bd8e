//! The workers of one app: who is free, who waits, and when one is replaced.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use wasgi_engine::{Failure, Report, Request, RewindError};

use crate::bill::Meter;
use crate::log::Log;
use crate::metrics::{Dropped, Figures, Metrics};
use crate::runner::Runner;

/// First and longest wait between two tries to start a replacement.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How long a worker keeps its thread if its requests are short. One that takes longer lets others have it meanwhile.
const TURN: Duration = Duration::from_millis(5);

/// The workers of one app. Each is an instance that handles one request at a time.
///
/// Requests wait for a free worker in the order they came, at most `queue` of them, each at most `queue-time`. A worker
/// that is done takes the next one itself, so that an instance does not rest while requests wait.
pub struct Pool<R: Runner> {
    runner: R,
    log: Log,
    /// Where workers run.
    guests: Handle,
    state: Mutex<State<R::Instance>>,
    running: AtomicUsize,
    /// Told when `running` has come to 0.
    quiet: Notify,
    queue: usize,
    queue_time: Duration,
    max_requests: Option<u64>,
    metrics: Metrics,
}

struct State<I> {
    /// Free workers, the one used last on top: its memory is in the caches.
    free: Vec<Worker<I>>,
    /// Requests that wait; none while a worker is free.
    waiting: VecDeque<Waiting>,
}

/// A request in the queue.
struct Waiting {
    job: Job,
    taken_by: TakenBy,
}

/// A request, and where its cost is noted.
struct Job {
    request: Request,
    meter: Meter,
}

/// Which worker has taken a request: its number, from 1, or nobody yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct TakenBy(Arc<AtomicU32>);

impl TakenBy {
    /// The worker's number, if one has.
    pub(crate) fn number(&self) -> Option<u32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number),
        }
    }

    fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }
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
    /// Starts `workers.started` instances, at least one; of `limits` it takes `queue` and `queue-time`. Workers run on
    /// `guests`.
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
        guests: Handle,
    ) -> Result<Arc<Self>, R::Error> {
        let pool = Arc::new(Self {
            runner,
            log,
            guests,
            state: Mutex::new(State {
                free: Vec::new(),
                waiting: VecDeque::new(),
            }),
            running: AtomicUsize::new(0),
            quiet: Notify::new(),
            queue: limits.queue,
            queue_time: limits.queue_time,
            max_requests,
            metrics: Metrics::default(),
        });
        let started = workers.started.max(1);
        // The last that is put back is the first to be taken: those that are there come before those that are not.
        for number in (started + 1..=workers.most).rev() {
            pool.add(number, None);
        }
        for number in (1..=started).rev() {
            let instance = pool.start_instance().await?;
            pool.add(number, Some(instance));
        }
        if workers.most > started {
            pool.guests
                .spawn(drop_idle(Arc::downgrade(&pool), started as usize));
        }
        Ok(pool)
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        self.runner.name()
    }

    /// What its requests and instances have come to.
    pub fn figures(&self) -> Figures {
        self.metrics.figures()
    }

    /// How long a request waits for a worker.
    pub(crate) fn queue_time(&self) -> Duration {
        self.queue_time
    }

    /// How long a client that got no worker should wait before it tries again.
    pub(crate) fn retry_after(&self) -> Duration {
        self.queue_time.max(Duration::from_secs(1))
    }

    /// Gives a request to a free worker, or a place in the queue.
    ///
    /// # Errors
    /// [`Busy::Full`] when there is no room to wait.
    pub(crate) fn submit(self: &Arc<Self>, request: Request, meter: Meter) -> Result<Ticket<R>, Busy> {
        let (job, taken_by) = (Job { request, meter }, TakenBy::default());
        let mut state = self.state();
        if let Some(worker) = state.free.pop() {
            drop(state);
            taken_by.set(worker.number);
            self.run(worker, job);
        } else if state.waiting.len() < self.queue {
            state.waiting.push_back(Waiting {
                job,
                taken_by: taken_by.clone(),
            });
        } else {
            return Err(Busy::Full);
        }
        Ok(Ticket {
            pool: Arc::clone(self),
            taken_by,
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

    async fn start_instance(&self) -> Result<R::Instance, R::Error> {
        let instance = self.runner.start().await?;
        self.metrics.started(R::is_copy(&instance));
        Ok(instance)
    }

    fn state(&self) -> MutexGuard<'_, State<R::Instance>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<Self>, worker: Worker<R::Instance>, job: Job) {
        self.running.fetch_add(1, Ordering::Relaxed);
        let lease = Lease {
            number: worker.number,
            pool: Arc::clone(self),
            worker: Some(worker),
        };
        // In a task of its own: it outlives a peer that goes away, and the reply, since the app's `close()` comes after.
        self.guests.spawn(lease.work(job));
    }

    /// A new worker, or a new instance of one: takes a request that waits, or waits for one.
    fn add(self: &Arc<Self>, number: u32, instance: Option<R::Instance>) {
        let left = self
            .max_requests
            .map_or(u64::MAX, |max| max + rand::random_range(0..=max / 10));
        let worker = Worker {
            number,
            instance,
            idle_since: Instant::now(),
            left,
        };
        if let Some((worker, job)) = self.next(worker) {
            self.run(worker, job);
        }
    }

    /// Finds a free worker its next request, or its place among the free.
    fn next(&self, worker: Worker<R::Instance>) -> Option<(Worker<R::Instance>, Job)> {
        let mut state = self.state();
        match state.waiting.pop_front() {
            Some(Waiting { job, taken_by }) => {
                taken_by.set(worker.number);
                Some((worker, job))
            }
            None => {
                state.free.push(worker);
                None
            }
        }
    }

    /// Starts a new instance for a number, in the background, however often it takes.
    fn replace(self: &Arc<Self>, number: u32, old: Option<R::Instance>) {
        let pool = Arc::clone(self);
        self.guests.spawn(async move {
            drop(old);
            let mut wait = BACKOFF.0;
            loop {
                match pool.start_instance().await {
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

/// A request's place with the workers. Dropping it leaves the queue.
pub(crate) struct Ticket<R: Runner> {
    pool: Arc<Pool<R>>,
    taken_by: TakenBy,
}

impl<R: Runner> Ticket<R> {
    pub(crate) fn taken_by(&self) -> &TakenBy {
        &self.taken_by
    }

    /// Takes the request out of the queue; false if a worker has it.
    pub(crate) fn withdraw(&self) -> bool {
        if self.taken_by.number().is_some() {
            return false;
        }
        let mut state = self.pool.state();
        let is_ours = |waiting: &Waiting| Arc::ptr_eq(&waiting.taken_by.0, &self.taken_by.0);
        let place = state.waiting.iter().position(is_ours);
        let withdrawn = place.and_then(|place| state.waiting.remove(place));
        // What a request drops may look at the queue again.
        drop(state);
        withdrawn.is_some()
    }
}

impl<R: Runner> Drop for Ticket<R> {
    fn drop(&mut self) {
        self.withdraw();
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
            let mut state = pool.state();
            let there = |worker: &&Worker<_>| worker.instance.is_some();
            let there = state.free.iter().filter(there).count();
            state
                .free
                .iter_mut()
                .filter(|worker| worker.instance.is_some() && worker.idle_since.elapsed() >= IDLE)
                .take(there.saturating_sub(kept))
                .map(|worker| worker.instance.take())
                .collect()
        };
        for _ in &dropped {
            pool.metrics.dropped(Dropped::Idle);
        }
        drop(dropped);
    }
}

/// A worker that handles requests. When dropped before it is free again, it is replaced.
struct Lease<R: Runner> {
    pool: Arc<Pool<R>>,
    number: u32,
    worker: Option<Worker<R::Instance>>,
}

impl<R: Runner> Lease<R> {
    /// Takes the worker through a request and all that wait, then gives it back or has it replaced.
    async fn work(mut self, mut job: Job) {
        let mut turn = Instant::now();
        while self.handle(job).await {
            let Some(mut worker) = self.worker.take() else {
                return;
            };
            let now = Instant::now();
            worker.idle_since = now;
            let Some(next) = self.pool.next(worker) else {
                return;
            };
            self.worker = Some(next.0);
            job = next.1;
            // Others may wait for this thread. Not for each request: the task would go back and forth between threads.
            if now - turn >= TURN {
                yield_now().await;
                turn = Instant::now();
            }
        }
    }

    /// Takes the worker through a request; whether it may take another.
    async fn handle(&mut self, Job { request, mut meter }: Job) -> bool {
        let Some(worker) = &mut self.worker else {
            return false;
        };
        let number = self.number;
        let instance = match &mut worker.instance {
            Some(instance) => instance,
            absent => match self.pool.start_instance().await {
                Ok(instance) => absent.insert(instance),
                Err(error) => {
                    let mut reply = request.reply;
                    reply.fail(Failure::Crashed(format!(
                        "worker {number} does not start: {error}"
                    )));
                    return false;
                }
            },
        };
        let report = R::handle(instance, request).await;
        self.pool.metrics.handled(&report);
        meter.ran(&report);
        worker.left = worker.left.saturating_sub(1);
        if !report.reusable {
            self.pool.spent(number, &report);
            return false;
        }
        if worker.left == 0 {
            self.pool.worn_out(number);
            return false;
        }
        match self.pool.runner.renew(instance).await {
            Ok(rewound) => {
                if let Some(rewound) = rewound {
                    self.pool.metrics.rewound(&rewound);
                    meter.rewound(rewound);
                }
                true
            }
            Err(error) => {
                self.pool.not_renewed(number, &error);
                false
            }
        }
    }
}

/// Instances that go: told and counted.
impl<R: Runner> Pool<R> {
    fn spent(&self, number: u32, report: &Report) {
        let name = self.name();
        match &report.why_not {
            Some(why) => {
                self.metrics.dropped(why.into());
                self.log
                    .warn(format_args!("app {name}: {why}; worker {number} is replaced"));
            }
            None => self
                .log
                .warn(format_args!("app {name}: worker {number} is replaced")),
        }
    }

    fn worn_out(&self, number: u32) {
        self.metrics.dropped(Dropped::MaxRequests);
        let name = self.name();
        self.log.note(format_args!(
            "app {name}: max-requests reached; worker {number} is replaced"
        ));
    }

    /// What is in the nature of the app comes with every request, so it is told once; that memory is not what it should
    /// be is the server's mistake, and told each time.
    fn not_renewed(&self, number: u32, error: &RewindError) {
        let first = self.metrics.dropped(error.into());
        let name = self.name();
        if let RewindError::Differs(_) = error {
            self.log
                .error(format_args!("app {name}: {error}; worker {number} is replaced"));
        } else if first {
            self.log.note(format_args!(
                "app {name}: {error}; worker {number} is replaced; told once, counted in the last line of the log"
            ));
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
