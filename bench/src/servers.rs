//! The servers, and how each is told to run one worker.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use crate::apps::App;
use crate::place::Place;
use crate::process::Launch;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// wasgi, memory lives on between requests.
    WasgiWorker,
    /// wasgi, a fresh sandbox for each request.
    WasgiRequest,
    /// `http-socket`: uWSGI's own HTTP, without its router.
    Uwsgi,
    /// WSGI, one worker with one blocking thread.
    Granian,
    /// The sync worker.
    Gunicorn,
    /// An app made into a component, a fresh instance for each request.
    WasmtimeServe,
}

/// In the order of the report.
pub const ALL: &[Server] = &[
    Server::WasgiWorker,
    Server::WasgiRequest,
    Server::Uwsgi,
    Server::Granian,
    Server::Gunicorn,
    Server::WasmtimeServe,
];

/// What differs between measurements, beyond server and app.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Processes, or instances of wasgi.
    pub workers: usize,
    /// Further lines of wasgi's `[app]`.
    pub app: &'static str,
    /// Further lines of wasgi's `[limits]`.
    pub limits: &'static str,
    /// Further arguments of a peer.
    pub args: &'static [&'static str],
}

impl Setup {
    /// One worker, everything else as it comes.
    pub const ONE: Self = Self {
        workers: 1,
        app: "",
        limits: "",
        args: &[],
    };
}

impl Default for Setup {
    fn default() -> Self {
        Self::ONE
    }
}

impl Server {
    /// As the command line and the results call it.
    pub fn key(self) -> &'static str {
        match self {
            Self::WasgiWorker => "wasgi-worker",
            Self::WasgiRequest => "wasgi-request",
            Self::Uwsgi => "uwsgi",
            Self::Granian => "granian",
            Self::Gunicorn => "gunicorn",
            Self::WasmtimeServe => "wasmtime-serve",
        }
    }

    /// As the report calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::WasgiWorker => "wasgi, worker",
            Self::WasgiRequest => "wasgi, request",
            Self::Uwsgi => "uWSGI",
            Self::Granian => "Granian",
            Self::Gunicorn => "Gunicorn sync",
            Self::WasmtimeServe => "wasmtime serve",
        }
    }

    /// How to start it with an app, on a port that was free just now.
    ///
    /// # Errors
    /// Why this server cannot run here, in words.
    pub fn launch(self, place: &Place, app: &App, setup: &Setup) -> Result<Launch, String> {
        let port = free_port()?;
        let key = match self {
            Self::Uwsgi => "--http-socket",
            _ => "http",
        };
        let launch = self.launch_on(place, app, setup, key, &format!("127.0.0.1:{port}"))?;
        Ok(Launch { port, ..launch })
    }

    /// As [`launch`](Self::launch), on an address of one's own; its port is left open. `key` is wasgi's of `[listen]` or
    /// uWSGI's argument.
    ///
    /// # Errors
    /// As of [`launch`](Self::launch).
    pub fn launch_on(
        self,
        place: &Place,
        app: &App,
        setup: &Setup,
        key: &str,
        address: &str,
    ) -> Result<Launch, String> {
        let workers = setup.workers.to_string();
        let arguments: Vec<&str>;
        let mut command: Vec<OsString>;
        match self {
            Self::WasgiWorker | Self::WasgiRequest => {
                let file = self.write_app_toml(place, app, setup, key, address)?;
                command = vec![place.wasgi.clone().into(), "serve".into(), file.into()];
                arguments = vec!["--access-log", "off"];
            }
            Self::Uwsgi => {
                command = vec![place.program("uwsgi").into()];
                arguments = vec![
                    key,
                    address,
                    "--module",
                    "app:app",
                    "--processes",
                    &workers,
                    "--master",
                    "--need-app",
                    "--die-on-term",
                    "--disable-logging",
                    // It closes after each reply without saying so, which wrk would count as errors.
                    "--add-header",
                    "Connection: close",
                ];
                let home = place.out.join("venv");
                command.extend(["--virtualenv".into(), home.into()]);
            }
            Self::Granian => {
                command = vec![place.program("granian").into()];
                arguments = vec![
                    "--interface",
                    "wsgi",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    address.rsplit(':').next().unwrap_or_default(),
                    "--workers",
                    &workers,
                    "--blocking-threads",
                    "1",
                    "--no-ws",
                    "--log-level",
                    "warning",
                    "app:app",
                ];
            }
            Self::Gunicorn => {
                command = vec![place.program("gunicorn").into()];
                arguments = vec!["--bind", address, "--workers", &workers, "app:app"];
            }
            Self::WasmtimeServe => {
                let mut data = place.out.join("data").into_os_string();
                data.push("::/data");
                command = vec!["wasmtime".into(), "serve".into(), "--dir".into(), data];
                let options = ["-Scli", "--env", "DATABASE=/data/notes.db", "--addr", address];
                command.extend(options.map(OsString::from));
                // What follows it would be its own arguments.
                command.push(component(place, app)?.into());
                arguments = vec![];
            }
        }
        command.extend(arguments.iter().map(OsString::from));
        command.extend(setup.args.iter().map(OsString::from));
        Ok(Launch {
            command,
            folder: place.app(app.name),
            env: environment(place),
            port: 0,
            log: place
                .out
                .join("logs")
                .join(format!("{}-{}.log", self.key(), app.name)),
        })
    }

    fn write_app_toml(
        self,
        place: &Place,
        app: &App,
        setup: &Setup,
        key: &str,
        address: &str,
    ) -> Result<PathBuf, String> {
        // Without a warm-up each request would import and compile anew what the first one does.
        let isolation = match self {
            Self::WasgiRequest if app.uploads => "isolation = \"request\"\n",
            Self::WasgiRequest => "isolation = \"request\"\nwarmup = [\"/\"]\n",
            _ => "",
        };
        let text = format!(
            "[app]\nname = \"{name}\"\nroot = {root:?}\nmodule = \"app:app\"\npython-path = [{packages:?}]\n\
             workers = {workers}\n{isolation}{further}\n[app.env]\nDATABASE = \"/data/notes.db\"\n\n\
             [listen]\n{key} = \"{address}\"\n\n[limits]\n{limits}\n\n[files]\n\"/data\" = {{ path = {data:?}, write = true }}\n",
            // Images of both modes are kept: there is one for each name.
            name = format_args!("{}-{}", app.name, self.key()),
            root = place.app(app.name),
            packages = place.out.join("packages"),
            workers = setup.workers,
            further = setup.app,
            limits = setup.limits,
            data = place.out.join("data"),
        );
        place.write(
            &format!("config/{}-{}-{key}/app.toml", self.key(), app.name),
            &text,
        )
    }
}

