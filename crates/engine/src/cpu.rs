//! Who runs: the CPU is shared by weight among busy apps, whatever the number of their instances.
//!
//! A guest runs in **slices**: each poll of a call's future is one. For it the guest needs one of the engine's **slots**, of
//! which there are as many as cores. Who gets one is for [`Fair`] to say; who does not, waits without being polled. A slot
//! is given back when the guest waits for something, when its turn is over, and when an app that has had less begins to
//! wait: then all running guests are made to see a tick at once.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::fair::{AccountId, Fair};
use crate::minute::Minute;
use crate::ticks::Ticks;

/// How long a guest keeps its slot and its thread while others may wait for them: less than a tick, so that one that goes
/// on and on gives way at each. Most requests are done before; one that a tick meets in its midst would wait behind those
/// that are not.
const TURN: Duration = Duration::from_millis(4);

/// The engine's slots.
pub(crate) struct Cpu {
    fair: Mutex<Fair<Waiter>>,
    ticks: Arc<Ticks>,
    accounts: Mutex<HashMap<AppKey, Arc<CpuAccount>>>,
}

/// Tells one app's loads from those of others: its name, and its folder.
pub(crate) type AppKey = (String, PathBuf);

/// A guest that waits for a slot.
struct Waiter {
    turns: Arc<Turns>,
    waker: Waker,
}

impl Cpu {
    pub(crate) fn new(slots: usize, ticks: Arc<Ticks>) -> Self {
        Self {
            fair: Mutex::new(Fair::new(slots)),
            ticks,
            accounts: Mutex::default(),
        }
    }

    /// What a load of an app gets: a share by `weight`, and `per_minute`. The account is one for all of its loads, so that
    /// a load anew does not make up for what those before have had.
    pub(crate) fn share(
        self: &Arc<Self>,
        app: AppKey,
        weight: u32,
        per_minute: Option<Duration>,
    ) -> CpuShare {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fair = self.fair();
        let account = match accounts.get(&app) {
            Some(account) => account.clone(),
            None => {
                let now = Instant::now();
                // What an app that is gone has had is remembered for as long as it would count.
                accounts.retain(|_, account| {
                    let stays =
                        Arc::strong_count(account) > 1 || account.minute().total(now) > Duration::ZERO;
                    if !stays {
                        fair.close(account.id);
                    }
                    stays
                });
                let account = Arc::new(CpuAccount {
                    id: fair.open(weight),
                    minute: Mutex::new(Minute::new(now)),
                });
                accounts.insert(app, account.clone());
                account
            }
        };
        fair.set_weight(account.id, weight);
        drop(fair);
        CpuShare {
            cpu: self.clone(),
            account,
            per_minute,
        }
    }

    fn fair(&self) -> MutexGuard<'_, Fair<Waiter>> {
        self.fair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one app has had of the CPU, with all of its loads.
struct CpuAccount {
    id: AccountId,
    /// Of three locks, this one is taken last.
    minute: Mutex<Minute>,
}

impl CpuAccount {
    fn minute(&self) -> MutexGuard<'_, Minute> {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one load of an app gets of the CPU.
pub(crate) struct CpuShare {
    cpu: Arc<Cpu>,
    account: Arc<CpuAccount>,
    per_minute: Option<Duration>,
}

impl CpuShare {
    /// How long until the app may have more, if it has had `per_minute`.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let free_at = self.account.minute().free_at(now, self.per_minute?)?;
        Some(free_at.saturating_duration_since(now))
    }

