//! What an app's requests and instances come to, counted as they go.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wasgi_engine::{Report, RewindError, Rewound, WhyNot};

/// Why an instance was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its request ran into `limits.time`.
    TimeLimit,
    /// Its request ran into `limits.cpu`.
    CpuLimit,
    /// The operator ended its request.
    Killed,
    /// Its memory reached `limits.memory`.
    MemoryLimit,
    /// The app ended its interpreter.
    Exited,
    /// WebAssembly stopped it.
    Crashed,
    /// It had handled `max-requests`.
    MaxRequests,
    /// It had lived for `max-lifetime`.
    MaxLifetime,
    /// Its memory had come to `max-memory`.
    MaxMemory,
    /// It was beyond those that are kept, and not needed for a while.
    Idle,
    /// Another needed its memory.
    Evicted,
    /// Its memory had grown past the snapshot's size.
    Grown,
    /// There is no snapshot to go back to.
    NoSnapshot,
    /// The way back to the snapshot failed.
    NotRewound,
    /// `verify-rewind` found it changed.
    Differs,
}

impl Dropped {
    pub(crate) const ALL: [Dropped; 15] = [
        Dropped::TimeLimit,
        Dropped::CpuLimit,
        Dropped::Killed,
        Dropped::MemoryLimit,
        Dropped::Exited,
        Dropped::Crashed,
        Dropped::MaxRequests,
        Dropped::MaxLifetime,
        Dropped::MaxMemory,
        Dropped::Idle,
        Dropped::Evicted,
        Dropped::Grown,
        Dropped::NoSnapshot,
        Dropped::NotRewound,
        Dropped::Differs,
    ];

    /// As a label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Dropped::TimeLimit => "time-limit",
            Dropped::CpuLimit => "cpu-limit",
            Dropped::Killed => "killed",
            Dropped::MemoryLimit => "memory-limit",
            Dropped::Exited => "exited",
            Dropped::Crashed => "crashed",
            Dropped::MaxRequests => "max-requests",
            Dropped::MaxLifetime => "max-lifetime",
            Dropped::MaxMemory => "max-memory",
            Dropped::Idle => "idle",
            Dropped::Evicted => "evicted",
            Dropped::Grown => "grown",
            Dropped::NoSnapshot => "no-snapshot",
            Dropped::NotRewound => "not-rewound",
            Dropped::Differs => "differs",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Dropped::TimeLimit => "at the time limit",
            Dropped::CpuLimit => "at the limit of CPU time",
            Dropped::Killed => "ended by the operator",
            Dropped::MemoryLimit => "at the memory limit",
            Dropped::Exited => "ended by the app",
            Dropped::Crashed => "crashed",
            Dropped::MaxRequests => "after max-requests",
            Dropped::MaxLifetime => "after max-lifetime",
            Dropped::MaxMemory => "at max-memory",
            Dropped::Idle => "idle",
            Dropped::Evicted => "for others' memory",
            Dropped::Grown => "grown past the snapshot",
            Dropped::NoSnapshot => "without a snapshot",
            Dropped::NotRewound => "not rewound",
            Dropped::Differs => "changed after a rewind",
        }
    }
}

impl From<&WhyNot> for Dropped {
    fn from(why: &WhyNot) -> Self {
        match why {
            WhyNot::TimeLimit(_) => Dropped::TimeLimit,
            WhyNot::CpuLimit(_) => Dropped::CpuLimit,
            WhyNot::Killed => Dropped::Killed,
            WhyNot::MemoryLimit { .. } => Dropped::MemoryLimit,
            WhyNot::Exited(_) => Dropped::Exited,
            WhyNot::Crashed(_) => Dropped::Crashed,
        }
    }
}

impl From<&RewindError> for Dropped {
    fn from(error: &RewindError) -> Self {
        match error {
            RewindError::NoSnapshot => Dropped::NoSnapshot,
            RewindError::Grown(_) => Dropped::Grown,
            RewindError::System(_) | RewindError::Mount(_) | RewindError::Hook => Dropped::NotRewound,
            RewindError::Differs(_) => Dropped::Differs,
        }
    }
}

/// The counters of one app. Each is exact; read together while requests run, they may be a request apart.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: AtomicU64,
    cpu_nanos: AtomicU64,
    rewinds: AtomicU64,
    pages: AtomicU64,
    rewind_nanos: AtomicU64,
    started: AtomicU64,
    restored: AtomicU64,
    /// Of the last start, in seconds since 1970.
    last_start: AtomicU64,
    instances: AtomicU64,
    memory: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl Metrics {
    pub(crate) fn handled(&self, report: &Report) {
        add(&self.requests, 1);
        add(&self.cpu_nanos, nanos(report.cpu));
    }

    pub(crate) fn rewound(&self, rewound: &Rewound) {
        add(&self.rewinds, 1);
        add(&self.pages, rewound.pages.unwrap_or(0) as u64);
        add(&self.rewind_nanos, nanos(rewound.time));
    }

    /// An instance was started, by import or as a copy of the snapshot.
    pub(crate) fn started(&self, is_copy: bool) {
        add(&self.started, 1);
        add(&self.restored, is_copy.into());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        self.last_start.store(seconds, Ordering::Relaxed);
    }

    /// An instance was dropped. Returns whether it is the first for this reason.
    pub(crate) fn dropped(&self, why: Dropped) -> bool {
        add(&self.dropped[why as usize], 1) == 0
    }

    /// Instances that are there, and the memory they have for themselves.
    pub(crate) fn held(&self) -> Held {
        Held {
            instances: self.instances.load(Ordering::Relaxed),
            memory: self.memory.load(Ordering::Relaxed),
            last_start: self.last_start.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            requests: read(&self.requests),
            cpu: Duration::from_nanos(read(&self.cpu_nanos)),
            rewinds: read(&self.rewinds),
            pages: read(&self.pages),
            rewind_time: Duration::from_nanos(read(&self.rewind_nanos)),
            started: read(&self.started),
            restored: read(&self.restored),
            dropped: Dropped::ALL.map(|why| (why, read(&self.dropped[why as usize]))),
        }
    }
}

