//! One app as it is served: what answers its requests now, and what did before.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use wasgi_config::Limits;

use crate::metrics::Figures;
use crate::rate::Rate;
use crate::runner::Runner;
use crate::static_files::StaticFiles;
use crate::worker::Pool;

/// One load of an app: its workers, its limits and its files. A reload makes another; a request keeps to the one it began with.
pub struct Generation<R: Runner> {
    pub(crate) pool: Arc<Pool<R>>,
    pub(crate) limits: Limits,
    pub(crate) statics: StaticFiles,
    pub(crate) rate: Option<Rate>,
}

impl<R: Runner> Generation<R> {
    /// Of `limits` the server takes what concerns requests and bodies. Requests for `statics` are not given to `pool`.
    pub fn new(pool: Arc<Pool<R>>, limits: Limits, statics: StaticFiles) -> Arc<Self> {
        Arc::new(Self {
            rate: Rate::new(limits.rate),
            pool,
            limits,
            statics,
        })
    }
}

/// One app of the server.
pub struct Site<R: Runner> {
    name: Arc<str>,
    state: RwLock<State<R>>,
    /// Generations that may still have requests.
    retired: Mutex<Vec<Weak<Generation<R>>>>,
}

struct State<R: Runner> {
    current: Option<Arc<Generation<R>>>,
    previous: Option<Arc<Generation<R>>>,
    down: Option<Down>,
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
            }),
            retired: Mutex::default(),
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
        match (&state.down, &state.current) {
            (Some(down), _) => Err(down.clone()),
            (None, Some(current)) => Ok(Arc::clone(current)),
            (None, None) => Err(Down::Failed("it has not been loaded yet".into())),
        }
    }

    /// Lets a new load answer from now on, and keeps the one before for [`roll_back`](Self::roll_back).
    pub fn serve(&self, next: Arc<Generation<R>>) {
        self.change(|state| {
            next.pool.set_resting(false);
            if let Some(before) = state.current.replace(next) {
                before.pool.set_resting(true);
                state.previous = Some(before);
            }
            if matches!(state.down, Some(Down::Failed(_))) {
                state.down = None;
            }
        });
    }

    /// Notes that a load failed. What answers goes on; if nothing does, or it is what failed, requests are refused.
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

    /// What the present load's requests and instances have come to.
    pub fn figures(&self) -> Option<Figures> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.current.as_ref().map(|current| current.pool.figures())
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
        drop(state);
        if let Some(before) = before {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|it| it.strong_count() > 0);
            retired.push(Arc::downgrade(&before));
        }
        result
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use wasgi_config::{Host, Route};

    use super::*;
    use crate::log::Log;
    use crate::route::Routes;
    use crate::run::Server;

    /// A server of one app.
    pub(crate) fn of_one<R: Runner>(pool: Arc<Pool<R>>, limits: Limits, log: Log) -> Arc<Server<R>> {
        let site = Site::new(pool.name());
        site.serve(Generation::new(pool, limits.clone(), StaticFiles::default()));
        let server = Server::new(limits, log);
        let route = Route {
            host: Host::Any,
            mount: String::new(),
        };
        server.set_routes(Routes::new([(route, site)]));
        server
    }
}
