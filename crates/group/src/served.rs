//! The far end of an instance: requests come in over its conversation, replies go out.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::timeout;
use wasgi_engine::{
    BodyError, Failure, FilePart, Instance, Isolation, PeerGone, ReplyHead, ReplySink, Request, RequestBody,
    Track,
};
use wasgi_protocol::frames::{Frame, Kind, take_text};

use crate::conversation::{Conversation, Lost, unexpected};
use crate::messages::{Handled, NotRewound, PLACE_TOLD_EVERY, Place, Renewed};
use crate::serve::Hosted;

/// The app waits once this much of its reply waits to go out.
const ROOM: usize = 64 << 10;

/// What the engine knows as the request's body and its reply, both of them ends of one conversation.
#[derive(Clone)]
struct Ends(Arc<Mutex<State>>);

struct State {
    conversation: Conversation,
    /// Pieces of the body that have come, and how it ends.
    body: VecDeque<Result<Option<Bytes>, BodyError>>,
    /// A piece was asked for and has not come.
    asked: bool,
    /// Nobody takes the reply any more.
    gone: bool,
    /// The last piece of the reply is on its way.
    complete: bool,
    /// A task sends what was left over.
    is_flushed_apart: bool,
}

/// Takes an instance through requests until the server, or it, has had enough.
pub(crate) async fn handle_all(
    hosted: &Hosted,
    mut instance: Instance,
    conversation: Conversation,
) -> Result<(), Lost> {
    let ends = Ends(Arc::new(Mutex::new(State {
        conversation,
        body: VecDeque::new(),
        asked: false,
        gone: false,
        complete: false,
        is_flushed_apart: false,
    })));
    loop {
        let Some(request) = ends.request().await? else {
            return Ok(());
        };
        let (id, track) = (request.id.clone(), Arc::clone(&request.track));
        hosted.running().insert(id.clone(), Arc::clone(&track));
        let report = ends.telling_place(hosted, &track, instance.handle(request)).await;
        hosted.running().remove(&id);
        let handled = Handled {
            report,
            cpu_wait: hosted.app.cpu_wait(),
        };
        ends.state().conversation.put_json(Kind::Done, &handled)?;
        if !handled.report.reusable {
            return ends.flush().await;
        }
        let rewound = match hosted.isolation {
            Isolation::Worker => Ok(None),
            Isolation::Request => {
                // The server need not wait for the rewind to know of the end.
                ends.flush().await?;
                instance.rewind(hosted.verify_rewind).await.map(Some)
            }
        };
        let is_ready = rewound.is_ok();
        let renewed = Renewed {
            rewound: rewound.map_err(|error| NotRewound::from(&error)),
            memory: instance.memory(),
        };
        ends.state().conversation.put_json(Kind::Renewed, &renewed)?;
        ends.flush().await?;
        if !is_ready {
            return Ok(());
        }
    }
}

impl Ends {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn flush(&self) -> Result<(), Lost> {
        poll_fn(|cx| self.state().conversation.poll_flush(cx, 0)).await
    }

    /// Tells the server of a request that takes its time, until it is handled.
    async fn telling_place<T>(&self, hosted: &Hosted, track: &Track, handled: impl Future<Output = T>) -> T {
        let mut handled = pin!(handled);
        loop {
            if let Ok(report) = timeout(PLACE_TOLD_EVERY, &mut handled).await {
                return report;
            }
            let mut state = self.state();
            // A server that does not take the reply need not be told.
            if state.conversation.waiting() == 0 {
                let place = Place {
                    at: track.at(),
                    cpu: track.cpu(),
                    memory: track.memory(),
                    cpu_wait: hosted.app.cpu_wait(),
                };
                state.gone |= state.conversation.put_json(Kind::Place, &place).is_err();
                self.send(&mut state);
            }
        }
    }

    /// The next request; `None` when the server wants no more of the instance.
    async fn request(&self) -> Result<Option<Request>, Lost> {
        let frame = loop {
            match poll_fn(|cx| self.state().conversation.poll_frame(cx)).await {
                Ok(frame) if frame.kind == Kind::Request => break frame,
                // On their way when the request before was over.
                Ok(frame) if is_of_request(frame.kind) => {}
                Ok(frame) => return Err(unexpected(&frame)),
                Err(Lost::Ended) => return Ok(None),
                Err(lost) => return Err(lost),
            }
        };
        let (id, environ) = take_text(&frame.payload).ok_or_else(|| unexpected(&frame))?;
        let mut state = self.state();
        state.body.clear();
        (state.asked, state.gone, state.complete) = (false, false, false);
        let (body, reply) = (Box::new(self.clone()), Box::new(self.clone()));
        Ok(Some(Request::new(environ.to_vec(), id.to_owned(), body, reply)))
    }

