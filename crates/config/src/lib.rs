//! Reads `app.toml` and the options over it, and says in one go all that is wrong with them.
//!
//! [`load`] is the way in, [`Config`] what comes out. Files are read and folders looked for; no socket is opened and no
//! Python is known here.

mod address;
mod admin;
mod at_start;
mod compress;
mod config;
mod group;
mod import;
mod keys;
mod limits;
mod log;
mod log_format;
mod overrides;
mod problem;
mod process;
mod proxy;
mod quota;
mod raw;
mod resolve;
mod route;
mod server;
mod sockets;
mod static_files;
mod trace;
mod units;

use std::path::{Path, PathBuf};
use std::{fs, io};

pub use address::{Address, AddressError, Passed};
pub use admin::Admin;
pub use at_start::AtStart;
pub use compress::{Compress, Compressor, MediaType};
pub use config::{App, Config, Entry, Grant, Https, Isolation, Limits, Listen, Secret};
pub use group::Group;
pub use import::{Documented, Foreign, Imported, Remark, documentation, import};
pub use limits::{LIMITS, LimitKey};
pub use log::{APP, AccessFormat, LogTo, Logging};
pub use log_format::{Field, FormatError, LogFormat, Piece, Scale};
pub use overrides::Overrides;
pub use problem::Errors;
use problem::{Place, Problem};
pub use process::{Process, User, is_root};
pub use proxy::{Network, Proxy};
use raw::Raw;
use resolve::Resolver;
pub use route::{Host, Route, RouteError};
pub use server::{ServerConfig, Tenant, load_server};
pub use sockets::{Owner, Sockets};
pub use static_files::{StaticMount, TryFile};
pub use trace::Tracing;

/// Reads the file, if one is named, puts the options over it and resolves the whole.
///
/// `env` looks up the host's variables for `"${NAME}"` in `[app.env]`.
///
/// # Errors
/// Everything that is wrong, not the first of it.
pub fn load(
    file: Option<&Path>,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Errors> {
    let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
    let (mut raw, mut problems, mut broken) = (Raw::default(), Vec::new(), false);
    if let Some(file) = file {
        match fs::read_to_string(file) {
            Ok(text) => (raw, problems, broken) = raw::read(&text),
            Err(error) => return Err(Errors::new(shown, vec![unreadable(file, &error)])),
        }
    }
    problems.extend(overrides.apply(&mut raw));
    let mut resolver = resolver(file, env)?;
    let config = resolver.config(&raw);
    // Past a mistake in the syntax, what is there and what is missing cannot be told.
    resolver
        .problems
        .retain(|problem| !broken || problem.place == Place::Option);
    problems.append(&mut resolver.problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Errors::new(shown, problems)),
    }
}

/// What options give for running Python without an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithoutApp {
    /// `--dir`.
    pub files: Vec<Grant>,
    /// `--env`.
    pub env: Vec<(String, String)>,
    /// `--memory` and the others.
    pub limits: Limits,
}

/// The folders, variables and limits that options alone give, for running Python without an app.
///
/// # Errors
/// As [`load`].
pub fn load_without_app(overrides: &Overrides) -> Result<WithoutApp, Errors> {
    let mut raw = Raw::default();
    let mut resolver = resolver(None, &|_| None)?;
    resolver.problems = overrides.apply(&mut raw);
    let files = resolver
        .grants(&raw, &[])
        .into_iter()
        .map(|(grant, _)| grant)
        .collect();
    let (env, _) = resolver.environment(&raw);
    let limits = resolver.limits(&raw);
    match resolver.problems.is_empty() {
        true => Ok(WithoutApp { files, env, limits }),
        false => Err(Errors::new(String::new(), resolver.problems)),
    }
}

/// The current folder, absolute.
fn current() -> Result<PathBuf, Errors> {
    folder(Path::new("."))
}

fn folder(path: &Path) -> Result<PathBuf, Errors> {
    fs::canonicalize(path).map_err(|error| {
        let problem = Problem {
            place: Place::Option,
            key: path.display().to_string(),
            what: format!("cannot be opened: {}", lower(&error)),
            hint: "run wasgi from a folder that is there and readable".to_owned(),
        };
        Errors::new(String::new(), vec![problem])
    })
}

fn resolver<'a>(file: Option<&Path>, env: resolve::EnvLookup<'a>) -> Result<Resolver<'a>, Errors> {
    let parent = file.map(|file| match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    });
    Ok(Resolver {
        file_folder: parent.as_deref().map(folder).transpose()?,
        current: current()?,
        env,
        allowed: None,
        problems: Vec::new(),
    })
}

fn unreadable(file: &Path, error: &io::Error) -> Problem {
    let (what, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            "is not there".to_owned(),
            "write one, or run wasgi serve module:callable".to_owned(),
        ),
        io::ErrorKind::IsADirectory => (
            "is a folder".to_owned(),
            format!("name the file in it: {}", file.join("app.toml").display()),
        ),
        io::ErrorKind::InvalidData => ("is not UTF-8 text".to_owned(), "save it in UTF-8".to_owned()),
        _ => (
            format!("cannot be read: {}", lower(error)),
            "give the user that runs wasgi the right to read it".to_owned(),
        ),
    };
    Problem {
        place: Place::File,
        key: String::new(),
        what,
        hint,
    }
}

/// The system's reason without its number: `permission denied`.
fn lower(error: &io::Error) -> String {
    error.kind().to_string()
}
