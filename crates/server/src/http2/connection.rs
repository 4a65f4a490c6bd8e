//! One connection: its streams, its clocks, and its end.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as H2, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::socket::Socket;
use super::stream::{self, End};
use crate::answer::Connection;
use crate::peer::Peer;
use crate::run::{Ending, Server};
use crate::runner::Runner;
use crate::timer::Timer;

/// Requests at a time on one connection; the least that RFC 9113 6.5.2 recommends.
const STREAMS: u32 = 100;

/// What a peer may send of one body, and of all of a connection's, before an app has read of it.
const WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// What h2 may hold of one reply that its peer is slow to take.
const WRITE_BUFFER: usize = 32 << 10;

/// That many more requests than have been replied to may be taken back before their replies. A client that only asks and
/// takes back has apps do work beyond [`STREAMS`] at a time (CVE-2023-44487).
const TAKEN_BACK: usize = 100;

/// How long a peer that has been told of the end may take to close.
const LINGER: Duration = Duration::from_secs(2);

/// Serves one connection until it ends. When `stop` has an ending the peer is told at once: it takes further requests
/// elsewhere, and those on their way are answered.
pub(crate) async fn serve<S, R>(
    stream: S,
    peer: Peer,
    server: Arc<Server<R>>,
    mut stop: watch::Receiver<Option<Ending>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Runner,
{
    let limits = &server.limits;
    let begin = Builder::new()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.request_head).unwrap_or(u32::MAX))
        .max_send_buffer_size(WRITE_BUFFER)
        .handshake::<_, Bytes>(Socket::new(stream, limits.write_time));
    let begun = tokio::select! {
        begun = timeout(limits.head_time, begin) => begun,
        // It has no request yet.
        _ = stop.wait_for(|ending| *ending == Some(Ending::Stop)) => return,
    };
    let mut h2 = match begun {
        Ok(Ok(h2)) => h2,
        Ok(Err(error)) => return tell(&server, &peer, &error),
        // It has said nothing, or too little.
        Err(_) => return,
    };
    let connection = Arc::new(Connection {
        peer,
        log: server.log.clone(),
        turns: None,
    });
    let mut ping = Pinger::new(&mut h2);
    let mut streams = JoinSet::new();
    let (mut replied, mut taken_back) = (0, 0);
    let mut timer = Timer::default();
    // For the first request.
    let mut end = Instant::now() + limits.head_time;
    let mut is_leaving = false;
    loop {
        // What has ended comes first: a peer that keeps h2 busy does not let it pile up.
        tokio::select! {
            biased;
            Some(ended) = streams.join_next() => {
                match ended {
                    Ok(End::Theirs) => taken_back += 1,
                    Ok(End::Ours) | Err(_) => replied += 1,
                }
                if taken_back > replied + TAKEN_BACK && !is_leaving {
                    let peer = &connection.peer;
                    server.log.warn(format_args!(
                        "HTTP/2 from {peer}: {taken_back} requests were taken back, {replied} replied to; the connection is closed"
                    ));
                    h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    is_leaving = true;
                }
                if streams.is_empty() {
                    end = Instant::now() + if is_leaving { LINGER } else { limits.idle_time };
                }
            }
            _ = stop.wait_for(Option::is_some), if !is_leaving => {
                h2.graceful_shutdown();
                is_leaving = true;
                if streams.is_empty() {
                    end = Instant::now() + LINGER;
                }
            }
            () = ping.answered() => {}
            () = poll_fn(|cx| timer.poll(end, cx)) => {
                let is_busy = !streams.is_empty() || h2.has_streams();
                if is_busy {
                    // What is on its way out has the socket's clock. A peer that has gone silently has not.
                    if !ping.send() {
                        return;
                    }
                    end = Instant::now() + limits.idle_time;
                } else if is_leaving {
                    return;
                } else {
                    h2.graceful_shutdown();
                    is_leaving = true;
                    end = Instant::now() + LINGER;
                }
            }
            accepted = h2.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    if streams.is_empty() {
                        end = Instant::now() + limits.idle_time;
                    }
                    begin_stream(&mut streams, request, respond, &connection, &server);
                }
                Some(Err(error)) => return tell(&server, &connection.peer, &error),
                None => return,
            },
        }
    }
}

/// Has a request answered, or tells its peer that it may ask again (RFC 9113 8.7): the server has as many requests over
/// HTTP/2 as it takes connections.
fn begin_stream<R: Runner>(
    streams: &mut JoinSet<End>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: &Arc<Connection>,
    server: &Arc<Server<R>>,
) {
    // Those that were taken back are among them until their end has been seen.
    let permit = match streams.len() < 2 * STREAMS as usize {
        true => Arc::clone(&server.streams).try_acquire_owned().ok(),
        false => None,
    };
    let Some(permit) = permit else {
        return respond.send_reset(Reason::REFUSED_STREAM);
    };
    let (connection, server) = (Arc::clone(connection), Arc::clone(server));
    streams.spawn(async move {
        let end = stream::serve(request, respond, connection, server).await;
        drop(permit);
        end
    });
}

/// Tells the log if the peer has broken the protocol, or sent too much of what costs more than it says.
fn tell<R: Runner>(server: &Server<R>, peer: &Peer, error: &h2::Error) {
    if error.is_library() {
        server.log.warn(format_args!(
            "HTTP/2 from {peer}: {error}; the connection is closed"
        ));
    }
}

/// Asks whether the peer is still there.
struct Pinger {
    ping: Option<PingPong>,
    is_out: bool,
}

impl Pinger {
    fn new<T, B>(h2: &mut H2<T, B>) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin,
        B: bytes::Buf,
    {
        Self {
            ping: h2.ping_pong(),
            is_out: false,
        }
    }

    /// Asks; false if the peer has not answered the time before.
    fn send(&mut self) -> bool {
        if self.is_out {
            return false;
        }
        if let Some(ping) = &mut self.ping {
            self.is_out = ping.send_ping(Ping::opaque()).is_ok();
        }
        true
    }

    /// Ready when the peer has answered.
    async fn answered(&mut self) {
        match &mut self.ping {
            Some(ping) if self.is_out => {
                let _ = poll_fn(|cx| ping.poll_pong(cx)).await;
                self.is_out = false;
            }
            _ => pending().await,
        }
    }
}
