//! `server.toml`: the operator's file, and the `app.toml`s that it takes in.
//!
//! The operator is trusted, the owners of apps are not. An app's file that comes in through a server's can lower a limit
//! but not pass a cap, names only folders inside its own or those granted, opens no listener and reads no variable of the
//! host that the operator does not pass on.

mod read;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::Admin;
use crate::compress;
use crate::config::{Config, Limits, Listen};
use crate::group::Group;
use crate::limits::LimitKey;
use crate::log::Logging;
use crate::problem::{At, Errors, Place, Problem};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::raw::{self, Raw};
use crate::resolve::{EnvLookup, Resolver, folder_name};
use crate::route::{self, Host, Route};
use crate::trace::Tracing;
use crate::units::Unit;
use crate::unreadable;
use read::RawServer;

/// One `server.toml`, checked.
pub struct ServerConfig {
    /// `apps`, absolute: each names `app.toml`s.
    patterns: Vec<glob::Pattern>,
    /// `[listen]`: where all apps are served.
    pub listen: Listen,
    /// `[server]`: as whom the server runs.
    pub process: Process,
    /// `[admin]`: where the server is looked at and steered.
    pub admin: Admin,
    /// `[proxy]`: what is in front, and what its word counts for.
    pub proxy: Option<Proxy>,
    /// `[limits]`: what concerns connections.
    pub limits: Limits,
    /// `[log]`: where the lines of all apps go, and what is told of requests.
    pub log: Logging,
    /// `[trace]`: where spans go; `None` without it.
    pub trace: Option<Tracing>,
    /// `memory`: for the instances of all apps together, in bytes; `None` for no bound.
    pub memory: Option<u64>,
    /// `idle-timeout`: an instance without a request for so long is given up; `None` for never.
    pub idle_timeout: Option<Duration>,
    /// `builders`: how many apps are imported at a time; `None` for one a core.
    pub builders: Option<usize>,
    /// Further folders that any app may name.
    grant: Vec<PathBuf>,
    hosts: Vec<String>,
    tenant_hosts: bool,
    pass_env: Vec<String>,
    defaults: Raw,
    caps: Vec<(&'static LimitKey, u64)>,
    workers_cap: Option<i64>,
    compress_cap: Option<i64>,
    own: Vec<Own>,
    /// `[group.NAME]`: apps that have a process of their own.
    pub groups: Vec<Group>,
    /// `[defaults] group`.
    group: Option<String>,
}

/// `[app.NAME]`: what the operator says of one app.
struct Own {
    name: String,
    hosts: Option<Vec<Host>>,
    mount: Option<String>,
    weight: Option<At<i64>>,
    grant: Vec<PathBuf>,
    pass_env: Vec<String>,
    group: Option<String>,
}

/// An app of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its `app.toml` as it counts here. `listen` is of no use.
    pub config: Config,
    /// Whether the operator gave its hosts, so that no other app's claim to them counts.
    pub is_pinned: bool,
}

/// Reads a `server.toml`.
///
/// # Errors
/// Everything that is wrong with it. Its apps' files are not read yet: what is wrong with one is its own matter.
pub fn load_server(file: &Path, env: EnvLookup<'_>) -> Result<ServerConfig, Errors> {
    let shown = file.display().to_string();
    let text = fs::read_to_string(file)
        .map_err(|error| Errors::new(shown.clone(), vec![unreadable(file, &error)]))?;
    let (typed, mut problems, broken) = read::read(&text);
    let mut resolver = crate::resolver(Some(file), env)?;
    let config = resolver.server(typed);
    resolver.problems.retain(|_| !broken);
    problems.append(&mut resolver.problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Errors::new(shown, problems)),
    }
}

