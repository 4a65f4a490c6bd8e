//! `wasgi serve`: the server.

use std::ffi::OsStr;
use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use wasgi_config::{AccessFormat, Listen, Logging, Owner, Process, ServerConfig, Tracing, load_server};
use wasgi_engine::Engine;
use wasgi_server::{
    Admin, AdminListeners, Budget, Fleet, Inherited, Listener, Loader, Log, Server, StaticError, Threads,
    Token,
};

use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::loaders::{Named, Operator, Workshop, variable};
use crate::service::{self, Service};
use crate::{
    app_options, daemon, groups, hosted, interpreter, listen, loaders, privileges, signals, steering,
};

/// How long a slow terminal or pipe may take over the last lines of the log.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  wasgi serve                              app.toml of this folder
  wasgi serve shop/app.toml --http 127.0.0.1:0
  wasgi serve shop/app.toml wiki/app.toml  two apps, each at the hosts or the mount that its file says
  wasgi serve server.toml                  the apps of owners who do not trust each other
  wasgi serve uwsgi.ini                    what uWSGI's file describes; wasgi import shows what comes of it
  wasgi serve hello:app                    the object `app` of hello.py in this folder
  wasgi serve hello:app --root src --http 127.0.0.1:8000 --workers 2 --time 30s --memory 256MiB
  wasgi serve wsgi.py --venv venv          the object `application` of wsgi.py
  wasgi serve notes:app --dir ./data::/data:rw --env DATABASE=/data/notes.db
  wasgi serve hello:app --http unix:/run/hello.sock --access-log off
  wasgi serve hello:app --http systemd     on the sockets of a systemd socket unit

Options win over the file. SIGTERM and Ctrl-C let running requests finish (see --stop-time); a second
one ends at once. SIGHUP loads every app anew, beside what runs: requests go to the new one once it
answers. SIGUSR2 starts a new process of the same command, on the same sockets, and ends this
one as SIGTERM does once the new one serves.";

pub(crate) fn command() -> Command {
    let command = Command::new("serve").about("Serve an app over HTTP");
    app_options::add(command)
        .mut_arg("APP", |app| {
            app.num_args(0..).help(
                "app.toml, module:callable, a file such as wsgi.py, or uWSGI's uwsgi.ini; several; or a server.toml [default: app.toml of this folder]",
            )
        })
        .arg(
            Arg::new("http")
                .long("http")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("Where to listen: 127.0.0.1:8000, [::1]:8000, unix:/run/hello.sock; port 0 for any free one; may be repeated [default: 127.0.0.1:8000]")
                .help_heading("Listen"),
        )
        .arg(
            Arg::new("h2c")
                .long("h2c")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("Where clients speak HTTP/2 without TLS, by prior knowledge; may be repeated")
                .help_heading("Listen"),
        )
        .arg(
            Arg::new("uwsgi")
                .long("uwsgi")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("Where a web server in front speaks uwsgi, as nginx's uwsgi_pass does; may be repeated")
                .help_heading("Listen"),
        )
        .arg(
            Arg::new("fastcgi")
                .long("fastcgi")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("... or FastCGI")
                .help_heading("Listen"),
        )
        .arg(
            Arg::new("scgi")
                .long("scgi")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("... or SCGI")
                .help_heading("Listen"),
        )
        .arg(
            Arg::new("access-log")
                .long("access-log")
                .value_name("FORMAT")
                .value_parser(AccessFormat::NAMES)
                .help("A line for each request; with +bill it tells what the request cost: CPU time, memory, pages written and the rewind [default: combined]")
                .help_heading("Log"),
        )
        .arg(
            Arg::new("log-file")
                .long("log-file")
                .value_name("FILE")
                .help("Where lines go instead of standard error; with {app} in its name, those of each app. SIGUSR1 opens it anew")
                .help_heading("Log"),
        )
        .arg(service::pidfile_option())
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let what = What::of(matches)?;
    // Both before there are threads.
    let inherited = Inherited::take().context("cannot take over the sockets handed over")?;
    let (process, file) = what.process();
    privileges::prepare(process, file)?;
    if let Some(code) = daemon::begin(process)? {
        return Ok(code);
    }
    let (logging, tracing) = what.logging();
    let log = Log::start(logging).with_context(|| cannot_log(logging))?;
    if let Some(tracing) = tracing {
        log.trace(tracing).context("cannot start sending traces")?;
    }
    what.remark(&log);
    let made = OnceLock::new();
    let threads = Threads::start().context("cannot start the server's threads")?;
    raise_open_files();
    let start = Start {
        matches,
        inherited,
        guests: threads.guests(),
        made: &made,
        process: process.clone(),
        logging: logging.clone(),
        log: log.clone(),
        fifo: None,
    };
    let served = threads.block_on(async {
        match what {
            What::Apps(apps) => start.serve_apps(apps).await,
            What::Server(file, config) => start.serve_server(file, *config).await,
        }
    });
    threads.end();
    made.into_inner().inspect(Engine::end);
    log.flush(LAST_LINES);
    served.map(|()| ExitCode::SUCCESS)
}

