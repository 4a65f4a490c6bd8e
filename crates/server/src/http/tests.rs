//! Connections over in-memory streams, with an app that is a closure. The clock is paused: it jumps to the next timer
//! when nothing else can happen, so that a test that waits for nothing ends with its connections.

mod bills;
mod bodies;
mod demand;
mod framing;
mod ids;
mod queue;
mod times;

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Handle;
use tokio::sync::watch;
use wasgi_config::Limits;
use wasgi_engine::{BodyError, Failure, PeerGone, ReplyHead, Report, Request, RewindError, Rewound};

use super::connection::serve;
use crate::budget::Budget;
use crate::log::{AccessFormat, Log};
use crate::peer::Peer;
use crate::run::Ending;
use crate::runner::Runner;
use crate::site::tests::of_one;
use crate::worker::{Pool, Wear, Workers};

type Handler = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Report> + Send>> + Send + Sync>;

/// An app that is a closure.
struct Closure(Handler);

impl Runner for Closure {
    type Instance = Handler;
    type Error = io::Error;

    fn name(&self) -> &str {
        "test"
    }

    async fn start(&self) -> io::Result<Handler> {
        Ok(Arc::clone(&self.0))
    }

    fn is_copy(_: &Handler) -> bool {
        false
    }

    async fn renew(&self, _: &mut Handler) -> Result<Option<Rewound>, RewindError> {
        Ok(None)
    }

    async fn handle(instance: &mut Handler, request: Request) -> Report {
        instance(request).await
    }
}

fn app<F, T>(handler: F) -> Closure
where
    F: Fn(Request) -> T + Send + Sync + 'static,
    T: Future<Output = Report> + Send + 'static,
{
    Closure(Arc::new(move |request| Box::pin(handler(request))))
}

fn reusable() -> Report {
    Report {
        reusable: true,
        ..Report::default()
    }
}

/// What the closures do with a request.
trait Call {
    fn environ(&self, key: &str) -> String;
    async fn read(&mut self) -> Result<Vec<u8>, BodyError>;
    fn head(&mut self, status: u16, fields: &[(&'static str, &'static str)]);
    async fn chunk(&mut self, data: impl Into<Bytes>, last: bool) -> Result<(), PeerGone>;
    async fn text(self, text: impl Into<Bytes>) -> Report;
    fn fail(self, failure: Failure) -> Report;
}

impl Call for Request {
    fn environ(&self, key: &str) -> String {
        let mut pairs = wasgi_protocol::environ::iter(&self.environ).map(Result::unwrap);
        let value = pairs.find(|pair| pair.0 == key.as_bytes()).map(|pair| pair.1);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    }

    async fn read(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(piece) = poll_fn(|cx| self.body.poll_chunk(cx)).await {
            let piece = piece?;
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn head(&mut self, status: u16, fields: &[(&'static str, &'static str)]) {
        let headers = fields.iter().map(|(name, value)| {
            (
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        });
        self.reply.head(ReplyHead {
            status,
            reason: Bytes::new(),
            headers: headers.collect(),
        });
    }

    async fn chunk(&mut self, data: impl Into<Bytes>, last: bool) -> Result<(), PeerGone> {
        poll_fn(|cx| self.reply.poll_room(cx)).await?;
        self.reply.chunk(data.into(), last);
        Ok(())
    }

    async fn text(mut self, text: impl Into<Bytes>) -> Report {
        self.head(200, &[]);
        let _ = self.chunk(text, true).await;
        self.reply.finish();
        reusable()
    }

    fn fail(mut self, failure: Failure) -> Report {
        self.reply.fail(failure);
        reusable()
    }
}

/// An app that says what it was asked for: `GET /path body`.
fn echo() -> Closure {
    app(|mut request| async move {
        let body = request.read().await;
        let (method, path) = (request.environ("REQUEST_METHOD"), request.environ("PATH_INFO"));
        match body {
            Ok(body) => {
                request
                    .text(format!("{method} {path} {}", String::from_utf8_lossy(&body)))
                    .await
            }
            Err(error) => request.fail(Failure::Body(error)),
        }
    })
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Server {
    server: Arc<crate::run::Server<Closure>>,
    stop: watch::Sender<Option<Ending>>,
    log: Log,
    lines: Lines,
}

impl Server {
    async fn new(app: Closure) -> Self {
        Self::with(app, 1, None, Limits::default()).await
    }

    async fn with(app: Closure, workers: u32, max_requests: Option<u64>, limits: Limits) -> Self {
        let lines = Lines::default();
        let log = Log::to(Box::new(lines.clone()), AccessFormat::Combined, false).unwrap();
        Self::with_all(app, workers, max_requests, limits, log, lines).await
    }

    async fn with_log(app: Closure, log: Log) -> Self {
        Self::with_all(app, 1, None, Limits::default(), log, Lines::default()).await
    }

    async fn with_all(
        app: Closure,
        workers: u32,
        max_requests: Option<u64>,
        limits: Limits,
        log: Log,
        lines: Lines,
    ) -> Self {
        let pool = Pool::start(
            app,
            Workers::always(workers, workers),
            Wear {
                max_requests,
                ..Wear::default()
            },
            &limits,
            &Budget::new(None),
            log.clone(),
            Handle::current(),
        )
        .await
        .unwrap();
        Self {
            server: of_one(pool, limits, log.clone()),
            stop: watch::channel(None).0,
            log,
            lines,
        }
    }

    fn connect(&self) -> Client {
        self.connect_with(1 << 20)
    }

    /// A connection that holds `buffer` bytes each way.
    fn connect_with(&self, buffer: usize) -> Client {
        let (client, server) = duplex(buffer);
        let peer = Peer::tcp(
            "192.0.2.1:40000".parse().unwrap(),
            "127.0.0.1:8000".parse().unwrap(),
        );
        tokio::spawn(serve(
            server,
            peer,
            Arc::clone(&self.server),
            self.stop.subscribe(),
        ));
        Client {
            stream: client,
            read: Vec::new(),
        }
    }

    /// Sends `text` on a connection of its own, and reads until the server closes it.
    async fn all(&self, text: &str) -> String {
        let mut client = self.connect();
        client.send(text).await;
        client.rest().await
    }

    fn log(&self) -> String {
        self.log.flush(Duration::from_secs(10));
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

struct Client {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what has come ends in `end`; gives it without the Date field, and forgets it.
    async fn until(&mut self, end: &str) -> String {
        while !self.read.ends_with(end.as_bytes()) {
            if self.stream.read_buf(&mut self.read).await.unwrap() == 0 {
                panic!("closed before {end:?}: {:?}", String::from_utf8_lossy(&self.read));
            }
        }
        without_date(&std::mem::take(&mut self.read))
    }

    /// Reads until the server closes.
    async fn rest(&mut self) -> String {
        // A cut connection ends like a closed one, here.
        while self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0 {}
        without_date(&std::mem::take(&mut self.read))
    }
}

fn without_date(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split_inclusive("\r\n")
        .filter(|line| !line.starts_with("date: "))
        .collect()
}

/// The status codes of the replies in `text`, in order.
fn statuses(text: &str) -> Vec<&str> {
    let starts = text.match_indices("HTTP/1.").map(|(at, _)| &text[at + 8..]);
    starts
        .filter(|rest| rest.starts_with(' '))
        .map(|rest| &rest[1..4])
        .collect()
}

/// Waits until `what` holds, letting everything else run, and the clock jump.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never held");
}
