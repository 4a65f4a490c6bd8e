//! The functions of module `wasgi` that the guest calls; `python-wasm/ABI.md` describes each.
//!
//! Pointers and lengths are the guest's word. One that lies outside its memory stops the instance.

use std::time::Instant;

use bytes::Bytes;
use wasmtime::{AsContextMut, Caller, Linker, Memory};

use crate::abi::{self, errno};
use crate::exchange::{BodyError, FilePart};
use crate::guest::{Exchange, Guest, Sent};
use crate::locks::{Kind, Range, Refused};
use crate::snapshot::MAX_ENTROPY;
use crate::time_limit::{self, InterruptWords, Reason, Stopped, Waited, strike};
use crate::track::At;
use crate::wasi;

/// Most bytes that cross in one call; more are taken by calling again.
const MAX_PIECE: usize = 1 << 20;

/// Bytes of a failure's name that count.
const MAX_FAILURE: usize = 1 << 10;

/// Adds our imports to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(abi::MODULE, abi::BLOCK_READ, block_read)?;
    linker.func_wrap(abi::MODULE, abi::INTERRUPT_WORDS, interrupt_words)?;
    linker.func_wrap(abi::MODULE, abi::INTERRUPT_REASON, interrupt_reason)?;
    linker.func_wrap(abi::MODULE, abi::IS_NEWS, is_news)?;
    linker.func_wrap(abi::MODULE, abi::ENTROPY, entropy)?;
    linker.func_wrap(abi::MODULE, abi::REPLY_HEAD, reply_head)?;
    linker.func_wrap(abi::MODULE, abi::FILE_LOCK, file_lock)?;
    linker.func_wrap(abi::MODULE, abi::FILE_LOCK_TEST, file_lock_test)?;
    linker.func_wrap_async(abi::MODULE, abi::TICK, |caller, ()| Box::new(tick(caller)))?;
    linker.func_wrap_async(abi::MODULE, abi::BODY_READ, |caller, (to, length)| {
        Box::new(body_read(caller, to, length))
    })?;
    linker.func_wrap_async(
        abi::MODULE,
        abi::REPLY_FILE,
        |caller, (device, inode, offset, length)| Box::new(reply_file(caller, device, inode, offset, length)),
    )?;
    linker.func_wrap_async(abi::MODULE, abi::REPLY_BODY, |caller, (from, length, flags)| {
        Box::new(reply_body(caller, from, length, flags))
    })?;
    Ok(())
}

/// Looks at the time limit, and lets others have the CPU if it is their turn.
async fn tick(mut caller: Caller<'_, Guest>) -> wasmtime::Result<i32> {
    let count = caller.data().ticks.count();
    let now = Instant::now();
    time_limit::check(caller.as_context_mut(), now)?;
    let turns = &caller.data().turns;
    if turns.look(now) {
        turns.clone().give_way().await;
    }
    Ok(count as i32)
}

fn block_read(mut caller: Caller<'_, Guest>, to: i32, length: i32) -> wasmtime::Result<()> {
    let block = std::mem::take(&mut caller.data_mut().block);
    let target = slice_mut(&mut caller, to, length)?;
    wasmtime::ensure!(
        target.len() == block.len(),
        "the guest reads {length} bytes of a block of {}",
        block.len()
    );
    target.copy_from_slice(&block);
    let guest = caller.data_mut();
    // Of other calls it holds secrets.
    if guest.exchange.is_some() {
        guest.environ = block;
    }
    Ok(())
}

fn interrupt_words(
    mut caller: Caller<'_, Guest>,
    tripped: i32,
    is_tripped: i32,
    eval_breaker: i32,
    bit: i32,
) {
    let [tripped, is_tripped, eval_breaker, bit] =
        [tripped, is_tripped, eval_breaker, bit].map(|it| it as u32);
    caller.data_mut().interrupt_words = Some(InterruptWords {
        tripped,
        is_tripped,
        eval_breaker,
        bit,
    });
}

fn interrupt_reason(caller: Caller<'_, Guest>) -> i32 {
    caller
        .data()
        .limit
        .struck()
        .map_or(abi::reason::TIME_LIMIT, Reason::code)
}

