//! A running server, asked over its admin socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgMatches};
use serde_json::Value;

/// Where the socket is if nothing else is said.
const SOCKET: &str = "/run/wasgi/admin.sock";

/// How long figures may take: a server whose files have run out does not accept.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn option() -> Arg {
    Arg::new("admin")
        .long("admin")
        .value_name("SOCKET")
        .help("The server's `socket` of [admin] [default: $WASGI_ADMIN, else /run/wasgi/admin.sock]")
}

/// One server.
pub(crate) struct Admin(String);

impl Admin {
    /// The one that the command line names, or the environment.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let named = matches.get_one::<String>("admin").cloned();
        let socket = named.or_else(|| std::env::var("WASGI_ADMIN").ok());
        Self(socket.unwrap_or_else(|| SOCKET.to_owned()))
    }

    /// The body of an answer, as it comes.
    ///
    /// # Errors
    /// If there is no server, or the answer is that it cannot be done: that then is the error.
    pub(crate) fn ask(&self, method: &str, target: &str) -> anyhow::Result<impl Read> {
        self.ask_within(method, target, None)
    }

    /// Figures.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn figures(&self, target: &str) -> anyhow::Result<Value> {
        let mut text = String::new();
        let mut reply = self.ask_within("GET", target, Some(PATIENCE))?;
        reply.read_to_string(&mut text).context("the server is gone")?;
        serde_json::from_str(&text).with_context(|| format!("{} tells no figures", self.0))
    }

    fn ask_within(
        &self,
        method: &str,
        target: &str,
        patience: Option<Duration>,
    ) -> anyhow::Result<BufReader<UnixStream>> {
        if target.bytes().any(|b| b <= b' ' || b >= 0x7f) {
            bail!(
                "names of apps are letters, digits, dots, hyphens and underscores; ids of requests have no blanks"
            );
        }
        let socket = &self.0;
        let mut stream = UnixStream::connect(socket).with_context(|| {
            format!("no server at {socket}: it listens there with socket = \"{socket}\" under [admin]")
        })?;
        stream.set_read_timeout(patience)?;
        write!(stream, "{method} {target} HTTP/1.0\r\nHost: admin\r\n\r\n").context("the server is gone")?;
        let mut reply = BufReader::new(stream);
        let mut line = String::new();
        reply.read_line(&mut line).context("the server does not answer")?;
        let status: u16 = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("{socket} is not the admin socket of a wasgi server"))?;
        while !matches!(line.as_str(), "" | "\r\n") {
            line.clear();
            reply.read_line(&mut line)?;
        }
        if status >= 400 {
            let mut why = String::new();
            reply.read_to_string(&mut why)?;
            return Err(anyhow!("{}", why.trim_end()));
        }
        Ok(reply)
    }
}
