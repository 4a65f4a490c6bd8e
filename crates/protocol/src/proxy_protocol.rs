//! The PROXY protocol: what a proxy that hands on connections says of each before its first byte.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (HAProxy's doc/proxy-protocol.txt), 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, with its CRLF (2.1).
const LINE_MAX: usize = 107;

/// Shortest of either: `PROXY UNKNOWN` with its CRLF, and version 2 up to its length. So much can be read at once
/// without reading any of what comes after a header.
const SHORTEST: usize = 15;

/// Version 2 up to its length.
const FIXED: usize = 16;

/// Longest that may follow these 16 bytes: addresses have at most 216, and a client's certificate some thousands.
const REST_MAX: usize = 8 << 10;

const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is the proxy's own, as for a health check, or of a kind that the proxy has no address for.
    Proxy,
    /// A client's.
    Client {
        /// Its address and port.
        from: SocketAddr,
        /// The address and port that it connected to.
        to: SocketAddr,
        /// Whether it speaks TLS with the proxy. Version 1 does not tell.
        tls: bool,
    },
    /// A client's on the proxy's machine, over a unix socket.
    Unix {
        /// As for the others.
        tls: bool,
    },
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The header is not complete: it has at least so many bytes more.
    More(usize),
    /// A header.
    Header {
        /// Its length.
        used: usize,
        /// What it says.
        origin: Origin,
    },
}

/// Why a connection is closed that should begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It begins otherwise.
    #[error("it does not begin with a PROXY header")]
    Absent,
    /// No line end where the longest line would have it.
    #[error("the PROXY line does not end")]
    LineTooLong,
    /// Neither `TCP4`, `TCP6` nor `UNKNOWN`.
    #[error("the PROXY line names no protocol that is served")]
    LineProtocol,
    /// Not two addresses of the protocol named and two ports, with a space between each.
    #[error("the PROXY line's addresses are malformed")]
    LineAddresses,
    /// A version other than 2, or a command other than LOCAL and PROXY.
    #[error("the PROXY header's version or command is unknown")]
    Command,
    /// Datagrams, or an address family that is not defined.
    #[error("the PROXY header is not that of a stream of a known family")]
    Family,
    /// Longer than any is.
    #[error("the PROXY header is too long")]
    TooLong,
    /// The addresses of its family are not there whole.
    #[error("the PROXY header is too short for its addresses")]
    TooShort,
    /// What follows the addresses is not a row of types, lengths and values.
    #[error("the PROXY header's additional fields are malformed")]
    Fields,
}

/// Tells what `input` begins with: all that has come of a connection. How it was split makes no difference to the
/// outcome, and who reads no more than [`Step::More`] says never reads past the header.
///
/// # Errors
/// [`Refusal`] as soon as it is clear that the bytes are no header.
pub fn step(input: &[u8]) -> Result<Step, Refusal> {
    let is_start = |of: &[u8]| input.iter().zip(of).all(|(a, b)| a == b);
    match (is_start(LINE), is_start(SIGNATURE)) {
        (false, false) => Err(Refusal::Absent),
        _ if input.len() < SHORTEST => Ok(Step::More(SHORTEST - input.len())),
        (true, _) => line(input),
        (false, true) => binary(input),
    }
}

