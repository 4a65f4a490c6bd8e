//! The server as a whole: accept, serve, stop.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wasgi_config::{Limits, Proxy};

use crate::error_pages::ErrorPages;
use crate::fleet::Reload;
use crate::gateway;
use crate::http::serve;
use crate::http2;
use crate::listener::{Accepted, Listener, Speaks};
use crate::log::Log;
use crate::peer::Peer;
use crate::proxy_header;
use crate::route::Routes;
use crate::runner::Runner;
use crate::site::Glance;

/// Wait after the system has refused to accept a connection, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share: which app answers, the limits of connections, the log.
pub struct Server<R: Runner> {
    routes: RwLock<Arc<Routes<R>>>,
    pub(crate) limits: Limits,
    /// A permit for each request over HTTP/2: a connection may have many, and all together no more than connections.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) log: Log,
    pages: OnceLock<Arc<dyn ErrorPages>>,
    /// What is in front.
    proxy: OnceLock<Proxy>,
    /// What loads an app anew.
    fleet: OnceLock<Weak<dyn Reload>>,
    /// Whether connections are taken.
    serves: AtomicBool,
}

impl<R: Runner> Server<R> {
    /// A server without apps. Of `limits` it takes what concerns connections.
    pub fn new(limits: Limits, log: Log) -> Arc<Self> {
        Arc::new(Self {
            routes: RwLock::new(Arc::new(Routes::new([]))),
            streams: Arc::new(Semaphore::new(limits.connections)),
            limits,
            log,
            pages: OnceLock::new(),
            proxy: OnceLock::new(),
            fleet: OnceLock::new(),
            serves: AtomicBool::new(false),
        })
    }

    /// From now on, clients are shown what went wrong: for an app's developer, and nobody else.
    pub fn show_errors(&self, pages: Arc<dyn ErrorPages>) {
        // The first to be given are kept.
        let _ = self.pages.set(pages);
    }

    pub(crate) fn pages(&self) -> Option<&dyn ErrorPages> {
        self.pages.get().map(|pages| &**pages)
    }

    /// From now on, these proxies are trusted to say who asks, and nobody else is.
    pub fn trust(&self, proxy: Proxy) {
        // The first to be given are kept.
        let _ = self.proxy.set(proxy);
    }

    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.get()
    }

    pub(crate) fn set_reload(&self, fleet: Weak<dyn Reload>) {
        // A server has one fleet.
        let _ = self.fleet.set(fleet);
    }

    pub(crate) fn reload(&self) -> Option<Arc<dyn Reload>> {
        self.fleet.get()?.upgrade()
    }

    /// From now on, requests go by these routes.
    pub fn set_routes(&self, routes: Routes<R>) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Whether clients find it: its first apps are there, and it is not about to end.
    pub(crate) fn is_ready(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Each app as it is now, ordered by name.
    pub(crate) fn glances(&self) -> Vec<Glance> {
        let mut glances: Vec<_> = self.routes().sites().iter().map(|site| site.glance()).collect();
        glances.sort_by(|a, b| a.name.cmp(&b.name));
        glances
    }

    /// Waits for `connections` to be over and all apps to be done, for at most `stop-time`.
    pub(crate) async fn finish(&self, connections: impl Future<Output = ()>) {
        let finished = async {
            connections.await;
            // A reply may be out, or its peer gone, while the app still runs.
            for site in self.routes().sites() {
                site.quiet().await;
            }
        };
        let time = self.limits.stop_time;
        if timeout(time, finished).await.is_err() {
            self.log.warn(format_args!(
                "stop-time of {time:?} is over: requests that still run are ended"
            ));
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes<R>> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stop,
    /// Another process goes on listening on its sockets. Connections without a request get [`LEAVE_TIME`] for the one
    /// that may be on its way; its reply says that the connection ends.
    Handover,
}

/// How long a connection may be idle after a handover before it is closed.
const LEAVE_TIME: Duration = Duration::from_secs(5);

impl Ending {
    /// How long connections may go on as they do.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Ending::Stop => Duration::ZERO,
            Ending::Handover => LEAVE_TIME,
        }
    }

    /// Ready when connections may no longer go on as they do, after an ending in `stop`.
    pub(crate) async fn left(mut stop: watch::Receiver<Option<Self>>) {
        let ending = stop
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|ending| *ending);
        // Without a server there is nobody to tell.
        sleep(ending.unwrap_or(Self::Stop).patience()).await;
    }
}

