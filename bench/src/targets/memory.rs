//! What one more idle worker costs.

use std::time::Duration;

use serde_json::json;

use super::{Outcome, Verdict, verdict};
use crate::apps::HELLO;
use crate::load::Load;
use crate::options::Options;
use crate::place::Place;
use crate::process::Memory;
use crate::servers::{Server, Setup};

/// Private memory of an idle worker, over the shared image, in bytes, at most.
const MOST: f64 = 3e6;

/// By the difference between few and many workers: what all share, and the server's own, drops out. Many, since the
/// server's own differs from start to start.
pub(super) fn idle(place: &Place, _: &Options) -> Vec<Outcome> {
    let cases = [
        (Server::WasgiWorker, 2, 66),
        (Server::Uwsgi, 2, 10),
        (Server::Gunicorn, 2, 10),
    ];
    cases
        .into_iter()
        .flat_map(|(server, few, many)| measure(place, server, few, many))
        .collect()
}

fn measure(place: &Place, server: Server, few: usize, many: usize) -> Vec<Outcome> {
    let is_ours = server == Server::WasgiWorker;
    let what = |when: &str| match is_ours {
        true => format!(
            "{}: private memory of one more idle worker, {when}: at most 3 MB",
            server.title()
        ),
        false => format!(
            "{}: private memory of one more idle worker, {when}",
            server.title()
        ),
    };
    let both = (|| Ok::<_, String>((private(place, server, few)?, private(place, server, many)?)))();
    let (low, high) = match both {
        Ok(both) => both,
        Err(why) => return vec![Outcome::unknown(what("just started"), why)],
    };
    let outcome = |when: &str, low: u64, high: u64| {
        let each = (high as f64 - low as f64) / (many - few) as f64;
        Outcome {
            what: what(when),
            found: format!(
                "{:.2} MB ({:.1} MB with {few} workers, {:.1} MB with {many})",
                each / 1e6,
                low as f64 / 1e6,
                high as f64 / 1e6
            ),
            verdict: if is_ours {
                verdict(each <= MOST)
            } else {
                Verdict::Shown
            },
            figures: json!({"bytes_per_worker": each.round(), "few": low, "many": high}),
        }
    };
    vec![
        outcome("just started", low[0], high[0]),
        outcome("after serving", low[1], high[1]),
    ]
}

/// Just started, and after all workers have served requests.
fn private(place: &Place, server: Server, workers: usize) -> Result<[u64; 2], String> {
    // Each start brings up all workers, but only the first reply is waited for.
    let setup = Setup {
        workers,
        // None of the connections is turned away.
        limits: "queue = 1000",
        ..Setup::default()
    };
    let running = server.launch(place, HELLO, &setup)?.start(HELLO)?;
    // wasgi's workers share a process: a page of the image counts as private there if one worker alone has touched it. Those
    // of no file are each worker's own. Processes that were forked are the other way about.
    let own = |memory: Memory| match server {
        Server::WasgiWorker | Server::WasgiRequest => memory.anonymous,
        _ => memory.private,
    };
    let started = settled(|| own(running.memory()));
    let load = Load::put(place, &running, HELLO, 2 * workers, Duration::from_secs(2))?;
    match load.failure() {
        Some(failure) => Err(failure),
        None => Ok([started, settled(|| own(running.memory()))]),
    }
}

/// Waits until a figure no longer moves by more than a hundredth, for ten seconds at most.
fn settled(figure: impl Fn() -> u64) -> u64 {
    let mut last = figure();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let now = figure();
        if now.abs_diff(last) <= last / 100 {
            return now;
        }
        last = now;
    }
    last
}