/// Version 1: `PROXY TCP4 192.0.2.7 192.0.2.1 40000 443` and CRLF.
fn line(input: &[u8]) -> Result<Step, Refusal> {
    let longest = &input[..input.len().min(LINE_MAX)];
    let Some(end) = longest.windows(2).position(|two| two == b"\r\n") else {
        return match longest.len() {
            LINE_MAX => Err(Refusal::LineTooLong),
            _ if longest.ends_with(b"\r") => Ok(Step::More(1)),
            length => Ok(Step::More(2.min(LINE_MAX - length))),
        };
    };
    let used = end + 2;
    let mut words = input[LINE.len()..end].split(|&b| b == b' ');
    let addresses: fn(&str) -> Option<IpAddr> = match words.next() {
        // Whatever follows is to be ignored (2.1).
        Some(b"UNKNOWN") => {
            return Ok(Step::Header {
                used,
                origin: Origin::Proxy,
            });
        }
        Some(b"TCP4") => |text| text.parse().map(IpAddr::V4).ok(),
        Some(b"TCP6") => |text| text.parse().map(IpAddr::V6).ok(),
        _ => return Err(Refusal::LineProtocol),
    };
    let mut word = || words.next().and_then(|word| str::from_utf8(word).ok());
    let (from, to) = (word().and_then(addresses), word().and_then(addresses));
    let (from_port, to_port) = (word().and_then(port), word().and_then(port));
    match (from.zip(from_port), to.zip(to_port), words.next()) {
        (Some(from), Some(to), None) => Ok(Step::Header {
            used,
            origin: Origin::Client {
                from: from.into(),
                to: to.into(),
                tls: false,
            },
        }),
        _ => Err(Refusal::LineAddresses),
    }
}

/// A decimal from 0 to 65535, as it is printed: without a sign or zeros before it.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// Version 2: the signature, version and command, family and protocol, a length, and so many bytes.
fn binary(input: &[u8]) -> Result<Step, Refusal> {
    let is_local = match input[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Refusal::Command),
    };
    // Of one without addresses, and of the proxy's own, the family means nothing (2.2).
    let family = match input[13] {
        _ if is_local => Family::None,
        0x00 => Family::None,
        0x11 => Family::V4,
        0x21 => Family::V6,
        0x31 => Family::Unix,
        _ => return Err(Refusal::Family),
    };
    let Some(&[high, low]) = input.get(14..FIXED) else {
        return Ok(Step::More(FIXED - input.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_MAX {
        return Err(Refusal::TooLong);
    }
    let used = FIXED + length;
    let Some(rest) = input.get(FIXED..used) else {
        return Ok(Step::More(used - input.len()));
    };
    let origin = match family {
        Family::None => Origin::Proxy,
        Family::V4 => {
            let (addresses, fields) = rest.split_first_chunk::<12>().ok_or(Refusal::TooShort)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            client(
                Ipv4Addr::new(a, b, c, d).into(),
                Ipv4Addr::new(e, f, g, h).into(),
                ports,
                has_tls(fields)?,
            )
        }
        Family::V6 => {
            let short = Refusal::TooShort;
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (to, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, fields) = rest.split_first_chunk::<4>().ok_or(short)?;
            client(
                Ipv6Addr::from(*from).into(),
                Ipv6Addr::from(*to).into(),
                *ports,
                has_tls(fields)?,
            )
        }
        Family::Unix => {
            let fields = rest.get(216..).ok_or(Refusal::TooShort)?;
            Origin::Unix {
                tls: has_tls(fields)?,
            }
        }
    };
    Ok(Step::Header { used, origin })
}

enum Family {
    None,
    V4,
    V6,
    Unix,
}

fn client(from: IpAddr, to: IpAddr, [a, b, c, d]: [u8; 4], tls: bool) -> Origin {
    Origin::Client {
        from: (from, u16::from_be_bytes([a, b])).into(),
        to: (to, u16::from_be_bytes([c, d])).into(),
        tls,
    }
}

/// Whether one of the additional fields says that the client speaks TLS: PP2_TYPE_SSL with PP2_CLIENT_SSL (2.2.6).
/// Fields of other types are for whoever knows them.
fn has_tls(mut fields: &[u8]) -> Result<bool, Refusal> {
    let mut tls = false;
    while let [kind, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = rest.split_at_checked(length).ok_or(Refusal::Fields)?;
        if *kind == 0x20 {
            // Flags, and the outcome of checking the client's certificate.
            let [flags, _, _, _, _, ..] = value else {
                return Err(Refusal::Fields);
            };
            tls |= flags & 1 != 0;
        }
        fields = after;
    }
    match fields {
        [] => Ok(tls),
        _ => Err(Refusal::Fields),
    }
}
