//! How long until there is a first reply: of an instance, of a server.

use std::fs::{metadata, read_to_string};

use serde_json::{Map, Value, json};

use super::{Outcome, Verdict, shown, verdict};
use crate::apps::HELLO;
use crate::options::Options;
use crate::place::Place;
use crate::servers::{Server, Setup};
use crate::stats::Spread;

/// Starts of each server.
const STARTS: usize = 11;

/// A new instance to its first reply, in milliseconds, at most.
const INSTANCE_MS: f64 = 1.2;

/// A server's exec to its first reply, in milliseconds, at most.
const SERVER_MS: f64 = 50.0;

/// From the engine's own benches, whose figures Criterion has left behind.
pub(super) fn instance(place: &Place, _: &Options) -> Vec<Outcome> {
    let what =
        format!("a new instance from the snapshot to its first reply: at most {INSTANCE_MS} ms, median");
    let path = place
        .root
        .join("target/bench/criterion/instance/first reply/new/estimates.json");
    let text = read_to_string(&path).ok();
    let Some(estimates) = text.and_then(|text| serde_json::from_str::<Value>(&text).ok()) else {
        return vec![Outcome::unknown(what, "`make bench-crates` measures it")];
    };
    let median = &estimates["median"];
    let millis = |value: &Value| value.as_f64().map(|nanoseconds| nanoseconds / 1e6);
    let interval = &median["confidence_interval"];
    let (Some(found), Some(low), Some(high)) = (
        millis(&median["point_estimate"]),
        millis(&interval["lower_bound"]),
        millis(&interval["upper_bound"]),
    ) else {
        return vec![Outcome::unknown(
            what,
            format!("{} holds no median", path.display()),
        )];
    };
    let age = metadata(&path)
        .and_then(|data| data.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    let minutes = age.map_or(0, |age| age.as_secs() / 60);
    vec![Outcome {
        what,
        found: format!(
            "{found:.2} ms (95 % sure: {low:.2}..{high:.2}), by `make bench-crates` {minutes} minutes ago"
        ),
        verdict: verdict(found <= INSTANCE_MS),
        figures: json!({"median_ms": found, "low_ms": low, "high_ms": high, "minutes_ago": minutes}),
    }]
}

/// Servers in turns, so that a slow moment hits all.
pub(super) fn server(place: &Place, _: &Options) -> Vec<Outcome> {
    const CACHED: Setup = Setup {
        app: "snapshot-cache = true\n",
        ..Setup::ONE
    };
    const WARM: Setup = Setup {
        app: "snapshot-cache = true\nwarmup = [\"/\"]\n",
        ..Setup::ONE
    };
    let servers = [
        (Server::WasgiWorker, WARM, ", image on disk", true),
        (Server::WasgiRequest, CACHED, ", image on disk", true),
        (Server::WasgiWorker, Setup::ONE, ", imports the app", false),
        (Server::Uwsgi, Setup::ONE, "", false),
        (Server::Granian, Setup::ONE, "", false),
        (Server::Gunicorn, Setup::ONE, "", false),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); servers.len()];
    let mut trouble = vec![None; servers.len()];
    // The first one fills caches.
    for round in 0..=STARTS {
        for (index, (server, setup, ..)) in servers.iter().enumerate() {
            if trouble[index].is_some() {
                continue;
            }
            let launch = server.launch(place, HELLO, setup);
            match launch.and_then(|launch| Ok(launch.start(HELLO)?)) {
                Ok(running) if round > 0 => times[index].push(running.cold_start.as_secs_f64() * 1e3),
                Ok(_) => (),
                Err(why) => trouble[index] = Some(why),
            }
        }
    }
    let outcome = |(index, (server, _, how, is_bound)): (usize, &(Server, Setup, &str, bool))| {
        let title = server.title();
        let what = match is_bound {
            true => format!("{title}{how}: exec to first reply of hello: at most {SERVER_MS} ms"),
            false => format!("{title}{how}: exec to first reply of hello"),
        };
        if let Some(why) = &trouble[index] {
            return Outcome::unknown(what, why.as_str());
        }
        let Some(spread) = Spread::of(times[index].iter().copied()) else {
            return Outcome::unknown(what, "no start");
        };
        let verdict = if *is_bound {
            verdict(spread.median <= SERVER_MS)
        } else {
            Verdict::Shown
        };
        let figures = Map::from_iter([("ms".to_owned(), spread.to_json())]);
        Outcome {
            what,
            found: shown(spread, "ms"),
            verdict,
            figures: figures.into(),
        }
    };
    servers.iter().enumerate().map(outcome).collect()
}
