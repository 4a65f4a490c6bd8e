//! Replies as connections take them: framing made right, lengths enforced, failures made into statuses.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use wasgi_config::Compress;
use wasgi_engine::{BodyError, Failure, ReplyHead};
use wasgi_protocol::Head;
use wasgi_protocol::forwarded::Client;

use super::Connection;
use super::coder::Coder;
use super::compress;
use super::exchange::{Exchange, Piece};
use super::pace::Pace;
use crate::bill::{Bill, Cost, Line, Meter};
use crate::content::Content;
use crate::error_pages::ErrorPages;
use crate::log::Access;
use crate::request_id::RequestId;
use crate::static_files::{Answer, AnswerBody};
use crate::trace::{self, Traced, Tracer};
use crate::traffic::Traffic;
use crate::worker::Errand;

/// The connection ends here, without (the rest of) a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is not completed")]
pub(crate) struct Cut;

/// What a request becomes in the access log. Dropping it ends the request's turn on its connection.
#[derive(Debug)]
pub(super) struct Record {
    connection: Arc<Connection>,
    pub(super) head: Option<Head>,
    /// The app that the request is for, if it is for one.
    pub(super) app: Option<Arc<str>>,
    /// Where the app's requests are counted, if it is for one.
    pub(super) traffic: Option<Arc<Traffic>>,
    pub(super) id: RequestId,
    /// Who asks, if a trusted proxy says so.
    pub(super) client: Option<Client>,
    trace: Option<trace::Context>,
    pub(super) worker: Option<Errand>,
    /// Open if a worker took the request and the log is to tell what it cost.
    bill: Option<Arc<Bill>>,
    started: Instant,
    status: u16,
    bytes: u64,
}

impl Record {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            head: None,
            app: None,
            traffic: None,
            id: RequestId::random(),
            client: None,
            trace: None,
            worker: None,
            bill: None,
            started: Instant::now(),
            status: 0,
            bytes: 0,
        }
    }

    /// What the worker that takes the request notes its cost with.
    pub(super) fn open_bill(&mut self) -> Meter {
        if !self.connection.log.has_bill() && self.tracer().is_none() {
            return Meter::default();
        }
        let (bill, meter) = Bill::open();
        self.bill = Some(bill);
        meter
    }

    /// Takes over what a trusted peer calls the request, and finds its place in a trace.
    pub(super) fn identify(&mut self, head: &Head) {
        let log = &self.connection.log;
        let is_trusted = log.trusts_request_id();
        if is_trusted && let Some(id) = head.only_field(REQUEST_ID.as_str()).and_then(RequestId::given) {
            self.id = id;
        }
        self.trace = match log.tracer() {
            Some(tracer) => Some(tracer.context(head, is_trusted)),
            None => trace::Context::of(head),
        };
    }

    /// The `traceparent` for the app, if it is not the peer's.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.connection.log.tracer()?;
        self.trace.map(|context| context.to_string())
    }

    /// What takes the request's spans, if it has any.
    fn tracer(&self) -> Option<(&Tracer, trace::Context)> {
        let context = self.trace.filter(|context| context.sampled)?;
        Some((self.connection.log.tracer()?, context))
    }

    fn is_head(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.method() == b"HEAD")
    }

    pub(super) fn warn(&self, what: std::fmt::Arguments<'_>) {
        let (app, id) = (self.app.as_deref().unwrap_or("-"), self.id);
        self.connection.log.warn_of(app, id, what);
    }

    /// Whether the operator has ended the request.
    fn is_killed(&self) -> bool {
        self.worker
            .as_ref()
            .is_some_and(|errand| errand.track().is_killed())
    }

    /// Why the request's body cannot be read on, if that is so.
    pub(super) fn broken(&self) -> Option<String> {
        self.connection.turns.as_ref()?.broken()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(turns) = &self.connection.turns {
            turns.end();
        }
        let waited = self.worker.as_ref().map(Errand::waited);
        let entry = Entry {
            connection: Arc::clone(&self.connection),
            head: self.head.take(),
            app: self.app.take(),
            status: if self.status == 0 { 499 } else { self.status },
            bytes: self.bytes,
            started: self.started,
            time: self.started.elapsed(),
            worker: self.worker.as_ref().and_then(Errand::number),
            id: self.id,
            client: self.client,
            trace: self.trace,
        };
        if let Some(traffic) = &self.traffic {
            traffic.ended(entry.status, entry.bytes, entry.time, waited);
        }
        if !self.connection.log.has_bill() {
            entry.log(None);
        }
        match self.bill.take() {
            Some(bill) => bill.replied(Box::new(entry)),
            None => Box::new(entry).write(&Cost::default()),
        }
    }
}

