//! Takes requests off sockets, hands each to a worker, and sends what it replies.
//!
//! [`Listener`]s and a [`Server`] go into [`run`], which serves until it is told to stop. [`Routes`] tell which [`Site`] a
//! request is for; its [`Pool`] of workers, each an instance of the app, answers; [`Log`] takes what is to be told.
//!
//! This crate knows HTTP, waiting and logging. It does not know wasmtime, configuration files, or what an environ
//! holds.

mod admin;
mod answer;
mod bill;
mod budget;
mod coding;
mod content;
mod error_pages;
mod feed;
mod fleet;
mod gateway;
mod histogram;
mod http;
mod http2;
mod inherited;
mod listener;
mod log;
mod metrics;
mod peer;
mod privileges;
mod proxy_header;
mod rate;
mod request_id;
mod route;
mod run;
mod runner;
mod site;
mod static_files;
mod systemd;
mod threads;
mod timer;
mod tls;
mod trace;
mod traffic;
mod upgrade;
mod worker;

pub use admin::{Admin, AdminListeners, Token};
pub use budget::Budget;
pub use error_pages::ErrorPages;
pub use fleet::{Fleet, Loaded, Loader};
pub use gateway::answer_cgi;
pub use inherited::Inherited;
pub use listener::{BindError, Listener};
pub use log::{AccessFormat, Log, OpenRoom, OwnLog, Tail, ascii_json, harmless};
pub use metrics::{Dropped, Figures};
pub use privileges::{become_user, give_file, no_new_privileges};
pub use request_id::RequestId;
pub use route::Routes;
pub use run::{Ending, Server, run};
pub use runner::Runner;
pub use site::{Down, Generation, Site};
pub use static_files::{StaticError, StaticFiles};
pub use systemd::Notify;
pub use threads::Threads;
pub use tls::{Tls, TlsError};
pub use upgrade::{Upgrade, UpgradeError};
/// Whether a variable of a CGI program tells of its request.
pub use wasgi_protocol::cgi::is_of_request;
pub use worker::{Busy, Pool, Wear, Workers};
