//! The wires: bytes as a peer sends them, made into checked requests and environ blocks.
//!
//! Nothing here waits, reads clocks, logs or touches a socket: bytes go in, and what they mean comes out.

pub mod cgi;
pub mod environ;
pub mod fastcgi;
pub mod forwarded;
pub mod frames;
pub mod gateway;
mod head;
pub mod http;
pub mod proxy_protocol;
pub mod scgi;
pub mod uwsgi;

pub use head::Head;
