//! From what was typed to what is meant: paths found, units converted, variables filled in.

mod entry;
mod environment;
mod grants;
mod listen;
mod paths;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{App, Config, Grant, Isolation, Limits};
use crate::problem::{At, Problem};
use crate::raw::Raw;
use crate::route::{self, Host, Route, RouteError};
use crate::units::Unit;
pub(crate) use environment::expand;

/// Looks up a variable of the host's environment.
pub(crate) type EnvLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Turns `raw` into a configuration, or adds to `problems`; the value then given is of no use.
pub(crate) struct Resolver<'a> {
    /// Folder of the file, absolute; paths in the file are relative to it.
    pub file_folder: Option<PathBuf>,
    /// The current folder, absolute; paths in options are relative to it.
    pub current: PathBuf,
    pub env: EnvLookup<'a>,
    /// Folders that what is named has to be in, links followed; `None` for any.
    pub allowed: Option<Vec<PathBuf>>,
    pub problems: Vec<Problem>,
}

impl Resolver<'_> {
    /// `None` if anything is wrong; `problems` then says what.
    pub(crate) fn config(&mut self, raw: &Raw) -> Option<Config> {
        let root = self.root(raw);
        let entry = self.entry(raw, root.as_deref());
        let venv = raw.venv.as_ref().map(|at| self.venv(at)).unwrap_or_default();
        let python_path: Vec<PathBuf> = raw.python_path.iter().filter_map(|at| self.folder(at)).collect();
        let name = self.name(raw, root.as_deref());
        let workers = raw.workers.as_ref().map_or(Some(2), |at| self.range(at, 1, 256));
        let max_requests = raw
            .max_requests
            .as_ref()
            .map_or(Some(0), |at| self.range(at, 0, i64::MAX));
        let lifetime = raw.max_lifetime.as_ref().and_then(|at| self.unit(at, Unit::Time));
        let max_memory = raw.max_memory.as_ref().and_then(|at| self.unit(at, Unit::Size));
        let isolation = raw
            .isolation
            .as_ref()
            .map_or(Some(Isolation::default()), |at| self.isolation(at));
        let warmup = self.warmup(raw);
        let routes = self.routes(raw);
        let weight = raw
            .weight
            .as_ref()
            .map_or(Some(100), |at| self.range(at, 1, 10_000));
        let probe = self.probe(raw);
        let (env, secrets) = self.environment(raw);
        let listen = self.listen(raw);
        let process = self.process(&raw.process);
        let limits = self.limits(raw);
        let mut log = self.log(&raw.log);
        let trace = self.trace(&raw.trace);
        let admin = self.admin(raw);
        let proxy = self.proxy(&raw.proxy);
        let files = self.grants(raw, &["/app", "/tmp"]);
        if self.allowed.is_some()
            && let Some(path) = log.file.take()
        {
            let grants: Vec<&Grant> = files.iter().map(|(grant, _)| grant).collect();
            log.file = self.own_log_file(&raw.log, path, &grants);
        }
        let statics = self.statics(raw);
        let compress = self.compress(&raw.compress);
        for (grant, typed) in &files {
            let code = root
                .iter()
                .chain(&venv)
                .chain(&python_path)
                .find(|code| code.starts_with(&grant.path));
            if let Some(code) = code.filter(|_| grant.write) {
                self.problems.push(typed.path.problem(
                    format!(
                        "with write the app could change its own code in {}",
                        code.display()
                    ),
                    "give a folder of its own, such as \"data\"",
                ));
            }
        }
        if !self.problems.is_empty() {
            return None;
        }
        Some(Config {
            app: App {
                name,
                root: root?,
                entry: entry?,
                venv,
                python_path,
                workers: u32::try_from(workers?).ok()?,
                max_requests: u64::try_from(max_requests?).ok().filter(|count| *count > 0),
                max_lifetime: lifetime.filter(|time| *time > 0).map(Duration::from_millis),
                max_memory: max_memory.filter(|bytes| *bytes > 0),
                isolation: isolation?,
                warmup,
                verify_rewind: raw.verify_rewind,
                snapshot_cache: raw.snapshot_cache.unwrap_or(false),
                routes,
                weight: u32::try_from(weight?).ok()?,
                watch: raw.watch,
                probe,
                env,
                secrets,
            },
            listen,
            process,
            limits,
            files: files.into_iter().map(|(grant, _)| grant).collect(),
            log,
            trace,
            statics,
            compress,
            admin,
            proxy,
        })
    }

    pub(crate) fn isolation(&mut self, at: &At<String>) -> Option<Isolation> {
        match at.value.as_str() {
            "worker" => Some(Isolation::Worker),
            "request" => Some(Isolation::Request),
            other => {
                self.problems.push(at.problem(
                    format!("`{other}` is not a kind of isolation"),
                    "write \"worker\" (memory lives on between requests) or \"request\" (each request starts afresh)",
                ));
                None
            }
        }
    }

    fn warmup(&mut self, raw: &Raw) -> Vec<String> {
        for at in raw
            .warmup
            .iter()
            .chain(&raw.probe)
            .filter(|at| !is_path(&at.value))
        {
            self.problems.push(at.problem(
                format!("`{}` is not a path of the app", at.value),
                "write it as a client asks for it, such as \"/\" or \"/list?page=1\"",
            ));
        }
        raw.warmup.iter().map(|at| at.value.clone()).collect()
    }

    /// What is asked for before a new load of the app gets requests: what it is warmed up with, if nothing is said.
    fn probe(&mut self, raw: &Raw) -> String {
        let typed = raw.probe.as_ref().or(raw.warmup.first());
        typed.map_or_else(|| "/".to_owned(), |at| at.value.clone())
    }

    /// The routes of `hosts` and `mount`.
    fn routes(&mut self, raw: &Raw) -> Vec<Route> {
        let mount = match &raw.mount {
            Some(at) => self.parse(at, route::mount).unwrap_or_default(),
            None => String::new(),
        };
        let mut hosts = Vec::new();
        for at in &raw.hosts {
            hosts.extend(self.parse(at, str::parse::<Host>));
        }
        if hosts.is_empty() {
            hosts.push(Host::Any);
        }
        let routes = hosts.into_iter().map(|host| Route {
            host,
            mount: mount.clone(),
        });
        routes.collect()
    }

    pub(crate) fn parse<T>(
        &mut self,
        at: &At<String>,
        parse: impl Fn(&str) -> Result<T, RouteError>,
    ) -> Option<T> {
        match parse(&at.value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(at.problem(error.what, error.hint));
                None
            }
        }
    }

    fn name(&mut self, raw: &Raw, root: Option<&Path>) -> String {
        match &raw.name {
            Some(at) if at.value.is_empty() || at.value.len() > 64 || !at.value.chars().all(is_plain) => {
                self.problems.push(at.problem(
                    format!("`{}` is no name for an app", at.value.escape_debug()),
                    "write up to 64 letters, digits, dots, hyphens and underscores",
                ));
                String::new()
            }
            Some(at) => at.value.clone(),
            None => {
                let folder = self
                    .file_folder
                    .as_deref()
                    .or(root)
                    .and_then(Path::file_name)
                    .unwrap_or_default();
                folder_name(folder)
            }
        }
    }

    /// The limits, with defaults for what was not typed.
    pub(crate) fn limits(&mut self, raw: &Raw) -> Limits {
        let mut limits = Limits::default();
        for (key, typed) in &raw.limits {
            if let Err(problem) = key.apply(&mut limits, typed) {
                self.problems.push(problem);
            }
        }
        limits
    }

    pub(crate) fn range(&mut self, at: &At<i64>, low: i64, high: i64) -> Option<i64> {
        if (low..=high).contains(&at.value) {
            return Some(at.value);
        }
        let (what, hint) = match high {
            i64::MAX => (
                format!("{} is less than {low}", at.value),
                "write 0 for never".to_owned(),
            ),
            _ => (
                format!("{} is not from {low} to {high}", at.value),
                "a worker for each core is a good start".to_owned(),
            ),
        };
        self.problems.push(at.problem(what, hint));
        None
    }
}

/// Whether a character may stand in an app's name.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The name of an app that is called after its folder.
pub(crate) fn folder_name(folder: &OsStr) -> String {
    let name: String = folder
        .to_string_lossy()
        .chars()
        .map(|c| if is_plain(c) { c } else { '-' })
        .take(64)
        .collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

/// Whether a text is a path as a client asks for it.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.is_ascii()
}
