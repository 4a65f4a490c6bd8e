//! Requests through the real guest, without a server around it: `make python` must have built it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasgi_engine::{
    App, AppLog, AppSpec, BodyError, Engine, Entry, Failure, Instance, Isolation, Limits, Mount, PeerGone,
    PythonFiles, ReplyHead, ReplySink, Report, Request, RequestBody, RewindError, StartError,
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
struct Log(Mutex<Vec<String>>);

impl Log {
    fn text(&self) -> String {
        self.0.lock().expect("log").join("\n")
    }
}

impl AppLog for Log {
    fn line(&self, request: Option<&str>, text: &str) {
        self.0
            .lock()
            .expect("log")
            .push(format!("{}: {text}", request.unwrap_or("-")));
    }
}

/// A body that gives its pieces, then is at its end, or waits for ever.
struct Body {
    pieces: VecDeque<Result<&'static [u8], BodyError>>,
    endless: bool,
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

fn body(pieces: &[&'static str]) -> Body {
    Body {
        pieces: pieces.iter().map(|piece| Ok(piece.as_bytes())).collect(),
        endless: false,
    }
}

/// What a client would have seen.
#[derive(Default)]
struct Seen {
    head: Option<ReplyHead>,
    chunks: Vec<(Bytes, bool)>,
    finished: bool,
    failure: Option<(Failure, Instant)>,
}

/// A client that takes `room` chunks, then is gone or waits for ever.
struct Client {
    seen: Arc<Mutex<Seen>>,
    room: usize,
    then: Poll<Result<(), PeerGone>>,
    waker: Option<Waker>,
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

fn environ(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
        block.extend((part.len() as u16).to_le_bytes());
        block.extend(part.as_bytes());
    }
    block
}

struct Site {
    app: App,
    log: Arc<Log>,
    _folder: tempfile::TempDir,
}

/// An app whose `app.py` is `code`.
fn site(code: &str, change: impl FnOnce(&mut AppSpec)) -> Site {
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
        }],
        env: vec![],
        working_dir: "/app".into(),
        isolation: Isolation::Request,
        warmup: vec![],
        limits: Limits {
            grace: Duration::from_millis(500),
            ..Limits::default()
        },
    };
    change(&mut spec);
    let log = Arc::new(Log::default());
    let app = engine().app(spec, log.clone()).expect("app");
    Site {
        app,
        log,
        _folder: folder,
    }
}

fn time(limit: Duration) -> impl FnOnce(&mut AppSpec) {
    move |spec| spec.limits.time = limit
}

