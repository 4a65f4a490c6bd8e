//! FastCGI: requests one after the other, in records.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wasgi_config::Limits;
use wasgi_engine::PeerGone;
use wasgi_protocol::Head;
use wasgi_protocol::fastcgi::{Ended, Records, Step, end_request};
use wasgi_protocol::gateway::Refusal;
use wasgi_protocol::http::Body as BodyLength;

use super::reply::{Framing, Output, StatusLine};
use super::{HEAD_PIECE, linger};
use crate::answer::{Connection, Cut, Refused, answer};
use crate::feed::{Body, Feed};
use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;

/// Serves the requests of a connection.
pub(super) async fn serve<S, R>(
    stream: S,
    peer: Peer,
    server: Arc<Server<R>>,
    stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    let (reading, writing) = split(stream);
    let output = Output::new(writing, server.limits.write_time);
    let mut incoming = Incoming {
        reading,
        input: BytesMut::new(),
        body: 0,
        records: Records::new(server.limits.request_head),
        answers: Vec::new(),
    };
    let connection = Arc::new(Connection {
        peer,
        log: server.log.clone(),
        turns: None,
    });
    let left = Ending::left(stop.clone());
    tokio::pin!(left);
    let mut patience = server.limits.head_time;
    // Whether the socket may hold something that was not read: closed then, it would be reset.
    let mut is_unread = true;
    loop {
        let read = tokio::select! {
            biased;
            read = incoming.head(&output, &server.limits, patience) => read,
            () = &mut left => return,
        };
        patience = server.limits.idle_time;
        let (head, id, keep) = match read {
            Ok(request) => request,
            Err(NoHead::Gone) => return,
            Err(NoHead::Refused(refused, framing)) => {
                connection.warn(&refused.what);
                if let Some((line, framing)) = framing
                    && let Ok(response) = answer(&server, connection, Err(refused), Body::default()).await
                {
                    let _ = output.send(response, false, line, framing).await;
                }
                break;
            }
        };
        let is_head = head.method() == b"HEAD";
        let feed = Arc::new(Feed::default());
        let mut rest = Rest {
            feed: &feed,
            told: match head.body() {
                BodyLength::Length(length) => Some(length),
                BodyLength::Absent | BodyLength::Chunked => None,
            },
            came: 0,
            has_ended: false,
        };
        let served = async {
            let body = Body(Arc::clone(&feed));
            let response = answer(&server, Arc::clone(&connection), Ok(head), body).await?;
            output
                .send(response, is_head, StatusLine::Cgi, Framing::Records(id))
                .await
        };
        let over = tokio::select! {
            // The request is known before its peer may be gone: it has its line in the log.
            biased;
            served = served => match served {
                Ok(()) => None,
                Err(Cut) => return,
            },
            // Dropping what answers tells the app.
            over = incoming.rest(&output, &mut rest) => Some(over),
        };
        incoming.records.finish();
        match over {
            None => {}
            Some(Over::Gone) => return,
            Some(Over::Wrong(what)) => {
                connection.warn(&what);
                return;
            }
            Some(Over::Aborted) => incoming.answers.extend(end_request(id, Ended::Complete)),
        }
        if !keep || stop.borrow().is_some() {
            is_unread = !rest.has_ended || !incoming.input.is_empty();
            break;
        }
    }
    let is_written = output.write(&mut incoming.answers).await.is_ok();
    if is_written && is_unread && output.end().await.is_ok() {
        linger(&mut incoming.reading).await;
    }
}

impl Connection {
    fn warn(&self, what: &str) {
        self.log.warn(format_args!("fastcgi from {}: {what}", self.peer));
    }
}

/// Why there is no head.
enum NoHead {
    /// The peer has gone, or said nothing for as long as it is waited for.
    Gone,
    /// It is to be told so, if there is a way to.
    Refused(Refused, Option<(StatusLine, Framing)>),
}

/// Why the rest of a request does not come.
enum Over {
    Gone,
    /// The web server has given it up.
    Aborted,
    Wrong(String),
}

/// What comes on a connection. Whatever waits here may be dropped meanwhile: what has been read is kept.
struct Incoming<S> {
    reading: ReadHalf<S>,
    /// What has been read and not been used.
    input: BytesMut,
    /// That many bytes at its start are part of a body.
    body: usize,
    records: Records,
    /// Answers to records, which are to be written.
    answers: Vec<u8>,
}

