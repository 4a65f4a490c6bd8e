//! `[proxy]`: what stands in front of the server, and what its word counts for.

use std::net::IpAddr;

use toml::de::DeValue;

use crate::problem::{At, Problem};
use crate::raw::{Name, Reader, Value};
use crate::resolve::Resolver;

/// The keys of `[proxy]`.
pub(crate) const KEYS: &[&str] = &["trust", "headers", "hops"];

/// The header fields that `headers` can name.
const HEADERS: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
];

/// What proxies set in every guide; the others they let through as a client sent them, unless they are told to set them.
const USUAL: [usize; 2] = [0, 1];

/// Most proxies in a row.
const HOPS_MAX: i64 = 16;

/// `[proxy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `trust`: the IP addresses of one's own proxies.
    pub networks: Vec<Network>,
    /// Whether `trust` names `unix`: whoever connects to a unix socket.
    pub unix: bool,
    /// `headers` and `hops`: how many values of X-Forwarded-For, -Proto, -Host, -Port, -Prefix and of Forwarded are one's
    /// own proxies'; 0 for a field that does not count.
    pub hops: [u8; 6],
}

/// IP addresses that begin alike: `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Proxy {
    /// Whether a peer is one's own proxy; `None` for one on a unix socket.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        address.map_or(self.unix, |address| {
            self.networks.iter().any(|network| network.has(address))
        })
    }
}

impl Network {
    /// Whether the address is in it. One of IPv4 that came through a socket of IPv6 has to be given as IPv4.
    pub fn has(&self, address: IpAddr) -> bool {
        first(address, self.bits).is_some_and(|first| first == self.address)
    }

    fn parse(text: &str) -> Result<Self, (String, String)> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let wrong = || {
            (
                format!("`{text}` is neither an IP address nor a network of them, nor unix"),
                "write \"127.0.0.1\", \"10.0.0.0/8\", or \"unix\" for whoever connects to a unix socket"
                    .to_owned(),
            )
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| {
                    (
                        format!("`{text}` has more than {most} bits"),
                        format!("write \"{address}/{most}\""),
                    )
                })?
            }
            Some(_) => return Err(wrong()),
        };
        match first(address, bits) {
            Some(first) if first != address => Err((
                format!("`{text}` does not begin where the network does"),
                format!("write \"{first}/{bits}\", or \"{address}\" for this address alone"),
            )),
            _ => Ok(Self { address, bits }),
        }
    }
}

/// The first address that has the first `bits` bits of this one; `None` if it has not so many.
fn first(address: IpAddr, bits: u8) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(bits.into())?).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128u32.checked_sub(bits.into())?)
                .unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    })
}

/// `[proxy]` as typed.
#[derive(Default)]
pub(crate) struct RawProxy {
    /// Where the table begins.
    pub table: Option<At<()>>,
    trust: Option<Vec<At<String>>>,
    headers: Option<Vec<At<String>>>,
    /// `hops`, or those of one of `headers`.
    hops: Vec<(Option<String>, At<i64>)>,
}

impl RawProxy {
    /// Takes out what was typed, when the file is an app's owner's: whom the server believes is the operator's to say.
    pub(crate) fn refused(&mut self) -> Option<Problem> {
        let at = std::mem::take(self).table?;
        Some(at.problem("whose word counts is the operator's to say", "leave [proxy] out"))
    }
}

impl Reader<'_> {
    pub(crate) fn proxy(&mut self, key: &Name<'_>, value: &Value<'_>) {
        match key.get_ref().as_ref() {
            "trust" => self.raw.proxy.trust = Some(self.list("proxy.trust", value)),
            "headers" => match value.get_ref() {
                DeValue::Table(entries) => {
                    let mut headers = Vec::new();
                    for (name, value) in entries {
                        let header = name.get_ref().as_ref();
                        let path = format!("proxy.headers.{header}");
                        headers.push(self.at(&path, name, header.to_owned()));
                        if let Some(hops) = self.number(&path, value, "1") {
                            self.raw.proxy.hops.push((Some(header.to_owned()), hops));
                        }
                    }
                    self.raw.proxy.headers = Some(headers);
                }
                _ => self.raw.proxy.headers = Some(self.list("proxy.headers", value)),
            },
            "hops" => {
                if let Some(hops) = self.number("proxy.hops", value, "1") {
                    self.raw.proxy.hops.push((None, hops));
                }
            }
            _ => self.unknown("proxy", key),
        }
    }
}

