//! The workers of one app: who is free, who waits, and when one is replaced.

mod errand;
mod idle;
mod wear;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use wasgi_engine::{Failure, Report, Request, RewindError};

use crate::bill::Meter;
use crate::budget::{Budget, Holder, Share};
use crate::log::Log;
use crate::metrics::{Counted, Dropped, Figures, Metrics};
use crate::runner::Runner;
pub(crate) use errand::{Errand, Errands};
use wear::Left;
pub use wear::Wear;

/// First and longest wait between two tries to start a replacement.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What an instance is expected to take before one of the app has been looked at.
const EXPECTED: u64 = 4 << 20;

/// How long a worker keeps its thread if its requests are short. One that takes longer lets others have it meanwhile.
const TURN: Duration = Duration::from_millis(5);

/// The workers of one app. Each is an instance that handles one request at a time.
///
/// Requests wait for a free worker in the order they came, at most `queue` of them, each at most `queue-time`. A worker
/// that is done takes the next one itself, so that an instance does not rest while requests wait. A worker without an
/// instance gets one when the server's [`Budget`] has memory for it; until then the request waits as for a busy worker.
pub struct Pool<R: Runner> {
    runner: R,
    log: Log,
    /// Where workers run.
    guests: Handle,
    budget: Arc<Budget>,
    /// What the next instance is expected to take of it: what the last one was found to.
    expected: AtomicU64,
    /// That many are started anew when one is lost, and stay when they are idle.
    kept: u32,
    /// Of starts when they were needed: when the next try may be, and the wait before it.
    failed: Mutex<Option<(Instant, Duration)>>,
    state: Mutex<State<R::Instance>>,
    running: AtomicUsize,
    /// Another load of the app has its place.
    rests: AtomicBool,
    /// Told when `running` has come to 0.
    quiet: Notify,
    queue: usize,
    queue_time: Duration,
    wear: Wear,
    metrics: Arc<Metrics>,
    errands: Arc<Errands>,
}

struct State<I> {
    /// Free workers, the one used last on top: its memory is in the caches.
    free: Vec<Worker<I>>,
    /// Requests that wait; none while a worker is free that has an instance.
    waiting: VecDeque<Job>,
}

/// A request, and where its cost is noted.
struct Job {
    request: Request,
    meter: Meter,
    errand: Errand,
}

struct Worker<I> {
    /// From 1; a replacement takes over the number.
    number: u32,
    /// Absent until the worker is first needed, and again when it has not been for a while.
    live: Option<Live<I>>,
    idle_since: Instant,
    /// Until it is replaced.
    left: Left,
}

/// An instance, and the memory that is counted for it.
struct Live<I> {
    // Dropped first: memory is given back once it is free.
    instance: I,
    share: Share,
    counted: Counted,
    requests: u32,
    /// Linear memory after its last request.
    size: u64,
}

/// Why a request gets no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// `queue` requests are waiting already.
    #[error("all workers are busy and the queue is full")]
    Full,
    /// None was free within `queue-time`, or there was no memory for its instance.
    #[error("neither a worker nor memory for one came free within queue-time")]
    TimedOut,
}

