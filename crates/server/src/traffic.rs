//! What an app's clients got: counted as replies end, over all loads of the app.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::histogram::{Durations, Histogram};

/// Counted on the way of every request, so without a lock.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// By the first digit of the status, from 1.
    statuses: [AtomicU64; 5],
    bytes: AtomicU64,
    times: Histogram,
    waits: Histogram,
}

/// What [`Traffic`] had counted when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Requests by the first digit of their status, from 1; 499 is a peer that went away.
    pub(crate) statuses: [u64; 5],
    /// Of replies' bodies.
    pub(crate) bytes: u64,
    /// From a request's head to the end of its reply.
    pub(crate) times: Durations,
    /// Until a worker took the request, or it was given up.
    pub(crate) waits: Durations,
}

impl Traffic {
    /// A reply has ended. `waited` if the request was given to the app.
    pub(crate) fn ended(&self, status: u16, bytes: u64, time: Duration, waited: Option<Duration>) {
        let class = usize::from(status / 100).clamp(1, self.statuses.len()) - 1;
        self.statuses[class].fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.times.add(time);
        if let Some(waited) = waited {
            self.waits.add(waited);
        }
    }

    pub(crate) fn read(&self) -> Served {
        Served {
            statuses: std::array::from_fn(|class| self.statuses[class].load(Ordering::Relaxed)),
            bytes: self.bytes.load(Ordering::Relaxed),
            times: self.times.read(),
            waits: self.waits.read(),
        }
    }
}

impl Served {
    pub(crate) fn requests(&self) -> u64 {
        self.statuses.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_the_first_digit_of_their_status() {
        let traffic = Traffic::default();
        for status in [101, 200, 204, 301, 404, 499, 503] {
            traffic.ended(status, 10, Duration::from_millis(1), None);
        }
        traffic.ended(200, 0, Duration::from_millis(1), Some(Duration::ZERO));
        let read = traffic.read();
        assert_eq!((read.statuses, read.bytes), ([1, 3, 1, 2, 1], 70));
        assert_eq!(
            (read.times.count(), read.waits.count(), read.requests()),
            (8, 1, 8)
        );
    }
}
