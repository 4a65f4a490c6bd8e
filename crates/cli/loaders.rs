//! Where the server's apps come from: the command line, or an operator's `server.toml`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use clap::ArgMatches;
use wasgi_config::{AtStart, Config, Group, Isolation, Route, ServerConfig, load_server};
use wasgi_engine::{AppLog, AppSpec, Engine};
use wasgi_group::Remote;
use wasgi_server::{Loaded, Loader, Log, OwnLog, StaticError, StaticFiles, Wear, Workers};

use crate::app_options::{self, Chosen};
use crate::failure::Failure;
use crate::groups::Groups;
use crate::hosted::{Here, Hosted};
use crate::spec;

/// What apps are made with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub engine: Engine,
    pub log: Log,
}

impl Workshop {
    /// The log of the app's owner, if its file names one.
    fn own_log(&self, config: &Config) -> Option<OwnLog> {
        let file = config.log.file.as_ref()?;
        let mounts = spec::grants(&config.files, &config.limits).filter(|mount| mount.write);
        // The innermost: it may have a quota of its own.
        let mount = mounts
            .filter(|mount| file.starts_with(&mount.host))
            .max_by_key(|mount| mount.host.as_os_str().len())?;
        let inside = file.strip_prefix(&mount.host).ok()?.to_owned();
        let engine = self.engine.clone();
        Some(OwnLog {
            settings: config.log.clone(),
            open: Box::new(move || engine.room(&mount).map_err(io::Error::other)),
            inside,
        })
    }

    /// An app that can be started; `workers` are made of how many there are at the start and how many there may be.
    pub(crate) fn load(
        &self,
        config: &Config,
        workers: impl Fn(u32, u32) -> Workers,
        is_pinned: bool,
        host: impl FnOnce(AppSpec, Arc<dyn AppLog>) -> Hosted,
    ) -> Result<Loaded<Hosted>, StaticError> {
        let (app, limits) = (&config.app, &config.limits);
        let lines = self.log.app_within(&app.name, Some(limits.log_rate));
        let most = match app.isolation {
            Isolation::Worker => app.workers,
            Isolation::Request => limits.concurrency.max(app.workers),
        };
        let written = config.files.iter().filter(|grant| grant.write);
        Ok(Loaded {
            statics: StaticFiles::open(&config.statics)?,
            runner: host(spec::spec(config), lines),
            workers: workers(app.workers, most),
            wear: wear(app),
            limits: limits.clone(),
            compress: config.compress.clone(),
            routes: app.routes.clone(),
            is_pinned,
            probe: app.probe.clone(),
            root: app.root.clone(),
            written: written.map(|grant| grant.path.clone()).collect(),
            watch: app.watch,
        })
    }
}

impl Workshop {
    /// An app in this process.
    pub(crate) fn here(&self, config: &Config, spec: AppSpec, lines: Arc<dyn AppLog>) -> Hosted {
        Hosted::Here(Here {
            app: self.engine.app(spec, lines),
            isolation: config.app.isolation,
            verify_rewind: config.app.verify_rewind,
        })
    }
}

/// When workers are replaced.
pub(crate) fn wear(app: &wasgi_config::App) -> Wear {
    Wear {
        max_requests: app.max_requests,
        max_lifetime: app.max_lifetime,
        max_memory: app.max_memory,
    }
}

/// What the command line names, by what messages call it.
fn named(matches: &ArgMatches) -> BTreeMap<PathBuf, Option<String>> {
    if let Some((server, _)) = app_options::words(matches) {
        return BTreeMap::from([(PathBuf::from(server), None)]);
    }
    let typed: Vec<Option<String>> = match matches.get_many::<String>("APP") {
        Some(apps) => apps.map(|app| Some(app.clone())).collect(),
        None => vec![None],
    };
    let label = |app: &Option<String>| PathBuf::from(app.as_deref().unwrap_or("app.toml"));
    typed.into_iter().map(|app| (label(&app), app)).collect()
}

/// All apps of the command line, with what is wrong with any.
pub(crate) fn choose_all(matches: &ArgMatches) -> Result<Vec<(PathBuf, Chosen)>, Failure> {
    let (mut chosen, mut wrong) = (Vec::new(), Vec::new());
    for (file, app) in named(matches) {
        match app_options::choose_app(matches, app.as_ref()) {
            Ok(one) => chosen.push((file, one)),
            Err(Failure::Usage(text)) => wrong.push(text),
            Err(failure) => return Err(failure),
        }
    }
    match wrong.is_empty() {
        true => Ok(chosen),
        false => Err(Failure::Usage(wrong.join("\n"))),
    }
}

