//! What the project aims at, and how far it got: ratios of the comparison, start, memory, sleepers, a bad neighbour.

mod density;
mod memory;
mod neighbour;
mod shares;
mod sleepers;
mod start;

use serde_json::{Value, json};

use crate::compare::Compared;
use crate::options::Options;
use crate::place::Place;
use crate::report::progress;
use crate::servers::Server;
use crate::stats::Spread;

/// Whether a target was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The median is on the right side.
    Met,
    /// It is not.
    Missed,
    /// No target, for comparison only.
    Shown,
    /// It could not be measured.
    Unknown,
}

/// One target.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was aimed at, in words.
    pub what: String,
    /// What was found, in words, or why nothing was.
    pub found: String,
    /// Whether that is enough.
    pub verdict: Verdict,
    /// Figures by name.
    pub figures: Value,
}

impl Outcome {
    pub(crate) fn unknown(what: impl Into<String>, why: impl Into<String>) -> Self {
        let found = format!("not available: {}", why.into());
        Self {
            what: what.into(),
            found,
            verdict: Verdict::Unknown,
            figures: Value::Null,
        }
    }

    /// For the results.
    pub fn to_json(&self) -> Value {
        let met = match self.verdict {
            Verdict::Met => Some(true),
            Verdict::Missed => Some(false),
            Verdict::Shown | Verdict::Unknown => None,
        };
        json!({"target": self.what, "found": self.found, "met": met, "figures": self.figures})
    }
}

pub(crate) fn verdict(met: bool) -> Verdict {
    match met {
        true => Verdict::Met,
        false => Verdict::Missed,
    }
}

/// Requests/s of hello against the peers, if hello was measured.
pub fn of_comparison(apps: &[Compared]) -> Vec<Outcome> {
    let Some(hello) = apps.iter().find(|app| app.name == crate::apps::HELLO.name) else {
        return Vec::new();
    };
    let aims = [
        (Server::WasgiWorker, Server::Uwsgi, 1.1),
        (Server::WasgiWorker, Server::Granian, 1.0),
        (Server::WasgiWorker, Server::Gunicorn, 2.5),
        (Server::WasgiRequest, Server::WasgiWorker, 0.8),
        (Server::WasgiRequest, Server::WasmtimeServe, 20.0),
    ];
    let asked = |server| hello.row(server).is_some();
    aims.into_iter()
        .filter(|(ours, other, _)| asked(*ours) && asked(*other))
        .map(|(ours, other, least)| {
            let what = format!("hello: {} at least {least} x {}", ours.title(), other.title());
            let Some(ratio) = hello.ratio(ours, other) else {
                return Outcome::unknown(what, "one of the two has no figures");
            };
            Outcome {
                what,
                found: format!("{:.2} x ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max),
                verdict: verdict(ratio.median >= least),
                figures: ratio.to_json(),
            }
        })
        .collect()
}

type Part = fn(&Place, &Options) -> Vec<Outcome>;

/// Measures the others.
pub fn run(place: &Place, options: &Options) -> Vec<Outcome> {
    let parts: [(&str, Part); 6] = [
        ("instance", start::instance),
        ("server start", start::server),
        ("idle memory", memory::idle),
        ("sleepers", sleepers::thousand),
        ("neighbour", neighbour::beside),
        ("shares", shares::of_two_apps),
    ];
    let mut outcomes = Vec::new();
    for (name, part) in parts {
        progress(&format!("targets: {name}"));
        outcomes.extend(part(place, options));
    }
    progress("");
    outcomes
}

/// A server with many apps.
pub fn density(place: &Place, options: &Options) -> Vec<Outcome> {
    let outcomes = density::many(place, options);
    progress("");
    outcomes
}

/// `1.2 ms (1.0..1.9)`.
fn shown(spread: Spread, unit: &str) -> String {
    let digits = if spread.median < 10.0 { 2 } else { 0 };
    format!(
        "{:.digits$} {unit} ({:.digits$}..{:.digits$})",
        spread.median, spread.min, spread.max
    )
}
