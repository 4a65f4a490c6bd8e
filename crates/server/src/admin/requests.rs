//! `/requests`: what runs now and what waits, as JSON, for `wasgi ps` and scripts; and the end of one of them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::run::Server;
use crate::runner::Runner;
use crate::site::Site;
use crate::worker::Errand;

use super::apps::millis;

/// A list, the longest-running first. Times are in milliseconds, memory in bytes. `where` is `queue` (no worker has it),
/// `start` (its worker's instance is being made), `guest` (Python or C code runs), `sleep`, `body` (waits for the client to
/// send) or `sending` (the client has not taken all of the reply).
pub(super) fn requests<R: Runner>(server: &Server<R>) -> Value {
    let mut all: Vec<(Arc<str>, Errand)> = Vec::new();
    for site in server.routes().sites() {
        all.extend(site.errands().into_iter().map(|it| (Arc::clone(site.name()), it)));
    }
    all.sort_by_key(|(_, errand)| std::cmp::Reverse(errand.age()));
    all.iter().map(|(app, errand)| request(app, errand)).collect()
}

fn request(app: &str, errand: &Errand) -> Value {
    let track = errand.track();
    json!({
        "app": app,
        "id": errand.id(),
        "method": track.method(),
        "target": track.target(),
        "peer": track.peer(),
        "age_ms": millis(errand.age()),
        "worker": errand.number(),
        "where": errand.place(),
        "cpu_ms": millis(track.cpu()),
        "memory": track.memory(),
        "killed": track.is_killed(),
    })
}

/// What becomes of `wasgi kill`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Killed {
    /// In this app.
    Of(Arc<str>),
    Unknown,
    /// Requests of these apps are called so.
    Ambiguous(Vec<Arc<str>>),
}

/// Ends the request that `named` names: `ID`, or `APP/ID`.
pub(super) fn kill<R: Runner>(server: &Server<R>, named: &str) -> Killed {
    let has = |site: &Site<R>, id: &str| site.errands().iter().any(|errand| errand.id() == id);
    let mut found: Vec<(Arc<Site<R>>, &str)> = Vec::new();
    for site in server.routes().sites() {
        // An id may have slashes in it, if it is a peer's.
        let rest = named.strip_prefix(&**site.name());
        let within = rest.and_then(|rest| rest.strip_prefix('/'));
        for id in [Some(named), within].into_iter().flatten() {
            if has(&site, id) {
                found.push((Arc::clone(&site), id));
            }
        }
    }
    match &found[..] {
        [] => Killed::Unknown,
        // Over by now, if it is none.
        [(site, id)] => match site.kill(id) {
            0 => Killed::Unknown,
            _ => Killed::Of(Arc::clone(site.name())),
        },
        _ => Killed::Ambiguous(found.iter().map(|(site, _)| Arc::clone(site.name())).collect()),
    }
}
