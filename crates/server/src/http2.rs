//! HTTP/2 connections.
//!
//! ```text
//! socket -> socket.rs: timeout -> h2 -> connection.rs: limits, clocks -> stream.rs -> answer.rs
//!                                             body: feed.rs, as the app reads ---------^  |
//! socket <- socket.rs <---------- h2 <------------------------------------ stream.rs <----+
//! ```
//!
//! The h2 crate reads frames and header blocks and keeps to the protocol's state and windows. What a head means is told
//! by the same checks as for HTTP/1 (`wasgi_protocol::http::Head::of_http2`), and the request goes their road.

mod connection;
mod socket;
mod stream;

pub(crate) use connection::serve;

/// The protocol's name where TLS agrees on one (RFC 9113 3.1).
pub(crate) const ALPN: &[u8] = b"h2";