impl Resolver<'_> {
    fn server(&mut self, typed: RawServer) -> Option<ServerConfig> {
        let RawServer {
            raw,
            defaults,
            caps,
            workers_cap,
            compress_cap,
            ..
        } = typed;
        if typed.apps.is_empty() && !raw.spoilt.iter().any(|key| key == "apps") {
            self.problems.push(Problem {
                place: Place::Line(1),
                key: "apps".to_owned(),
                what: "does not say where the apps are".to_owned(),
                hint: "write apps = [\"tenants/*/app.toml\"]".to_owned(),
            });
        }
        let folder = self.file_folder.clone().unwrap_or_else(|| self.current.clone());
        let mut patterns = Vec::new();
        for at in &typed.apps {
            match glob::Pattern::new(&folder.join(&at.value).to_string_lossy()) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problems.push(at.problem(
                    format!("`{}` is not a pattern: {}", at.value, error.msg),
                    "write \"tenants/*/app.toml\"; * stands for any name",
                )),
            }
        }
        let grant = typed.grant.iter().filter_map(|at| self.folder(at)).collect();
        for at in &typed.hosts {
            if let Err(error) = at.value.replace("{name}", "name").parse::<Host>() {
                self.problems.push(at.problem(error.what, error.hint));
            }
        }
        let memory = typed
            .memory
            .as_ref()
            .map_or(Some(0), |at| self.unit(at, Unit::Size));
        let idle = typed.idle_timeout.as_ref();
        let idle = idle.map_or(Some(300_000), |at| self.unit(at, Unit::Time));
        let builders = typed.builders.as_ref().and_then(|at| self.range(at, 1, 256));
        let mut checked = Vec::new();
        for (key, at) in caps {
            match key.value(&at) {
                Ok(value) => checked.push((key, value)),
                Err(problem) => self.problems.push(problem),
            }
        }
        let workers_cap = workers_cap.and_then(|at| self.range(&at, 1, 256));
        let compress_cap = compress_cap.and_then(|at| self.level_cap(&at));
        // Only to see whether they are right: they are resolved again with each app.
        self.limits(&defaults);
        self.compress(&defaults.compress);
        for (at, low, high) in [
            (&defaults.workers, 1, 256),
            (&defaults.max_requests, 0, i64::MAX),
            (&defaults.weight, 1, 10_000),
        ] {
            at.as_ref().map(|at| self.range(at, low, high));
        }
        defaults.isolation.as_ref().map(|at| self.isolation(at));
        let groups = self.groups(typed.groups);
        for at in typed
            .own
            .iter()
            .filter_map(|own| own.group.as_ref())
            .chain(&typed.group)
        {
            self.in_group(at, &groups);
        }
        let own = typed.own.into_iter().map(|own| self.own(own)).collect();
        let listen = self.listen(&raw);
        let process = self.process(&raw.process);
        let admin = self.admin(&raw);
        let proxy = self.proxy(&raw.proxy);
        let limits = self.limits(&raw);
        let log = self.log(&raw.log);
        let trace = self.trace(&raw.trace);
        if !self.problems.is_empty() {
            return None;
        }
        Some(ServerConfig {
            patterns,
            listen,
            process,
            admin,
            proxy,
            limits,
            log,
            trace,
            memory: memory.filter(|memory| *memory > 0),
            idle_timeout: idle.filter(|idle| *idle > 0).map(Duration::from_millis),
            builders: builders.and_then(|count| usize::try_from(count).ok()),
            grant,
            hosts: typed.hosts.into_iter().map(|at| at.value).collect(),
            tenant_hosts: typed.tenant_hosts.unwrap_or(true),
            pass_env: typed.pass_env.into_iter().map(|at| at.value).collect(),
            defaults,
            caps: checked,
            workers_cap,
            compress_cap,
            own,
            groups,
            group: typed.group.map(|at| at.value),
        })
    }

    /// `compress-level` of `[caps]`.
    fn level_cap(&mut self, at: &At<i64>) -> Option<i64> {
        if !(0..=compress::LEVEL_MAX).contains(&at.value) {
            let what = format!("{} is not from 0 to {}", at.value, compress::LEVEL_MAX);
            let hint = "write 0 to have no replies compressed, or a level of [compress]";
            self.problems.push(at.problem(what, hint));
            return None;
        }
        Some(at.value)
    }

    fn own(&mut self, typed: read::RawOwn) -> Own {
        if let Some(at) = &typed.weight {
            self.range(at, 1, 10_000);
        }
        let hosts = typed.hosts.as_ref().map(|hosts| {
            let parsed = hosts.iter().filter_map(|at| self.parse(at, str::parse::<Host>));
            parsed.collect()
        });
        let mount = typed.mount.as_ref().and_then(|at| self.parse(at, route::mount));
        Own {
            name: typed.name,
            hosts,
            mount,
            grant: typed.grant.iter().filter_map(|at| self.folder(at)).collect(),
            weight: typed.weight,
            pass_env: typed.pass_env.into_iter().map(|at| at.value).collect(),
            group: typed.group.map(|at| at.value),
        }
    }

    pub(crate) fn unit(&mut self, at: &At<String>, unit: Unit) -> Option<u64> {
        match at.value.as_str() {
            "0" => Some(0),
            text => unit
                .parse(text)
                .map_err(|error| self.problems.push(at.problem(error.what, error.hint)))
                .ok(),
        }
    }
}