    /// Counts what was used until `now`. Who has used up its minute stands back.
    fn charge(&self, fair: &mut Fair<Waiter>, now: Instant, used: Duration) {
        let mut minute = self.account.minute();
        minute.add(now, used);
        let free_at = self.per_minute.and_then(|most| minute.free_at(now, most));
        fair.charge(self.account.id, used);
        fair.stand_back(self.account.id, free_at);
    }
}

/// The turns of one instance, which does one thing at a time.
pub(crate) struct Turns {
    share: Arc<CpuShare>,
    slice: Mutex<Slice>,
}

/// Where an instance is with its slot. Of two locks, this one is taken behind the one of `Cpu`.
struct Slice {
    phase: Phase,
    /// When its turn began.
    turn: Instant,
    /// Up to when its time is counted.
    counted: Instant,
    /// Time that the current piece of work has taken so far.
    spent: Duration,
    /// It ended its slice to let others have the slot, and would go on at once.
    gives_way: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has no slot, and needs none as far as is known.
    Away,
    /// Waits for a slot.
    Waits,
    /// Has a slot, and has not been polled since.
    Granted,
    /// Has a slot and uses it.
    Runs,
}

impl Turns {
    pub(crate) fn new(share: &Arc<CpuShare>) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            share: share.clone(),
            slice: Mutex::new(Slice {
                phase: Phase::Away,
                turn: now,
                counted: now,
                spent: Duration::ZERO,
                gives_way: false,
            }),
        })
    }

    /// Runs `work` to its end in slices, each with a slot. Also gives the time for which it had one.
    pub(crate) async fn run<F: Future>(self: &Arc<Self>, work: F) -> (F::Output, Duration) {
        self.slice().spent = Duration::ZERO;
        let mut work = pin!(work);
        let leave = Leave(self);
        let output = poll_fn(|cx| {
            if !self.enter(cx.waker()) {
                return Poll::Pending;
            }
            let polled = work.as_mut().poll(cx);
            self.leave(polled.is_pending().then(|| cx.waker()));
            polled
        })
        .await;
        drop(leave);
        (output, self.slice().spent)
    }

    /// Counts the time since the last look. Tells whether the guest should [`give_way`](Self::give_way) now: its turn is
    /// over, or an app waits that has had less.
    pub(crate) fn look(&self, now: Instant) -> bool {
        let mut fair = self.share.cpu.fair();
        let mut slice = self.slice();
        if slice.phase != Phase::Runs {
            return false;
        }
        let account = self.share.account.id;
        self.share.charge(&mut fair, now, slice.count(now));
        let is_over = now.saturating_duration_since(slice.turn) >= TURN || fair.is_ahead(account, now);
        if !is_over {
            fair.go_on(account);
        }
        is_over
    }

    /// Ends the slice, and goes on when it has a slot again. Within [`run`](Self::run) alone, which wakes it.
    pub(crate) async fn give_way(&self) {
        let mut gave_way = false;
        poll_fn(|_| {
            if std::mem::replace(&mut gave_way, true) {
                return Poll::Ready(());
            }
            self.slice().gives_way = true;
            Poll::Pending
        })
        .await;
    }

    /// Time that the current piece of work has taken so far.
    pub(crate) fn spent(&self) -> Duration {
        let slice = self.slice();
        match slice.phase {
            Phase::Runs => slice.spent + slice.counted.elapsed(),
            Phase::Away | Phase::Waits | Phase::Granted => slice.spent,
        }
    }

    /// Begins a slice, if there is a slot. Otherwise `waker` is told when there is.
    fn enter(self: &Arc<Self>, waker: &Waker) -> bool {
        let (cpu, account) = (&self.share.cpu, self.share.account.id);
        let mut fair = cpu.fair();
        let mut slice = self.slice();
        match slice.phase {
            Phase::Granted | Phase::Runs => {}
            Phase::Waits => {
                let waiter = fair.waiter(account, |waiter| Arc::ptr_eq(&waiter.turns, self));
                let old = waiter.map(|waiter| std::mem::replace(&mut waiter.waker, waker.clone()));
                drop((slice, fair));
                // With no lock held: the last waker of a task takes it along.
                drop(old);
                return false;
            }
            Phase::Away if fair.take(account) => {}
            Phase::Away => {
                slice.phase = Phase::Waits;
                if fair.wait(account, self.waiter(waker)) {
                    cpu.ticks.advance();
                }
                return false;
            }
        }
        slice.phase = Phase::Runs;
        slice.turn = Instant::now();
        slice.counted = slice.turn;
        true
    }

    /// Ends a slice. With a waker, and if it gave way, it waits for the next at once.
    fn leave(self: &Arc<Self>, waker: Option<&Waker>) {
        let now = Instant::now();
        let account = self.share.account.id;
        let mut fair = self.share.cpu.fair();
        let mut slice = self.slice();
        self.share.charge(&mut fair, now, slice.count(now));
        let gave_way = std::mem::take(&mut slice.gives_way);
        slice.phase = Phase::Away;
        if let Some(waker) = waker.filter(|_| gave_way) {
            slice.phase = Phase::Waits;
            fair.wait(account, self.waiter(waker));
        }
        drop(slice);
        hand_over(fair, account, now);
    }

    fn waiter(self: &Arc<Self>, waker: &Waker) -> Waiter {
        Waiter {
            turns: self.clone(),
            waker: waker.clone(),
        }
    }

    fn slice(&self) -> MutexGuard<'_, Slice> {
        self.slice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slice {
    /// Time that was not counted yet.
    fn count(&mut self, now: Instant) -> Duration {
        let time = now.saturating_duration_since(self.counted);
        self.counted = now;
        self.spent += time;
        time
    }
}