impl Site {
    /// One request to a new instance.
    async fn request(&self, body: Body, room: usize, then: Poll<Result<(), PeerGone>>) -> (Report, Seen) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reply = Client {
            seen: seen.clone(),
            room,
            then,
            waker: None,
        };
        let request = Request {
            environ: environ(&[("REQUEST_METHOD", "POST"), ("PATH_INFO", "/é")]),
            id: "r1".into(),
            body: Box::new(body),
            reply: Box::new(reply),
        };
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

const WAITS: Poll<Result<(), PeerGone>> = Poll::Pending;
const GONE: Poll<Result<(), PeerGone>> = Poll::Ready(Err(PeerGone));

#[tokio::test]
async fn a_reply_of_one_piece_is_known_to_be_whole() {
    let site = site(
        r#"
def app(environ, start_response):
    body = ascii(environ["PATH_INFO"]).encode()
    start_response("201 Created", [("X-A", "1")])
    return [body]
"#,
        |_| (),
    );
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert!(report.reusable, "{report:?}");
    let head = seen.head.expect("head");
    assert_eq!((head.status, &head.reason[..]), (201, &b"Created"[..]));
    assert_eq!(head.headers, [(Bytes::from("X-A"), Bytes::from("1"))]);
    assert_eq!(
        seen.chunks,
        [(Bytes::from(r"'/\xc3\xa9'"), true)],
        "latin-1 native strings"
    );
    assert!(seen.finished);
}

#[tokio::test]
async fn pieces_go_out_as_they_are_made_and_the_body_is_read_as_it_comes() {
    let site = site(
        r#"
def app(environ, start_response):
    start_response("200 OK", [])
    yield b""
    for line in environ["wsgi.input"]:
        yield b"<" + line + b">"
"#,
        |_| (),
    );
    let (_, seen) = site.request(body(&["one\ntw", "o\nthree"]), 99, WAITS).await;
    let chunks: Vec<_> = seen.chunks.iter().map(|(data, _)| &data[..]).collect();
    assert_eq!(chunks, [&b"<one\n>"[..], b"<two\n>", b"<three>"]);
    assert!(seen.finished);
}

#[tokio::test]
async fn close_is_called_when_the_client_has_gone_away_and_nothing_is_logged_as_an_error() {
    let site = site(
        r#"
class Reply:
    def __iter__(self):
        while True:
            yield b"x"
    def close(self):
        print("closed")

def app(environ, start_response):
    start_response("200 OK", [])
    return Reply()
"#,
        |_| (),
    );
    let (report, seen) = site.request(body(&[]), 2, GONE).await;
    assert!(report.reusable, "{report:?}");
    assert_eq!(seen.chunks.len(), 2);
    assert_eq!(site.log.text(), "r1: closed");
}

#[tokio::test]
async fn a_failed_body_is_an_oserror_in_python_and_the_client_is_told_at_once() {
    let site = site(
        r#"
def app(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        print("got", type(error).__name__, error.errno)
    start_response("200 OK", [])
    return [b"too late"]
"#,
        |_| (),
    );
    for (error, words) in [
        (BodyError::TooLarge, "got OSError 22"),
        (BodyError::TimedOut, "got TimeoutError 73"),
        (BodyError::PeerGone, "got BrokenPipeError 64"),
    ] {
        let pieces = [Ok(&b"some"[..]), Err(error)].into();
        let (report, seen) = site
            .request(
                Body {
                    pieces,
                    endless: false,
                },
                9,
                WAITS,
            )
            .await;
        assert!(report.reusable, "{report:?}");
        assert_eq!(seen.failure.expect("failure").0, Failure::Body(error));
        assert!(seen.head.is_none());
        assert!(site.log.text().contains(words), "{}", site.log.text());
    }
}

/// The client hears at the limit, not after the grace; Python says where it was.
async fn assert_time_limit(code: &str, where_it_was: &str, body: Body, room: usize) {
    let limit = Duration::from_millis(300);
    let site = site(code, time(limit));
    // The instance's own start takes its time before the request's begins.
    let started = Instant::now();
    site.app.start().await.expect("starts");
    let start_up = started.elapsed();
    let begun = Instant::now();
    let (report, seen) = site.request(body, room, WAITS).await;
    let (failure, at) = seen.failure.expect("failure");
    assert_eq!(failure, Failure::TimeLimit);
    assert!(at - begun >= limit, "answered before the limit: {:?}", at - begun);
    let late = (at - begun).saturating_sub(start_up + limit);
    assert!(
        late < Duration::from_millis(300),
        "answered {late:?} after the limit"
    );
    assert!(!report.reusable);
    assert_eq!(report.why_not.as_deref(), Some("time limit of 300ms reached"));
    let log = site.log.text();
    assert!(log.contains(where_it_was) && log.contains("TimeLimit"), "{log}");
    assert!(log.contains("r1: unwound"), "{log}");
}

fn unwinding(statement: &str) -> String {
    format!(
        r#"
import time
def app(environ, start_response):
    start_response("200 OK", [])
    try:
        {statement}
    finally:
        print("unwound")
"#
    )
}

#[tokio::test]
async fn an_endless_loop_meets_the_time_limit() {
    assert_time_limit(&unwinding("while True: pass"), "while True: pass", body(&[]), 9).await;
}

#[tokio::test]
async fn a_sleeper_meets_the_time_limit() {
    assert_time_limit(&unwinding("time.sleep(1e6)"), "time.sleep(1e6)", body(&[]), 9).await;
}

#[tokio::test]
async fn a_wait_for_the_body_meets_the_time_limit() {
    let waits = Body {
        pieces: VecDeque::new(),
        endless: true,
    };
    assert_time_limit(
        &unwinding("environ['wsgi.input'].read()"),
        "environ['wsgi.input'].read()",
        waits,
        9,
    )
    .await;
}

#[tokio::test]
async fn a_wait_for_a_slow_client_meets_the_time_limit() {
    assert_time_limit(
        &unwinding("while True: yield b'x'"),
        "_wasgi.reply_body",
        body(&[]),
        3,
    )
    .await;
}

#[tokio::test]
async fn what_ignores_the_exception_is_stopped_after_the_grace() {
    let code = unwinding("sum(range(10**12))");
    let site = site(&code, time(Duration::from_millis(200)));
    let begun = Instant::now();
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    let ended = begun.elapsed();
    assert_eq!(seen.failure.expect("failure").0, Failure::TimeLimit);
    assert!(!report.reusable);
    assert!(ended >= Duration::from_millis(700), "{ended:?}");
    assert!(!site.log.text().contains("unwound"), "{}", site.log.text());
}

#[tokio::test]
async fn a_sleeper_that_swallows_the_exception_is_stopped_after_the_grace() {
    let code = "
import time
def app(environ, start_response):
    while True:
        try:
            time.sleep(1e6)
        except BaseException as error:
            print('swallowed', type(error).__name__)
";
    let site = site(code, time(Duration::from_millis(200)));
    let (report, _) = site.request(body(&[]), 9, WAITS).await;
    assert!(!report.reusable);
    assert_eq!(site.log.text(), "r1: swallowed TimeLimit");
}

#[tokio::test]
async fn an_endless_loop_leaves_its_thread_to_others() {
    let busy = site(
        "def app(e, s):\n    while True: pass\n",
        time(Duration::from_millis(500)),
    );
    let quick = site("def app(e, s):\n    s('200 OK', [])\n    return [b'x']\n", |_| ());
    // One thread for both: the second gets its turn only if the first gives it up.
    let ((_, busy), (at, quick)) = tokio::join!(busy.request(body(&[]), 9, WAITS), async {
        let (_, seen) = quick.request(body(&[]), 9, WAITS).await;
        (Instant::now(), seen)
    });
    assert!(quick.finished);
    let (failure, failed_at) = busy.failure.expect("failure");
    assert_eq!(failure, Failure::TimeLimit);
    assert!(at < failed_at, "the neighbour waited for the endless loop");
}

#[tokio::test]
async fn memory_stops_at_its_limit_and_python_knows() {
    let code = "
def app(environ, start_response):
    hoard = []
    try:
        while True:
            hoard.append(bytes(1 << 20))
    except MemoryError:
        held = len(hoard)
        del hoard
        print('held', held)
        raise
";
    let site = site(code, |spec| spec.limits.memory = 64 << 20);
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert_eq!(seen.failure.expect("failure").0, Failure::App);
    assert_eq!(report.why_not.as_deref(), Some("memory limit of 64 MiB reached"));
    assert!(report.memory <= 64 << 20, "{}", report.memory);
    let log = site.log.text();
    let held: usize = log
        .split("held ")
        .nth(1)
        .and_then(|it| it.lines().next())
        .expect("held")
        .parse()
        .expect("number");
    assert!((20..64).contains(&held), "{held}");
    assert!(log.contains("MemoryError"), "{log}");
}

#[tokio::test]
async fn an_app_that_ends_its_interpreter_ends_only_itself() {
    let site = site("import os\ndef app(e, s):\n    os._exit(3)\n", |_| ());
    let (report, seen) = site.request(body(&[]), 9, WAITS).await;
    assert_eq!(seen.failure.expect("failure").0, Failure::Exited(3));
    assert_eq!(
        report.why_not.as_deref(),
        Some("the app ended its interpreter with exit code 3")
    );
}

#[tokio::test]
async fn wsgi_input_kept_over_the_end_of_its_request_reads_nothing_of_the_next() {
    let code = "
kept = []
def app(environ, start_response):
    start_response('200 OK', [])
    kept.append(environ['wsgi.input'])
    return [kept[0].read() or b'nothing']
";
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    let mut replies = Vec::new();
    for text in ["first", "second"] {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reply = Client {
            seen: seen.clone(),
            room: 9,
            then: WAITS,
            waker: None,
        };
        let request = Request {
            environ: environ(&[("PATH_INFO", "/")]),
            id: text.into(),
            body: Box::new(body(&[text])),
            reply: Box::new(reply),
        };
        assert!(instance.handle(request).await.reusable);
        replies.push(seen.lock().expect("seen").chunks[0].0.clone());
    }
    assert_eq!(replies, ["first", "nothing"]);
}

/// One request to an instance that is there already; its whole body.
async fn ask(instance: &mut Instance, path: &str) -> String {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let reply = Client {
        seen: seen.clone(),
        room: 99,
        then: WAITS,
        waker: None,
    };
    let request = Request {
        environ: environ(&[("PATH_INFO", path)]),
        id: "r1".into(),
        body: Box::new(body(&[])),
        reply: Box::new(reply),
    };
    let report = instance.handle(request).await;
    assert!(report.reusable, "{report:?}");
    let seen = seen.lock().expect("seen");
    assert!(seen.finished, "{:?}", seen.failure);
    seen.chunks
        .iter()
        .map(|(data, _)| String::from_utf8_lossy(data).into_owned())
        .collect()
}

/// Leaves something behind in every place it can think of, and tells what it finds there.
const TRACES: &str = r#"
import functools, gc, json, os, random, re, sys, tempfile, uuid, warnings, zlib

count = 0
cache = {}
big = []

@functools.lru_cache
def cached(key):
    return object()

def app(environ, start_response):
    global count
    count += 1
    found = [count, len(cache), hasattr(json, "canary"), cached.cache_info().currsize, "late" in sys.modules,
             len(big), os.path.exists("/tmp/canary"), os.getcwd(), "CANARY" in os.environ, sys.getrecursionlimit()]
    cache[count] = b"x" * 100_000
    json.canary = True
    cached(count)
    sys.modules["late"] = sys
    big.append([object() for _ in range(5_000)])
    os.makedirs("/tmp/canary", exist_ok=True)
    open("/tmp/canary/file", "w").write("x")
    left = open("/tmp/left", "w")
    big.append(left)
    os.chdir("/tmp")
    os.environ["CANARY"] = "1"
    sys.setrecursionlimit(500)
    if environ["PATH_INFO"] == "/close":
        for descriptor in range(64):
            try:
                os.close(descriptor)
            except OSError:
                pass
    start_response("200 OK", [])
    return [repr(found).encode()]
"#;

#[tokio::test]
async fn nothing_of_a_request_is_left_after_a_rewind() {
    let site = site(TRACES, |_| ());
    let fresh = "[1, 0, False, 0, False, 0, False, '/app', False, 1000]";
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(ask(&mut instance, "/").await, fresh);
    assert_ne!(
        ask(&mut instance, "/keep").await,
        fresh,
        "the canaries see nothing at all"
    );
    // The last one leaves nothing open, not even the folders that the next one needs.
    for path in ["/", "/", "/close", "/", "/"] {
        instance.rewind(true).await.expect("rewinds");
        assert_eq!(ask(&mut instance, path).await, fresh, "{path}");
    }
}

#[tokio::test]
async fn a_copy_grows_by_itself_and_does_not_go_back_then() {
    let code = "
hoard = []
def app(environ, start_response):
    hoard.append(bytes(30 << 20))
    start_response('200 OK', [])
    return [str(len(hoard)).encode()]
";
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(ask(&mut instance, "/").await, "1");
    assert!(matches!(instance.rewind(true).await, Err(RewindError::Grown(_))));
    assert_eq!(ask(&mut site.app.start().await.expect("starts"), "/").await, "1");
}

#[tokio::test]
async fn copies_draw_their_own_randomness() {
    let code = r#"
import os, random, sqlite3, tempfile, uuid

own = random.Random(4)
uuid.uuid1()
next(tempfile._get_candidate_names())
sqlite3.connect(":memory:").execute("select random()")

def app(environ, start_response):
    database = sqlite3.connect(":memory:")
    names = [database.execute("select hex(randomblob(8))").fetchone()[0], random.random(), own.random(), uuid.uuid1().hex, uuid.uuid4().hex, random.gauss(0, 1), os.urandom(8).hex(),
             next(tempfile._get_candidate_names()), uuid.getnode()]
    start_response("200 OK", [])
    return [" ".join(map(str, names)).encode()]
"#;
    let site = site(code, |_| ());
    let mut drawn = std::collections::HashSet::new();
    let mut instance = site.app.start().await.expect("starts");
    for round in 0..1000 {
        if round % 100 == 0 {
            instance = site.app.start().await.expect("starts");
        } else {
            instance.rewind(false).await.expect("rewinds");
        }
        for name in ask(&mut instance, "/").await.split(' ') {
            assert!(drawn.insert(name.to_owned()), "{name} drawn twice");
        }
    }
    assert_eq!(drawn.len(), 9 * 1000);
}

#[tokio::test]
async fn hooks_run_in_each_copy() {
    let code = r#"
import wasgi

seen = []

@wasgi.after_restore
def hook():
    seen.append("restored")

def app(environ, start_response):
    start_response("200 OK", [])
    return [",".join(seen).encode()]
"#;
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(ask(&mut instance, "/").await, "restored");
    instance.rewind(true).await.expect("rewinds");
    assert_eq!(ask(&mut instance, "/").await, "restored");
}

#[tokio::test]
async fn an_app_with_a_file_open_is_not_copied_and_its_log_names_the_file() {
    let code = r#"
import atexit
journal = open("/tmp/journal", "a")
def app(environ, start_response):
    journal.write("x")
    start_response("200 OK", [])
    return [b"ok"]
"#;
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    assert!(
        site.log.text().contains("open after import: '/tmp/journal'"),
        "{}",
        site.log.text()
    );
    assert_eq!(ask(&mut instance, "/").await, "ok");
    assert!(matches!(
        instance.rewind(false).await,
        Err(RewindError::NoSnapshot)
    ));
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let refused = |code: &'static str, change: fn(&mut AppSpec)| async move {
        let site = site(code, change);
        let error = site.app.start().await.err().expect("refused");
        (error, site.log.text())
    };
    let (error, log) = refused("import no_such_module", |_| ()).await;
    assert_eq!(
        error.to_string(),
        "the app cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"
    );
    assert!(
        log.contains("File \"/app/app.py\", line 1") && !log.contains("wasgi/start.py"),
        "{log}"
    );

    let (error, _) = refused("application = 1", |_| ()).await;
    assert!(
        error
            .to_string()
            .contains("app has no 'app'; did you mean application?"),
        "{error}"
    );
    let (error, _) = refused("app = 1", |_| ()).await;
    assert!(
        error
            .to_string()
            .contains("'app' of app is a int, not a WSGI callable"),
        "{error}"
    );
    let (error, _) = refused("import sys; sys.exit(4)", |_| ()).await;
    assert!(
        matches!(error, StartError::Import(ref line) if line == "SystemExit: 4"),
        "{error}"
    );
    let (error, _) = refused("import os; os._exit(4)", |_| ()).await;
    assert!(matches!(error, StartError::Exited(4)), "{error}");
    let (error, log) = refused("while True: pass", |spec| {
        spec.limits.start = Duration::from_millis(300)
    })
    .await;
    assert!(matches!(error, StartError::TimeLimit(_)), "{error}");
    assert!(log.contains("while True: pass"), "{log}");
    let (error, _) = refused("x = bytes(1 << 28)", |_| ()).await;
    assert!(matches!(error, StartError::Memory { .. }), "{error}");
    let (error, _) = refused("", |spec| spec.limits.memory = 1 << 20).await;
    assert!(error.to_string().contains("not even Python fits"), "{error}");
}
