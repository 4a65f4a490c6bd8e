//! The header of the PROXY protocol, read off a connection before anything else is.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use wasgi_protocol::proxy_protocol::{Refusal, Step, step};

use crate::peer::Peer;
use crate::run::Server;
use crate::runner::Runner;

/// Reads the header, and nothing after it, within `head-time`. Gives the peer that it tells of, whose own word on who
/// asks counts if it is itself trusted; `None` if the connection is to be closed. The log has the reason.
pub(crate) async fn read<R: Runner>(
    stream: &mut (impl AsyncRead + Unpin),
    peer: Peer,
    server: &Server<R>,
) -> Option<Peer> {
    let close = |why: &dyn fmt::Display| {
        let log = &server.log;
        log.warn(format_args!(
            "PROXY protocol from {peer}: {why}; the connection is closed"
        ));
        None
    };
    // Whoever else could say that it is anybody.
    if !peer.is_trusted {
        return close(&"it is not one of the proxies in `trust` of [proxy]");
    }
    let limit = server.limits.head_time;
    let mut input = Vec::new();
    let header = async {
        loop {
            match step(&input)? {
                Step::Header { origin, .. } => return Ok(Some(origin)),
                Step::More(more) => {
                    let have = input.len();
                    input.resize(have + more, 0);
                    let read = stream.read(&mut input[have..]).await.unwrap_or(0);
                    input.truncate(have + read);
                    if read == 0 {
                        return Ok::<_, Refusal>(None);
                    }
                }
            }
        }
    };
    match timeout(limit, header).await {
        Ok(Ok(Some(origin))) => Some(peer.introduced(origin).trusted_by(server.proxy())),
        // It has gone, as those do that only look whether somebody listens.
        Ok(Ok(None)) => None,
        Ok(Err(refusal)) => close(&refusal),
        Err(_) => close(&format_args!("its header took longer than {limit:?}")),
    }
}
