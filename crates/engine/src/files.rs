//! The functions of WASI that make, change and remove files, where a quota bounds them.
//!
//! They stand in the linker before wasmtime's own: each looks at what is there, takes the room that the call may need, has
//! wasmtime do it, and gives back what was not needed. Between the look and the end of the call the account is held, so
//! that the look stays true for all of the app's instances. Where there is no quota, a call goes straight on.
//!
//! With a quota, two mounts are two devices, as they are for programs on Linux: a link or rename from one to the other gets
//! EXDEV, for which `shutil.move` copies.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::{AsContextMut, Caller, Linker};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::{Fd, Filestat, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1};
use wiggle::{GuestMemory, GuestPtr};

use crate::abi::{self, errno};
use crate::guest::Guest;
use crate::host::memory;
use crate::quota::{Account, Full, Held};

const MODULE: &str = "wasi_snapshot_preview1";

/// Descriptors of standard streams; those of the mounts follow.
const STREAMS: usize = 3;

// Bits of `path_open`'s and `fd_fdstat_set_flags`'s arguments.
const CREATE: i32 = 1;
const TRUNCATE: i32 = 8;
const APPEND: i32 = 1;

/// What the guest has open, as far as quotas need to know.
pub(crate) struct Files {
    /// Of each mount, in the order of their descriptors.
    accounts: Vec<Option<Account>>,
    /// By descriptor.
    open: Vec<Option<Open>>,
    /// How many files and folders the guest may have open beside the mounts.
    most: usize,
    count: usize,
}

/// An open file or folder.
#[derive(Clone, Copy)]
struct Open {
    mount: usize,
    /// Whether writes go to the end.
    append: bool,
    /// The file's inode number as WASI has it, if it is one that an account follows.
    inode: Option<u64>,
}

impl Files {
    /// Nothing is open yet but the mounts, whose `accounts` these are.
    pub(crate) fn new(accounts: Vec<Option<Account>>, most: usize) -> Self {
        let mounts = (0..accounts.len()).map(|mount| {
            Some(Open {
                mount,
                append: false,
                inode: None,
            })
        });
        Self {
            open: std::iter::repeat_n(None, STREAMS).chain(mounts).collect(),
            accounts,
            most,
            count: 0,
        }
    }

    fn find(&self, descriptor: i32) -> Option<Open> {
        *self.open.get(descriptor as u32 as usize)?
    }

    /// The account that what is done through a descriptor counts against.
    fn account(&self, descriptor: i32) -> Option<&Account> {
        self.accounts[self.find(descriptor)?.mount].as_ref()
    }

    fn put(&mut self, descriptor: i32, open: Open) {
        let index = descriptor as u32 as usize;
        if index >= self.open.len() {
            self.open.resize(index + 1, None);
        }
        self.open[index] = Some(open);
    }

    fn take(&mut self, descriptor: i32) -> Option<Open> {
        self.open.get_mut(descriptor as u32 as usize)?.take()
    }

    fn close(&mut self, descriptor: i32) {
        let index = descriptor as u32 as usize;
        let Some(open) = self.take(descriptor) else {
            return;
        };
        if index >= STREAMS + self.accounts.len() {
            self.count = self.count.saturating_sub(1);
        }
        self.forget(open);
    }

    fn forget(&self, open: Open) {
        if let (Some(account), Some(inode)) = (&self.accounts[open.mount], open.inode) {
            account.hold().closed(inode);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for open in std::mem::take(&mut self.open).into_iter().flatten() {
            self.forget(open);
        }
    }
}

/// One call of the guest's: what it needs, taken apart.
struct Call<'a> {
    memory: GuestMemory<'a>,
    wasi: &'a mut WasiP1Ctx,
    files: &'a mut Files,
    /// Bytes that wasmtime may copy for each of its functions.
    fuel: usize,
}

/// Has wasmtime do the call, with the fuel that a call has.
macro_rules! go_on {
    ($call:expr, $function:ident, $($argument:expr),+) => {{
        $call.wasi.set_hostcall_fuel($call.fuel);
        wasi::$function($call.wasi, &mut $call.memory, $($argument),+)
    }};
}

impl<'a> Call<'a> {
    fn of(caller: &'a mut Caller<'_, Guest>) -> wasmtime::Result<Self> {
        let memory = memory(caller)?;
        let fuel = caller.as_context_mut().hostcall_fuel();
        let (bytes, guest) = memory.data_and_store_mut(caller);
        Ok(Self {
            memory: GuestMemory::Unshared(bytes),
            wasi: &mut guest.wasi,
            files: &mut guest.files,
            fuel,
        })
    }

