//! A request's body on its way from the connection's task to the app's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use wasgi_engine::PeerGone;

use crate::answer::Source;

/// Holds a piece of a body until the app takes it. The connection lets no more of it come meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Feed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    piece: BytesMut,
    end: Option<Result<(), PeerGone>>,
    /// Who waits for a piece, and who waits for room.
    app: Option<Waker>,
    connection: Option<Waker>,
}

/// Longest piece that is held.
const PIECE: usize = 64 << 10;

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes there is room for: at least one.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.lock();
        match PIECE - state.piece.len() {
            0 => {
                state.connection = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    /// Puts down more of the body: no more than there is room for, or than the peer's window lets it send.
    pub(crate) fn put(&self, data: &[u8]) {
        let app = {
            let mut state = self.lock();
            state.piece.extend_from_slice(data);
            state.app.take()
        };
        wake(app);
    }

    /// There is no more to come: the body has ended, or its peer is gone.
    pub(crate) fn end(&self, end: Result<(), PeerGone>) {
        let app = {
            let mut state = self.lock();
            state.end.get_or_insert(end);
            state.app.take()
        };
        wake(app);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The app's end.
#[derive(Debug, Default)]
pub(crate) struct Body(pub(crate) Arc<Feed>);

impl Source for Body {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PeerGone>>> {
        let mut state = self.0.lock();
        if !state.piece.is_empty() {
            let piece = std::mem::take(&mut state.piece).freeze();
            let connection = state.connection.take();
            drop(state);
            wake(connection);
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(gone)) => Poll::Ready(Some(Err(gone))),
            None => {
                state.app = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
