//! `wasgi cgi`: one request of a web server that starts a program for each.

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use wasgi_config::{AccessFormat, Config, LogTo, Overrides, load};
use wasgi_server::{
    Budget, Generation, Loaded, Log, Pool, Routes, Server, Site, Threads, Workers, answer_cgi, is_of_request,
};

use crate::failure::Failure;
use crate::hosted;
use crate::interpreter;
use crate::loaders::{Workshop, variable};
use crate::serve::LAST_LINES;

const EXAMPLES: &str = "\
A web server starts it, with the request in the environment (RFC 3875) and on standard input; the reply is written
to standard output, and what is to be told to standard error, which is the web server's error log.

The file may be the program itself. Its first line is a comment to TOML:

  #!/usr/bin/env -S wasgi cgi
  [app]
  module = \"hello:app\"
  snapshot-cache = true      # else each request imports the app

Of what follows FILE nothing is read: a web server hands on words of the query there, which are the client's.";

pub(crate) fn command() -> Command {
    Command::new("cgi")
        .about("Answer one request as a CGI program")
        .arg(
            // Takes all that follows, so that no option is found there.
            Arg::new("FILE")
                .help("The app.toml, whatever it is called")
                .required(true)
                .action(ArgAction::Append)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString)),
        )
        .arg(interpreter::option())
        .override_usage("wasgi cgi [OPTIONS] FILE")
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    if env::var_os("REQUEST_METHOD").is_none() {
        return Err(Failure::Usage(
            "wasgi cgi is for a web server to start: the environment has no REQUEST_METHOD\n\
             hint: wasgi serve, for a server of its own"
                .to_owned(),
        ));
    }
    let answered = answer(matches);
    if answered.is_err() {
        // The web server's own page would do, but not all have one. If it is gone there is nobody to tell.
        let _ = std::io::stdout().write_all(
            b"Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n500 Internal Server Error\n",
        );
    }
    answered
}

fn answer(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let file: Option<PathBuf> = matches.get_one::<OsString>("FILE").map(PathBuf::from);
    let file = file.unwrap_or_default();
    let mut config = load(Some(&file), &Overrides::default(), &of_the_process)?;
    if config.log.file.is_none() && config.log.to == LogTo::Stderr {
        // The web server has an access log, and this would be its error log.
        config.log.access = AccessFormat::Off;
    }
    let log = Log::start(&config.log).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let workshop = Workshop {
        engine,
        log: log.clone(),
    };
    let here = |spec, lines| workshop.here(&config, spec, lines);
    let loaded = workshop.load(&config, |_, _| Workers::always(1, 1), false, here);
    let loaded = loaded.map_err(anyhow::Error::from)?;
    let threads = Threads::start().context("cannot start")?;
    let answered = threads.block_on(answer_one(&file, config, loaded, &log, threads.guests()));
    threads.end();
    log.flush(LAST_LINES);
    answered
}

async fn answer_one(
    file: &Path,
    config: Config,
    loaded: Loaded<hosted::Hosted>,
    log: &Log,
    guests: Handle,
) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let (budget, limits) = (Budget::new(None), loaded.limits);
    let pool = Pool::start(
        loaded.runner,
        loaded.workers,
        loaded.wear,
        &limits,
        &budget,
        log.clone(),
        guests,
    );
    let pool = match pool.await {
        Ok(pool) => pool,
        Err(error) => return Err(hosted::not_started(&file.display().to_string(), error)),
    };
    let site = Site::new(&config.app.name);
    let generation = Generation::new(pool, limits.clone(), loaded.statics, loaded.compress);
    site.serve(generation);
    let server = Server::new(limits, log.clone());
    if let Some(proxy) = config.proxy {
        server.trust(proxy);
    }
    let routes = loaded.routes.into_iter();
    server.set_routes(Routes::new(routes.map(|route| (route, Arc::clone(&site)))));
    let variables: Vec<_> = env::vars_os().collect();
    // Apache ends a program so whose client is gone.
    let given_up = async { _ = terminate.recv().await };
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    match answer_cgi(&variables, input, output, &server, given_up).await {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// A variable of the host's environment that no client has a hand in.
fn of_the_process(name: &str) -> Option<String> {
    variable(name).filter(|_| !is_of_request(name.as_bytes()))
}