fn is_news(mut caller: Caller<'_, Guest>, from: i32, length: i32) -> wasmtime::Result<i32> {
    let failure = slice_mut(&mut caller, from, length)?;
    let most = failure.len().min(MAX_FAILURE);
    let failure = String::from_utf8_lossy(&failure[..most]).into_owned();
    Ok(caller.data().log.is_news(&failure).into())
}

fn entropy(mut caller: Caller<'_, Guest>, at: i32, length: i32) -> wasmtime::Result<()> {
    slice_mut(&mut caller, at, length)?;
    let places = &mut caller.data_mut().entropy;
    wasmtime::ensure!(
        places.len() < MAX_ENTROPY,
        "more than {MAX_ENTROPY} places with entropy of their own"
    );
    places.push((at as u32, length as u32));
    Ok(())
}

async fn body_read(mut caller: Caller<'_, Guest>, to: i32, length: i32) -> wasmtime::Result<i32> {
    let most = slice_mut(&mut caller, to, length)?.len().min(MAX_PIECE);
    let Some(mut exchange) = caller.data_mut().exchange.take() else {
        return Ok(-errno::EBADF);
    };
    let waited = time_limit::wait(&mut caller, At::ReadsBody, exchange.read(most)).await;
    let Some(read) = settle(&mut caller, exchange, waited)? else {
        return Ok(-errno::EINTR);
    };
    match read {
        Ok(piece) => {
            slice_mut(&mut caller, to, length)?[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len() as i32)
        }
        Err(BodyError::TooLarge) => Ok(-errno::EFBIG),
        Err(BodyError::TimedOut) => Ok(-errno::ETIMEDOUT),
        Err(BodyError::PeerGone) => Ok(-errno::EPIPE),
    }
}

fn reply_head(mut caller: Caller<'_, Guest>, from: i32, length: i32) -> wasmtime::Result<i32> {
    let Some(mut exchange) = caller.data_mut().exchange.take() else {
        return Ok(-errno::EBADF);
    };
    let kept = slice_mut(&mut caller, from, length).map(|block| exchange.head(block));
    caller.data_mut().exchange = Some(exchange);
    Ok(kept?.err().unwrap_or(abi::OK))
}

async fn reply_body(
    mut caller: Caller<'_, Guest>,
    from: i32,
    length: i32,
    flags: i32,
) -> wasmtime::Result<i32> {
    let data = slice_mut(&mut caller, from, length)?;
    let mut data = &data[..];
    let total = data.len();
    let mut sent = 0;
    loop {
        let piece = Bytes::copy_from_slice(&data[..data.len().min(MAX_PIECE)]);
        sent += piece.len();
        let last = sent == total && flags & abi::REPLY_LAST != 0;
        let Some(mut exchange) = caller.data_mut().exchange.take() else {
            return Ok(-errno::EBADF);
        };
        let waited = time_limit::wait(&mut caller, At::SendsReply, exchange.room()).await;
        let went = match waited {
            Waited::Done(Ok(())) => exchange.send(piece, last),
            _ => Sent::All,
        };
        match went {
            Sent::All => {}
            Sent::TooLong(length) => caller.data().log.note(&format!(
                "the reply is longer than its Content-Length of {length}; the rest is dropped"
            )),
            Sent::NoHead => {
                caller.data_mut().exchange = Some(exchange);
                return Ok(-errno::EINVAL);
            }
        }
        match settle(&mut caller, exchange, waited)? {
            // The reply was failed when the limit struck: calling again after the handlers gets EPIPE.
            None => return Ok(-errno::EINTR),
            Some(Err(_)) => return Ok(-errno::EPIPE),
            Some(Ok(())) if sent == total => return Ok(abi::OK),
            Some(Ok(())) => data = &slice_mut(&mut caller, from, length)?[sent..],
        }
    }
}

