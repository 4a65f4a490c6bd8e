//! Requests as web servers hand them on: variables, as CGI has them (RFC 3875), and a body.
//!
//! uwsgi, FastCGI, SCGI and CGI differ in how they carry the variables; what these mean is read here, once. A web server
//! is believed: it says who the client is, and what of the path it has split off. What it copies from a client
//! (`HTTP_*`) is held to the rules of HTTP.

mod head;
mod refusal;

pub use head::{Head, Paths, Rules};
pub use refusal::Refusal;
