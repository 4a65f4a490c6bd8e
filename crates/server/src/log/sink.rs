//! What lines are written to.

use std::io::{self, Write};
use std::time::Instant;

use super::batch::Batch;

/// A destination. Called from the writer's thread alone.
pub(super) trait Sink: Send {
    /// Writes all lines of a batch.
    ///
    /// # Errors
    /// Why some of them are lost, and how many.
    fn write(&mut self, batch: &Batch, now: Instant) -> Result<(), Failed>;

    /// What it is, for the message that it fails; `None` if there is nobody to tell.
    fn name(&self) -> Option<String> {
        None
    }

    /// Whether it needs to know where each line ends and what it is.
    fn wants_marks(&self) -> bool {
        false
    }

    /// Lets go of what it holds open, to open it anew when there is something to write.
    fn reopen(&mut self) {}

    /// Called every few seconds: lets go of what was not used for a while. True if it holds something still.
    fn rest(&mut self, _: Instant) -> bool {
        false
    }
}

/// Some lines of a batch could not be written.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) lost: u64,
    pub(super) error: io::Error,
}

/// Any writer; standard error as a rule.
pub(super) struct Stream(pub(super) Box<dyn Write + Send>);

impl Sink for Stream {
    fn write(&mut self, batch: &Batch, _: Instant) -> Result<(), Failed> {
        let written = self.0.write_all(batch.text.as_bytes());
        written.and_then(|()| self.0.flush()).map_err(|error| Failed {
            lost: batch.lines,
            error,
        })
    }
}