/// Serves until `shutdown` is ready; then takes no more connections or requests, lets those that run finish, for at
/// most `stop-time`, and returns.
///
/// Tells the log where it listens, a line per listener. Listeners are closed first, and with them the files of unix
/// sockets are removed. What runs beyond `stop-time` ends with the runtime.
pub async fn run<R: Runner>(
    listeners: Vec<Listener>,
    server: Arc<Server<R>>,
    shutdown: impl Future<Output = Ending>,
) {
    let (stop, stopping) = watch::channel(None);
    let connections = Arc::new(Semaphore::new(server.limits.connections));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        server.log.note(format_args!("listening on {listener}"));
        if let Speaks::Https(tls) = listener.speaks().clone() {
            let log = server.log.clone();
            accepting.spawn(async move { tls.watch(&log).await });
        }
        accepting.spawn(accept(
            listener,
            Arc::clone(&server),
            Arc::clone(&connections),
            stopping.clone(),
        ));
    }
    drop(stopping);
    server.serves.store(true, Ordering::Relaxed);
    let ending = shutdown.await;
    server.serves.store(false, Ordering::Relaxed);

    accepting.shutdown().await;
    let _ = stop.send(Some(ending));
    // Every connection holds a receiver.
    server.finish(stop.closed()).await;
    for site in server.routes().sites() {
        // An app that nobody asked for has nothing to tell.
        if let Some(figures) = site.figures().filter(|figures| figures.started > 0) {
            server.log.note(format_args!("app {}: {figures}", site.name()));
        }
    }
}

async fn accept<R: Runner>(
    listener: Listener,
    server: Arc<Server<R>>,
    connections: Arc<Semaphore>,
    stopping: watch::Receiver<Option<Ending>>,
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
                    server.log.error(format_args!(
                        "cannot accept connections on {listener}: {error}; trying again"
                    ));
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        refused = false;
        let (server, stopping) = (Arc::clone(&server), stopping.clone());
        let speaks = listener.speaks().clone();
        let has_header = listener.has_proxy_headers();
        match accepted {
            Accepted::Tcp(stream, remote) => {
                let Ok(local) = stream.local_addr() else { continue };
                let peer = Peer::tcp(remote, local)
                    .speaking(&speaks)
                    .trusted_by(server.proxy());
                tokio::spawn(connection(
                    stream, peer, has_header, speaks, server, stopping, permit,
                ));
            }
            Accepted::Unix(stream) => {
                let peer = Peer::unix().speaking(&speaks).trusted_by(server.proxy());
                tokio::spawn(connection(
                    stream, peer, has_header, speaks, server, stopping, permit,
                ));
            }
        }
    }
}

