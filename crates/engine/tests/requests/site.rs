//! An app in a folder of its own, clients made of values, and what they saw.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasgi_engine::{
    App, AppLog, AppSpec, BodyError, Engine, Entry, Failure, FilePart, Instance, Isolation, Limits, Mount,
    PeerGone, PythonFiles, Quota, ReplyHead, ReplySink, Report, Request, RequestBody,
};

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let make = || {
        let python = PythonFiles::open(&target.join("python")).expect("`make python` has built the guest");
        Engine::new(&python, &target.join("test-cache"), &mut |_| ()).expect("engine")
    };
    ENGINE.get_or_init(make).clone()
}

#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>, Mutex<Vec<String>>, AtomicBool);

impl Log {
    /// No failure is news from now on.
    pub(crate) fn forget_news(&self) {
        self.2.store(true, Ordering::Relaxed);
    }

    /// The names of failures so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.1.lock().expect("log").clone()
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("log").join("\n")
    }
}

impl AppLog for Log {
    fn is_news(&self, _: Option<&str>, failure: &str) -> bool {
        self.1.lock().expect("log").push(failure.to_owned());
        !self.2.load(Ordering::Relaxed)
    }

    fn line(&self, request: Option<&str>, text: &str) {
        self.0
            .lock()
            .expect("log")
            .push(format!("{}: {text}", request.unwrap_or("-")));
    }
}

/// A body that gives its pieces, then is at its end, or waits for ever.
pub(crate) struct Body {
    pub(crate) pieces: VecDeque<Result<&'static [u8], BodyError>>,
    pub(crate) endless: bool,
}

impl RequestBody for Body {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(piece.map(Bytes::from_static))),
            None if self.endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

pub(crate) fn body(pieces: &[&'static str]) -> Body {
    Body {
        pieces: pieces.iter().map(|piece| Ok(piece.as_bytes())).collect(),
        endless: false,
    }
}

/// What a client would have seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) head: Option<ReplyHead>,
    pub(crate) chunks: Vec<(Bytes, bool)>,
    pub(crate) finished: bool,
    pub(crate) failure: Option<(Failure, Instant)>,
}

/// A client that takes `room` chunks, then is gone or waits for ever.
pub(crate) struct Client {
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) room: usize,
    pub(crate) then: Poll<Result<(), PeerGone>>,
    pub(crate) waker: Option<Waker>,
}

impl ReplySink for Client {
    fn head(&mut self, head: ReplyHead) {
        assert!(
            self.seen.lock().expect("seen").head.replace(head).is_none(),
            "two heads"
        );
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        if self.room == 0 {
            self.waker = Some(cx.waker().clone());
            return self.then;
        }
        self.room -= 1;
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, data: Bytes, last: bool) {
        assert!(!data.is_empty(), "an empty chunk");
        self.seen.lock().expect("seen").chunks.push((data, last));
    }

    fn file(&mut self, part: FilePart) {
        let mut data = vec![0; part.length as usize];
        part.file
            .read_exact_at(&mut data, part.offset)
            .expect("a file that long");
        self.chunk(data.into(), true);
    }

    fn finish(&mut self) {
        assert!(
            !std::mem::replace(&mut self.seen.lock().expect("seen").finished, true),
            "finished twice"
        );
    }

    fn fail(&mut self, failure: Failure) {
        let mut seen = self.seen.lock().expect("seen");
        assert!(!seen.finished, "failed after it was finished");
        assert!(
            seen.failure.replace((failure, Instant::now())).is_none(),
            "failed twice"
        );
    }
}

pub(crate) fn environ(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
        block.extend((part.len() as u16).to_le_bytes());
        block.extend(part.as_bytes());
    }
    block
}

pub(crate) struct Site {
    pub(crate) app: App,
    pub(crate) log: Arc<Log>,
    pub(crate) _folder: tempfile::TempDir,
}

/// An app whose `app.py` is `code`.
pub(crate) fn site(code: &str, change: impl FnOnce(&mut AppSpec)) -> Site {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("app.py"), code).expect("app.py");
    let mut spec = AppSpec {
        name: "test".into(),
        entry: Entry::Module {
            module: "app".into(),
            callable: "app".into(),
        },
        sys_path: vec!["/app".into()],
        site_dirs: vec![],
        mounts: vec![Mount {
            host: PathBuf::from(folder.path()),
            guest: "/app".into(),
            write: false,
            quota: Quota::default(),
        }],
        env: vec![],
        secrets: vec![],
        working_dir: "/app".into(),
        isolation: Isolation::Request,
        warmup: vec![],
        snapshot_cache: false,
        weight: 100,
        limits: Limits {
            grace: Duration::from_millis(500),
            ..Limits::default()
        },
    };
    change(&mut spec);
    let log = Arc::new(Log::default());
    let app = engine().app(spec, log.clone());
    Site {
        app,
        log,
        _folder: folder,
    }
}

pub(crate) fn time(limit: Duration) -> impl FnOnce(&mut AppSpec) {
    move |spec| spec.limits.time = limit
}

impl Site {
    /// One request to a new instance.
    pub(crate) async fn request(
        &self,
        body: Body,
        room: usize,
        then: Poll<Result<(), PeerGone>>,
    ) -> (Report, Seen) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reply = Client {
            seen: seen.clone(),
            room,
            then,
            waker: None,
        };
        let request = Request::new(
            environ(&[("REQUEST_METHOD", "POST"), ("PATH_INFO", "/é")]),
            "r1".into(),
            Box::new(body),
            Box::new(reply),
        );
        let mut instance = self.app.start().await.expect("starts");
        let report = instance.handle(request).await;
        drop(instance);
        let seen = Arc::into_inner(seen)
            .expect("the reply is dropped")
            .into_inner()
            .expect("seen");
        (report, seen)
    }
}

pub(crate) const WAITS: Poll<Result<(), PeerGone>> = Poll::Pending;
pub(crate) const GONE: Poll<Result<(), PeerGone>> = Poll::Ready(Err(PeerGone));

/// A request for `path`, to a client with room for any reply.
pub(crate) fn get(path: &str, seen: &Arc<Mutex<Seen>>) -> Request {
    let reply = Client {
        seen: seen.clone(),
        room: 99,
        then: WAITS,
        waker: None,
    };
    Request::new(
        environ(&[("PATH_INFO", path)]),
        "r1".into(),
        Box::new(body(&[])),
        Box::new(reply),
    )
}

/// One request to an instance that is there already; its whole body.
pub(crate) async fn ask(instance: &mut Instance, path: &str) -> String {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let report = instance.handle(get(path, &seen)).await;
    assert!(report.reusable, "{report:?}");
    let seen = seen.lock().expect("seen");
    assert!(seen.finished, "{:?}", seen.failure);
    text(&seen)
}

pub(crate) fn text(seen: &Seen) -> String {
    seen.chunks
        .iter()
        .map(|(data, _)| String::from_utf8_lossy(data).into_owned())
        .collect()
}
