//! `wasgi dev`: one worker, loaded anew when a file changes, and what goes wrong is shown in the terminal and the browser.

mod files;
mod tracebacks;

use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::Handle;
use tokio::time::sleep;
use wasgi_config::Config;
use wasgi_engine::Engine;
use wasgi_server::{
    AccessFormat, Budget, Ending, Generation, Inherited, Log, Pool, Routes, Server, Site, StaticFiles,
    Threads, Workers,
};

use self::files::Files;
use self::tracebacks::Tracebacks;
use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::hosted::{Here, Hosted};
use crate::loaders::wear;
use crate::serve::LAST_LINES;
use crate::{app_options, interpreter, listen, signals, spec};

/// Between two looks at the app's files.
const LOOK: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  wasgi dev hello:app           the object `app` of hello.py in this folder
  wasgi dev                     app.toml of this folder
  wasgi dev shop/app.toml --http 127.0.0.1:5000

One worker. When a file below the app's root changes the app is loaded anew; requests that run finish with the old one.
Tracebacks are shown in the terminal and in the browser, with the source: never let others use such a server.";

pub(crate) fn command() -> Command {
    let command = Command::new("dev").about("Serve an app while you write it: reloads, and shows tracebacks");
    app_options::add(command)
        .arg(
            Arg::new("http")
                .long("http")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("Where to listen [default: 127.0.0.1:8000]")
                .help_heading("Listen"),
        )
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let chosen = app_options::choose(matches)?;
    let log = Log::to_stderr(AccessFormat::Combined).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let threads = Threads::start().context("cannot start the server's threads")?;
    let served = threads.block_on(develop(matches, chosen, &engine, &log, threads.guests()));
    threads.end();
    engine.end();
    log.flush(LAST_LINES);
    served.map(|()| ExitCode::SUCCESS)
}

async fn develop(
    matches: &ArgMatches,
    Chosen { config, .. }: Chosen,
    engine: &Engine,
    log: &Log,
    guests: Handle,
) -> Result<(), Failure> {
    let listeners = listen::listen(&config.listen, &mut Inherited::default()).await?;
    let stop = signals::first(log.clone()).context("cannot wait for signals")?;
    let tracebacks = Arc::new(Tracebacks::new(config.app.root.clone()));
    let site = Site::new(&config.app.name);
    let server = Server::new(config.limits.clone(), log.clone());
    if let Some(proxy) = &config.proxy {
        server.trust(proxy.clone());
    }
    server.show_errors(tracebacks.clone());
    let routes = config.app.routes.iter().cloned();
    server.set_routes(Routes::new(routes.map(|route| (route, Arc::clone(&site)))));
    let app = Developed {
        matches,
        engine,
        log,
        guests,
        tracebacks,
        site,
    };
    tokio::select! {
        never = app.reload(config) => match never {},
        () = wasgi_server::run(listeners, server, async {
            _ = stop.await;
            Ending::Stop
        }) => Ok(()),
    }
}

struct Developed<'a> {
    matches: &'a ArgMatches,
    engine: &'a Engine,
    log: &'a Log,
    guests: Handle,
    tracebacks: Arc<Tracebacks>,
    site: Arc<Site<Hosted>>,
}

impl Developed<'_> {
    /// Loads the app, and again whenever one of its files changes.
    async fn reload(&self, mut config: Config) -> Infallible {
        loop {
            let look = || {
                let written = config.files.iter().filter(|grant| grant.write);
                let written: Vec<PathBuf> = written.map(|grant| grant.path.clone()).collect();
                Files::look(&config.app.root, &written)
            };
            // Before the load: what changes during it is a reason for the next.
            let before = look();
            self.load(&config).await;
            loop {
                sleep(LOOK).await;
                let now = look();
                if let Some(path) = now.changed(&before) {
                    let shown = path.strip_prefix(&config.app.root).unwrap_or(path);
                    self.log.note(format_args!("{} has changed", shown.display()));
                    break;
                }
            }
            // app.toml may be what has changed.
            match app_options::choose(self.matches) {
                Ok(chosen) => config = chosen.config,
                Err(failure) => self.log.error(format_args!("{failure}")),
            }
        }
    }

    async fn load(&self, config: &Config) {
        self.tracebacks.forget_loads();
        let begun = Instant::now();
        let hosted = Hosted::Here(Here {
            app: self.engine.app(spec::spec(config), self.tracebacks.clone()),
            isolation: config.app.isolation,
            verify_rewind: config.app.verify_rewind,
        });
        let (workers, budget) = (Workers::always(1, 1), Budget::new(None));
        let wear = wear(&config.app);
        let (log, guests) = (self.log.clone(), self.guests.clone());
        match Pool::start(hosted, workers, wear, &config.limits, &budget, log, guests).await {
            Ok(pool) => {
                let statics = match StaticFiles::open(&config.statics) {
                    Ok(statics) => statics,
                    Err(error) => {
                        self.log.error(format_args!("{error}"));
                        StaticFiles::default()
                    }
                };
                let (limits, compress) = (config.limits.clone(), config.compress.clone());
                self.site.serve(Generation::new(pool, limits, statics, compress));
                let (name, seconds) = (&config.app.name, begun.elapsed().as_secs_f64());
                self.log.note(format_args!(
                    "app {name} is loaded ({seconds:.1} s); it is loaded anew when a file changes"
                ));
            }
            Err(error) => {
                self.site.fail(&error.to_string());
                self.log
                    .error(format_args!("{error}; it is tried again when a file changes"));
            }
        }
    }
}
