//! What options come to, before it is written down: those that belong together are put together here.

use std::path::{Path, PathBuf};

use nix::unistd::Gid;

use super::document::{Document, quoted};
use super::ini::matching;
use super::{Problem, Setting};
use crate::problem::Place;
use crate::process::group_id;
use crate::resolve::folder_name;

/// What is spoken on a socket, by the key of `[listen]`.
pub(super) type Wire = &'static str;

/// What options come to.
#[derive(Default)]
pub(super) struct Plan {
    /// Whether a file says what is served; else words do.
    pub of_file: bool,
    /// The folder that the server is started in.
    pub current: PathBuf,
    pub problems: Vec<Problem>,
    /// What is to be said of options: whether it is a warning, and the words.
    pub remarks: Vec<(Setting, (bool, String))>,
    pub name: Option<Setting>,
    pub module: Option<Setting>,
    pub file: Option<Setting>,
    pub callable: Option<Setting>,
    /// Where the app is served, and what it is.
    pub mounts: Vec<Setting>,
    pub chdir: Option<Setting>,
    pub venv: Option<Setting>,
    pub python_path: Vec<Setting>,
    /// Each with its value as TOML has it.
    pub env: Vec<(String, String, Setting)>,
    pub processes: Option<(u64, Setting)>,
    pub threads: Option<(u64, Setting)>,
    /// Further keys of `[app]`, with their values as TOML has them.
    pub app: Vec<(&'static str, String, Setting)>,
    /// Keys of `[listen]` that take addresses.
    pub addresses: Vec<(Wire, String, Setting)>,
    /// Sockets whose protocol another option names.
    pub sockets: Vec<Setting>,
    pub protocol: Option<Setting>,
    /// Address, certificate and key.
    pub https: Vec<(String, String, String, Setting)>,
    /// Further keys of `[listen]`, for all sockets.
    pub of_sockets: Vec<(&'static str, String, Setting)>,
    /// Files of `touch-reload`.
    pub touched: Vec<Setting>,
    /// Gunicorn's `umask`, for unix sockets.
    pub umask: Option<(u32, Option<Setting>)>,
    pub process: Vec<(&'static str, String, Setting)>,
    pub limits: Vec<(&'static str, String, Setting)>,
    /// Mount and folder.
    pub statics: Vec<(String, String, Setting)>,
    pub indexes: Vec<Setting>,
    pub expires: Option<(String, Setting)>,
    pub log: Vec<(&'static str, String, Setting)>,
    pub admin: Vec<(&'static str, String, Setting)>,
    pub proxy: Vec<(&'static str, String, Setting)>,
    /// For all addresses, if both are there.
    pub certificate: Option<Setting>,
    pub key: Option<Setting>,
    /// Where it listens if nothing is said.
    pub default_address: Option<String>,
}

impl Plan {
    pub(super) fn new(current: PathBuf, problems: Vec<Problem>) -> Self {
        Self {
            current,
            problems,
            ..Self::default()
        }
    }

    pub(super) fn wrong(&mut self, setting: &Setting, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(setting.problem(what, hint));
    }

    pub(super) fn remark(&mut self, setting: &Setting, is_warning: bool, text: impl Into<String>) {
        self.remarks.push((setting.clone(), (is_warning, text.into())));
    }

    /// The value as a whole number that is not negative.
    pub(super) fn number(&mut self, setting: &Setting) -> Option<u64> {
        let number = setting.value.parse::<u64>().ok();
        if number.is_none() {
            let what = format!("`{}` is not a number", setting.value);
            self.wrong(setting, what, "write digits alone");
        }
        number
    }

    /// Sets a key once: of several that say the same, the last counts.
    pub(super) fn set(
        list: &mut Vec<(&'static str, String, Setting)>,
        key: &'static str,
        value: String,
        setting: &Setting,
    ) {
        list.retain(|(other, ..)| *other != key);
        list.push((key, value, setting.clone()));
    }

    /// Sets a limit to so many seconds; 0 is for never, which is a day here.
    pub(super) fn seconds(&mut self, key: &'static str, setting: &Setting) {
        if let Some(seconds) = self.number(setting) {
            let value = match seconds {
                0 => "\"24h\"".to_owned(),
                _ => format!("\"{seconds}s\""),
            };
            Self::set(&mut self.limits, key, value, setting);
        }
    }

    /// The path as it is meant, relative to the folder that the server is started in.
    pub(super) fn path(&self, text: &str) -> String {
        self.current.join(text).to_string_lossy().into_owned()
    }

    /// Has the app served at an address in this manner.
    pub(super) fn listen(&mut self, wire: Wire, setting: &Setting) {
        if let Some(address) = self.address(setting, &setting.value) {
            self.addresses.push((wire, address, setting.clone()));
        }
    }

    /// An address as uWSGI and Gunicorn have it: `:8000`, `host:port`, `x.sock`, `unix:x.sock`, `fd://3`.
    pub(super) fn address(&mut self, setting: &Setting, text: &str) -> Option<String> {
        let text = text.trim();
        if let Some(number) = text.strip_prefix("fd://") {
            return Some(format!("fd:{number}"));
        }
        if text.parse::<u16>().is_ok() {
            self.wrong(
                setting,
                format!("`{text}` is only a port"),
                format!("write :{text}"),
            );
            return None;
        }
        if text.is_empty() || text.starts_with('=') {
            let hint = "write an address, such as 127.0.0.1:8000, or the path of a unix socket";
            self.wrong(setting, format!("`{text}` is not an address"), hint);
            return None;
        }
        let path = text
            .strip_prefix("unix:")
            .map(|path| path.strip_prefix("//").unwrap_or(path));
        match (path, text.rsplit_once(':')) {
            (None, Some((host, port))) if port.parse::<u16>().is_ok() => Some(match host {
                "" | "*" => format!("0.0.0.0:{port}"),
                _ => text.to_owned(),
            }),
            (path, _) => {
                let path = path.unwrap_or(text);
                match path.starts_with('@') {
                    true => Some(format!("unix:{path}")),
                    false => Some(format!("unix:{}", self.path(path))),
                }
            }
        }
    }

    /// Writes it down.
    pub(super) fn write(&mut self, document: &mut Document) {
        document.table("app");
        let root = self.root();
        self.entry(document, &root);
        self.app(document, &root);
        self.env(document);
        self.listeners(document);
        write(document, "limits", &self.limits);
        self.statics(document, &root);
        write(document, "log", &self.log);
        write(document, "admin", &self.admin);
        write(document, "proxy", &self.proxy);
        // Who is asked to stay root stays in its group.
        if !self.process.iter().any(|(key, ..)| *key == "user") {
            let is_own = |setting: &Setting| group_id(&setting.value) == Some(Gid::effective().as_raw());
            self.process
                .retain(|(key, _, setting)| *key != "group" || !is_own(setting));
        }
        document.table("server");
        for (key, value, setting) in &self.process {
            document.line(key, value, setting);
        }
        let touched: Vec<_> = self
            .touched
            .iter()
            .map(|setting| (quoted(&self.path(&setting.value)), setting))
            .collect();
        document.list("touch-reload", &touched);
        document.end_table();
    }

    /// The app's folder: where the server is told to go, else where it is; never the root of all files, which would show
    /// the app everything.
    fn root(&self) -> PathBuf {
        if let Some(chdir) = &self.chdir {
            return self.current.join(&chdir.value);
        }
        let file = self.file.as_ref().map(|file| self.current.join(&file.value));
        let all = self.current.parent().is_none();
        match file {
            Some(file) if all || !file.starts_with(&self.current) => {
                file.parent().unwrap_or(&self.current).to_owned()
            }
            None if all => {
                let first = self.python_path.first();
                first.map_or(self.current.clone(), |path| self.current.join(&path.value))
            }
            _ => self.current.clone(),
        }
    }

    /// Which object is served, and where.
    fn entry(&mut self, document: &mut Document, root: &Path) {
        let (module, file, callable) = (self.module.clone(), self.file.clone(), self.callable.clone());
        let mut mounts = std::mem::take(&mut self.mounts).into_iter();
        let mount = mounts.next();
        for other in mounts {
            let hint =
                "give each app an ini file of its own, and serve them together: wasgi serve a.ini b.ini";
            self.wrong(&other, "a file has one app here", hint);
        }
        if let Some(setting) = mount {
            let Some((place, app)) = setting.value.split_once('=') else {
                return self.wrong(
                    &setting,
                    "does not say what is mounted",
                    "write /path=module:callable",
                );
            };
            let is_file = app.contains('/') || app.ends_with(".py") || app.ends_with(".wsgi");
            let of_mount = Setting {
                value: app.to_owned(),
                ..setting.clone()
            };
            let same = |other: &Option<Setting>| other.as_ref().is_none_or(|other| other.value == app);
            if !same(&module) || !same(&file) {
                let hint =
                    "give each app an ini file of its own, and serve them together: wasgi serve a.ini b.ini";
                return self.wrong(&setting, "a file has one app here", hint);
            }
            document.text("mount", place, &setting);
            match is_file {
                true => self.wsgi_file(document, root, &of_mount, callable.as_ref()),
                false => self.wsgi_module(document, &of_mount, callable.as_ref()),
            }
            return;
        }
        match (module, file) {
            (Some(module), None) => self.wsgi_module(document, &module, callable.as_ref()),
            (None, Some(file)) => self.wsgi_file(document, root, &file, callable.as_ref()),
            (Some(module), Some(_)) => {
                let hint = "keep one: module = hello:app imports, wsgi-file = wsgi.py runs a file";
                self.wrong(&module, "a file of the app is named too", hint);
            }
            (None, None) => self.problems.push(match self.of_file {
                true => Problem {
                    place: Place::File,
                    key: String::new(),
                    what: "does not say which app is served".to_owned(),
                    hint: "write module = hello:app, or wsgi-file = wsgi.py".to_owned(),
                },
                false => Problem {
                    place: Place::Option,
                    key: "APP".to_owned(),
                    what: "is missing".to_owned(),
                    hint: "name it as module:callable, such as hello:app".to_owned(),
                },
            }),
        }
    }

    fn wsgi_module(&mut self, document: &mut Document, module: &Setting, callable: Option<&Setting>) {
        let text = match (module.value.contains(':'), callable) {
            (true, _) => module.value.clone(),
            (false, Some(callable)) => format!("{}:{}", module.value, callable.value),
            (false, None) => format!("{}:application", module.value),
        };
        document.text("module", &text, module);
    }

    fn wsgi_file(
        &mut self,
        document: &mut Document,
        root: &Path,
        file: &Setting,
        callable: Option<&Setting>,
    ) {
        document.text("wsgi-file", &root.join(&file.value).to_string_lossy(), file);
        if let Some(callable) = callable {
            document.text("callable", &callable.value, callable);
        }
    }

    /// The rest of `[app]`.
    fn app(&mut self, document: &mut Document, root: &Path) {
        match &self.name {
            Some(name) => document.text("name", &name.value, name),
            None => document.own(
                "name",
                &quoted(&folder_name(root.file_name().unwrap_or_default())),
            ),
        }
        match &self.chdir {
            Some(chdir) => document.text("root", &root.to_string_lossy(), chdir),
            None => document.own("root", &quoted(&root.to_string_lossy())),
        }
        if let Some(venv) = &self.venv {
            // Relative to the app's folder, or to where the server is started if it is there.
            let there = [root.join(&venv.value), self.current.join(&venv.value)];
            let path = there.iter().find(|path| path.is_dir()).unwrap_or(&there[0]);
            document.text("venv", &path.to_string_lossy(), venv);
        }
        let mut paths = Vec::new();
        for setting in &self.python_path {
            let named = match setting.value.contains(['*', '?', '[']) {
                true => matching(&setting.value, root),
                false => vec![setting.value.clone()],
            };
            paths.extend(
                named
                    .iter()
                    .map(|path| (quoted(&root.join(path).to_string_lossy()), setting)),
            );
        }
        document.list("python-path", &paths);
        let count = |of: &Option<(u64, Setting)>| of.as_ref().map_or(1, |(count, _)| (*count).max(1));
        let workers = count(&self.processes)
            .saturating_mul(count(&self.threads))
            .to_string();
        match self.processes.as_ref().or(self.threads.as_ref()) {
            Some((_, setting)) => document.line("workers", &workers, setting),
            None => document.own("workers", &workers),
        }
        for (key, value, setting) in &self.app {
            document.line(key, value, setting);
        }
    }

    fn env(&mut self, document: &mut Document) {
        document.table("app.env");
        let mut env = std::mem::take(&mut self.env);
        // The last one counts.
        let mut seen = Vec::new();
        env.reverse();
        env.retain(|(name, ..)| {
            let is_new = !seen.contains(name);
            seen.push(name.clone());
            is_new
        });
        for (name, value, setting) in env.iter().rev() {
            document.line(&quoted(name), value, setting);
        }
        document.end_table();
    }

    fn listeners(&mut self, document: &mut Document) {
        let wire = match self.protocol.as_ref().map(|setting| setting.value.as_str()) {
            None | Some("uwsgi") => Some("uwsgi"),
            Some("http" | "http11") => Some("http"),
            Some("fastcgi") => Some("fastcgi"),
            Some("scgi") => Some("scgi"),
            Some(_) => None,
        };
        match (wire, self.protocol.clone()) {
            (None, Some(setting)) => {
                let what = format!("`{}` is not spoken here", setting.value);
                self.wrong(&setting, what, "write http, uwsgi, fastcgi or scgi");
            }
            _ => {
                for setting in std::mem::take(&mut self.sockets) {
                    self.listen(wire.unwrap_or("http"), &setting);
                }
            }
        }
        let mut addresses = std::mem::take(&mut self.addresses);
        self.over_tls(&mut addresses);
        let has_file = addresses
            .iter()
            .any(|(_, address, _)| address.starts_with("unix:/"));
        document.table("listen");
        if let (true, true, Some(address)) =
            (addresses.is_empty(), self.https.is_empty(), &self.default_address)
        {
            document.own("http", &quoted(address));
        }
        while let Some((wire, ..)) = addresses.first() {
            let wire = *wire;
            let (these, others): (Vec<_>, Vec<_>) =
                addresses.into_iter().partition(|(other, ..)| *other == wire);
            addresses = others;
            let values: Vec<_> = these
                .iter()
                .map(|(_, address, setting)| (quoted(address), setting))
                .collect();
            document.list(wire, &values);
        }
        let https: Vec<_> = self
            .https
            .iter()
            .map(|(address, cert, key, setting)| {
                let (address, cert, key) = (quoted(address), quoted(cert), quoted(key));
                (
                    format!("{{ address = {address}, cert = {cert}, key = {key} }}"),
                    setting,
                )
            })
            .collect();
        document.list("https", &https);
        for (key, value, setting) in &self.of_sockets {
            document.line(key, value, setting);
        }
        if let Some((umask, setting)) = self.umask.as_ref().filter(|_| has_file) {
            let mode = quoted(&format!("{:03o}", 0o666 & !umask));
            match setting {
                Some(setting) => document.line("socket-mode", &mode, setting),
                None => document.own("socket-mode", &mode),
            }
        }
        document.end_table();
    }

    /// With a certificate and its key, what would be HTTP is HTTPS.
    fn over_tls(&mut self, addresses: &mut Vec<(Wire, String, Setting)>) {
        match (self.certificate.clone(), self.key.clone()) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                let (cert, key) = (self.path(&cert.value), self.path(&key.value));
                for (_, address, setting) in addresses.extract_if(.., |(wire, ..)| *wire == "http") {
                    self.https.push((address, cert.clone(), key.clone(), setting));
                }
            }
            (Some(alone), None) => self.wrong(&alone, "has no key", "write --keyfile key.pem too"),
            (None, Some(alone)) => self.wrong(&alone, "has no certificate", "write --certfile cert.pem too"),
        }
    }

    fn statics(&mut self, document: &mut Document, root: &Path) {
        document.table("static");
        let index: Vec<String> = self
            .indexes
            .iter()
            .map(|setting| quoted(&setting.value))
            .collect();
        for (mount, folder, setting) in &self.statics {
            let path = quoted(&root.join(folder).to_string_lossy());
            let expires = match &self.expires {
                Some((value, _)) => format!(", expires = {value}"),
                None => String::new(),
            };
            let value = format!(
                "{{ path = {path}, index = [{}]{expires}, follow-symlinks = true }}",
                index.join(", ")
            );
            document.line(&quoted(mount), &value, setting);
        }
        document.end_table();
    }
}

fn write(document: &mut Document, table: &str, lines: &[(&'static str, String, Setting)]) {
    document.table(table);
    for (key, value, setting) in lines {
        document.line(key, value, setting);
    }
    document.end_table();
}
