//! `[log]`: what becomes of lines, and `[trace]`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::de::DeValue;

use crate::config::Grant;
use crate::log_format::LogFormat;
use crate::problem::{At, Problem};
use crate::raw::{Name, Reader, Value};
use crate::resolve::Resolver;
use crate::units::Unit;

/// What stands for an app's name in `file`.
pub const APP: &str = "{app}";

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// `access`: what is told of each request.
    pub access: AccessFormat,
    /// `to`: where lines go that have no file.
    pub to: LogTo,
    /// `file`, absolute. With [`APP`] in its name it is for the lines of each app, else for all lines. In the file of an
    /// operator's tenant it is a log of the app's own, in one of the folders that it may write to.
    pub file: Option<PathBuf>,
    /// `rotate-size`: a file that has grown to it is put aside; `None` for never.
    pub rotate_size: Option<u64>,
    /// `rotate-keep`: so many of those put aside are kept.
    pub rotate_keep: u32,
    /// `trust-request-id`: whether a peer's `X-Request-Id`, and its word on whether a trace is sampled, count.
    pub trust_request_id: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            access: AccessFormat::default(),
            to: LogTo::default(),
            file: None,
            rotate_size: Some(100 << 20),
            rotate_keep: 5,
            trust_request_id: false,
        }
    }
}

/// Where lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error.
    #[default]
    Stderr,
    /// The system's log, at `/dev/log`.
    Syslog,
    /// systemd's journal, with fields.
    Journald,
}

/// How access lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// Not at all.
    Off,
    /// The combined log format, then time, app, worker and request id:
    /// `127.0.0.1 - - [31/Jul/2026:09:05:00 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8.5" 1.8ms app=hello worker=1 id=k3j9x2...`
    #[default]
    Combined,
    /// The same, and what the request cost before its id: `cpu=0.812ms memory=42880KiB pages=98 rewind=0.160ms`.
    CombinedBill,
    /// A JSON object per line.
    Json,
    /// The same with `cpu_ms`, `memory` in bytes, `pages` and `rewind_ms`.
    JsonBill,
    /// As the operator has it, in uWSGI's language.
    Custom(LogFormat),
}

impl AccessFormat {
    /// The words for each that has one.
    pub const NAMES: [&str; 5] = ["combined", "combined+bill", "json", "json+bill", "off"];

    /// Whether lines tell what their requests cost.
    pub fn has_bill(&self) -> bool {
        match self {
            AccessFormat::CombinedBill | AccessFormat::JsonBill => true,
            AccessFormat::Off | AccessFormat::Combined | AccessFormat::Json => false,
            AccessFormat::Custom(format) => format.has_bill(),
        }
    }
}

