//! Many apps on one server, few of them in use: what they take on disk and in memory, and how long a first reply takes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Outcome, Verdict, verdict};
use crate::client::ask_host;
use crate::options::Options;
use crate::place::Place;
use crate::process::{Launch, REPLY, Running};
use crate::report::progress;
use crate::servers::{environment, free_port};

/// Exec to the first reply of one of the apps, at most.
const START: Duration = Duration::from_secs(5);

/// Private memory of the server while nobody asks, in bytes, at most.
const IDLE: u64 = 100_000_000;

/// Of an app's first request, in milliseconds, at most: the 99th of a hundred.
const FIRST_MS: f64 = 15.0;

/// For a server to read the images of all its apps, which are gigabytes.
const PREPARATION: Duration = Duration::from_secs(300);

/// Requests in all, spread over the apps.
const REQUESTS: usize = 10_000;

/// Clients that make them.
const CLIENTS: usize = 8;

/// After so long without a request an instance goes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn many(place: &Place, options: &Options) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if let Err(why) = measure(place, options, &mut outcomes) {
        outcomes.push(Outcome::unknown(
            format!("{} apps on one server", options.tenants),
            why,
        ));
    }
    outcomes
}

fn measure(place: &Place, options: &Options, outcomes: &mut Vec<Outcome>) -> Result<(), String> {
    let count = options.tenants;
    progress("density: apps");
    let farm = Farm::make(place, options)?;
    progress("density: images");
    outcomes.push(farm.build(place)?);

    progress("density: start");
    let running = farm.start(place)?;
    let took = running.cold_start;
    outcomes.push(Outcome {
        what: format!("{count} apps with images: exec to the first reply within {START:?}"),
        found: format!("{:.0} ms", took.as_secs_f64() * 1e3),
        verdict: verdict(took <= START),
        figures: json!({"ms": took.as_secs_f64() * 1e3}),
    });

    progress("density: first requests");
    outcomes.push(farm.first_requests(&running, "just started")?);
    drop(running);
    let running = farm.start(place)?;
    progress("density: waiting for what the server does ahead of time");
    running.wait_for(" apps looked at in ", PREPARATION)?;
    progress("density: first requests");
    outcomes.push(farm.first_requests(&running, "that has looked at all its apps")?);
    let (used, mappings) = (running.memory(), running.mappings());

    progress("density: requests to all");
    outcomes.push(farm.spread(&running));

    progress("density: idle");
    thread::sleep(2 * IDLE_TIMEOUT);
    let idle = running.memory();
    outcomes.push(Outcome {
        what: format!("{count} apps, all asked before, nobody asks: at most 100 MB of private memory"),
        found: format!(
            "{:.1} MB ({} mappings); {:.1} MB ({mappings} mappings) when each had been asked once",
            idle.private as f64 / 1e6,
            running.mappings(),
            used.private as f64 / 1e6
        ),
        verdict: verdict(idle.private <= IDLE),
        figures: json!({"private": idle.private, "pss": idle.pss, "anonymous": idle.anonymous,
            "mappings": running.mappings(), "private_after_first_requests": used.private,
            "mappings_after_first_requests": mappings}),
    });
    Ok(())
}

/// The apps, in a folder of their own with a cache of their own.
struct Farm {
    folder: PathBuf,
    /// Flask and what it needs.
    packages: PathBuf,
    count: usize,
}

impl Farm {
    fn make(place: &Place, options: &Options) -> Result<Self, String> {
        let kind = if options.own_packages { "own" } else { "shared" };
        let farm = Self {
            folder: place.out.join(format!("density-{kind}")),
            packages: place.packages()?,
            count: options.tenants,
        };
        farm.write(options.own_packages)
            .map_err(|error| format!("{}: {error}", farm.folder.display()))?;
        Ok(farm)
    }

    /// Files that are right already are left alone, and with them the images made of them.
    fn write(&self, own: bool) -> io::Result<()> {
        let tenants = self.folder.join("tenants");
        for entry in fs::read_dir(&tenants).into_iter().flatten() {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("app-")?.parse().ok());
            if number.is_none_or(|number: usize| number >= self.count) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        for number in 0..self.count {
            let folder = tenants.join(name(number));
            fs::create_dir_all(&folder)?;
            let path = if own {
                "packages".into()
            } else {
                self.packages.clone()
            };
            if own && !folder.join("packages").is_dir() {
                link(&self.packages, &folder.join("packages"))?;
            }
            put(
                &folder.join("app.toml"),
                &format!("[app]\nmodule = \"app:app\"\npython-path = [{path:?}]\nwarmup = [\"/\"]\n"),
            )?;
            put(&folder.join("app.py"), &code(number))?;
        }
        Ok(())
    }

