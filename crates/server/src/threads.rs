//! The server's threads: some look after sockets, some run guests.

use std::future::Future;
use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

/// Cores for each thread that looks after sockets: heads and bytes take a quarter of what a small request takes of its
/// guest.
const CORES_PER_SOCKETS: usize = 4;

/// Threads beside those that guests run on at a time, one for each core: who begins to wait for the CPU, or for a clock, is
/// noticed while all others are taken.
const SPARE: usize = 1;

/// Tasks between two looks at the guests' timers: a task may be a slice of some milliseconds.
const TIMER_INTERVAL: u32 = 4;

/// The two runtimes of the server.
///
/// Guests run inside tasks, in slices of a few milliseconds, and not on the threads that look after sockets: a
/// connection is accepted, read and answered however busy the guests are, and a guest hands its reply over and goes on.
#[derive(Debug)]
pub struct Threads {
    sockets: Runtime,
    guests: Runtime,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, |count| count.get());
        Ok(Self {
            sockets: Builder::new_multi_thread()
                .thread_name("sockets")
                .worker_threads(cores.div_ceil(CORES_PER_SOCKETS))
                .enable_all()
                .build()?,
            guests: Builder::new_multi_thread()
                .thread_name("guests")
                .worker_threads(cores + SPARE)
                .event_interval(TIMER_INTERVAL)
                .enable_time()
                .build()?,
        })
    }

    /// Where guests run.
    pub fn guests(&self) -> Handle {
        self.guests.handle().clone()
    }

    /// Runs a future to its end, with sockets and signals at hand.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.sockets.block_on(future)
    }

    /// Ends them without waiting: a guest that still runs ends with the process.
    pub fn end(self) {
        self.sockets.shutdown_background();
        self.guests.shutdown_background();
    }
}
