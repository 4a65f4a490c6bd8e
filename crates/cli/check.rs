//! `wasgi check`: would it be served?

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::{ArgMatches, Command};

use crate::failure::Failure;
use crate::{app_options, interpreter, spec};

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
    let chosen = app_options::choose(matches)?;
    let engine = interpreter::engine(matches)?;
    let app = engine
        .app(spec::spec(&chosen.config), Arc::new(crate::stderr_log::StderrLog))
        .context("cannot start Python")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let begun = Instant::now();
    match runtime.block_on(app.start()) {
        Ok(_) => {
            let (config, seconds) = (&chosen.config, begun.elapsed().as_secs_f64());
            println!(
                "{}: ok ({} imported in {seconds:.1} s)",
                chosen.label, config.app.name
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Failure::Failed(anyhow!(error).context(chosen.label))),
    }
}