    /// What an open file is. `None` if it is none: the call itself then says why.
    fn look(&mut self, descriptor: i32) -> Option<Filestat> {
        let looked = self.wasi.fd_filestat_get(&mut self.memory, Fd::from(descriptor));
        at_once(looked).ok()?.ok()
    }

    /// A file's inode number, and its size as the account has it or, if it does not follow the file, as it is.
    fn size(&mut self, descriptor: i32, held: &Held<'_>) -> Option<(u64, u64)> {
        let inode = self.files.find(descriptor).and_then(|open| open.inode);
        let known = inode.and_then(|inode| Some((inode, held.size(inode)?)));
        known.or_else(|| self.look(descriptor).map(|file| (file.ino, file.size)))
    }

    fn look_at(&mut self, folder: i32, follow: bool, (at, length): (i32, i32)) -> Option<Filestat> {
        self.wasi.set_hostcall_fuel(self.fuel);
        let follow = match follow {
            true => Lookupflags::SYMLINK_FOLLOW,
            false => Lookupflags::empty(),
        };
        let path = GuestPtr::<str>::new((at as u32, length as u32));
        let looked = self
            .wasi
            .path_filestat_get(&mut self.memory, Fd::from(folder), follow, path);
        at_once(looked).ok()?.ok()
    }

    fn read_word(&self, at: i32) -> wasmtime::Result<u32> {
        Ok(self.memory.read(GuestPtr::<u32>::new(at as u32))?)
    }
}

/// The result of a future that does not wait: files are read and written on this thread (see `wasi::context`).
fn at_once<F: Future>(future: F) -> wasmtime::Result<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(wasmtime::format_err!("a call about files did not end at once")),
    }
}

/// Puts our functions before wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "path_open", path_open)?;
    linker.func_wrap(MODULE, "fd_fdstat_set_flags", set_flags)?;
    linker.func_wrap(MODULE, "fd_filestat_set_size", set_size)?;
    linker.func_wrap(MODULE, "path_create_directory", create_folder)?;
    linker.func_wrap(MODULE, "path_symlink", symlink)?;
    linker.func_wrap(MODULE, "path_link", link)?;
    linker.func_wrap(MODULE, "path_rename", rename)?;
    linker.func_wrap(MODULE, "path_unlink_file", unlink)?;
    linker.func_wrap(MODULE, "path_remove_directory", remove_folder)?;
    linker.func_wrap_async(MODULE, "fd_close", |caller, (descriptor,)| {
        Box::new(close(caller, descriptor))
    })?;
    linker.func_wrap_async(MODULE, "fd_renumber", |caller, (from, to)| {
        Box::new(renumber(caller, from, to))
    })?;
    linker.func_wrap_async(
        MODULE,
        "fd_write",
        |caller, (descriptor, parts, count, written)| {
            Box::new(write(caller, descriptor, (parts, count), None, written))
        },
    )?;
    linker.func_wrap_async(
        MODULE,
        "fd_pwrite",
        |caller, (descriptor, parts, count, offset, written)| {
            Box::new(write(caller, descriptor, (parts, count), Some(offset), written))
        },
    )?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "WASI's own")]
fn path_open(
    mut caller: Caller<'_, Guest>,
    folder: i32,
    lookup: i32,
    path: i32,
    length: i32,
    how: i32,
    rights: i64,
    inherited: i64,
    flags: i32,
    opened: i32,
) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    if call.files.count >= call.files.most {
        return Ok(errno::EMFILE);
    }
    let Some(Open { mount, .. }) = call.files.find(folder) else {
        return at_once(go_on!(
            call, path_open, folder, lookup, path, length, how, rights, inherited, flags, opened
        ))?;
    };
    let account = call.files.accounts[mount].clone();
    let mut held = account.as_ref().map(Account::hold);
    let mut before = None;
    let mut made = 0;
    if let Some(held) = &mut held
        && how & (CREATE | TRUNCATE) != 0
    {
        before = call.look_at(folder, lookup & 1 != 0, (path, length));
        made = u64::from(how & CREATE != 0 && before.is_none());
        if held.take(0, made) == Err(Full) {
            return Ok(errno::ENOSPC);
        }
    }
    let result = at_once(go_on!(
        call, path_open, folder, lookup, path, length, how, rights, inherited, flags, opened
    ))?;
    if !matches!(result, Ok(abi::OK)) {
        if let Some(held) = &mut held {
            held.give_back(0, made);
        }
        return result;
    }
    let descriptor = call.read_word(opened)? as i32;
    let mut inode = None;
    if let Some(held) = &mut held {
        if how & TRUNCATE != 0
            && let Some(before) = before
        {
            held.give_back(held.size(before.ino).unwrap_or(before.size), 0);
            held.resized(before.ino, 0);
        }
        let file = call.look(descriptor);
        if let Some(file) = file.filter(|file| file.filetype == Filetype::RegularFile) {
            held.opened(file.ino, file.size);
            inode = Some(file.ino);
        }
    }
    call.files.put(
        descriptor,
        Open {
            mount,
            append: flags & APPEND != 0,
            inode,
        },
    );
    call.files.count += 1;
    Ok(abi::OK)
}

