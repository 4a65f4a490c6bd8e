//! The system's logs, which take a line at a time: syslog and systemd's journal.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::batch::{Batch, Mark};
use super::sink::{Failed, Sink};

/// How long one that is busy is waited for, by the writer alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// Longest line for syslog, in bytes. Sockets take about 200 KiB at a time as Linux sets them up; only the access line of an
/// unusual request comes near. The journal gets longer ones in a file.
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
            let sent = match socket.send(self.message.as_bytes()) {
                Err(error) if self.protocol == Protocol::Journal && is_too_long(&error) => {
                    send_in_file(socket, self.message.as_bytes())
                }
                sent => sent.map(drop),
            };
            match sent {
                Ok(()) => return Ok(()),
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
        let severity = mark.severity as u8;
        self.message.clear();
        // Writing to a `String` does not fail. Lines hold no line end, so that the journal's short form does.
        let _ = match self.protocol {
            Protocol::Syslog => {
                let line = &line[..line.floor_char_boundary(LINE_MAX)];
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

/// Whether the system takes no message of that length at a time.
fn is_too_long(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    matches!(code, Some(Errno::MSGSIZE | Errno::NOBUFS))
}

/// Sends the journal a message as a sealed file: systemd "Native Journal Protocol", as `sd_journal_send()` does.
fn send_in_file(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("journal-message", flags)?);
    file.write_all(message)?;
    // It takes no other: somebody could still change what it reads.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(socket, &[], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
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
    use std::io::IoSliceMut;
    use std::os::fd::OwnedFd;

    use rustix::fs::fcntl_get_seals;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

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
        let line = "x".repeat(LINE_MAX + 1);
        sink.write(
            &batch(&line, Severity::Info, Some("shop"), Some(id)),
            Instant::now(),
        )
        .unwrap();
        assert_eq!(
            receive(&socket),
            format!(
                "MESSAGE={line}\nPRIORITY=6\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=wasgi\n\
                 WASGI_APP=shop\nWASGI_REQUEST_ID={id}\n"
            )
        );
    }

    #[test]
    fn the_journal_gets_a_line_that_no_datagram_holds_as_a_sealed_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut sink = Datagrams::new(path, Protocol::Journal);
        let line = "x".repeat(4 << 20);
        let mut lines = batch(&line, Severity::Warning, Some("shop"), None);
        lines.push(
            &Line {
                text: "short",
                mark: (0, ""),
                severity: Severity::Info,
                app: None,
                id: None,
            },
            false,
            true,
        );
        sink.write(&lines, Instant::now()).unwrap();

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 16];
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(received.bytes, 0, "nothing but the file");
        let files: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        let [file] = &files[..] else {
            panic!("{} files", files.len());
        };
        // What journald asks of it.
        let seals = fcntl_get_seals(file).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL));
        let mut told = vec![0; 5 << 20];
        let length = rustix::io::pread(file, &mut told, 0).unwrap();
        let expected = format!(
            "MESSAGE={line}\nPRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=wasgi\nWASGI_APP=shop\n"
        );
        assert!(told[..length] == *expected.as_bytes());
        assert!(receive(&socket).starts_with("MESSAGE=short\n"));
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