impl FromStr for AccessFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(AccessFormat::Off),
            "combined" => Ok(AccessFormat::Combined),
            "combined+bill" => Ok(AccessFormat::CombinedBill),
            "json" => Ok(AccessFormat::Json),
            "json+bill" => Ok(AccessFormat::JsonBill),
            _ => Err(format!("`{text}` is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// `[log]` as typed.
#[derive(Default)]
pub(crate) struct RawLog {
    pub access: Option<At<String>>,
    pub format: Option<At<String>>,
    pub to: Option<At<String>>,
    pub file: Option<At<String>>,
    pub rotate_size: Option<At<String>>,
    pub rotate_keep: Option<At<i64>>,
    pub trust_request_id: Option<bool>,
}

/// The keys of `[log]`.
pub(crate) const KEYS: &[&str] = &[
    "access",
    "to",
    "file",
    "rotate-size",
    "rotate-keep",
    "trust-request-id",
];

impl Reader<'_> {
    pub(crate) fn log(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let path = format!("log.{name}");
        match name {
            "access" => match value.get_ref() {
                DeValue::Table(entries) => {
                    for (name, value) in entries {
                        match name.get_ref().as_ref() {
                            "format" => self.raw.log.format = self.text("log.access.format", value),
                            other => {
                                let at = self.at(&format!("log.access.{other}"), name, ());
                                self.problems.push(
                                    at.problem("unknown key", "write { format = \"%(method) %(uri)\" }"),
                                );
                            }
                        }
                    }
                }
                _ => self.raw.log.access = self.text(&path, value),
            },
            "to" => self.raw.log.to = self.text(&path, value),
            "file" => self.raw.log.file = self.text(&path, value),
            "rotate-size" => self.raw.log.rotate_size = self.text(&path, value),
            "rotate-keep" => self.raw.log.rotate_keep = self.number(&path, value, "5"),
            "trust-request-id" => self.raw.log.trust_request_id = Some(self.flag(&path, value)),
            _ => self.unknown("log", key),
        }
    }
}

impl RawLog {
    /// Takes out what is the operator's to say, when the file is an app's owner's: all but a file of the app's own.
    pub(crate) fn refused(&mut self) -> Vec<Problem> {
        self.trust_request_id = None;
        let mut problems = Vec::new();
        if let Some(at) = self.to.take() {
            problems.push(at.problem(
                "where the server's log goes is the operator's to say",
                "leave it out; file = \"logs/app.log\" has the app's lines written to a file of its own besides",
            ));
        }
        if self.file.is_none() {
            let RawLog {
                access,
                format,
                rotate_size,
                ..
            } = std::mem::take(self);
            let typed = [access, format, rotate_size].into_iter().flatten();
            problems.extend(typed.map(|at| {
                at.problem(
                    "the server's log is the operator's; this is for a log of the app's own",
                    "add file = \"logs/app.log\", in a folder that [files] lets the app write to, or leave [log] out",
                )
            }));
        }
        problems
    }
}

impl Resolver<'_> {
    /// `[log]`, with defaults for what was not typed.
    pub(crate) fn log(&mut self, raw: &RawLog) -> Logging {
        let mut log = Logging::default();
        if let Some(at) = &raw.access {
            match at.value.parse() {
                Ok(access) => log.access = access,
                Err(what) => self.problems.push(at.problem(
                    what,
                    "for lines of your own write access = { format = \"%(addr) %(method) %(uri) %(status)\" }",
                )),
            }
        }
        if let Some(at) = &raw.format {
            match at.value.parse() {
                Ok(format) => log.access = AccessFormat::Custom(format),
                Err(error) => self.problems.push(at.problem(error.what, error.hint)),
            }
        }
        if let Some(at) = &raw.to {
            match at.value.as_str() {
                "stderr" => log.to = LogTo::Stderr,
                "syslog" => log.to = LogTo::Syslog,
                "journald" => log.to = LogTo::Journald,
                other => self.problems.push(at.problem(
                    format!("`{other}` is none of stderr, syslog, journald"),
                    "for a file write file = \"/var/log/wasgi.log\"",
                )),
            }
        }
        if let Some(at) = &raw.file {
            log.file = self.log_file(at);
            if let Some(to) = raw.to.as_ref().filter(|_| !at.value.contains(APP)) {
                self.problems.push(to.problem(
                    "log.file takes all lines already",
                    format!("keep one of the two, or give each app a file: \"/var/log/wasgi/{APP}.log\""),
                ));
            }
        }
        if let Some(at) = &raw.rotate_size {
            log.rotate_size = self.rotate_size(at);
        }
        if let Some(at) = &raw.rotate_keep {
            match u32::try_from(at.value)
                .ok()
                .filter(|keep| (1..=1000).contains(keep))
            {
                Some(keep) => log.rotate_keep = keep,
                None => self.problems.push(at.problem(
                    format!("{} is not from 1 to 1000", at.value),
                    "write rotate-size = \"0\" to let files grow",
                )),
            }
        }
        log.trust_request_id = raw.trust_request_id.unwrap_or(false);
        log
    }

    fn rotate_size(&mut self, at: &At<String>) -> Option<u64> {
        if at.value == "0" {
            return None;
        }
        let problem = match Unit::Size.parse(&at.value) {
            Ok(size) if size >= 64 << 10 => return Some(size),
            Ok(_) => at.problem(
                format!("{} is less than 64KiB", at.value),
                "write \"100MiB\", or \"0\" for never",
            ),
            Err(error) => at.problem(error.what, error.hint),
        };
        self.problems.push(problem);
        None
    }

    /// The file of an app's owner: in a folder that the app may write to, whose quota it counts against.
    pub(crate) fn own_log_file(&mut self, raw: &RawLog, path: PathBuf, grants: &[&Grant]) -> Option<PathBuf> {
        let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok())?;
        let is_in = |grant: &&&Grant| grant.write && folder.starts_with(&grant.path);
        if grants.iter().any(|grant| is_in(&grant)) {
            return Some(folder.join(path.file_name()?));
        }
        if let Some(at) = &raw.file {
            self.problems.push(at.problem(
                format!("`{}` is not in a folder that the app may write to", at.value),
                "show the app its folder, under [files]: \"/logs\" = { path = \"logs\", write = true }; its quota counts the log as well",
            ));
        }
        None
    }

    /// The path of a file that need not be there, in a folder that must, unless that has the app's name.
    fn log_file(&mut self, at: &At<String>) -> Option<PathBuf> {
        let path = self.base(at).join(&at.value);
        let is_plain = |part: &Path| !part.to_string_lossy().contains(APP);
        let (folder, named) = match (path.parent(), path.file_name()) {
            (Some(folder), Some(_)) if !at.value.ends_with('/') => (folder, is_plain(folder)),
            _ => {
                self.problems
                    .push(at.problem("names no file", format!("write \"/var/log/wasgi/{APP}.log\"")));
                return None;
            }
        };
        let problem = match named {
            false => at.problem(
                format!("{APP} is in the folder's name"),
                format!("put it into the file's: \"/var/log/wasgi/{APP}.log\""),
            ),
            true if !folder.is_dir() => at.problem(
                format!("the folder of `{}` is not there", at.value),
                "create the folder, or correct the path",
            ),
            true if path.is_dir() => at.problem(
                format!("`{}` is a folder", at.value),
                format!("name a file in it: \"{}/{APP}.log\"", at.value),
            ),
            true => return Some(path),
        };
        self.problems.push(problem);
        None
    }
}
