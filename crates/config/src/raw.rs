//! The configuration as it was typed: names known, types right, nothing else looked at.

mod https;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::admin::RawAdmin;
use crate::compress::RawCompress;
use crate::keys;
use crate::limits::{LIMITS, LimitKey, Typed};
use crate::log::RawLog;
use crate::problem::{At, Place, Problem};
use crate::process::RawProcess;
use crate::proxy::RawProxy;
use crate::quota::{self, RawQuota};
use crate::sockets::RawSockets;
use crate::static_files::RawStatic;
use crate::trace::RawTrace;
pub(crate) use https::RawHttps;

/// What was typed, from the file and from options.
#[derive(Default)]
pub(crate) struct Raw {
    pub name: Option<At<String>>,
    pub root: Option<At<String>>,
    pub module: Option<At<String>>,
    pub wsgi_file: Option<At<String>>,
    pub callable: Option<At<String>>,
    pub venv: Option<At<String>>,
    pub python_path: Vec<At<String>>,
    pub workers: Option<At<i64>>,
    pub max_requests: Option<At<i64>>,
    pub max_lifetime: Option<At<String>>,
    pub max_memory: Option<At<String>>,
    pub isolation: Option<At<String>>,
    pub warmup: Vec<At<String>>,
    pub verify_rewind: bool,
    pub snapshot_cache: Option<bool>,
    pub hosts: Vec<At<String>>,
    pub mount: Option<At<String>>,
    pub weight: Option<At<i64>>,
    pub watch: bool,
    pub probe: Option<At<String>>,
    pub env: Vec<(String, RawVariable)>,
    pub http: Option<Vec<At<String>>>,
    pub https: Vec<RawHttps>,
    pub h2c: Vec<At<String>>,
    pub redirect: Vec<At<String>>,
    pub uwsgi: Vec<At<String>>,
    pub fastcgi: Vec<At<String>>,
    pub scgi: Vec<At<String>>,
    pub proxy_protocol: Vec<At<String>>,
    pub sockets: RawSockets,
    pub process: RawProcess,
    pub limits: Vec<(&'static LimitKey, At<Typed>)>,
    pub files: Vec<RawGrant>,
    pub log: RawLog,
    pub trace: RawTrace,
    pub statics: Vec<RawStatic>,
    pub compress: RawCompress,
    pub admin: RawAdmin,
    pub proxy: RawProxy,
    /// Line of `[app]`, to blame for what is missing from it.
    pub app_line: Option<usize>,
    /// Keys whose value had the wrong type: typed, so not to be called missing.
    pub spoilt: Vec<String>,
}

/// One line of `[app.env]`. Not to be shown, since it may be secret.
pub(crate) struct RawVariable {
    pub value: At<String>,
    pub secret: bool,
}

/// One line of `[files]`.
#[derive(Debug)]
pub(crate) struct RawGrant {
    pub guest: At<String>,
    pub path: At<String>,
    pub write: bool,
    pub quota: RawQuota,
}

/// Reads the text of an `app.toml`.
///
/// After a mistake in the syntax the rest of the file may mean something else: only the lines before the first one are
/// then looked at further, and the last value tells whether that was so.
pub(crate) fn read(text: &str) -> (Raw, Vec<Problem>, bool) {
    read_with(text, |reader, document| reader.document(document))
}

/// As [`read`], with what the tables mean left to `document`.
pub(crate) fn read_with(
    text: &str,
    document: impl FnOnce(&mut Reader<'_>, &DeTable<'_>),
) -> (Raw, Vec<Problem>, bool) {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    let mut reader = Reader {
        lines: &lines,
        raw: Raw::default(),
        problems: Vec::new(),
    };
    document(&mut reader, parsed.get_ref());
    let Reader {
        raw, mut problems, ..
    } = reader;

    let (syntax, broken) = syntax_problems(text, &lines, &errors);
    if let Some(line) = broken {
        problems.retain(|problem| problem.place < Place::Line(line));
    }
    problems.extend(syntax);
    (raw, problems, broken.is_some())
}

/// One problem for each mistake in the syntax, and the line of the first that makes the rest doubtful.
fn syntax_problems(text: &str, lines: &Lines, errors: &[toml::de::Error]) -> (Vec<Problem>, Option<usize>) {
    let mut found: Vec<(usize, &str, &str)> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            (
                lines.at(span.start),
                error.message(),
                text.get(span).unwrap_or_default(),
            )
        })
        .collect();
    found.sort_by_key(|(line, ..)| *line);
    let mut problems = Vec::new();
    let (mut first, mut last, mut list) = (None, None, false);
    for (line, message, span) in found {
        let problem = |what: &str, hint: &str| Problem {
            place: Place::Line(line),
            key: String::new(),
            what: what.to_owned(),
            hint: hint.to_owned(),
        };
        if message == "duplicate key" {
            problems.push(problem(&format!("{span} is given twice"), "keep one of the two"));
            continue;
        }
        first.get_or_insert(line);
        // One slip, such as a list that is not closed, is reported again on the lines that follow.
        let in_list = message.contains("array") || message.contains("inline table");
        if last.replace(line).is_some_and(|last| line - last <= 1) || (in_list && list) {
            continue;
        }
        list |= in_list;
        problems.push(match message {
            text if text.contains("no value") => {
                problem(text, "write the value after the name: name = \"hello\"")
            }
            text if text.contains("quoted") && span.is_empty() => problem(
                "the value is missing",
                "write it after the equals sign: name = \"hello\"",
            ),
            text if text.contains("quoted") => problem(
                &format!("{span} is no number, list, table, true or false, nor a text in quotes"),
                "write texts in double quotes: name = \"hello\"",
            ),
            text if in_list => problem(
                text,
                "close each list with ] and each { with }, with commas between the values",
            ),
            text if text.contains("string") => problem(
                text,
                "close the text with the quote that opened it, on the same line",
            ),
            text => problem(
                text,
                "a line is a table, such as [app], or a value, such as workers = 2",
            ),
        });
    }
    (problems, first)
}

