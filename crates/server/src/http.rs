//! HTTP/1 connections.
//!
//! ```text
//! socket -> wire.rs: guard, timeouts -> hyper -> service.rs: worker -> guest
//!              |  verdicts: turns.rs  --------------^                   |
//! socket <- wire.rs <------------- hyper <- reply.rs <- exchange.rs <---+
//! ```
//!
//! hyper sees no byte of a peer's request heads: the wire hands it heads of its own making that say nothing but how
//! the body is framed, and the service gets what the guard made of the real ones from the queue beside it.

mod exchange;
mod reply;
mod service;
mod timer;
mod turns;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use service::{Peer, serve};
