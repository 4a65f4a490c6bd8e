//! One connection: hyper between its wire and what answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request as HttpRequest;
use http::header::{self, HeaderValue};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use wasgi_engine::PeerGone;
use wasgi_protocol::Head;
use wasgi_protocol::http::Refusal;

use super::turns::{self, Turns};
use super::wire::Wire;
use crate::answer::{Connection, Cut, Refused, Source, Turn, answer};
use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;

/// What hyper may hold of a reply that its peer is slow to take.
const WRITE_BUFFER: usize = 64 << 10;

/// Serves one connection until it ends. When `stop` has an ending the request that runs is finished, and none is taken
/// after what the ending has patience for.
pub(crate) async fn serve<S, R>(
    stream: S,
    peer: Peer,
    server: Arc<Server<R>>,
    stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    let turns = Arc::new(Turns::default());
    let wire = Wire::new(stream, Arc::clone(&turns), &server.limits);
    let log = server.log.clone();
    let connection = Arc::new(Connection {
        peer,
        log,
        turns: Some(Arc::clone(&turns) as Arc<dyn Turn>),
    });
    let stopped = stop.clone();
    let service = service_fn(|request: HttpRequest<Incoming>| {
        let verdict = turns.verdict();
        let (server, connection, stopped) = (&server, Arc::clone(&connection), &stopped);
        async move {
            // Without a verdict hyper has found a request that the wire did not hand it.
            let verdict = verdict.ok_or(Cut)?;
            if let Err(turns::Refused::Invalid(refusal @ Refusal::Wire(_))) = verdict {
                let peer = &connection.peer;
                server.log.warn(format_args!("HTTP from {peer}: {refusal}"));
            }
            let verdict = verdict.map(Head::from).map_err(Refused::from);
            let mut response = answer(server, connection, verdict, request.into_body()).await?;
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
    tokio::select! {
        biased;
        _ = &mut served => return,
        () = Ending::left(stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

impl From<turns::Refused> for Refused {
    fn from(refused: turns::Refused) -> Self {
        match refused {
            turns::Refused::Invalid(refusal) => Self::invalid(refusal.status(), refusal),
            turns::Refused::TimedOut => Self::late(),
        }
    }
}

impl Source for Incoming {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerGone>>> {
        loop {
            match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(_)) => return Poll::Ready(Some(Err(PeerGone))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}
