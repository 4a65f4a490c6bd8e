//! One request: verdict, limits, environ, worker, reply.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request as HttpRequest, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use wasgi_engine::{BodyError, Failure, Request, RequestBody};
use wasgi_protocol::http::{Body, Connection as EnvironConnection, Head, Refusal};

use super::exchange::{Exchange, Input, NoInput, Sink, Start};
use super::reply::{
    Cut, Record, ReplyBody, explained, of_app, of_files, own, own_and_close, retry_later, status, too_many,
    with_id,
};
use super::timer::Timer;
use super::turns::{Refused, Turns};
use super::wire::Wire;
use crate::listener::Speaks;
use crate::log::Log;
use crate::rate::Rate;
use crate::route::Found;
use crate::run::{Ending, Server};
use crate::runner::Runner;
use crate::site::Down;
use crate::worker::Busy;

/// What hyper may hold of a reply that its peer is slow to take.
const WRITE_BUFFER: usize = 64 << 10;

/// When a client may find an app there again that was not.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(10);

/// Who is at the other end, as the environ and the log have it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Address and port; empty on a unix socket.
    pub(crate) remote: (String, String),
    /// What it connected to; `None` on a unix socket.
    pub(crate) server: Option<(String, String)>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The port that it is to come to with https instead.
    pub(crate) redirect: Option<u16>,
}

impl Peer {
    /// A TCP peer. IPv4 addresses that came in through an IPv6 socket are told as IPv4.
    pub(crate) fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        let text = |address: SocketAddr| {
            (
                address.ip().to_canonical().to_string(),
                address.port().to_string(),
            )
        };
        Self {
            remote: text(remote),
            server: Some(text(local)),
            scheme: "http",
            redirect: None,
        }
    }

    pub(crate) fn unix() -> Self {
        Self {
            remote: Default::default(),
            server: None,
            scheme: "http",
            redirect: None,
        }
    }

    /// As its listener says.
    pub(crate) fn speaking(mut self, speaks: &Speaks) -> Self {
        match speaks {
            Speaks::Http => {}
            Speaks::Https(_) => self.scheme = "https",
            Speaks::Redirect(port) => self.redirect = Some(*port),
        }
        self
    }
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) log: Log,
    pub(super) turns: Arc<Turns>,
}