    fn command(&self, place: &Place, name: &str, port: u16) -> Result<Launch, String> {
        let file = self.folder.join("server.toml");
        let text = format!(
            "apps = [\"tenants/*/app.toml\"]\nhosts = [\"{{name}}.test\"]\ngrant = [{:?}]\nidle-timeout = \"{}s\"\n\n\
             [listen]\nhttp = \"127.0.0.1:{port}\"\n\n[log]\naccess = \"off\"\n",
            self.packages,
            IDLE_TIMEOUT.as_secs()
        );
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Launch {
            command: vec![place.wasgi.clone().into(), name.into(), file.into()],
            folder: self.folder.clone(),
            env: environment(place),
            port,
            log: place.out.join("logs/density.log"),
        })
    }

    fn build(&self, place: &Place) -> Result<Outcome, String> {
        let launch = self.command(place, "build", 1)?;
        let begun = Instant::now();
        let built = Command::new(&launch.command[0])
            .args(&launch.command[1..])
            .current_dir(&launch.folder)
            .env_clear()
            .envs(launch.env)
            .output()
            .map_err(|error| format!("wasgi build: {error}"))?;
        let time = begun.elapsed();
        let table = String::from_utf8_lossy(&built.stdout).into_owned();
        let last = table.lines().last().unwrap_or("it said nothing").to_owned();
        if !built.status.success() {
            return Err(format!("wasgi build: {last}"));
        }
        let disk = last
            .split("failed; ")
            .nth(1)
            .and_then(|rest| rest.split(" MiB").next()?.parse::<f64>().ok());
        let each = disk.unwrap_or(0.0) / self.count as f64;
        Ok(Outcome {
            what: format!(
                "images of {} apps, made where they are not up to date",
                self.count
            ),
            found: format!("{each:.2} MiB on disk each; {last}"),
            verdict: Verdict::Shown,
            figures: json!({"mib_each": each, "seconds": time.as_secs_f64()}),
        })
    }

    fn start(&self, place: &Place) -> Result<Running, String> {
        let launch = self.command(place, "serve", free_port()?)?;
        let running = launch.start_asking(
            |port| ask_host(port, &host(0), REPLY),
            |reply| match reply.status {
                200 => Ok(()),
                status => Err(format!("status {status}")),
            },
        );
        Ok(running?)
    }

    fn ask(&self, running: &Running, number: usize) -> Result<(), String> {
        let reply =
            ask_host(running.port, &host(number), REPLY).map_err(|error| format!("app {number}: {error}"))?;
        let body = String::from_utf8_lossy(&reply.body);
        match (reply.status, &*body) {
            (200, body) if body == format!("hello from app {number}") => Ok(()),
            (status, body) => Err(format!("app {number}: {status} {body:.100}")),
        }
    }

    /// One request to each app that nobody has asked before.
    fn first_requests(&self, running: &Running, server: &str) -> Result<Outcome, String> {
        let (mut times, cpu) = (Vec::new(), running.cpu());
        for number in 1..self.count {
            let begun = Instant::now();
            self.ask(running, number)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let cpu = (running.cpu() - cpu).as_secs_f64() * 1e3 / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        let [p50, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(at);
        Ok(Outcome {
            what: format!("the first request of an app, of a server {server}: p99 at most {FIRST_MS} ms"),
            found: format!(
                "p99 {p99:.1} ms (p50 {p50:.1}, p90 {p90:.1}, most {most:.1}); the server's CPU meanwhile: {cpu:.1} ms each"
            ),
            verdict: verdict(p99 <= FIRST_MS),
            figures: json!({"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": most, "cpu_ms": cpu}),
        })
    }

    /// Requests to all apps from several clients.
    fn spread(&self, running: &Running) -> Outcome {
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let request = next.fetch_add(1, Ordering::Relaxed);
                        if request >= REQUESTS {
                            return;
                        }
                        // In an order in which neighbours do not come one after the other.
                        if let Err(why) = self.ask(running, request * 7919 % self.count) {
                            failed.fetch_add(1, Ordering::Relaxed);
                            eprintln!("bench: {why}");
                        }
                    }
                });
            }
        });
        let (failed, time) = (failed.into_inner(), begun.elapsed().as_secs_f64());
        Outcome {
            what: format!("{REQUESTS} requests over {} apps: none fails", self.count),
            found: format!("{failed} failed; {:.0} requests/s", REQUESTS as f64 / time),
            verdict: verdict(failed == 0),
            figures: json!({"failed": failed, "seconds": time}),
        }
    }
}

fn name(number: usize) -> String {
    format!("app-{number:05}")
}

fn host(number: usize) -> String {
    format!("{}.test", name(number))
}

/// No two apps have the same names, values and sizes.
fn code(number: usize) -> String {
    format!(
        "from flask import Flask, jsonify\n\napp = Flask(__name__)\nNAME = \"app {number}\"\n\
         items = {{f\"item-{{n}}\": n * {factor} for n in range({length})}}\n\n\n\
         @app.get(\"/\")\ndef view_{number}():\n    return f\"hello from {{NAME}}\"\n\n\n\
         @app.get(\"/items\")\ndef items_{number}():\n    return jsonify(items)\n",
        factor = number + 1,
        length = 20 + number % 50,
    )
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        _ => fs::write(path, text),
    }
}

/// Gives each file of a folder a further name in another.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => link(&entry.path(), &target)?,
            false => fs::hard_link(entry.path(), target)?,
        }
    }
    Ok(())
}
