//! The apps of a server as they come, change and go: what is loaded, which load answers, and when another takes over.
//!
//! A new load of an app is made and asked for a page beside the old one. Only if that goes well do requests go to it; those
//! that run stay with the load they began with.

mod member;
mod stamp;
mod watch;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use wasgi_config::{Compress, Limits, Route};

use crate::budget::Budget;
use crate::log::Log;
use crate::route::Routes;
use crate::run::Server;
use crate::runner::Runner;
use crate::site::Generation;
use crate::static_files::StaticFiles;
use crate::worker::{Pool, Wear, Workers};
use member::{Facts, Member};

/// Reads the files of apps, and makes what runs them.
pub trait Loader: Send + Sync + 'static {
    /// What runs an app.
    type Runner: Runner;

    /// The apps' files as they are now, in order.
    fn files(&self) -> Vec<PathBuf>;

    /// Reads the operator's own file again, if there is one.
    ///
    /// # Errors
    /// What is wrong with it, for the log; what was read before still counts.
    fn refresh(&self) -> Result<(), String>;

    /// An app's name, and the routes it has whatever its file says.
    fn known(&self, file: &Path) -> (String, Vec<Route>);

    /// Reads an app's file. Starts nothing.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    fn load(&self, file: &Path) -> Result<Loaded<Self::Runner>, String>;
}

/// An app that can be started.
pub struct Loaded<R> {
    /// Starts its instances.
    pub runner: R,
    /// How many there may be.
    pub workers: Workers,
    /// Requests until a worker is replaced.
    pub wear: Wear,
    /// Its limits.
    pub limits: Limits,
    /// Its files that are sent without asking it.
    pub statics: StaticFiles,
    /// Which of its replies are compressed.
    pub compress: Option<Compress>,
    /// Where it is served.
    pub routes: Vec<Route>,
    /// Whether the routes are the operator's word, before which others' claims give way.
    pub is_pinned: bool,
    /// Asked for before requests are given to it.
    pub probe: String,
    /// The folder with its files.
    pub root: PathBuf,
    /// Folders in which files change as it runs.
    pub written: Vec<PathBuf>,
    /// Whether it is to be loaded anew when one of its files changes.
    pub watch: bool,
}

/// Loads one app anew, when the operator asks for it.
pub(crate) trait Reload: Send + Sync {
    /// `Err` tells why there is no new load; `None` that no app has this name.
    fn reload(self: Arc<Self>, name: String) -> BoxFuture<Option<Result<(), String>>>;
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<L: Loader> Reload for Fleet<L> {
    fn reload(self: Arc<Self>, name: String) -> BoxFuture<Option<Result<(), String>>> {
        Box::pin(async move {
            let is_it = |member: &Arc<Member<_>>| **member.site.name() == *name;
            let member = self.members().into_iter().find(is_it)?;
            Some(self.renew(&member).await)
        })
    }
}

/// The apps of a server.
pub struct Fleet<L: Loader> {
    loader: L,
    server: Arc<Server<L::Runner>>,
    log: Log,
    budget: Arc<Budget>,
    guests: Handle,
    /// How many apps are imported at a time.
    builders: Arc<Semaphore>,
    admitted: AtomicU64,
    members: Mutex<BTreeMap<PathBuf, Arc<Member<L::Runner>>>>,
}

impl<L: Loader> Fleet<L> {
    /// A fleet without apps, whose routes are those of `server`.
    pub fn new(
        loader: L,
        server: Arc<Server<L::Runner>>,
        budget: Arc<Budget>,
        guests: Handle,
        builders: usize,
    ) -> Arc<Self> {
        let fleet = Arc::new(Self {
            loader,
            log: server.log.clone(),
            server,
            budget,
            guests,
            builders: Arc::new(Semaphore::new(builders.max(1))),
            admitted: AtomicU64::new(0),
            members: Mutex::default(),
        });
        let reload: Weak<dyn Reload> = Arc::downgrade(&fleet) as _;
        fleet.server.set_reload(reload);
        fleet
    }

