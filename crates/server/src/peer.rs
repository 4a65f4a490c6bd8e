//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

use wasgi_config::Proxy;
use wasgi_protocol::proxy_protocol::Origin;

use crate::listener::Speaks;

/// Who is at the other end, as the environ and the log have it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Address and port; empty on a unix socket.
    pub(crate) remote: (String, String),
    /// What it connected to; `None` on a unix socket.
    pub(crate) server: Option<(String, String)>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The port that it is to come to with https instead.
    pub(crate) redirect: Option<u16>,
    /// Whether it is a proxy that is trusted to say who asks.
    pub(crate) is_trusted: bool,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remote.0.as_str() {
            "" => f.write_str("a unix socket"),
            address => f.write_str(address),
        }
    }
}

impl Peer {
    /// A TCP peer. IPv4 addresses that came in through an IPv6 socket are told as IPv4.
    pub(crate) fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            remote: text(remote),
            server: Some(text(local)),
            scheme: "http",
            redirect: None,
            is_trusted: false,
        }
    }

    pub(crate) fn unix() -> Self {
        Self {
            remote: Default::default(),
            server: None,
            scheme: "http",
            redirect: None,
            is_trusted: false,
        }
    }

    /// Of a CGI program: its client, as the web server tells it.
    pub(crate) fn of_cgi(client: Option<&str>) -> Self {
        Self {
            remote: (client.unwrap_or_default().to_owned(), String::new()),
            ..Self::unix()
        }
    }

    /// As the operator says.
    pub(crate) fn trusted_by(mut self, proxy: Option<&Proxy>) -> Self {
        let address = self.remote.0.parse().ok();
        self.is_trusted = proxy.is_some_and(|proxy| proxy.trusts(address));
        self
    }

    /// As the proxy says that hands its connection on.
    pub(crate) fn introduced(mut self, origin: Origin) -> Self {
        let tls = match origin {
            Origin::Proxy => false,
            Origin::Unix { tls } => {
                (self.remote, self.server) = Default::default();
                tls
            }
            Origin::Client { from, to, tls } => {
                (self.remote, self.server) = (text(from), Some(text(to)));
                tls
            }
        };
        if tls {
            self.scheme = "https";
        }
        self
    }

    /// As its listener says.
    pub(crate) fn speaking(mut self, speaks: &Speaks) -> Self {
        match speaks {
            Speaks::Http | Speaks::H2c | Speaks::Gateway(_) => {}
            Speaks::Https(_) => self.scheme = "https",
            Speaks::Redirect(port) => self.redirect = Some(*port),
        }
        self
    }
}

/// Address and port, as the environ has them.
fn text(address: SocketAddr) -> (String, String) {
    let ip = address.ip().to_canonical();
    (ip.to_string(), address.port().to_string())
}
