//! A thousand requests at once to a view that sleeps for a second.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::{Outcome, Verdict, shown, verdict};
use crate::apps::SLEEP;
use crate::client::{parse, request};
use crate::options::Options;
use crate::place::Place;
use crate::process::Running;
use crate::servers::{Server, Setup};
use crate::stats::Spread;

const CLIENTS: usize = 1000;

/// All answered within, in seconds.
const SECONDS: f64 = 2.2;

/// Private memory meanwhile, in bytes.
const BYTES: f64 = 1.2e9;

/// For all replies to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// In wasgi, and with as many threads in Gunicorn.
pub(super) fn thousand(place: &Place, options: &Options) -> Vec<Outcome> {
    let wasgi = Setup {
        limits: "concurrency = 1000\nconnections = 2000\nqueue = 1000",
        ..Setup::default()
    };
    let threads = Setup {
        args: &[
            "--worker-class",
            "gthread",
            "--threads",
            "1000",
            "--worker-connections",
            "2000",
        ],
        ..Setup::default()
    };
    vec![
        measure(
            place,
            options,
            Server::WasgiRequest,
            &wasgi,
            format!(
                "wasgi, request: {CLIENTS} x time.sleep(1) at once: within {SECONDS} s and 1.2 GB private"
            ),
        ),
        measure(
            place,
            options,
            Server::Gunicorn,
            &threads,
            format!("Gunicorn, {CLIENTS} threads: {CLIENTS} x time.sleep(1) at once"),
        ),
    ]
}

fn measure(place: &Place, options: &Options, server: Server, setup: &Setup, what: String) -> Outcome {
    let run = || -> Result<_, String> {
        let mut times = Vec::new();
        let mut most = 0;
        for _ in 0..options.rounds {
            // Looking at the memory of a thousand instances slows them down: once for the time, once for the memory.
            let running = server.launch(place, SLEEP, setup)?.start(SLEEP)?;
            times.push(crowd(&running)?.as_secs_f64());
            most = most.max(watched(&running)?);
        }
        Ok((times, most))
    };
    let (times, most) = match run() {
        Ok(found) => found,
        Err(why) => return Outcome::unknown(what, why),
    };
    let Some(spread) = Spread::of(times) else {
        return Outcome::unknown(what, "no round");
    };
    Outcome {
        what,
        found: format!(
            "{}, {:.0} MB private at most",
            shown(spread, "s"),
            most as f64 / 1e6
        ),
        verdict: match server {
            Server::WasgiRequest => verdict(spread.median <= SECONDS && most as f64 <= BYTES),
            _ => Verdict::Shown,
        },
        figures: json!({"seconds": spread.to_json(), "private_bytes": most}),
    }
}

/// The same again, with an eye on the memory.
fn watched(running: &Running) -> Result<u64, String> {
    let done = AtomicBool::new(false);
    scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(running.memory().private);
                sleep(Duration::from_millis(100));
            }
            most
        });
        let replied = crowd(running);
        done.store(true, Ordering::Relaxed);
        let most = watcher.join().map_err(|_| "the watcher ended".to_owned())?;
        replied.map(|_| most)
    })
}

/// From the first connect to the end of the last reply.
fn crowd(running: &Running) -> Result<Duration, String> {
    let text = |error: io::Error| format!("{error} ({CLIENTS} connections; see ulimit -n)");
    let bytes = request("/", None);
    let begun = Instant::now();
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let mut stream =
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], running.port))).map_err(text)?;
        stream.write_all(&bytes).map_err(text)?;
        stream.set_nonblocking(true).map_err(text)?;
        clients.push((stream, Vec::new()));
    }
    let mut right = 0;
    let mut wrong = None;
    while !clients.is_empty() {
        let left = PATIENCE.checked_sub(begun.elapsed());
        let left =
            left.ok_or_else(|| format!("{} of {CLIENTS} unanswered after {PATIENCE:?}", clients.len()))?;
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut waiting: Vec<_> = clients
            .iter()
            .map(|(stream, _)| PollFd::new(stream, PollFlags::IN))
            .collect();
        poll(&mut waiting, Some(&timeout)).map_err(|error| text(error.into()))?;
        let ready: Vec<bool> = waiting.iter().map(|one| !one.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        clients.retain_mut(|(stream, reply)| {
            if !ready.next().unwrap_or(false) || !ended(stream, reply) {
                return true;
            }
            match parse(reply).map(|reply| SLEEP.check(&reply)) {
                Some(Ok(())) => right += 1,
                Some(Err(why)) => wrong = Some(why),
                None => wrong = Some("a reply that is not whole".into()),
            }
            false
        });
    }
    let time = begun.elapsed();
    match wrong {
        Some(why) => Err(format!(
            "{} of {CLIENTS} replies are wrong, such as: {why}",
            CLIENTS - right
        )),
        None => Ok(time),
    }
}

/// Takes what has come; true at the end.
fn ended(stream: &mut TcpStream, reply: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(read) => reply.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            // What has come until here is looked at; a reset after a whole reply harms nobody.
            Err(_) => return true,
        }
    }
}