/// A request that is over for its peer, on its way into the log.
struct Entry {
    connection: Arc<Connection>,
    head: Option<Head>,
    app: Option<Arc<str>>,
    status: u16,
    bytes: u64,
    started: Instant,
    time: Duration,
    worker: Option<u32>,
    id: RequestId,
    client: Option<Client>,
    trace: Option<trace::Context>,
}

impl Entry {
    /// The address of who asks, as a trusted proxy or a web server in front says or as the connection has it; empty if it is
    /// not known.
    fn remote(&self) -> Cow<'_, str> {
        let told = self.head.as_ref().and_then(Head::remote);
        match self.client {
            Some(client) => Cow::Owned(client.texts().0),
            None => Cow::Borrowed(told.unwrap_or(&self.connection.peer.remote.0)),
        }
    }

    fn log(&self, cost: Option<&Cost>) {
        self.connection.log.access(&Access {
            remote: &self.remote(),
            head: self.head.as_ref(),
            app: self.app.as_deref(),
            status: self.status,
            bytes: self.bytes,
            time: self.time,
            worker: self.worker,
            cost,
            id: self.id,
            trace: self.trace.map(|context| context.trace_id()),
        });
    }

    fn trace(&self, cost: &Cost) {
        let (Some(context), Some(tracer)) = (self.trace, self.connection.log.tracer()) else {
            return;
        };
        if !context.sampled {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let target = self.head.as_ref().map(Head::target).unwrap_or_default();
        let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
        tracer.record(Traced {
            context,
            app: self.app.as_deref().unwrap_or_default().to_owned(),
            id: self.id.to_string(),
            method: text(self.head.as_ref().map(Head::method).unwrap_or_default()),
            path: text(path),
            peer: self.remote().into_owned(),
            status: self.status,
            bytes: self.bytes,
            began: self.started,
            took: self.time,
            cost: *cost,
        });
    }
}

impl Line for Entry {
    fn write(self: Box<Self>, cost: &Cost) {
        if self.connection.log.has_bill() {
            self.log(Some(cost));
        }
        self.trace(cost);
    }
}

