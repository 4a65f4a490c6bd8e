//! Options of the command line, which win over the file.

use crate::limits::{LimitKey, Typed};
use crate::problem::{At, Place, Problem};
use crate::quota::RawQuota;
use crate::raw::{Raw, RawGrant, RawVariable};

/// What options say, as typed; paths are relative to the current folder. All empty: the file alone counts.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `hello:app`.
    pub module: Option<String>,
    /// `wsgi.py`; without `root` its folder is the root.
    pub wsgi_file: Option<String>,
    /// `--callable`.
    pub callable: Option<String>,
    /// `--name`.
    pub name: Option<String>,
    /// `--root`.
    pub root: Option<String>,
    /// `--venv`.
    pub venv: Option<String>,
    /// `--python-path`; any replace the file's.
    pub python_path: Vec<String>,
    /// `--workers`.
    pub workers: Option<i64>,
    /// `--max-requests`.
    pub max_requests: Option<i64>,
    /// `--isolation`.
    pub isolation: Option<String>,
    /// `--verify-rewind`; without it the file counts.
    pub verify_rewind: bool,
    /// `--snapshot-cache`.
    pub snapshot_cache: bool,
    /// `--env NAME=VALUE`; joined with the file's. `${NAME}` is left as it is: the shell has its own.
    pub env: Vec<String>,
    /// `--http`; any replace the file's.
    pub http: Vec<String>,
    /// `--h2c`; any replace the file's.
    pub h2c: Vec<String>,
    /// `--uwsgi`; any replace the file's.
    pub uwsgi: Vec<String>,
    /// `--fastcgi`; any replace the file's.
    pub fastcgi: Vec<String>,
    /// `--scgi`; any replace the file's.
    pub scgi: Vec<String>,
    /// `--access-log`; replaces the file's format.
    pub access_log: Option<String>,
    /// `--log-file`; replaces the file's `to` as well.
    pub log_file: Option<String>,
    /// `--time` and the others of [`crate::LIMITS`].
    pub limits: Vec<(&'static LimitKey, String)>,
    /// `--dir HOST::GUEST[:rw]`; joined with `[files]`.
    pub dirs: Vec<String>,
}

fn at<T>(option: &str, value: T) -> At<T> {
    At {
        value,
        place: Place::Option,
        key: option.to_owned(),
    }
}

impl Overrides {
    /// Puts the options over what the file said.
    pub(crate) fn apply(&self, raw: &mut Raw) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.module.is_some() || self.wsgi_file.is_some() {
            raw.module = self.module.clone().map(|module| at("APP", module));
            raw.wsgi_file = self.wsgi_file.clone().map(|file| at("APP", file));
            raw.callable = None;
        }
        let text = |option: &str, typed: &Option<String>, slot: &mut Option<At<String>>| {
            if let Some(value) = typed {
                *slot = Some(at(option, value.clone()));
            }
        };
        text("--callable", &self.callable, &mut raw.callable);
        text("--name", &self.name, &mut raw.name);
        text("--root", &self.root, &mut raw.root);
        text("--venv", &self.venv, &mut raw.venv);
        text("--isolation", &self.isolation, &mut raw.isolation);
        raw.verify_rewind |= self.verify_rewind;
        if self.snapshot_cache {
            raw.snapshot_cache = Some(true);
        }
        raw.workers = self.workers.map(|n| at("--workers", n)).or(raw.workers.take());
        raw.max_requests = self
            .max_requests
            .map(|n| at("--max-requests", n))
            .or(raw.max_requests.take());
        if !self.python_path.is_empty() {
            raw.python_path = self
                .python_path
                .iter()
                .map(|path| at("--python-path", path.clone()))
                .collect();
        }
        if !self.http.is_empty() {
            raw.http = Some(
                self.http
                    .iter()
                    .map(|address| at("--http", address.clone()))
                    .collect(),
            );
        }
        for (option, typed, slot) in [
            ("--h2c", &self.h2c, &mut raw.h2c),
            ("--uwsgi", &self.uwsgi, &mut raw.uwsgi),
            ("--fastcgi", &self.fastcgi, &mut raw.fastcgi),
            ("--scgi", &self.scgi, &mut raw.scgi),
        ] {
            if !typed.is_empty() {
                *slot = typed.iter().map(|address| at(option, address.clone())).collect();
            }
        }
        if let Some(format) = &self.access_log {
            raw.log.access = Some(at("--access-log", format.clone()));
            raw.log.format = None;
        }
        if let Some(file) = &self.log_file {
            raw.log.file = Some(at("--log-file", file.clone()));
            raw.log.to = None;
        }
        for (key, value) in &self.limits {
            raw.limits.retain(|(other, _)| other.name != key.name);
            raw.limits
                .push((key, at(&format!("--{}", key.name), Typed::Text(value.clone()))));
        }
        for typed in &self.env {
            match typed.split_once('=') {
                Some((name, value)) => {
                    // Another value for a secret is as secret.
                    let secret = raw.env.iter().any(|(other, it)| other == name && it.secret);
                    raw.env.retain(|(other, _)| other != name);
                    let value = at("--env", value.to_owned());
                    raw.env.push((name.to_owned(), RawVariable { value, secret }));
                }
                None => problems.push(at("--env", ()).problem(
                    format!("`{typed}` has no value"),
                    format!("write --env {typed}=VALUE"),
                )),
            }
        }
        for typed in &self.dirs {
            match grant(typed) {
                Some(grant) => {
                    raw.files.retain(|other| {
                        other.guest.place == Place::Option || other.guest.value != grant.guest.value
                    });
                    raw.files.push(grant);
                }
                None => problems.push(at("--dir", ()).problem(
                    format!("`{typed}` does not say which folder of the host is seen where"),
                    "write --dir ./data::/data to read, --dir ./data::/data:rw to write too",
                )),
            }
        }
        problems
    }
}

/// `HOST::GUEST` or `HOST::GUEST:rw`.
fn grant(typed: &str) -> Option<RawGrant> {
    let (host, guest) = typed
        .split_once("::")
        .filter(|(host, guest)| !host.is_empty() && !guest.is_empty())?;
    let (guest, write) = match guest.rsplit_once(':') {
        Some((guest, "rw")) => (guest, true),
        Some((guest, "ro")) => (guest, false),
        Some(_) => return None,
        None => (guest, false),
    };
    Some(RawGrant {
        guest: at("--dir", guest.to_owned()),
        path: at("--dir", host.to_owned()),
        write,
        quota: RawQuota::default(),
    })
}
