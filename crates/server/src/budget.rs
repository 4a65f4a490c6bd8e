//! The memory that all instances of a server may take together, and who gives way when it is short.
//!
//! Each instance holds a [`Share`]: what a new one is expected to take, later what it takes. A pool that wants one more
//! than fits has the instance that has been idle for the longest dropped, whosever it is. When none is idle its
//! requests stay in their queue, and it is told when there is memory again.
//!
//! An app's own budget lies within the server's: what an instance takes counts in both, and what an app finds no room for in
//! its own it makes there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

/// The memory of a server's instances: one for all of its pools, and one for those of each app.
pub struct Budget {
    limit: AtomicU64,
    /// What it lies within.
    above: Option<Arc<Budget>>,
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
    /// The same bytes of the budget above.
    above: Option<Box<Share>>,
}

impl Budget {
    /// One of `limit` bytes; `None`: of as much as there is.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            above: None,
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// One for the instances of an app, without a limit of its own yet.
    pub(crate) fn within(above: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(u64::MAX),
            above: Some(Arc::clone(above)),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Another limit from here on; what is taken already stays taken.
    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.tell_next();
    }

    fn most(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// What instances take now, in bytes.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// What they may take, in bytes; `None` without a limit.
    pub fn limit(&self) -> Option<u64> {
        Some(self.most()).filter(|limit| *limit != u64::MAX)
    }

    /// Makes a pool known, so that its idle instances can be dropped for others.
    pub(crate) fn join(&self, pool: Weak<dyn Holder>) {
        if let Some(above) = &self.above {
            above.join(pool.clone());
        }
        // An app's budget may get a limit later.
        if self.above.is_some() || self.most() != u64::MAX {
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
            if state.used == 0 || state.used.saturating_add(bytes) <= self.most() {
                state.used = state.used.saturating_add(bytes);
                drop(state);
                let mut share = Share {
                    budget: Arc::clone(self),
                    bytes,
                    above: None,
                };
                if let Some(above) = &self.above {
                    share.above = Some(Box::new(above.reserve(bytes, pool)?));
                }
                return Some(share);
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
        while self.used() > self.most() && self.drop_idle() {}
        if let Some(above) = &self.above {
            above.trim();
        }
    }

    /// Drops the instance that has been idle for the longest. Nobody is told of its memory here: it is for the caller.
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
                let bytes = share.forget(self);
                self.state().used -= bytes;
                true
            }
            None => false,
        }
    }

    /// Whether a pool waits for memory.
    fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether an app may wait for memory that another has.
    pub(crate) fn is_contended(&self) -> bool {
        self.above.as_deref().unwrap_or(self).is_short()
    }

    /// Takes back `bytes`.
    fn release(&self, bytes: u64) {
        self.state().used -= bytes;
        self.tell_next();
    }

    /// Tells the pool that has waited for the longest: memory is free, or an instance idle that could give way.
    pub(crate) fn tell(&self) {
        if let Some(above) = &self.above {
            above.tell();
        }
        self.tell_next();
    }

    /// Who waits for memory of the budget above is not helped by some of this one, and would ask again and again.
    fn tell_next(&self) {
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
        if let Some(above) = &mut self.above {
            above.set(bytes);
        }
    }

    /// Ends without giving anything back to `budget`; returns the bytes.
    fn forget(mut self, budget: &Budget) -> u64 {
        let mut share = &mut self;
        loop {
            if std::ptr::eq(&*share.budget, budget) {
                return std::mem::take(&mut share.bytes);
            }
            match &mut share.above {
                Some(above) => share = above,
                None => return 0,
            }
        }
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

    #[test]
    fn an_app_makes_room_within_its_own_budget_and_counts_in_the_servers() {
        let server = Budget::new(Some(100));
        let app = Budget::within(&server);
        app.set_limit(Some(50));
        let ((a, of_a), (b, of_b)) = (shelf(&app), shelf(&server));
        let now = Instant::now();
        let shelve = |shelf: &Shelf, share, since| {
            let since = now + Duration::from_secs(since);
            shelf.idle.lock().unwrap().push_back((since, share));
        };
        let left = || [a.idle.lock().unwrap().len(), b.idle.lock().unwrap().len()];
        shelve(&b, server.reserve(30, &of_b).expect("fits"), 1);
        shelve(&a, app.reserve(30, &of_a).expect("fits"), 2);
        assert_eq!((app.used(), server.used()), (30, 60));
        // Its own goes, though the other's has been idle for longer.
        let mut busy = app.reserve(40, &of_a).expect("after its own");
        assert_eq!((left(), app.used(), server.used()), ([0, 1], 40, 70));
        assert!(app.reserve(40, &of_a).is_none());
        assert!(app.is_short() && !app.is_contended());
        // What it takes more than was expected counts in both.
        busy.set(45);
        assert_eq!((app.used(), server.used()), (45, 75));
        drop(busy);
        assert_eq!(a.told.load(Ordering::Relaxed), 1);
        assert_eq!((app.used(), server.used()), (0, 30));

        // What the server lacks it takes from whoever has been idle for the longest, and both know.
        shelve(&a, app.reserve(50, &of_a).expect("fits"), 0);
        let large = server.reserve(60, &of_b).expect("after a's");
        assert_eq!((left(), app.used(), server.used()), ([0, 1], 0, 90));
        drop(large);
        app.set_limit(None);
        let all = app.reserve(100, &of_a).expect("after b's");
        assert_eq!((left(), app.used(), server.used()), ([0, 0], 100, 100));
        drop(all);
        assert_eq!((app.used(), server.used()), (0, 0));
    }

    #[test]
    fn who_finds_no_memory_above_leaves_its_own_as_it_was() {
        let server = Budget::new(Some(100));
        let app = Budget::within(&server);
        let ((_a, of_a), (_b, of_b)) = (shelf(&app), shelf(&server));
        let busy = server.reserve(100, &of_b).expect("fits");
        assert!(app.reserve(10, &of_a).is_none() && app.is_contended());
        assert_eq!(app.used(), 0);
        drop(busy);
        assert!(app.reserve(10, &of_a).is_some());
    }
}
