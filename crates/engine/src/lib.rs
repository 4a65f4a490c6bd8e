//! Runs WSGI applications on one CPython compiled to WebAssembly.
//!
//! An [`Engine`] holds the compiled interpreter; [`Engine::app`] binds it to what one app may see ([`AppSpec`]);
//! [`App::start`] makes an [`Instance`], and [`Instance::handle`] takes it through one request.
//!
//! The engine knows the environ block and the bytes of a reply. It does not know HTTP, configuration files or the
//! names of apps on a server.

mod abi;
mod app;
mod block;
mod code_cache;
mod engine;
mod exchange;
mod guest;
mod host;
mod instance;
mod lines;
mod locks;
mod python;
mod reply;
mod ticker;
mod time_limit;
mod wasi;

pub use app::{App, AppSpec, Entry, Limits, Mount, StartError};
pub use engine::{Engine, EngineError, WASMTIME_VERSION};
pub use exchange::{AppLog, BodyError, Failure, PeerGone, ReplyHead, ReplySink, Request, RequestBody};
pub use instance::{Instance, Report};
pub use python::PythonFiles;
pub use wasi::MountError;
