//! Reads `app.toml` and says what is wrong with it.

mod address;
mod config;

pub use address::{Address, AddressError};
pub use config::{App, Config, Entry, Grant, Limits, Listen};
