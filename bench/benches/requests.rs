//! What a Flask request, a rewind and a new instance cost, without a server around them. `make python packages` must
//! have been run.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use wasgi_engine::{
    App, AppLog, AppSpec, BodyError, Engine, Entry, Failure, FilePart, Instance, Isolation, Limits, Mount,
    PeerGone, PythonFiles, Quota, ReplyHead, ReplySink, Request, RequestBody,
};

const EXPECTED: &[u8] = b"<h1>Hello There!</h1>\n";

struct Silent;

impl AppLog for Silent {
    fn line(&self, _: Option<&str>, text: &str) {
        panic!("the app said: {text}");
    }
}

struct NoBody;

impl RequestBody for NoBody {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(None)
    }
}

/// Takes what comes, and insists that it is right: a fast failure is no figure.
struct Right;

impl ReplySink for Right {
    fn head(&mut self, head: ReplyHead) {
        assert_eq!(head.status, 200);
    }

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerGone>> {
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, data: Bytes, _: bool) {
        assert_eq!(data, EXPECTED);
    }

    fn file(&mut self, _: FilePart) {
        panic!("the app sends no files");
    }

    fn finish(&mut self) {}

    fn fail(&mut self, failure: Failure) {
        panic!("no reply: {failure}");
    }
}

/// `examples/hello`.
fn hello() -> App {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = PythonFiles::open(&root.join("target/python")).expect("`make python` has built the guest");
    let engine = Engine::new(&python, &root.join("target/test-cache"), &mut |_| ()).expect("engine");
    let folder = root.join("examples/hello");
    assert!(
        folder.join("packages/flask").is_dir(),
        "`make packages` has installed Flask"
    );
    let mount = |host: &Path, guest: &str| Mount {
        host: host.to_owned(),
        guest: guest.into(),
        write: false,
        quota: Quota::default(),
    };
    let spec = AppSpec {
        name: "hello".into(),
        entry: Entry::Module {
            module: "hello".into(),
            callable: "app".into(),
        },
        sys_path: vec!["/app".into(), "/packages".into()],
        site_dirs: vec![],
        mounts: vec![
            mount(&folder, "/app"),
            mount(&folder.join("packages"), "/packages"),
        ],
        env: vec![],
        secrets: vec![],
        working_dir: "/app".into(),
        isolation: Isolation::Request,
        // As the comparison has it. Without it each request would import and compile what the first one does.
        warmup: vec!["/".into()],
        snapshot_cache: false,
        weight: 100,
        limits: Limits::default(),
    };
    engine.app(spec, Arc::new(Silent))
}

fn request() -> Request {
    let pairs = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/"),
        ("QUERY_STRING", ""),
        ("REQUEST_URI", "/"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", "54321"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", "8000"),
        ("HTTP_HOST", "127.0.0.1:8000"),
    ];
    let mut environ = Vec::new();
    for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
        environ.extend((part.len() as u16).to_le_bytes());
        environ.extend(part.as_bytes());
    }
    Request::new(environ, "r1".into(), Box::new(NoBody), Box::new(Right))
}

async fn start(app: &App) -> Instance {
    app.start().await.expect("starts")
}

async fn ask(instance: &mut Instance) {
    assert!(black_box(instance.handle(request()).await).reusable);
}

async fn rewind(instance: &mut Instance) {
    black_box(instance.rewind(false).await.expect("rewinds"));
}

fn benches(criterion: &mut Criterion) {
    // As the server's worker: one thread takes an instance through its request.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let app = hello();
    // The first one takes the snapshot.
    let mut instance = runtime.block_on(start(&app));
    runtime.block_on(ask(&mut instance));

    let mut group = criterion.benchmark_group("instance");
    group.measurement_time(Duration::from_secs(8));
    let each = async |times: u64, instance: &mut Instance| {
        let begun = Instant::now();
        for _ in 0..times {
            ask(instance).await;
        }
        begun.elapsed()
    };
    group.bench_function("guest call", |bencher| {
        bencher.iter_custom(|times| runtime.block_on(each(times, &mut instance)));
    });

    // Another one: what the calls without a rewind have written to would be copied back with each from now on.
    let mut instance = runtime.block_on(start(&app));
    group.bench_function("guest call after a rewind", |bencher| {
        bencher.iter_custom(|times| split(&runtime, &mut instance, times).0);
    });
    group.bench_function("rewind", |bencher| {
        bencher.iter_custom(|times| split(&runtime, &mut instance, times).1);
    });

    group.bench_function("start", |bencher| {
        bencher.iter(|| runtime.block_on(start(&app)));
    });
    group.bench_function("first reply", |bencher| {
        bencher.iter_custom(|times| {
            let one = async || {
                let begun = Instant::now();
                let mut instance = start(&app).await;
                ask(&mut instance).await;
                // Dropping it is not on a client's way.
                begun.elapsed()
            };
            (0..times).map(|_| runtime.block_on(one())).sum()
        });
    });
    group.finish();
}

/// Requests, each with a rewind after it: time of the ones, time of the others.
fn split(runtime: &Runtime, instance: &mut Instance, times: u64) -> (Duration, Duration) {
    let mut sums = (Duration::ZERO, Duration::ZERO);
    runtime.block_on(async {
        for _ in 0..times {
            let begun = Instant::now();
            ask(instance).await;
            let answered = Instant::now();
            rewind(instance).await;
            sums.0 += answered - begun;
            sums.1 += answered.elapsed();
        }
    });
    sums
}

criterion_group!(all, benches);
criterion_main!(all);
