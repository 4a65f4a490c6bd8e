//! Apps in a process of their own: one for each group of tenants, under a user of its own, confined by the kernel.
//!
//! The server's end is a [`Process`], which is started anew when it ends, and a [`Remote`] for each load of an app in it, whose
//! [`Instance`]s are conversations with instances there. The other end is [`serve`]. What passes between them is told in
//! `wasgi_protocol::frames`.
//!
//! The server takes nothing on trust that comes from such a process: a reply goes through the same checks as one that comes
//! straight from a guest, numbers are held to what they can be, and a process that does not keep to the protocol or to
//! its time is ended.

mod confine;
mod conversation;
mod descriptors;
mod messages;
mod process;
mod remote;
mod serve;
mod served;
mod system_calls;

pub use messages::{Folder, User};
pub use process::{GroupLog, Process, Program};
pub use remote::{Instance, Remote};
pub use serve::{COMMAND, serve};
