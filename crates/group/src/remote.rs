//! One load of an app in a group's process, and its instances there, as the server's workers see them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use wasgi_engine::{
    AppLog, AppSpec, At, BodyError, Exchange, Failure, FilePart, PeerGone, Report, Request, RequestBody,
    RewindError, Rewound, Track,
};
use wasgi_protocol::frames::{Frame, Kind, take_number, take_text};

use crate::conversation::{Conversation, Lost, unexpected};
use crate::descriptors::ordinary_file;
use crate::messages::{Handled, Known, PLACE_TOLD_EVERY, Place, Renewed, Started};
use crate::process::{Link, Process};

/// What the process may take beyond a limit that it is to keep itself. A client that takes its time is not its fault: the server
/// waits for that no longer than the limit.
const LATE: Duration = Duration::from_secs(10);

/// What starting may take beside `limits.start`: warming up, keeping an image.
const START_LATE: Duration = Duration::from_secs(120);

/// Most bytes of a line of the log, as the engine makes them.
const LINE: usize = 8 << 10;

/// Bytes of lines that are taken in at once, each with so many beside its own, and for how long none is taken after that: more
/// than any log is given, and little of the server's time.
const LINES_AT_ONCE: usize = 64 << 10;
const LINE_COSTS: usize = 100;
const LINES_PAUSE: Duration = Duration::from_millis(10);

/// For how long a process that is to forget an app may be silent before it has said all.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Longest name of a request.
const ID: usize = 128;

/// The longest that an app can have to wait for the CPU.
const MINUTE: Duration = Duration::from_secs(60);

/// How often a start is tried when the process ends meanwhile.
const TRIES: usize = 3;

/// Most of a request's body in one frame.
const PIECE: usize = 1 << 20;

/// One load of an app whose instances are in a group's process.
pub struct Remote {
    process: Arc<Process>,
    number: u64,
    spec: AppSpec,
    verify_rewind: bool,
    log: Arc<dyn AppLog>,
    announced: Mutex<Option<Announced>>,
    /// Until when the app has had its minute of the CPU, as its process says.
    cpu_free_at: std::sync::Mutex<Option<Instant>>,
}

/// That a run of the process knows the app.
struct Announced {
    link: Arc<Link>,
    lines: JoinHandle<()>,
    /// Takes the ids of requests that are to end. Dropped, the process is to forget the app, and says what it still has to.
    kill: mpsc::UnboundedSender<String>,
}

/// Why nothing came of it, and whether it may if it is tried again.
enum Refused {
    Lost(Lost),
    NotStarted(String),
}

impl From<Lost> for Refused {
    fn from(lost: Lost) -> Self {
        Refused::Lost(lost)
    }
}

impl Remote {
    /// An app in a process. Nothing is sent yet.
    pub fn new(process: Arc<Process>, spec: AppSpec, verify_rewind: bool, log: Arc<dyn AppLog>) -> Arc<Self> {
        Arc::new(Self {
            number: process.number(),
            process,
            spec,
            verify_rewind,
            log,
            announced: Mutex::default(),
            cpu_free_at: std::sync::Mutex::default(),
        })
    }

    /// How long until the app may run again, if it has used up its minute.
    pub fn cpu_wait(&self) -> Option<Duration> {
        let free_at = *self.cpu_free_at.lock().unwrap_or_else(PoisonError::into_inner);
        free_at?
            .checked_duration_since(Instant::now())
            .filter(|wait| !wait.is_zero())
    }

