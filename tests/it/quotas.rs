//! What an app may have over a while, whichever of its loads has it.

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
