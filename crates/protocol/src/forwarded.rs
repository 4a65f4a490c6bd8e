//! What proxies in front say of the client: the `X-Forwarded-*` fields as Werkzeug's `ProxyFix` takes them, or
//! `Forwarded` (RFC 7239).
//!
//! Each proxy adds a value at the right end of a list, or writes one over what was there. Whatever stands further left
//! than there are proxies of one's own may be the client's invention, so values are counted from the right.

mod element;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Head;
use crate::http::{host_and_port, is_target};
use element::Elements;

/// The fields that are read here, in lower case.
pub const FIELDS: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
];

/// How many values of each of [`FIELDS`] are one's own proxies'; 0 for a field that they do not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops(pub [u8; FIELDS.len()]);

/// What is known of a request beyond its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Who asks.
    pub client: Option<Client>,
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// What the client asked for, as in a Host field; not empty.
    pub host: Option<String>,
    /// The port that it asked.
    pub port: Option<u16>,
    /// What was taken off the path: empty, or a slash and more, without one at the end.
    pub prefix: String,
    /// Fields that nobody vouches for.
    pub withheld: Withheld,
}

/// Variables of the environ.
#[derive(Debug, Default)]
pub(crate) struct Vars(Vec<(&'static [u8], Vec<u8>)>);

/// A client as a proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The proxy does not know or does not tell (RFC 7239 6.2 and 6.3), or names what is no IP address.
    Unknown,
    /// Its address, and its port if that is told.
    At(IpAddr, Option<u16>),
}

/// Some of [`FIELDS`]: those that do not reach the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld(u8);

/// A proxy's field that does not say what it is to say. `Display` repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// A scheme that is not served.
    #[error("X-Forwarded-Proto or proto of Forwarded is neither http nor https")]
    Scheme,
    /// Not `name[:port]`.
    #[error("X-Forwarded-Host or host of Forwarded is not a host")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("X-Forwarded-Port is not a port")]
    Port,
    /// Not an absolute path.
    #[error("X-Forwarded-Prefix is not a path")]
    Prefix,
    /// Not as RFC 7239 4 has it. Read leniently, a quote that a client leaves open would hide what follows.
    #[error("Forwarded is not a list of parameters")]
    Syntax,
}

impl Vars {
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (*name, value.as_slice()))
    }
}

impl Withheld {
    /// All of [`FIELDS`].
    pub const ALL: Self = Self((1 << FIELDS.len()) - 1);

    /// Whether the field of this name, in any case and with `-` or `_` in it, is one.
    pub fn has(self, name: &[u8]) -> bool {
        let is = |(index, field): (usize, &&str)| {
            let plain = |byte: &u8| {
                if *byte == b'_' {
                    b'-'
                } else {
                    byte.to_ascii_lowercase()
                }
            };
            self.0 & (1 << index) != 0 && name.iter().map(plain).eq(field.bytes())
        };
        self.0 != 0 && FIELDS.iter().enumerate().any(is)
    }
}

impl Forwarded {
    /// Of a peer that is no proxy of ours: it is the client, and what it claims is withheld.
    pub fn by_a_stranger() -> Self {
        Self {
            withheld: Withheld::ALL,
            ..Self::default()
        }
    }

    /// The variables that this decides; `field` is what the Host field has.
    pub(crate) fn vars(&self, field: &[u8]) -> Vars {
        let mut vars = Vec::new();
        if let Some(client) = self.client {
            let (address, port) = client.texts();
            vars.push((&b"REMOTE_ADDR"[..], address.into_bytes()));
            vars.push((b"REMOTE_PORT", port.into_bytes()));
        }
        if let Some(scheme) = self.scheme {
            vars.push((b"REQUEST_SCHEME", scheme.as_bytes().to_vec()));
        }
        let host = self.host.as_ref().map(String::as_bytes);
        let parts = host.and_then(host_and_port);
        if let Some((name, _)) = parts {
            vars.push((b"SERVER_NAME", name.to_vec()));
        }
        if let Some(port) = self.port.or(parts.and_then(|(_, port)| port)) {
            vars.push((b"SERVER_PORT", port.to_string().into_bytes()));
        }
        // As it is written in URLs: with the port that was told beside it.
        let host = host.unwrap_or(field);
        match self.port {
            Some(port) if !host.is_empty() => {
                let name = host_and_port(host).map_or(host, |(name, _)| name);
                vars.push((b"HTTP_HOST", [name, b":", port.to_string().as_bytes()].concat()));
            }
            _ if self.host.is_some() => vars.push((b"HTTP_HOST", host.to_vec())),
            _ => {}
        }
        Vars(vars)
    }

    /// The host asked for, without its port.
    pub fn host_name(&self) -> Option<&[u8]> {
        let (name, _) = host_and_port(self.host.as_ref()?.as_bytes())?;
        Some(name)
    }

