//! The tables on standard output.

use std::io::IsTerminal;

use serde_json::{Map, Value};

use crate::compare::{Compared, Row};
use crate::process::Trouble;
use crate::servers::Server;
use crate::stats::Spread;
use crate::targets::{Outcome, Verdict};

/// What it was measured on.
pub fn machine(machine: &Map<String, Value>) {
    let text = |name: &str| match &machine[name] {
        Value::String(text) => text.clone(),
        Value::Null => "not there".into(),
        other => other.to_string(),
    };
    println!(
        "{}, {} cores, {} GiB, Linux {}, load {} before",
        text("cpu"),
        text("cores"),
        text("memory_gib"),
        text("kernel"),
        text("load_before")
    );
    println!("{} ({})", text("wasgi"), text("wasgi_build"));
    println!(
        "peers on {}: uWSGI {}, Granian {}, Gunicorn {}; Flask {}; {}; {}",
        text("python"),
        text("uwsgi"),
        text("granian"),
        text("gunicorn"),
        text("flask"),
        text("wrk"),
        match &machine["wasmtime"] {
            Value::String(version) => version.clone(),
            _ => "no wasmtime".into(),
        }
    );
    if machine["load_before"].as_f64().is_some_and(|load| load > 0.5) {
        println!("THE MACHINE WAS NOT IDLE: see the spread before believing a figure");
    }
}

/// What is being done, on standard error; nothing when it is done. Lines of a file would only be in the way.
pub fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

/// A table for each app, then one of ratios.
pub fn compared(apps: &[Compared]) {
    for app in apps {
        println!("\n{}: {}", app.name, app.about);
        println!(
            "  {:<16}{:>10} {:>15}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}",
            "", "requests/s", "(min..max)", "p50 ms", "p99 ms", "CPU us", "private", "PSS MB", "cold ms"
        );
        for row in &app.rows {
            print!("  {:<16}", row.server.title());
            match &row.trouble {
                Some(Trouble::Unavailable(why)) => println!("not available: {why}"),
                Some(Trouble::Failed(why)) => println!("FAILED: {why}"),
                None => figures(row),
            }
        }
    }
    println!("\nrequests/s, ratios of the same rounds: median (min..max)");
    for ours in [Server::WasgiWorker, Server::WasgiRequest] {
        ratios(apps, ours);
    }
}

fn figures(row: &Row) {
    let median =
        |figure: fn(&crate::compare::Turn) -> f64| row.spread(figure).map_or(0.0, |spread| spread.median);
    let rate = row.spread(|turn| turn.load.rate).unwrap_or(Spread {
        median: 0.0,
        min: 0.0,
        max: 0.0,
    });
    println!(
        "{:>10.0} {:>15}{:>10.2}{:>10.2}{:>10.0}{:>10.1}{:>10.1}{:>9.0}",
        rate.median,
        format!("({:.0}..{:.0})", rate.min, rate.max),
        median(|turn| turn.load.p50),
        median(|turn| turn.load.p99),
        median(|turn| turn.load.cpu),
        median(|turn| turn.memory.private as f64 / 1e6),
        median(|turn| turn.memory.pss as f64 / 1e6),
        median(|turn| turn.cold_start),
    );
}

fn ratios(apps: &[Compared], ours: Server) {
    let Some(first) = apps.first() else { return };
    let others: Vec<_> = first
        .rows
        .iter()
        .map(|row| row.server)
        .filter(|server| *server != ours)
        .collect();
    if !apps
        .iter()
        .any(|app| others.iter().any(|other| app.ratio(ours, *other).is_some()))
    {
        return;
    }
    print!("  {:<22}", format!("{} /", ours.title()));
    others.iter().for_each(|server| print!("{:>21}", server.title()));
    println!();
    for app in apps {
        print!("    {:<20}", app.name);
        for other in &others {
            let cell = match app.ratio(ours, *other) {
                Some(ratio) => format!("{:.2} ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max),
                None => "-".into(),
            };
            print!("{cell:>21}");
        }
        println!();
    }
}

/// What was aimed at, and what came of it.
pub fn targets(outcomes: &[Outcome]) {
    if outcomes.is_empty() {
        return;
    }
    println!("\ntargets");
    for outcome in outcomes {
        let verdict = match outcome.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Shown => "-",
            Verdict::Unknown => "?",
        };
        println!("  {:<7} {}", verdict, outcome.what);
        println!("          {}", outcome.found);
    }
}
