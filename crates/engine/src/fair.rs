//! Slots shared by weight: start-time fair queuing, as Goyal, Vin and Cheng describe it (SIGCOMM 1996), for several
//! servers at once.
//!
//! Each account has a **virtual time**: what it has used, over its weight. A slot goes to the waiting account with the
//! smallest. One that begins to wait after it was idle starts a little before the queue's own virtual time, which is that
//! of the slice begun furthest ahead: it is served next, is not held up in the midst of a short piece of work by those
//! that go on and on, and cannot have saved up more than that.
//!
//! One that has used up what it may have in a minute **stands back**: it gets what the others leave.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The weight at which virtual time is time.
const UNIT: u32 = 100;

/// How far an account's virtual time may stay behind the queue's. One with fewer waiters than its share has slots falls
/// behind without having been wronged, and would get all slots for as long once it had more.
const LAG: u64 = Duration::from_millis(100).as_nanos() as u64;

/// How far before the queue's virtual time an account starts that was idle: two ticks, in which most requests are done.
/// Without it one that has just been served would be ahead of who burns as soon as it has run for a moment, and lose its
/// slot at the next tick. Virtual time is only ever raised to this point, so nobody gets more than their share for it.
const HEAD_START: u64 = Duration::from_millis(10).as_nanos() as u64;

/// Slots, who waits for one, and what each account has used. Knows no clock: it is told what was used, and what time it is.
pub(crate) struct Fair<T> {
    slots: usize,
    free: usize,
    /// The queue's virtual time.
    now: u64,
    accounts: Vec<Account<T>>,
    /// Those accounts that belong to nobody.
    unused: Vec<AccountId>,
    /// Accounts with waiters. Few of many apps are busy at a time, so they are looked through.
    waiting: Vec<AccountId>,
}

/// Names an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountId(usize);

struct Account<T> {
    weight: u32,
    virtual_time: u64,
    /// Until when it stands back.
    back_until: Option<Instant>,
    /// Slots it has.
    held: usize,
    /// First come, first served.
    waiters: VecDeque<T>,
}

impl<T> Fair<T> {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots,
            free: slots,
            now: 0,
            accounts: Vec::new(),
            unused: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// A new account; one of twice the weight gets twice the time.
    pub(crate) fn open(&mut self, weight: u32) -> AccountId {
        let account = Account {
            weight: weight.max(1),
            virtual_time: self.now,
            back_until: None,
            held: 0,
            waiters: VecDeque::new(),
        };
        match self.unused.pop() {
            Some(id) => {
                self.accounts[id.0] = account;
                id
            }
            None => {
                self.accounts.push(account);
                AccountId(self.accounts.len() - 1)
            }
        }
    }

    /// Gives an account another weight from here on.
    pub(crate) fn set_weight(&mut self, id: AccountId, weight: u32) {
        self.accounts[id.0].weight = weight.max(1);
    }

    /// The end of an account that has no slots and no waiters.
    pub(crate) fn close(&mut self, id: AccountId) {
        self.unused.push(id);
    }

    /// Takes a slot if one is free; then nobody waits.
    pub(crate) fn take(&mut self, id: AccountId) -> bool {
        if self.free == 0 {
            return false;
        }
        self.free -= 1;
        self.wake(id);
        self.grant(id);
        true
    }

    /// Waits for a slot; [`release`](Self::release) hands `waiter` out again. Tells whether one that runs has had more,
    /// as far as is known, and should be asked for its slot.
    pub(crate) fn wait(&mut self, id: AccountId, waiter: T) -> bool {
        self.wake(id);
        let account = &mut self.accounts[id.0];
        if account.waiters.is_empty() {
            self.waiting.push(id);
        }
        account.waiters.push_back(waiter);
        account.virtual_time <= self.now && account.held < self.slots - self.free
    }

    /// The first waiter of an account that is the one looked for.
    pub(crate) fn waiter(&mut self, id: AccountId, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.accounts[id.0]
            .waiters
            .iter_mut()
            .find(|waiter| is_it(waiter))
    }

    /// Has a waiter wait no longer.
    pub(crate) fn withdraw(&mut self, id: AccountId, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let waiters = &mut self.accounts[id.0].waiters;
        let waiter = waiters.remove(waiters.iter().position(is_it)?);
        if waiters.is_empty() {
            self.waiting.retain(|other| *other != id);
        }
        waiter
    }