/// A body on its way to the app.
struct Rest<'a> {
    feed: &'a Feed,
    /// CONTENT_LENGTH
    told: Option<u64>,
    came: u64,
    /// Its end has come.
    has_ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Reads until a request's variables are there: they, its id, and whether the connection is kept after it.
    /// `patience` is for its first byte.
    async fn head(
        &mut self,
        output: &Output<WriteHalf<S>>,
        limits: &Limits,
        patience: std::time::Duration,
    ) -> Result<(Head, u16, bool), NoHead> {
        let mut deadline = Instant::now() + patience;
        let mut is_idle = true;
        loop {
            // Of a body that nobody reads any more.
            self.input.advance(self.body);
            self.body = 0;
            match self.next(output).await.map_err(|Cut| NoHead::Gone)? {
                Step::More => {
                    if is_idle && !(self.records.is_idle() && self.input.is_empty()) {
                        is_idle = false;
                        deadline = deadline.min(Instant::now() + limits.head_time);
                    }
                    match timeout_at(deadline, self.fill()).await {
                        Ok(true) => {}
                        Err(_) if !is_idle => return Err(self.late()),
                        Ok(false) | Err(_) => return Err(NoHead::Gone),
                    }
                }
                Step::Head { head, id, keep, .. } => return Ok((Head::from(*head), id, keep)),
                // Given up before there was anything to answer.
                Step::Abort { .. } => {
                    if let Some((id, keep)) = self.records.request() {
                        self.records.finish();
                        self.answers.extend(end_request(id, Ended::Complete));
                        if !keep {
                            let _ = output.write(&mut self.answers).await;
                            return Err(NoHead::Gone);
                        }
                    }
                }
                Step::Refused(refusal) => {
                    let how = match refusal {
                        // Who speaks HTTP is answered so.
                        Refusal::Http(_) => Some((StatusLine::Http, Framing::Close)),
                        _ => self.how(),
                    };
                    return Err(NoHead::Refused(refusal.into(), how));
                }
                Step::Data { used } => self.body = used,
                Step::End { .. } | Step::Answer { .. } | Step::Skip { .. } => {}
            }
        }
    }

    fn late(&self) -> NoHead {
        NoHead::Refused(Refused::late(), self.how())
    }

    /// How the request that has been begun is answered.
    fn how(&self) -> Option<(StatusLine, Framing)> {
        let (id, _) = self.records.request()?;
        Some((StatusLine::Cgi, Framing::Records(id)))
    }

    /// Reads a request's body as the app takes it, and then waits for the peer to go or to give the request up.
    async fn rest(&mut self, output: &Output<WriteHalf<S>>, rest: &mut Rest<'_>) -> Over {
        let over = self.read_rest(output, rest).await;
        rest.feed.end(Err(PeerGone));
        over
    }

    async fn read_rest(&mut self, output: &Output<WriteHalf<S>>, rest: &mut Rest<'_>) -> Over {
        loop {
            while self.body > 0 {
                let room = poll_fn(|cx| rest.feed.poll_room(cx)).await;
                let some = room.min(self.body);
                rest.feed.put(&self.input[..some]);
                self.input.advance(some);
                self.body -= some;
            }
            let Ok(step) = self.next(output).await else {
                return Over::Gone;
            };
            match step {
                Step::More => {
                    if !self.fill().await {
                        return Over::Gone;
                    }
                }
                Step::Data { used } => {
                    rest.came += used as u64;
                    if rest.told.is_some_and(|told| rest.came > told) {
                        return Over::Wrong("the body is longer than CONTENT_LENGTH".to_owned());
                    }
                    self.body = used;
                }
                Step::End { .. } => {
                    if rest.told.is_some_and(|told| rest.came < told) {
                        return Over::Wrong("the body is shorter than CONTENT_LENGTH".to_owned());
                    }
                    rest.has_ended = true;
                    rest.feed.end(Ok(()));
                }
                Step::Abort { .. } => return Over::Aborted,
                Step::Refused(refusal) => return Over::Wrong(refusal.to_string()),
                Step::Head { .. } | Step::Answer { .. } | Step::Skip { .. } => {}
            }
        }
    }

    /// The next step that concerns a request; bytes of a body stay where they are. Answers what does not concern one.
    async fn next(&mut self, output: &Output<WriteHalf<S>>) -> Result<Step, Cut> {
        loop {
            if !self.answers.is_empty() {
                output.write(&mut self.answers).await?;
            }
            let step = self.records.step(&self.input);
            match &step {
                Step::Head { used, .. } | Step::End { used } | Step::Abort { used } => {
                    self.input.advance(*used);
                    return Ok(step);
                }
                Step::Answer { used, record } => {
                    self.answers.extend_from_slice(record);
                    self.input.advance(*used);
                }
                Step::Skip { used } => self.input.advance(*used),
                Step::More | Step::Data { .. } | Step::Refused(_) => return Ok(step),
            }
        }
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        self.input.reserve(HEAD_PIECE);
        matches!(self.reading.read_buf(&mut self.input).await, Ok(1..))
    }
}
