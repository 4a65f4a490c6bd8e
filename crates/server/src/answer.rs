//! One request: verdict, limits, environ, worker, reply.

mod coder;
mod compress;
pub(crate) mod exchange;
mod pace;
mod reply;

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::Instant;
use wasgi_config::Proxy;
use wasgi_engine::{BodyError, Failure, Request, RequestBody};
use wasgi_protocol::Head;
use wasgi_protocol::forwarded::{Forwarded, Hops, Unclear};
use wasgi_protocol::http::{Body, Connection as EnvironConnection, Refusal};

pub(crate) use self::exchange::Source;
use self::exchange::{Exchange, Input, NoInput, Sink, Start};
pub(crate) use self::reply::{Cut, ReplyBody};
use self::reply::{
    Record, TooMuch, explained, of_app, of_files, own, own_and_close, paced, retry_later, status, too_many,
    with_id,
};
use crate::log::Log;
use crate::peer::Peer;
use crate::route::Found;
use crate::run::Server;
use crate::runner::Runner;
use crate::site::Down;
use crate::timer::Timer;
use crate::worker::Busy;

/// When a client may find an app there again that was not.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(10);

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) log: Log,
    /// Whoever brings the requests, if it wants to know of their ends.
    pub(crate) turns: Option<Arc<dyn Turn>>,
}

/// Brings one request after the other.
pub(crate) trait Turn: fmt::Debug + Send + Sync {
    /// The request is over: its reply is out, or its peer gone.
    fn end(&self);

    /// Why the request's body cannot be read on, if what came is none.
    fn broken(&self) -> Option<String>;
}

/// Why a request is not given to an app, before it is known which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// For the client.
    pub(crate) what: Cow<'static, str>,
}

impl Refused {
    /// For what a codec found wrong, with the status that it names.
    pub(crate) fn invalid(status: u16, refusal: impl Display) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            what: refusal.to_string().into(),
        }
    }

    /// For a head that is not there in time.
    pub(crate) fn late() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            what: "the request's head took too long".into(),
        }
    }
}

/// Answers a request, whichever wire has brought it. `body` is read if the head says that there is one.
///
/// # Errors
/// [`Cut`] when the connection is to end without a reply.
pub(crate) async fn answer<R: Runner>(
    server: &Server<R>,
    connection: Arc<Connection>,
    verdict: Result<Head, Refused>,
    body: impl Source,
) -> Result<Response<ReplyBody>, Cut> {
    let response = with_id(decide(server, connection, verdict, body).await?);
    Ok(match server.pages() {
        Some(pages) => explained(response, pages),
        None => response,
    })
}

