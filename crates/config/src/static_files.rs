//! `[static]`: folders whose files the server sends itself, without asking the app.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::problem::{At, Problem};
use crate::raw::{Name, Raw, Reader, Value};
use crate::resolve::Resolver;
use crate::route::mount;
use crate::units::Unit;

/// The keys of one line, for hints.
const KEYS: &str = "path, index, try-files, expires, cache-control, listing, follow-symlinks and fallthrough";

/// One line of `[static]`: a folder of the host that clients see under a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticMount {
    /// Below the app's own mount: empty for all paths, or `/static`.
    pub mount: String,
    /// The folder on the host, absolute, without symbolic links.
    pub path: PathBuf,
    /// Names of the files that stand for their folder, the best first.
    pub index: Vec<String>,
    /// What is looked for, in this order.
    pub try_files: Vec<TryFile>,
    /// How long clients may keep what they got.
    pub expires: Option<Duration>,
    /// `Cache-Control`, word for word, instead of `expires`.
    pub cache_control: Option<String>,
    /// Whether a folder without an index is answered with a list of its files.
    pub listing: bool,
    /// Whether symbolic links are followed that stay inside the folder.
    pub follow_symlinks: bool,
    /// Whether the app is asked for what is not there.
    pub fallthrough: bool,
}

/// A place to look for a file at, as in nginx's `try_files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryFile {
    /// `$uri`, or `$uri.html`: the path asked for, with this added.
    Path(String),
    /// `$uri/`: the path asked for as a folder.
    Folder,
    /// `/index.html`: always this file of the folder; held here without its slash.
    Fixed(String),
}

/// One line of `[static]`, as typed.
pub(crate) struct RawStatic {
    mount: At<String>,
    path: At<String>,
    index: Option<Vec<At<String>>>,
    try_files: Option<Vec<At<String>>>,
    expires: Option<At<String>>,
    cache_control: Option<At<String>>,
    listing: bool,
    follow_symlinks: bool,
    fallthrough: bool,
}

impl Reader<'_> {
    /// `"/static" = "static"`, or `"/static" = { path = "static", expires = "1h" }`.
    pub(crate) fn static_mount(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let mounted = key.get_ref().as_ref();
        let name = format!("static.\"{mounted}\"");
        let mut raw = RawStatic {
            mount: self.at(&name, key, mounted.to_owned()),
            path: self.at(&name, value, String::new()),
            index: None,
            try_files: None,
            expires: None,
            cache_control: None,
            listing: false,
            follow_symlinks: false,
            fallthrough: true,
        };
        let entries = match value.get_ref() {
            DeValue::Table(entries) => entries,
            DeValue::String(text) => {
                raw.path.value = text.to_string();
                return self.raw.statics.push(raw);
            }
            _ => {
                let hint = "write \"static\", or { path = \"static\", expires = \"1h\" }";
                return self.wrong_type(&name, value, "a text or a table", hint);
            }
        };
        let (mut path, mut spoilt) = (None, false);
        for (key, value) in entries {
            let option = key.get_ref().as_ref();
            let full = format!("{name}.{option}");
            match option {
                "path" => {
                    path = self.text(&full, value);
                    spoilt = path.is_none();
                }
                "index" => raw.index = Some(self.list(&full, value)),
                "try-files" => raw.try_files = Some(self.list(&full, value)),
                "expires" => raw.expires = self.text(&full, value),
                "cache-control" => raw.cache_control = self.text(&full, value),
                "listing" => raw.listing = self.flag(&full, value),
                "follow-symlinks" => raw.follow_symlinks = self.flag(&full, value),
                "fallthrough" => raw.fallthrough = self.flag(&full, value),
                _ => {
                    let at = self.at(&full, key, ());
                    self.problems
                        .push(at.problem("unknown key", format!("the keys here are {KEYS}")));
                }
            }
        }
        match path {
            Some(path) => {
                raw.path = path;
                self.raw.statics.push(raw);
            }
            None if spoilt => {}
            None => self.problems.push(
                raw.mount
                    .problem("path is missing", "write { path = \"static\" }"),
            ),
        }
    }
}

