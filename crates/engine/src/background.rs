//! Work that nobody waits for yet, on one thread that gives way to all others.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::oneshot;

/// The lowest priority of a thread, for the processor and with it for the disk.
const NICE: i32 = 19;

type Work = Box<dyn FnOnce() + Send>;

/// Does one piece of work after the other.
pub(crate) struct Background {
    work: Sender<Work>,
}

impl Background {
    /// Starts the thread. It ends when this is dropped, and what was asked for is done.
    pub(crate) fn start() -> io::Result<Self> {
        let (work, asked) = channel::<Work>();
        thread::Builder::new()
            .name("wasgi-prepare".into())
            .spawn(move || {
                // The thread's alone, on Linux. Without it the work is done all the same.
                let _ = rustix::process::setpriority_process(None, NICE);
                for work in asked {
                    work();
                }
            })?;
        Ok(Self { work })
    }

    /// Does `work` when its turn comes.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, done) = oneshot::channel();
        let all = move || {
            // Who does not wait any more needs no answer.
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        };
        self.work
            .send(Box::new(all))
            .expect("the thread lives as long as this");
        match done.await.expect("each piece of work is answered") {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn it_is_done_in_order_at_the_lowest_priority_and_goes_on_after_a_panic() {
        let background = Arc::new(Background::start().expect("a thread"));
        let priority = || (current().id(), rustix::process::getpriority_process(None));
        let (first, nice) = background.run(priority).await;
        assert_eq!(nice, Ok(NICE));
        assert_ne!(priority(), (first, nice), "this thread is as it was");
        let panicking = Arc::clone(&background);
        let panicked = tokio::spawn(async move { panicking.run(|| panic!("as it should")).await });
        assert!(panicked.await.is_err_and(|error| error.is_panic()));
        assert_eq!(background.run(priority).await.0, first);
    }
}