    /// Counts what was used of a slot that is held.
    pub(crate) fn charge(&mut self, id: AccountId, used: Duration) {
        let account = &mut self.accounts[id.0];
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let virtually = used.saturating_mul(UNIT.into()) / u64::from(account.weight);
        account.virtual_time =
            (account.virtual_time.saturating_add(virtually)).max(self.now.saturating_sub(LAG));
    }

    /// Has an account stand back until then.
    pub(crate) fn stand_back(&mut self, id: AccountId, until: Option<Instant>) {
        self.accounts[id.0].back_until = until;
    }

    /// The lower, the sooner it is its turn.
    fn rank(&self, id: AccountId, now: Instant) -> (bool, u64) {
        let account = &self.accounts[id.0];
        let stands_back = account.back_until.is_some_and(|until| now < until);
        (stands_back, account.virtual_time)
    }

    /// Who has a slot goes on with it: as if a new slice began.
    pub(crate) fn go_on(&mut self, id: AccountId) {
        self.now = self.now.max(self.accounts[id.0].virtual_time);
    }

    /// Whether another account waits whose turn it is.
    pub(crate) fn is_ahead(&self, id: AccountId, now: Instant) -> bool {
        let own = self.rank(id, now);
        let mut waiting = self.waiting.iter();
        waiting.any(|&other| other != id && self.rank(other, now) < own)
    }

    /// Gives a slot back. Who gets it, if anybody waits: it is theirs from here on.
    pub(crate) fn release(&mut self, id: AccountId, now: Instant) -> Option<T> {
        self.accounts[id.0].held -= 1;
        let least = (0..self.waiting.len()).min_by_key(|&at| self.rank(self.waiting[at], now));
        let Some(at) = least else {
            self.free += 1;
            return None;
        };
        let next = self.waiting[at];
        let waiters = &mut self.accounts[next.0].waiters;
        let waiter = waiters.pop_front();
        // Accounts of the same virtual time take turns: who waits on goes behind the others.
        self.waiting.remove(at);
        if !waiters.is_empty() {
            self.waiting.push(next);
        }
        self.grant(next);
        waiter
    }

    /// An account that was idle has saved up its head start, and no more.
    fn wake(&mut self, id: AccountId) {
        let account = &mut self.accounts[id.0];
        if account.held == 0 && account.waiters.is_empty() {
            account.virtual_time = (account.virtual_time).max(self.now.saturating_sub(HEAD_START));
        }
    }