    /// Takes in one app, started as its workers are to be.
    ///
    /// # Errors
    /// Why the first instance did not start. The app is in the fleet all the same, and its routes answer 503.
    pub async fn admit(
        &self,
        file: &Path,
        loaded: Loaded<L::Runner>,
    ) -> Result<(), <L::Runner as Runner>::Error> {
        let member = self.join(file);
        let started = self.first_load(&member, loaded).await;
        self.publish();
        started
    }

    /// Takes in all files there are. One that is wrong, or whose app does not start, does not stop the others: its routes
    /// answer 503, the log tells why, and it is tried again when its files change.
    pub async fn open(self: &Arc<Self>) {
        self.admit_all(self.loader.files()).await;
    }

    /// Loads every app whose instances come with requests once, so that its image is there, or its mistakes are told.
    /// Tells how many apps there are and how many failed.
    pub async fn sweep(self: &Arc<Self>) -> (usize, usize) {
        let members = self.members();
        let mut preparing = JoinSet::new();
        for member in &members {
            // One after the other: what is reloaded meanwhile does not wait for all of them.
            let place = self.builder().await;
            let (fleet, member) = (Arc::clone(self), Arc::clone(member));
            let prepare = async move { fleet.prepare(&member, place).await };
            preparing.spawn_on(prepare, &self.guests);
        }
        preparing.join_all().await;
        let failed = members.iter().filter(|member| member.has_failed()).count();
        (members.len(), failed)
    }

