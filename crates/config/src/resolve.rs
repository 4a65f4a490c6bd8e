//! From what was typed to what is meant: paths found, units converted, variables filled in.

use std::ffi::OsStr;
mod listen;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::address::UNIX_PATH_MAX;
use crate::config::{App, Config, Entry, Grant, Isolation, Limits, Secret};
use crate::problem::{At, Place, Problem};
use crate::raw::{Raw, RawGrant, RawVariable};
use crate::route::{self, Host, Route, RouteError};

/// Where the app's code and the standard library are in the guest; a grant may not hide them.
const TAKEN: &[&str] = &["/lib", "/path", "/venv"];

/// What a secret may have in bytes: the guest gets it behind a 16-bit length.
const SECRET_MAX: usize = u16::MAX as usize;

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

    fn entry(&mut self, raw: &Raw, root: Option<&Path>) -> Option<Entry> {
        match (&raw.module, &raw.wsgi_file) {
            (Some(module), Some(file)) => {
                let (first, second) = if module.place <= file.place {
                    (module, file)
                } else {
                    (file, module)
                };
                self.problems.push(second.problem(
                    format!("{} is given too", first.key),
                    "keep one: module = \"hello:app\" imports, wsgi-file = \"wsgi.py\" runs a file",
                ));
                None
            }
            (Some(module), None) => {
                if let Some(callable) = &raw.callable {
                    let name = module.value.split(':').next().unwrap_or_default();
                    self.problems.push(callable.problem(
                        "goes with wsgi-file; module names its own callable",
                        format!("write module = \"{name}:{}\"", callable.value),
                    ));
                }
                self.module(module)
            }
            (None, Some(file)) => {
                let callable = match &raw.callable {
                    Some(at) => self.callable(at, &at.value)?,
                    None => "application".to_owned(),
                };
                let path = self.wsgi_file(file, root?)?;
                Some(Entry::File { path, callable })
            }
            (None, None) => {
                if raw
                    .spoilt
                    .iter()
                    .any(|key| matches!(key.as_str(), "app" | "app.module" | "app.wsgi-file"))
                {
                    return None;
                }
                let place = match self.file_folder {
                    Some(_) => Place::Line(raw.app_line.unwrap_or(1)),
                    None => Place::Option,
                };
                self.problems.push(Problem {
                    place,
                    key: if place == Place::Option {
                        "APP".to_owned()
                    } else {
                        "app".to_owned()
                    },
                    what: "does not say where the app is".to_owned(),
                    hint: "write module = \"hello:app\" (module:callable) or wsgi-file = \"wsgi.py\""
                        .to_owned(),
                });
                None
            }
        }
    }

    fn module(&mut self, at: &At<String>) -> Option<Entry> {
        let text = at.value.as_str();
        if text.ends_with(".py") || text.contains('/') {
            self.problems.push(at.problem(
                format!("`{text}` is a file, not a module"),
                match at.place {
                    Place::Option => "write the path of a file that is there, or module:callable".to_owned(),
                    _ => format!("write wsgi-file = \"{text}\", or module = \"hello:app\""),
                },
            ));
            return None;
        }
        let Some((module, callable)) = text.split_once(':') else {
            self.problems.push(at.problem(
                format!("`{text}` does not name the callable"),
                format!(
                    "write \"{}:app\" if the application object in it is called app",
                    dotted(text).unwrap_or("hello")
                ),
            ));
            return None;
        };
        if dotted(module).is_none() {
            self.problems.push(at.problem(
                format!("`{module}` is not the name of a module"),
                "write it as in an import: \"hello:app\", or \"shop.web:app\" for shop/web.py",
            ));
            return None;
        }
        let callable = self.callable(at, callable)?;
        Some(Entry::Module {
            module: module.to_owned(),
            callable,
        })
    }

    fn callable(&mut self, at: &At<String>, name: &str) -> Option<String> {
        if dotted(name).is_some() {
            return Some(name.to_owned());
        }
        let problem = match name.split_once('(') {
            Some((factory, _)) => at.problem(
                format!("`{name}` is a call; a name is wanted"),
                format!("put app = {factory}() into a file wsgi.py and name \"wsgi:app\""),
            ),
            None => at.problem(
                format!("`{name}` is not a name in Python"),
                "write the application object's name, such as app",
            ),
        };
        self.problems.push(problem);
        None
    }

    /// The app's folder: as typed, or that of the file named on the command line, or that of `app.toml`.
    fn root(&mut self, raw: &Raw) -> Option<PathBuf> {
        if let Some(at) = &raw.root {
            return self.folder(at);
        }
        match &raw.wsgi_file {
            Some(at) if at.place == Place::Option => {
                self.find(at, Kind::File, None)?.parent().map(Path::to_owned)
            }
            _ => Some(self.file_folder.clone().unwrap_or_else(|| self.current.clone())),
        }
    }

    /// In the file it is relative to the root, as a module is. The app sees its root only, so it must be in there.
    fn wsgi_file(&mut self, at: &At<String>, root: &Path) -> Option<PathBuf> {
        let path = match at.place {
            Place::Option => self.find(at, Kind::File, None)?,
            _ => self.find(at, Kind::File, Some(root))?,
        };
        if path.starts_with(root) {
            return Some(path);
        }
        self.problems.push(at.problem(
            format!("`{}` is outside the app's root", at.value),
            "name a file in the root, or set root to a folder that holds both",
        ));
        None
    }

    fn venv(&mut self, at: &At<String>) -> Vec<PathBuf> {
        let Some(venv) = self.folder(at) else {
            return Vec::new();
        };
        let versions = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = versions
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3."))
            .map(|entry| entry.path().join("site-packages"))
            .filter_map(|path| fs::canonicalize(path).ok())
            .filter(|path| path.is_dir() && self.is_allowed(path))
            .collect();
        folders.sort();
        if folders.is_empty() {
            let installed = fs::read_dir(&venv).into_iter().flatten().flatten();
            let target = installed
                .map(|entry| entry.path())
                .any(|path| path.extension().is_some_and(|e| e == "dist-info"));
            let hint = match target {
                true => format!(
                    "packages lie in it directly: write python-path = [\"{}\"] instead",
                    at.value
                ),
                false => format!(
                    "create it: python3 -m venv {0} && {0}/bin/pip install flask",
                    at.value
                ),
            };
            self.problems.push(at.problem(
                format!("`{}` holds no lib/python3.*/site-packages", at.value),
                hint,
            ));
        }
        folders
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

    /// The app's environment, variables filled in: what is plain, and what is secret.
    pub(crate) fn environment(&mut self, raw: &Raw) -> (Vec<(String, String)>, Vec<Secret>) {
        let (mut plain, mut secrets) = (Vec::new(), Vec::new());
        for (name, RawVariable { value: at, secret }) in &raw.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problems.push(at.problem(
                    format!("`{}` is no name for a variable", name.escape_debug()),
                    "write letters, digits and underscores",
                ));
                continue;
            }
            // The shell has filled in the variables of options.
            let value = match at.place {
                Place::Option => Ok(at.value.clone()),
                _ => expand(&at.value, self.env),
            };
            match value {
                Ok(value) if value.contains('\0') => {
                    self.problems.push(at.problem(
                        "holds a NUL character",
                        "no environment can hold one: leave it out",
                    ));
                }
                Ok(value) if *secret && value.len().max(name.len()) > SECRET_MAX => {
                    self.problems.push(at.problem(
                        format!("a secret and its name have at most {SECRET_MAX} bytes each"),
                        "keep it in a file, in a folder that [files] shows the app",
                    ));
                }
                Ok(value) if *secret => secrets.push(Secret {
                    name: name.clone(),
                    value,
                }),
                Ok(value) => plain.push((name.clone(), value)),
                Err((what, hint)) => self.problems.push(at.problem(what, hint)),
            }
        }
        (plain, secrets)
    }

    /// The path of a unix socket that need not be there, in a folder that must.
    pub(crate) fn socket(&mut self, at: &At<String>, path: &Path) -> Option<PathBuf> {
        let path = self.base(at).join(path);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            self.problems
                .push(at.problem("names no file", "write \"unix:/run/hello.sock\""));
            return None;
        };
        let Ok(folder) = fs::canonicalize(folder) else {
            self.problems.push(at.problem(
                format!("the folder of `{}` is not there", at.value),
                "create the folder, or correct the path",
            ));
            return None;
        };
        let path = folder.join(name);
        let length = path.as_os_str().len();
        if length > UNIX_PATH_MAX {
            self.problems.push(at.problem(
                format!("the socket's path has {length} bytes; the system takes at most {UNIX_PATH_MAX}"),
                "put the socket into a folder with a shorter path, such as /run",
            ));
            return None;
        }
        Some(path)
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

    /// The folders granted. Nothing may take the place of those in `own`, though a grant may lie within one, as Flask's
    /// instance folder does.
    pub(crate) fn grants<'r>(&mut self, raw: &'r Raw, own: &[&str]) -> Vec<(Grant, &'r RawGrant)> {
        let mut grants: Vec<(Grant, &RawGrant)> = Vec::new();
        for typed in &raw.files {
            let guest = typed.guest.value.as_str();
            let trouble = match clean(guest) {
                _ if guest == "/" => Some((
                    "`/` would hide the app and Python".to_owned(),
                    "choose another path, such as \"/data\"".into(),
                )),
                Err(hint) => Some((format!("`{guest}` is not an absolute, plain path"), hint)),
                Ok(()) if own.contains(&guest) => Some((
                    match guest {
                        "/tmp" => "each worker has a `/tmp` of its own".to_owned(),
                        _ => format!("`{guest}` is where the app's root is seen"),
                    },
                    "choose another path, such as \"/data\"".into(),
                )),
                Ok(()) if TAKEN.iter().any(|taken| Path::new(guest).starts_with(taken)) => Some((
                    format!("`{guest}` would hide Python's own folders"),
                    "choose another path, such as \"/data\"".into(),
                )),
                Ok(()) if grants.iter().any(|(grant, _)| grant.guest == guest) => {
                    Some((format!("`{guest}` is given twice"), "keep one of the two".into()))
                }
                Ok(()) => None,
            };
            let path = self.folder(&typed.path);
            let (quota, max_files) = typed.quota.resolve(typed.write, &mut self.problems);
            if let Some((what, hint)) = trouble {
                self.problems.push(typed.guest.problem(what, hint));
            } else if let Some(path) = path {
                grants.push((
                    Grant {
                        guest: guest.to_owned(),
                        path,
                        write: typed.write,
                        quota,
                        max_files,
                    },
                    typed,
                ));
            }
        }
        grants
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

    pub(crate) fn base(&self, at: &At<String>) -> &Path {
        match (&self.file_folder, at.place) {
            (Some(folder), Place::Line(_)) => folder,
            _ => &self.current,
        }
    }

    fn is_allowed(&self, path: &Path) -> bool {
        let allowed = self.allowed.as_ref();
        allowed.is_none_or(|folders| folders.iter().any(|folder| path.starts_with(folder)))
    }

    pub(crate) fn folder(&mut self, at: &At<String>) -> Option<PathBuf> {
        self.find(at, Kind::Folder, None)
    }

    /// `root` is what the path is relative to, unless that is the folder of the file or the current one.
    fn find(&mut self, at: &At<String>, kind: Kind, root: Option<&Path>) -> Option<PathBuf> {
        let (noun, typed) = (kind.noun(), at.value.as_str());
        let relative = match at.place {
            _ if root.is_some() => "the app's root",
            Place::Option => "the current folder",
            _ => "this file's folder",
        };
        let found = root.unwrap_or(self.base(at)).join(typed);
        let problem = match fs::canonicalize(&found) {
            _ if typed.is_empty() => at.problem(
                format!("names no {noun}"),
                format!("write a path, relative to {relative} or absolute"),
            ),
            Ok(path) if !self.is_allowed(&path) => at.problem(
                format!("{noun} `{typed}` is outside the app's own folder"),
                "put it into the app's folder, or have the operator of the server grant it",
            ),
            Ok(path) if path.is_dir() == (kind == Kind::Folder) => return Some(path),
            Ok(_) if kind == Kind::Folder => at.problem(
                format!("`{typed}` is a file, not a folder"),
                "name the folder that it is in",
            ),
            Ok(_) => at.problem(
                format!("`{typed}` is a folder, not a file"),
                "name the file in it",
            ),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => at
                .problem(
                    format!("{noun} `{typed}` is not there"),
                    match typed.starts_with('~') {
                        true => "`~` is not expanded: write the whole path".to_owned(),
                        false => format!("create it, or correct the path; it is relative to {relative}"),
                    },
                ),
            Err(error) => at.problem(
                format!("{noun} `{typed}` cannot be opened: {}", crate::lower(&error)),
                "give the user that runs wasgi the right to read it",
            ),
        };
        self.problems.push(problem);
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
        }
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

/// The text if it is a Python name, or several with dots between.
fn dotted(text: &str) -> Option<&str> {
    let name = |part: &str| {
        part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.split('.').all(name).then_some(text)
}

/// Whether a guest path is absolute and without `.`, `..`, doubled or closing slashes; if not, what to write.
fn clean(guest: &str) -> Result<(), String> {
    let parts: Vec<&str> = guest
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    let plain = format!("/{}", parts.join("/"));
    match guest == plain && !parts.is_empty() && !guest.contains(['\0', ':']) {
        true => Ok(()),
        false if parts.is_empty() || guest.contains(['\0', ':']) => {
            Err("write a path such as \"/data\"".to_owned())
        }
        false => Err(format!("write \"{plain}\"")),
    }
}

/// Fills in `${NAME}`; `$${` stands for `${`. Another `$` stands for itself.
pub(crate) fn expand(text: &str, env: EnvLookup<'_>) -> Result<String, (String, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]);
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let name = after.split_once('}').map(|(name, _)| name);
        let Some(name) = name
            .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        else {
            return Err((
                "`${` is not followed by a variable's name and `}`".to_owned(),
                "write \"${NAME}\" for a variable of the host, \"$${\" for the two characters".to_owned(),
            ));
        };
        let value = env(name).ok_or_else(|| {
            (
                format!("the host's environment has no {name}"),
                format!("set it before starting wasgi ({name}=...), or write the value here"),
            )
        })?;
        out.push_str(&value);
        rest = &after[name.len() + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let env = |name: &str| match name {
            "USER" => Some("ada".to_owned()),
            "TRICK" => Some("${USER}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("${USER}", "ada"),
            ("a ${USER} b${EMPTY}c", "a ada bc"),
            ("${TRICK}", "${USER}"),
            ("$${USER}", "${USER}"),
            ("$${${USER}}", "${ada}"),
            ("$5 and {x}", "$5 and {x}"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${", "${}", "${A B}", "${A", "${MISSING}"] {
            assert!(expand(text, &env).is_err(), "{text}");
        }
    }
}
