//! The process of a group: takes its orders from standard input, confines itself, and runs instances.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use wasgi_engine::{App, AppLog, COUNTED, Engine, Isolation, News, Repeats, Track, open_pagemap};
use wasgi_protocol::frames::{Decoder, Frame, Kind, Reader, encode, take_number};

use crate::confine::confine;
use crate::conversation::{Conversation, Lost, unexpected};
use crate::descriptors::receive;
use crate::messages::{Confined, Folder, Known, Setup, Started, User};
use crate::served;

/// What the command of such a process is called. It is not for people.
pub const COMMAND: &str = "group-process";

/// Lines of an app that wait to be sent. What finds no room is counted, as any line of the log is.
const LINES: usize = 1024;

/// How long the server may take over the last of them.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Threads beside those that guests run on at a time, one for each core, and tasks between two looks at their timers: as
/// the server has it for apps of its own.
const SPARE: usize = 1;
const TIMER_INTERVAL: u32 = 4;

/// Is the process of a group, until the server ends.
pub fn serve() -> ExitCode {
    // A server that was killed takes it along, whatever state it is in.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
        .and_then(obey)
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The server's orders, as they come.
struct Orders {
    socket: UnixStream,
    decoder: Decoder,
    descriptor: Option<OwnedFd>,
}

impl Orders {
    /// The next; `None` when the server has gone.
    fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 4096];
            let (length, descriptor) = match receive(&self.socket, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                got => got?,
            };
            if length == 0 {
                return Ok(None);
            }
            self.descriptor = descriptor.or(self.descriptor.take());
            self.decoder.push(&buffer[..length]);
        }
    }

    fn answer(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        encode(kind, &[payload], &mut frame).map_err(io::Error::other)?;
        self.socket.write_all(&frame)
    }
}

fn obey(socket: UnixStream) -> io::Result<()> {
    let mut orders = Orders {
        socket,
        decoder: Decoder::new(Reader::Group),
        descriptor: None,
    };
    let Some(frame) = orders.next()? else {
        return Ok(());
    };
    if frame.kind != Kind::Setup {
        return Err(io::Error::other(unexpected(&frame)));
    }
    let setup: Setup = serde_json::from_slice(&frame.payload)?;
    let code = orders.descriptor.take();
    let (engine, runtime, confined) = match set_up(&setup, code) {
        Ok(ready) => ready,
        Err(why) => return orders.answer(Kind::Unfit, why.chars().take(1000).collect::<String>().as_bytes()),
    };
    let world = Arc::new(World {
        engine,
        apps: Mutex::default(),
    });
    orders.answer(Kind::Ready, &serde_json::to_vec(&confined)?)?;
    while let Some(frame) = orders.next()? {
        match frame.kind {
            Kind::Ping => orders.answer(Kind::Pong, &[])?,
            Kind::Open => {
                // It may have come along with what was said before.
                let socket = orders.descriptor.take();
                let socket = socket.ok_or_else(|| io::Error::other("a conversation without a socket"))?;
                let world = Arc::clone(&world);
                // What goes wrong in a conversation ends it, which tells the server.
                runtime.spawn(async move { converse(world, socket.into()).await });
            }
            _ => return Err(io::Error::other(unexpected(&frame))),
        }
    }
    // Running guests end with the process: nobody is there to take what they say.
    process::exit(0)
}

