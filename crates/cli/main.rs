//! The `wasgi` command: serves Python web applications from inside WebAssembly.
//!
//! One file for each command. Exit codes: 0 done, 1 the app or its surroundings failed, 2 the configuration or the
//! command line is wrong.

mod admin;
mod app_options;
mod build;
mod builds;
mod cgi;
mod check;
mod check_isolation;
mod columns;
mod control;
mod daemon;
mod dev;
mod difference;
mod elsewhere;
mod failure;
mod groups;
mod hosted;
mod import;
mod interpreter;
mod listen;
mod loaders;
mod privileges;
mod progress;
mod ps;
mod python;
mod serve;
mod service;
mod signals;
mod spec;
mod steering;
mod terminal;
mod top;

use std::env;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use crate::failure::Failure;

const ABOUT: &str =
    "Serves ordinary Python web applications (WSGI: Flask, Django, ...) inside a WebAssembly sandbox";

const EXAMPLES: &str = "\
Start with:
  wasgi serve app.toml      serve what app.toml describes
  wasgi serve hello:app     serve `app` of hello.py in this folder
  wasgi dev hello:app       the same while you write it: reloads, shows tracebacks
  wasgi serve server.toml   serve the apps of many owners, as server.toml says
  wasgi serve uwsgi.ini     serve what a file of uWSGI's describes; see also wasgi uwsgi, wasgi gunicorn
  wasgi check app.toml      find out whether it would be served
  wasgi help serve          all options, with examples

Exit codes: 0 done, 1 the app or its surroundings failed, 2 wrong configuration or usage";

fn command() -> Command {
    Command::new("wasgi")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .disable_version_flag(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Name the versions of wasgi, CPython and wasmtime"),
        )
        .subcommand(serve::command())
        .subcommand(dev::command())
        .subcommand(cgi::command())
        .subcommand(check::command())
        .subcommand(build::command())
        .subcommand(python::command())
        .subcommand(top::command())
        .subcommand(ps::command())
        .subcommand(import::command())
        .subcommands(elsewhere::commands())
        .subcommands(control::commands())
}

fn main() -> ExitCode {
    if env::args_os()
        .nth(1)
        .is_some_and(|word| word == wasgi_group::COMMAND)
    {
        return wasgi_group::serve();
    }
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("dev", matches)) => dev::run(matches),
        Some(("cgi", matches)) => cgi::run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("build", matches)) => build::run(matches),
        Some(("python", matches)) => python::run(matches),
        Some(("top", matches)) => top::run(matches),
        Some(("ps", matches)) => ps::run(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("uwsgi" | "gunicorn", matches)) => serve::run(matches),
        Some((name, matches)) if let Some(result) = control::run(name, matches) => result,
        _ => {
            println!("{}", interpreter::versions());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|failure: Failure| {
        eprintln!("{failure}");
        failure.exit_code()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
