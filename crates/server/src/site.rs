//! One app as it is served: what answers its requests now, and what did before.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use wasgi_config::{Compress, Limits};
use wasgi_engine::{At, Track};

use crate::budget::Budget;
use crate::metrics::{Figures, Held, Metrics};
use crate::rate::Rate;
use crate::runner::Runner;
use crate::static_files::StaticFiles;
use crate::traffic::{Served, Traffic};
use crate::worker::{Errand, Pool};

/// One load of an app: its workers, its limits and its files. A reload makes another; a request keeps to the one it began with.
pub struct Generation<R: Runner> {
    pub(crate) pool: Arc<Pool<R>>,
    pub(crate) limits: Limits,
    pub(crate) statics: StaticFiles,
    pub(crate) compress: Option<Compress>,
}

impl<R: Runner> Generation<R> {
    /// Of `limits` the server takes what concerns requests and bodies. Requests for `statics` are not given to `pool`.
    pub fn new(
        pool: Arc<Pool<R>>,
        limits: Limits,
        statics: StaticFiles,
        compress: Option<Compress>,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            limits,
            statics,
            compress,
        })
    }
}

/// `limits.memory-total`; `None` for no limit.
fn memory_total(limits: &Limits) -> Option<u64> {
    Some(limits.memory_total).filter(|most| *most > 0)
}

/// One app of the server.
pub struct Site<R: Runner> {
    name: Arc<str>,
    state: RwLock<State<R>>,
    /// Generations that may still have requests.
    retired: Mutex<Vec<Weak<Generation<R>>>>,
    traffic: Arc<Traffic>,
    rate: Rate,
    /// Of its instances, whichever load they are of.
    memory: OnceLock<Arc<Budget>>,
    books: Mutex<Books>,
}

/// The counters of all loads.
#[derive(Default)]
struct Books {
    open: Vec<Arc<Metrics>>,
    /// What those have come to that are gone, instances and all.
    closed: Figures,
}

/// A site at a moment.
pub(crate) struct Glance {
    pub(crate) name: Arc<str>,
    pub(crate) down: Option<Down>,
    /// Which of its loads answers, from 1 in the order they came; 0 if none does.
    pub(crate) generation: u64,
    /// Requests that workers handle.
    pub(crate) running: usize,
    /// Requests that wait for a worker.
    pub(crate) waiting: usize,
    /// Time the guest has run for requests that `figures` do not count yet.
    pub(crate) running_cpu: Duration,
    pub(crate) held: Held,
    pub(crate) figures: Figures,
    pub(crate) served: Served,
}

struct State<R: Runner> {
    current: Option<Arc<Generation<R>>>,
    previous: Option<Arc<Generation<R>>>,
    down: Option<Down>,
    /// Which loads `current` and `previous` are, and how many there have been.
    numbers: (u64, u64),
    loads: u64,
}

impl<R: Runner> State<R> {
    fn generation(&self) -> Result<&Arc<Generation<R>>, Down> {
        match (&self.down, &self.current) {
            (Some(down), _) => Err(down.clone()),
            (None, Some(current)) => Ok(current),
            (None, None) => Err(Down::Failed("it has not been loaded yet".into())),
        }
    }
}

/// Why an app's requests are not given to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Down {
    /// It could not be loaded, for this reason, and nothing older is there to answer.
    #[error("the app could not be loaded: {0}")]
    Failed(Arc<str>),
    /// The operator has it take no requests.
    #[error("the app takes no requests at present")]
    Drained,
}