/// Confines the process and starts what it needs to run guests. An error is in words for the log.
fn set_up(setup: &Setup, code: Option<OwnedFd>) -> Result<(Engine, Runtime, Confined), String> {
    // A core file would hold the tenants' memory.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| format!("cannot do without core files: {error}"))?;
    if let Some(user) = setup.user {
        check_user(user)?;
    }
    open_pagemap();
    for folder in [&setup.cache, &setup.temp] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| {
            let folder = folder.display();
            match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "cannot use {folder}: {error}; its user must be able to pass through the folders above, \
                     XDG_CACHE_HOME names others"
                ),
                _ => format!("cannot use {folder}: {error}"),
            }
        })?;
    }
    let own = |path: &std::path::Path, write| Folder {
        path: path.to_owned(),
        write,
    };
    let mut folders = vec![
        own(&setup.python.wasm, false),
        own(&setup.python.lib, false),
        own(&setup.cache, true),
        own(&setup.temp, true),
    ];
    folders.extend_from_slice(&setup.folders);
    let landlock = confine(&folders, setup.require_landlock).map_err(|error| error.to_string())?;
    let engine = match code {
        Some(code) => Engine::with_code(&setup.python, &setup.cache, code.into()),
        None => Engine::new(&setup.python, &setup.cache, &mut |line| eprintln!("{line}")),
    };
    let engine = engine.map_err(|error| chain(&error))?;
    let cores = available_parallelism().map_or(1, |count| count.get());
    let runtime = Builder::new_multi_thread()
        .thread_name("guests")
        .worker_threads(cores + SPARE)
        .event_interval(TIMER_INTERVAL)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    // Meant for the server, where a terminal or a service manager sends them to both: this process ends when that does.
    let _inside = runtime.enter();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        let _ = signal(kind).map_err(|error| format!("cannot take signals: {error}"))?;
    }
    Ok((engine, runtime, Confined { landlock }))
}

/// Sees that nothing is left of the server's user.
fn check_user(user: User) -> Result<(), String> {
    let system = |error: nix::Error| format!("cannot tell its user: {error}");
    let (uids, gids) = (getresuid().map_err(system)?, getresgid().map_err(system)?);
    let uids = [uids.real, uids.effective, uids.saved].map(Uid::as_raw);
    let gids = [gids.real, gids.effective, gids.saved].map(Gid::as_raw);
    let groups = getgroups().map_err(system)?;
    match uids == [user.uid; 3] && gids == [user.gid; 3] && groups.iter().all(|gid| gid.as_raw() == user.gid)
    {
        true => Ok(()),
        false => Err(format!(
            "it has users {uids:?}, groups {gids:?} and {groups:?}, not {user:?} alone"
        )),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// What all conversations share.
struct World {
    engine: Engine,
    apps: Mutex<HashMap<u64, Hosted>>,
}

#[derive(Clone)]
pub(crate) struct Hosted {
    pub(crate) app: App,
    pub(crate) isolation: Isolation,
    pub(crate) verify_rewind: bool,
    /// By their ids.
    running: Arc<Mutex<HashMap<String, Arc<Track>>>>,
}

impl Hosted {
    pub(crate) fn running(&self) -> MutexGuard<'_, HashMap<String, Arc<Track>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self, id: &[u8]) {
        // It may be over.
        if let Some(track) = str::from_utf8(id)
            .ok()
            .and_then(|id| self.running().get(id).cloned())
        {
            track.kill();
        }
    }
}

impl World {
    fn apps(&self) -> MutexGuard<'_, HashMap<u64, Hosted>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn app(&self, frame: &Frame) -> Result<Hosted, Lost> {
        let app = take_number(&frame.payload).and_then(|(number, _)| self.apps().get(&number).cloned());
        app.ok_or_else(|| unexpected(frame))
    }
}

async fn converse(world: Arc<World>, socket: UnixStream) {
    let talk = async {
        let mut conversation = Conversation::new(socket, Reader::Group)?;
        let frame = conversation.frame().await?;
        match frame.kind {
            Kind::App => know(&world, conversation, &frame).await,
            Kind::Prepare => prepare(world.app(&frame)?, conversation).await,
            Kind::Start => start(world.app(&frame)?, conversation).await,
            _ => Err(unexpected(&frame)),
        }
    };
    if let Err(Lost::Broken(what)) = talk.await {
        eprintln!("{what}");
    }
}

