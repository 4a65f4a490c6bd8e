//! Runs WSGI applications on one CPython compiled to WebAssembly.
//!
//! An [`Engine`] holds the compiled interpreter; [`Engine::app`] binds it to what one app may see ([`AppSpec`]);
//! [`App::start`] makes an [`Instance`], and [`Instance::handle`] takes it through one request.
//!
//! The engine knows the environ block and the bytes of a reply. It does not know HTTP, configuration files or the
//! names of apps on a server.

mod app;
mod exchange;

pub use app::{AppSpec, Entry, Limits, Mount};
pub use exchange::{AppLog, BodyError, Failure, PeerGone, ReplyHead, ReplySink, Request, RequestBody};
