//! `[trace]`: where spans of requests are sent.

use toml::de::DeValue;

use crate::problem::{At, Problem};
use crate::raw::{Name, Reader, Value};
use crate::resolve::Resolver;

/// `[trace]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Host and port of the collector.
    pub host: String,
    /// The same.
    pub port: u16,
    /// The path that spans are posted to.
    pub path: String,
    /// `sample`: the part of the requests that is traced, from 0 to 1.
    pub sample: f64,
}

/// It compares as a number is written; no value is NaN.
impl Eq for Tracing {}

/// `[trace]` as typed.
#[derive(Default)]
pub(crate) struct RawTrace {
    pub otlp: Option<At<String>>,
    pub sample: Option<At<f64>>,
}

/// The keys of `[trace]`.
pub(crate) const KEYS: &[&str] = &["otlp", "sample"];

impl Reader<'_> {
    pub(crate) fn trace(&mut self, key: &Name<'_>, value: &Value<'_>) {
        match key.get_ref().as_ref() {
            "otlp" => self.raw.trace.otlp = self.text("trace.otlp", value),
            "sample" => {
                let number = match value.get_ref() {
                    DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
                    DeValue::Integer(number) => number.as_str().parse().ok(),
                    _ => None,
                };
                match number {
                    Some(number) => self.raw.trace.sample = Some(self.at("trace.sample", value, number)),
                    None => self.wrong_type(
                        "trace.sample",
                        value,
                        "a number",
                        "write 0.1 for one request in ten",
                    ),
                }
            }
            _ => self.unknown("trace", key),
        }
    }
}

impl RawTrace {
    /// Takes out what was typed, when the file is an app's owner's: who is told of requests is the operator's to say.
    pub(crate) fn refused(&mut self) -> Option<Problem> {
        let at = std::mem::take(self).otlp?;
        Some(at.problem("where spans go is the operator's to say", "leave [trace] out"))
    }
}

impl Resolver<'_> {
    /// `[trace]`; `None` if nothing is traced.
    pub(crate) fn trace(&mut self, raw: &RawTrace) -> Option<Tracing> {
        let sample = raw.sample.as_ref().map_or(1.0, |at| at.value);
        if let Some(at) = raw.sample.as_ref().filter(|at| !(0.0..=1.0).contains(&at.value)) {
            self.problems.push(at.problem(
                format!("{} is not from 0 to 1", at.value),
                "write 0.1 for one request in ten",
            ));
        }
        let at = raw.otlp.as_ref()?;
        match endpoint(&at.value) {
            Ok((host, port, path)) => Some(Tracing {
                host,
                port,
                path,
                sample,
            }),
            Err(what) => {
                self.problems.push(at.problem(
                    what,
                    "write \"http://127.0.0.1:4318\", a collector's OTLP/HTTP address",
                ));
                None
            }
        }
    }
}

/// Host, port and path of a collector. With no path in the URL it is OTLP's own for traces.
fn endpoint(url: &str) -> Result<(String, u16, String), String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(match url.starts_with("https://") {
            true => "spans are sent without TLS; a collector beside the server can send them on".to_owned(),
            false => format!("`{}` is no http:// URL", url.escape_debug()),
        });
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, Some(4318)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    let is_path = |b: u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'"');
    match port {
        Some(port)
            if port > 0 && !host.is_empty() && host.chars().all(is_name) && path.bytes().all(is_path) =>
        {
            let path = if path == "/" { "/v1/traces" } else { path };
            Ok((host.to_owned(), port, path.to_owned()))
        }
        _ => Err(format!("`{}` names no host and port", url.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_tls() {
        let ok = |host: &str, port, path: &str| Ok((host.to_owned(), port, path.to_owned()));
        assert_eq!(
            endpoint("http://127.0.0.1:4318"),
            ok("127.0.0.1", 4318, "/v1/traces")
        );
        assert_eq!(endpoint("http://collector/"), ok("collector", 4318, "/v1/traces"));
        assert_eq!(
            endpoint("http://[::1]:99/otlp/v1/traces"),
            ok("::1", 99, "/otlp/v1/traces")
        );
        assert_eq!(endpoint("http://[::1]"), ok("::1", 4318, "/v1/traces"));
        for url in [
            "127.0.0.1:4318",
            "https://a:1",
            "http://",
            "http://a:x",
            "http://a:0",
            "http://a b:1",
            "http://a:1/\r\nx",
            "http://u@a:1",
        ] {
            assert!(endpoint(url).is_err(), "{url}");
        }
    }
}