/// Serves one connection until it ends. When `stop` has an ending the request that runs is finished, and none is taken
/// after what the ending has patience for.
pub(crate) async fn serve<S, R>(
    stream: S,
    peer: Peer,
    server: Arc<Server<R>>,
    mut stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    let turns = Arc::new(Turns::default());
    let wire = Wire::new(stream, Arc::clone(&turns), &server.limits);
    let log = server.log.clone();
    let connection = Arc::new(Connection { peer, log, turns });
    let stopped = stop.clone();
    let service = service_fn(|request: HttpRequest<Incoming>| {
        let answer = answer(Arc::clone(&server), Arc::clone(&connection), request.into_body());
        let (stopped, pages) = (&stopped, &server);
        async move {
            let mut response = with_id(answer.await?);
            if let Some(pages) = pages.pages() {
                response = explained(response, pages);
            }
            if stopped.borrow().is_some() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Cut>(response)
        }
    });
    // The wire has timeouts of its own.
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(WRITE_BUFFER)
        .serve_connection(wire, service);
    tokio::pin!(served);
    // Errors are peers that went away, or replies that were cut and logged.
    let leave = async {
        let ending = stop
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|ending| *ending);
        // Without a server there is nobody to tell.
        sleep(ending.unwrap_or(Ending::Stop).patience()).await;
    };
    tokio::select! {
        biased;
        _ = &mut served => return,
        () = leave => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

async fn answer<R: Runner>(
    server: Arc<Server<R>>,
    connection: Arc<Connection>,
    incoming: Incoming,
) -> Result<Response<ReplyBody>, Cut> {
    let mut record = Record::new(Arc::clone(&connection));
    let head = match connection.turns.verdict() {
        Some(Ok(head)) => head,
        Some(Err(Refused::Invalid(refusal))) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            return Ok(own(record, status, Some(&refusal.to_string())));
        }
        Some(Err(Refused::TimedOut)) => {
            return Ok(own(
                record,
                StatusCode::REQUEST_TIMEOUT,
                Some("the request's head took too long"),
            ));
        }
        // hyper has found a request that the wire did not hand it.
        None => return Err(Cut),
    };
    record.identify(&head);
    if let Some(port) = connection.peer.redirect {
        return Ok(to_https(record, head, port));
    }
    let routes = server.routes();
    let Some(Found { site, mount }) = routes.find(head.host(), &head.path()) else {
        record.head = Some(head);
        let what = "no app is served under this host and path";
        return Ok(own(record, StatusCode::NOT_FOUND, Some(what)));
    };
    record.app = Some(Arc::clone(site.name()));
    record.traffic = Some(Arc::clone(site.traffic()));
    if !mount.is_empty() && *head.path() == *mount.as_bytes() {
        return Ok(with_slash(record, head));
    }
    let generation = match site.generation() {
        Ok(generation) => generation,
        Err(down) => {
            record.head = Some(head);
            return Ok(unavailable(record, &down));
        }
    };
    match generation
        .statics
        .answer(&head, &head.path()[mount.len()..])
        .await
    {
        Ok(None) => {}
        Ok(Some(answer)) => {
            record.head = Some(head);
            return Ok(of_files(answer, record).await);
        }
        Err(error) => {
            record.head = Some(head);
            record.warn(format_args!("cannot look for a file: {error}"));
            return Ok(own(record, StatusCode::INTERNAL_SERVER_ERROR, None));
        }
    }
    if let Some(Err(wait)) = generation.rate.as_ref().map(Rate::take) {
        record.head = Some(head);
        return Ok(too_many(record, wait));
    }
    let (body, limit) = (head.body(), generation.limits.request_body);
    let (peer, traceparent) = (&connection.peer, record.traceparent());
    let mut own_fields = vec![("x-request-id", record.id.as_str().as_bytes())];
    own_fields.extend(traceparent.iter().map(|text| ("traceparent", text.as_bytes())));
    let from = EnvironConnection {
        scheme: peer.scheme,
        remote: (&peer.remote.0, &peer.remote.1),
        server: peer.server.as_ref().map(|server| (&*server.0, &*server.1)),
        own_fields: &own_fields,
    };
    let environ = head.environ(&from, mount);
    record.head = Some(head);
    if matches!(body, Body::Length(length) if length > limit) {
        let what = BodyError::TooLarge.to_string();
        return Ok(own_and_close(record, StatusCode::PAYLOAD_TOO_LARGE, Some(&what)));
    }
    let environ = match environ {
        Ok(environ) => environ,
        // Fields that fit the head, but not one value when they are joined.
        Err(_) => {
            let refusal = Refusal::HeadTooLong;
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Ok(own_and_close(record, status, Some(&refusal.to_string())));
        }
    };

    let has_body = !matches!(body, Body::Absent | Body::Length(0));
    let exchange = Exchange::new(has_body.then_some(incoming), generation.limits.reply_size);
    let input: Box<dyn RequestBody> = if has_body {
        Box::new(Input::new(Arc::clone(&exchange), &generation.limits))
    } else {
        Box::new(NoInput)
    };
    let request = Request {
        environ,
        id: record.id.to_string(),
        body: input,
        reply: Box::new(Sink(Arc::clone(&exchange))),
    };
    let pool = &generation.pool;
    let busy = |record, busy: Busy| retry_later(record, &busy.to_string(), pool.retry_after());
    let ticket = match pool.submit(request, record.open_bill()) {
        Ok(ticket) => ticket,
        Err(error) => return Ok(busy(record, error)),
    };
    record.worker = Some(ticket.taken_by().clone());

    let waiting = Leaving(Some(exchange));
    let patience = Instant::now() + pool.queue_time();
    let mut timer = Timer::default();
    let start = poll_fn(|cx| {
        if let Poll::Ready(start) = waiting.exchange().poll_start(cx) {
            return Poll::Ready(Ok(start));
        }
        if ticket.taken_by().number().is_none() {
            ready!(timer.poll(patience, cx));
            if ticket.withdraw() {
                return Poll::Ready(Err(Busy::TimedOut));
            }
        }
        Poll::Pending
    })
    .await;
    let start = match start {
        Ok(start) => start,
        Err(error) => return Ok(busy(record, error)),
    };
    let exchange = waiting.stay();
    match start {
        Start::Reply(head, all) => Ok(of_app(head, all, record, exchange)),
        Start::Failed(failure) => {
            exchange.leave(true);
            failed(record, &failure)
        }
    }
}

