//! Hello beside a request that burns CPU until it is stopped.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use serde_json::json;

use super::{Outcome, Verdict, verdict};
use crate::apps::BURN;
use crate::client::ask;
use crate::load::{CONNECTIONS, Load};
use crate::options::Options;
use crate::place::Place;
use crate::process::{REPLY, Running};
use crate::servers::{Server, Setup};
use crate::stats::Spread;

/// p99 beside the neighbour over p99 alone, at most.
const FACTOR: f64 = 4.0;

/// A stretch of load, as long as the neighbour's time limit or longer.
const STRETCH: Duration = Duration::from_secs(3);

/// wasgi in both modes; uWSGI with as many processes shows what the kernel's scheduler does with the same load.
pub(super) fn beside(place: &Place, options: &Options) -> Vec<Outcome> {
    let wasgi = Setup {
        workers: 2,
        limits: "time = \"3s\"",
        args: &[],
        ..Setup::ONE
    };
    let uwsgi = Setup {
        workers: 2,
        limits: "",
        args: &["--harakiri", "3"],
        ..Setup::ONE
    };
    [
        (Server::WasgiWorker, &wasgi),
        (Server::WasgiRequest, &wasgi),
        (Server::Uwsgi, &uwsgi),
    ]
    .into_iter()
    .map(|(server, setup)| measure(place, options, server, setup))
    .collect()
}

fn measure(place: &Place, options: &Options, server: Server, setup: &Setup) -> Outcome {
    let is_ours = server != Server::Uwsgi;
    let workers = setup.workers;
    let what = match is_ours {
        true => format!(
            "{}, {workers} workers: p99 of hello beside an endless loop: at most {FACTOR} x alone",
            server.title()
        ),
        false => format!(
            "{}, {workers} processes: p99 of hello beside an endless loop",
            server.title()
        ),
    };
    let run = || -> Result<_, String> {
        let running = server.launch(place, BURN, setup)?.start(BURN)?;
        Load::put(place, &running, BURN, CONNECTIONS, Duration::from_secs(1))?;
        let mut pairs = Vec::new();
        for _ in 0..options.rounds {
            let alone = sound(Load::put(place, &running, BURN, CONNECTIONS, STRETCH)?)?;
            let beside = sound(beside_a_loop(place, &running)?)?;
            pairs.push((alone, beside));
        }
        Ok(pairs)
    };
    let pairs = match run() {
        Ok(pairs) => pairs,
        Err(why) => return Outcome::unknown(what, why),
    };
    let spread = |figure: &dyn Fn(&(Load, Load)) -> f64| Spread::of(pairs.iter().map(figure));
    let (Some(factor), Some(alone), Some(beside)) = (
        spread(&|(alone, beside)| beside.p99 / alone.p99),
        spread(&|(alone, _)| alone.p99),
        spread(&|(_, beside)| beside.p99),
    ) else {
        return Outcome::unknown(what, "no round");
    };
    let rates = [
        spread(&|(alone, _)| alone.rate),
        spread(&|(_, beside)| beside.rate),
    ];
    let [rate_alone, rate_beside] = rates.map(|rate| rate.map_or(0.0, |rate| rate.median));
    Outcome {
        what,
        found: format!(
            "{:.1} x ({:.1}..{:.1}): p99 {:.2} -> {:.2} ms, {rate_alone:.0} -> {rate_beside:.0} requests/s",
            factor.median, factor.min, factor.max, alone.median, beside.median
        ),
        verdict: if is_ours {
            verdict(factor.median <= FACTOR)
        } else {
            Verdict::Shown
        },
        figures: json!({
            "factor": factor.to_json(),
            "alone_p99_ms": alone.to_json(),
            "beside_p99_ms": beside.to_json(),
            "alone_requests_per_second": rate_alone.round(),
            "beside_requests_per_second": rate_beside.round(),
        }),
    }
}

/// Load on hello while one client asks for the loop, again as soon as it has been stopped.
fn beside_a_loop(place: &Place, running: &Running) -> Result<Load, String> {
    let done = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    scope(|scope| {
        let burner = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // 504, or a closed connection: how the loop ends is not measured here, but that it has no reply.
                if ask(running.port, "/burn", None, REPLY).is_ok_and(|reply| reply.status == 200) {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // The loop is running by then.
        sleep(Duration::from_millis(200));
        let load = Load::put(place, running, BURN, CONNECTIONS, STRETCH);
        done.store(true, Ordering::Relaxed);
        let joined = burner.join();
        match answered.load(Ordering::Relaxed) {
            0 if joined.is_ok() => load,
            _ => Err("the endless loop gave a reply".into()),
        }
    })
}

fn sound(load: Load) -> Result<Load, String> {
    match load.failure() {
        Some(failure) => Err(failure),
        None => Ok(load),
    }
}