/// What clients and proxies call a request by.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Tells the client the request's id, in every reply, and in place of what the app may say: it is the one that the log
/// has.
pub(super) fn with_id(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    let id = HeaderValue::from_str(response.body().record.id.as_str());
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The status of a failure whose head has not gone out; `None` when nobody is there to read it.
pub(super) fn status(failure: &Failure) -> Option<StatusCode> {
    match failure {
        Failure::App | Failure::BadReply(_) | Failure::Exited(_) | Failure::Crashed(_) => {
            Some(StatusCode::INTERNAL_SERVER_ERROR)
        }
        // A server in front may ask another one, if the request is one to be repeated.
        Failure::Lost(_) => Some(StatusCode::BAD_GATEWAY),
        Failure::NotStarted(_) | Failure::Killed => Some(StatusCode::SERVICE_UNAVAILABLE),
        Failure::TimeLimit | Failure::CpuLimit => Some(StatusCode::GATEWAY_TIMEOUT),
        Failure::Body(BodyError::TooLarge) => Some(StatusCode::PAYLOAD_TOO_LARGE),
        Failure::Body(BodyError::TimedOut) => Some(StatusCode::REQUEST_TIMEOUT),
        Failure::Body(BodyError::PeerGone) => None,
    }
}

/// A reply of the server's own: the status, what is wrong in words, and the request's id.
pub(super) fn own(mut record: Record, status: StatusCode, what: Option<&str>) -> Response<ReplyBody> {
    let mut text = status.to_string();
    if let Some(what) = what {
        text.push_str(": ");
        text.push_str(what);
    }
    text.push_str("\nrequest ");
    text.push_str(record.id.as_str());
    text.push('\n');
    record.status = status.as_u16();
    let body = if record.is_head() {
        Body::Empty
    } else {
        Body::Whole(Some(Bytes::from(text)))
    };
    let mut response = Response::new(ReplyBody {
        body,
        coder: None,
        pace: None,
        exchange: None,
        record,
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::SERVER, SERVER);
    response
}

/// A 503 with `Retry-After`.
pub(super) fn retry_later(record: Record, what: &str, after: Duration) -> Response<ReplyBody> {
    later(record, StatusCode::SERVICE_UNAVAILABLE, what, after)
}

/// What an app has had too much of, and when it may have more.
pub(super) enum TooMuch {
    /// More than `limits.rate`.
    Requests(Duration),
    /// More than `limits.cpu-per-minute`.
    Cpu(Duration),
}

/// A 429 with `Retry-After`.
pub(super) fn too_many(record: Record, of: TooMuch) -> Response<ReplyBody> {
    let (what, after) = match of {
        TooMuch::Requests(after) => ("the app gets too many requests a second", after),
        TooMuch::Cpu(after) => ("the app has used up its CPU time of this minute", after),
    };
    later(record, StatusCode::TOO_MANY_REQUESTS, what, after)
}

/// [`own`], with `Retry-After`, rounded up to seconds.
fn later(record: Record, status: StatusCode, what: &str, after: Duration) -> Response<ReplyBody> {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    let mut response = own(record, status, Some(what));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// [`own`], after which the connection is closed: what the peer still sends is not read.
pub(super) fn own_and_close(record: Record, status: StatusCode, what: Option<&str>) -> Response<ReplyBody> {
    let mut response = own(record, status, what);
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Content of at most so many bytes is read before its reply begins, so that both go out together.
const SHORT: u64 = 128 << 10;

/// A reply that the server makes of files.
pub(super) async fn of_files(answer: Answer, mut record: Record) -> Response<ReplyBody> {
    let Answer {
        status,
        mut headers,
        body,
    } = answer;
    let body = match body {
        AnswerBody::Status => {
            let mut response = own(record, status, None);
            response.headers_mut().extend(headers);
            return response;
        }
        AnswerBody::Nothing => Body::Empty,
        AnswerBody::Text(text) if record.is_head() => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
            Body::Empty
        }
        AnswerBody::Text(text) => Body::Whole(Some(text)),
        AnswerBody::Content(content) if record.is_head() => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.left()));
            Body::Empty
        }
        AnswerBody::Content(content) if content.left() <= SHORT => match content.whole().await {
            Ok(whole) => Body::Whole(Some(whole)),
            Err(error) => {
                record.warn(format_args!("cannot send a file: {error}"));
                return own(record, StatusCode::INTERNAL_SERVER_ERROR, None);
            }
        },
        AnswerBody::Content(content) => Body::Content(content),
    };
    record.status = status.as_u16();
    let mut response = Response::new(ReplyBody {
        body,
        coder: None,
        pace: None,
        exchange: None,
        record,
    });
    *response.status_mut() = status;
    headers.insert(header::SERVER, SERVER);
    *response.headers_mut() = headers;
    response
}

/// A reply that goes out with at most so many bytes a second; 0 for any.
pub(super) fn paced(mut response: Response<ReplyBody>, per_second: u64) -> Response<ReplyBody> {
    response.body_mut().pace = Pace::new(per_second);
    response
}

