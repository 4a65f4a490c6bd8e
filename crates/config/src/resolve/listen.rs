//! `[listen]`, as meant.

use std::path::PathBuf;

use super::Resolver;
use super::paths::Kind;
use crate::address::Address;
use crate::config::{Https, Listen};
use crate::problem::At;
use crate::raw::Raw;

impl Resolver<'_> {
    pub(crate) fn listen(&mut self, raw: &Raw) -> Listen {
        // None of them is there by default.
        let is_elsewhere = [&raw.h2c, &raw.uwsgi, &raw.fastcgi, &raw.scgi]
            .iter()
            .any(|typed| !typed.is_empty())
            || !raw.https.is_empty();
        let http = match &raw.http {
            Some(typed) => self.addresses(typed),
            None if is_elsewhere => Vec::new(),
            None => vec![Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 8000,
            }],
        };
        let mut listen = Listen {
            http,
            https: self.https(raw),
            h2c: self.addresses(&raw.h2c),
            redirect: self.addresses(&raw.redirect),
            uwsgi: self.addresses(&raw.uwsgi),
            fastcgi: self.addresses(&raw.fastcgi),
            scgi: self.addresses(&raw.scgi),
            proxy_protocol: Vec::new(),
            sockets: self.sockets(&raw.sockets),
        };
        listen.proxy_protocol = self.proxy_protocol(raw, &listen);
        if let (Some(at), true) = (raw.redirect.first(), listen.https_port().is_none()) {
            self.problems.push(at.problem(
                "there is no https on a TCP port to send clients to",
                "add https = { address = \"0.0.0.0:443\", cert = \"cert.pem\", key = \"key.pem\" }",
            ));
        }
        listen
    }

    /// Of the addresses of HTTP, those where connections begin with a PROXY header.
    fn proxy_protocol(&mut self, raw: &Raw, listen: &Listen) -> Vec<Address> {
        let Some(first) = raw.proxy_protocol.first() else {
            return Vec::new();
        };
        // Without it nobody could connect there.
        if raw.proxy.table.is_none() {
            self.problems.push(first.problem(
                "nothing says whose PROXY header counts",
                "add [proxy] with trust = [\"127.0.0.1\"], the proxies that connect here",
            ));
        }
        let https = listen.https.iter().map(|https| &https.address);
        let others = listen.h2c.iter().chain(&listen.redirect);
        let known: Vec<_> = listen.http.iter().chain(https).chain(others).collect();
        let mut addresses = Vec::new();
        for at in &raw.proxy_protocol {
            match self.address(at) {
                Some(address) if !known.contains(&&address) => self.problems.push(at.problem(
                    format!("`{}` is not an address of http, https, h2c or redirect", at.value),
                    "name it there as well: proxy-protocol only says how connections to it begin",
                )),
                Some(address) => addresses.push(address),
                None => {}
            }
        }
        addresses
    }

    fn addresses(&mut self, typed: &[At<String>]) -> Vec<Address> {
        let mut addresses = Vec::new();
        for at in typed {
            if let Some(address) = self.address(at) {
                let any_port = matches!(address, Address::Tcp { port: 0, .. });
                if !any_port && addresses.contains(&address) {
                    self.problems
                        .push(at.problem(format!("`{}` is given twice", at.value), "keep one of the two"));
                }
                addresses.push(address);
            }
        }
        addresses
    }

    fn address(&mut self, at: &At<String>) -> Option<Address> {
        match at.value.parse::<Address>() {
            Ok(Address::Unix(path)) => self.socket(at, &path).map(Address::Unix),
            Ok(address) => Some(address),
            Err(error) => {
                self.problems.push(at.problem(error.what, error.hint));
                None
            }
        }
    }

    /// Certificates for one address are told apart by the name that a client asks for.
    fn https(&mut self, raw: &Raw) -> Vec<Https> {
        let mut found: Vec<Https> = Vec::new();
        for typed in &raw.https {
            let address = self.address(&typed.address);
            let (cert, key) = (self.file_as_named(&typed.cert), self.file_as_named(&typed.key));
            let (Some(address), Some(cert), Some(key)) = (address, cert, key) else {
                continue;
            };
            match found.iter_mut().find(|https| https.address == address) {
                Some(https) => https.certificates.push((cert, key)),
                None => found.push(Https {
                    address,
                    certificates: vec![(cert, key)],
                }),
            }
        }
        found
    }

    /// A file's path with its links left in it: a certificate is renewed by pointing its link elsewhere.
    fn file_as_named(&mut self, at: &At<String>) -> Option<PathBuf> {
        self.find(at, Kind::File, None)?;
        Some(self.base(at).join(&at.value))
    }
}