impl ServerConfig {
    /// The files that `apps` names now, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self
            .patterns
            .iter()
            .filter_map(|pattern| glob::glob(pattern.as_str()).ok())
            .flat_map(|found| found.flatten())
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// What an app is called: its folder's name.
    pub fn name(file: &Path) -> String {
        folder_name(file.parent().and_then(Path::file_name).unwrap_or_default())
    }

    /// The group that an app is in, if any.
    pub fn group(&self, file: &Path) -> Option<&Group> {
        let name = Self::name(file);
        let own = self.own.iter().find(|own| own.name == name);
        let group = own.and_then(|own| own.group.as_ref()).or(self.group.as_ref())?;
        self.groups.iter().find(|it| it.name == *group)
    }

    /// Where the operator's file says that an app is served, whatever its own file says.
    pub fn routes(&self, file: &Path) -> Vec<Route> {
        let name = Self::name(file);
        let own = self.own.iter().find(|own| own.name == name);
        let mount = own.and_then(|own| own.mount.clone()).unwrap_or_default();
        let hosts = match own.and_then(|own| own.hosts.clone()) {
            Some(hosts) => hosts,
            None => {
                let named = self.hosts.iter().map(|host| host.replace("{name}", &name));
                named.filter_map(|host| host.parse().ok()).collect()
            }
        };
        let routes = hosts.into_iter().map(|host| Route {
            host,
            mount: mount.clone(),
        });
        routes.collect()
    }

    /// Reads one app's file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_app(&self, file: &Path, env: EnvLookup<'_>) -> Result<Tenant, Errors> {
        let shown = file.display().to_string();
        let text = fs::read_to_string(file)
            .map_err(|error| Errors::new(shown.clone(), vec![unreadable(file, &error)]))?;
        let (mut raw, mut problems, broken) = raw::read(&text);
        let name = Self::name(file);
        let own = self.own.iter().find(|own| own.name == name);
        let pinned = self.routes(file);
        problems.extend(self.refused(&mut raw, &name, !pinned.is_empty()));
        problems.extend(self.over_caps(&raw));
        self.fill_in(&mut raw, own);

