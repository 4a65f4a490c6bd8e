//! The operator's way in: how the server does, apps taken out of service and back, and requests ended.
//!
//! A small HTTP/1 server on listeners of its own, of one request a connection. On a unix socket of this user's alone, and on
//! TCP for who shows the token; without it, TCP answers only whether the server lives and is ready, for probes. Beside
//! it the figures as uWSGI's `--stats` tells them: to whoever connects, at once.

mod apps;
mod endpoints;
mod prometheus;
mod requests;
mod stats;
mod stream;
mod token;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::listener::{Accepted, Listener};
use crate::run::Server;
use crate::runner::Runner;
use endpoints::{Access, answer};
use stream::Stream;
pub use token::Token;

/// How long a client may take until its request is there, and one of the figures until it has them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 64;

/// Wait after the system has refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is listened on for the operator.
#[derive(Debug, Default)]
pub struct AdminListeners {
    /// For who may connect to it: everything.
    pub private: Vec<Listener>,
    /// For who shows the token.
    pub tcp: Vec<Listener>,
    /// For figures as uWSGI tells them.
    pub stats: Vec<Listener>,
}

impl AdminListeners {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.private.iter().chain(&self.tcp).chain(&self.stats)
    }
}

/// Listens for the operator until it is ended.
#[derive(Debug)]
pub struct Admin(JoinSet<()>);

impl Admin {
    /// Begins to listen; tells the log where. Nobody gets in over TCP without a `token`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open<R: Runner>(listeners: AdminListeners, token: Option<Token>, server: &Arc<Server<R>>) -> Self {
        let token = token.map(Arc::new);
        let mut open = JoinSet::new();
        let private = listeners.private.into_iter().map(|it| (it, Way::Private));
        let tcp = listeners
            .tcp
            .into_iter()
            .map(|it| (it, Way::Token(token.clone())));
        let stats = listeners.stats.into_iter().map(|it| (it, Way::Stats));
        for (listener, way) in private.chain(tcp).chain(stats) {
            let what = if let Way::Stats = way { "stats" } else { "admin" };
            server.log.note(format_args!("{what} on {listener}"));
            open.spawn(accept(listener, way, Arc::clone(server)));
        }
        Self(open)
    }

    /// Closes the listeners, and removes the files of unix sockets.
    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// What a listener is for.
#[derive(Clone)]
enum Way {
    Private,
    Token(Option<Arc<Token>>),
    Stats,
}

async fn accept<R: Runner>(listener: Listener, way: Way, server: Arc<Server<R>>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            // Files that run out are told of by the listeners of the apps.
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (way, server) = (way.clone(), Arc::clone(&server));
        tokio::spawn(async move {
            match accepted {
                Accepted::Tcp(stream, _) => serve(stream, way, server).await,
                Accepted::Unix(stream) => serve(stream, way, server).await,
            }
            drop(permit);
        });
    }
}

async fn serve<S, R>(stream: S, way: Way, server: Arc<Server<R>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    let access = match way {
        Way::Private => Access::All,
        Way::Token(token) => Access::Token(token),
        Way::Stats => return tell_figures(stream, &server).await,
    };
    let (asked, access) = (Arc::new(Notify::new()), Arc::new(access));
    let service = service_fn(|request: http::Request<Incoming>| {
        asked.notify_one();
        let (access, server) = (Arc::clone(&access), Arc::clone(&server));
        async move { Ok::<_, std::convert::Infallible>(answer(request, &access, &server).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .serve_connection(Stream(stream), service);
    tokio::pin!(served);
    // Errors are clients that went away.
    tokio::select! {
        _ = &mut served => {}
        () = late(&asked) => {}
    }
}

/// Ready if no request comes in time.
async fn late(asked: &Notify) {
    if timeout(PATIENCE, asked.notified()).await.is_ok() {
        std::future::pending().await
    }
}

/// As uWSGI's `--stats`: nothing is asked, everything is told.
async fn tell_figures<S: AsyncWrite + Unpin, R: Runner>(mut stream: S, server: &Server<R>) {
    let text = stats::stats(&server.glances()).to_string();
    let _ = timeout(PATIENCE, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}