impl<R: Runner> Pool<R> {
    /// Starts `workers.started` instances, as far as `budget` has memory for them; of `limits` it takes `queue` and
    /// `queue-time`. Workers run on `guests`.
    ///
    /// `wear` says when a worker is replaced.
    ///
    /// # Errors
    /// Why the first instance that did not start did not.
    pub async fn start(
        runner: R,
        workers: Workers,
        wear: Wear,
        limits: &wasgi_config::Limits,
        budget: &Arc<Budget>,
        log: Log,
        guests: Handle,
    ) -> Result<Arc<Self>, R::Error> {
        let pool = Arc::new(Self {
            runner,
            log,
            guests,
            budget: Arc::clone(budget),
            expected: AtomicU64::new(EXPECTED),
            kept: workers.kept,
            failed: Mutex::default(),
            state: Mutex::new(State {
                free: Vec::new(),
                waiting: VecDeque::new(),
            }),
            running: AtomicUsize::new(0),
            rests: AtomicBool::new(false),
            quiet: Notify::new(),
            queue: limits.queue,
            queue_time: limits.queue_time,
            wear,
            metrics: Arc::default(),
            errands: Arc::default(),
        });
        budget.join(pool.as_holder());
        // The last that is put back is the first to be taken: those that are there come before those that are not.
        for number in (1..=workers.most).rev() {
            let share = (number <= workers.started).then(|| pool.reserve()).flatten();
            let live = match share {
                Some(share) => Some(pool.start_instance(share).await?),
                None => None,
            };
            pool.add(number, live);
        }
        if workers.most > workers.kept {
            pool.guests.spawn(idle::drop_idle(Arc::downgrade(&pool), workers));
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

    /// Does what the first start of an instance would do before, so that the first request need not wait for it.
    ///
    /// # Errors
    /// As the first start.
    pub(crate) async fn prepare(&self) -> Result<(), R::Error> {
        self.runner.prepare().await
    }

    /// Starts an instance, asks it for a path, and drops it.
    ///
    /// # Errors
    /// In words for the log.
    pub(crate) async fn probe(&self, path: &str) -> Result<(), String> {
        let mut instance = self.runner.start().await.map_err(|error| error.to_string())?;
        R::probe(&mut instance, path).await
    }

    /// Whether the app has been reloaded since. A load that rests keeps no instances, but starts them if it is asked.
    pub(crate) fn set_resting(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
        while rests && self.give_up().is_some() {}
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Requests that workers handle now, and those that wait for one.
    pub(crate) fn busy(&self) -> (usize, usize) {
        (self.running.load(Ordering::Relaxed), self.state().waiting.len())
    }

    /// How long a request waits for a worker.
    pub(crate) fn queue_time(&self) -> Duration {
        self.queue_time
    }

    /// How long a client that got no worker should wait before it tries again.
    pub(crate) fn retry_after(&self) -> Duration {
        self.queue_time.max(Duration::from_secs(1))
    }

    /// How long until the app may run again, if it has used up `cpu-per-minute`.
    pub(crate) fn cpu_wait(&self) -> Option<Duration> {
        self.runner.cpu_wait()
    }

    /// Gives a request to a free worker, or a place in the queue.
    ///
    /// # Errors
    /// [`Busy::Full`] when there is no room to wait.
    pub(crate) fn submit(self: &Arc<Self>, request: Request, meter: Meter) -> Result<Ticket<R>, Busy> {
        let errand = self.errands.begin(&request);
        let job = Job {
            request,
            meter,
            errand: errand.clone(),
        };
        let mut state = self.state();
        if let Some(worker) = state.free.pop_if(|worker| worker.live.is_some()) {
            drop(state);
            errand.taken_by(worker.number);
            self.run(worker, job, None);
        } else if state.waiting.len() < self.queue.saturating_add(state.free.len()) {
            state.waiting.push_back(job);
            let startable = !state.free.is_empty();
            drop(state);
            if startable {
                Arc::clone(self).go_on();
            }
        } else {
            return Err(Busy::Full);
        }
        Ok(Ticket {
            pool: Arc::clone(self),
            errand,
        })
    }

    /// Its requests that are under way.
    pub(crate) fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Ends a request before its time. One that no worker has does not wait for one.
    pub(crate) fn kill(&self, errand: &Errand) {
        errand.track().kill();
        if let Some(Job { mut request, .. }) = self.withdraw(errand) {
            request.reply.fail(Failure::Killed);
        }
    }

    /// Takes a request out of the queue, unless a worker has it.
    fn withdraw(&self, errand: &Errand) -> Option<Job> {
        if errand.number().is_some() {
            return None;
        }
        let mut state = self.state();
        let place = state.waiting.iter().position(|job| job.errand.is(errand))?;
        // What a request drops may look at the queue again: not before this has let go of it.
        state.waiting.remove(place)
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

    async fn start_instance(&self, share: Share) -> Result<Live<R::Instance>, R::Error> {
        let instance = self.runner.start().await?;
        self.metrics.started(R::is_copy(&instance));
        Ok(Live {
            instance,
            counted: Counted::new(&self.metrics, share.bytes()),
            share,
            requests: 0,
            size: 0,
        })
    }

    /// Starts an instance for a request, unless that failed a short while ago.
    ///
    /// # Errors
    /// In words for the log.
    async fn start_for_request(&self, share: Share) -> Result<Live<R::Instance>, String> {
        let failed = *self.failed();
        let now = Instant::now();
        if let Some((until, _)) = failed.filter(|(until, _)| *until > now) {
            return Err(format!("its next start is tried in {:?}", until - now));
        }
        let started = self.start_instance(share).await;
        *self.failed() = started.is_err().then(|| {
            let wait = failed.map_or(BACKOFF.0, |(_, wait)| (wait * 2).min(BACKOFF.1));
            (Instant::now() + wait, wait)
        });
        started.map_err(|error| error.to_string())
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State<R::Instance>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_holder(self: &Arc<Self>) -> Weak<dyn Holder> {
        Arc::downgrade(self) as Weak<dyn Holder>
    }

    /// Memory for one more instance, if there is.
    fn reserve(self: &Arc<Self>) -> Option<Share> {
        let bytes = self.expected.load(Ordering::Relaxed);
        self.budget.reserve(bytes, &self.as_holder())
    }

    fn run(self: &Arc<Self>, worker: Worker<R::Instance>, job: Job, reserved: Option<Share>) {
        self.running.fetch_add(1, Ordering::Relaxed);
        let lease = Lease {
            number: worker.number,
            pool: Arc::clone(self),
            worker: Some(worker),
            reserved,
            not_started: false,
        };
        // In a task of its own: it outlives a peer that goes away, and the reply, since the app's `close()` comes after.
        self.guests.spawn(lease.work(job));
    }

    /// A new worker, or a new instance of one: takes a request that waits, or waits for one.
    fn add(self: &Arc<Self>, number: u32, live: Option<Live<R::Instance>>) {
        let worker = Worker {
            number,
            live,
            idle_since: Instant::now(),
            left: self.wear.left(),
        };
        if let Some((worker, job)) = self.next(worker) {
            self.run(worker, job, None);
        }
    }

    /// Finds a free worker its next request, or its place among the free: above those that have no instance.
    fn next(self: &Arc<Self>, worker: Worker<R::Instance>) -> Option<(Worker<R::Instance>, Job)> {
        let mut state = self.state();
        if worker.live.is_none() {
            state.free.insert(0, worker);
            let waiting = !state.waiting.is_empty();
            drop(state);
            if waiting {
                Arc::clone(self).go_on();
            }
            return None;
        }
        match state.waiting.pop_front() {
            Some(job) => {
                job.errand.taken_by(worker.number);
                Some((worker, job))
            }
            None => {
                state.free.push(worker);
                drop(state);
                self.budget.tell();
                None
            }
        }
    }

    /// Gives requests that wait to workers without an instance, as far as there is memory for them.
    fn start_waiting(self: &Arc<Self>) {
        let startable = || {
            let state = self.state();
            !state.waiting.is_empty() && !state.free.is_empty()
        };
        while startable() {
            // With no lock held: other pools may have to give up an instance for it.
            let Some(share) = self.reserve() else { return };
            let mut state = self.state();
            let Some(worker) = state.free.pop() else { break };
            let Some(job) = state.waiting.pop_front() else {
                state.free.push(worker);
                break;
            };
            drop(state);
            job.errand.taken_by(worker.number);
            let reserved = worker.live.is_none().then_some(share);
            self.run(worker, job, reserved);
        }
        // Who was told of memory and needs none tells the next.
        self.budget.tell();
    }

    /// Starts a new instance for a number, in the background: however often it takes if it is one of those that are kept.
    fn replace(self: &Arc<Self>, number: u32, old: Option<Live<R::Instance>>) {
        let pool = Arc::clone(self);
        self.guests.spawn(async move {
            drop(old);
            let mut wait = BACKOFF.0;
            loop {
                let Some(share) = pool.reserve() else {
                    return pool.add(number, None);
                };
                match pool.start_instance(share).await {
                    Ok(live) => return pool.add(number, Some(live)),
                    Err(error) => {
                        let name = pool.name();
                        pool.log.error(format_args!(
                            "app {name}: worker {number} does not start, next try in {wait:?}: {error}"
                        ));
                    }
                }
                if number > pool.kept {
                    *pool.failed() = Some((Instant::now() + wait, wait));
                    return pool.add(number, None);
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
    errand: Errand,
}

impl<R: Runner> Ticket<R> {
    pub(crate) fn errand(&self) -> &Errand {
        &self.errand
    }

    /// Takes the request out of the queue; false if a worker has it.
    pub(crate) fn withdraw(&self) -> bool {
        self.pool.withdraw(&self.errand).is_some()
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
    /// Have an instance from the start.
    pub started: u32,
    /// Keep it when they are idle; others get one when it is needed.
    pub kept: u32,
    /// As many as there may be.
    pub most: u32,
    /// How long an instance beyond those that are kept stays without a request.
    pub idle: Duration,
}

impl Workers {
    /// Those of an app that is always there: `started` of them are kept, the others stay for half a minute.
    pub fn always(started: u32, most: u32) -> Self {
        Self {
            started,
            kept: started,
            most,
            idle: Duration::from_secs(30),
        }
    }

    /// Those of an app that takes no memory while nobody asks for it.
    pub fn on_demand(most: u32, idle: Duration) -> Self {
        Self {
            started: 0,
            kept: 0,
            most,
            idle,
        }
    }
}

/// A worker that handles requests. When dropped before it is free again, it is replaced.
struct Lease<R: Runner> {
    pool: Arc<Pool<R>>,
    number: u32,
    worker: Option<Worker<R::Instance>>,
    /// The memory for its instance, while that is not there.
    reserved: Option<Share>,
    not_started: bool,
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
            if self.pool.has_more_than_its_share() {
                self.pool.metrics.dropped(Dropped::Evicted);
                worker.live = None;
            }
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
    async fn handle(&mut self, job: Job) -> bool {
        let Job {
            request,
            mut meter,
            errand,
        } = job;
        let Some(worker) = &mut self.worker else {
            return false;
        };
        let number = self.number;
        meter.taken();
        let live = match (&mut worker.live, self.reserved.take()) {
            (Some(live), _) => live,
            (absent, Some(share)) => match self.pool.start_for_request(share).await {
                Ok(live) => {
                    meter.restored();
                    absent.insert(live)
                }
                Err(why) => {
                    let mut reply = request.reply;
                    reply.fail(Failure::NotStarted(why));
                    self.not_started = true;
                    return false;
                }
            },
            (None, None) => return false,
        };
        let report = R::handle(&mut live.instance, request).await;
        self.pool.metrics.handled(&report);
        meter.ran(&report);
        drop(errand);
        if !report.reusable {
            self.pool.spent(number, &report);
            return false;
        }
        if let Some(why) = worker.left.after_request(report.memory) {
            self.pool.worn_out(number, why);
            return false;
        }
        match self.pool.runner.renew(&mut live.instance).await {
            Ok(rewound) => {
                if let Some(rewound) = rewound {
                    self.pool.metrics.rewound(&rewound);
                    meter.rewound(rewound);
                }
                self.pool.weigh(live, report.memory);
                true
            }
            Err(error) => {
                self.pool.not_renewed(number, &error);
                false
            }
        }
    }
}

/// Memory of instances.
impl<R: Runner> Pool<R> {
    /// Looks at what an instance takes. Not after each request: most of the pages that it will ever write it writes in the
    /// first, and growth shows in its size.
    fn weigh(&self, live: &mut Live<R::Instance>, size: u64) {
        live.requests = live.requests.saturating_add(1);
        if !live.requests.is_power_of_two() && size == live.size {
            return;
        }
        live.size = size;
        let bytes = R::memory(&mut live.instance);
        live.share.set(bytes);
        live.counted.set(bytes);
        self.expected.store(bytes, Ordering::Relaxed);
        self.budget.trim();
    }

    /// Whether another pool has none of the memory that this one has for several instances: then one of them is given up
    /// after its request, so that who keeps all its instances busy does not keep others out.
    fn has_more_than_its_share(&self) -> bool {
        self.rests.load(Ordering::Relaxed)
            || (self.budget.is_contended() && self.running.load(Ordering::Relaxed) > 1)
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

    fn worn_out(&self, number: u32, why: Dropped) {
        self.metrics.dropped(why);
        let (name, why) = (self.name(), why.label());
        self.log.note(format_args!(
            "app {name}: {why} reached; worker {number} is replaced"
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
        match self.worker.take() {
            // What failed at a request's cost is tried again at the next one's.
            Some(worker) if self.not_started && worker.number > self.pool.kept => {
                self.pool.add(worker.number, None);
            }
            Some(worker) => self.pool.replace(worker.number, worker.live),
            None => {}
        }
        if self.pool.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pool.quiet.notify_waiters();
        }
    }
}