impl<R: Runner> Site<R> {
    /// An app that nothing answers for yet.
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            state: RwLock::new(State {
                current: None,
                previous: None,
                down: None,
                numbers: (0, 0),
                loads: 0,
            }),
            retired: Mutex::default(),
            traffic: Arc::default(),
            rate: Rate::default(),
            memory: OnceLock::new(),
            books: Mutex::default(),
        })
    }

    /// The app's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What takes a request now.
    ///
    /// # Errors
    /// [`Down`] if nothing does.
    pub fn generation(&self) -> Result<Arc<Generation<R>>, Down> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.generation().cloned()
    }

    /// Lets a new load answer from now on, and keeps the one before for [`roll_back`](Self::roll_back).
    pub fn serve(&self, next: Arc<Generation<R>>) {
        self.books().open(next.pool.metrics());
        self.change(|state| {
            next.pool.set_resting(false);
            state.loads += 1;
            state.numbers = (state.loads, state.numbers.0);
            if let Some(before) = state.current.replace(next) {
                before.pool.set_resting(true);
                state.previous = Some(before);
            }
            if matches!(state.down, Some(Down::Failed(_))) {
                state.down = None;
            }
        });
    }

    /// Has requests refused, since a load failed and nothing that is known to be good is there to answer. An app that is
    /// drained stays so.
    pub fn fail(&self, why: &str) {
        self.change(|state| {
            if state.down.is_none() {
                state.down = Some(Down::Failed(why.into()));
            }
        });
    }

    /// Has the load before answer again; the present one takes its place. False if there is none.
    pub fn roll_back(&self) -> bool {
        self.change(|state| {
            let is_there = state.previous.is_some();
            if is_there {
                std::mem::swap(&mut state.current, &mut state.previous);
                for (generation, rests) in [(&state.current, false), (&state.previous, true)] {
                    if let Some(generation) = generation {
                        generation.pool.set_resting(rests);
                    }
                }
                state.numbers = (state.numbers.1, state.numbers.0);
            }
            is_there
        })
    }

    /// Takes no requests until [`resume`](Self::resume); those that run finish.
    pub fn drain(&self) {
        self.change(|state| state.down = Some(Down::Drained));
    }

    /// Takes requests again after [`drain`](Self::drain).
    pub fn resume(&self) {
        self.change(|state| {
            if state.down == Some(Down::Drained) {
                state.down = None;
            }
        });
    }

    /// What the requests and instances of all its loads have come to; `None` if there was none.
    pub fn figures(&self) -> Option<Figures> {
        let loads = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.loads
        };
        (loads > 0).then(|| self.books().figures())
    }

    /// Where its requests are counted as their replies end.
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// What it has had of `limits.rate`, whichever load had it.
    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// The memory of its instances, within the server's. Its limit is that of the load that answers, and until one does it
    /// is that of `limits`.
    pub(crate) fn memory(&self, server: &Arc<Budget>, limits: &Limits) -> &Arc<Budget> {
        self.memory.get_or_init(|| {
            let memory = Budget::within(server);
            memory.set_limit(memory_total(limits));
            memory
        })
    }

    pub(crate) fn glance(&self) -> Glance {
        let (down, generation) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.generation().err(), state.numbers.0)
        };
        let (mut running, mut waiting) = (0, 0);
        let mut running_cpu = Duration::ZERO;
        for generation in self.generations() {
            let busy = generation.pool.busy();
            running += busy.0;
            waiting += busy.1;
            let errands = generation.pool.errands().list();
            let tracks = errands.iter().map(Errand::track);
            running_cpu += tracks
                .filter(|track| track.at() != At::Over)
                .map(Track::cpu)
                .sum::<Duration>();
        }
        let books = self.books();
        Glance {
            name: Arc::clone(&self.name),
            down,
            generation,
            running,
            waiting,
            running_cpu,
            held: books.held(),
            figures: books.figures(),
            served: self.traffic.read(),
        }
    }

    /// Its requests that are under way, whichever load has them.
    pub(crate) fn errands(&self) -> Vec<Errand> {
        let generations = self.generations();
        generations
            .iter()
            .flat_map(|it| it.pool.errands().list())
            .collect()
    }

    /// Ends the requests of this id before their time; how many those are. It is one, unless a peer that may say how its
    /// requests are called calls several the same.
    pub(crate) fn kill(&self, id: &str) -> usize {
        let mut killed = 0;
        for generation in self.generations() {
            for errand in generation.pool.errands().list() {
                if errand.id() == id {
                    generation.pool.kill(&errand);
                    killed += 1;
                }
            }
        }
        killed
    }

    /// All of its loads that may have requests, each once.
    fn generations(&self) -> Vec<Arc<Generation<R>>> {
        let present = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            [state.current.clone(), state.previous.clone()]
        };
        let retired: Vec<_> = {
            let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.iter().filter_map(Weak::upgrade).collect()
        };
        // One that was rolled back is in both.
        let mut generations: Vec<_> = present.into_iter().flatten().chain(retired).collect();
        generations.sort_by_key(Arc::as_ptr);
        generations.dedup_by_key(|generation| Arc::as_ptr(generation));
        generations
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no worker of any of its loads handles a request.
    pub(crate) async fn quiet(&self) {
        let present = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            [state.current.clone(), state.previous.clone()]
        };
        for generation in present.iter().flatten() {
            generation.pool.quiet().await;
        }
        let retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        for generation in retired.iter().filter_map(Weak::upgrade) {
            generation.pool.quiet().await;
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State<R>) -> T) -> T {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = state.previous.clone();
        let result = change(&mut state);
        let is_same = |before: &Arc<Generation<R>>| {
            state
                .previous
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, before))
        };
        let left = before.filter(|before| !is_same(before));
        let most = (state.current.as_ref()).map(|current| memory_total(&current.limits));
        drop(state);
        if let (Some(memory), Some(most)) = (self.memory.get(), most) {
            memory.set_limit(most);
        }
        if let Some(before) = left {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|it| it.strong_count() > 0);
            retired.push(Arc::downgrade(&before));
        }
        result
    }
}

