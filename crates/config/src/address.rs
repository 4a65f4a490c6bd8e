//! Where a listener binds.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a listener binds: `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000` or `unix:/run/hello.sock`; or a socket that
/// systemd has bound: `systemd`, `systemd:web`, `fd:3`.
///
/// `Display` gives what `FromStr` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port; 0 lets the system choose one.
    Tcp {
        /// IPv4 or IPv6 address without brackets, or a host name, resolved when the listener binds.
        host: String,
        /// Port, 0 to 65535.
        port: u16,
    },
    /// A unix socket at this path; `app.toml` may give it relative to itself, and [`crate::load`] makes it absolute.
    Unix(PathBuf),
    /// A unix socket without a file, by its name: `unix:@name`. Every process on the machine may connect.
    Abstract(String),
    /// Sockets that whoever starts the server hands over.
    Passed(Passed),
}

/// Which of the sockets handed over by systemd's protocol (sd_listen_fds(3)) is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Passed {
    /// `systemd`: each of them.
    All,
    /// `systemd:web`: those of this `FileDescriptorName=`.
    Named(String),
    /// `fd:3`: the one of this number.
    Number(u32),
}

/// Why a text is no [`Address`], and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct AddressError {
    /// What is wrong with the text.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

/// Longest path of a unix socket on Linux: `sun_path` of unix(7) less its NUL.
pub(crate) const UNIX_PATH_MAX: usize = 107;

/// Number of the first socket that is handed over (SD_LISTEN_FDS_START).
const FIRST_PASSED: u32 = 3;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = |what: String, hint: &str| {
            Err(AddressError {
                what,
                hint: hint.to_owned(),
            })
        };
        if let Some(name) = text.strip_prefix("unix:@") {
            return match name.len() {
                1..=UNIX_PATH_MAX => Ok(Address::Abstract(name.to_owned())),
                0 => fail(format!("`{text}` has no name"), "write \"unix:@hello\""),
                length => fail(
                    format!("the socket's name has {length} bytes; the system takes at most {UNIX_PATH_MAX}"),
                    "choose a shorter name",
                ),
            };
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => fail(format!("`{text}` has no path"), "write \"unix:/run/hello.sock\""),
                _ => Ok(Address::Unix(PathBuf::from(path))),
            };
        }
        if text == "systemd" {
            return Ok(Address::Passed(Passed::All));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            // What systemd.socket(5) takes as FileDescriptorName=.
            let fits =
                (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            return match fits {
                true => Ok(Address::Passed(Passed::Named(name.to_owned()))),
                false => fail(
                    format!("`{name}` is not a name that systemd gives a socket"),
                    "write \"systemd:web\", with FileDescriptorName=web in the socket unit",
                ),
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return match number.parse::<u32>() {
                Ok(number @ FIRST_PASSED..) => Ok(Address::Passed(Passed::Number(number))),
                _ => fail(
                    format!("`{number}` is not the number of a socket that systemd hands over"),
                    "they begin at 3: write \"fd:3\"",
                ),
            };
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            return fail(
                format!("`{scheme}://` is not part of an address"),
                &format!("write \"{rest}\""),
            );
        }
        if text.starts_with(['/', '.']) {
            return fail(
                format!("`{text}` has no port"),
                &format!("for a unix socket write \"unix:{text}\""),
            );
        }
        if text.parse::<u16>().is_ok() {
            return fail(
                format!("`{text}` is only a port"),
                &format!("write \"127.0.0.1:{text}\""),
            );
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return fail(
                format!("`{text}` has no port"),
                &format!("write \"[{text}]:8000\""),
            );
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return fail(format!("`{text}` has no port"), &format!("write \"{text}:8000\""));
        };
        // `parse` would take "+80" too.
        let Some(port) = port
            .parse::<u16>()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()))
        else {
            return fail(
                format!("port `{port}` is not a number from 0 to 65535"),
                &format!("write \"{host}:8000\", or port 0 for any free one"),
            );
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if inner.parse::<Ipv6Addr>().is_err() => {
                return fail(
                    format!("`{host}` is not an IPv6 address"),
                    &format!("write \"[::1]:{port}\""),
                );
            }
            Some(inner) => inner,
            None if host.is_empty() || host == "*" => {
                return fail(
                    format!("`{text}` has no host"),
                    &format!(
                        "write \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" to listen on every interface"
                    ),
                );
            }
            None if host.contains(':') => {
                return fail(
                    format!("`{text}` is not an address"),
                    &format!("an IPv6 address goes in brackets: \"[::1]:{port}\""),
                );
            }
            None if !host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) =>
            {
                return fail(
                    format!("`{host}` is not a host name"),
                    &format!("write \"127.0.0.1:{port}\""),
                );
            }
            None => host,
        };
        Ok(Address::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{name}"),
            Address::Passed(Passed::All) => f.write_str("systemd"),
            Address::Passed(Passed::Named(name)) => write!(f, "systemd:{name}"),
            Address::Passed(Passed::Number(number)) => write!(f, "fd:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print_alike() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:0",
            "localhost:80",
            "my-host.lan:65535",
            "unix:/run/a.sock",
            "unix:a b",
            "unix:@hello",
            "systemd",
            "systemd:web",
            "fd:3",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_address_says_what_to_write() {
        for (text, hint) in [
            ("8000", "127.0.0.1:8000"),
            ("systemd:", "systemd:web"),
            ("fd:0", "fd:3"),
            (":8000", "0.0.0.0:8000"),
            ("*:8000", "0.0.0.0:8000"),
            ("http://localhost:8000/", "\"localhost:8000\""),
            ("localhost", "localhost:8000"),
            ("::1", "[::1]:8000"),
            ("::1:8000", "[::1:8000]:8000"),
            ("1::2::3:8000", "[::1]:8000"),
            ("[::g]:80", "[::1]:80"),
            ("localhost:65536", "localhost:8000"),
            ("localhost:+80", "localhost:8000"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("unix:", "unix:/run/hello.sock"),
            ("unix:@", "unix:@hello"),
            ("a b:80", "127.0.0.1:80"),
            ("", ":8000"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.hint.contains(hint), "{text}: {error:?}");
        }
    }
}