/// All that a server sees of this process's environment: enough to find programs, and the app's own variable.
pub(crate) fn environment(place: &Place) -> Vec<(&'static str, OsString)> {
    vec![
        ("PATH", std::env::var_os("PATH").unwrap_or_default()),
        // Gunicorn puts a control socket there.
        ("HOME", place.out.join("home").into()),
        ("LANG", "C.UTF-8".into()),
        ("XDG_CACHE_HOME", place.out.join("cache").into()),
        ("DATABASE", place.out.join("data/notes.db").into()),
    ]
}

pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(|error| format!("no free port: {error}"))
}

/// Makes an app into a component, unless that is done.
fn component(place: &Place, app: &App) -> Result<PathBuf, String> {
    let installed = |program: &str| Command::new(program).arg("--help").output().is_ok();
    for program in ["wasmtime", "componentize-py"] {
        if !installed(program) {
            return Err(format!("{program} is not installed"));
        }
    }
    let made = place.out.join("components").join(format!("{}.wasm", app.name));
    std::fs::create_dir_all(place.out.join("components")).map_err(|error| error.to_string())?;
    let build = place.root.join("bench/component/build.sh");
    let output = Command::new(build).arg(place.app(app.name)).arg(&made).output();
    let output = output.map_err(|error| format!("bench/component/build.sh: {error}"))?;
    match output.status.success() {
        true => Ok(made),
        false => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!(
                "componentize-py: {}",
                text.lines().last().unwrap_or("it said nothing")
            ))
        }
    }
}
