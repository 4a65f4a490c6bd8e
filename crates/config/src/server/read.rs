//! `server.toml` as it was typed.

use toml::de::DeTable;

use crate::group::RawGroup;
use crate::keys;
use crate::limits::{LIMITS, LimitKey, Typed};
use crate::problem::{At, Problem};
use crate::raw::{Name, Raw, Reader, Value, read_with};

/// What was typed.
#[derive(Default)]
pub(super) struct RawServer {
    pub apps: Vec<At<String>>,
    pub grant: Vec<At<String>>,
    pub hosts: Vec<At<String>>,
    pub tenant_hosts: Option<bool>,
    pub pass_env: Vec<At<String>>,
    pub memory: Option<At<String>>,
    pub idle_timeout: Option<At<String>>,
    pub builders: Option<At<i64>>,
    /// `[listen]`, `[limits]`, `[log]`, `[trace]`, `[admin]` and `[proxy]`.
    pub raw: Raw,
    /// `[defaults]` and what is below it.
    pub defaults: Raw,
    /// `[caps]`.
    pub caps: Vec<(&'static LimitKey, At<Typed>)>,
    pub workers_cap: Option<At<i64>>,
    pub compress_cap: Option<At<i64>>,
    pub own: Vec<RawOwn>,
    /// `[defaults] group`.
    pub group: Option<At<String>>,
    /// `[group.NAME]`.
    pub groups: Vec<RawGroup>,
}

/// `[app.NAME]`.
#[derive(Default)]
pub(super) struct RawOwn {
    pub name: String,
    pub hosts: Option<Vec<At<String>>>,
    pub mount: Option<At<String>>,
    pub weight: Option<At<i64>>,
    pub grant: Vec<At<String>>,
    pub pass_env: Vec<At<String>>,
    pub group: Option<At<String>>,
}

/// Reads the text of a `server.toml`; the last value tells whether its syntax was broken.
pub(super) fn read(text: &str) -> (RawServer, Vec<Problem>, bool) {
    let mut server = RawServer::default();
    let (raw, problems, broken) = read_with(text, |reader, document| server.document(reader, document));
    server.raw.spoilt = raw.spoilt;
    (server, problems, broken)
}

impl RawServer {
    fn document(&mut self, reader: &mut Reader<'_>, document: &DeTable<'_>) {
        for (name, value) in document {
            let key = name.get_ref().as_ref();
            match key {
                "apps" => self.apps = reader.list(key, value),
                "grant" => self.grant = reader.list(key, value),
                "hosts" => self.hosts = reader.list(key, value),
                "tenant-hosts" => self.tenant_hosts = Some(reader.flag(key, value)),
                "pass-env" => self.pass_env = reader.list(key, value),
                "memory" => self.memory = reader.text(key, value),
                "idle-timeout" => self.idle_timeout = reader.text(key, value),
                "builders" => self.builders = reader.number(key, value, "2"),
                "listen" => {
                    for (key, value) in reader.table(key, value) {
                        reader.listen(key, value);
                    }
                    self.raw.http = reader.raw.http.take();
                    self.raw.https = std::mem::take(&mut reader.raw.https);
                    self.raw.h2c = std::mem::take(&mut reader.raw.h2c);
                    self.raw.redirect = std::mem::take(&mut reader.raw.redirect);
                    self.raw.proxy_protocol = std::mem::take(&mut reader.raw.proxy_protocol);
                    self.raw.uwsgi = std::mem::take(&mut reader.raw.uwsgi);
                    self.raw.fastcgi = std::mem::take(&mut reader.raw.fastcgi);
                    self.raw.scgi = std::mem::take(&mut reader.raw.scgi);
                    self.raw.sockets = std::mem::take(&mut reader.raw.sockets);
                }
                "server" => {
                    for (key, value) in reader.table(key, value) {
                        reader.process(key, value);
                    }
                    self.raw.process = std::mem::take(&mut reader.raw.process);
                }
                "admin" => {
                    for (key, value) in reader.table(key, value) {
                        reader.admin(key, value);
                    }
                    self.raw.admin = std::mem::take(&mut reader.raw.admin);
                }
                "proxy" => {
                    reader.raw.proxy.table = Some(reader.at(key, name, ()));
                    for (key, value) in reader.table(key, value) {
                        reader.proxy(key, value);
                    }
                    self.raw.proxy = std::mem::take(&mut reader.raw.proxy);
                }
                "limits" => {
                    for (key, value) in reader.table(key, value) {
                        reader.limit(key, value);
                    }
                    self.raw.limits = std::mem::take(&mut reader.raw.limits);
                }
                "log" => {
                    for (key, value) in reader.table(key, value) {
                        reader.log(key, value);
                    }
                    self.raw.log = std::mem::take(&mut reader.raw.log);
                }
                "trace" => {
                    for (key, value) in reader.table(key, value) {
                        reader.trace(key, value);
                    }
                    self.raw.trace = std::mem::take(&mut reader.raw.trace);
                }
                "defaults" => self.defaults(reader, value),
                "caps" => self.caps(reader, value),
                "app" => {
                    for (name, value) in reader.table(key, value) {
                        self.own(reader, name, value);
                    }
                }
                "group" => {
                    for (name, value) in reader.table(key, value) {
                        self.group(reader, name, value);
                    }
                }
                _ => {
                    let at = reader.at(key, name, ());
                    reader
                        .problems
                        .push(at.problem("unknown name", keys::server_hint(key)));
                }
            }
        }
    }

