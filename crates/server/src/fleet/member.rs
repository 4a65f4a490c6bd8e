//! One app of a fleet: its file, its site, and what is known of both.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasgi_config::Route;

use super::Loaded;
use super::stamp::{FileStamp, Tree};
use crate::runner::Runner;
use crate::site::{Down, Site};

pub(super) struct Member<R: Runner> {
    pub(super) file: PathBuf,
    pub(super) site: Arc<Site<R>>,
    /// When it came, among the others.
    pub(super) order: u64,
    /// Held while a load is made: one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    facts: Facts,
    conflict: Option<String>,
    /// Of its `app.toml`, when it was last read.
    file: FileStamp,
    /// Of its files, when they were last looked at; kept where a change is to be seen.
    tree: Option<Tree>,
}

/// What a load of an app says of it.
#[derive(Clone, Default)]
pub(super) struct Facts {
    routes: Vec<Route>,
    is_pinned: bool,
    root: PathBuf,
    written: Vec<PathBuf>,
    watch: bool,
}

impl Facts {
    pub(super) fn of<R>(loaded: &Loaded<R>) -> Self {
        Self {
            routes: loaded.routes.clone(),
            is_pinned: loaded.is_pinned,
            root: loaded.root.clone(),
            written: loaded.written.clone(),
            watch: loaded.watch,
        }
    }
}

impl<R: Runner> Member<R> {
    /// One that nothing has been read of.
    pub(super) fn new(file: &Path, name: &str, order: u64, routes: Vec<Route>) -> Self {
        let facts = Facts {
            is_pinned: !routes.is_empty(),
            routes,
            root: file.parent().map(Path::to_owned).unwrap_or_default(),
            ..Facts::default()
        };
        Self {
            file: file.to_owned(),
            site: Site::new(name),
            order,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                facts,
                conflict: None,
                file: FileStamp::of(file),
                tree: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_facts(&self, facts: Facts) {
        self.state().facts = facts;
    }

    /// Before its first start: what it claims counts whether it starts or not.
    pub(super) fn takes(&self, loaded: &Loaded<R>) {
        self.set_facts(Facts::of(loaded));
        self.look_at_files();
    }

    /// Notes how its files are now, before they are read.
    pub(super) fn look_at_files(&self) {
        let facts = self.state().facts.clone();
        // Without the lock: a large folder takes a while.
        let tree = facts.watch.then(|| Tree::look(&facts.root, &facts.written));
        let mut state = self.state();
        state.file = FileStamp::of(&self.file);
        state.tree = tree;
    }

    pub(super) fn failed(&self, why: &str) {
        self.site.fail(why);
        let facts = self.state().facts.clone();
        let tree = Tree::look(&facts.root, &facts.written);
        self.state().tree = Some(tree);
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.site.generation(), Err(Down::Failed(_)))
    }

    /// Whether its `app.toml`, or a file that it is watched for, is another than when it was last looked at.
    pub(super) fn has_changed(&self) -> bool {
        let (facts, file, tree) = {
            let state = self.state();
            (state.facts.clone(), state.file, state.tree)
        };
        FileStamp::of(&self.file) != file
            || ((facts.watch || self.has_failed())
                && tree.is_some_and(|tree| Tree::look(&facts.root, &facts.written) != tree))
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.state().facts.is_pinned
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        self.state().facts.routes.clone()
    }

    /// Notes that another has its route; whether that is news.
    pub(super) fn set_conflict(&self, conflict: Option<&str>) -> bool {
        let mut state = self.state();
        let is_news = state.conflict.as_deref() != conflict;
        state.conflict = conflict.map(str::to_owned);
        is_news
    }
}
