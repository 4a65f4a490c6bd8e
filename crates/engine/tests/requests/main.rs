//! Requests through the real guest, without a server around it: `make python` must have built it.

mod copies;
mod kills;
mod limits;
mod quotas;
mod replies;
mod rewinds;
mod secrets;
mod site;
mod slow;
mod start_up;