async fn reply_file(
    mut caller: Caller<'_, Guest>,
    device: i64,
    inode: i64,
    offset: i64,
    length: i64,
) -> wasmtime::Result<i32> {
    let (Ok(offset), Ok(length @ 1..)) = (u64::try_from(offset), u64::try_from(length)) else {
        return Ok(-errno::ENOENT);
    };
    let Some(file) = wasi::open_file(&mut caller.data_mut().wasi, device as u64, inode as u64).await else {
        return Ok(-errno::ENOENT);
    };
    let Some(mut exchange) = caller.data_mut().exchange.take() else {
        return Ok(-errno::EBADF);
    };
    let waited = time_limit::wait(&mut caller, At::SendsReply, exchange.room()).await;
    if let Waited::Done(Ok(())) = waited {
        match exchange.send_file(FilePart { file, offset, length }) {
            Sent::All => {}
            Sent::TooLong(length) => caller.data().log.note(&format!(
                "the reply is longer than its Content-Length of {length}; the rest is dropped"
            )),
            Sent::NoHead => {
                caller.data_mut().exchange = Some(exchange);
                return Ok(-errno::EINVAL);
            }
        }
    }
    Ok(match settle(&mut caller, exchange, waited)? {
        // As in `reply_body`.
        None => -errno::EINTR,
        Some(Err(_)) => -errno::EPIPE,
        Some(Ok(())) => abi::OK,
    })
}

fn file_lock(
    mut caller: Caller<'_, Guest>,
    device: i64,
    inode: i64,
    start: i64,
    length: i64,
    kind: i32,
) -> i32 {
    let (Some(range), Some(kind)) = (Range::new(start, length), lock_kind(kind)) else {
        return errno::EINVAL;
    };
    match caller
        .data_mut()
        .locks
        .set((device as u64, inode as u64), range, kind)
    {
        Ok(()) => abi::OK,
        Err(Refused::Held) => errno::EAGAIN,
        Err(Refused::TooMany) => errno::ENOLCK,
    }
}

fn file_lock_test(
    caller: Caller<'_, Guest>,
    device: i64,
    inode: i64,
    start: i64,
    length: i64,
    kind: i32,
) -> i32 {
    let (Some(range), Some(Some(kind))) = (Range::new(start, length), lock_kind(kind)) else {
        return 0;
    };
    caller
        .data()
        .locks
        .is_held_elsewhere((device as u64, inode as u64), range, kind)
        .into()
}

/// 0 is unlock, `Some(None)`; what is none of the kinds is `None`.
fn lock_kind(kind: i32) -> Option<Option<Kind>> {
    match kind {
        0 => Some(None),
        1 => Some(Some(Kind::Read)),
        2 => Some(Some(Kind::Write)),
        _ => None,
    }
}

/// Puts the exchange back after a wait. `None` when the limit struck meanwhile.
///
/// # Errors
/// [`Stopped`] when the grace is over.
fn settle<T>(
    caller: &mut Caller<'_, Guest>,
    exchange: Exchange,
    waited: Waited<T>,
) -> wasmtime::Result<Option<T>> {
    caller.data_mut().exchange = Some(exchange);
    match waited {
        Waited::Done(value) => Ok(Some(value)),
        Waited::Struck(reason) => {
            strike(&mut caller.as_context_mut(), reason);
            Ok(None)
        }
        Waited::Stopped => Err(Stopped.into()),
    }
}

/// The guest's memory; it exists whenever the guest can call.
pub(crate) fn memory(caller: &Caller<'_, Guest>) -> wasmtime::Result<Memory> {
    caller
        .data()
        .memory
        .ok_or_else(|| wasmtime::format_err!("the guest called before its memory was known"))
}

/// Bytes of the guest's memory.
///
/// # Errors
/// If they lie outside it: the instance stops.
pub(crate) fn slice_mut<'a>(
    caller: &'a mut Caller<'_, Guest>,
    at: i32,
    length: i32,
) -> wasmtime::Result<&'a mut [u8]> {
    let memory = memory(caller)?;
    let (at, length) = (at as u32 as usize, length as u32 as usize);
    memory
        .data_mut(caller)
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..length))
        .ok_or_else(|| wasmtime::format_err!("the guest names {length} bytes at {at}, outside its memory"))
}