async fn decide<R: Runner>(
    server: &Server<R>,
    connection: Arc<Connection>,
    verdict: Result<Head, Refused>,
    source: impl Source,
) -> Result<Response<ReplyBody>, Cut> {
    let mut record = Record::new(Arc::clone(&connection));
    let head = match verdict {
        Ok(head) => head,
        Err(Refused { status, what }) => return Ok(own(record, status, Some(&what))),
    };
    record.identify(&head);
    if let Some(port) = connection.peer.redirect {
        return Ok(to_https(record, head, port));
    }
    let told = match told(server, &connection.peer, &head) {
        Ok(told) => told,
        Err(unclear) => {
            record.head = Some(head);
            record.warn(format_args!("{}: {unclear}", connection.peer));
            return Ok(own(record, StatusCode::BAD_REQUEST, Some(&unclear.to_string())));
        }
    };
    let prefix = told.as_ref().map_or("", |told| &told.prefix);
    record.client = told.as_ref().and_then(|told| told.client);
    let host = told
        .as_ref()
        .and_then(Forwarded::host_name)
        .unwrap_or(head.host());
    let routes = server.routes();
    let Some(Found { site, mount }) = routes.find(host, &head.path()) else {
        record.head = Some(head);
        let what = "no app is served under this host and path";
        return Ok(own(record, StatusCode::NOT_FOUND, Some(what)));
    };
    record.app = Some(Arc::clone(site.name()));
    record.traffic = Some(Arc::clone(site.traffic()));
    if !mount.is_empty() && *head.path() == *mount.as_bytes() {
        return Ok(below(prefix, with_slash(record, head)));
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
        .answer(&head, &head.path()[head.script_length(mount)..])
        .await
    {
        Ok(None) => {}
        Ok(Some(answer)) => {
            record.head = Some(head);
            let response = below(prefix, of_files(answer, record).await);
            return Ok(paced(response, generation.limits.reply_rate));
        }
        Err(error) => {
            record.head = Some(head);
            record.warn(format_args!("cannot look for a file: {error}"));
            return Ok(own(record, StatusCode::INTERNAL_SERVER_ERROR, None));
        }
    }
    let spent = generation.pool.cpu_wait().map(TooMuch::Cpu);
    let refused = spent.or_else(|| {
        site.rate()
            .take(generation.limits.rate)
            .err()
            .map(TooMuch::Requests)
    });
    if let Some(too_much) = refused {
        record.head = Some(head);
        return Ok(too_many(record, too_much));
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
        forwarded: told.as_ref(),
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
    let source = has_body.then(|| Box::new(source) as Box<dyn Source>);
    let exchange = Exchange::new(source, generation.limits.reply_size);
    let input: Box<dyn RequestBody> = if has_body {
        Box::new(Input::new(Arc::clone(&exchange), &generation.limits))
    } else {
        Box::new(NoInput)
    };
    let request = Request::new(
        environ,
        record.id.to_string(),
        input,
        Box::new(Sink(Arc::clone(&exchange))),
    );
    let pool = &generation.pool;
    let busy = |record, busy: Busy| retry_later(record, &busy.to_string(), pool.retry_after());
    let ticket = match pool.submit(request, record.open_bill()) {
        Ok(ticket) => ticket,
        Err(error) => return Ok(busy(record, error)),
    };
    record.worker = Some(ticket.errand().clone());

    let waiting = Leaving(Some(exchange));
    let patience = Instant::now() + pool.queue_time();
    let mut timer = Timer::default();
    let start = poll_fn(|cx| {
        if let Poll::Ready(start) = waiting.exchange().poll_start(cx) {
            return Poll::Ready(Ok(start));
        }
        if ticket.errand().number().is_none() {
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
        Start::Reply(head, all) => {
            let compress = generation.compress.as_ref();
            let response = of_app(head, all, record, exchange, compress);
            Ok(paced(response, generation.limits.reply_rate))
        }
        Start::Failed(failure) => {
            exchange.leave(true);
            failed(record, &failure)
        }
    }
}

/// What a proxy in front says of the request; `None` if the operator says nothing of proxies.
fn told<R: Runner>(server: &Server<R>, peer: &Peer, head: &Head) -> Result<Option<Forwarded>, Unclear> {
    let told = match server.proxy() {
        None => return Ok(None),
        Some(proxy) if is_trusted(proxy, peer, head) => Forwarded::read(head, &Hops(proxy.hops))?,
        Some(_) => Forwarded::by_a_stranger(),
    };
    Ok(Some(told))
}

/// Whether who connected is a proxy of ours: to this server, or to the web server that has handed on its variables.
fn is_trusted(proxy: &Proxy, peer: &Peer, head: &Head) -> bool {
    match (head, head.remote()) {
        (Head::Http(_), _) => peer.is_trusted,
        // Without an address of its client's it has a unix socket, or is one's own thing entirely.
        (Head::Gateway(_), client) => proxy.trusts(client.and_then(|client| client.parse().ok())),
    }
}

/// The path in a redirect of ours begins with what a proxy took off the one asked for.
fn below(prefix: &str, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    if !prefix.is_empty()
        && let Some(location) = response.headers().get(header::LOCATION)
        && let Ok(location) = HeaderValue::from_bytes(&[prefix.as_bytes(), location.as_bytes()].concat())
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
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
        | Failure::CpuLimit
        | Failure::Killed
        | Failure::Exited(_)
        | Failure::Crashed(_)
        | Failure::Lost(_)
        | Failure::NotStarted(_) => record.warn(format_args!("{failure}")),
    }
    match (status(failure), record.broken(), failure) {
        // Whoever broke the framing is still there.
        (None, Some(what), _) => Ok(own_and_close(record, StatusCode::BAD_REQUEST, Some(&what))),
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
