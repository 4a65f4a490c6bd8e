//! What the guest gets of WASI preview 1: files of its mounts, clocks, randomness, lines of output.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use wasmtime::component::Resource;
use wasmtime::{AsContextMut, Caller, Linker};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::filesystem::types::HostDescriptor;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, I32Exit, OpenMode, WasiCtxBuilder, WasiView};

use crate::abi::errno;
use crate::clock::Clock;
use crate::files;
use crate::guest::Guest;
use crate::host::slice_mut;
use crate::mounts::{self, MountError};
use crate::spec::Mount;
use crate::time_limit::{self, Stopped, Waited, strike};
use crate::track::At;

/// Most open files, folders and streams of one instance; `limits.open-files` and the guest's own bound (entry/files.c) come
/// first.
const MAX_OPEN: usize = 1100;

/// Where a guest's standard streams go.
pub(crate) enum Streams {
    /// To the log, line by line.
    Log(crate::lines::InstanceLog),
    /// To those of this process: for `wasgi python`.
    Inherit,
}

/// WASI for one instance.
pub(crate) fn context<'a>(
    mounts: impl IntoIterator<Item = &'a Mount>,
    env: &[(String, String)],
    clock: Clock,
    streams: Streams,
) -> Result<WasiP1Ctx, MountError> {
    let mut builder = WasiCtxBuilder::new();
    // Files are the operator's own disks: the hop to another thread costs more than the reading.
    builder
        .allow_blocking_current_thread(true)
        .envs(env)
        .monotonic_clock(clock);
    match streams {
        Streams::Log(log) => {
            builder.stdout(log.stream(0)).stderr(log.stream(1));
        }
        Streams::Inherit => {
            builder.inherit_stdio();
        }
    }
    for mount in mounts {
        let permissions = if mount.write {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        let folder = mounts::open(mount)?;
        builder
            .preopened_dir(mounts::path_of(&folder), &mount.guest, permissions)
            .map_err(|reason| MountError::new(mount, format!("{reason:#}")))?;
    }
    let mut context = builder.build_p1();
    context.ctx().table.set_max_capacity(MAX_OPEN);
    Ok(context)
}

/// The device that WASI tells of every file.
const DEVICE: u64 = 1;

/// A file that the guest has open for reading, by what WASI's `fd_filestat_get` tells of it.
///
/// What is looked through are the instance's own open files: whatever is found, the guest could read itself.
pub(crate) async fn open_file(context: &mut WasiP1Ctx, device: u64, inode: u64) -> Option<Arc<File>> {
    if device != DEVICE {
        return None;
    }
    let open = context.ctx().table.iter_mut().count();
    let mut seen = 0;
    for index in 0..u32::try_from(MAX_OPEN).ok()? {
        if seen == open {
            break;
        }
        let descriptor = || Resource::<Descriptor>::new_borrow(index);
        if context.ctx().table.get_any_mut(index).is_err() {
            continue;
        }
        seen += 1;
        let file = match context.ctx().table.get(&descriptor()) {
            Ok(Descriptor::File(file)) if file.open_mode.contains(OpenMode::READ) => Arc::clone(&file.file),
            _ => continue,
        };
        let hash = context.filesystem().metadata_hash(descriptor()).await;
        if hash.is_ok_and(|hash| hash.lower == inode) {
            return Some(file);
        }
    }
    None
}

/// Whether the guest has not used a descriptor yet: none is open, and none ever was.
pub(crate) fn is_untouched(context: &mut WasiP1Ctx) -> bool {
    let table = context.ctx().table;
    if !table.is_empty() {
        return false;
    }
    // A table that may not get longer takes an entry only in the place of one that was there before.
    table.set_max_capacity(0);
    let probe = table.push(());
    table.set_max_capacity(MAX_OPEN);
    probe.is_err()
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        nanoseconds(Clock::now(*self))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds WASI to a linker, with our own `poll_oneoff`, which the time limit wakes, `proc_exit`, which takes any exit code
/// (wasmtime's calls those above 125 a crash), and what changes files, which quotas bound.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |guest| &mut guest.wasi)?;
    linker.allow_shadowing(true);
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "poll_oneoff",
        |caller, (subscriptions, events, count, stored)| {
            Box::new(poll_oneoff(caller, subscriptions, events, count, stored))
        },
    )?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) },
    )?;
    files::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

// Layout of WASI preview 1's `subscription` and `event`.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
const CLOCK: u8 = 0;
const CLOCK_REALTIME: u32 = 0;
const ABSOLUTE: u16 = 1;

/// Most subscriptions in one call.
const MAX_SUBSCRIPTIONS: i32 = 1024;

