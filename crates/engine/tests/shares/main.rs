//! The CPU is shared by weight among busy apps, whatever the number of their workers.
//!
//! A program of its own: what other tests burn would be in the figures.

#[path = "../requests/site.rs"]
#[allow(dead_code, reason = "most of it is for the tests that it stands beside")]
mod site;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use wasgi_engine::{Instance, Report};

use site::*;

/// Held by the test that runs.
static MACHINE: Mutex<()> = Mutex::new(());

fn cores() -> usize {
    available_parallelism().map_or(1, |count| count.get())
}

/// Threads as the server has them: one more than the engine has slots.
fn threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(cores() + 1)
        .event_interval(4)
        .enable_time()
        .build()
        .expect("threads")
}

async fn start(site: &Site, workers: usize) -> Vec<Instance> {
    let mut instances = Vec::new();
    for _ in 0..workers {
        instances.push(site.app.start().await.expect("starts"));
    }
    instances
}

/// A request for `path` to each instance, at once.
fn ask_all(instances: Vec<Instance>, path: &str) -> Vec<JoinHandle<Report>> {
    let ask = |mut instance: Instance| {
        let path = path.to_owned();
        tokio::spawn(async move {
            let seen = Arc::default();
            instance.handle(get(&path, &seen)).await
        })
    };
    instances.into_iter().map(ask).collect()
}

/// Works until the moment that its path names, which is the same for all: who began late must not go on alone. Tells how
/// much it got done.
const WORKS: &str = "
import time
def app(environ, start_response):
    start_response('200 OK', [])
    done, end = 0, float(environ['PATH_INFO'])
    while time.time() < end:
        done += 1
    print('done', done)
    return []
";

fn done(site: &Site) -> f64 {
    let log = site.log.text();
    let counts = log.lines().filter_map(|line| line.strip_prefix("r1: done "));
    counts.map(|count| count.parse::<f64>().expect("a count")).sum()
}

#[test]
fn busy_apps_get_work_done_by_their_weight_whatever_the_number_of_workers() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let many = site(WORKS, |_| ());
    let heavy = site(WORKS, |spec| spec.weight = 300);
    threads().block_on(async {
        let (some, few) = (start(&many, 4 * cores()).await, start(&heavy, cores()).await);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let end = (now + Duration::from_secs(3)).as_secs_f64().to_string();
        let asked = [ask_all(some, &end), ask_all(few, &end)];
        for asked in asked.into_iter().flatten() {
            assert!(asked.await.expect("no panic").reusable);
        }
    });
    let share = done(&heavy) / (done(&many) + done(&heavy));
    eprintln!("{share:.3} of the work, with 0.75 of the weight");
    assert!((share - 0.75).abs() < 0.075, "{share}");
}

/// Some milliseconds of work.
const LIGHT: &str = "
def app(environ, start_response):
    start_response('200 OK', [])
    return [str(sum(range(50_000))).encode()]
";

/// How long 99 of 100 requests take at most. As in the server, they run in a task of their own.
fn p99(threads: &Runtime, mut instance: Instance) -> (Duration, Instance) {
    let asked = threads.spawn(async move {
        let mut times = Vec::new();
        for _ in 0..300 {
            let begun = Instant::now();
            ask(&mut instance, "/").await;
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.sort();
        (times[times.len() * 99 / 100], instance)
    });
    threads.block_on(asked).expect("no panic")
}

#[test]
fn a_light_app_hardly_notices_one_that_burns_on_every_worker() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let light = site(LIGHT, |_| ());
    let burner = site("def app(e, s):\n    while True: pass\n", |spec| {
        spec.limits.time = Duration::from_secs(600);
    });
    let threads = threads();
    let start_burning = || threads.block_on(async { ask_all(start(&burner, 4 * cores()).await, "/") });
    let stop = |burning: Vec<JoinHandle<Report>>| {
        burning.iter().for_each(JoinHandle::abort);
        for burnt in burning {
            let end = threads.block_on(burnt);
            assert!(end.expect_err("cut").is_cancelled(), "ended by itself");
        }
    };
    let mut instance = threads.block_on(light.app.start()).expect("starts");
    // Its own first requests, which take longer, are nobody's fault.
    (_, instance) = p99(&threads, instance);
    // What else the machine does is in these figures as well, on either side.
    let mut factors: Vec<f64> = Vec::new();
    let good = |factors: &[f64]| factors.iter().filter(|factor| **factor <= 3.0).count() >= 3;
    while factors.len() < 7 && !good(&factors) {
        let (alone, beside);
        (alone, instance) = p99(&threads, instance);
        let burning = start_burning();
        (beside, instance) = p99(&threads, instance);
        stop(burning);
        let factor = beside.as_secs_f64() / alone.as_secs_f64();
        eprintln!("p99 {alone:?} alone, {beside:?} beside: {factor:.2} x");
        factors.push(factor);
    }
    assert!(good(&factors), "{factors:?}");
}