    fn grant(&mut self, id: AccountId) {
        self.accounts[id.0].held += 1;
        self.go_on(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(5);

    /// Who has the slots, and how many slices each account has had.
    struct Machine {
        fair: Fair<AccountId>,
        running: Vec<AccountId>,
        slices: Vec<usize>,
        now: Instant,
    }

    impl Machine {
        fn new(slots: usize) -> Self {
            Self {
                fair: Fair::new(slots),
                running: Vec::new(),
                slices: Vec::new(),
                now: Instant::now(),
            }
        }

        /// An app with `workers` that are always busy.
        fn busy(&mut self, weight: u32, workers: usize) -> AccountId {
            let id = self.fair.open(weight);
            self.slices.resize(id.0 + 1, 0);
            for _ in 0..workers {
                self.start(id);
            }
            id
        }

        fn start(&mut self, id: AccountId) {
            match self.fair.take(id) {
                true => self.running.push(id),
                false => {
                    self.fair.wait(id, id);
                }
            }
        }

        /// Every running guest has a slice and waits for the next.
        fn run(&mut self, rounds: usize) {
            for _ in 0..rounds {
                for id in std::mem::take(&mut self.running) {
                    self.slices[id.0] += 1;
                    self.fair.charge(id, SLICE);
                    self.fair.wait(id, id);
                    self.running.extend(self.fair.release(id, self.now));
                }
            }
        }

        fn share(&self, id: AccountId) -> f64 {
            self.slices[id.0] as f64 / self.slices.iter().sum::<usize>() as f64
        }
    }

    #[test]
    fn time_is_shared_by_weight_whatever_the_number_of_workers() {
        for slots in [1, 2, 4] {
            let mut machine = Machine::new(slots);
            let many = machine.busy(100, 50);
            let few = machine.busy(100, slots);
            let heavy = machine.busy(200, slots);
            machine.run(4000);
            for (id, share) in [(many, 0.25), (few, 0.25), (heavy, 0.5)] {
                let got = machine.share(id);
                assert!((got - share).abs() < 0.01, "{id:?} of {slots} slots: {got}");
            }
        }
    }

    #[test]
    fn who_comes_is_next_and_asks_for_a_slot() {
        let mut machine = Machine::new(2);
        let busy = machine.busy(100, 8);
        let light = machine.fair.open(100);
        machine.run(100);
        assert!(machine.fair.wait(light, light), "asks for a slot");
        machine.fair.charge(busy, SLICE);
        assert!(machine.fair.is_ahead(busy, machine.now));
        assert_eq!(machine.fair.release(busy, machine.now), Some(light));
        assert!(!machine.fair.is_ahead(busy, machine.now), "nobody else waits");
    }

    #[test]
    fn who_comes_keeps_its_slot_for_a_short_piece_of_work() {
        let mut machine = Machine::new(2);
        let busy = machine.busy(100, 8);
        let light = machine.fair.open(100);
        machine.run(100);
        machine.fair.wait(light, light);
        assert_eq!(machine.fair.release(busy, machine.now), Some(light));
        // A tick in its midst, which the guest with the other slot has not seen yet.
        machine.fair.charge(light, SLICE);
        assert!(!machine.fair.is_ahead(light, machine.now));
    }

    #[test]
    fn nothing_is_saved_up_by_being_idle_or_by_having_few_workers() {
        let mut machine = Machine::new(2);
        let many = machine.busy(100, 8);
        let one = machine.busy(100, 1);
        let idle = machine.fair.open(100);
        machine.slices.push(0);
        machine.run(2000);
        for id in [one, idle] {
            let before = machine.slices[many.0];
            for _ in 0..8 {
                machine.start(id);
            }
            machine.run(200);
            let got = machine.slices[many.0] - before;
            assert!(got > 100, "{got} of 400 slices");
        }
    }

    #[test]
    fn the_smallest_weight_gets_its_share_too() {
        let mut machine = Machine::new(1);
        let (light, heavy) = (machine.busy(1, 4), machine.busy(100, 1));
        machine.run(5050);
        assert!(machine.slices[light.0].abs_diff(50) <= 2, "{:?}", machine.slices);
        assert!(
            machine.slices[heavy.0].abs_diff(5000) <= 2,
            "{:?}",
            machine.slices
        );
    }

    #[test]
    fn who_withdraws_gets_no_slot() {
        let (mut fair, now) = (Fair::new(1), Instant::now());
        let (a, b) = (fair.open(100), fair.open(100));
        assert!(fair.take(a) && !fair.take(b));
        fair.wait(b, 'b');
        fair.wait(b, 'c');
        assert_eq!(fair.withdraw(b, |waiter| *waiter == 'b'), Some('b'));
        assert_eq!(fair.release(a, now), Some('c'));
        assert_eq!(fair.release(b, now), None);
        assert!(fair.take(a), "the slot is free again");
    }

    #[test]
    fn an_app_of_its_own_is_served_in_the_order_it_came() {
        let (mut fair, now) = (Fair::new(1), Instant::now());
        let a = fair.open(100);
        assert!(fair.take(a));
        for waiter in 0..3 {
            assert!(!fair.wait(a, waiter), "has nobody else to ask");
        }
        for waiter in 0..3 {
            assert_eq!(fair.release(a, now), Some(waiter));
        }
    }

    #[test]
    fn who_stands_back_gets_what_others_leave_until_the_time_is_over() {
        let mut machine = Machine::new(2);
        let (back, other) = (machine.busy(100, 4), machine.busy(100, 1));
        let until = machine.now + Duration::from_secs(1);
        machine.fair.stand_back(back, Some(until));
        machine.run(1000);
        // The other has a worker for one of the slots.
        let got = machine.share(back);
        assert!((got - 0.5).abs() < 0.01, "{got}");
        for _ in 0..3 {
            machine.start(other);
        }
        let before = machine.slices[back.0];
        machine.run(1000);
        assert!(machine.slices[back.0] - before <= 2, "{:?}", machine.slices);
        assert!(!machine.fair.is_ahead(other, machine.now));

        machine.now = until;
        machine.slices.fill(0);
        machine.run(1000);
        // No more than it could have saved up anyway.
        let got = machine.share(back);
        assert!((got - 0.5).abs() < 0.02, "{got}");
    }
}