        let to_all = self.pass_env.iter();
        let passed_on: Vec<&String> = to_all
            .chain(own.into_iter().flat_map(|own| &own.pass_env))
            .collect();
        let passed = |variable: &str| passed_on.iter().any(|name| *name == variable);
        let env = |variable: &str| env(variable).filter(|_| passed(variable));
        let mut resolver = crate::resolver(Some(file), &env)?;
        let inside = resolver.file_folder.iter().chain(&self.grant);
        let granted = own.into_iter().flat_map(|own| &own.grant);
        resolver.allowed = Some(inside.chain(granted).cloned().collect());
        let config = resolver.config(&raw);
        resolver.problems.retain(|_| !broken);
        problems.append(&mut resolver.problems);
        match config {
            Some(mut config) if problems.is_empty() => {
                self.lower_to_caps(&mut config, &raw);
                let is_pinned = !pinned.is_empty();
                if is_pinned {
                    config.app.routes = pinned;
                }
                Ok(Tenant { config, is_pinned })
            }
            _ => Err(Errors::new(shown, problems)),
        }
    }

    /// What is the operator's to say.
    fn refused(&self, raw: &mut Raw, name: &str, pinned: bool) -> Vec<Problem> {
        let mut problems = raw.log.refused();
        problems.extend(raw.trace.refused());
        if let Some(at) = raw.http.take().and_then(|typed| typed.into_iter().next()) {
            problems.push(at.problem(
                "where the server listens is the operator's to say",
                "leave [listen] out; hosts and mount of [app] say where the app is served",
            ));
        }
        if let Some(at) = std::mem::take(&mut raw.admin).first() {
            problems.push(at.problem(
                "how the server is steered is the operator's to say",
                "leave [admin] out",
            ));
        }
        problems.extend(raw.proxy.refused());
        problems.extend(raw.process.refused());
        if let Some(at) = raw.name.as_ref().filter(|at| at.value != name) {
            problems.push(at.problem(
                format!("on this server the app is called {name}, after its folder"),
                "leave name out, or rename the folder",
            ));
        }
        for at in raw.hosts.iter().chain(&raw.mount) {
            if pinned || !self.tenant_hosts {
                problems.push(at.problem(
                    "where the app is served is the operator's to say on this server",
                    "leave hosts and mount out",
                ));
            }
        }
        problems
    }

    /// Puts the operator's words in where the app's file has none.
    fn fill_in(&self, raw: &mut Raw, own: Option<&Own>) {
        let defaults = &self.defaults;
        raw.workers = raw.workers.take().or_else(|| defaults.workers.clone());
        raw.max_requests = raw.max_requests.take().or_else(|| defaults.max_requests.clone());
        raw.isolation = raw.isolation.take().or_else(|| defaults.isolation.clone());
        raw.snapshot_cache = raw.snapshot_cache.or(defaults.snapshot_cache).or(Some(true));
        raw.compress.fill_in(&defaults.compress);
        // How much of the machine an app gets beside others is not its owner's to say.
        let weight = own.and_then(|own| own.weight.clone());
        raw.weight = weight.or_else(|| defaults.weight.clone());
        for (key, typed) in &defaults.limits {
            if !raw.limits.iter().any(|(other, _)| other.name == key.name) {
                raw.limits.push((key, typed.clone()));
            }
        }
    }

    /// What the app's own file asks for beyond what it may have.
    fn over_caps(&self, raw: &Raw) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, at) in &raw.limits {
            let cap = self.caps.iter().find(|(other, _)| other.name == key.name);
            if let (Some((_, cap)), Ok(value)) = (cap, key.value(at))
                && key.passes(value, *cap)
            {
                let cap = key.show(*cap);
                problems.push(at.problem(
                    format!("{} passes the operator's cap of {cap}", key.show(value)),
                    format!("write \"{cap}\" or less, or leave it out"),
                ));
            }
        }
        if let (Some(at), Some(cap)) = (&raw.workers, self.workers_cap)
            && at.value > cap
        {
            problems.push(at.problem(
                format!("{} passes the operator's cap of {cap}", at.value),
                format!("write {cap} or less, or leave it out"),
            ));
        }
        problems.extend(self.compress_cap.and_then(|cap| raw.compress.over_cap(cap)));
        problems
    }

    /// What the app's file does not say may still be more than a cap lets through.
    fn lower_to_caps(&self, config: &mut Config, raw: &Raw) {
        for (key, cap) in &self.caps {
            let typed = raw.limits.iter().find(|(other, _)| other.name == key.name);
            let value = typed.map_or_else(
                || key.default_value(),
                |(_, at)| key.value(at).unwrap_or_else(|_| key.default_value()),
            );
            if key.passes(value, *cap) {
                key.set(&mut config.limits, *cap);
            }
        }
        if let Some(cap) = self.workers_cap.and_then(|cap| u32::try_from(cap).ok()) {
            config.app.workers = config.app.workers.min(cap);
        }
        if let Some(cap) = self.compress_cap.and_then(|cap| u32::try_from(cap).ok()) {
            config.compress = config.compress.take().filter(|_| cap > 0);
            if let Some(compress) = &mut config.compress {
                compress.level = compress.level.min(cap);
            }
        }
    }
}