/// A reply that tells of a failure, with the developer's page in place of its body if there is one.
pub(super) fn explained(response: Response<ReplyBody>, pages: &dyn ErrorPages) -> Response<ReplyBody> {
    let (mut parts, mut body) = response.into_parts();
    let page = match parts.status {
        StatusCode::INTERNAL_SERVER_ERROR => pages.page(Some(body.record.id.as_str())),
        StatusCode::SERVICE_UNAVAILABLE => pages.page(None),
        _ => None,
    };
    // Neither a reply to HEAD nor one that comes in pieces.
    if let (Some(page), Body::Whole(_)) = (page, &body.body) {
        body.body = Body::Whole(Some(Bytes::from(page)));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        parts.headers.insert(header::CONTENT_TYPE, html);
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ETAG] {
            parts.headers.remove(name);
        }
    }
    Response::from_parts(parts, body)
}

const SERVER: HeaderValue = HeaderValue::from_static("wasgi");

/// The app's reply. `all` is its body, if it has come as one piece.
///
/// Framing is the server's: the body of a reply to HEAD, or with 204, 205 or 304, is dropped; a Content-Length of the
/// app's holds, too long a body is cut to it and too short a one ends the connection; a body of one piece gets its
/// length told; any other, and any that is compressed, is chunked, or ended by closing for HTTP/1.0 (hyper sees to that).
pub(super) fn of_app(
    head: ReplyHead,
    all: Option<Piece>,
    mut record: Record,
    exchange: Arc<Exchange>,
    compress: Option<&Compress>,
) -> Response<ReplyBody> {
    let (mut headers, length) = match header_map(head.headers) {
        Ok(headers) => headers,
        Err(what) => {
            exchange.leave(true);
            record.warn(format_args!("{}", Failure::BadReply(what.to_owned())));
            return own(record, StatusCode::INTERNAL_SERVER_ERROR, None);
        }
    };
    let status = match StatusCode::from_u16(head.status) {
        Ok(status) if !status.is_informational() => status,
        _ => {
            exchange.leave(true);
            record.warn(format_args!(
                "{}",
                Failure::BadReply(format!("its status is {}", head.status))
            ));
            return own(record, StatusCode::INTERNAL_SERVER_ERROR, None);
        }
    };
    record.status = status.as_u16();

    // An empty body may be an app's own answer to HEAD: it says nothing of the length GET would have.
    let told = match (length, all.as_ref().map(Piece::len)) {
        (None, Some(0)) if record.is_head() => None,
        (length, all) => length.or(all),
    };
    let coder = compress.zip(record.head.as_ref()).and_then(|(compress, head)| {
        let coding = compress::choose(compress, head, status, &mut headers, told)?;
        Coder::new(coding, compress.level)
    });
    let no_body = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let body = if no_body {
        Body::Empty
    } else if record.is_head() {
        if let (Some(length), None) = (told, &coder) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Body::Empty
    } else {
        match (all, length) {
            (Some(all), length) if length.is_none_or(|length| length == all.len()) => match all {
                Piece::Data(all) => Body::Whole(Some(all)),
                Piece::File(content) => Body::Content(content),
            },
            (first, length) => Body::Stream(Stream {
                first: first.filter(|first| first.len() > 0),
                file: None,
                left: length,
                length,
            }),
        }
    };
    let mut response = Response::new(ReplyBody {
        coder: coder.filter(|_| !matches!(body, Body::Empty)),
        body,
        pace: None,
        exchange: Some(exchange),
        record,
    });
    *response.status_mut() = status;
    if !headers.contains_key(header::SERVER) {
        headers.insert(header::SERVER, SERVER);
    }
    *response.headers_mut() = headers;
    if !head.reason.is_empty()
        && status
            .canonical_reason()
            .is_none_or(|reason| reason.as_bytes() != head.reason)
    {
        // What hyper refuses here (control characters) the engine has refused before.
        if let Ok(reason) = ReasonPhrase::try_from(head.reason) {
            response.extensions_mut().insert(reason);
        }
    }
    response
}

/// The app's fields for hyper, without those that frame the body, and the length they tell.
fn header_map(fields: Vec<(Bytes, Bytes)>) -> Result<(HeaderMap, Option<u64>), &'static str> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 3);
    let mut length = None;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(&name).map_err(|_| "a header's name is malformed")?;
        if name == header::CONTENT_LENGTH {
            let text = str::from_utf8(&value)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let number = text
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or("its Content-Length is not a number")?;
            if length.replace(number).is_some_and(|before| before != number) {
                return Err("it has two different Content-Lengths");
            }
            continue;
        }
        // PEP 3333 "Other HTTP Features" forbids them; the engine has refused them before.
        if [
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::UPGRADE,
            header::TRAILER,
        ]
        .contains(&name)
        {
            continue;
        }
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "a header's value is malformed")?;
        headers.append(name, value);
    }
    Ok((headers, length))
}