async fn close(mut caller: Caller<'_, Guest>, descriptor: i32) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let result = go_on!(call, fd_close, descriptor).await?;
    if result == abi::OK {
        call.files.close(descriptor);
    }
    Ok(result)
}

async fn renumber(mut caller: Caller<'_, Guest>, from: i32, to: i32) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let result = go_on!(call, fd_renumber, from, to).await?;
    if result == abi::OK && from != to {
        call.files.close(to);
        if let Some(open) = call.files.take(from) {
            call.files.put(to, open);
        }
    }
    Ok(result)
}

fn set_flags(mut caller: Caller<'_, Guest>, descriptor: i32, flags: i32) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let result = go_on!(call, fd_fdstat_set_flags, descriptor, flags)?;
    if result == abi::OK
        && let Some(open) = call.files.find(descriptor)
    {
        let append = flags & APPEND != 0;
        call.files.put(descriptor, Open { append, ..open });
    }
    Ok(result)
}

/// Writes at `offset`, or where the file's position is.
async fn write(
    mut caller: Caller<'_, Guest>,
    descriptor: i32,
    (parts, count): (i32, i32),
    offset: Option<i64>,
    written: i32,
) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let Some(account) = call.files.account(descriptor).cloned() else {
        // Standard streams come here too, and may wait for the log.
        return match offset {
            Some(offset) => go_on!(call, fd_pwrite, descriptor, parts, count, offset, written).await,
            None => go_on!(call, fd_write, descriptor, parts, count, written).await,
        };
    };
    let mut held = account.hold();
    let Some((inode, size)) = call.size(descriptor, &held) else {
        return Ok(errno::EBADF);
    };
    let start = match (call.files.find(descriptor), offset) {
        (Some(Open { append: true, .. }), _) => size,
        (_, Some(offset)) => offset as u64,
        (_, None) => match call.wasi.fd_tell(&mut call.memory, Fd::from(descriptor)) {
            Ok(position) => position,
            Err(_) => return Ok(errno::EBADF),
        },
    };
    let end_of = |length: u64| start.saturating_add(length);
    let room = end_of(first_length(&call, parts, count)?).saturating_sub(size);
    if held.take(room, 0) == Err(Full) {
        return Ok(errno::ENOSPC);
    }
    let result = at_once(async {
        match offset {
            Some(offset) => go_on!(call, fd_pwrite, descriptor, parts, count, offset, written).await,
            None => go_on!(call, fd_write, descriptor, parts, count, written).await,
        }
    })?;
    let wrote = match result {
        Ok(abi::OK) => call.read_word(written)?.into(),
        _ => 0,
    };
    // Writing nothing makes no file longer, wherever its position is.
    let end = if wrote == 0 { size } else { end_of(wrote).max(size) };
    held.give_back(room - (end - size).min(room), 0);
    held.resized(inode, end);
    result
}

/// The length of the first part that is not empty, which is all that wasmtime writes in one call.
fn first_length(call: &Call<'_>, parts: i32, count: i32) -> wasmtime::Result<u64> {
    for index in 0..count as u32 {
        let at = (parts as u32).wrapping_add(index.wrapping_mul(8)).wrapping_add(4);
        let length = call.read_word(at as i32)?;
        if length > 0 {
            return Ok(length.into());
        }
    }
    Ok(0)
}

fn set_size(mut caller: Caller<'_, Guest>, descriptor: i32, size: i64) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let account = call.files.account(descriptor).cloned();
    let mut held = account.as_ref().map(Account::hold);
    let known = held.as_ref().and_then(|held| call.size(descriptor, held));
    let (Some(held), Some((inode, before))) = (&mut held, known) else {
        return at_once(go_on!(call, fd_filestat_set_size, descriptor, size))?;
    };
    let room = (size as u64).saturating_sub(before);
    if held.take(room, 0) == Err(Full) {
        return Ok(errno::ENOSPC);
    }
    let result = at_once(go_on!(call, fd_filestat_set_size, descriptor, size))?;
    match result {
        Ok(abi::OK) => {
            held.give_back(before.saturating_sub(size as u64), 0);
            held.resized(inode, size as u64);
        }
        _ => held.give_back(room, 0),
    }
    result
}

