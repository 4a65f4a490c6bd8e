//! HTTP/1 connections.
//!
//! ```text
//! socket -> wire.rs: guard, timeouts -> hyper -> connection.rs -> answer.rs
//!              |  verdicts: turns.rs  --------------^              |
//! socket <- wire.rs <------------- hyper <-------------------------+
//! ```
//!
//! hyper sees no byte of a peer's request heads: the wire hands it heads of its own making that say nothing but how
//! the body is framed, and the connection gets what the guard made of the real ones from the queue beside it.

mod connection;
mod turns;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use connection::serve;