/// Serves a connection, and gives its permit back.
async fn connection<S, R>(
    mut stream: S,
    mut peer: Peer,
    has_header: bool,
    speaks: Speaks,
    server: Arc<Server<R>>,
    mut stopping: watch::Receiver<Option<Ending>>,
    permit: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + gateway::Reset + Unpin + Send + 'static,
    R: Runner,
{
    if has_header {
        let introduced = tokio::select! {
            introduced = proxy_header::read(&mut stream, peer, &server) => introduced,
            // As for keys that are being agreed on.
            _ = stopping.wait_for(|ending| *ending == Some(Ending::Stop)) => return,
        };
        let Some(introduced) = introduced else { return };
        peer = introduced;
    }
    match speaks {
        Speaks::Http | Speaks::Redirect(_) => serve(stream, peer, server, stopping).await,
        Speaks::H2c => http2::serve(stream, peer, server, stopping).await,
        Speaks::Gateway(wire) => gateway::serve(stream, wire, peer, server, stopping).await,
        Speaks::Https(tls) => {
            let agreed = tokio::select! {
                agreed = tls.handshake(stream) => agreed,
                // It has no request yet. After a handover nobody is in a hurry.
                _ = stopping.wait_for(|ending| *ending == Some(Ending::Stop)) => return,
            };
            // Whoever does not agree on keys has gone, or been told by TLS.
            if let Ok(stream) = agreed {
                match stream.get_ref().1.alpn_protocol() {
                    Some(http2::ALPN) => http2::serve(stream, peer, server, stopping).await,
                    _ => serve(stream, peer, server, stopping).await,
                }
            }
        }
    }
    drop(permit);
}

fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, mpsc};
    use std::thread;
    use std::time::Instant;

    use bytes::Bytes;
    use tokio::sync::{Semaphore, oneshot};
    use wasgi_engine::{ReplyHead, Report, Request, RewindError, Rewound};

    use super::*;
    use crate::budget::Budget;
    use crate::log::AccessFormat;
    use crate::site::tests::of_one;
    use crate::threads::Threads;
    use crate::worker::{Pool, Workers};

    /// Replies `ok`; to `/slow` once it gets a permit; to `/after` at once, and then waits for the permit.
    #[derive(Clone)]
    struct Ok {
        open: Arc<Semaphore>,
        /// Told when a request begins to wait, and when it has waited.
        waits: mpsc::Sender<()>,
    }

    impl Runner for Ok {
        type Instance = Ok;
        type Error = io::Error;

        fn name(&self) -> &str {
            "test"
        }

        async fn start(&self) -> io::Result<Ok> {
            io::Result::Ok(self.clone())
        }

        fn is_copy(_: &Ok) -> bool {
            false
        }

        async fn renew(&self, _: &mut Ok) -> Result<Option<Rewound>, RewindError> {
            Result::Ok(None)
        }

        async fn handle(instance: &mut Ok, mut request: Request) -> Report {
            let is_for = |path: &[u8]| request.environ.windows(path.len()).any(|part| part == path);
            let (slow, after) = (is_for(b"/slow"), is_for(b"/after"));
            if slow {
                instance.wait().await;
            }
            request.reply.head(ReplyHead {
                status: 200,
                reason: Bytes::new(),
                headers: Vec::new(),
            });
            request.reply.chunk(Bytes::from_static(b"ok"), true);
            request.reply.finish();
            if after {
                instance.wait().await;
            }
            Report {
                reusable: true,
                ..Report::default()
            }
        }
    }

    impl Ok {
        async fn wait(&self) {
            self.waits.send(()).unwrap();
            self.open.acquire().await.unwrap().forget();
            self.waits.send(()).unwrap();
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            io::Result::Ok(())
        }
    }

    /// A server in a thread of its own.
    struct Running {
        log: Log,
        lines: Lines,
        open: Arc<Semaphore>,
        waits: mpsc::Receiver<()>,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<thread::JoinHandle<()>>,
    }

    impl Running {
        fn start(addresses: &[&str], limits: Limits) -> Self {
            let lines = Lines::default();
            let log = Log::to(Box::new(lines.clone()), AccessFormat::Off, false).unwrap();
            let (stop, stopped) = oneshot::channel();
            let (of_server, open) = (log.clone(), Arc::new(Semaphore::new(0)));
            let (told, waits) = mpsc::channel();
            let app = Ok {
                open: Arc::clone(&open),
                waits: told,
            };
            let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let thread = thread::spawn(move || {
                let threads = Threads::start().unwrap();
                let guests = threads.guests();
                threads.block_on(async {
                    let mut listeners = Vec::new();
                    for address in &addresses {
                        listeners.push(
                            Listener::bind(address, &wasgi_config::Sockets::default())
                                .await
                                .unwrap(),
                        );
                    }
                    let pool = Pool::start(
                        app,
                        Workers::always(2, 2),
                        crate::worker::Wear::default(),
                        &limits,
                        &Budget::new(None),
                        of_server.clone(),
                        guests,
                    )
                    .await
                    .unwrap();
                    let shutdown = async {
                        _ = stopped.await;
                        Ending::Stop
                    };
                    run(listeners, of_one(pool, limits, of_server), shutdown).await;
                });
                threads.end();
            });
            Self {
                log,
                lines,
                open,
                waits,
                stop: Some(stop),
                thread: Some(thread),
            }
        }

        fn log(&self) -> String {
            self.log.flush(Duration::from_secs(10));
            String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
        }

        /// Where it listens, from its first line.
        fn address(&self) -> String {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                let log = self.log();
                if let Some(address) = log
                    .lines()
                    .find_map(|line| line.strip_prefix("listening on http://"))
                {
                    return address.to_owned();
                }
                assert!(Instant::now() < end, "{log}");
                thread::yield_now();
            }
        }

        fn stop(&mut self) {
            self.stop.take().unwrap().send(()).unwrap();
        }

        /// Waits until `run` has returned.
        fn end(&mut self) {
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn get(stream: &mut (impl Read + Write), path: &str) -> String {
        ask(stream, path);
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn ask(stream: &mut impl Write, path: &str) {
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
    }

    #[test]
    fn it_serves_tcp_and_unix_sockets_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let unix = format!("unix:{}", path.display());
        let mut server = Running::start(&["127.0.0.1:0", &unix], Limits::default());
        let address = server.address();
        assert!(get(&mut TcpStream::connect(&address).unwrap(), "/").ends_with("\r\n\r\nok"));
        assert!(get(&mut UnixStream::connect(&path).unwrap(), "/").ends_with("\r\n\r\nok"));
        assert!(server.log().contains(&format!("listening on {unix}\n")));
        server.stop();
        server.end();
        assert!(!path.exists());
        assert!(TcpStream::connect(&address).is_err());
    }

    #[test]
    fn a_stop_waits_for_what_runs_and_takes_nothing_more() {
        let mut server = Running::start(&["127.0.0.1:0"], Limits::default());
        let address = server.address();
        let mut running = TcpStream::connect(&address).unwrap();
        ask(&mut running, "/slow");
        server.waits.recv().unwrap();
        let mut idle = TcpStream::connect(&address).unwrap();
        // Not merely in the backlog.
        write!(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            idle.read_exact(&mut byte).unwrap();
            reply.extend(byte);
        }
        server.stop();
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&address).is_ok() {
            assert!(Instant::now() < end);
        }
        server.open.add_permits(1);
        let mut reply = String::new();
        running.read_to_string(&mut reply).unwrap();
        assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
        server.end();
        assert!(!server.log().contains("stop-time"));
    }

    #[test]
    fn a_stop_waits_for_an_app_that_has_replied_and_still_runs() {
        let mut server = Running::start(&["127.0.0.1:0"], Limits::default());
        get(&mut TcpStream::connect(server.address()).unwrap(), "/after");
        server.waits.recv().unwrap();
        server.stop();
        let open = Arc::clone(&server.open);
        let later = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            open.add_permits(1);
        });
        server.end();
        assert!(server.waits.try_recv().is_ok());
        assert!(!server.log().contains("stop-time"));
        later.join().unwrap();
    }

    #[test]
    fn a_stop_does_not_wait_longer_than_stop_time() {
        let limits = Limits {
            stop_time: Duration::from_millis(300),
            ..Limits::default()
        };
        let mut server = Running::start(&["127.0.0.1:0"], limits);
        let address = server.address();
        let mut running = TcpStream::connect(&address).unwrap();
        ask(&mut running, "/slow");
        server.waits.recv().unwrap();
        let begun = Instant::now();
        server.stop();
        server.end();
        assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
        assert!(
            server.log().contains("stop-time of 300ms is over"),
            "{}",
            server.log()
        );
    }

    #[test]
    fn connections_beyond_the_limit_wait_for_one_to_close() {
        let mut server = Running::start(
            &["127.0.0.1:0"],
            Limits {
                connections: 1,
                ..Limits::default()
            },
        );
        let address = server.address();
        let first = TcpStream::connect(&address).unwrap();
        let mut second = TcpStream::connect(&address).unwrap();
        ask(&mut second, "/");
        second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(second.read(&mut [0]).is_err());
        drop(first);
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut reply = String::new();
        second.read_to_string(&mut reply).unwrap();
        assert!(reply.ends_with("ok"), "{reply}");
        server.stop();
        server.end();
    }
}
