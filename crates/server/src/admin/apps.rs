//! `/apps`: each app as JSON, for `wasgi top` and scripts.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::histogram::ENDS;
use crate::metrics::Dropped;
use crate::site::{Down, Glance};

/// A list, ordered by name. Counts are since the server's start; times are in milliseconds, memory in bytes.
pub(super) fn apps(glances: &[Glance]) -> Value {
    glances.iter().map(app).collect()
}

fn app(glance: &Glance) -> Value {
    let Glance {
        figures,
        held,
        served,
        ..
    } = glance;
    let dropped: Map<_, _> = figures
        .dropped
        .iter()
        .map(|(why, count)| (why.label().to_owned(), (*count).into()))
        .collect();
    let reason = match &glance.down {
        Some(Down::Failed(why)) => Some(&**why),
        Some(Down::Drained) | None => None,
    };
    json!({
        "name": &*glance.name,
        "state": state(glance),
        "reason": reason,
        "generation": glance.generation,
        "requests": served.requests(),
        "statuses": served.statuses,
        "in_flight": glance.running,
        "queue": glance.waiting,
        "p50_ms": served.times.within(0.5).map(millis),
        "p99_ms": served.times.within(0.99).map(millis),
        "queue_p99_ms": served.waits.within(0.99).map(millis),
        // As they are counted: who looks twice can tell what lies between.
        "latency": { "ends_us": &ENDS[..], "counts": &served.times.counts[..] },
        "bytes_out": served.bytes,
        "cpu_ms": millis(figures.cpu + glance.running_cpu),
        "memory": held.memory,
        "instances": held.instances,
        "starts": { "cold": figures.started - figures.restored, "restored": figures.restored },
        "dropped": dropped,
        "kills": kills(glance),
    })
}

pub(super) fn state(glance: &Glance) -> &'static str {
    match glance.down {
        None => "serving",
        Some(Down::Failed(_)) => "failed",
        Some(Down::Drained) => "drained",
    }
}

/// Instances that were ended with the request they ran.
pub(super) fn kills(glance: &Glance) -> u64 {
    let dropped = glance.figures.dropped.iter();
    let killed = dropped.filter(|(why, _)| {
        matches!(
            why,
            Dropped::TimeLimit
                | Dropped::CpuLimit
                | Dropped::Killed
                | Dropped::MemoryLimit
                | Dropped::Crashed
        )
    });
    killed.map(|(_, count)| count).sum()
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
