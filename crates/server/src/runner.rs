//! What the server asks of an app: the seam between it and the engine.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use wasgi_engine::Request;

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

    /// Makes an instance that has handled a request ready for the next, after the reply. `false` if it is not to handle
    /// another: then it is dropped, and a new one started when one is needed.
    fn renew(&self, instance: &mut Self::Instance) -> impl Future<Output = bool> + Send;

    /// Takes an instance through one request. The future runs guest code in slices of a few milliseconds and may
    /// outlast the reply: the app's `close()` comes after it.
    fn handle(instance: &mut Self::Instance, request: Request) -> impl Future<Output = Report> + Send;
}

/// How a request left its instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the instance may take another request.
    pub reusable: bool,
    /// Why it may not, for the log: "time limit of 30s reached".
    pub why_not: Option<String>,
    /// Time the guest ran.
    pub cpu: Duration,
    /// The instance's memory, in bytes.
    pub memory: u64,
}