    fn note_cpu(&self, wait: Option<Duration>) {
        let free_at = wait.map(|wait| Instant::now() + wait.min(MINUTE));
        *self.cpu_free_at.lock().unwrap_or_else(PoisonError::into_inner) = free_at;
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Makes an instance there.
    ///
    /// # Errors
    /// In words for the log.
    pub async fn start(self: &Arc<Self>) -> Result<Instance, String> {
        let (link, conversation, frame) = self.ask(Kind::Start, Kind::Started).await?;
        let started: Started =
            serde_json::from_slice(&frame.payload).map_err(|error| self.broken(&link, &error))?;
        self.note_cpu(started.cpu_wait);
        Ok(Instance {
            app: Arc::clone(self),
            link,
            conversation,
            is_copy: started.is_copy,
            memory: 0,
        })
    }

    /// Does what the first start does before there is an instance.
    ///
    /// # Errors
    /// In words for the log.
    pub async fn prepare(self: &Arc<Self>) -> Result<(), String> {
        self.ask(Kind::Prepare, Kind::Prepared).await.map(|_| ())
    }

    fn broken(&self, link: &Link, what: &dyn std::fmt::Display) -> String {
        let why = format!("broke the protocol ({what})");
        link.condemn(&why);
        format!("the process of group {} {why}", self.process.name())
    }

    /// Asks the process for something about the app, in a conversation of its own.
    async fn ask(&self, kind: Kind, wanted: Kind) -> Result<(Arc<Link>, Conversation, Frame), String> {
        let patience = self.spec.limits.start.saturating_add(START_LATE);
        let name = self.process.name();
        let mut lost = None;
        let asking = async {
            for _ in 0..TRIES {
                let link = self.process.up(lost.as_ref()).await?;
                match self.ask_once(&link, kind, wanted).await {
                    Ok((conversation, frame)) => return Ok((link, conversation, frame)),
                    Err(Refused::NotStarted(why)) => return Err(why),
                    Err(Refused::Lost(Lost::Broken(what))) => return Err(self.broken(&link, &what)),
                    Err(Refused::Lost(Lost::System(error))) => {
                        return Err(format!("cannot talk to the process of group {name}: {error}"));
                    }
                    Err(Refused::Lost(Lost::Ended)) => lost = Some(link),
                }
            }
            Err(format!(
                "the process of group {name} has ended meanwhile, {TRIES} times"
            ))
        };
        match timeout(patience, asking).await {
            Ok(asked) => asked,
            Err(_) => Err(format!(
                "the process of group {name} has not answered for {patience:?}"
            )),
        }
    }

    async fn ask_once(
        &self,
        link: &Arc<Link>,
        kind: Kind,
        wanted: Kind,
    ) -> Result<(Conversation, Frame), Refused> {
        self.announce(link).await?;
        let mut conversation = self.process.open(link)?;
        conversation.put(kind, &[&self.number.to_le_bytes()])?;
        conversation.flush().await?;
        let frame = conversation.frame().await?;
        match frame.kind {
            Kind::NotStarted => {
                let why = String::from_utf8_lossy(&frame.payload).into_owned();
                Err(Refused::NotStarted(why))
            }
            kind if kind == wanted => Ok((conversation, frame)),
            _ => Err(unexpected(&frame).into()),
        }
    }

    /// Sees to it that a run of the process knows the app.
    async fn announce(&self, link: &Arc<Link>) -> Result<(), Lost> {
        let mut announced = self.announced.lock().await;
        let is_known = |it: &Announced| Arc::ptr_eq(&it.link, link) && !it.lines.is_finished();
        if announced.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let mut conversation = self.process.open(link)?;
        let known = Known {
            spec: self.spec.clone(),
            verify_rewind: self.verify_rewind,
        };
        let known = serde_json::to_vec(&known)?;
        conversation.put(Kind::App, &[&self.number.to_le_bytes(), &known])?;
        conversation.flush().await?;
        let frame = conversation.frame().await?;
        if frame.kind != Kind::Known {
            return Err(unexpected(&frame));
        }
        let (kill, killed) = mpsc::unbounded_channel();
        let (log, teller) = (Arc::clone(&self.log), Arc::clone(link));
        let lines = self.process.sockets().spawn(async move {
            if let Err(Lost::Broken(what)) = tell_lines(&mut conversation, &*log, killed).await {
                teller.condemn(&format!("broke the protocol ({what})"));
            }
        });
        *announced = Some(Announced {
            link: Arc::clone(link),
            lines,
            kill,
        });
        Ok(())
    }
}

impl Remote {
    /// Has the process end a request.
    async fn kill(&self, id: &str) {
        if let Some(announced) = &*self.announced.lock().await {
            // Without the task that takes it, the process is gone, and the request with it.
            let _ = announced.kill.send(id.to_owned());
        }
    }
}

/// Hands on what an app logs, and which of its requests are to end, as long as somebody has requests to end; then what is left.
async fn tell_lines(
    conversation: &mut Conversation,
    log: &dyn AppLog,
    mut killed: mpsc::UnboundedReceiver<String>,
) -> Result<(), Lost> {
    let (mut taken, mut is_over) = (0, false);
    loop {
        if taken > LINES_AT_ONCE {
            taken = 0;
            sleep(LINES_PAUSE).await;
        }
        let frame = tokio::select! {
            frame = conversation.frame() => frame?,
            () = sleep(LAST_LINES), if is_over => return Err(Lost::Ended),
            id = killed.recv(), if !is_over => {
                match id {
                    Some(id) => {
                        conversation.put(Kind::Kill, &[id.as_bytes()])?;
                        conversation.flush().await?;
                    }
                    None => {
                        is_over = true;
                        conversation.say_no_more()?;
                    }
                }
                continue;
            }
        };
        match (frame.kind, take_text(&frame.payload)) {
            (Kind::Line, Some((id, text))) => {
                taken += frame.payload.len() + LINE_COSTS;
                let text = String::from_utf8_lossy(&text[..text.len().min(LINE)]);
                let is_id =
                    !id.is_empty() && id.len() <= ID && id.bytes().all(|byte| byte.is_ascii_graphic());
                log.line(is_id.then_some(id), &text);
            }
            _ => return Err(unexpected(&frame)),
        }
    }
}

/// An instance in a group's process.
pub struct Instance {
    app: Arc<Remote>,
    link: Arc<Link>,
    conversation: Conversation,
    is_copy: bool,
    memory: u64,
}

/// What comes next of a request that runs.
enum Next {
    Frame(Frame),
    Body(Option<Result<Bytes, BodyError>>),
    Kill,
}

impl Instance {
    /// Whether it was copied from the app's snapshot.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Memory that it has for itself, as it says.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Takes it through a request. If its process has ended since the last one, another instance takes its place first.
    pub async fn handle(&mut self, request: Request) -> Report {
        let Request {
            environ,
            id,
            body,
            reply,
            track,
            ..
        } = request;
        let mut body = body;
        let mut exchange = Exchange::new(Box::new(NoBody), reply);
        if !self.conversation.is_quiet() {
            match self.app.start().await {
                Ok(anew) => *self = anew,
                Err(why) => {
                    exchange.fail(Failure::NotStarted(why));
                    return Report::default();
                }
            }
        }
        let limits = self.app.spec.limits;
        let patience = limits.time.saturating_add(limits.grace).saturating_add(LATE);
        let begun = Instant::now();
        let handled = timeout(
            patience,
            self.converse(&environ, &id, &mut *body, &mut exchange, &track),
        )
        .await;
        track.set_at(At::Over);
        let ended = match handled {
            Ok(Ok(mut report)) => {
                exchange.fail(Failure::BadReply(
                    "the app ended without finishing its reply".to_owned(),
                ));
                // Whatever it says: a request runs on one thread, and memory has its limit.
                report.cpu = report.cpu.min(begun.elapsed());
                report.memory = report.memory.min(limits.memory);
                track.set_cost(report.cpu, report.memory);
                return report;
            }
            Ok(Err(Lost::Ended)) => "its process ended".to_owned(),
            Ok(Err(Lost::Broken(what))) => self.app.broken(&self.link, &what),
            Ok(Err(Lost::System(error))) => error.to_string(),
            Err(_) => {
                let why = format!(
                    "did not end a request of app {} at its time limit",
                    self.app.name()
                );
                self.link.condemn(&why);
                format!("its process {why}")
            }
        };
        exchange.fail(Failure::Lost(ended));
        Report::default()
    }

