//! After what a worker is replaced though nothing is wrong with it.

use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Dropped;

/// What an instance may come to before it is replaced, after the request in which it has. `None` for no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Requests, and up to a tenth more.
    pub max_requests: Option<u64>,
    /// Time since its start, and up to a tenth more.
    pub max_lifetime: Option<Duration>,
    /// Linear memory in bytes.
    pub max_memory: Option<u64>,
}

/// What is left to one instance. Those of an app do not all go at once.
pub(super) struct Left {
    requests: u64,
    until: Option<Instant>,
    memory: u64,
}

impl Wear {
    pub(super) fn left(&self) -> Left {
        let tenth = |most: u64| rand::random_range(0..=most / 10);
        let lifetime = |life: Duration| life + life.mul_f64(rand::random_range(0.0..0.1));
        Left {
            requests: self
                .max_requests
                .map_or(u64::MAX, |max| max.saturating_add(tenth(max))),
            until: self
                .max_lifetime
                .and_then(|life| Instant::now().checked_add(lifetime(life))),
            memory: self.max_memory.unwrap_or(u64::MAX),
        }
    }
}

impl Left {
    /// Notes a request, after which the instance's memory has so many bytes; why it is to go, if it is.
    pub(super) fn after_request(&mut self, memory: u64) -> Option<Dropped> {
        self.requests = self.requests.saturating_sub(1);
        if self.requests == 0 {
            return Some(Dropped::MaxRequests);
        }
        if memory >= self.memory {
            return Some(Dropped::MaxMemory);
        }
        let is_old = self.until.is_some_and(|until| Instant::now() >= until);
        is_old.then_some(Dropped::MaxLifetime)
    }
}