/// Where the lines of a text begin.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(text.match_indices('\n').map(|(offset, _)| offset + 1))
                .collect(),
        )
    }

    /// Line of a byte offset, counted from 1.
    pub(crate) fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

pub(crate) type Name<'i> = Spanned<DeString<'i>>;
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Takes values off a document, and notes what is wrong with them.
pub(crate) struct Reader<'a> {
    lines: &'a Lines,
    pub(crate) raw: Raw,
    pub(crate) problems: Vec<Problem>,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let table = name.get_ref().as_ref();
            match table {
                "app" | "listen" | "server" | "limits" | "log" | "trace" | "files" | "static"
                | "compress" | "admin" | "proxy" => {}
                _ => {
                    self.unknown("", name);
                    continue;
                }
            }
            if table == "server" {
                self.raw.process.table = Some(self.at("server", name, ()));
            }
            if table == "proxy" {
                self.raw.proxy.table = Some(self.at("proxy", name, ()));
            }
            if table == "app" {
                self.raw.app_line = Some(self.lines.at(name.span().start));
            }
            for (key, value) in self.table(table, value) {
                match table {
                    "app" => self.app(key, value),
                    "listen" => self.listen(key, value),
                    "server" => self.process(key, value),
                    "limits" => self.limit(key, value),
                    "log" => self.log(key, value),
                    "trace" => self.trace(key, value),
                    "static" => self.static_mount(key, value),
                    "compress" => self.compress(key, value),
                    "admin" => self.admin(key, value),
                    "proxy" => self.proxy(key, value),
                    _ => self.grant(key, value),
                }
            }
        }
    }

    /// The entries of a table; none, and a problem, if `value` is something else.
    pub(crate) fn table<'v, 'i>(
        &mut self,
        name: &str,
        value: &'v Value<'i>,
    ) -> impl Iterator<Item = (&'v Name<'i>, &'v Value<'i>)> + use<'v, 'i> {
        let entries = match value.get_ref() {
            DeValue::Table(entries) => Some(entries),
            _ => {
                let hint = format!("write [{name}] on a line of its own");
                self.wrong_type(name, value, "a table", &hint);
                None
            }
        };
        entries.into_iter().flatten()
    }

    pub(crate) fn app(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let path = format!("app.{name}");
        match name {
            "name" => self.raw.name = self.text(&path, value),
            "root" => self.raw.root = self.text(&path, value),
            "module" => self.raw.module = self.text(&path, value),
            "wsgi-file" => self.raw.wsgi_file = self.text(&path, value),
            "callable" => self.raw.callable = self.text(&path, value),
            "venv" => self.raw.venv = self.text(&path, value),
            "python-path" => self.raw.python_path = self.list(&path, value),
            "workers" => self.raw.workers = self.number(&path, value, "2"),
            "max-requests" => self.raw.max_requests = self.number(&path, value, "1000"),
            "max-lifetime" => self.raw.max_lifetime = self.text(&path, value),
            "max-memory" => self.raw.max_memory = self.text(&path, value),
            "isolation" => self.raw.isolation = self.text(&path, value),
            "warmup" => self.raw.warmup = self.list(&path, value),
            "verify-rewind" => self.raw.verify_rewind = self.flag(&path, value),
            "snapshot-cache" => self.raw.snapshot_cache = Some(self.flag(&path, value)),
            "hosts" => self.raw.hosts = self.list(&path, value),
            "mount" => self.raw.mount = self.text(&path, value),
            "weight" => self.raw.weight = self.number(&path, value, "100"),
            "watch" => self.raw.watch = self.flag(&path, value),
            "probe" => self.raw.probe = self.text(&path, value),
            "env" => {
                for (name, value) in self.table("app.env", value) {
                    let name = name.get_ref().as_ref();
                    if let Some(variable) = self.variable(&format!("app.env.{name}"), value) {
                        self.raw.env.push((name.to_owned(), variable));
                    }
                }
            }
            _ => self.unknown("app", key),
        }
    }

    pub(crate) fn listen(&mut self, key: &Name<'_>, value: &Value<'_>) {
        match key.get_ref().as_ref() {
            "http" => match value.get_ref() {
                DeValue::Array(items) if items.is_empty() => {
                    let at = self.at("listen.http", value, ());
                    self.problems
                        .push(at.problem("the list is empty", "write \"127.0.0.1:8000\""));
                }
                DeValue::Array(_) => self.raw.http = Some(self.list("listen.http", value)),
                DeValue::Integer(port) => {
                    self.wrong_type(
                        "listen.http",
                        value,
                        "a text",
                        &format!("write \"127.0.0.1:{port}\""),
                    );
                }
                _ => self.raw.http = self.text("listen.http", value).map(|address| vec![address]),
            },
            "https" => self.https(value),
            "h2c" => self.raw.h2c = self.addresses("listen.h2c", value),
            "redirect" => self.raw.redirect = self.addresses("listen.redirect", value),
            "uwsgi" => self.raw.uwsgi = self.addresses("listen.uwsgi", value),
            "fastcgi" => self.raw.fastcgi = self.addresses("listen.fastcgi", value),
            "scgi" => self.raw.scgi = self.addresses("listen.scgi", value),
            "proxy-protocol" => {
                self.raw.proxy_protocol = self.addresses("listen.proxy-protocol", value);
            }
            name => {
                if !self.sockets(name, value) {
                    self.unknown("listen", key);
                }
            }
        }
    }

    /// An address, or a list of them.
    fn addresses(&mut self, path: &str, value: &Value<'_>) -> Vec<At<String>> {
        match value.get_ref() {
            DeValue::Array(_) => self.list(path, value),
            DeValue::Integer(port) => {
                self.wrong_type(path, value, "a text", &format!("write \"127.0.0.1:{port}\""));
                Vec::new()
            }
            _ => self.text(path, value).into_iter().collect(),
        }
    }

    pub(crate) fn limit(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let Some(limit) = LIMITS.iter().find(|limit| limit.name == name) else {
            return self.unknown("limits", key);
        };
        let path = format!("limits.{name}");
        let typed = match value.get_ref() {
            DeValue::Integer(_) => {
                self.number(&path, value, limit.default)
                    .map(|At { value, place, key }| At {
                        value: Typed::Number(value),
                        place,
                        key,
                    })
            }
            DeValue::String(text) if !limit.is_count() => {
                Some(self.at(&path, value, Typed::Text(text.to_string())))
            }
            _ if limit.is_count() => {
                self.wrong_type(&path, value, "a number", &format!("write {}", limit.default));
                None
            }
            _ => {
                self.wrong_type(
                    &path,
                    value,
                    "a text",
                    &format!("write a text such as \"{}\"", limit.default),
                );
                None
            }
        };
        self.raw.limits.extend(typed.map(|typed| (limit, typed)));
    }

    fn grant(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let guest = key.get_ref().as_ref();
        let name = format!("files.\"{guest}\"");
        let DeValue::Table(entries) = value.get_ref() else {
            let folder = value.get_ref().as_str().unwrap_or("data");
            return self.wrong_type(
                &name,
                value,
                "a table",
                &format!("write {{ path = \"{folder}\", write = true }}"),
            );
        };
        let (mut path, mut write, mut spoilt) = (None, false, false);
        let mut quota = RawQuota::default();
        for (key, value) in entries {
            match key.get_ref().as_ref() {
                "path" => {
                    path = self.text(&format!("{name}.path"), value);
                    spoilt = path.is_none();
                }
                "write" => write = self.flag(&format!("{name}.write"), value),
                "quota" => quota.bytes = self.bound(&format!("{name}.quota"), value, "\"100MiB\""),
                "max-files" => quota.files = self.bound(&format!("{name}.max-files"), value, "10000"),
                other => {
                    let at = self.at(&format!("{name}.{other}"), key, ());
                    self.problems.push(at.problem(
                        "unknown key",
                        "the keys here are path, write, quota and max-files",
                    ));
                }
            }
        }
        let guest = self.at(&name, key, guest.to_owned());
        match path {
            Some(path) => self.raw.files.push(RawGrant {
                guest,
                path,
                write,
                quota,
            }),
            None if spoilt => {}
            None => self
                .problems
                .push(guest.problem("path is missing", "write { path = \"data\", write = true }")),
        }
    }

    /// `quota` or `max-files` of a folder.
    fn bound(&mut self, key: &str, value: &Value<'_>, example: &str) -> Option<At<Typed>> {
        let typed = quota::typed(value);
        if typed.is_none() {
            self.wrong_type(key, value, "a size or a number", &format!("write {example}"));
        }
        Some(self.at(key, value, typed?))
    }

    /// `"text"`, or `{ value = "text", secret = true }`.
    fn variable(&mut self, key: &str, value: &Value<'_>) -> Option<RawVariable> {
        const EXAMPLE: &str = "write { value = \"${NAME}\", secret = true }";
        let DeValue::Table(entries) = value.get_ref() else {
            return self
                .text(key, value)
                .map(|value| RawVariable { value, secret: false });
        };
        let (mut text, mut secret, mut spoilt) = (None, false, false);
        for (name, value) in entries {
            match name.get_ref().as_ref() {
                "value" => match value.get_ref() {
                    DeValue::String(_) => text = self.text(&format!("{key}.value"), value),
                    // As any text that is none, but the hint does not repeat it.
                    _ => {
                        self.wrong_type(
                            &format!("{key}.value"),
                            value,
                            "a text",
                            "write it in double quotes",
                        );
                        spoilt = true;
                    }
                },
                "secret" => secret = self.flag(&format!("{key}.secret"), value),
                other => {
                    let at = self.at(&format!("{key}.{other}"), name, ());
                    self.problems
                        .push(at.problem("unknown key", "the keys here are value and secret"));
                }
            }
        }
        if text.is_none() && !spoilt {
            let at = self.at(key, value, ());
            self.problems.push(at.problem("value is missing", EXAMPLE));
        }
        text.map(|value| RawVariable { value, secret })
    }

    pub(crate) fn at<T, S>(&self, key: &str, spanned: &Spanned<S>, value: T) -> At<T> {
        At {
            value,
            place: Place::Line(self.lines.at(spanned.span().start)),
            key: key.to_owned(),
        }
    }

    pub(crate) fn text(&mut self, key: &str, value: &Value<'_>) -> Option<At<String>> {
        let hint = match value.get_ref() {
            DeValue::String(text) => return Some(self.at(key, value, text.to_string())),
            DeValue::Integer(number) => format!("write \"{number}\""),
            DeValue::Float(number) => format!("write \"{number}\""),
            DeValue::Boolean(flag) => format!("write \"{flag}\""),
            DeValue::Datetime(date) => format!("write \"{date}\""),
            DeValue::Array(_) | DeValue::Table(_) => "write one text in double quotes".to_owned(),
        };
        self.wrong_type(key, value, "a text", &hint);
        None
    }

    pub(crate) fn number(&mut self, key: &str, value: &Value<'_>, example: &str) -> Option<At<i64>> {
        match value.get_ref() {
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => return Some(self.at(key, value, number)),
                Err(_) => {
                    let at = self.at(key, value, ());
                    self.problems
                        .push(at.problem(format!("{number} is too large"), format!("write {example}")));
                    self.raw.spoilt.push(key.to_owned());
                }
            },
            DeValue::String(text) if text.parse::<i64>().is_ok() => {
                self.wrong_type(key, value, "a number", &format!("write {text}"));
            }
            _ => self.wrong_type(key, value, "a number", &format!("write {example}")),
        }
        None
    }

    pub(crate) fn flag(&mut self, key: &str, value: &Value<'_>) -> bool {
        if let DeValue::Boolean(flag) = value.get_ref() {
            return *flag;
        }
        self.wrong_type(key, value, "true or false", "write true or false");
        false
    }

    pub(crate) fn list(&mut self, key: &str, value: &Value<'_>) -> Vec<At<String>> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| self.text(key, item)).collect(),
            DeValue::String(text) => {
                self.wrong_type(key, value, "a list", &format!("write [\"{text}\"]"));
                Vec::new()
            }
            _ => {
                self.wrong_type(
                    key,
                    value,
                    "a list",
                    "write a list of texts, such as [\"packages\"]",
                );
                Vec::new()
            }
        }
    }

    pub(crate) fn wrong_type(&mut self, key: &str, value: &Value<'_>, wanted: &str, hint: &str) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let what = match is == wanted {
            true => "must be a whole number".to_owned(),
            false => format!("must be {wanted}, not {is}"),
        };
        let at = self.at(key, value, ());
        self.problems.push(at.problem(what, hint));
        self.raw.spoilt.push(key.to_owned());
    }

    pub(crate) fn unknown(&mut self, table: &str, key: &Name<'_>) {
        let name = key.get_ref().as_ref();
        let path = if table.is_empty() {
            name.to_owned()
        } else {
            format!("{table}.{name}")
        };
        let at = self.at(&path, key, ());
        self.problems.push(at.problem(
            if table.is_empty() {
                "unknown name"
            } else {
                "unknown key"
            },
            keys::hint(table, name),
        ));
    }
}
