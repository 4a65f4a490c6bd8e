//! Sends spans to a collector: OTLP/HTTP with JSON ("OTLP/HTTP Request", "JSON Protobuf Encoding").

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasgi_config::Tracing;

use super::Traced;
use crate::log::json;

/// Most requests that wait to be sent; further ones are counted instead.
const WAITING_MAX: usize = 4096;

/// Most requests in one message.
const BATCH: usize = 512;

/// How long requests are gathered before they are sent together.
const GATHER: Duration = Duration::from_secs(1);

/// How long a collector may take over anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// First and longest wait after one that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Most of a collector's answer that is read.
const ANSWER_MAX: u64 = 64 << 10;

pub(crate) struct Exporter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is a request, or when nothing more is to be waited for.
    wake: Condvar,
    /// Told when all that waited has been sent or given up.
    sent: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Traced>,
    dropped: u64,
    is_sending: bool,
    /// Somebody waits for what there is to be sent.
    is_urgent: bool,
    closed: bool,
}

impl Exporter {
    pub(super) fn start(tracing: &Tracing, tell: Box<dyn Fn(fmt::Arguments<'_>) + Send>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let sender = Sender {
            shared: Arc::clone(&shared),
            tracing: tracing.clone(),
            tell,
        };
        thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || sender.run())?;
        Ok(Self { shared })
    }

    pub(super) fn take(&self, request: Traced) {
        let mut state = self.shared.lock();
        if state.waiting.len() >= WAITING_MAX {
            state.dropped += 1;
            return;
        }
        state.waiting.push(request);
        if state.waiting.len() == 1 || state.waiting.len() == BATCH {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    pub(super) fn flush(&self, end: Instant) {
        let mut state = self.shared.lock();
        while !state.waiting.is_empty() || state.is_sending {
            state.is_urgent = true;
            self.shared.wake.notify_one();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.sent.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sender {
    shared: Arc<Shared>,
    tracing: Tracing,
    tell: Box<dyn Fn(fmt::Arguments<'_>) + Send>,
}

impl Sender {
    fn run(self) {
        let mut wait = BACKOFF.0;
        // Requests lost since the collector fails, if it does.
        let mut failing: Option<u64> = None;
        while let Some((batch, dropped)) = self.next() {
            let count = batch.len() as u64;
            let result = self.send(&batch);
            let (host, port) = (&self.tracing.host, self.tracing.port);
            match (result, failing) {
                (Ok(()), before) => {
                    let lost = before.unwrap_or_default() + dropped;
                    if lost > 0 {
                        (self.tell)(format_args!(
                            "the traces of {lost} requests were dropped; {host}:{port} takes them again"
                        ));
                    }
                    (failing, wait) = (None, BACKOFF.0);
                }
                (Err(error), before) => {
                    if before.is_none() {
                        (self.tell)(format_args!(
                            "traces cannot be sent to {host}:{port}: {error}; they are dropped until they can"
                        ));
                    }
                    failing = Some(before.unwrap_or_default() + count + dropped);
                }
            }
            let mut state = self.shared.lock();
            state.is_sending = false;
            self.shared.sent.notify_all();
            if failing.is_some() {
                let end = Instant::now() + wait;
                wait = (wait * 2).min(BACKOFF.1);
                while !state.closed && !state.is_urgent {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.shared.wake.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// What is to be sent next, and how many requests found no room before; `None` at the end.
    fn next(&self) -> Option<(Vec<Traced>, u64)> {
        let mut state = self.shared.lock();
        let mut end = None;
        loop {
            let now = Instant::now();
            if state.closed {
                return None;
            }
            if state.waiting.is_empty() {
                state.is_urgent = false;
                let waited = self.shared.wake.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = end.get_or_insert(now + GATHER).saturating_duration_since(now);
            if left.is_zero() || state.is_urgent || state.waiting.len() >= BATCH {
                let count = state.waiting.len().min(BATCH);
                state.is_sending = true;
                return Some((
                    state.waiting.drain(..count).collect(),
                    std::mem::take(&mut state.dropped),
                ));
            }
            let waited = self.shared.wake.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, batch: &[Traced]) -> io::Result<()> {
        let Tracing { host, port, path, .. } = &self.tracing;
        let body = message(batch, &Clock::now());
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {shown}:{port}\r\nUser-Agent: wasgi\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = connect(host, *port)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        // Its head tells all there is to know; an answer that never ends is cut.
        let end = Instant::now() + PATIENCE;
        let mut limited = stream.take(ANSWER_MAX);
        let mut buffer = [0; 4096];
        while !answer.contains(&b'\n') && Instant::now() < end {
            match limited.read(&mut buffer)? {
                0 => break,
                length => answer.extend_from_slice(&buffer[..length]),
            }
        }
        match status(&answer) {
            Some(200..300) => Ok(()),
            Some(status) => Err(io::Error::other(format!("it answers {status}"))),
            None => Err(io::Error::other("its answer is not HTTP")),
        }
    }
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The status of `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer
        .strip_prefix(b"HTTP/1.1 ")
        .or(answer.strip_prefix(b"HTTP/1.0 "))?;
    str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// Both clocks at one moment, to tell one by the other.
struct Clock {
    instant: Instant,
    since_epoch: Duration,
}

impl Clock {
    fn now() -> Self {
        Self {
            instant: Instant::now(),
            since_epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Of a moment before.
    fn nanos(&self, instant: Instant) -> u128 {
        let ago = self.instant.saturating_duration_since(instant);
        self.since_epoch.saturating_sub(ago).as_nanos()
    }
}

/// All spans of a batch, as one `ExportTraceServiceRequest`.
fn message(batch: &[Traced], clock: &Clock) -> String {
    let mut text = String::with_capacity(batch.len() * 1500);
    text.push_str(
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"wasgi\"}}]},\
         \"scopeSpans\":[{\"scope\":{\"name\":\"wasgi\",\"version\":\"",
    );
    text.push_str(env!("CARGO_PKG_VERSION"));
    text.push_str("\"},\"spans\":[");
    for request in batch {
        spans(&mut text, request, clock);
    }
    // The last comma.
    text.pop();
    text.push_str("]}]}]}");
    text
}

fn spans(text: &mut String, request: &Traced, clock: &Clock) {
    let context = &request.context;
    let (trace, root) = (context.trace_id(), context.span);
    let mut span = |id: u64, parent: Option<u64>, name: &str, kind: u8, from: Instant, to: Instant| {
        let _ = write!(text, "{{\"traceId\":\"{trace}\",\"spanId\":\"{id:016x}\",");
        if let Some(parent) = parent {
            let _ = write!(text, "\"parentSpanId\":\"{parent:016x}\",");
        }
        text.push_str("\"name\":");
        json(text, name.as_bytes());
        let (from, to) = (clock.nanos(from), clock.nanos(to.max(from)));
        let _ = write!(
            text,
            ",\"kind\":{kind},\"startTimeUnixNano\":\"{from}\",\"endTimeUnixNano\":\"{to}\""
        );
        if id == root {
            attributes(text, request);
        }
        text.push_str("},");
    };
    // Kinds: 1 internal, 2 server.
    let end = request.began + request.took;
    span(root, context.parent, &request.method, 2, request.began, end);
    let times = &request.cost.times;
    let mut from = times.queued;
    for (name, to) in [
        ("queue", times.taken),
        ("restore", times.restored),
        ("guest", times.handled),
        ("rewind", times.rewound),
    ] {
        if let (Some(begin), Some(end)) = (from, to) {
            span(rand::random::<u64>().max(1), Some(root), name, 1, begin, end);
        }
        from = to.or(from);
    }
}

/// OpenTelemetry "Semantic Conventions for HTTP Spans", stable names.
fn attributes(text: &mut String, request: &Traced) {
    text.push_str(",\"attributes\":[");
    for (key, value) in [
        ("http.request.method", &request.method),
        ("url.path", &request.path),
        ("client.address", &request.peer),
        ("wasgi.app", &request.app),
        ("wasgi.request_id", &request.id),
    ] {
        let _ = write!(text, "{{\"key\":\"{key}\",\"value\":{{\"stringValue\":");
        json(text, value.as_bytes());
        text.push_str("}},");
    }
    let _ = write!(
        text,
        "{{\"key\":\"http.response.status_code\",\"value\":{{\"intValue\":\"{}\"}}}},\
         {{\"key\":\"http.response.body.size\",\"value\":{{\"intValue\":\"{}\"}}}}]",
        request.status, request.bytes
    );
    // Of a server, only its own failures are errors.
    if request.status >= 500 {
        text.push_str(",\"status\":{\"code\":2}");
    }
}
