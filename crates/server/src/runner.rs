//! What the server asks of an app: the seam between it and the engine.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use wasgi_engine::{Report, Request, RewindError, Rewound};

/// Starts instances of one app and takes them through requests.
pub trait Runner: Send + Sync + 'static {
    /// One running copy of the app.
    type Instance: Send + 'static;
    /// Why the app does not start.
    type Error: Error + Send + Sync + 'static;

    /// The app's name in the log.
    fn name(&self) -> &str;

    /// Starts one more instance.
    fn start(&self) -> impl Future<Output = Result<Self::Instance, Self::Error>> + Send;

    /// Does what the first start would do before there is an instance, so that the next is quick.
    fn prepare(&self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        async { Ok(()) }
    }

    /// Asks an instance that no client knows for a path.
    ///
    /// # Errors
    /// What is wrong with its answer, in words for the log.
    fn probe(_: &mut Self::Instance, _path: &str) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }

    /// Whether an instance was copied from the app's snapshot, and has not imported the app itself.
    fn is_copy(instance: &Self::Instance) -> bool;

    /// Memory that an instance has for itself, in bytes. Takes some microseconds.
    fn memory(_: &mut Self::Instance) -> u64 {
        0
    }

    /// How long until the app may run again, if it has used up its share of the last minute.
    fn cpu_wait(&self) -> Option<Duration> {
        None
    }

    /// Makes an instance that has handled a request ready for the next, after the reply; tells what the rewind took, if
    /// there was one.
    ///
    /// # Errors
    /// Why it is not to handle another: then it is dropped, and a new one started when one is needed.
    fn renew(
        &self,
        instance: &mut Self::Instance,
    ) -> impl Future<Output = Result<Option<Rewound>, RewindError>> + Send;

    /// Takes an instance through one request. The future runs guest code in slices of a few milliseconds and may
    /// outlast the reply: the app's `close()` comes after it.
    fn handle(instance: &mut Self::Instance, request: Request) -> impl Future<Output = Report> + Send;
}
