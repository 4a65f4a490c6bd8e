//! What systemd asks of a service of `Type=notify`: to tell when it is ready, reloads or stops, and that it still lives.
//!
//! Source: sd_notify(3), "Notes", sd_watchdog_enabled(3). Sockets that it hands over are in `inherited.rs`.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};

/// Tells systemd, or whoever else listens at `NOTIFY_SOCKET`; tells nobody without it.
#[derive(Debug)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    /// When `NOTIFY_SOCKET` does not name a socket.
    pub fn from_env() -> io::Result<Self> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| mine && *time > 0);
        let to = match env::var_os("NOTIFY_SOCKET") {
            None => None,
            Some(name) => Some(match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                _ => SocketAddr::from_pathname(&name)?,
            }),
        };
        Ok(Self {
            to: match to {
                Some(address) => Some((UnixDatagram::unbound()?, address)),
                None => None,
            },
            watchdog: watchdog.map(Duration::from_micros),
        })
    }

    /// The service serves: `systemctl start` returns.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The service reads its configuration anew, until it is [`ready`](Self::ready) again.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let time = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={time}\nSTATUS=reloading"));
    }

    /// The service lets its requests finish.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: running requests finish");
    }

    /// From now on this process is the service.
    pub fn main_process(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}\nSTATUS=handed over to process {pid}"));
    }

    /// Tells that the service lives, twice in each of the watchdog's times; returns at once if there is no watchdog.
    ///
    /// To be spawned on the runtime whose life is meant: when it is stuck, so is this.
    pub async fn live(&self) {
        let Some(time) = self.watchdog.filter(|_| self.to.is_some()) else {
            return;
        };
        let mut due = interval(time / 2);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            // Nowhere to tell of a failure; a service that goes on untold is better than one that ends.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}