/// What is to be served.
enum What {
    /// Apps that the command line names, at least one. The first one's word counts for what all have together.
    Apps(Vec<(PathBuf, Chosen)>),
    /// Those of a `server.toml`.
    Server(PathBuf, Box<ServerConfig>),
}

impl What {
    fn of(matches: &ArgMatches) -> Result<Self, Failure> {
        let typed: Vec<&String> = matches
            .try_get_many("APP")
            .ok()
            .flatten()
            .into_iter()
            .flatten()
            .collect();
        let is_server = |app: &&&String| Path::new(app).file_name() == Some(OsStr::new("server.toml"));
        match (typed.iter().find(is_server), typed.len()) {
            (Some(file), 1) => {
                only_of_the_process(matches)?;
                let file = PathBuf::from(file);
                let config = load_server(&file, &variable)?;
                groups::check_users(&file, &config)?;
                Ok(What::Server(file, Box::new(config)))
            }
            (Some(_), _) => Err(Failure::Usage(
                "server.toml is served alone\nhint: name its apps in its own `apps`".to_owned(),
            )),
            (None, _) => Ok(What::Apps(loaders::choose_all(matches)?)),
        }
    }

    /// Tells what does not count of another server's options.
    fn remark(&self, log: &Log) {
        let What::Apps(apps) = self else {
            return;
        };
        for (_, Chosen { label, remarks, .. }) in apps {
            for remark in remarks.iter().filter(|remark| remark.is_warning) {
                log.note(format_args!("{}", remark.text));
            }
            let others = remarks.iter().filter(|remark| !remark.is_warning).count();
            if others > 0 {
                log.note(format_args!(
                    "{label}: {others} options are not needed here; wasgi import {label} tells why"
                ));
            }
        }
    }

    /// `[server]`, and what messages call the file.
    fn process(&self) -> (&Process, &str) {
        match self {
            What::Apps(apps) => (&apps[0].1.config.process, &apps[0].1.label),
            What::Server(file, config) => (&config.process, file.to_str().unwrap_or("server.toml")),
        }
    }

    fn logging(&self) -> (&Logging, Option<&Tracing>) {
        match self {
            What::Apps(apps) => (&apps[0].1.config.log, apps[0].1.config.trace.as_ref()),
            What::Server(_, config) => (&config.log, config.trace.as_ref()),
        }
    }
}

/// An operator's file says for each app what options would say of one.
fn only_of_the_process(matches: &ArgMatches) -> Result<(), Failure> {
    const OF_THE_PROCESS: [&str; 3] = ["APP", "pidfile", "python-dir"];
    let typed = |id: &&Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let is_other = |id: &&Id| !OF_THE_PROCESS.contains(&id.as_str());
    match matches.ids().find(|id| typed(id) && is_other(id)) {
        None => Ok(()),
        Some(id) => Err(Failure::Usage(format!(
            "--{id}: does not go with server.toml\n\
             hint: write it there: [listen], [log], or [defaults] for what an app.toml does not say"
        ))),
    }
}

/// What a server starts with.
struct Start<'a> {
    matches: &'a ArgMatches,
    inherited: Inherited,
    guests: Handle,
    /// The engine, once there is one.
    made: &'a OnceLock<Engine>,
    process: Process,
    logging: Logging,
    log: Log,
    fifo: Option<File>,
}

