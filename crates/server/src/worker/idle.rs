//! Instances that nobody needs: they go after a while, or when others need their memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::time::{Instant, sleep};
use wasgi_engine::give_back_memory;

use super::{Live, Pool, Workers};
use crate::budget::{Holder, Share};
use crate::metrics::Dropped;
use crate::runner::Runner;

/// Whether an instance was dropped since the allocator was last told to give back what it keeps.
static DROPPED: AtomicBool = AtomicBool::new(false);

/// Gives back the memory of instances that have not been needed for a while, all but those that are kept.
pub(super) async fn drop_idle<R: Runner>(pool: Weak<Pool<R>>, Workers { kept, idle, .. }: Workers) {
    loop {
        sleep(idle / 3).await;
        if DROPPED.swap(false, Ordering::Relaxed) && !give_back_memory() {
            // Too soon: some pool's next look.
            DROPPED.store(true, Ordering::Relaxed);
        }
        let Some(pool) = pool.upgrade() else { return };
        let dropped: Vec<_> = {
            let mut state = pool.state();
            let there = state.free.iter().filter(|worker| worker.live.is_some()).count();
            state
                .free
                .iter_mut()
                .filter(|worker| worker.live.is_some() && worker.idle_since.elapsed() >= idle)
                .take(there.saturating_sub(kept as usize))
                .map(|worker| worker.live.take())
                .collect()
        };
        for _ in &dropped {
            pool.metrics.dropped(Dropped::Idle);
        }
        if !dropped.is_empty() {
            drop(dropped);
            DROPPED.store(true, Ordering::Relaxed);
        }
    }
}

/// Free workers are in the order in which they became so, below them those that have no instance.
impl<R: Runner> Holder for Pool<R> {
    fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        let oldest = state.free.iter().find(|worker| worker.live.is_some())?;
        Some(oldest.idle_since)
    }

    fn give_up(&self) -> Option<Share> {
        let Live { instance, share, .. } = {
            let mut state = self.state();
            state.free.iter_mut().find_map(|worker| worker.live.take())?
        };
        drop(instance);
        self.metrics.dropped(Dropped::Evicted);
        Some(share)
    }

    fn go_on(self: Arc<Self>) {
        let guests = self.guests.clone();
        guests.spawn(async move { self.start_waiting() });
    }
}