impl Books {
    fn open(&mut self, metrics: &Arc<Metrics>) {
        let closed = &mut self.closed;
        self.open.retain(|open| {
            // Nobody else has it: its pool and instances are gone.
            let is_over = Arc::strong_count(open) == 1;
            if is_over {
                *closed += open.figures();
            }
            !is_over
        });
        self.open.push(Arc::clone(metrics));
    }

    fn figures(&self) -> Figures {
        let mut figures = self.closed.clone();
        for metrics in &self.open {
            figures += metrics.figures();
        }
        figures
    }

    fn held(&self) -> Held {
        let mut held = Held::default();
        for metrics in &self.open {
            held += metrics.held();
        }
        held
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use wasgi_config::{Host, Route};
    use wasgi_engine::{Report, Request, RewindError, Rewound};

    use super::*;
    use crate::log::Log;
    use crate::route::Routes;
    use crate::run::Server;

    #[test]
    fn what_was_counted_outlives_the_load_it_was_counted_for() {
        let mut books = Books::default();
        for started in [true, false, true] {
            let metrics = Arc::new(Metrics::default());
            books.open(&metrics);
            metrics.started(started);
        }
        assert_eq!(books.open.len(), 1);
        assert_eq!((books.figures().started, books.figures().restored), (3, 2));
    }

    /// An app that answers nothing.
    pub(crate) struct Nothing;

    impl Runner for Nothing {
        type Instance = ();
        type Error = std::convert::Infallible;

        fn name(&self) -> &str {
            ""
        }

        async fn start(&self) -> Result<(), Self::Error> {
            Ok(())
        }

        fn is_copy((): &()) -> bool {
            false
        }

        async fn renew(&self, (): &mut ()) -> Result<Option<Rewound>, RewindError> {
            Ok(None)
        }

        async fn handle((): &mut (), _: Request) -> Report {
            Report::default()
        }
    }

    /// An app that nothing is loaded of.
    pub(crate) fn glance(name: &str) -> Glance {
        Site::<Nothing>::new(name).glance()
    }

    /// A server of one app.
    pub(crate) fn of_one<R: Runner>(pool: Arc<Pool<R>>, limits: Limits, log: Log) -> Arc<Server<R>> {
        let site = Site::new(pool.name());
        site.serve(Generation::new(
            pool,
            limits.clone(),
            StaticFiles::default(),
            None,
        ));
        let server = Server::new(limits, log);
        let route = Route {
            host: Host::Any,
            mount: String::new(),
        };
        server.set_routes(Routes::new([(route, site)]));
        server
    }
}