/// The body of a reply. Dropping it ends the request for its worker and in the log.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    body: Body,
    /// What `body` goes through, if it is compressed.
    coder: Option<Coder>,
    pace: Option<Box<Pace>>,
    exchange: Option<Arc<Exchange>>,
    record: Record,
}

#[derive(Debug)]
enum Body {
    Empty,
    /// One piece; `None` once it has been taken.
    Whole(Option<Bytes>),
    Stream(Stream),
    /// Of files.
    Content(Content),
    /// What there was has gone out, and the reply fails.
    Cut,
}

#[derive(Debug)]
struct Stream {
    /// A piece that was taken off the exchange already.
    first: Option<Piece>,
    /// The last piece, if it is a file's.
    file: Option<Content>,
    /// Bytes to come by the app's Content-Length.
    left: Option<u64>,
    length: Option<u64>,
}

/// Why a reply ends before its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    App(Failure),
    #[error("cannot read a file that is being sent: {0}")]
    File(std::io::Error),
}

impl ReplyBody {
    /// The next piece before it is compressed.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        match &mut self.body {
            Body::Empty => Poll::Ready(None),
            Body::Whole(piece) => Poll::Ready(piece.take().map(Ok)),
            Body::Stream(_) => self.poll_stream(cx),
            Body::Content(_) => self.poll_content(cx),
            Body::Cut => Poll::Ready(Some(Err(Cut))),
        }
    }

    /// The next piece as it is sent. Whatever the app has given is on its way before it is waited for more.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            let Some(coder) = &mut self.coder else {
                return self.poll_plain(cx);
            };
            match ready!(coder.poll(cx)) {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(Some(Ok(piece))),
                Err(error) => {
                    self.record.warn(format_args!(
                        "cannot compress the reply: {error}; the connection is cut"
                    ));
                    self.coder = None;
                    return self.cut(cx);
                }
            }
            if coder.is_ended() {
                return Poll::Ready(None);
            }
            let plain = self.poll_plain(cx);
            let Some(coder) = &mut self.coder else { continue };
            match plain {
                Poll::Ready(Some(Ok(piece))) => coder.put(piece),
                Poll::Ready(Some(Err(cut))) => return Poll::Ready(Some(Err(cut))),
                Poll::Ready(None) => coder.finish(),
                Poll::Pending if coder.flush() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Body::Stream(stream) = &mut self.body else {
            return Poll::Ready(None);
        };
        if stream.left == Some(0) {
            return Poll::Ready(None);
        }
        if stream.file.is_none() {
            let piece = match (stream.first.take(), &self.exchange) {
                (Some(first), _) => Some(Ok(first)),
                (None, Some(exchange)) => ready!(exchange.poll_piece(cx)),
                (None, None) => None,
            };
            match piece {
                Some(Ok(Piece::Data(data))) => return self.poll_take(Some(Ok(data)), cx),
                Some(Ok(Piece::File(content))) => stream.file = Some(content),
                Some(Err(failure)) => return self.poll_take(Some(Err(Broken::App(failure))), cx),
                None => return self.poll_take(None, cx),
            }
        }
        let piece = match &mut stream.file {
            Some(content) => ready!(content.poll_piece(cx)),
            None => None,
        };
        self.poll_take(piece.map(|piece| piece.map_err(Broken::File)), cx)
    }

    /// Counts a piece of a stream against the length told.
    fn poll_take(
        &mut self,
        piece: Option<Result<Bytes, Broken>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Cut>>> {
        let Body::Stream(stream) = &mut self.body else {
            return Poll::Ready(None);
        };
        match (piece, stream.left) {
            (Some(Ok(piece)), None) => return Poll::Ready(Some(Ok(piece))),
            (Some(Ok(mut piece)), Some(left)) => {
                let size = piece.len() as u64;
                stream.left = Some(left.saturating_sub(size));
                if size > left {
                    // Less than `size`, which is a usize.
                    piece.truncate(left as usize);
                    let length = stream.length.unwrap_or_default();
                    self.record.warn(format_args!(
                        "the reply is longer than its Content-Length of {length}; the rest is dropped"
                    ));
                }
                return Poll::Ready(Some(Ok(piece)));
            }
            (None, None) => return Poll::Ready(None),
            (None, Some(left)) => {
                let length = stream.length.unwrap_or_default();
                let sent = length - left;
                self.record.warn(format_args!(
                    "the reply ended after {sent} of the {length} bytes its Content-Length tells; the connection is cut"
                ));
            }
            (Some(Err(failure)), _) => {
                self.record
                    .warn(format_args!("{failure}, within the reply; the connection is cut"));
            }
        }
        self.cut(cx)
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Body::Content(content) = &mut self.body else {
            return Poll::Ready(None);
        };
        let left = content.left();
        match ready!(content.poll_piece(cx)) {
            None => Poll::Ready(None),
            Some(Ok(piece)) => Poll::Ready(Some(Ok(piece))),
            Some(Err(error)) => {
                self.record.warn(format_args!(
                    "cannot read the last {left} bytes of a file that is being sent: {error}; the connection is cut"
                ));
                self.cut(cx)
            }
        }
    }

    /// Whether the operator has ended the request, and more of the app's reply is to come.
    fn is_killed(&self) -> bool {
        matches!(self.body, Body::Stream(_) | Body::Content(_))
            && self.exchange.is_some()
            && self.record.is_killed()
    }

    /// Fails the reply. The error makes hyper drop what it has not written: it may write first.
    fn cut(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        self.body = Body::Cut;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Bytes that are not let out yet.
    fn held(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| pace.held())
    }

    /// Whether the peer gets all it is to get from what hyper has.
    fn is_served(&self) -> bool {
        if self.held() > 0 {
            return false;
        }
        if self.coder.as_ref().is_some_and(|coder| !coder.is_ended()) {
            return false;
        }
        match &self.body {
            Body::Empty => true,
            Body::Whole(piece) => piece.is_none(),
            Body::Stream(stream) => stream.left == Some(0),
            Body::Content(content) => content.left() == 0,
            Body::Cut => false,
        }
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        if this.is_killed() {
            let why = Failure::Killed;
            this.record
                .warn(format_args!("{why}, within the reply; the connection is cut"));
            return this.cut(cx).map(|_| None);
        }
        if let Some(pace) = &mut this.pace {
            ready!(pace.poll_turn(cx));
        }
        let mut piece = match this.pace.as_mut().and_then(|pace| pace.rest()) {
            Some(rest) => Some(Ok(rest)),
            None => ready!(this.poll_piece(cx)),
        };
        if let (Some(Ok(piece)), Some(pace)) = (&mut piece, &mut this.pace) {
            *piece = pace.part(std::mem::take(piece));
        }
        if let Some(Ok(piece)) = &piece {
            this.record.bytes += piece.len() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        if self.held() > 0 {
            return false;
        }
        if let Some(coder) = &self.coder {
            return coder.is_ended();
        }
        match &self.body {
            Body::Empty => true,
            Body::Whole(piece) => piece.as_ref().is_none_or(Bytes::is_empty),
            Body::Stream(stream) => stream.left == Some(0),
            Body::Content(content) => content.left() == 0,
            Body::Cut => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.coder.is_some() {
            return SizeHint::default();
        }
        let left = match &self.body {
            Body::Empty => Some(0),
            Body::Whole(piece) => Some(piece.as_ref().map_or(0, |piece| piece.len() as u64)),
            Body::Stream(stream) => stream.left,
            Body::Content(content) => Some(content.left()),
            Body::Cut => None,
        };
        left.map(|left| SizeHint::with_exact(left + self.held()))
            .unwrap_or_default()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.leave(self.is_served());
        }
    }
}
