//! HTTP/1.0 and 1.1 requests, read strictly, and heads of HTTP/2.
//!
//! [`Guard`] follows the bytes of one connection: it finds each request head, checks it, and follows the framing of
//! its body up to the next head. What it lets through has one meaning, so that whoever reads it next (the server's
//! HTTP library) cannot see other requests in it than a proxy in front did. [`Head::environ`] makes a checked head
//! into an environ block.

mod environ;
mod fields;
mod guard;
mod head;
mod refusal;

pub use environ::Connection;
pub(crate) use environ::{percent_decode, percent_encode};
pub(crate) use fields::{host_and_port, is_target, is_token};
pub use guard::{Guard, Limits, Phase, Step};
pub(crate) use head::content_length;
pub use head::{Body, Head, Http2};
pub use refusal::Refusal;
