//! Copies of a snapshot, and going back to it.

use wasgi_engine::RewindError;

use crate::site::*;

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

/// Takes some memory of all kinds.
const MESSAGES: &str = r#"
import email.message, html, json, string, urllib.parse

def app(environ, start_response):
    message = email.message.EmailMessage()
    message["Subject"] = "hello"
    message.set_content("There!")
    query = urllib.parse.parse_qs("a=1&b=2&c=%C3%A9")
    text = json.dumps({"message": message.as_string(), "query": query}, indent=1)
    of_each_size = [bytes(size) for size in range(0, 480, 8)]
    start_response("200 OK", [])
    return [string.Template("<p>$text").substitute(text=html.escape(text)).encode()]
"#;

#[tokio::test]
async fn a_request_writes_to_few_pages() {
    let site = site(MESSAGES, |spec| spec.warmup = vec!["/".into()]);
    let mut instance = site.app.start().await.expect("starts");
    let mut pages = None;
    for _ in 0..3 {
        ask(&mut instance, "/").await;
        pages = instance.rewind(true).await.expect("rewinds").pages;
    }
    // Of 4 KiB; `None` where the kernel does not tell.
    assert!(pages.is_none_or(|pages| pages <= 80), "{pages:?} pages");
}

#[tokio::test]
async fn a_copy_has_what_a_request_writes_before_it_comes() {
    for (warmup, most) in [(vec!["/".into()], 12), (vec![], usize::MAX)] {
        let site = site(MESSAGES, |spec| spec.warmup = warmup);
        let mut instance = site.app.start().await.expect("starts");
        let before = instance.memory();
        ask(&mut instance, "/").await;
        let taken = (instance.memory() - before) as usize / 4096;
        // Where the kernel does not tell, nothing is found in either case.
        assert!(taken <= most, "{taken} more pages");
        assert!(
            most < usize::MAX || taken == 0 || taken > 20,
            "{taken} pages without a warm-up"
        );
    }
}

#[tokio::test]
async fn memory_of_every_size_keeps_its_contents() {
    // Grows, shrinks and frees what it holds at random, until that is more than has a place of its own.
    let code = r#"
import random

def app(environ, start_response):
    chosen = random.Random(7)
    held = {}
    for step in range(60_000):
        key = chosen.randrange(3_000)
        size = chosen.choice((chosen.randrange(40), chosen.randrange(600), chosen.randrange(9_000)))
        match chosen.randrange(4):
            case 0:
                held.pop(key, None)
            case 1:
                held[key] = (bytes([key % 251]) * size, size)
            case 2:
                if key in held and isinstance(held[key][0], bytearray):
                    buffer, old = held[key]
                    del buffer[size:]
                    buffer.extend(bytes([key % 251]) * (size - len(buffer)))
                    held[key] = (buffer, size)
                else:
                    held[key] = (bytearray([key % 251]) * size, size)
            case 3:
                held[key] = ([key % 251] * (size // 4), size // 4)
    broken = [key for key, (data, size) in held.items() if len(data) != size or data.count(key % 251) != size]
    start_response("200 OK", [])
    return [f"{len(held) > 1000} {broken}".encode()]
"#;
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    for _ in 0..2 {
        assert_eq!(ask(&mut instance, "/").await, "True []");
        match instance.rewind(true).await {
            Ok(_) => {}
            Err(RewindError::Grown(_)) => instance = site.app.start().await.expect("starts"),
            Err(error) => panic!("{error}"),
        }
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
async fn fork_handlers_of_the_app_run_in_each_copy() {
    let code = r#"
import concurrent.futures.thread, logging, multiprocessing, os, random, threading
import wasgi

seen = []
# What concurrent.futures would clear in a forked child.
queues = concurrent.futures.thread._threads_queues
queues[threading.current_thread()] = 1

@wasgi.after_restore
def hook():
    seen.append("restored")

os.register_at_fork(before=lambda: seen.append("before"), after_in_child=lambda: seen.append("first"))
os.register_at_fork(after_in_parent=lambda: seen.append("parent"))
os.register_at_fork(after_in_child=lambda: seen.append("second"))

def app(environ, start_response):
    start_response("200 OK", [])
    return [",".join([*seen, str(len(queues))]).encode()]
"#;
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    assert_eq!(ask(&mut instance, "/").await, "first,second,restored,1");
    instance.rewind(true).await.expect("rewinds");
    assert_eq!(ask(&mut instance, "/").await, "first,second,restored,1");
}

#[tokio::test]
async fn a_fork_handler_that_raises_ends_the_start() {
    let code = r#"
import os

def reconnect():
    raise RuntimeError("nobody there")

os.register_at_fork(after_in_child=reconnect)
app = print
"#;
    let site = site(code, |_| ());
    let error = site.app.start().await.err().expect("refused").to_string();
    assert_eq!(error, "the app cannot be loaded: RuntimeError: nobody there");
    let log = site.log.text();
    assert!(
        log.contains("Traceback") && log.contains("line 5, in reconnect"),
        "{log}"
    );
}

#[tokio::test]
async fn register_at_fork_takes_what_cpythons_takes() {
    let code = r#"
import logging, os, threading

problems = []
for arguments in ({}, {"before": None}, {"after_in_child": 1}, {"after_in_parent": "x"}, {"other": print}):
    try:
        os.register_at_fork(**arguments)
    except TypeError as error:
        problems.append(str(error))
problems[-1] = problems[-1].partition("() ")[2]

# Nothing forks, and gevent and its kin must not believe it; locks can be made anew nonetheless.
locks = [threading.Lock(), threading.RLock(), threading._PyRLock(), threading.Condition(), logging.Handler().lock]
for lock in locks:
    lock.acquire()
    lock._at_fork_reinit()
free = [lock.acquire(False) for lock in locks]

def app(environ, start_response):
    start_response("200 OK", [])
    return ["\n".join([*problems, str(hasattr(os, "fork")), str(free)]).encode()]
"#;
    let site = site(code, |_| ());
    let mut instance = site.app.start().await.expect("starts");
    let expected = "At least one argument is required.
'before' must be callable, not NoneType
'after_in_child' must be callable, not int
'after_in_parent' must be callable, not str
got an unexpected keyword argument 'other'
False
[True, True, True, True, True]";
    assert_eq!(ask(&mut instance, "/").await, expected);
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