/// An error with its causes.
fn told(error: &StaticError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Tells what a file says that a reload does not take over.
fn tell_what_waits(log: &Log, before: &AtStart, now: &AtStart, file: &Path) {
    for line in before.changes(now, file) {
        log.warn(format_args!("{line}"));
    }
}

/// The apps named on the command line, whose owner is who started the server.
pub(crate) struct Named {
    matches: ArgMatches,
    /// By what messages call them, which is the file's name if there is one.
    apps: BTreeMap<PathBuf, Option<String>>,
    at_start: BTreeMap<PathBuf, AtStart>,
    workshop: Workshop,
}

impl Named {
    pub(crate) fn new(matches: &ArgMatches, workshop: Workshop) -> Self {
        let apps = named(matches);
        let at_start = |file: &PathBuf| (file.clone(), AtStart::of_app(file));
        Self {
            matches: matches.clone(),
            at_start: apps.keys().map(at_start).collect(),
            apps,
            workshop,
        }
    }

    fn choose(&self, file: &Path) -> Result<Chosen, Failure> {
        let app = self.apps.get(file).and_then(Option::as_ref);
        app_options::choose_app(&self.matches, app)
    }

    pub(crate) fn loaded(&self, config: &Config) -> Result<Loaded<Hosted>, StaticError> {
        let here = |spec, lines| self.workshop.here(config, spec, lines);
        self.workshop.load(config, Workers::always, false, here)
    }
}

impl Loader for Named {
    type Runner = Hosted;

    fn files(&self) -> Vec<PathBuf> {
        self.apps.keys().cloned().collect()
    }

    fn refresh(&self) -> Result<(), String> {
        Ok(())
    }

    fn known(&self, file: &Path) -> (String, Vec<Route>) {
        let name = match self.choose(file) {
            Ok(chosen) => chosen.config.app.name,
            Err(_) => file.display().to_string(),
        };
        (name, Vec::new())
    }

    fn load(&self, file: &Path) -> Result<Loaded<Hosted>, String> {
        let chosen = self.choose(file).map_err(|failure| failure.to_string())?;
        if let Some(before) = self.at_start.get(file) {
            tell_what_waits(&self.workshop.log, before, &AtStart::of_app(file), file);
        }
        self.loaded(&chosen.config).map_err(|error| told(&error))
    }
}

/// The apps of a `server.toml`, whose owners are not trusted.
pub(crate) struct Operator {
    file: PathBuf,
    at_start: AtStart,
    config: RwLock<ServerConfig>,
    workshop: Workshop,
    groups: Groups,
}

impl Operator {
    /// To be called where tokio's sockets are at hand.
    pub(crate) fn new(file: PathBuf, config: ServerConfig, workshop: Workshop) -> Self {
        Self {
            at_start: AtStart::of_server(&file),
            groups: Groups::new(workshop.clone()),
            file,
            config: RwLock::new(config),
            workshop,
        }
    }

    fn config(&self) -> std::sync::RwLockReadGuard<'_, ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loader for Operator {
    type Runner = Hosted;

    fn files(&self) -> Vec<PathBuf> {
        self.config().files()
    }

    fn refresh(&self) -> Result<(), String> {
        let config = load_server(&self.file, &variable).map_err(|errors| errors.to_string())?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        let now = AtStart::of_server(&self.file);
        tell_what_waits(&self.workshop.log, &self.at_start, &now, &self.file);
        Ok(())
    }

    fn known(&self, file: &Path) -> (String, Vec<Route>) {
        (ServerConfig::name(file), self.config().routes(file))
    }

    fn load(&self, file: &Path) -> Result<Loaded<Hosted>, String> {
        let server = self.config();
        let tenant = server
            .load_app(file, &variable)
            .map_err(|errors| errors.to_string())?;
        let workers = |started, most| match server.idle_timeout {
            Some(idle) => Workers::on_demand(most, idle),
            None => Workers::always(started, most),
        };
        let own_log = self.workshop.own_log(&tenant.config);
        self.workshop.log.set_own(&tenant.config.app.name, own_log);
        let (config, is_pinned) = (&tenant.config, tenant.is_pinned);
        let loaded = match server.group(file) {
            None => {
                let here = |spec, lines| self.workshop.here(config, spec, lines);
                self.workshop.load(config, workers, is_pinned, here)
            }
            Some(group) => {
                let process = self
                    .groups
                    .process(group, &spec::spec(config), || specs(&server, group));
                let process = process.map_err(|error| format!("group {}: {error}", group.name))?;
                let verify = config.app.verify_rewind;
                let there = |spec, lines| Hosted::There(Remote::new(process, spec, verify, lines));
                self.workshop.load(config, workers, is_pinned, there)
            }
        };
        loaded.map_err(|error| told(&error))
    }
}

/// All apps of a group whose files are right.
fn specs(server: &ServerConfig, group: &Group) -> Vec<AppSpec> {
    let files = server.files().into_iter();
    let of_group = files.filter(|file| server.group(file) == Some(group));
    of_group
        .filter_map(|file| Some(spec::spec(&server.load_app(&file, &variable).ok()?.config)))
        .collect()
}

/// A variable of the host's environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