impl Start<'_> {
    /// Binds all sockets, as root perhaps, and goes on as the user that is to serve: what the apps touch is touched by it.
    async fn open(
        &mut self,
        mut listen: Listen,
        admin: &wasgi_config::Admin,
    ) -> Result<(Vec<Listener>, AdminListeners, Service, Workshop), Failure> {
        let user = self.process.user.as_ref();
        let owner = user.map(|user| Owner {
            shown: user.shown.clone(),
            uid: Some(user.uid),
            gid: Some(user.gid),
        });
        // As if the user had bound them.
        listen.sockets.owner = listen.sockets.owner.or(owner.clone());
        let listeners = listen::listen(&listen, &mut self.inherited).await?;
        let doors = listen::listen_for_admin(admin, owner, &mut self.inherited).await?;
        let sockets = listeners.iter().chain(doors.iter());
        let service = Service::prepare(self.matches, &self.process, sockets, &self.log)?;
        if let Some(path) = &self.process.fifo {
            let opened = steering::open(path, user);
            self.fifo = Some(opened.with_context(|| format!("cannot make the fifo {}", path.display()))?);
        }
        privileges::give_up_root(&self.process, &service, &self.logging, &self.log)?;
        let workshop = Workshop {
            engine: interpreter::engine(self.matches, user)?,
            log: self.log.clone(),
        };
        let _ = self.made.set(workshop.engine.clone());
        Ok((listeners, doors, service, workshop))
    }

    /// Serves apps whose owner starts them: all that is wrong with any is told before a socket opens, and one that does not
    /// start is the end, if it is alone.
    async fn serve_apps(mut self, chosen: Vec<(PathBuf, Chosen)>) -> Result<(), Failure> {
        let mut listen = chosen[0].1.config.listen.clone();
        for (_, Chosen { config, .. }) in &chosen[1..] {
            listen.add(&config.listen);
        }
        // Before the app starts: an address that is taken should be told at once.
        let admin = &chosen[0].1.config.admin;
        let (listeners, doors, service, workshop) = self.open(listen, admin).await?;
        let loader = Named::new(self.matches, workshop);
        let mut stop = signals::first(self.log.clone()).context("cannot wait for signals")?;
        let apps: Vec<_> = chosen
            .iter()
            .map(|(file, Chosen { label, config, .. })| Ok((file, label, loader.loaded(config)?)))
            .collect::<Result<_, StaticError>>()
            .map_err(anyhow::Error::from)?;
        let server = Server::new(chosen[0].1.config.limits.clone(), self.log.clone());
        if let Some(proxy) = &chosen[0].1.config.proxy {
            server.trust(proxy.clone());
        }
        let admin = Admin::open(doors, token(admin), &server);
        let budget = Budget::new(None);
        let fleet = Fleet::new(loader, server.clone(), budget, self.guests.clone(), cores());
        let alone = apps.len() == 1;
        for (file, label, loaded) in apps {
            let started = tokio::select! {
                started = fleet.admit(file, loaded) => started,
                _ = &mut stop => return Ok(()),
            };
            match started {
                Err(error) if alone => return Err(hosted::not_started(label, error)),
                Ok(()) | Err(_) => {}
            }
        }
        self.run(listeners, server, fleet, service, stop).await?;
        admin.end().await;
        Ok(())
    }

    /// Serves the apps of many owners. None of them is a reason not to serve the others.
    async fn serve_server(mut self, file: PathBuf, config: ServerConfig) -> Result<(), Failure> {
        let log = self.log.clone();
        let (listeners, doors, service, workshop) = self.open(config.listen.clone(), &config.admin).await?;
        let stop = signals::first(log.clone()).context("cannot wait for signals")?;
        let server = Server::new(config.limits.clone(), log.clone());
        if let Some(proxy) = &config.proxy {
            server.trust(proxy.clone());
        }
        let admin = Admin::open(doors, token(&config.admin), &server);
        let budget = Budget::new(config.memory);
        let builders = config.builders.unwrap_or_else(cores);
        let loader = Operator::new(file, config, workshop);
        let fleet = Fleet::new(loader, server.clone(), budget, self.guests.clone(), builders);
        fleet.open().await;
        let (sweeping, begun) = (fleet.clone(), Instant::now());
        tokio::spawn(async move {
            let (apps, failed) = sweeping.sweep().await;
            let seconds = begun.elapsed().as_secs_f64();
            log.note(format_args!(
                "{apps} apps looked at in {seconds:.1} s, {failed} failed"
            ));
        });
        self.run(listeners, server, fleet, service, stop).await?;
        admin.end().await;
        Ok(())
    }

    async fn run<L: Loader>(
        self,
        listeners: Vec<Listener>,
        server: Arc<Server<L::Runner>>,
        fleet: Arc<Fleet<L>>,
        service: Service,
        stop: oneshot::Receiver<()>,
    ) -> Result<(), Failure> {
        let mut hangups = signal(SignalKind::hangup()).context("cannot wait for signals")?;
        service.ready(self.inherited)?;
        let (reloaded, notify) = (fleet.clone(), service.notify());
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                notify.reloading();
                reloaded.reload_all().await;
                notify.ready("serving");
            }
        });
        if let Some(fifo) = self.fifo {
            tokio::spawn(steering::obey(fifo, self.log.clone()));
        }
        if !self.process.touch_reload.is_empty() {
            tokio::spawn(steering::watch(self.process.touch_reload, self.log));
        }
        tokio::spawn(fleet.watch());
        wasgi_server::run(listeners, server, service.end(async { _ = stop.await })).await;
        Ok(())
    }
}

fn token(admin: &wasgi_config::Admin) -> Option<Token> {
    admin.token.as_ref().map(|token| Token::new(&token.value))
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Lets this process open as many files as it may be allowed to: connections and the files of every instance count
/// against one limit, which starts low for the sake of programs that use select().
fn raise_open_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Going on with what there is: the limit is told by whoever meets it.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

fn cannot_log(log: &Logging) -> String {
    match &log.file {
        Some(file) => format!("cannot write to the log file {}", file.display()),
        None => "cannot start the log".to_owned(),
    }
}
