//! Requests that an app is given before its snapshot is taken, so that what first requests import, cache and specialise
//! is in it.

use crate::exchange::Request;
use crate::local::Keeper;

/// How often each path is asked for: CPython specialises code that has run some times, and a copy that had to do that
/// again would be slower for it.
pub(crate) const ROUNDS: usize = 20;

/// How a warm-up request went, told by its reply.
pub(crate) struct Outcome(Keeper);

impl Outcome {
    /// What was wrong with the reply, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let kept = self.0.take();
        if let Some(failure) = kept.failure {
            return Some(failure.to_string());
        }
        let status = kept.head?.status;
        (status >= 400).then(|| format!("answered {status}"))
    }
}

/// A GET request for `path` whose reply goes nowhere.
pub(crate) fn request(path: &str) -> (Request, Outcome) {
    let (request, keeper) = Request::local(path, "warmup", 0);
    (request, Outcome(keeper))
}
