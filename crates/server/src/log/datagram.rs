//! The system's logs, which take a line at a time: syslog and systemd's journal.

use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::batch::{Batch, Mark};
use super::sink::{Failed, Sink};

/// How long one that is busy is waited for, by the writer alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Longest line, in bytes. Sockets take about 200 KiB at a time as Linux sets them up; only the access line of an
/// unusual request comes near.
const LINE_MAX: usize = 100 << 10;

/// Facility "system daemons" (RFC 5424 6.2.1).
const DAEMON: u8 = 3;

/// How a line is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 3164, as libc's `syslog()` has it but for the time, which is the receiver's: a local one without its zone is
    /// all that the protocol knows.
    Syslog,
    /// systemd "Native Journal Protocol", with the app and the request as fields.
    Journal,
}

pub(super) struct Datagrams {
    path: PathBuf,
    protocol: Protocol,
    socket: Option<UnixDatagram>,
    message: String,
}

impl Datagrams {
    pub(super) fn syslog() -> Self {
        Self::new("/dev/log".into(), Protocol::Syslog)
    }

    pub(super) fn journal() -> Self {
        Self::new("/run/systemd/journal/socket".into(), Protocol::Journal)
    }

    fn new(path: PathBuf, protocol: Protocol) -> Self {
        Self {
            path,
            protocol,
            socket: None,
            message: String::new(),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        // A receiver that was started anew has another socket under the same name: a second try finds it.
        for is_last in [false, true] {
            let socket = match &mut self.socket {
                Some(socket) => socket,
                absent => {
                    let socket = UnixDatagram::unbound()?;
                    socket.connect(&self.path)?;
                    socket.set_write_timeout(Some(PATIENCE))?;
                    absent.insert(socket)
                }
            };
            match socket.send(self.message.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let is_busy = error.kind() == io::ErrorKind::WouldBlock;
                    self.socket = None;
                    if is_last || is_busy {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, line: &str, mark: &Mark) {
        let line = &line[..line.floor_char_boundary(LINE_MAX)];
        let severity = mark.severity as u8;
        self.message.clear();
        // Writing to a `String` does not fail. Lines hold no line end, so that the journal's short form does.
        let _ = match self.protocol {
            Protocol::Syslog => {
                let process = std::process::id();
                write!(
                    self.message,
                    "<{}>wasgi[{process}]: {line}",
                    DAEMON * 8 + severity
                )
            }
            Protocol::Journal => write!(
                self.message,
                "MESSAGE={line}\nPRIORITY={severity}\nSYSLOG_FACILITY={DAEMON}\nSYSLOG_IDENTIFIER=wasgi\n"
            ),
        };
        if self.protocol == Protocol::Journal {
            if let Some(app) = &mark.app {
                let _ = writeln!(self.message, "WASGI_APP={app}");
            }
            if let Some(id) = &mark.id {
                let _ = writeln!(self.message, "WASGI_REQUEST_ID={id}");
            }
        }
    }
}

impl Sink for Datagrams {
    fn write(&mut self, batch: &Batch, _: Instant) -> Result<(), Failed> {
        for (sent, (line, mark)) in (0..).zip(batch.marked()) {
            self.put(line, mark);
            if let Err(error) = self.send() {
                let lost = batch.lines - sent;
                return Err(Failed { lost, error });
            }
        }
        Ok(())
    }

    fn name(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    fn wants_marks(&self) -> bool {
        true
    }

    fn reopen(&mut self) {
        self.socket = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::{Line, Severity};
    use crate::request_id::RequestId;

    fn batch(text: &str, severity: Severity, app: Option<&str>, id: Option<RequestId>) -> Batch {
        let (mut batch, app) = (Batch::default(), app.map(Into::into));
        let line = Line {
            text,
            mark: (0, ""),
            severity,
            app: app.as_ref(),
            id,
        };
        batch.push(&line, false, true);
        batch
    }

    fn receive(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn syslog_gets_a_line_with_its_severity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut sink = Datagrams::new(path, Protocol::Syslog);
        let warned = batch("warning: a", Severity::Warning, None, None);
        sink.write(&warned, Instant::now()).unwrap();
        let process = std::process::id();
        assert_eq!(receive(&socket), format!("<28>wasgi[{process}]: warning: a"));
    }

    #[test]
    fn the_journal_gets_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut sink = Datagrams::new(path, Protocol::Journal);
        let id = RequestId::random();
        let line = "x".repeat(2 * LINE_MAX);
        sink.write(
            &batch(&line, Severity::Info, Some("shop"), Some(id)),
            Instant::now(),
        )
        .unwrap();
        let cut = "x".repeat(LINE_MAX);
        assert_eq!(
            receive(&socket),
            format!(
                "MESSAGE={cut}\nPRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=wasgi\n\
                 WASGI_APP=shop\nWASGI_REQUEST_ID={id}\n"
            )
        );
    }

    #[test]
    fn a_receiver_that_goes_and_comes_back_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut sink = Datagrams::new(path.clone(), Protocol::Syslog);
        let line = batch("a", Severity::Info, None, None);
        let now = Instant::now();
        assert_eq!(sink.write(&line, now).unwrap_err().lost, 1);
        let first = UnixDatagram::bind(&path).unwrap();
        sink.write(&line, now).unwrap();
        receive(&first);
        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sink.write(&line, now).unwrap_err().lost, 1);
        let second = UnixDatagram::bind(&path).unwrap();
        sink.write(&line, now).unwrap();
        receive(&second);
        // Nobody reads: lines are lost, and nobody waits for long.
        let begun = Instant::now();
        while sink.write(&line, now).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    }
}