impl Resolver<'_> {
    /// The folders, longest mount first.
    pub(crate) fn statics(&mut self, raw: &Raw) -> Vec<StaticMount> {
        let mut mounts: Vec<StaticMount> = Vec::new();
        for typed in &raw.statics {
            let path = self.folder(&typed.path);
            let mounted = match mount(&typed.mount.value) {
                Ok(mounted) if mounts.iter().any(|other| other.mount == mounted) => {
                    let what = format!("`{}` is given twice", typed.mount.value);
                    self.problems
                        .push(typed.mount.problem(what, "keep one of the two"));
                    None
                }
                Ok(mounted) => Some(mounted),
                Err(_) => {
                    self.problems.push(typed.mount.problem(
                        format!("`{}` is not a path for files", typed.mount.value.escape_debug()),
                        "write \"/static\", or \"/\" to look for a file before every request",
                    ));
                    None
                }
            };
            let index = self.index(typed);
            let try_files = self.try_files(typed);
            let expires = self.expires(typed);
            let (Some(mount), Some(path)) = (mounted, path) else {
                continue;
            };
            mounts.push(StaticMount {
                mount,
                path,
                index,
                try_files,
                expires,
                cache_control: typed.cache_control.as_ref().map(|at| at.value.clone()),
                listing: typed.listing,
                follow_symlinks: typed.follow_symlinks,
                fallthrough: typed.fallthrough,
            });
        }
        mounts.sort_by_key(|it| std::cmp::Reverse(it.mount.len()));
        mounts
    }

    fn index(&mut self, typed: &RawStatic) -> Vec<String> {
        let Some(names) = &typed.index else {
            return vec!["index.html".to_owned()];
        };
        for at in names
            .iter()
            .filter(|at| !is_plain(&at.value) || at.value.contains('/'))
        {
            self.problems.push(at.problem(
                format!("`{}` is not the name of a file", at.value.escape_debug()),
                "write a name such as \"index.html\", or [] for none",
            ));
        }
        names.iter().map(|at| at.value.clone()).collect()
    }

    fn try_files(&mut self, typed: &RawStatic) -> Vec<TryFile> {
        let Some(places) = &typed.try_files else {
            return vec![TryFile::Path(String::new()), TryFile::Folder];
        };
        let mut read = Vec::new();
        for at in places {
            match try_file(at) {
                Ok(place) => read.push(place),
                Err(problem) => self.problems.push(problem),
            }
        }
        read
    }

    fn expires(&mut self, typed: &RawStatic) -> Option<Duration> {
        if let Some(at) = &typed.cache_control {
            if typed.expires.is_some() {
                self.problems.push(at.problem(
                    "expires is given too",
                    "keep one: expires = \"1h\" sends max-age=3600; cache-control is sent word for word",
                ));
            }
            if at.value.is_empty() || !at.value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                self.problems.push(at.problem(
                    "is not the value of a header field",
                    "write it as it is to be sent, such as \"public, max-age=31536000, immutable\"",
                ));
            }
        }
        let at = typed.expires.as_ref()?;
        match Unit::Time.parse(&at.value) {
            Ok(time) => Some(Duration::from_millis(time)),
            Err(error) => {
                self.problems.push(at.problem(error.what, error.hint));
                None
            }
        }
    }
}

fn try_file(at: &At<String>) -> Result<TryFile, Problem> {
    let text = at.value.as_str();
    match (text.strip_prefix("$uri"), text.strip_prefix('/')) {
        (Some("/"), _) => Ok(TryFile::Folder),
        (Some(suffix), _) if is_plain(&format!("x{suffix}")) => Ok(TryFile::Path(suffix.to_owned())),
        (None, Some(path)) if is_plain(path) => Ok(TryFile::Fixed(path.to_owned())),
        _ => Err(at.problem(
            format!("`{}` is not a place to look for a file at", text.escape_debug()),
            match text.starts_with('=') {
                true => "leave it out; fallthrough = false answers 404 for what is not there",
                false => {
                    "write \"$uri\", \"$uri.html\", \"$uri/\" for a folder, or a file such as \"/index.html\""
                }
            },
        )),
    }
}

/// Whether a relative path is one as it is written: no empty or dotted parts.
fn is_plain(path: &str) -> bool {
    let good = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(good) && !path.contains(['\0', '\\', '$'])
}
