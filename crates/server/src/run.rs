//! The server as a whole: accept, serve, stop.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wasgi_config::Limits;

use crate::http::{Peer, serve};
use crate::listener::{Accepted, Listener};
use crate::log::Log;
use crate::runner::Runner;
use crate::worker::Pool;

/// Wait after the system has refused to accept a connection, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Scheduler ticks between two looks at the sockets, see [`runtime`].
const EVENT_INTERVAL: u32 = 4;

/// An app and how it is served.
pub struct Site<R: Runner> {
    pub(crate) pool: Arc<Pool<R>>,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
}

impl<R: Runner> Site<R> {
    /// Serves the app of `pool`. Of `limits` the server takes what concerns connections and bodies.
    pub fn new(pool: Arc<Pool<R>>, limits: Limits, log: Log) -> Arc<Self> {
        Arc::new(Self { pool, limits, log })
    }
}

/// The runtime the server wants.
///
/// Guests run inside tasks, in slices of a few milliseconds, so a thread may be away from its sockets for a slice:
/// there are at least two threads, and each looks at the sockets every fourth task instead of every 61st.
///
/// # Errors
/// When its threads cannot be started.
pub fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    Builder::new_multi_thread()
        .worker_threads(threads)
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()
}

/// Serves until `shutdown` is ready; then takes no more connections or requests, lets those that run finish, for at
/// most `stop-time`, and returns.
///
/// Tells the log where it listens, a line per listener. Listeners are closed first, and with them the files of unix
/// sockets are removed. What runs beyond `stop-time` ends with the runtime.
pub async fn run<R: Runner>(
    listeners: Vec<Listener>,
    site: Arc<Site<R>>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(site.limits.connections));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        site.log.note(format_args!("listening on {listener}"));
        accepting.spawn(accept(
            listener,
            Arc::clone(&site),
            Arc::clone(&connections),
            stopping.clone(),
        ));
    }
    drop(stopping);
    shutdown.await;

    accepting.shutdown().await;
    let _ = stop.send(true);
    let finished = async {
        // Every connection holds a receiver.
        stop.closed().await;
        // A reply may be out, or its peer gone, while the app still runs.
        site.pool.quiet().await;
    };
    if timeout(site.limits.stop_time, finished).await.is_err() {
        let time = site.limits.stop_time;
        site.log.warn(format_args!(
            "stop-time of {time:?} is over: requests that still run are ended"
        ));
    }
}

async fn accept<R: Runner>(
    listener: Listener,
    site: Arc<Site<R>>,
    connections: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
) {
    let mut refused = false;
    loop {
        // Beyond the limit, connections wait in the backlog.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            // The peer was gone before it was accepted.
            Err(error) if is_about_the_peer(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut refused, true) {
                    site.log.error(format_args!(
                        "cannot accept connections on {listener}: {error}; trying again"
                    ));
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        refused = false;
        let (site, stopping) = (Arc::clone(&site), stopping.clone());
        match accepted {
            Accepted::Tcp(stream, remote) => {
                let Ok(local) = stream.local_addr() else { continue };
                let served = serve(stream, Peer::tcp(remote, local), site, stopping);
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Accepted::Unix(stream) => {
                let served = serve(stream, Peer::unix(), site, stopping);
                tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
        }
    }
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected
    )
}
