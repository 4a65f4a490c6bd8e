//! Takes requests off sockets, hands each to a worker, and sends what it replies.
//!
//! [`Listener`]s and a [`Site`] go into [`run`], which serves until it is told to stop. A [`Pool`] of workers, each an
//! instance of the app, answers the requests; [`Log`] takes what is to be told.
//!
//! This crate knows HTTP, waiting and logging. It does not know wasmtime, configuration files, or what an environ
//! holds.

mod bill;
mod budget;
mod http;
mod inherited;
mod listener;
mod log;
mod metrics;
mod request_id;
mod run;
mod runner;
mod systemd;
mod threads;
mod upgrade;
mod worker;

pub use budget::Budget;
pub use inherited::Inherited;
pub use listener::{BindError, Listener};
pub use log::{AccessFormat, Log, Tail};
pub use metrics::{Dropped, Figures};
pub use request_id::RequestId;
pub use run::{Ending, Site, run};
pub use runner::Runner;
pub use systemd::Notify;
pub use threads::Threads;
pub use upgrade::{Upgrade, UpgradeError};
pub use worker::{Busy, Pool, Workers};
