//! `wasgi ps`: the requests of a running server.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use wasgi_server::ascii_json;

use crate::admin::{self, Admin};
use crate::columns::{self, Column};
use crate::failure::Failure;
use crate::terminal;

const MEANING: &str = "\
WHERE a request is:
  queue    no worker has it yet
  start    its worker's instance is being made
  guest    Python or C code runs
  sleep    time.sleep(), select() and their like
  body     until the client sends more of the request's body
  sending  until the client has taken the rest of the reply

CPU is how long its code has run so far, MEMORY that of its worker. Control characters in what clients have sent are
shown as \\x1b. Files that the server sends by itself are not listed.

  wasgi kill ID    ends one of them";

pub(crate) fn command() -> Command {
    Command::new("ps")
        .about("List the requests that run or wait, the oldest first")
        .arg(Arg::new("APP").help("Those of this app alone"))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("As JSON; times in milliseconds, memory in bytes"),
        )
        .arg(admin::option())
        .after_help(MEANING)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut requests = Admin::of(matches).figures("/requests")?;
    if let (Some(app), Value::Array(all)) = (matches.get_one::<String>("APP"), &mut requests) {
        all.retain(|request| request["app"].as_str() == Some(app));
    }
    let text = match matches.get_flag("json") {
        true => format!("{}\n", ascii_json(&requests)),
        false => {
            let width = match stdout().is_terminal() {
                true => terminal::size().0,
                false => usize::MAX,
            };
            table(&requests, width)
        }
    };
    stdout().write_all(text.as_bytes()).context("cannot write")?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 9] = [
    Column::text("APP"),
    Column::text("ID"),
    Column::text("WHERE"),
    Column::number("TIME"),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::number("WORKER"),
    Column::text("PEER"),
    Column::text("REQUEST"),
];

fn table(requests: &Value, width: usize) -> String {
    let rows: Vec<Vec<String>> = requests.as_array().into_iter().flatten().map(row).collect();
    let mut text = columns::lines(&COLUMNS, &rows, width).join("\n");
    text.push('\n');
    text
}

fn row(request: &Value) -> Vec<String> {
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let millis = |key: &str| columns::millis(request[key].as_f64().unwrap_or_default());
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let place = match request["killed"].as_bool() {
        Some(true) => format!("{}, killed", text("where")),
        _ => text("where"),
    };
    vec![
        text("app"),
        text("id"),
        place,
        millis("age_ms"),
        millis("cpu_ms"),
        match request["memory"].as_u64() {
            Some(bytes @ 1..) => columns::bytes(bytes),
            _ => "-".to_owned(),
        },
        request["worker"]
            .as_u64()
            .map_or("-".to_owned(), |number| number.to_string()),
        or_none(text("peer")),
        format!("{} {}", text("method"), text("target")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_a_line_whatever_its_client_calls_itself() {
        let requests = json!([
            {
                "app": "shop", "id": "k3j9x27q", "method": "GET", "target": "/a\x1b[2J\nb", "peer": "10.0.0.7",
                "age_ms": 12_345.6, "worker": 2, "where": "guest", "cpu_ms": 9_000.0, "memory": 41 << 20,
                "killed": false,
            },
            {
                "app": "shop", "id": "k", "method": "POST", "target": "/", "peer": "", "age_ms": 3.0, "worker": null,
                "where": "queue", "cpu_ms": 0.0, "memory": 0, "killed": true,
            },
        ]);
        assert_eq!(
            table(&requests, 200),
            "APP   ID        WHERE           TIME    CPU  MEMORY  WORKER  PEER      REQUEST\n\
             shop  k3j9x27q  guest          12.3s   9.0s   41.0M       2  10.0.0.7  GET /a\\x1b[2J\\nb\n\
             shop  k         queue, killed  3.0ms  0.0ms       -       -  -         POST /\n"
        );
    }
}
