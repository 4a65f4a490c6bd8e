//! The memory that all instances of a server may take together, and who gives way when it is short.
//!
//! Each instance holds a [`Share`]: what a new one is expected to take, later what it takes. A pool that wants one more
//! than fits has the instance that has been idle for the longest dropped, whosever it is. When none is idle its
//! requests stay in their queue, and it is told when there is memory again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

/// The memory of a server's instances: one for all of its pools.
pub struct Budget {
    limit: u64,
    state: Mutex<State>,
    /// As many pools wait: to be looked at without the lock.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    used: u64,
    pools: Vec<Weak<dyn Holder>>,
    /// Pools with requests for which there was no memory, first come first.
    waiting: VecDeque<Weak<dyn Holder>>,
}

/// A pool, as the budget knows it.
pub(crate) trait Holder: Send + Sync {
    /// Since when its instance that has been idle for the longest has been so; `None` if none is idle.
    fn idle_since(&self) -> Option<Instant>;

    /// Drops that instance; returns the share that it had.
    fn give_up(&self) -> Option<Share>;

    /// There may be memory now: asks for it again, in a task of its own.
    fn go_on(self: Arc<Self>);
}

/// The memory of one instance. Dropping it gives it back.
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// One of `limit` bytes; `None`: of as much as there is.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.unwrap_or(u64::MAX),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// What instances take now, in bytes.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// What they may take, in bytes; `None` without a limit.
    pub fn limit(&self) -> Option<u64> {
        (self.limit != u64::MAX).then_some(self.limit)
    }

    /// Makes a pool known, so that its idle instances can be dropped for others.
    pub(crate) fn join(&self, pool: Weak<dyn Holder>) {
        if self.limit != u64::MAX {
            let mut state = self.state();
            state.pools.retain(|pool| pool.strong_count() > 0);
            state.pools.push(pool);
        }
    }

    /// Memory for one more instance of `pool`. An instance larger than the budget gets it when there is no other.
    ///
    /// `None` if no idle instance is left to drop: the pool is told then when it should try again. The caller must hold no
    /// lock that a [`Holder`] takes.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64, pool: &Weak<dyn Holder>) -> Option<Share> {
        let mut waits = false;
        loop {
            let mut state = self.state();
            if state.used == 0 || state.used.saturating_add(bytes) <= self.limit {
                state.used = state.used.saturating_add(bytes);
                return Some(Share {
                    budget: Arc::clone(self),
                    bytes,
                });
            }
            drop(state);
            if self.drop_idle() {
                continue;
            }
            if waits {
                return None;
            }
            // What comes free after this look is told, what came free before it is seen by the next.
            waits = true;
            let mut state = self.state();
            if !state.waiting.iter().any(|it| it.ptr_eq(pool)) {
                state.waiting.push_back(pool.clone());
                self.waiting.store(state.waiting.len(), Ordering::Relaxed);
            }
        }
    }

    /// Drops idle instances until what is taken is within the limit again, as far as there are any.
    ///
    /// The caller must hold no lock that a [`Holder`] takes.
    pub(crate) fn trim(&self) {
        while self.used() > self.limit && self.drop_idle() {}
    }

    /// Drops the instance that has been idle for the longest. Nobody is told of its memory: it is for the caller.
    fn drop_idle(&self) -> bool {
        let pools: Vec<_> = self.state().pools.iter().filter_map(Weak::upgrade).collect();
        let mut idle: Vec<_> = pools
            .iter()
            .filter_map(|it| Some((it.idle_since()?, it)))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        // Between the two looks it may have got a request: the next one goes then.
        match idle.iter().find_map(|(_, pool)| pool.give_up()) {
            Some(share) => {
                self.state().used -= share.forget();
                true
            }
            None => false,
        }
    }

    /// Whether a pool waits for memory.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Takes back `bytes`.
    fn release(&self, bytes: u64) {
        self.state().used -= bytes;
        self.tell();
    }

    /// Tells the pool that has waited for the longest: memory is free, or an instance idle that could give way.
    pub(crate) fn tell(&self) {
        if !self.is_short() {
            return;
        }
        let mut state = self.state();
        let next = std::iter::from_fn(|| state.waiting.pop_front()).find_map(|pool| pool.upgrade());
        self.waiting.store(state.waiting.len(), Ordering::Relaxed);
        drop(state);
        if let Some(pool) = next {
            pool.go_on();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the instance has been found to take; that may be more than fits, see [`Budget::trim`].
    pub(crate) fn set(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes >= before {
            self.budget.state().used += bytes - before;
        } else {
            self.budget.release(before - bytes);
        }
    }

    /// Ends without giving anything back; returns the bytes.
    fn forget(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A pool whose idle instances are shares, the one that has been idle for the longest first.
    #[derive(Default)]
    struct Shelf {
        idle: Mutex<VecDeque<(Instant, Share)>>,
        told: AtomicUsize,
    }

    impl Holder for Shelf {
        fn idle_since(&self) -> Option<Instant> {
            self.idle.lock().unwrap().front().map(|(since, _)| *since)
        }

        fn give_up(&self) -> Option<Share> {
            self.idle.lock().unwrap().pop_front().map(|(_, share)| share)
        }

        fn go_on(self: Arc<Self>) {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shelf(budget: &Budget) -> (Arc<Shelf>, Weak<dyn Holder>) {
        let shelf = Arc::new(Shelf::default());
        let weak = Arc::downgrade(&shelf) as Weak<dyn Holder>;
        budget.join(weak.clone());
        (shelf, weak)
    }

    #[test]
    fn the_instance_idle_for_the_longest_goes_first_whosever_it_is() {
        let budget = Budget::new(Some(100));
        let ((a, of_a), (b, of_b)) = (shelf(&budget), shelf(&budget));
        let now = Instant::now();
        for (shelf, weak, since) in [(&a, &of_a, 2), (&b, &of_b, 1), (&b, &of_b, 3)] {
            let share = budget.reserve(30, weak).expect("fits");
            let since = now + Duration::from_secs(since);
            shelf.idle.lock().unwrap().push_back((since, share));
        }
        let left = || [a.idle.lock().unwrap().len(), b.idle.lock().unwrap().len()];
        let first = budget.reserve(30, &of_a).expect("after the oldest of b");
        assert_eq!((left(), budget.used()), ([1, 1], 90));
        let second = budget.reserve(60, &of_b).expect("after both others");
        assert_eq!((left(), budget.used()), ([0, 0], 90));
        assert!(budget.reserve(30, &of_b).is_none());
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn who_finds_no_memory_is_told_when_there_is_some_in_the_order_they_came() {
        let budget = Budget::new(Some(100));
        let ((a, of_a), (b, of_b)) = (shelf(&budget), shelf(&budget));
        let mut busy = budget.reserve(100, &of_a).expect("fits");
        for weak in [&of_b, &of_a, &of_b] {
            assert!(budget.reserve(50, weak).is_none() && budget.is_short());
        }
        let told = || (a.told.load(Ordering::Relaxed), b.told.load(Ordering::Relaxed));
        assert_eq!(told(), (0, 0));
        busy.set(60);
        assert_eq!(told(), (0, 1));
        drop(busy);
        assert_eq!(told(), (1, 1));
        assert!(!budget.is_short());
    }

    #[test]
    fn an_instance_larger_than_the_budget_runs_alone() {
        let budget = Budget::new(Some(100));
        let (_shelf, weak) = shelf(&budget);
        let large = budget.reserve(500, &weak).expect("alone");
        assert!(budget.reserve(1, &weak).is_none());
        drop(large);
        assert!(budget.reserve(1, &weak).is_some());
    }
}