    async fn converse(
        &mut self,
        environ: &[u8],
        id: &str,
        body: &mut dyn RequestBody,
        exchange: &mut Exchange,
        track: &Track,
    ) -> Result<Report, Lost> {
        let conversation = &mut self.conversation;
        let told_id = id.get(..ID).unwrap_or(id);
        let id = told_id.as_bytes();
        conversation.put(Kind::Request, &[&[id.len() as u8], id, environ])?;
        let (mut is_wanted, mut told_gone) = (false, false);
        // The rest of a piece of the body that is larger than a frame.
        let mut rest = Bytes::new();
        let mut killed = pin!(track.killed());
        let mut is_killed = false;
        let begun = Instant::now();
        let mut places = 0;
        track.set_at(At::Runs);
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(Err(lost)) = conversation.poll_flush(cx, 0) {
                    return Poll::Ready(Err(lost));
                }
                if is_wanted && !rest.is_empty() {
                    return Poll::Ready(Ok(Next::Body(Some(Ok(rest.split_to(rest.len().min(PIECE)))))));
                }
                if is_wanted && let Poll::Ready(piece) = body.poll_chunk(cx) {
                    return Poll::Ready(Ok(Next::Body(piece)));
                }
                if !is_killed && killed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(Next::Kill));
                }
                conversation.poll_frame(cx).map(|frame| frame.map(Next::Frame))
            });
            let frame = match next.await? {
                Next::Kill => {
                    is_killed = true;
                    self.app.kill(told_id).await;
                    continue;
                }
                Next::Body(piece) => {
                    track.set_at(At::Runs);
                    is_wanted = false;
                    match piece {
                        Some(Ok(mut piece)) => {
                            rest = piece.split_off(piece.len().min(PIECE));
                            conversation.put(Kind::Body, &[&piece])?;
                        }
                        Some(Err(error)) => conversation.put_json(Kind::BodyFailed, &error)?,
                        None => conversation.put(Kind::BodyEnd, &[])?,
                    }
                    continue;
                }
                Next::Frame(frame) => frame,
            };
            match frame.kind {
                Kind::Pull if !is_wanted => {
                    track.set_at(At::ReadsBody);
                    is_wanted = true;
                }
                Kind::Head => {
                    let checked = exchange.head(&frame.payload);
                    checked.map_err(|_| Lost::Broken("a reply whose head is not valid".to_owned()))?;
                }
                Kind::Piece | Kind::LastPiece | Kind::End | Kind::File => {
                    let file = match frame.kind {
                        Kind::File => conversation.take_descriptor(),
                        _ => None,
                    };
                    track.set_at(At::SendsReply);
                    let left = self.app.spec.limits.time.saturating_sub(begun.elapsed());
                    let waited = {
                        let mut room = pin!(timeout(left, exchange.room()));
                        poll_fn(|cx| match room.as_mut().poll(cx) {
                            Poll::Pending if !is_killed && killed.as_mut().poll(cx).is_ready() => {
                                Poll::Ready(None)
                            }
                            waited => waited.map(Some),
                        })
                        .await
                    };
                    track.set_at(At::Runs);
                    // The process fails it in the same way, but that comes behind what nobody takes.
                    match waited {
                        Some(Ok(Ok(()))) => {
                            send(exchange, frame, file)?;
                            continue;
                        }
                        Some(Ok(Err(PeerGone))) => {}
                        Some(Err(_)) => exchange.fail(Failure::TimeLimit),
                        None => {
                            is_killed = true;
                            self.app.kill(told_id).await;
                            exchange.fail(Failure::Killed);
                        }
                    }
                    if !told_gone {
                        told_gone = true;
                        conversation.put(Kind::Gone, &[])?;
                    }
                }
                Kind::Place => {
                    places += 1;
                    let elapsed = begun.elapsed();
                    if places > elapsed.as_millis() / PLACE_TOLD_EVERY.as_millis() + 8 {
                        return Err(unexpected(&frame));
                    }
                    let place: Place = serde_json::from_slice(&frame.payload)?;
                    let limits = self.app.spec.limits;
                    self.app.note_cpu(place.cpu_wait);
                    track.set_at(place.at);
                    track.set_cost(place.cpu.min(elapsed), place.memory.min(limits.memory));
                }
                Kind::Failed => exchange.fail(serde_json::from_slice(&frame.payload)?),
                Kind::Done => {
                    let handled: Handled = serde_json::from_slice(&frame.payload)?;
                    self.app.note_cpu(handled.cpu_wait);
                    return Ok(handled.report);
                }
                _ => return Err(unexpected(&frame)),
            }
        }
    }

    /// Waits until it is ready for another request; tells what its rewind took, if there was one.
    ///
    /// # Errors
    /// Why it will not be.
    pub async fn renew(&mut self) -> Result<Option<Rewound>, RewindError> {
        let limits = self.app.spec.limits;
        let begun = Instant::now();
        let lost = |what: String| RewindError::System(std::io::Error::other(what));
        let frame = match timeout(limits.start.saturating_add(LATE), self.conversation.frame()).await {
            Ok(Ok(frame)) if frame.kind == Kind::Renewed => frame,
            Ok(Ok(frame)) => return Err(lost(self.app.broken(&self.link, &unexpected(&frame)))),
            Ok(Err(Lost::Broken(what))) => return Err(lost(self.app.broken(&self.link, &what))),
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost("its process does not answer".to_owned())),
        };
        let renewed: Renewed = serde_json::from_slice(&frame.payload)
            .map_err(|error| lost(self.app.broken(&self.link, &error)))?;
        // An instance's own pages, and what it takes beside them.
        self.memory = renewed.memory.min(limits.memory.saturating_mul(2));
        let rewound = renewed.rewound?;
        Ok(rewound.map(|rewound| Rewound {
            pages: rewound.pages.map(|pages| pages.min(limits.memory as usize >> 12)),
            time: rewound.time.min(begun.elapsed().saturating_add(LATE)),
        }))
    }
}

