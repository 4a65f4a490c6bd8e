//! `wasgi serve`: the server.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::Handle;
use wasgi_config::{AccessFormat, Isolation, Logging};
use wasgi_engine::Engine;
use wasgi_server::{
    Budget, Generation, Inherited, Log, Pool, Routes, Server, Site, StaticFiles, Threads, Workers,
};

use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::hosted::Hosted;
use crate::service::{self, Service};
use crate::{app_options, hosted, interpreter, listen, signals, spec};

/// How long a slow terminal or pipe may take over the last lines of the log.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  wasgi serve                              app.toml of this folder
  wasgi serve shop/app.toml --http 127.0.0.1:0
  wasgi serve hello:app                    the object `app` of hello.py in this folder
  wasgi serve hello:app --root src --http 127.0.0.1:8000 --workers 2 --time 30s --memory 256MiB
  wasgi serve wsgi.py --venv venv          the object `application` of wsgi.py
  wasgi serve notes:app --dir ./data::/data:rw --env DATABASE=/data/notes.db
  wasgi serve hello:app --http unix:/run/hello.sock --access-log off
  wasgi serve hello:app --http systemd     on the sockets of a systemd socket unit

Options win over the file. SIGTERM and Ctrl-C let running requests finish (see --stop-time); a second
one ends at once. SIGUSR2 starts a new process of the same command, on the same sockets, and ends this
one as SIGTERM does once the new one serves.";

pub(crate) fn command() -> Command {
    let command = Command::new("serve").about("Serve an app over HTTP");
    app_options::add(command)
        .arg(
            Arg::new("http")
                .long("http")
                .value_name("ADDRESS")
                .action(ArgAction::Append)
                .help("Where to listen: 127.0.0.1:8000, [::1]:8000, unix:/run/hello.sock; port 0 for any free one; may be repeated [default: 127.0.0.1:8000]")
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
    let chosen = app_options::choose(matches)?;
    // Before there are threads.
    let inherited = Inherited::take().context("cannot take over the sockets handed over")?;
    let log = Log::start(&chosen.config.log).with_context(|| cannot_log(&chosen.config.log))?;
    if let Some(tracing) = &chosen.config.trace {
        log.trace(tracing).context("cannot start sending traces")?;
    }
    let engine = interpreter::engine(matches)?;
    let threads = Threads::start().context("cannot start the server's threads")?;
    let served = threads.block_on(serve(
        matches,
        &chosen,
        inherited,
        &engine,
        &log,
        threads.guests(),
    ));
    threads.end();
    log.flush(LAST_LINES);
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(
    matches: &ArgMatches,
    Chosen { label, config }: &Chosen,
    mut inherited: Inherited,
    engine: &Engine,
    log: &Log,
    guests: Handle,
) -> Result<(), Failure> {
    raise_open_files();
    // Before the app starts: an address that is taken should be told at once.
    let listeners = listen::listen(&config.listen, &mut inherited).await?;
    let service = Service::prepare(matches, &listeners, log)?;
    let mut stop = signals::first(log.clone()).context("cannot wait for signals")?;
    let lines = log.app_within(&config.app.name, Some(config.limits.log_rate));
    let app = engine.app(spec::spec(config), lines);
    let (isolation, started) = (config.app.isolation, config.app.workers);
    let most = match isolation {
        Isolation::Worker => started,
        Isolation::Request => config.limits.concurrency.max(started),
    };
    let (workers, max_requests) = (Workers::always(started, most), config.app.max_requests);
    let budget = Budget::new(None);
    let hosted = Hosted {
        app,
        isolation,
        verify_rewind: config.app.verify_rewind,
    };
    let pool = tokio::select! {
        pool = Pool::start(hosted, workers, max_requests, &config.limits, &budget, log.clone(), guests) => {
            pool.map_err(|error| hosted::not_started(label, error))?
        }
        _ = &mut stop => return Ok(()),
    };
    let statics = StaticFiles::open(&config.statics).map_err(anyhow::Error::from)?;
    let site = Site::new(&config.app.name);
    site.serve(Generation::new(pool, config.limits.clone(), statics));
    let server = Server::new(config.limits.clone(), log.clone());
    let routes = config.app.routes.iter().cloned();
    server.set_routes(Routes::new(routes.map(|route| (route, Arc::clone(&site)))));
    service.ready(inherited)?;
    wasgi_server::run(listeners, server, service.end(async { _ = stop.await })).await;
    Ok(())
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