impl Resolver<'_> {
    /// `[proxy]`; `None` without it.
    pub(crate) fn proxy(&mut self, raw: &RawProxy) -> Option<Proxy> {
        let table = raw.table.as_ref()?;
        let Some(trust) = &raw.trust else {
            self.problems.push(table.problem(
                "does not say which proxies are yours",
                "write trust = [\"127.0.0.1\"], or [\"unix\"] for whoever connects to a unix socket",
            ));
            return None;
        };
        let mut proxy = Proxy {
            networks: Vec::new(),
            unix: false,
            hops: [0; HEADERS.len()],
        };
        for at in trust {
            match Network::parse(&at.value) {
                _ if at.value == "unix" => proxy.unix = true,
                Ok(network) => proxy.networks.push(network),
                Err((what, hint)) => self.problems.push(at.problem(what, hint)),
            }
        }
        for (_, at) in &raw.hops {
            if !(1..=HOPS_MAX).contains(&at.value) {
                self.problems.push(at.problem(
                    format!("{} is not from 1 to {HOPS_MAX}", at.value),
                    "write how many proxies of yours a request passes: 1 behind a single one",
                ));
            }
        }
        let hops = |header: Option<&str>| {
            let found = raw.hops.iter().find(|(name, _)| name.as_deref() == header);
            found.and_then(|(_, at)| u8::try_from(at.value).ok())
        };
        let usual = hops(None).unwrap_or(1);
        match &raw.headers {
            None => USUAL.iter().for_each(|index| proxy.hops[*index] = usual),
            Some(headers) => {
                for at in headers {
                    let known = HEADERS
                        .iter()
                        .position(|name| at.value.eq_ignore_ascii_case(name));
                    match known {
                        Some(index) => proxy.hops[index] = hops(Some(&at.value)).unwrap_or(usual),
                        None => self.problems.push(at.problem(
                            format!("`{}` is no header that proxies tell of clients with", at.value),
                            format!("the headers here are {}", HEADERS.join(", ")),
                        )),
                    }
                }
                // Of the two that say the same, one would be a client's own.
                if let [for_hops, proto, host, .., forwarded] = proxy.hops
                    && forwarded > 0
                    && for_hops + proto + host > 0
                    && let Some(at) = headers
                        .iter()
                        .find(|at| at.value.eq_ignore_ascii_case("forwarded"))
                {
                    self.problems.push(at.problem(
                        "forwarded says what x-forwarded-for, -proto and -host say",
                        "keep the one that your proxy sets; it may let a client's own of the other through",
                    ));
                }
            }
        }
        Some(proxy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_the_addresses_that_begin_alike() {
        for (network, inside, outside) in [
            (
                "127.0.0.1",
                &["127.0.0.1"][..],
                &["127.0.0.2", "::1", "::ffff:127.0.0.1"][..],
            ),
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"],
                &["11.0.0.0", "9.255.255.255"],
            ),
            ("192.0.2.128/25", &["192.0.2.128"], &["192.0.2.127"]),
            ("0.0.0.0/0", &["192.0.2.1"], &["::1"]),
            ("::1", &["::1"], &["::2", "0.0.0.1"]),
            ("2001:db8::/33", &["2001:db8:7fff::1"], &["2001:db8:8000::"]),
            ("::/0", &["2001:db8::"], &["10.0.0.1"]),
        ] {
            let network = Network::parse(network).unwrap();
            let has = |text: &&str| network.has(text.parse().unwrap());
            assert!(inside.iter().all(has), "{network:?}");
            assert!(!outside.iter().any(has), "{network:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "*",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "::1/129",
            "10/8",
        ] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
