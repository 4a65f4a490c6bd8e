//! What an app may have over a while, whichever of its loads has it.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;

use crate::server::{Server, config};

/// Has the app loaded anew.
fn reload(server: &Server) {
    let mark = server.log.mark();
    server.signal(Signal::HUP);
    server.log.wait_for(mark, "app limits: loaded anew");
}

/// Asks until it is refused; how often it was not.
fn served(server: &Server) -> usize {
    (0..1000)
        .take_while(|_| server.get("/ok").status() == 200)
        .count()
}

#[test]
fn a_load_anew_brings_no_new_burst_of_requests() {
    let server = Server::start(&config(
        "limits",
        "workers = 1\nprobe = \"/ok\"\n[limits]\nrate = 5",
    ));
    assert!(served(&server) >= 10);
    let empty = Instant::now();
    reload(&server);
    let more = served(&server);
    let earned = empty.elapsed().as_secs_f64() * 5.0 + 1.0;
    assert!(more as f64 <= earned, "{more} requests in {:?}", empty.elapsed());
    server.get("/ok").expect(429);
}

#[test]
fn who_has_used_up_its_minute_of_cpu_is_told_when_it_is_over() {
    let limits = |minute: &str| {
        let more =
            format!("workers = 1\nprobe = \"/ok\"\n[limits]\ncpu = \"1s\"\ncpu-per-minute = \"{minute}\"");
        config("limits", &more)
    };
    let server = Server::start(&limits("8s"));
    let begun = Instant::now();
    let mark = server.log.mark();
    server.get("/loop").expect(504);
    server.log.wait_for(mark, "wasgi.limit.CpuLimit: ");
    server.log.wait_for(
        mark,
        "app limits: limit of 1s of CPU time reached; worker 1 is replaced",
    );
    let refused = (0..8).find_map(|_| {
        let reply = server.get("/loop");
        (reply.status() == 429).then_some(reply)
    });
    let refused = refused.expect("eight times a second is its minute").expect(429);
    assert!(refused.text().contains("CPU time"), "{}", refused.text());
    let after = refused.header("Retry-After").expect("says when");
    let after: u64 = after.parse().expect("seconds");
    // What the import took is the first to be forgotten.
    assert!(after <= 60 && after + begun.elapsed().as_secs() >= 50, "{after}");
    reload(&server);
    server.get("/ok").expect(429);
    let mark = server.log.mark();
    fs::write(server.dir.path().join("app.toml"), limits("2m")).expect("write");
    server.log.wait_for(mark, "app limits: loaded anew");
    server.get("/ok").expect(200);
}
