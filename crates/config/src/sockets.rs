//! What `[listen]` says of all its sockets: who may connect, and how many may wait.

use toml::de::DeValue;

use crate::problem::At;
use crate::process::{group_id, user_entry};
use crate::raw::{Reader, Value};
use crate::resolve::Resolver;

/// How the sockets of `[listen]` are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// `socket-mode`: the permissions of a unix socket's file; who may write to it may connect.
    pub mode: u32,
    /// `socket-owner`: whose a unix socket's file is; `None` for who starts the server, or its `user`.
    pub owner: Option<Owner>,
    /// `backlog`: connections that the system holds until they are accepted.
    pub backlog: u32,
    /// `reuse-port`: whether others, other servers of this user's, may listen at the same TCP addresses.
    pub reuse_port: bool,
}

/// Whose a file is to be; what is `None` stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// As it was typed.
    pub shown: String,
    /// The user's number.
    pub uid: Option<u32>,
    /// The group's.
    pub gid: Option<u32>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            mode: 0o660,
            owner: None,
            backlog: 1024,
            reuse_port: false,
        }
    }
}

/// As typed.
#[derive(Default)]
pub(crate) struct RawSockets {
    mode: Option<At<String>>,
    owner: Option<At<String>>,
    backlog: Option<At<i64>>,
    reuse_port: bool,
}

impl Reader<'_> {
    /// Takes the key if it is one of these.
    pub(crate) fn sockets(&mut self, key: &str, value: &Value<'_>) -> bool {
        let path = format!("listen.{key}");
        match key {
            // As a number it would be a decimal one, and mean something else.
            "socket-mode" => match value.get_ref() {
                DeValue::Integer(number) => {
                    let hint = format!("write \"{number}\": digits as chmod has them");
                    self.wrong_type(&path, value, "a text", &hint);
                }
                _ => self.raw.sockets.mode = self.text(&path, value),
            },
            "socket-owner" => self.raw.sockets.owner = self.text(&path, value),
            "backlog" => self.raw.sockets.backlog = self.number(&path, value, "1024"),
            "reuse-port" => self.raw.sockets.reuse_port = self.flag(&path, value),
            _ => return false,
        }
        true
    }
}

impl Resolver<'_> {
    pub(crate) fn sockets(&mut self, raw: &RawSockets) -> Sockets {
        let usual = Sockets::default();
        let mode = raw.mode.as_ref().and_then(|at| self.mode(at));
        let backlog = raw.backlog.as_ref().and_then(|at| self.backlog(at));
        Sockets {
            mode: mode.unwrap_or(usual.mode),
            owner: raw.owner.as_ref().and_then(|at| self.owner(at)),
            backlog: backlog.unwrap_or(usual.backlog),
            reuse_port: raw.reuse_port,
        }
    }

    fn mode(&mut self, at: &At<String>) -> Option<u32> {
        let mode = u32::from_str_radix(&at.value, 8).ok();
        let mode = mode.filter(|mode| *mode <= 0o777 && (3..=4).contains(&at.value.len()));
        if mode.is_none() {
            self.problems.push(at.problem(
                format!("`{}` is not a mode", at.value),
                "write \"660\" for the socket's user and group, \"666\" for everyone on this machine",
            ));
        }
        mode
    }

    fn backlog(&mut self, at: &At<i64>) -> Option<u32> {
        let backlog = u32::try_from(at.value)
            .ok()
            .filter(|count| (1..=65_535).contains(count));
        if backlog.is_none() {
            self.problems.push(at.problem(
                format!("{} is not from 1 to 65535", at.value),
                "1024 is the default; the system's own bound is net.core.somaxconn",
            ));
        }
        backlog
    }

    /// `user`, `user:group` or `:group`.
    fn owner(&mut self, at: &At<String>) -> Option<Owner> {
        let (user, group) = at.value.split_once(':').unwrap_or((&at.value, ""));
        if user.is_empty() && group.is_empty() {
            self.problems.push(at.problem(
                "names nobody",
                "write \"www-data\", \"www-data:www-data\" or \":www-data\"",
            ));
            return None;
        }
        let mut owner = Owner {
            shown: at.value.clone(),
            uid: None,
            gid: None,
        };
        if !user.is_empty() {
            owner.uid = Some(self.owner_part(at, user, "user", user_entry)?.0);
        }
        if !group.is_empty() {
            owner.gid = Some(self.owner_part(at, group, "group", group_id)?);
        }
        Some(owner)
    }
}
