//! The engine's clock: one thread that counts ticks while guests run, and rests while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use crate::ticks::Ticks;

/// How often running guests are looked at: their time limits, and whose turn it is on the thread.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks without a running guest before the thread rests. Waking it costs a system call, so a server that is busy
/// with short requests should not do it for each.
const LINGER: u32 = 200;

struct Shared {
    running: AtomicUsize,
    resting: AtomicBool,
    ended: AtomicBool,
}

/// Counts a tick every [`TICK`] while any [`Running`] lives.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(ticks: Arc<Ticks>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let handle = thread::Builder::new().name("wasgi-ticker".into()).spawn({
            let shared = shared.clone();
            move || tick(&shared, || ticks.advance())
        })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
            handle: Some(handle),
        })
    }

    /// Whether a guest is running, or may be.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::SeqCst) > 0
    }

    /// Keeps the clock going until the returned value is dropped.
    pub(crate) fn run(&self) -> Running {
        // Sequentially consistent with `tick`: either it sees this count before it rests, or we see that it rests.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running {
            shared: self.shared.clone(),
        }
    }
}

fn tick(shared: &Shared, mut advance: impl FnMut()) {
    let mut idle = 0;
    while !shared.ended.load(Ordering::SeqCst) {
        thread::sleep(TICK);
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
            advance();
            continue;
        }
        idle += 1;
        if idle < LINGER {
            continue;
        }
        shared.resting.store(true, Ordering::SeqCst);
        while shared.running.load(Ordering::SeqCst) == 0 && !shared.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        shared.resting.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// A guest is running, or may be.
pub(crate) struct Running {
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}