/// Sends a peer that asks for a mount itself to the path below it, as web servers do for folders.
fn with_slash(mut record: Record, head: Head) -> Response<ReplyBody> {
    let (path, query) = head.raw_path_and_query();
    let mut location = [path, b"/"].concat();
    if let Some(query) = query {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    let status = match head.method() {
        b"GET" | b"HEAD" => StatusCode::MOVED_PERMANENTLY,
        // The method and the body are to come again.
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    record.head = Some(head);
    let mut response = own(record, status, None);
    if let Ok(location) = HeaderValue::from_bytes(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The answer while nothing answers for the app. The log tells why, under the id that the client is told.
fn unavailable(record: Record, down: &Down) -> Response<ReplyBody> {
    if let Down::Failed(_) = down {
        record.warn(format_args!("{down}"));
    }
    let what = match down {
        Down::Failed(_) => "the app could not be loaded",
        Down::Drained => "the app takes no requests at present",
    };
    retry_later(record, what, UNAVAILABLE_RETRY)
}

/// Sends the client to the same target over TLS.
fn to_https(mut record: Record, head: Head, port: u16) -> Response<ReplyBody> {
    let host = head.field("host").unwrap_or_default();
    // A port is digits behind the last colon; one within an IPv6 address is followed by a bracket.
    let end = host.iter().rposition(|byte| !byte.is_ascii_digit());
    let name = match end {
        Some(at) if host[at] == b':' => &host[..at],
        _ => host,
    };
    let port = if port == 443 {
        String::new()
    } else {
        format!(":{port}")
    };
    // `*` and absolute targets have no place behind a host.
    let target = Some(head.target()).filter(|target| target.starts_with(b"/"));
    let location = [b"https://", name, port.as_bytes(), target.unwrap_or(b"/")].concat();
    let has_name = !name.is_empty();
    record.head = Some(head);
    match HeaderValue::from_bytes(&location) {
        Ok(location) if has_name => {
            let mut response = own(record, StatusCode::PERMANENT_REDIRECT, None);
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        _ => own(record, StatusCode::BAD_REQUEST, Some("the request names no host")),
    }
}

/// The answer for a request that the app gave no reply to.
fn failed(record: Record, failure: &Failure) -> Result<Response<ReplyBody>, Cut> {
    match failure {
        // Told by its traceback.
        Failure::App => {}
        // Told by the access line.
        Failure::Body(_) => {}
        Failure::BadReply(_)
        | Failure::TimeLimit
        | Failure::Exited(_)
        | Failure::Crashed(_)
        | Failure::NotStarted(_) => record.warn(format_args!("{failure}")),
    }
    match (status(failure), record.broken(), failure) {
        // Whoever broke the framing is still there.
        (None, Some(refusal), _) => Ok(own_and_close(
            record,
            StatusCode::BAD_REQUEST,
            Some(&refusal.to_string()),
        )),
        (None, None, _) => Err(Cut),
        (Some(status), _, Failure::Body(error)) => {
            Ok(own_and_close(record, status, Some(&error.to_string())))
        }
        (Some(status), _, _) => Ok(own(record, status, None)),
    }
}

/// Tells the worker when the peer goes away before there is a reply.
struct Leaving(Option<Arc<Exchange>>);

impl Leaving {
    fn exchange(&self) -> &Exchange {
        self.0
            .as_ref()
            .expect("only `stay` takes it, and it takes `self`")
    }

    fn stay(mut self) -> Arc<Exchange> {
        self.0.take().expect("only `stay` takes it, and it takes `self`")
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(exchange) = &self.0 {
            exchange.leave(false);
        }
    }
}