fn send(exchange: &mut Exchange, frame: Frame, file: Option<std::os::fd::OwnedFd>) -> Result<(), Lost> {
    let is_head_there = match frame.kind {
        Kind::File => {
            let part = file.and_then(ordinary_file).zip(place(&frame.payload));
            let Some((file, (offset, length @ 1..))) = part else {
                return Err(Lost::Broken("a file that is not one".to_owned()));
            };
            exchange.send_file(FilePart {
                file: Arc::new(file),
                offset,
                length,
            })
        }
        kind => exchange.send(frame.payload.into(), kind != Kind::Piece),
    };
    match is_head_there {
        wasgi_engine::Sent::NoHead => Err(Lost::Broken("a reply without a head".to_owned())),
        wasgi_engine::Sent::All | wasgi_engine::Sent::TooLong(_) => Ok(()),
    }
}

fn place(payload: &[u8]) -> Option<(u64, u64)> {
    let (offset, rest) = take_number(payload)?;
    Some((offset, take_number(rest)?.0))
}

/// The body is not read by way of the exchange.
struct NoBody;

impl RequestBody for NoBody {
    fn poll_chunk(&mut self, _: &mut std::task::Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::Mutex;

    use wasgi_engine::{Entry, Isolation, Kept, Limits, ReplyHead};
    use wasgi_protocol::frames::{Reader, encode};

    use super::*;
    use crate::descriptors::send_with;
    use crate::process::tests::of_nobody;

    #[derive(Default)]
    struct Log(Mutex<Vec<(Option<String>, String)>>);

    impl AppLog for Log {
        fn line(&self, request: Option<&str>, text: &str) {
            let mut lines = self.0.lock().expect("log");
            lines.push((request.map(str::to_owned), text.to_owned()));
        }
    }

    fn spec() -> AppSpec {
        AppSpec {
            name: "app".to_owned(),
            entry: Entry::Module {
                module: "app".to_owned(),
                callable: "app".to_owned(),
            },
            sys_path: Vec::new(),
            site_dirs: Vec::new(),
            mounts: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            working_dir: "/app".to_owned(),
            isolation: Isolation::Worker,
            warmup: Vec::new(),
            snapshot_cache: false,
            weight: 100,
            limits: Limits {
                time: Duration::from_secs(2),
                ..Limits::default()
            },
        }
    }

    /// An instance, and the socket on which its process speaks.
    fn instance() -> (Instance, UnixStream) {
        let (process, link, _) = of_nobody();
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let instance = Instance {
            app: Remote::new(process, spec(), false, Arc::new(Log::default())),
            link,
            conversation: Conversation::new(ours, Reader::Server).expect("a conversation"),
            is_copy: true,
            memory: 0,
        };
        (instance, theirs)
    }

    /// What the server makes of a process that answers a request with `said`, and then hangs up.
    async fn answered(said: &[u8]) -> (Report, Kept, Result<(), String>) {
        let (mut instance, mut far) = instance();
        let (request, keeper) = Request::local("/", "r1", 1 << 20);
        // It may hang up, or be hung up on, before all is said.
        let said = said.to_vec();
        let speaks = tokio::task::spawn_blocking(move || {
            let mut head = [0; 5];
            std::io::Read::read_exact(&mut far, &mut head).expect("the request");
            let _ = far.write_all(&said);
            let _ = far.shutdown(Shutdown::Write);
            far
        });
        let handled = timeout(Duration::from_secs(60), instance.handle(request)).await;
        let report = handled.expect("it ends");
        let renewed = match report.reusable {
            true => instance
                .renew()
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            false => Ok(()),
        };
        drop(instance);
        speaks.await.expect("it has spoken");
        (report, keeper.take(), renewed)
    }

    fn frame(kind: Kind, payload: impl AsRef<[u8]>) -> Vec<u8> {
        let mut frame = Vec::new();
        encode(kind, &[payload.as_ref()], &mut frame).expect("short enough");
        frame
    }

    fn json(kind: Kind, value: &impl serde::Serialize) -> Vec<u8> {
        frame(kind, serde_json::to_vec(value).expect("JSON"))
    }

    fn head() -> Vec<u8> {
        let head = ReplyHead {
            status: 200,
            reason: "OK".into(),
            headers: vec![("X-A".into(), "1".into())],
        };
        frame(Kind::Head, head.to_block())
    }

    fn done() -> Vec<u8> {
        let report = Report {
            reusable: true,
            cpu: Duration::from_secs(1 << 40),
            memory: u64::MAX,
            ..Report::default()
        };
        let cpu_wait = Some(Duration::MAX);
        json(Kind::Done, &Handled { report, cpu_wait })
    }

    fn renewed() -> Vec<u8> {
        let renewed = Renewed {
            rewound: Ok(None),
            memory: u64::MAX,
        };
        json(Kind::Renewed, &renewed)
    }

    fn place() -> Vec<u8> {
        let place = Place {
            at: At::Sleeps,
            cpu: Duration::MAX,
            memory: u64::MAX,
            cpu_wait: None,
        };
        json(Kind::Place, &place)
    }

    /// What a process says that is as it should be.
    fn good() -> Vec<Vec<u8>> {
        vec![
            frame(Kind::Pull, ""),
            head(),
            frame(Kind::Piece, "one "),
            place(),
            frame(Kind::LastPiece, "two"),
            done(),
            renewed(),
        ]
    }

    #[tokio::test]
    async fn a_good_process_is_understood_and_its_figures_held_to_what_can_be() {
        let (report, kept, renewed) = answered(&good().concat()).await;
        assert_eq!((kept.failure, &kept.body[..]), (None, &b"one two"[..]));
        assert_eq!(kept.head.map(|head| head.status), Some(200));
        assert_eq!(renewed, Ok(()));
        assert!(report.reusable && report.cpu < Duration::from_secs(60));
        assert_eq!(report.memory, spec().limits.memory);
    }

    #[tokio::test]
    async fn a_process_that_breaks_a_rule_is_refused() {
        let piece = frame(Kind::Piece, "x");
        let bad_head = frame(Kind::Head, b"\0\0\x06\x00999 No");
        let split_head = frame(Kind::Head, b"\0\0\x06\x00200 OK\x03\0X-A\x06\0a\r\nB:c");
        let long = [&u32::MAX.to_le_bytes()[..], &[Kind::Piece as u8]].concat();
        let places = place().repeat(100);
        for (what, said) in [
            ("a piece without a head", piece.clone()),
            ("a head that is none", bad_head),
            ("a head with a line break", split_head),
            (
                "a second head behind a piece",
                [head(), piece.clone(), head()].concat(),
            ),
            (
                "a file that is not there",
                [head(), frame(Kind::File, [1; 16])].concat(),
            ),
            ("a place cut short", [head(), frame(Kind::File, [1; 3])].concat()),
            ("a length beyond measure", [head(), long].concat()),
            ("an unknown kind", [0, 0, 0, 0, 200].to_vec()),
            ("what is not for the server", frame(Kind::Body, "x")),
            ("what belongs elsewhere", frame(Kind::Ready, "{}")),
            ("a report that is none", frame(Kind::Done, "{\"reusable\": 1}")),
            ("a failure that is none", frame(Kind::Failed, "[[[[")),
            ("places without end", places),
            ("an end within a frame", head()[..7].to_vec()),
        ] {
            let (report, kept, _) = answered(&said).await;
            assert!(!report.reusable, "{what}");
            let failure = kept.failure.unwrap_or_else(|| panic!("{what}: no failure"));
            let is_refused = matches!(&failure, Failure::Lost(why) if why.contains("broke the protocol"));
            assert!(is_refused, "{what}: {failure}");
        }
    }

    #[tokio::test]
    async fn only_ordinary_files_are_sent() {
        for (path, is_sent) in [("/", false), ("/dev/null", false), ("/etc/passwd", true)] {
            let (mut instance, mut far) = instance();
            far.write_all(&head()).expect("said");
            let place = [0u64.to_le_bytes(), 5u64.to_le_bytes()].concat();
            let file = File::open(Path::new(path)).expect("there");
            let said = frame(Kind::File, place);
            assert_eq!(
                send_with(&far, &said, file.as_fd(), true).expect("said"),
                said.len()
            );
            far.write_all(&done()).expect("said");
            let (request, keeper) = Request::local("/", "r1", 100);
            // An instance is asked only if its process is silent.
            let report = {
                let Request {
                    environ,
                    id,
                    mut body,
                    reply,
                    track,
                    ..
                } = request;
                let mut exchange = Exchange::new(Box::new(NoBody), reply);
                instance
                    .converse(&environ, &id, &mut *body, &mut exchange, &track)
                    .await
            };
            assert_eq!(report.is_ok(), is_sent, "{path}: {report:?}");
            assert_eq!(keeper.take().length, if is_sent { 5 } else { 0 }, "{path}");
        }
    }

    /// A generator good enough to spoil what a process says in many ways, the same in each run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as usize % most
        }
    }

    #[tokio::test]
    async fn whatever_a_process_says_the_server_goes_on() {
        let (mut refused, mut complete) = (0, 0);
        for seed in 0..400 {
            let mut chance = Chance(seed);
            let mut frames = good();
            for _ in 0..=chance.below(3) {
                let (at, with) = (chance.below(frames.len()), chance.below(frames.len()));
                match chance.below(6) {
                    0 => frames.swap(at, with),
                    1 => frames[at] = frames[with].clone(),
                    2 => frames[at].clear(),
                    3 => {
                        let kind = Kind::ALL[chance.below(Kind::ALL.len())];
                        let noise = (0..chance.below(40).min(kind.most())).map(|_| chance.below(256) as u8);
                        frames[at] = frame(kind, noise.collect::<Vec<u8>>());
                    }
                    _ => {
                        let place = chance.below(frames[at].len().max(1));
                        if let Some(byte) = frames[at].get_mut(place) {
                            *byte = chance.below(256) as u8;
                        }
                    }
                }
            }
            let said = frames.concat();
            let (report, kept, _) = answered(&said).await;
            assert!(kept.length <= said.len() as u64, "{said:?}");
            match kept.failure {
                Some(_) => refused += 1,
                None => complete += 1,
            }
            assert!(report.cpu < Duration::from_secs(60) && report.memory <= spec().limits.memory);
        }
        assert!(refused > 50 && complete > 50, "{refused} and {complete}");
    }

    #[tokio::test]
    async fn lines_are_held_to_their_length_and_to_requests_that_can_be() {
        let (ours, mut far) = UnixStream::pair().expect("sockets");
        let mut conversation = Conversation::new(ours, Reader::Server).expect("a conversation");
        let long = "x".repeat(10_000);
        for payload in [
            b"\x02r1said".to_vec(),
            b"\x02r\nforged".to_vec(),
            [&[0], long.as_bytes()].concat(),
        ] {
            far.write_all(&frame(Kind::Line, payload)).expect("said");
        }
        far.write_all(&frame(Kind::Line, b"\x05cut")).expect("said");
        let log = Log::default();
        // Also when the app is not wanted any more: a load that fails goes at once, and its traceback is to be told.
        let (kill, killed) = mpsc::unbounded_channel();
        drop(kill);
        let told = tell_lines(&mut conversation, &log, killed).await;
        assert!(matches!(told, Err(Lost::Broken(_))), "{told:?}");
        let lines = log.0.into_inner().expect("log");
        assert_eq!(lines[0], (Some("r1".to_owned()), "said".to_owned()));
        assert_eq!(lines[1], (None, "forged".to_owned()));
        assert_eq!((lines[2].1.len(), lines.len()), (LINE, 3));
    }
}
