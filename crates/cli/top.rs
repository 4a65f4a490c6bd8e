//! `wasgi top`: the apps of a running server, as they do.

mod figures;
mod table;

use std::io::{self, Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};
use wasgi_server::ascii_json;

use crate::admin::{self, Admin};
use crate::failure::Failure;
use crate::terminal::{self, Screen};
use figures::{Figures, Looks};
use table::Sort;

const SECOND: Duration = Duration::from_secs(1);

const MEANING: &str = "\
Columns: requests and errors (5xx) a second; latencies of the last ten seconds, of half the requests and of 99 in
100; requests that run and that wait; CPU in percent of one core; memory of the instances and how many there are;
since the server's start, instances that had to import the app (cold) and those that were killed.

On a terminal it goes on until you press q; keys choose what it sorts by. Elsewhere it looks twice, a second apart,
and prints once, with latencies since the server's start.

Examples:
  wasgi top --sort cpu
  wasgi top --once | head
  wasgi top --json | python3 -m json.tool";

pub(crate) fn command() -> Command {
    let names = Sort::ALL.map(|(_, _, name)| name);
    Command::new("top")
        .about("Watch the apps of a running server: requests/s, latency, queue, CPU, memory")
        .arg(
            Arg::new("sort")
                .long("sort")
                .value_name("KEY")
                .value_parser(PossibleValuesParser::new(names))
                .default_value("requests")
                .help("What comes first"),
        )
        .arg(
            Arg::new("once")
                .long("once")
                .action(ArgAction::SetTrue)
                .help("Print once and end, as without a terminal"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print once, as JSON"),
        )
        .arg(admin::option())
        .after_help(MEANING)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let admin = Admin::of(matches);
    let sort = matches
        .get_one::<String>("sort")
        .and_then(|name| Sort::named(name));
    let sort = sort.unwrap_or(Sort::Requests);
    let json = matches.get_flag("json");
    if matches.get_flag("once") || json || !terminal::is_there() {
        once(&admin, sort, json)?;
    } else {
        watch(&admin, sort)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn once(admin: &Admin, sort: Sort, json: bool) -> anyhow::Result<()> {
    let mut looks = Looks::default();
    looks.add(Instant::now(), admin.figures("/apps")?);
    sleep(SECOND);
    let mut since_start = Looks::default();
    let (now, apps) = (Instant::now(), admin.figures("/apps")?);
    since_start.add(now, apps.clone());
    looks.add(now, apps);
    let mut apps = looks.figures();
    for (app, all) in apps.iter_mut().zip(since_start.figures()) {
        (app.half, app.most) = (all.half, all.most);
    }
    table::sort(&mut apps, sort);
    let text = match json {
        true => ascii_json(&apps.iter().map(Figures::json).collect::<Value>()),
        false => table::table(&apps, usize::MAX).join("\n"),
    };
    writeln!(stdout(), "{text}").context("cannot write")
}

/// Until the user has seen enough.
fn watch(admin: &Admin, mut sort: Sort) -> anyhow::Result<()> {
    let mut looks = Looks::default();
    // Without a server there is nothing to open a screen for.
    looks.add(Instant::now(), admin.figures("/apps")?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut resized = signal(SignalKind::window_change())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let screen = Screen::open().context("cannot set the terminal")?;
        let mut keys = keys().context("cannot wait for keys")?;
        let mut seconds = interval(SECOND);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut problem = None;
        loop {
            let mut apps = looks.figures();
            table::sort(&mut apps, sort);
            let lines = table::screen(&apps, sort, problem.as_deref(), terminal::size());
            screen.show(&lines).context("the terminal is gone")?;
            tokio::select! {
                _ = seconds.tick() => match admin.figures("/apps") {
                    Ok(apps) => {
                        looks.add(Instant::now(), apps);
                        problem = None;
                    }
                    // It may come back.
                    Err(error) => problem = Some(format!("{error:#}")),
                },
                key = keys.recv() => match key.map(char::from) {
                    // Control-C and Control-D are keys here. Without any, nobody looks.
                    Some('q' | 'Q' | '\u{3}' | '\u{4}') | None => return Ok(()),
                    Some(key) => sort = Sort::of_key(key).unwrap_or(sort),
                },
                _ = resized.recv() => {}
                _ = terminate.recv() => return Ok(()),
                _ = hangup.recv() => return Ok(()),
            }
        }
    })
}

/// Keys as they are pressed; nothing more when there is nobody to press them.
fn keys() -> io::Result<UnboundedReceiver<u8>> {
    let (to, from) = unbounded_channel();
    // Ends with the process: a read that waits cannot be called off.
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        for key in stdin().lock().bytes().map_while(Result::ok) {
            if to.send(key).is_err() {
                return;
            }
        }
    })?;
    Ok(from)
}
