//! What the allocator keeps of instances that are gone.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shortest time between two looks at the whole heap, which take milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives the system the memory that the allocator keeps for later, after many instances have been dropped: each leaves
/// tables and buffers of some 100 KB behind, which end up between what is in use and would stay with the process.
///
/// Does nothing if that was done within the last second; returns whether it was done. Where the C library is not glibc it is
/// never needed.
pub fn give_back_memory() -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    // Whoever holds the lock does it already.
    let Ok(mut last) = LAST.try_lock() else {
        return false;
    };
    if last.is_some_and(|last| last.elapsed() < PAUSE) {
        return false;
    }
    *last = Some(Instant::now());
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, from any thread (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_done_over_and_over() {
        assert!(give_back_memory());
        assert!(!give_back_memory());
    }
}
