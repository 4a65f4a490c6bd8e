//! `wasgi reload`, `rollback`, `drain`, `resume`, `logs` and `kill`: asked of a running server.

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::admin::{self, Admin};
use crate::failure::Failure;

/// Each command of one app, and what it does.
const COMMANDS: [(&str, &str); 5] = [
    (
        "reload",
        "Load an app anew, beside what runs; it takes over once it answers",
    ),
    (
        "rollback",
        "Have an app's load before the present one answer again",
    ),
    ("drain", "Have an app take no requests; those that run finish"),
    ("resume", "Have an app take requests again"),
    ("logs", "Show the last lines of an app's log"),
];

const KILL: &str = "\
Examples:
  wasgi ps                        shows what runs, with ids
  wasgi kill 5k2j9x27qabc         as ps, the log and the client's error page have it
  wasgi kill shop/5k2j9x27qabc    the app named as well

It ends as at its time limit: the app gets an exception, wasgi.Killed, `finally` blocks run and the traceback is
logged; the client gets a 503 with the id, or a cut connection if the reply had begun. A second later the worker is
stopped if it still runs. Other requests go on.";

/// All of them.
pub(crate) fn commands() -> impl Iterator<Item = Command> {
    let of_apps = COMMANDS.into_iter().map(|(name, about)| {
        let command = Command::new(name)
            .about(about)
            .arg(
                Arg::new("APP")
                    .required(true)
                    .help("The app's name, as the log has it"),
            )
            .arg(admin::option());
        match name {
            "logs" => command.arg(
                Arg::new("follow")
                    .long("follow")
                    .short('f')
                    .action(ArgAction::SetTrue)
                    .help("Go on with lines as they come"),
            ),
            _ => command,
        }
    });
    let kill = Command::new("kill")
        .about("End one running request, as its time limit would")
        .arg(
            Arg::new("ID")
                .required(true)
                .value_name("[APP/]ID")
                .help("The request's id"),
        )
        .arg(admin::option())
        .after_help(KILL);
    of_apps.chain([kill])
}

/// Runs one of them, if `name` is one.
pub(crate) fn run(name: &str, matches: &ArgMatches) -> Option<Result<ExitCode, Failure>> {
    let (method, target) = match name {
        "kill" => {
            let id = matches.get_one::<String>("ID").map_or("", String::as_str);
            ("POST", format!("/kill?{id}"))
        }
        _ if !COMMANDS.iter().any(|(other, _)| *other == name) => return None,
        _ => {
            let app = matches.get_one::<String>("APP").map_or("", String::as_str);
            match name {
                "logs" if matches.get_flag("follow") => ("GET", format!("/apps/{app}/log?follow")),
                "logs" => ("GET", format!("/apps/{app}/log")),
                _ => ("POST", format!("/apps/{app}/{name}")),
            }
        }
    };
    Some(match show(&Admin::of(matches), method, &target) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::Failed(error, None)),
    })
}

/// Copies the answer's body to standard output as it comes.
fn show(admin: &Admin, method: &str, target: &str) -> anyhow::Result<()> {
    let mut reply = admin.ask(method, target)?;
    io::copy(&mut reply, &mut io::stdout().lock()).context("cannot write")?;
    Ok(())
}
