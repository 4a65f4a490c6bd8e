//! `wasgi check`: would it be served?

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use wasgi_server::{AccessFormat, Log, Threads};

use crate::app_options::Chosen;
use crate::failure::Failure;
use crate::serve::LAST_LINES;
use crate::{app_options, check_isolation, hosted, interpreter, listen, spec};

const EXAMPLES: &str = "\
Examples:
  wasgi check                     app.toml of this folder
  wasgi check shop/app.toml
  wasgi check hello:app --root src
  wasgi check uwsgi.ini           and which of its options do not count here, with the reason
  wasgi check --isolation --path / --path /list?page=1

All mistakes of app.toml are told at once, with their lines (exit code 2). If there are none, the app is
imported as it would be to serve it; what it prints goes to standard error (exit code 1 if it fails).

With --isolation it is also asked for its warm-up paths, or those of --path, twenty times each: by a worker that
goes from request to request, and from a fresh start each time. A path whose replies depend on what requests leave
in memory is told, with the first difference (exit code 1). What the app writes to the folders of [files] is kept.";

pub(crate) fn command() -> Command {
    let command =
        Command::new("check").about("Read the configuration, import the app, and say whether both are well");
    app_options::add(command)
        .mut_arg("isolation", |_| {
            Arg::new("isolation")
                .long("isolation")
                .action(ArgAction::SetTrue)
                .help("Find out whether the app would answer differently with isolation = \"request\"")
        })
        .arg(
            Arg::new("path")
                .long("path")
                .value_name("PATH")
                .action(ArgAction::Append)
                .requires("isolation")
                .help("With --isolation, ask for this path; may be repeated [default: the warm-up paths, else /]"),
        )
        .arg(interpreter::option())
        .after_help(EXAMPLES)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let chosen = app_options::choose(matches)?;
    if matches.get_flag("isolation") {
        return check_isolation::run(matches, &chosen);
    }
    let Chosen {
        label,
        config,
        remarks,
    } = chosen;
    for remark in remarks {
        println!("{}", remark.text);
    }
    listen::certificates(&config.listen)?;
    let log = Log::to_stderr(AccessFormat::Off).context("cannot start the log")?;
    let engine = interpreter::engine(matches, None)?;
    let app = engine.app(spec::spec(&config), log.app(&config.app.name));
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