/// What an app's instances are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) instances: u64,
    /// In bytes.
    pub(crate) memory: u64,
    /// When the last one was started, in seconds since 1970; 0 for never.
    pub(crate) last_start: u64,
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.instances += other.instances;
        self.memory += other.memory;
        self.last_start = self.last_start.max(other.last_start);
    }
}

/// An instance, counted for as long as it is there.
pub(crate) struct Counted {
    metrics: Arc<Metrics>,
    bytes: u64,
}

impl Counted {
    pub(crate) fn new(metrics: &Arc<Metrics>, bytes: u64) -> Self {
        add(&metrics.instances, 1);
        add(&metrics.memory, bytes);
        Self {
            metrics: Arc::clone(metrics),
            bytes,
        }
    }

    /// What it has been found to take.
    pub(crate) fn set(&mut self, bytes: u64) {
        // Wraps around on the way at most.
        add(&self.metrics.memory, bytes.wrapping_sub(self.bytes));
        self.bytes = bytes;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
        self.metrics.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns what was there before.
fn add(counter: &AtomicU64, count: u64) -> u64 {
    counter.fetch_add(count, Ordering::Relaxed)
}

/// Good for 584 years.
fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// What an app's requests and instances have come to since the server's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Requests that an instance has handled, whatever became of them.
    pub requests: u64,
    /// Time the guest ran for them.
    pub cpu: Duration,
    /// Instances taken back to the snapshot.
    pub rewinds: u64,
    /// Pages of 4 KiB that those had written; 0 where the kernel does not tell.
    pub pages: u64,
    /// Wall clock of the rewinds.
    pub rewind_time: Duration,
    /// Instances started.
    pub started: u64,
    /// ... of them as copies of the app's snapshot.
    pub restored: u64,
    /// Instances dropped, by reason.
    pub dropped: [(Dropped, u64); Dropped::ALL.len()],
}

impl Default for Figures {
    fn default() -> Self {
        Metrics::default().figures()
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.cpu += other.cpu;
        self.rewinds += other.rewinds;
        self.pages += other.pages;
        self.rewind_time += other.rewind_time;
        self.started += other.started;
        self.restored += other.restored;
        for ((_, count), (_, more)) in self.dropped.iter_mut().zip(other.dropped) {
            *count += more;
        }
    }
}

/// One line for the log.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            requests,
            rewinds,
            pages,
            started,
            restored,
            ..
        } = self;
        write!(
            f,
            "requests: {requests} ({:.3} s of CPU); ",
            self.cpu.as_secs_f64()
        )?;
        if *rewinds > 0 {
            let seconds = self.rewind_time.as_secs_f64();
            write!(f, "rewinds: {rewinds} ({pages} pages, {seconds:.3} s); ")?;
        }
        write!(
            f,
            "instances: {started} started, {restored} of them from the snapshot"
        )?;
        let mut before = "; dropped:";
        for (why, count) in self.dropped.iter().filter(|(_, count)| *count > 0) {
            write!(f, "{before} {count} {}", why.words())?;
            before = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_under_its_own_name() {
        let metrics = Metrics::default();
        assert_eq!(
            metrics.figures().to_string(),
            "requests: 0 (0.000 s of CPU); instances: 0 started, 0 of them from the snapshot"
        );
        for _ in 0..3 {
            metrics.handled(&Report {
                cpu: Duration::from_micros(2_000),
                ..Report::default()
            });
        }
        for pages in [Some(98), None] {
            metrics.rewound(&Rewound {
                pages,
                time: Duration::from_micros(2_000),
            });
        }
        metrics.started(true);
        metrics.started(false);
        for why in Dropped::ALL {
            assert!(metrics.dropped(why), "the first {why:?}");
            assert!(!metrics.dropped(why), "the second {why:?}");
        }
        assert!(!metrics.dropped(Dropped::Grown));
        assert_eq!(
            metrics.figures().to_string(),
            "requests: 3 (0.006 s of CPU); rewinds: 2 (98 pages, 0.004 s); instances: 2 started, 1 of them from the \
             snapshot; dropped: 2 at the time limit, 2 at the limit of CPU time, 2 ended by the operator, 2 at the memory limit, 2 ended by the app, 2 crashed, 2 after \
             max-requests, 2 after max-lifetime, 2 at max-memory, 2 idle, 2 for others' memory, 3 grown past the snapshot, 2 without a snapshot, 2 not rewound, 2 changed after a \
             rewind"
        );
        assert_eq!(metrics.figures().dropped[11], (Dropped::Grown, 3));
        let mut twice = metrics.figures();
        twice += metrics.figures();
        assert_eq!((twice.requests, twice.pages, twice.dropped[11].1), (6, 196, 6));
    }

    #[test]
    fn an_instance_is_counted_while_it_is_there() {
        let metrics = Arc::new(Metrics::default());
        let (mut one, two) = (Counted::new(&metrics, 100), Counted::new(&metrics, 100));
        one.set(30);
        assert_eq!((metrics.held().instances, metrics.held().memory), (2, 130));
        drop((one, two));
        assert_eq!((metrics.held().instances, metrics.held().memory), (0, 0));
    }
}
