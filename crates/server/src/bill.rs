//! The bill of a request: what it cost, told on its access line.
//!
//! A request ends twice. Its peer has the reply, and its worker is done with it: after the app's `close()` and the way
//! back to the snapshot, which are later than the reply for a quick peer and earlier for a slow one. Neither waits for the
//! other: whichever comes last writes the line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasgi_engine::{Report, Rewound};

/// What a request has cost, as far as a worker came with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Time the guest ran, and the instance's memory after it in bytes.
    pub(crate) ran: Option<(Duration, u64)>,
    /// Going back to the snapshot, if that was done.
    pub(crate) rewound: Option<Rewound>,
    pub(crate) times: Times,
}

/// When each step of a request was done, as far as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// It was given to the workers.
    pub(crate) queued: Option<Instant>,
    /// A worker took it.
    pub(crate) taken: Option<Instant>,
    /// The worker had an instance, which it had not before.
    pub(crate) restored: Option<Instant>,
    /// The app was done with it.
    pub(crate) handled: Option<Instant>,
    /// The instance was back at its snapshot.
    pub(crate) rewound: Option<Instant>,
}

/// What writes the access line.
pub(crate) trait Line: Send {
    fn write(self: Box<Self>, cost: &Cost);
}

/// Where the two ends of a request meet.
pub(crate) struct Bill(Mutex<State>);

enum State {
    Open,
    /// The reply is out, or its peer gone.
    Replied(Box<dyn Line>),
    Paid(Cost),
}

impl Bill {
    /// The bill, and the worker's end of it.
    pub(crate) fn open() -> (Arc<Self>, Meter) {
        let bill = Arc::new(Self(Mutex::new(State::Open)));
        let meter = Meter {
            bill: Some(Arc::clone(&bill)),
            cost: Cost {
                times: Times {
                    queued: Some(Instant::now()),
                    ..Times::default()
                },
                ..Cost::default()
            },
        };
        (bill, meter)
    }

    /// The reply is over: writes its line, or leaves that to the worker.
    pub(crate) fn replied(&self, line: Box<dyn Line>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Paid(cost) => {
                drop(state);
                line.write(&cost);
            }
            State::Open | State::Replied(_) => *state = State::Replied(line),
        }
    }

    fn paid(&self, cost: Cost) {
        let before = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Paid(cost))
        };
        if let State::Replied(line) = before {
            line.write(&cost);
        }
    }
}

impl std::fmt::Debug for Bill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bill").finish_non_exhaustive()
    }
}

/// The worker's end of a bill. Dropping it hands in what is known by then.
#[derive(Default)]
pub(crate) struct Meter {
    /// `None` when nobody asked for a bill.
    bill: Option<Arc<Bill>>,
    cost: Cost,
}

impl Meter {
    pub(crate) fn taken(&mut self) {
        self.cost.times.taken = self.now();
    }

    pub(crate) fn restored(&mut self) {
        self.cost.times.restored = self.now();
    }

    pub(crate) fn ran(&mut self, report: &Report) {
        self.cost.ran = Some((report.cpu, report.memory));
        self.cost.times.handled = self.now();
    }

    pub(crate) fn rewound(&mut self, rewound: Rewound) {
        self.cost.rewound = Some(rewound);
        self.cost.times.rewound = self.now();
    }

    /// Nobody looks at a clock for a bill that nobody asked for.
    fn now(&self) -> Option<Instant> {
        self.bill.as_ref().map(|_| Instant::now())
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bill) = &self.bill {
            bill.paid(self.cost);
        }
    }
}