/// Makes a name in a folder, if there is room for one.
fn make(
    mut caller: Caller<'_, Guest>,
    folder: i32,
    go_on: impl FnOnce(&mut Call<'_>) -> wasmtime::Result<i32>,
) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    let account = call.files.account(folder).cloned();
    let mut held = account.as_ref().map(Account::hold);
    if held.as_mut().is_some_and(|held| held.take(0, 1) == Err(Full)) {
        return Ok(errno::ENOSPC);
    }
    let result = go_on(&mut call);
    if let Some(held) = held.as_mut().filter(|_| !matches!(result, Ok(abi::OK))) {
        held.give_back(0, 1);
    }
    result
}

fn create_folder(caller: Caller<'_, Guest>, folder: i32, path: i32, length: i32) -> wasmtime::Result<i32> {
    make(caller, folder, |call| {
        at_once(go_on!(call, path_create_directory, folder, path, length))?
    })
}

fn symlink(
    caller: Caller<'_, Guest>,
    target: i32,
    target_length: i32,
    folder: i32,
    path: i32,
    length: i32,
) -> wasmtime::Result<i32> {
    make(caller, folder, |call| {
        at_once(go_on!(
            call,
            path_symlink,
            target,
            target_length,
            folder,
            path,
            length
        ))?
    })
}

#[expect(clippy::too_many_arguments, reason = "WASI's own")]
fn link(
    mut caller: Caller<'_, Guest>,
    from: i32,
    lookup: i32,
    old: i32,
    old_length: i32,
    to: i32,
    new: i32,
    new_length: i32,
) -> wasmtime::Result<i32> {
    if !Call::of(&mut caller)?.is_one_device(from, to) {
        return Ok(errno::EXDEV);
    }
    make(caller, to, |call| {
        at_once(go_on!(
            call, path_link, from, lookup, old, old_length, to, new, new_length
        ))?
    })
}

fn rename(
    mut caller: Caller<'_, Guest>,
    from: i32,
    old: i32,
    old_length: i32,
    to: i32,
    new: i32,
    new_length: i32,
) -> wasmtime::Result<i32> {
    let mut call = Call::of(&mut caller)?;
    if !call.is_one_device(from, to) {
        return Ok(errno::EXDEV);
    }
    let account = call.files.account(to).cloned();
    let mut held = account.as_ref().map(Account::hold);
    let replaced = held
        .is_some()
        .then(|| {
            let moved = call.look_at(from, false, (old, old_length))?;
            // Two names of one file are both left.
            call.look_at(to, false, (new, new_length))
                .filter(|replaced| replaced.ino != moved.ino)
        })
        .flatten();
    let result = at_once(go_on!(
        call,
        path_rename,
        from,
        old,
        old_length,
        to,
        new,
        new_length
    ))?;
    if let (Some(held), Some(replaced), Ok(abi::OK)) = (&mut held, replaced, &result) {
        gone(held, &replaced);
    }
    result
}

fn unlink(mut caller: Caller<'_, Guest>, folder: i32, path: i32, length: i32) -> wasmtime::Result<i32> {
    remove(&mut caller, folder, (path, length), |call| {
        at_once(go_on!(call, path_unlink_file, folder, path, length))?
    })
}

fn remove_folder(
    mut caller: Caller<'_, Guest>,
    folder: i32,
    path: i32,
    length: i32,
) -> wasmtime::Result<i32> {
    remove(&mut caller, folder, (path, length), |call| {
        at_once(go_on!(call, path_remove_directory, folder, path, length))?
    })
}

/// Takes a name away, and gives back what it stood for.
fn remove(
    caller: &mut Caller<'_, Guest>,
    folder: i32,
    path: (i32, i32),
    go_on: impl FnOnce(&mut Call<'_>) -> wasmtime::Result<i32>,
) -> wasmtime::Result<i32> {
    let mut call = Call::of(caller)?;
    let account = call.files.account(folder).cloned();
    let mut held = account.as_ref().map(Account::hold);
    let removed = held
        .is_some()
        .then(|| call.look_at(folder, false, path))
        .flatten();
    let result = go_on(&mut call);
    if let (Some(held), Some(removed), Ok(abi::OK)) = (&mut held, removed, &result) {
        gone(held, &removed);
    }
    result
}

/// A name is no more.
fn gone(held: &mut Held<'_>, file: &Filestat) {
    held.give_back(0, 1);
    if file.filetype == Filetype::RegularFile && file.nlink < 2 {
        held.nameless(file.ino, file.size);
    }
}

impl Call<'_> {
    /// Whether a file may get from one folder to the other without being copied.
    fn is_one_device(&self, from: i32, to: i32) -> bool {
        match (self.files.account(from), self.files.account(to)) {
            (None, None) => true,
            (Some(from), Some(to)) => from.is(to),
            _ => false,
        }
    }
}
