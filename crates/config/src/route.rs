//! Where an app is served: the hosts it answers for, and the path it is mounted under.

use std::fmt;
use std::str::FromStr;

/// One place of an app. `Display` gives `shop.example.org/em`, or `*` for any host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Which hosts.
    pub host: Host,
    /// Empty for all paths, or a slash and segments without one at the end: `/em`.
    pub mount: String,
}

/// Which host names a route is for. Names are in lower case, without a closing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `shop.example.org`: this one.
    Exact(String),
    /// `*.example.org`: any below this one, at any depth; not this one itself.
    Below(String),
    /// Any that no other route names.
    Any,
}

/// Why a text is no host or mount, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct RouteError {
    /// What is wrong with the text.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

fn wrong(what: String, hint: impl Into<String>) -> RouteError {
    RouteError {
        what,
        hint: hint.into(),
    }
}

impl FromStr for Host {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        if text == "*" {
            return Ok(Host::Any);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            return Err(wrong(
                format!("`{scheme}://` is not part of a host's name"),
                format!("write \"{host}\""),
            ));
        }
        if let Some((host, path)) = text.split_once('/') {
            return Err(wrong(
                format!("`{text}` has a path"),
                format!("write \"{host}\" here, and mount = \"/{path}\""),
            ));
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && !text.starts_with('[')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(wrong(
                format!("`{text}` has a port; routes do not look at ports"),
                format!("write \"{host}\""),
            ));
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let is_address = !below && name.starts_with('[') && name.ends_with(']');
        if name.len() > 253 || !(is_address || name.split('.').all(is_label)) {
            return Err(wrong(
                format!("`{}` is not the name of a host", text.escape_debug()),
                "write \"shop.example.org\", or \"*.example.org\" for all below it",
            ));
        }
        Ok(if below {
            Host::Below(name)
        } else {
            Host::Exact(name)
        })
    }
}

/// A mount as typed, brought to the form of [`Route::mount`].
pub(crate) fn mount(text: &str) -> Result<String, RouteError> {
    let plain = text.trim_end_matches('/');
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let good = plain.is_empty() && text.starts_with('/')
        || plain
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(is_segment));
    if !good
        || plain
            .bytes()
            .any(|b| b.is_ascii_control() || matches!(b, b'?' | b'#' | b'%' | b'\\'))
    {
        return Err(wrong(
            format!("`{}` is not a path to mount an app under", text.escape_debug()),
            "write \"/\" for all paths, or one such as \"/shop\"",
        ));
    }
    Ok(plain.to_owned())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Exact(name) => f.write_str(name),
            Host::Below(name) => write!(f, "*.{name}"),
            Host::Any => f.write_str("*"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.host,
            if self.mount.is_empty() { "/" } else { &self.mount }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_people_write_them() {
        for (text, host) in [
            ("Shop.Example.org", Host::Exact("shop.example.org".into())),
            ("shop.example.org.", Host::Exact("shop.example.org".into())),
            ("*.example.org", Host::Below("example.org".into())),
            ("[::1]", Host::Exact("[::1]".into())),
            ("127.0.0.1", Host::Exact("127.0.0.1".into())),
            ("*", Host::Any),
        ] {
            assert_eq!(text.parse::<Host>(), Ok(host), "{text}");
        }
        for (text, hint) in [
            ("http://a.b/", "write \"a.b\""),
            ("a.b/em", "write \"a.b\" here, and mount = \"/em\""),
            ("a.b:80", "write \"a.b\""),
            (
                "a..b",
                "write \"shop.example.org\", or \"*.example.org\" for all below it",
            ),
            (
                "a.*.b",
                "write \"shop.example.org\", or \"*.example.org\" for all below it",
            ),
            (
                "",
                "write \"shop.example.org\", or \"*.example.org\" for all below it",
            ),
        ] {
            assert_eq!(text.parse::<Host>().unwrap_err().hint, hint, "{text}");
        }
    }

    #[test]
    fn mounts_are_whole_segments() {
        for (text, expected) in [("/", ""), ("/em", "/em"), ("/em/", "/em"), ("/a/b", "/a/b")] {
            assert_eq!(mount(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "em", "/a//b", "/a/../b", "/a?b", "/%61", "/a\\b", "/a\n"] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
