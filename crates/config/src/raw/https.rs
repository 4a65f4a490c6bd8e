//! `https` of `[listen]`, as typed.

use toml::de::DeValue;

use super::{Reader, Value};
use crate::problem::At;

const EXAMPLE: &str =
    "write { address = \"0.0.0.0:443\", cert = \"cert.pem\", key = \"key.pem\" }, or a list of them";

/// One certificate and where it is used.
#[derive(Clone, Debug)]
pub(crate) struct RawHttps {
    pub address: At<String>,
    pub cert: At<String>,
    pub key: At<String>,
}

impl Reader<'_> {
    pub(super) fn https(&mut self, value: &Value<'_>) {
        let read = match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| self.one_https(item)).collect(),
            _ => self.one_https(value).into_iter().collect(),
        };
        self.raw.https = read;
    }

    fn one_https(&mut self, value: &Value<'_>) -> Option<RawHttps> {
        let DeValue::Table(entries) = value.get_ref() else {
            self.wrong_type("listen.https", value, "a table", EXAMPLE);
            return None;
        };
        let (mut address, mut cert, mut key) = (None, None, None);
        for (name, value) in entries {
            let name = name.get_ref().as_ref();
            let path = format!("listen.https.{name}");
            let place = match name {
                "address" => &mut address,
                "cert" => &mut cert,
                "key" => &mut key,
                _ => {
                    let at = self.at(&path, value, ());
                    self.problems
                        .push(at.problem("unknown key", "the keys here are address, cert and key"));
                    continue;
                }
            };
            // What is no text has been told, and is not missing.
            *place = Some(self.text(&path, value));
        }
        for (name, found) in [("address", &address), ("cert", &cert), ("key", &key)] {
            if found.is_none() {
                let at = self.at("listen.https", value, ());
                self.problems
                    .push(at.problem(format!("{name} is missing"), EXAMPLE));
            }
        }
        Some(RawHttps {
            address: address??,
            cert: cert??,
            key: key??,
        })
    }
}