    fn defaults(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        const KEYS: &[&str] = &["isolation", "max-requests", "snapshot-cache", "weight", "workers"];
        for (name, value) in reader.table("defaults", value) {
            let key = name.get_ref().as_ref();
            match key {
                "limits" => {
                    for (key, value) in reader.table("defaults.limits", value) {
                        reader.limit(key, value);
                    }
                }
                "compress" => {
                    for (key, value) in reader.table("defaults.compress", value) {
                        reader.compress(key, value);
                    }
                }
                "group" => self.group = reader.text("defaults.group", value),
                _ if KEYS.contains(&key) => reader.app(name, value),
                _ => {
                    let at = reader.at(&format!("defaults.{key}"), name, ());
                    let hint = format!(
                        "the keys here are group, {}, and those of [defaults.limits] and [defaults.compress]",
                        KEYS.join(", ")
                    );
                    reader.problems.push(at.problem("unknown key", hint));
                }
            }
        }
        let spoilt = std::mem::take(&mut reader.raw.spoilt);
        self.defaults = std::mem::take(&mut reader.raw);
        reader.raw.spoilt = spoilt;
    }

    fn caps(&mut self, reader: &mut Reader<'_>, value: &Value<'_>) {
        for (name, value) in reader.table("caps", value) {
            match name.get_ref().as_ref() {
                "workers" => self.workers_cap = reader.number("caps.workers", value, "8"),
                "compress-level" => {
                    self.compress_cap = reader.number("caps.compress-level", value, "4");
                }
                key if LIMITS.iter().any(|limit| limit.name == key) => reader.limit(name, value),
                key => {
                    let at = reader.at(&format!("caps.{key}"), name, ());
                    let hint = "the keys here are workers, compress-level and those of [limits]";
                    reader.problems.push(at.problem("unknown key", hint));
                }
            }
        }
        self.caps = std::mem::take(&mut reader.raw.limits);
    }

    fn own(&mut self, reader: &mut Reader<'_>, name: &Name<'_>, value: &Value<'_>) {
        let app = name.get_ref().as_ref();
        let table = format!("app.{app}");
        let mut own = RawOwn {
            name: app.to_owned(),
            ..RawOwn::default()
        };
        for (name, value) in reader.table(&table, value) {
            let key = name.get_ref().as_ref();
            let path = format!("{table}.{key}");
            match key {
                "hosts" => own.hosts = Some(reader.list(&path, value)),
                "mount" => own.mount = reader.text(&path, value),
                "weight" => own.weight = reader.number(&path, value, "100"),
                "grant" => own.grant = reader.list(&path, value),
                "pass-env" => own.pass_env = reader.list(&path, value),
                "group" => own.group = reader.text(&path, value),
                _ => {
                    let at = reader.at(&path, name, ());
                    let hint = "the keys here are grant, group, hosts, mount, pass-env and weight";
                    reader.problems.push(at.problem("unknown key", hint));
                }
            }
        }
        self.own.push(own);
    }

    fn group(&mut self, reader: &mut Reader<'_>, name: &Name<'_>, value: &Value<'_>) {
        let table = format!("group.{}", name.get_ref());
        let mut group = RawGroup {
            name: Some(reader.at(&table, name, name.get_ref().to_string())),
            ..RawGroup::default()
        };
        for (name, value) in reader.table(&table, value) {
            let key = name.get_ref().as_ref();
            let path = format!("{table}.{key}");
            match key {
                "user" => group.user = reader.text(&path, value),
                "require-landlock" => group.require_landlock = reader.flag(&path, value),
                _ => {
                    let at = reader.at(&path, name, ());
                    let hint = "the keys here are user and require-landlock";
                    reader.problems.push(at.problem("unknown key", hint));
                }
            }
        }
        self.groups.push(group);
    }
}
