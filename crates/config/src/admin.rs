//! `[admin]`: where the operator looks at the server and steers it.

use std::net::IpAddr;
use std::path::Path;

use crate::address::Address;
use crate::config::Secret;
use crate::problem::At;
use crate::raw::{Name, Raw, Reader, Value};
use crate::resolve::{Resolver, expand};

/// The keys of `[admin]`.
pub(crate) const KEYS: &[&str] = &["socket", "tcp", "token", "stats"];

/// Shortest token that is taken: whoever guesses it steers the server.
const TOKEN_MIN: usize = 16;

/// `[admin]`. Nothing listens that is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// `socket`: a unix socket that is this user's alone; always [`Address::Unix`].
    pub socket: Option<Address>,
    /// `tcp`: a port for who has the token; always [`Address::Tcp`].
    pub tcp: Option<Address>,
    /// `token`: what requests to `tcp` show as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// `stats`: where figures are told as uWSGI's `--stats` tells them, to anyone on this machine.
    pub stats: Option<Address>,
}

/// `[admin]` as it was typed. Not to be shown, since it holds the token.
#[derive(Default)]
pub(crate) struct RawAdmin {
    socket: Option<At<String>>,
    tcp: Option<At<String>>,
    token: Option<At<String>>,
    stats: Option<At<String>>,
}

impl RawAdmin {
    /// What was typed first, to blame if none of it may be.
    pub(crate) fn first(&self) -> Option<&At<String>> {
        let all = [&self.socket, &self.tcp, &self.token, &self.stats];
        all.into_iter().flatten().min_by_key(|at| at.place)
    }
}

impl Reader<'_> {
    pub(crate) fn admin(&mut self, key: &Name<'_>, value: &Value<'_>) {
        let name = key.get_ref().as_ref();
        let path = format!("admin.{name}");
        match name {
            "socket" => self.raw.admin.socket = self.text(&path, value),
            "tcp" => self.raw.admin.tcp = self.text(&path, value),
            "token" => self.raw.admin.token = self.text(&path, value),
            "stats" => self.raw.admin.stats = self.text(&path, value),
            _ => self.unknown("admin", key),
        }
    }
}

impl Resolver<'_> {
    pub(crate) fn admin(&mut self, raw: &Raw) -> Admin {
        let spoilt = raw.spoilt.iter().any(|key| key == "admin.token");
        let raw = &raw.admin;
        let admin = Admin {
            socket: raw.socket.as_ref().and_then(|at| self.admin_socket(at)),
            tcp: raw.tcp.as_ref().and_then(|at| self.admin_tcp(at)),
            token: raw.token.as_ref().and_then(|at| self.token(at)),
            stats: raw.stats.as_ref().and_then(|at| self.stats(at)),
        };
        if let (Some(tcp), None, false) = (&raw.tcp, &raw.token, spoilt) {
            self.problems.push(tcp.problem(
                "without a token anyone who reaches the port could steer the server",
                "add token = \"${ADMIN_TOKEN}\", or use socket instead",
            ));
        }
        admin
    }

    fn admin_socket(&mut self, at: &At<String>) -> Option<Address> {
        let path = at.value.strip_prefix("unix:").unwrap_or(&at.value);
        if path.is_empty() || matches!(path.parse(), Ok(Address::Tcp { .. })) {
            self.problems.push(at.problem(
                format!("`{}` is not the path of a unix socket", at.value),
                "write \"/run/wasgi/admin.sock\"; a port is named by tcp",
            ));
            return None;
        }
        self.socket(at, Path::new(path)).map(Address::Unix)
    }

    fn admin_tcp(&mut self, at: &At<String>) -> Option<Address> {
        match at.value.parse() {
            Ok(address @ Address::Tcp { .. }) => Some(address),
            Ok(_) => {
                self.problems.push(at.problem(
                    format!("`{}` is not a TCP address", at.value),
                    "write \"127.0.0.1:9090\"; a unix socket is named by socket",
                ));
                None
            }
            Err(error) => {
                self.problems.push(at.problem(error.what, error.hint));
                None
            }
        }
    }

    /// The token, variables filled in. Problems do not repeat it.
    fn token(&mut self, at: &At<String>) -> Option<Secret> {
        let (what, hint) = match expand(&at.value, self.env) {
            Ok(value) if !value.bytes().all(|byte| byte.is_ascii_graphic()) => (
                "holds what a header cannot: blanks, control characters or letters beyond ASCII".to_owned(),
                "make one with: openssl rand -hex 32".to_owned(),
            ),
            Ok(value) if value.len() < TOKEN_MIN => (
                format!("is shorter than {TOKEN_MIN} characters"),
                "make one with: openssl rand -hex 32".to_owned(),
            ),
            Ok(value) => {
                return Some(Secret {
                    name: "token".to_owned(),
                    value,
                });
            }
            Err(problem) => problem,
        };
        self.problems.push(at.problem(what, hint));
        None
    }

    fn stats(&mut self, at: &At<String>) -> Option<Address> {
        let (what, hint) = match at.value.parse() {
            Ok(Address::Unix(path)) => return self.socket(at, &path).map(Address::Unix),
            Ok(address @ Address::Abstract(_)) => return Some(address),
            Ok(Address::Tcp { host, port }) if is_loopback(&host) => {
                return Some(Address::Tcp { host, port });
            }
            Ok(Address::Tcp { port, .. }) => (
                "figures are told here to anyone who asks, so it must be an address of this machine alone"
                    .to_owned(),
                format!("write \"127.0.0.1:{port}\"; for other machines there is tcp, with a token"),
            ),
            Ok(Address::Passed(_)) => (
                format!("`{}` is not an address", at.value),
                "write \"127.0.0.1:1717\" or \"unix:/run/wasgi/stats.sock\"".to_owned(),
            ),
            Err(error) => (error.what, error.hint),
        };
        self.problems.push(at.problem(what, hint));
        None
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
