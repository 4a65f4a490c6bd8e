//! The figures in the shape of uWSGI's stats server, for uwsgitop and what else reads it.
//!
//! uWSGI tells of its workers, and so do its readers; here a row is an app, under its name, with all its workers in it.

use std::fs;
use std::process;

use serde_json::{Value, json};

use super::apps::kills;
use crate::metrics::Dropped;
use crate::site::Glance;

/// Source: uwsgi-docs, "The uWSGI Stats Server"; uwsgitop 0.12 says which keys it needs.
pub(super) fn stats(glances: &[Glance]) -> Value {
    let waiting: usize = glances.iter().map(|glance| glance.waiting).sum();
    json!({
        "version": concat!("wasgi ", env!("CARGO_PKG_VERSION")),
        "listen_queue": waiting,
        "listen_queue_errors": 0,
        "signal_queue": 0,
        "load": 0,
        "pid": process::id(),
        "uid": rustix::process::getuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "cwd": std::env::current_dir().unwrap_or_default(),
        "locks": [],
        "sockets": [],
        "workers": glances.iter().map(|glance| row(glance, address_space())).collect::<Vec<_>>(),
    })
}

fn row(glance: &Glance, address_space: u64) -> Value {
    let (served, figures) = (&glance.served, &glance.figures);
    let requests = served.requests();
    let is_busy = glance.running > 0;
    let failed = served.statuses[4];
    let dropped = figures.dropped.iter();
    let at_limit = dropped.clone().find(|(why, _)| *why == Dropped::TimeLimit);
    json!({
        "id": &*glance.name,
        "pid": process::id(),
        "accepting": u8::from(glance.down.is_none()),
        "requests": requests,
        "delta_requests": requests,
        // Every reply that tells of a failure: what became an exception is known to the app's log alone.
        "exceptions": failed,
        "harakiri_count": at_limit.map_or(0, |(_, count)| *count),
        "signals": 0,
        "signal_queue": 0,
        "status": match (&glance.down, is_busy, glance.held.instances) {
            (Some(_), ..) => "pause",
            (None, true, _) => "busy",
            (None, false, 0) => "cheap",
            (None, false, _) => "idle",
        },
        "rss": glance.held.memory,
        "vsz": address_space,
        // Microseconds.
        "running_time": served.times.sum.as_micros() as u64,
        "avg_rt": served.times.mean().as_micros() as u64,
        "last_spawn": glance.held.last_start,
        "respawn_count": figures.started,
        "tx": served.bytes,
        "apps": [{
            "id": 0,
            "modifier1": 0,
            "mountpoint": "",
            "startup_time": 0,
            "requests": requests,
            "exceptions": failed,
            "chdir": "",
        }],
        "cores": [{
            "id": 0,
            "requests": requests,
            "static_requests": 0,
            "routed_requests": 0,
            "offloaded_requests": 0,
            "write_errors": 0,
            "read_errors": 0,
            "in_request": u8::from(is_busy),
            "vars": [],
        }],
        "killed": kills(glance),
    })
}

/// Of this process, in bytes; 0 where the system does not tell.
fn address_space() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
