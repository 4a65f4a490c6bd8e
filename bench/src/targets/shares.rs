//! Two apps on one server: a light one beside one that burns on every worker, and what weights make of two busy ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{available_parallelism, scope, sleep};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Outcome, verdict};
use crate::apps::BURN;
use crate::client::ask;
use crate::options::Options;
use crate::place::Place;
use crate::process::{Launch, REPLY, Running};
use crate::servers::{environment, free_port};
use crate::stats::Spread;

/// p99 of the light app beside the other over p99 alone, at most.
const FACTOR: f64 = 3.0;

/// How far a share of the work may be from that of the weight.
const TOLERANCE: f64 = 0.1;

/// Weights of the two; 100 is what an app has that says nothing.
const WEIGHTS: [u32; 2] = [300, 100];

/// Requests of the light app whose 99th of a hundred counts, and the pause between two.
const REQUESTS: usize = 500;
const PAUSE: Duration = Duration::from_millis(3);

/// For the two to work.
const STRETCH: Duration = Duration::from_secs(3);

/// One app at `/`, the other at `/other`, each with more workers than there are cores.
pub(super) fn of_two_apps(place: &Place, options: &Options) -> Vec<Outcome> {
    let cores = available_parallelism().map_or(1, |count| count.get());
    vec![
        light(place, options, 2 * cores),
        weighed(place, options, 2 * cores),
    ]
}

fn light(place: &Place, options: &Options, workers: usize) -> Outcome {
    let what =
        format!("p99 of a light app beside one that burns on {workers} workers: at most {FACTOR} x alone");
    let run = || -> Result<Vec<[f64; 2]>, String> {
        let running = start(place, workers, [100, 100])?;
        p99(&running)?;
        (0..options.rounds)
            .map(|_| {
                let alone = p99(&running)?;
                let beside = while_asked(&running, "/other/burn/0.5", workers, || p99(&running))?.0?;
                Ok([alone, beside])
            })
            .collect()
    };
    let pairs = match run() {
        Ok(pairs) => pairs,
        Err(why) => return Outcome::unknown(what, why),
    };
    let spread = |figure: &dyn Fn(&[f64; 2]) -> f64| Spread::of(pairs.iter().map(figure));
    let (Some(factor), Some(alone), Some(beside)) = (
        spread(&|[alone, beside]| beside / alone),
        spread(&|[alone, _]| *alone),
        spread(&|[_, beside]| *beside),
    ) else {
        return Outcome::unknown(what, "no round");
    };
    Outcome {
        what,
        found: format!(
            "{:.2} x ({:.2}..{:.2}): {:.2} -> {:.2} ms",
            factor.median, factor.min, factor.max, alone.median, beside.median
        ),
        verdict: verdict(factor.median <= FACTOR),
        figures: json!({"factor": factor.to_json(), "alone_ms": alone.to_json(), "beside_ms": beside.to_json()}),
    }
}

fn weighed(place: &Place, options: &Options, workers: usize) -> Outcome {
    let [heavy, other] = WEIGHTS;
    let due = f64::from(heavy) / f64::from(heavy + other);
    let what = format!(
        "of two busy apps with weights {heavy} and {other} the first does {due} of the work, within a tenth"
    );
    let run = || -> Result<Vec<f64>, String> {
        let running = start(place, workers, WEIGHTS)?;
        (0..options.rounds)
            .map(|_| {
                let (ours, others) = while_asked(&running, "/other/work", workers, || {
                    let ((), ours) = while_asked(&running, "/work", workers, || sleep(STRETCH))?;
                    Ok::<_, String>(ours)
                })?;
                let ours = ours?;
                Ok(ours as f64 / (ours + others).max(1) as f64)
            })
            .collect()
    };
    let shares = match run() {
        Ok(shares) => shares,
        Err(why) => return Outcome::unknown(what, why),
    };
    let Some(share) = Spread::of(shares.iter().copied()) else {
        return Outcome::unknown(what, "no round");
    };
    Outcome {
        what,
        found: format!("{:.3} ({:.3}..{:.3})", share.median, share.min, share.max),
        verdict: verdict((share.median / due - 1.0).abs() <= TOLERANCE),
        figures: json!({"share": share.to_json(), "due": due}),
    }
}

/// Both apps on one server.
fn start(place: &Place, workers: usize, weights: [u32; 2]) -> Result<Running, String> {
    let port = free_port()?;
    let mut command = vec![place.wasgi.clone().into(), "serve".into()];
    for (name, mount, weight) in [
        ("light", "", weights[0]),
        ("other", "mount = \"/other\"", weights[1]),
    ] {
        let text = format!(
            "[app]\nname = \"{name}\"\nroot = {root:?}\nmodule = \"app:app\"\npython-path = [{packages:?}]\n\
             workers = {workers}\nweight = {weight}\n{mount}\n\n[listen]\nhttp = \"127.0.0.1:{port}\"\n",
            root = place.app(BURN.name),
            packages = place.packages()?,
        );
        command.push(
            place
                .write(&format!("config/shares-{name}/app.toml"), &text)?
                .into(),
        );
    }
    command.extend(["--access-log".into(), "off".into()]);
    let launch = Launch {
        command,
        folder: place.out.clone(),
        env: environment(place),
        port,
        log: place.out.join("logs/shares.log"),
    };
    Ok(launch.start(BURN)?)
}

/// Of the light app's requests, in milliseconds.
fn p99(running: &Running) -> Result<f64, String> {
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        running.check(BURN)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        sleep(PAUSE);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REQUESTS * 99 / 100])
}

/// Does something while `clients` ask for a path again and again. Also tells how many replies they got meanwhile.
fn while_asked<T>(
    running: &Running,
    path: &str,
    clients: usize,
    does: impl FnOnce() -> T,
) -> Result<(T, usize), String> {
    let (done, replies) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut outcome = None;
    scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if ask(running.port, path, None, REPLY).is_ok_and(|reply| reply.status == 200) {
                        replies.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // They have begun by then.
        sleep(Duration::from_millis(200));
        replies.store(0, Ordering::Relaxed);
        let done_meanwhile = does();
        outcome = Some((done_meanwhile, replies.load(Ordering::Relaxed)));
        done.store(true, Ordering::Relaxed);
    });
    outcome.ok_or_else(|| "nothing was done".into())
}
