//! What others see of a request while an instance has it, and how they end it before its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::block;

/// Bytes of a request's target that are kept.
const MAX_TARGET: usize = 512;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum At {
    /// No instance has begun with it.
    Waits,
    /// In Python or C code.
    Runs,
    /// In `time.sleep()`, `select()` and their like.
    Sleeps,
    /// Until the client sends more of the request's body.
    ReadsBody,
    /// Until the client takes more of the reply.
    SendsReply,
    /// Its instance is done with it.
    Over,
}

impl At {
    const ALL: [At; 6] = [
        At::Waits,
        At::Runs,
        At::Sleeps,
        At::ReadsBody,
        At::SendsReply,
        At::Over,
    ];

    /// For the log, of a request that is slow.
    pub(crate) fn words(self) -> &'static str {
        match self {
            At::Waits => "has not begun",
            At::Runs => "is running",
            At::Sleeps => "is asleep",
            At::ReadsBody => "waits for more of the request's body",
            At::SendsReply => "waits for the client to take more of the reply",
            At::Over => "is over",
        }
    }
}

/// One request, followed through its instance. What it tells is at most a few milliseconds old while the guest runs.
#[derive(Debug)]
pub struct Track {
    method: Box<str>,
    target: Box<str>,
    peer: Box<str>,
    at: AtomicU8,
    cpu_nanos: AtomicU64,
    memory: AtomicU64,
    killed: AtomicBool,
    /// Told of `killed`; the instance alone waits for it.
    told: Notify,
}

impl Track {
    /// Of a request with this environ block.
    pub(crate) fn of(environ: &[u8]) -> Arc<Self> {
        let (mut method, mut uri, mut path, mut peer) = (&b""[..], None, &b""[..], &b""[..]);
        for (key, value) in block::pairs(environ) {
            match key {
                b"REQUEST_METHOD" => method = value,
                b"REQUEST_URI" => uri = Some(value),
                b"PATH_INFO" => path = value,
                b"REMOTE_ADDR" => peer = value,
                _ => {}
            }
        }
        let text = |value: &[u8]| String::from_utf8_lossy(&value[..value.len().min(MAX_TARGET)]).into();
        Arc::new(Self {
            method: text(method),
            target: text(uri.unwrap_or(path)),
            peer: text(peer),
            at: AtomicU8::new(At::Waits as u8),
            cpu_nanos: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            told: Notify::new(),
        })
    }

    /// Method, as the client had it: not fit for a terminal.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Path and query, as the client had them: not fit for a terminal. At most 512 bytes.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The client's address, empty if it has none.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Where it is.
    pub fn at(&self) -> At {
        At::ALL[usize::from(self.at.load(Ordering::Relaxed))]
    }

    /// For how long the guest has run for it.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(Ordering::Relaxed))
    }

    /// Linear memory of its instance, in bytes; 0 before it has one.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Ends it as its time limit would, from now on: an exception in Python, and the end of the instance if it goes on.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// Whether it was to end.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Ready when it is to end.
    pub async fn killed(&self) {
        while !self.is_killed() {
            // Told before this is asked, it is ready at once.
            self.told.notified().await;
        }
    }

    /// For who handles it.
    pub fn set_at(&self, at: At) {
        self.at.store(at as u8, Ordering::Relaxed);
    }

    /// For who handles it: CPU time, and linear memory in bytes.
    pub fn set_cost(&self, cpu: Duration, memory: u64) {
        // Good for 584 years.
        self.cpu_nanos.store(cpu.as_nanos() as u64, Ordering::Relaxed);
        self.memory.store(memory, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_as_they_were_set() {
        let track = Track::of(&[]);
        for at in At::ALL {
            track.set_at(at);
            assert_eq!(track.at(), at);
        }
    }

    #[test]
    fn a_long_target_is_cut() {
        let mut environ = Vec::new();
        block::push(&mut environ, "REQUEST_METHOD", "GET");
        block::push(&mut environ, "PATH_INFO", "/decoded");
        block::push(&mut environ, "REQUEST_URI", format!("/{}", "é".repeat(600)));
        let track = Track::of(&environ);
        assert_eq!((track.method(), track.peer()), ("GET", ""));
        let target = track.target();
        assert!(
            target.starts_with("/éé") && target.len() < MAX_TARGET + 4,
            "{target}"
        );
    }
}
