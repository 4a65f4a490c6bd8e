//! Tells an app's log where a request is: one that takes long, or one whose instance was stopped.

use std::time::{Duration, Instant};

use wasmtime::{AsContextMut, StoreContext};

use crate::block;
use crate::guest::Guest;
use crate::python_stack::Frame;
use crate::track::At;

/// Bytes of a request's target that are told.
const MAX_TARGET: usize = 200;

/// Tells once of a request that it has taken `slow` so far.
pub(crate) fn tell_slow(mut store: impl AsContextMut<Data = Guest>, slow: Duration, at: At) {
    store.as_context_mut().data_mut().told_slow = true;
    tell(
        store.as_context(),
        &format!("has taken {slow:?} and {}", at.words()),
    );
}

/// Writes what became of the running request, memory in use, and the Python stack; or has it counted.
pub(crate) fn tell(store: StoreContext<'_, Guest>, what: &str) {
    let guest = store.data();
    let memory = guest.memory.map_or(&[][..], |memory| memory.data(&store));
    let frames = guest
        .python
        .as_ref()
        .map(|layout| layout.stack(memory))
        .unwrap_or_default();
    tell_stack(guest, what, memory.len(), &frames);
}

fn tell_stack(guest: &Guest, what: &str, memory: usize, frames: &[Frame]) {
    let place = frames.last().map(|frame| format!(" at {}", frame.place()));
    if !guest
        .log
        .is_news(&format!("a request {what}{}", place.unwrap_or_default()))
    {
        return;
    }
    let stack = match frames.is_empty() {
        true => "no Python code is running",
        false => "Python stack (most recent call last):",
    };
    let (request, used) = (request_line(&guest.environ), memory >> 20);
    guest
        .log
        .note(&format!("{request} {what}; memory: {used} MiB; {stack}"));
    for frame in frames {
        guest.log.note(&frame.to_string());
    }
}

/// Tells where a request was when its memory was refused to grow, if it was.
pub(crate) fn tell_refused(store: StoreContext<'_, Guest>) {
    let guest = store.data();
    let limit = &guest.memory_limit;
    let Some(frames) = &limit.stack else { return };
    let memory = guest.memory.map_or(0, |memory| memory.data_size(&store));
    let what = format!("was refused more memory than {} MiB", limit.bytes >> 20);
    tell_stack(guest, &what, memory, frames);
}

/// When [`tell_slow`] is due, unless it was told already.
pub(crate) fn due(guest: &Guest) -> Option<(Instant, Duration)> {
    let slow = guest.limit.slow?;
    (!guest.told_slow).then_some(slow)
}

/// Method and target, as the client had them.
fn request_line(environ: &[u8]) -> String {
    let value = |name: &str| {
        let value = block::pairs(environ).find(|(key, _)| *key == name.as_bytes())?.1;
        Some(String::from_utf8_lossy(&value[..value.len().min(MAX_TARGET)]).into_owned())
    };
    let target = value("REQUEST_URI")
        .or_else(|| value("PATH_INFO"))
        .unwrap_or_default();
    let method = value("REQUEST_METHOD").unwrap_or_default();
    let line = format!("{method} {target}");
    match line.trim() {
        "" => "the request".to_owned(),
        line => line.to_owned(),
    }
}