    /// What a proxy of ours says. Fields without hops are withheld.
    ///
    /// A field with fewer values than hops counts as absent, as with `ProxyFix`: such a request has come another way.
    ///
    /// # Errors
    /// [`Unclear`] when the value that counts cannot be meant.
    ///
    /// Source: werkzeug.middleware.proxy_fix; RFC 7239 4 to 6.
    pub fn read(head: &Head, hops: &Hops) -> Result<Self, Unclear> {
        let [x_for, x_proto, x_host, x_port, x_prefix, forwarded] = hops.0;
        let value = |name, hops| last(head, name, hops).filter(|value| !value.is_empty());
        let mut found = Self {
            client: value(FIELDS[0], x_for).map(Client::parse),
            scheme: value(FIELDS[1], x_proto).map(scheme).transpose()?,
            host: value(FIELDS[2], x_host).map(host).transpose()?,
            port: value(FIELDS[3], x_port).map(port).transpose()?,
            prefix: value(FIELDS[4], x_prefix)
                .map(prefix)
                .transpose()?
                .unwrap_or_default(),
            withheld: Withheld((0..FIELDS.len()).fold(0, |set, at| set | u8::from(hops.0[at] == 0) << at)),
        };
        if forwarded > 0 {
            let lines = || head.values(FIELDS[5]).into_iter();
            let mut count = 0usize;
            for element in Elements::of(lines()) {
                element?;
                count += 1;
            }
            if let Some(at) = count.checked_sub(usize::from(forwarded))
                && let Some(element) = Elements::of(lines()).nth(at)
            {
                let element = element?;
                found.client = element.client.as_deref().map(Client::parse).or(found.client);
                found.scheme = element.proto.as_deref().map(scheme).transpose()?.or(found.scheme);
                found.host = element.host.as_deref().map(host).transpose()?.or(found.host);
            }
        }
        Ok(found)
    }
}

impl Client {
    /// Address and port, as the environ has them: empty if they are not known.
    pub fn texts(self) -> (String, String) {
        match self {
            Self::Unknown => Default::default(),
            Self::At(ip, port) => (
                ip.to_string(),
                port.map(|port| port.to_string()).unwrap_or_default(),
            ),
        }
    }

    /// An address, with or without a port; one of IPv6 with or without its brackets.
    fn parse(text: &[u8]) -> Self {
        Self::address(text).unwrap_or(Self::Unknown)
    }

    fn address(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::At(ip.to_canonical(), None));
        }
        let (ip, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, rest) = rest.split_once(']')?;
                let ip = IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?);
                (
                    ip,
                    rest.strip_prefix(':')
                        .map_or(rest.is_empty().then_some(""), Some)?,
                )
            }
            None => {
                let (ip, port) = text.split_once(':')?;
                (IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), port)
            }
        };
        // RFC 7239 6: a port may be a name that says nothing.
        let port = port
            .parse()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()));
        Some(Self::At(ip.to_canonical(), port))
    }
}

/// The value that the outermost of `hops` proxies gave: that far from the right, trimmed, without quotes around it.
///
/// Commas part values even within quotes, unlike in `ProxyFix`: no value has one, and a client that leaves a quote open
/// would hide what a proxy adds behind it.
fn last<'a>(head: &'a Head, name: &'static str, hops: u8) -> Option<&'a [u8]> {
    let nth = usize::from(hops).checked_sub(1)?;
    let mut values = head
        .values(name)
        .into_iter()
        .rev()
        .flat_map(|line| line.rsplit(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    // What a comma at the end is followed by is no value.
    values.next_if(|value| value.is_empty());
    let value = values.nth(nth)?;
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some(inner.unwrap_or(value))
}

fn scheme(value: &[u8]) -> Result<&'static str, Unclear> {
    match value {
        value if value.eq_ignore_ascii_case(b"https") => Ok("https"),
        value if value.eq_ignore_ascii_case(b"http") => Ok("http"),
        _ => Err(Unclear::Scheme),
    }
}

fn host(value: &[u8]) -> Result<String, Unclear> {
    match host_and_port(value) {
        // Of such characters only.
        Some((name, _)) if !name.is_empty() => Ok(String::from_utf8_lossy(value).into_owned()),
        _ => Err(Unclear::Host),
    }
}

fn port(value: &[u8]) -> Result<u16, Unclear> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).map_err(|_| Unclear::Port)?;
    let port = text.parse().map_err(|_| Unclear::Port)?;
    if digits && port > 0 {
        Ok(port)
    } else {
        Err(Unclear::Port)
    }
}

/// Two slashes at the beginning, or one and a backslash, would make it another host's URL in a redirect.
fn prefix(value: &[u8]) -> Result<String, Unclear> {
    let end = value.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let is_path = value.first() == Some(&b'/')
        && is_target(value)
        && value.is_ascii()
        && !value.contains(&b'?')
        && !value.contains(&b'\\')
        && !value[..end].starts_with(b"//");
    match std::str::from_utf8(&value[..end]) {
        Ok(path) if is_path => Ok(path.to_owned()),
        _ => Err(Unclear::Prefix),
    }
}

#[cfg(test)]
mod tests;
