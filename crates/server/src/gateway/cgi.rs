//! The one request of a CGI program: variables of the environment, standard input and output.

use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use wasgi_engine::PeerGone;
use wasgi_protocol::http::Body as BodyLength;
use wasgi_protocol::{Head, cgi};

use super::reply::{Framing, Output, StatusLine};
use crate::answer::{Connection, Refused, answer};
use crate::feed::{Body, Feed};
use crate::peer::Peer;
use crate::run::Server;
use crate::runner::Runner;

/// Answers the request that `variables` tell of, and waits until the app is done with it. `input` has its body, `output`
/// takes the reply. Whether the reply was handed over whole.
///
/// When `given_up` is ready the web server wants no more of the reply, and the app is told.
pub async fn answer_cgi<R: Runner>(
    variables: &[(OsString, OsString)],
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    server: &Server<R>,
    given_up: impl Future<Output = ()>,
) -> bool {
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let verdict = cgi::head(variables, server.limits.request_head);
    let verdict = verdict.map(Head::from).map_err(Refused::from);
    if let Err(Refused { what, .. }) = &verdict {
        server.log.warn(format_args!("cgi: {what}"));
    }
    let head = verdict.as_ref().ok();
    let is_head = head.is_some_and(|head| head.method() == b"HEAD");
    let length = match head.map_or(BodyLength::Absent, Head::body) {
        BodyLength::Absent => Some(0),
        BodyLength::Length(length) => Some(length),
        BodyLength::Chunked => None,
    };
    let connection = Arc::new(Connection {
        peer: Peer::of_cgi(head.and_then(Head::remote)),
        log: server.log.clone(),
        turns: None,
    });
    let feed = Arc::new(Feed::default());
    let output = Output::new(output, server.limits.write_time);
    let served = async {
        let response = answer(server, connection, verdict, Body(Arc::clone(&feed))).await?;
        output
            .send(response, is_head, StatusLine::Cgi, Framing::Close)
            .await
    };
    let is_served = tokio::select! {
        biased;
        served = served => served.is_ok(),
        // Dropping what answers tells the app.
        PeerGone = read_body(input, length, &feed) => false,
        () = given_up => false,
    };
    server.finish(std::future::ready(())).await;
    is_served
}

/// Reads the body as the app takes it, `length` bytes or until the end, and no byte more (RFC 3875 4.2). Ready when it is
/// shorter: then its client has gone.
async fn read_body(mut input: impl AsyncRead + Unpin, length: Option<u64>, feed: &Feed) -> PeerGone {
    let mut left = length;
    let mut buffer = Vec::new();
    while left != Some(0) {
        let room = poll_fn(|cx| feed.poll_room(cx)).await as u64;
        // No more than there is room for, which is a usize.
        buffer.resize(left.map_or(room, |left| left.min(room)) as usize, 0);
        match input.read(&mut buffer).await {
            Ok(0) if left.is_none() => break,
            Ok(0) | Err(_) => {
                feed.end(Err(PeerGone));
                return PeerGone;
            }
            Ok(read) => {
                feed.put(&buffer[..read]);
                left = left.map(|left| left - read as u64);
            }
        }
    }
    feed.end(Ok(()));
    std::future::pending().await
}