    /// Reads everything again, as for SIGHUP: the operator's file, which apps there are, and each app.
    pub async fn reload_all(self: &Arc<Self>) {
        if let Err(what) = self.loader.refresh() {
            self.tell(&what);
            self.log.error(format_args!(
                "reload: the server's file is wrong: what was read before still counts"
            ));
        }
        let before = self.members();
        self.look_for_files().await;
        let mut reloading = JoinSet::new();
        for member in before {
            let fleet = Arc::clone(self);
            reloading.spawn_on(async move { fleet.renew(&member).await }, &self.guests);
        }
        let outcomes = reloading.join_all().await;
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        self.log
            .note(format_args!("reload: {} apps, {failed} failed", outcomes.len()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<Member<L::Runner>>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> Vec<Arc<Member<L::Runner>>> {
        self.lock().values().cloned().collect()
    }

    fn join(&self, file: &Path) -> Arc<Member<L::Runner>> {
        let (name, routes) = self.loader.known(file);
        let order = self.admitted.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member::new(file, &name, order, routes));
        self.lock().insert(file.to_owned(), Arc::clone(&member));
        member
    }

    async fn admit_all(self: &Arc<Self>, files: Vec<PathBuf>) {
        let mut loading = JoinSet::new();
        for file in files {
            let member = self.join(&file);
            match self.loader.load(&file) {
                Ok(loaded) => {
                    let fleet = Arc::clone(self);
                    let load = async move { fleet.first_load(&member, loaded).await };
                    loading.spawn_on(load, &self.guests);
                }
                Err(what) => {
                    self.tell(&what);
                    self.failed(&member, "its app.toml is wrong");
                }
            }
        }
        while loading.join_next().await.is_some() {}
        self.publish();
    }

    async fn first_load(
        &self,
        member: &Arc<Member<L::Runner>>,
        loaded: Loaded<L::Runner>,
    ) -> Result<(), <L::Runner as Runner>::Error> {
        let _turn = member.turn.lock().await;
        member.takes(&loaded);
        let _place = self.builder().await;
        match self.generation(member, loaded).await {
            Ok(generation) => {
                member.site.serve(generation);
                Ok(())
            }
            Err(error) => {
                self.failed(member, &error.to_string());
                Err(error)
            }
        }
    }

    async fn generation(
        &self,
        member: &Member<L::Runner>,
        loaded: Loaded<L::Runner>,
    ) -> Result<Arc<Generation<L::Runner>>, <L::Runner as Runner>::Error> {
        let Loaded {
            runner,
            workers,
            wear,
            limits,
            statics,
            compress,
            ..
        } = loaded;
        let (log, guests) = (self.log.clone(), self.guests.clone());
        let memory = member.site.memory(&self.budget, &limits);
        let pool = Pool::start(runner, workers, wear, &limits, memory, log, guests);
        Ok(Generation::new(pool.await?, limits, statics, compress))
    }

    /// A place among those that may import an app.
    async fn builder(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.builders).acquire_owned().await;
        place.expect("it is never closed")
    }

    async fn prepare(&self, member: &Arc<Member<L::Runner>>, _place: OwnedSemaphorePermit) {
        // Somebody who loads it may wait for the place.
        let Ok(_turn) = member.turn.try_lock() else {
            return;
        };
        let Ok(generation) = member.site.generation() else {
            return;
        };
        if let Err(error) = generation.pool.prepare().await {
            self.failed(member, &error.to_string());
        }
    }

    /// Another load of an app, in the place of the one that answers.
    async fn renew(&self, member: &Arc<Member<L::Runner>>) -> Result<(), String> {
        let _turn = member.turn.lock().await;
        member.look_at_files();
        let renewed = async {
            let loaded = self.loader.load(&member.file).inspect_err(|what| self.tell(what));
            let loaded = loaded.map_err(|_| "its app.toml is wrong".to_owned())?;
            let _place = self.builder().await;
            let probe = loaded.probe.clone();
            let facts = Facts::of(&loaded);
            let generation = self
                .generation(member, loaded)
                .await
                .map_err(|error| error.to_string())?;
            generation.pool.probe(&probe).await?;
            Ok((facts, generation))
        };
        match renewed.await {
            Ok((facts, generation)) => {
                member.set_facts(facts);
                member.site.serve(generation);
                self.publish();
                let name = member.site.name();
                self.log.note(format_args!("app {name}: loaded anew"));
                Ok(())
            }
            Err(why) => {
                let why: String = why;
                match member.site.generation() {
                    Ok(_) => {
                        let name = member.site.name();
                        self.log.error(format_args!(
                            "app {name}: not loaded anew, what was loaded before goes on: {why}"
                        ));
                    }
                    Err(_) => self.failed(member, &why),
                }
                Err(why)
            }
        }
    }

    fn failed(&self, member: &Member<L::Runner>, why: &str) {
        member.failed(why);
        let name = member.site.name();
        self.log.error(format_args!(
            "app {name}: not loaded, its requests get 503 until its files change: {why}"
        ));
    }

    /// Messages about a file, which may have several lines.
    fn tell(&self, what: &str) {
        for line in what.lines() {
            self.log.error(format_args!("{line}"));
        }
    }

    /// Makes the routes anew from what the apps claim. Of two that claim one route the operator's word counts first, then
    /// who was there first; the other one is told, and is out until that changes.
    fn publish(&self) {
        let mut members = self.members();
        members.sort_by_key(|member| (!member.is_pinned(), member.order));
        let mut taken: BTreeMap<Route, Arc<Member<L::Runner>>> = BTreeMap::new();
        for member in &members {
            let routes = member.routes();
            let other = routes.iter().find_map(|route| Some((route, taken.get(route)?)));
            let same_name = members
                .iter()
                .find(|it| it.order < member.order && it.site.name() == member.site.name());
            let conflict = match (other, same_name) {
                (Some((route, other)), _) => Some(format!(
                    "{} and {} are both to be served at {route}: the second is not; change hosts or mount of one",
                    other.file.display(),
                    member.file.display()
                )),
                (None, Some(other)) => Some(format!(
                    "{} and {} are both called {}: the second is not served; rename its folder",
                    other.file.display(),
                    member.file.display(),
                    member.site.name()
                )),
                (None, None) => None,
            };
            if member.set_conflict(conflict.as_deref())
                && let Some(conflict) = &conflict
            {
                self.log.error(format_args!("{conflict}"));
            }
            if conflict.is_none() {
                taken.extend(routes.into_iter().map(|route| (route, Arc::clone(member))));
            }
        }
        let routes = taken
            .into_iter()
            .map(|(route, member)| (route, Arc::clone(&member.site)));
        self.server.set_routes(Routes::new(routes));
    }
}
