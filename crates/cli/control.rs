//! `wasgi reload`, `rollback`, `drain`, `resume` and `logs`: asked of a running server over its admin socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;

/// Where the socket is if nothing else is said.
const SOCKET: &str = "/run/wasgi/admin.sock";

/// Each command, and what it does.
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

/// All of them.
pub(crate) fn commands() -> impl Iterator<Item = Command> {
    COMMANDS.into_iter().map(|(name, about)| {
        let command = Command::new(name)
            .about(about)
            .arg(
                Arg::new("APP")
                    .required(true)
                    .help("The app's name, as the log has it"),
            )
            .arg(Arg::new("admin").long("admin").value_name("SOCKET").help(
                "The server's `socket` of [admin] [default: $WASGI_ADMIN, else /run/wasgi/admin.sock]",
            ));
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
    })
}

/// Runs one of them, if `name` is one.
pub(crate) fn run(name: &str, matches: &ArgMatches) -> Option<Result<ExitCode, Failure>> {
    COMMANDS.iter().any(|(other, _)| *other == name).then(|| {
        let app = matches.get_one::<String>("APP").map_or("", String::as_str);
        let (method, target) = match name {
            "logs" if matches.get_flag("follow") => ("GET", format!("/apps/{app}/log?follow")),
            "logs" => ("GET", format!("/apps/{app}/log")),
            _ => ("POST", format!("/apps/{app}/{name}")),
        };
        let named = matches.get_one::<String>("admin").cloned();
        let socket = named.or_else(|| std::env::var("WASGI_ADMIN").ok());
        let socket = socket.unwrap_or_else(|| SOCKET.to_owned());
        match ask(&socket, method, &target) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::Failed(error, None)),
        }
    })
}

/// Copies the answer's body to standard output as it comes.
///
/// # Errors
/// If there is no server, or the answer is that it cannot be done: that then is the error.
fn ask(socket: &str, method: &str, target: &str) -> anyhow::Result<()> {
    if target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        bail!("names of apps are letters, digits, dots, hyphens and underscores");
    }
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no server at {socket}: it listens there with socket = \"{socket}\" under [admin]")
    })?;
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: admin\r\n\r\n").context("the server is gone")?;
    let mut reply = BufReader::new(stream);
    let mut line = String::new();
    reply.read_line(&mut line)?;
    let status: u16 = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("{socket} is not the admin socket of a wasgi server"))?;
    while !matches!(line.as_str(), "" | "\r\n") {
        line.clear();
        reply.read_line(&mut line)?;
    }
    if status >= 400 {
        let mut why = String::new();
        reply.read_to_string(&mut why)?;
        return Err(anyhow!("{}", why.trim_end()));
    }
    let mut out = io::stdout().lock();
    io::copy(&mut reply, &mut out).context("cannot write")?;
    Ok(())
}
