//! `wasgi check`: would it be served?

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{ArgMatches, Command};
use wasgi_server::{AccessFormat, Log, Threads};

use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::serve::LAST_LINES;
use crate::{app_options, hosted, interpreter, spec};

const EXAMPLES: &str = "\
Examples:
  wasgi check                     app.toml of this folder
  wasgi check shop/app.toml
  wasgi check hello:app --root src

All mistakes of app.toml are told at once, with their lines (exit code 2). If there are none, the app is
imported as it would be to serve it; what it prints goes to standard error (exit code 1 if it fails).";

pub(crate) fn command() -> Command {
    let command =
        Command::new("check").about("Read the configuration, import the app, and say whether both are well");
    app_options::add(command)
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Chosen { label, config } = app_options::choose(matches)?;
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches)?;
    let app = interpreter::app(&engine, spec::spec(&config), log.app(&config.app.name))?;
    let threads = Threads::start().context("cannot start")?;
    let begun = Instant::now();
    let started = threads.block_on(app.start());
    // What the app said comes before what is said of it.
    log.flush(LAST_LINES);
    match started {
        Ok(_) => {
            let (name, seconds) = (&config.app.name, begun.elapsed().as_secs_f64());
            println!("{label}: ok (app {name} imported in {seconds:.1} s)");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(hosted::not_started(&label, error)),
    }
}