    /// Sends what the socket takes; the rest goes when it takes more, whatever the app does meanwhile.
    fn send(&self, state: &mut State) {
        if state.conversation.try_flush().is_err() {
            state.gone = true;
        } else if state.conversation.waiting() > 0 && !state.is_flushed_apart {
            state.is_flushed_apart = true;
            let (ends, stream) = (self.clone(), state.conversation.stream());
            tokio::spawn(async move {
                while stream.writable().await.is_ok() {
                    let mut state = ends.state();
                    if state.conversation.try_flush().is_err() || state.conversation.waiting() == 0 {
                        break;
                    }
                }
                ends.state().is_flushed_apart = false;
            });
        }
    }

    fn put(&self, kind: Kind, parts: &[&[u8]]) {
        let mut state = self.state();
        // Larger than a frame may be, which the engine does not make.
        state.gone |= state.conversation.put(kind, parts).is_err();
        if kind != Kind::Head {
            self.send(&mut state);
        }
    }
}

fn is_of_request(kind: Kind) -> bool {
    matches!(kind, Kind::Body | Kind::BodyEnd | Kind::BodyFailed | Kind::Gone)
}

impl State {
    /// Takes in what the server has said of the running request.
    fn take_in(&mut self, frame: Frame) -> Result<(), Lost> {
        match frame.kind {
            Kind::Gone => self.gone = true,
            Kind::Body if !frame.payload.is_empty() => self.body.push_back(Ok(Some(frame.payload.into()))),
            Kind::BodyEnd => self.body.push_back(Ok(None)),
            Kind::BodyFailed => self.body.push_back(Err(serde_json::from_slice(&frame.payload)?)),
            _ => return Err(unexpected(&frame)),
        }
        self.asked &= frame.kind == Kind::Gone;
        Ok(())
    }

    /// Takes in all that is there; pending if more may come.
    fn poll_in(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let taken = match self.conversation.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame.and_then(|frame| self.take_in(frame)),
            };
            if taken.is_err() {
                self.gone = true;
                return Poll::Ready(());
            }
            if !self.body.is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl RequestBody for Ends {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.state();
        if state.body.is_empty() {
            if !state.asked {
                state.asked = true;
                if state.conversation.put(Kind::Pull, &[]).is_err() {
                    state.gone = true;
                }
                self.send(&mut state);
            }
            if state.poll_in(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(match state.body.pop_front() {
            Some(Ok(Some(piece))) => Some(Ok(piece)),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(BodyError::PeerGone)),
        })
    }
}

impl ReplySink for Ends {
    fn head(&mut self, head: ReplyHead) {
        // Goes with the first piece.
        self.put(Kind::Head, &[&head.to_block()]);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        let mut state = self.state();
        if state.body.is_empty() {
            let _ = state.poll_in(cx);
        }
        if state.gone {
            return Poll::Ready(Err(PeerGone));
        }
        match state.conversation.poll_flush(cx, ROOM) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(PeerGone)),
        }
    }

    fn chunk(&mut self, data: Bytes, last: bool) {
        self.state().complete |= last;
        self.put(if last { Kind::LastPiece } else { Kind::Piece }, &[&data]);
    }

    fn file(&mut self, part: FilePart) {
        let mut state = self.state();
        let place = [part.offset.to_le_bytes(), part.length.to_le_bytes()];
        let parts = [&place[0][..], &place[1][..]];
        state.gone |= state
            .conversation
            .put_file(Kind::File, &parts, part.file)
            .is_err();
        state.complete = true;
        self.send(&mut state);
    }

    fn finish(&mut self) {
        if !self.state().complete {
            self.put(Kind::End, &[]);
        }
    }

    fn fail(&mut self, failure: Failure) {
        let failure = serde_json::to_vec(&failure).unwrap_or_default();
        self.put(Kind::Failed, &[&failure]);
    }
}