/// Has an app for as long as the server keeps the conversation, and sends what it logs.
async fn know(world: &World, mut conversation: Conversation, frame: &Frame) -> Result<(), Lost> {
    let (number, spec) = take_number(&frame.payload).ok_or_else(|| unexpected(frame))?;
    let Known { spec, verify_rewind } = serde_json::from_slice(spec)?;
    let (sender, mut lines) = mpsc::channel(LINES);
    let log = Arc::new(Lines {
        sender,
        lost: AtomicU64::new(0),
        repeats: Mutex::default(),
    });
    let isolation = spec.isolation;
    let hosted = Hosted {
        app: world.engine.app(spec, log.clone()),
        isolation,
        verify_rewind,
        running: Arc::default(),
    };
    world.apps().insert(number, hosted.clone());
    let talk = async {
        conversation.put(Kind::Known, &[])?;
        let mut minutes = interval(COUNTED);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            conversation.flush().await?;
            tokio::select! {
                frame = conversation.frame() => match frame? {
                    frame if frame.kind == Kind::Kill => hosted.kill(&frame.payload),
                    frame => return Err(unexpected(&frame)),
                },
                _ = minutes.tick() => {
                    for line in log.repeats().report(Instant::now()) {
                        put_line(&mut conversation, None, &line)?;
                    }
                }
                line = lines.recv() => {
                    let Some((request, text)) = line else { return Ok(()) };
                    put_line(&mut conversation, request.as_deref(), &text)?;
                    let lost = log.lost.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        put_line(&mut conversation, None, &format!("{lost} lines came too fast and are lost"))?;
                    }
                }
            }
        }
    };
    let talked = talk.await;
    world.apps().remove(&number);
    if !matches!(talked, Err(Lost::Ended)) {
        return talked;
    }
    // What was said until then is still to be told: the traceback of a load that failed.
    while let Ok((request, text)) = lines.try_recv() {
        put_line(&mut conversation, request.as_deref(), &text)?;
    }
    timeout(LAST_LINES, conversation.flush()).await.unwrap_or(Ok(()))
}

fn put_line(conversation: &mut Conversation, request: Option<&str>, text: &str) -> Result<(), Lost> {
    let request = request.unwrap_or_default().as_bytes();
    let request = &request[..request.len().min(255)];
    conversation.put(Kind::Line, &[&[request.len() as u8], request, text.as_bytes()])
}

/// The lines of an app on their way to the server. Whoever says something does not wait for it.
struct Lines {
    sender: mpsc::Sender<(Option<String>, String)>,
    lost: AtomicU64,
    repeats: Mutex<Repeats>,
}

impl Lines {
    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AppLog for Lines {
    fn line(&self, request: Option<&str>, text: &str) {
        let line = (request.map(str::to_owned), text.to_owned());
        if self.sender.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_news(&self, request: Option<&str>, failure: &str) -> bool {
        self.repeats().take(failure, request, Instant::now()) == News::Whole
    }
}

async fn prepare(hosted: Hosted, mut conversation: Conversation) -> Result<(), Lost> {
    match hosted.app.prepare().await {
        Ok(()) => conversation.put(Kind::Prepared, &[])?,
        Err(error) => conversation.put(Kind::NotStarted, &[words(&error).as_bytes()])?,
    }
    conversation.flush().await
}

async fn start(hosted: Hosted, mut conversation: Conversation) -> Result<(), Lost> {
    match hosted.app.start().await {
        Ok(instance) => {
            let is_copy = instance.is_copy();
            let cpu_wait = hosted.app.cpu_wait();
            conversation.put_json(Kind::Started, &Started { is_copy, cpu_wait })?;
            conversation.flush().await?;
            served::handle_all(&hosted, instance, conversation).await
        }
        Err(error) => {
            conversation.put(Kind::NotStarted, &[words(&error).as_bytes()])?;
            conversation.flush().await
        }
    }
}

/// An error as a frame has room for it.
fn words(error: &dyn std::error::Error) -> String {
    chain(error).chars().take(4000).collect()
}
