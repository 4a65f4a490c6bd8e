//! Short files that were just sent, for the requests of the next second.
//!
//! A path is looked up, its siblings with it, opened, read and closed for the first request alone. A change of a file is
//! seen within [`FRESH`].

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reply::Chosen;
use crate::coding::Accepted;

/// How long a file is taken to be as it was.
const FRESH: Duration = Duration::from_secs(1);

/// Largest file that is kept, in bytes.
pub(super) const LARGEST: u64 = 64 << 10;

/// Most bytes that are kept, for all apps of this process together.
const BYTES: u64 = 8 << 20;

/// Most files.
const FILES: usize = 1024;

/// What a request asked for: a mount by its number, the path below it, and what the client takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) mount: u64,
    pub(super) path: Box<[u8]>,
    pub(super) accepted: Accepted,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<Key, (Instant, Chosen)>,
    bytes: u64,
}

/// One for all apps, so that its bound is the process's.
static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The file, if it was put down within the last moment.
pub(super) fn get(key: &Key) -> Option<Chosen> {
    let cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, chosen) = cache.files.get(key)?;
    (since.elapsed() < FRESH).then(|| chosen.clone())
}

/// Keeps a file of at most [`LARGEST`] bytes that has been read.
pub(super) fn put(key: Key, chosen: Chosen) {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    cache.put(key, chosen, Instant::now());
}

impl Cache {
    fn put(&mut self, key: Key, chosen: Chosen, now: Instant) {
        let size = chosen.size();
        if let Some((_, before)) = self.files.remove(&key) {
            self.bytes -= before.size();
        }
        if self.files.len() >= FILES || self.bytes + size > BYTES {
            self.files
                .retain(|_, (since, _)| now.duration_since(*since) < FRESH);
            self.bytes = self.files.values().map(|(_, chosen)| chosen.size()).sum();
        }
        if self.files.len() >= FILES || self.bytes + size > BYTES {
            // More is asked for within a second than there is room for: keeping some of it would not help.
            self.files.clear();
            self.bytes = 0;
        }
        self.bytes += size;
        self.files.insert(key, (now, chosen));
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::tests::short;
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_counted() {
        let key = |number: u64| Key {
            mount: number,
            path: Box::default(),
            accepted: Accepted::default(),
        };
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..3_000 {
            cache.put(key(number), short(60 << 10), now);
            let bytes: u64 = cache.files.values().map(|(_, chosen)| chosen.size()).sum();
            assert!(cache.bytes == bytes && bytes <= BYTES && cache.files.len() <= FILES);
        }
        for number in 0..3_000 {
            cache.put(key(number), short(1), now);
            assert!(cache.files.len() <= FILES);
        }
        // Those that are no longer fresh make room first.
        cache.files.clear();
        cache.bytes = 0;
        for number in 0..FILES as u64 {
            let age = if number == 0 { Duration::ZERO } else { FRESH * 2 };
            cache.put(key(number), short(1), now + FRESH * 2 - age);
        }
        cache.put(key(9_999), short(1), now + FRESH * 2);
        assert_eq!(cache.files.len(), 2);
        // The same again is not counted twice.
        cache.put(key(9_999), short(5), now);
        assert_eq!(cache.bytes, 6);
    }
}