/// Waits for clocks; files and streams are always ready. Answers 0 or an errno.
async fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    subscriptions: i32,
    events: i32,
    count: i32,
    stored: i32,
) -> wasmtime::Result<i32> {
    if !(1..=MAX_SUBSCRIPTIONS).contains(&count) {
        return Ok(errno::EINVAL);
    }
    let bytes = slice_mut(&mut caller, subscriptions, count * SUBSCRIPTION as i32)?;
    let asked: Vec<Subscription> = bytes.chunks_exact(SUBSCRIPTION).map(Subscription::read).collect();
    let (clock, now) = (caller.data().clock, Instant::now());
    let due: Vec<Option<Instant>> = asked.iter().map(|it| it.due(clock, now)).collect();
    // Past what a clock can hold is as good as never; the request's own limit comes first.
    let first = due.iter().flatten().min().copied();
    let wait = async {
        match first {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    };
    match time_limit::wait(&mut caller, At::Sleeps, wait).await {
        Waited::Done(()) => {}
        Waited::Struck(reason) => {
            strike(&mut caller.as_context_mut(), reason);
            return Ok(errno::EINTR);
        }
        Waited::Stopped => return Err(Stopped.into()),
    }
    let now = Instant::now();
    let ready: Vec<[u8; EVENT]> = asked
        .iter()
        .zip(&due)
        .filter(|(_, due)| due.is_some_and(|due| due <= now))
        .map(|(subscription, _)| subscription.event())
        .collect();
    slice_mut(&mut caller, events, (ready.len() * EVENT) as i32)?.copy_from_slice(ready.as_flattened());
    slice_mut(&mut caller, stored, 4)?.copy_from_slice(&(ready.len() as u32).to_le_bytes());
    Ok(0)
}

struct Subscription {
    user_data: [u8; 8],
    kind: u8,
    clock: u32,
    timeout: u64,
    flags: u16,
}

impl Subscription {
    fn read(bytes: &[u8]) -> Self {
        let part = |at: usize| -> [u8; 8] { bytes[at..at + 8].try_into().expect("eight bytes") };
        Self {
            user_data: part(0),
            kind: bytes[8],
            clock: u64::from_le_bytes(part(16)) as u32,
            timeout: u64::from_le_bytes(part(24)),
            flags: u64::from_le_bytes(part(40)) as u16,
        }
    }

    /// When it is ready; `None` for later than this machine can count.
    fn due(&self, clock: Clock, now: Instant) -> Option<Instant> {
        if self.kind != CLOCK {
            return Some(now);
        }
        let timeout = Duration::from_nanos(self.timeout);
        if self.flags & ABSOLUTE == 0 {
            return now.checked_add(timeout);
        }
        if self.clock == CLOCK_REALTIME {
            let wall = SystemTime::UNIX_EPOCH.checked_add(timeout)?;
            return now.checked_add(wall.duration_since(SystemTime::now()).unwrap_or_default());
        }
        clock.when(timeout)
    }

    fn event(&self) -> [u8; EVENT] {
        let mut event = [0; EVENT];
        event[..8].copy_from_slice(&self.user_data);
        event[10] = self.kind;
        // A file or stream takes or gives at least a byte.
        event[16] = u8::from(self.kind != CLOCK);
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    fn clock(id: u32, timeout: u64, flags: u16) -> Subscription {
        let mut bytes = [0; SUBSCRIPTION];
        bytes[..8].copy_from_slice(&7u64.to_le_bytes());
        bytes[16..20].copy_from_slice(&id.to_le_bytes());
        bytes[24..32].copy_from_slice(&timeout.to_le_bytes());
        bytes[40..42].copy_from_slice(&flags.to_le_bytes());
        Subscription::read(&bytes)
    }

    #[test]
    fn a_relative_timeout_counts_from_now_on_any_clock() {
        let now = Instant::now();
        for id in [0, 1] {
            assert_eq!(
                clock(id, 5_000, 0).due(Clock::of_process(), now),
                Some(now + Duration::from_micros(5))
            );
        }
    }

    #[test]
    fn an_absolute_timeout_is_a_moment_of_its_clock() {
        let resumed = Clock::since(Moment {
            monotonic: Duration::from_secs(90_000),
            wall: Duration::ZERO,
        });
        for its in [Clock::of_process(), resumed] {
            let now = Instant::now();
            let in_a_minute = nanoseconds(its.now()) + 60_000_000_000;
            let wait = clock(1, in_a_minute, ABSOLUTE).due(its, now).expect("near") - now;
            assert!(
                wait > Duration::from_secs(59) && wait < Duration::from_secs(61),
                "{wait:?}"
            );
            assert!(clock(1, 0, ABSOLUTE).due(its, now).expect("past") <= now);
        }

        let (its, now) = (Clock::of_process(), Instant::now());
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        let wait = clock(0, nanoseconds(wall) + 60_000_000_000, ABSOLUTE)
            .due(its, now)
            .expect("near")
            - now;
        assert!(
            wait > Duration::from_secs(59) && wait < Duration::from_secs(61),
            "{wait:?}"
        );
        assert_eq!(clock(0, 0, ABSOLUTE).due(its, now), Some(now));
    }
}
