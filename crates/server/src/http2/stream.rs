//! One stream: a request, and its reply.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{FlowControl, Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::Notify;
use tokio::time::timeout;
use wasgi_engine::PeerGone;
use wasgi_protocol::Head;
use wasgi_protocol::http::{Head as HttpHead, Http2, Refusal};

use crate::answer::{Connection, Cut, Refused, ReplyBody, Source, answer};
use crate::feed::{self, Feed};
use crate::run::Server;
use crate::runner::Runner;

/// How a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its reply, or with a reset of ours.
    Ours,
    /// Its peer has reset it, or is gone.
    Theirs,
}

/// Answers the request of one stream.
pub(super) async fn serve<R: Runner>(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    connection: Arc<Connection>,
    server: Arc<Server<R>>,
) -> End {
    let (parts, mut incoming) = request.into_parts();
    let verdict = head(&parts, incoming.is_end_stream(), server.limits.request_head);
    drop(parts);
    let reply = Reply {
        is_head: verdict.as_ref().is_ok_and(|head| head.method() == b"HEAD"),
        waits_for_100: verdict.as_ref().is_ok_and(HttpHead::expects_continue),
        respond,
    };
    let feed = Arc::new(Feed::default());
    let body = Body {
        feed: feed::Body(Arc::clone(&feed)),
        window: incoming.flow_control().clone(),
        wanted: Arc::new(Notify::new()),
    };
    let verdict = verdict
        .map(Head::from)
        .map_err(|refusal| Refused::invalid(refusal.status(), refusal));
    tokio::select! {
        biased;
        end = reply.make(&server, connection, verdict, body) => end,
        never = receive(&mut incoming, &feed) => match never {},
    }
}

fn head(parts: &Parts, ends: bool, longest: usize) -> Result<HttpHead, Refusal> {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let request = Http2 {
        method: parts.method.as_str().as_bytes(),
        authority: parts
            .uri
            .authority()
            .map(|authority| authority.as_str().as_bytes()),
        path: path.as_bytes(),
        ends,
    };
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    HttpHead::of_http2(&request, fields, longest)
}

/// Takes what comes of a request's body off h2's hands at once: it holds each frame apart, however short. The window is
/// opened again only as the app reads, so that no more than a window's worth is held.
async fn receive(incoming: &mut RecvStream, feed: &Feed) -> std::convert::Infallible {
    loop {
        match incoming.data().await {
            Some(Ok(data)) => feed.put(&data),
            // Trailer fields may follow: WSGI has no place for them.
            None => break feed.end(Ok(())),
            Some(Err(_)) => break feed.end(Err(PeerGone)),
        }
    }
    pending().await
}

/// A request's body for the app.
#[derive(Debug)]
struct Body {
    feed: feed::Body,
    window: FlowControl,
    /// Told when the app waits for it.
    wanted: Arc<Notify>,
}

impl Source for Body {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerGone>>> {
        let Poll::Ready(piece) = self.feed.poll_data(cx) else {
            self.wanted.notify_one();
            return Poll::Pending;
        };
        if let Some(Ok(piece)) = &piece {
            // It fails only for a stream that is over.
            let _ = self.window.release_capacity(piece.len());
        }
        Poll::Ready(piece)
    }
}

/// The reply's side of a stream.
struct Reply {
    respond: SendResponse<Bytes>,
    is_head: bool,
    waits_for_100: bool,
}

impl Reply {
    async fn make<R: Runner>(
        mut self,
        server: &Server<R>,
        connection: Arc<Connection>,
        verdict: Result<Head, Refused>,
        body: Body,
    ) -> End {
        let wanted = Arc::clone(&body.wanted);
        let answered = answer(server, connection, verdict, body);
        tokio::pin!(answered);
        let response = loop {
            tokio::select! {
                biased;
                // The request is known before its peer may be gone: it has its line in the log.
                response = &mut answered => break response,
                // Dropping what answers tells the app.
                _ = poll_fn(|cx| self.respond.poll_reset(cx)) => return End::Theirs,
                () = wanted.notified(), if self.waits_for_100 => {
                    self.waits_for_100 = false;
                    let mut go_on = Response::new(());
                    *go_on.status_mut() = StatusCode::CONTINUE;
                    let _ = self.respond.send_informational(go_on);
                }
            }
        };
        match response {
            Ok(response) => self.send(response, server).await,
            Err(Cut) => {
                self.respond.send_reset(Reason::INTERNAL_ERROR);
                End::Ours
            }
        }
    }

    async fn send<R: Runner>(mut self, response: Response<ReplyBody>, server: &Server<R>) -> End {
        let (mut parts, mut body) = response.into_parts();
        let has_none = self.is_head
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || body.is_end_stream();
        complete(&mut parts.headers);
        if !self.is_head
            && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
            && let Some(length) = body.size_hint().exact()
        {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        // A reason has no place in HTTP/2 (RFC 9113 8.3.2).
        parts.extensions.clear();
        let head = Response::from_parts(parts, ());
        let Ok(mut to) = self.respond.send_response(head, has_none) else {
            return End::Theirs;
        };
        if has_none {
            return End::Ours;
        }
        loop {
            let piece = tokio::select! {
                biased;
                piece = poll_fn(|cx| poll_piece(&mut body, cx)) => piece,
                _ = poll_fn(|cx| to.poll_reset(cx)) => return End::Theirs,
            };
            match piece {
                Some(Ok(piece)) => {
                    let is_last = body.is_end_stream();
                    match put(&mut to, piece, is_last, server.limits.write_time).await {
                        Ok(()) if is_last => return End::Ours,
                        Ok(()) => {}
                        Err(end) => return end,
                    }
                }
                Some(Err(Cut)) => {
                    to.send_reset(Reason::INTERNAL_ERROR);
                    return End::Ours;
                }
                None => {
                    let _ = to.send_data(Bytes::new(), true);
                    return End::Ours;
                }
            }
        }
    }
}

/// The next piece of a reply's body.
fn poll_piece(body: &mut ReplyBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
    let frame = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
}

/// Hands a piece to h2 as the peer opens its window; resets the stream when that takes longer than `patience`.
async fn put(
    to: &mut SendStream<Bytes>,
    mut piece: Bytes,
    is_last: bool,
    patience: Duration,
) -> Result<(), End> {
    loop {
        to.reserve_capacity(piece.len());
        while !piece.is_empty() && to.capacity() == 0 {
            match timeout(patience, poll_fn(|cx| to.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Err(End::Theirs),
                Err(_) => {
                    to.send_reset(Reason::CANCEL);
                    return Err(End::Ours);
                }
            }
        }
        let some = piece.split_to(piece.len().min(to.capacity()));
        let ends = is_last && piece.is_empty();
        to.send_data(some, ends).map_err(|_| End::Theirs)?;
        if piece.is_empty() {
            return Ok(());
        }
    }
}

/// The fields that go out: none that are about a connection (RFC 9113 8.2.2), and a date (RFC 9110 6.6.1).
fn complete(headers: &mut HeaderMap) {
    const OF_CONNECTIONS: [HeaderName; 5] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in OF_CONNECTIONS {
        headers.remove(name);
    }
    if !headers.contains_key(header::DATE) {
        let now = httpdate::fmt_http_date(SystemTime::now());
        if let Ok(now) = HeaderValue::from_maybe_shared(Bytes::from(now)) {
            headers.insert(header::DATE, now);
        }
    }
}
