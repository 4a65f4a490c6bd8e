//! What two looks at a server's figures tell of the time between them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Over how long latencies are looked at: those of a second alone would jump about.
const WINDOW: Duration = Duration::from_secs(10);

/// One app.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) app: String,
    pub(crate) state: String,
    /// Requests a second, and errors of the server's (5xx) among them.
    pub(crate) rate: f64,
    pub(crate) errors: f64,
    /// Milliseconds.
    pub(crate) half: Option<f64>,
    pub(crate) most: Option<f64>,
    pub(crate) in_flight: u64,
    pub(crate) queue: u64,
    /// Of one core, in percent.
    pub(crate) cpu: f64,
    pub(crate) memory: u64,
    pub(crate) instances: u64,
    pub(crate) cold_starts: u64,
    pub(crate) kills: u64,
}

impl Figures {
    pub(crate) fn json(&self) -> Value {
        json!({
            "app": self.app,
            "state": self.state,
            "requests_per_second": self.rate,
            "errors_per_second": self.errors,
            "p50_ms": self.half,
            "p99_ms": self.most,
            "in_flight": self.in_flight,
            "queue": self.queue,
            "cpu_percent": self.cpu,
            "memory": self.memory,
            "instances": self.instances,
            "cold_starts": self.cold_starts,
            "kills": self.kills,
        })
    }
}

/// The last looks, the oldest first.
#[derive(Default)]
pub(crate) struct Looks(VecDeque<(Instant, HashMap<String, Value>)>);

impl Looks {
    /// Takes in `/apps` as it was at `now`.
    pub(crate) fn add(&mut self, now: Instant, apps: Value) {
        let Value::Array(apps) = apps else { return };
        let named = apps
            .into_iter()
            .filter_map(|app| Some((app["name"].as_str()?.to_owned(), app)));
        self.0.push_back((now, named.collect()));
        // The oldest one that is left is at least as old as the window.
        while self
            .0
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.0.pop_front();
        }
    }

    /// Each app: rates since the look before, latencies within the window; those since the server's start after one look.
    pub(crate) fn figures(&self) -> Vec<Figures> {
        let Some((now, apps)) = self.0.back() else {
            return Vec::new();
        };
        let before = self.0.len().checked_sub(2).map(|at| &self.0[at]);
        let oldest = self.0.front().filter(|(at, _)| at < now);
        apps.values()
            .map(|app| {
                let name = app["name"].as_str().unwrap_or_default();
                let (since, last) = match before {
                    Some((at, apps)) => (now.duration_since(*at), apps.get(name)),
                    None => (Duration::ZERO, None),
                };
                let oldest = oldest.map(|(_, apps)| apps.get(name).unwrap_or(&Value::Null));
                figures(app, last, since, oldest)
            })
            .collect()
    }
}

fn figures(app: &Value, last: Option<&Value>, since: Duration, oldest: Option<&Value>) -> Figures {
    let text = |key: &str| app[key].as_str().unwrap_or_default().to_owned();
    let count = |key: &str| app[key].as_u64().unwrap_or_default();
    // A server that was started anew has counted less: then it is none.
    let per_second = |value: &dyn Fn(&Value) -> f64| match last {
        Some(last) if !since.is_zero() => (value(app) - value(last)).max(0.0) / since.as_secs_f64(),
        _ => 0.0,
    };
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let (half, most) = match oldest {
        Some(oldest) => latencies(&app["latency"], &oldest["latency"]),
        None => (app["p50_ms"].as_f64(), app["p99_ms"].as_f64()),
    };
    Figures {
        app: text("name"),
        state: text("state"),
        rate: per_second(&|app| number(&app["requests"])),
        errors: per_second(&|app| number(&app["statuses"][4])),
        half,
        most,
        in_flight: count("in_flight"),
        queue: count("queue"),
        cpu: per_second(&|app| number(&app["cpu_ms"])) / 10.0,
        memory: count("memory"),
        instances: count("instances"),
        cold_starts: app["starts"]["cold"].as_u64().unwrap_or_default(),
        kills: count("kills"),
    }
}

/// In milliseconds: what half of the requests between two looks took, and 99 in 100.
fn latencies(now: &Value, before: &Value) -> (Option<f64>, Option<f64>) {
    let list = |value: &Value| -> Vec<u64> {
        let values = value.as_array().into_iter().flatten();
        values.map(|value| value.as_u64().unwrap_or_default()).collect()
    };
    let (ends, mut counts) = (list(&now["ends_us"]), list(&now["counts"]));
    for (count, before) in counts.iter_mut().zip(list(&before["counts"])) {
        *count = count.saturating_sub(before);
    }
    (within(&ends, &counts, 0.5), within(&ends, &counts, 0.99))
}

/// The time within which a `share` was done: requests are taken to lie evenly in their class.
fn within(ends: &[u64], counts: &[u64], share: f64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = (share * all as f64).max(1.0);
    let mut before = 0;
    for (class, &here) in counts.iter().enumerate() {
        if here > 0 && (before + here) as f64 >= wanted {
            let end = ends.get(class).or(ends.last()).copied()?;
            let start = class.checked_sub(1).and_then(|class| ends.get(class)).copied();
            let start = start.unwrap_or(0);
            let part = (wanted - before as f64) / here as f64;
            return Some((start as f64 + (end - start) as f64 * part) / 1_000.0);
        }
        before += here;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(requests: u64, counts: [u64; 3], cpu: f64) -> Value {
        json!([{
            "name": "shop", "state": "serving", "requests": requests, "statuses": [0, requests, 0, 0, 0],
            "p50_ms": 7.0, "p99_ms": 9.0, "in_flight": 1, "queue": 2, "cpu_ms": cpu, "memory": 3, "instances": 4,
            "starts": { "cold": 5, "restored": 6 }, "kills": 7,
            "latency": { "ends_us": [1_000, 2_000], "counts": counts },
        }])
    }

    #[test]
    fn rates_are_between_two_looks_and_latencies_within_the_window() {
        let start = Instant::now();
        let mut looks = Looks::default();
        looks.add(start, look(1_000, [1_000, 0, 0], 0.0));
        let first = &looks.figures()[0];
        assert_eq!((first.rate, first.half, first.most), (0.0, Some(7.0), Some(9.0)));
        looks.add(
            start + Duration::from_secs(2),
            look(1_100, [1_000, 100, 0], 1_000.0),
        );
        let second = &looks.figures()[0];
        assert_eq!((second.rate, second.cpu), (50.0, 50.0));
        assert_eq!((second.half, second.most), (Some(1.5), Some(1.99)));
        assert_eq!((second.in_flight, second.queue, second.kills), (1, 2, 7));
        // An hour in which nothing happened.
        for seconds in 3..20 {
            looks.add(
                start + Duration::from_secs(seconds),
                look(1_100, [1_000, 100, 0], 1_000.0),
            );
        }
        let last = &looks.figures()[0];
        assert_eq!((last.rate, last.half, last.most), (0.0, None, None));
        assert!(looks.0.len() <= 12, "{}", looks.0.len());
    }

    #[test]
    fn a_server_that_was_started_anew_counts_from_nothing() {
        let start = Instant::now();
        let mut looks = Looks::default();
        looks.add(start, look(1_000, [1_000, 0, 0], 500.0));
        looks.add(start + Duration::from_secs(1), look(3, [3, 0, 0], 1.0));
        let figures = &looks.figures()[0];
        assert_eq!((figures.rate, figures.cpu, figures.half), (0.0, 0.0, None));
    }
}