/// Gives back a slot of an account to whoever is next.
fn hand_over(mut fair: MutexGuard<'_, Fair<Waiter>>, account: AccountId, now: Instant) {
    let next = fair.release(account, now);
    if let Some(Waiter { turns, waker }) = next {
        turns.slice().phase = Phase::Granted;
        drop(fair);
        waker.wake();
    }
}

/// Sees to it that work which is dropped, or panics, leaves neither a slot nor a place in the queue behind.
struct Leave<'a>(&'a Arc<Turns>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let (share, turns) = (&self.0.share, self.0);
        let mut fair = share.cpu.fair();
        let phase = std::mem::replace(&mut turns.slice().phase, Phase::Away);
        match phase {
            Phase::Away => {}
            Phase::Waits => {
                let waiter = fair.withdraw(share.account.id, |waiter| Arc::ptr_eq(&waiter.turns, turns));
                drop(fair);
                drop(waiter);
            }
            Phase::Granted | Phase::Runs => hand_over(fair, share.account.id, Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_module::WASM_PAGE;

    fn cpu() -> Arc<Cpu> {
        let ticks = Ticks::new(16 * WASM_PAGE, WASM_PAGE).expect("ticks");
        Arc::new(Cpu::new(1, Arc::new(ticks)))
    }

    fn shop() -> AppKey {
        ("shop".to_owned(), "/srv/shop".into())
    }

    #[test]
    fn all_loads_of_an_app_have_one_account() {
        let cpu = cpu();
        let [first, second] = [100, 300].map(|weight| cpu.share(shop(), weight, None));
        assert!(Arc::ptr_eq(&first.account, &second.account));
        let other = cpu.share(("shop".to_owned(), "/srv/other".into()), 100, None);
        assert!(!Arc::ptr_eq(&other.account, &first.account));
        drop((first, second, other));
        drop(cpu.share(("wiki".to_owned(), PathBuf::new()), 100, None));
        let known = cpu.accounts.lock().expect("not poisoned").len();
        assert_eq!(known, 1, "the others are gone");
    }

    #[test]
    fn a_minute_outlives_the_load_that_has_had_it() {
        let (cpu, now) = (cpu(), Instant::now());
        let most = Some(Duration::from_secs(2));
        let share = cpu.share(shop(), 100, most);
        share.charge(&mut cpu.fair(), now, Duration::from_millis(1_900));
        assert_eq!(share.wait(now), None);
        share.charge(&mut cpu.fair(), now, Duration::from_millis(100));
        let wait = share.wait(now).expect("it has had two seconds");
        assert!((59..=60).contains(&wait.as_secs()), "{wait:?}");
        drop(share);
        drop(cpu.share(("wiki".to_owned(), PathBuf::new()), 100, None));
        let again = cpu.share(shop(), 100, most);
        assert!(again.wait(now).is_some());
        assert_eq!(again.wait(now + wait), None);
        // Another limit holds at once, for what was had before as well.
        let more = cpu.share(shop(), 100, Some(Duration::from_secs(3)));
        assert_eq!(more.wait(now), None);
    }
}
