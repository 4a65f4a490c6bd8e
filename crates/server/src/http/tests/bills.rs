//! What requests cost, in the access log and in the figures; instances that do not come back from their rewind.

use std::collections::VecDeque;

use tokio::sync::Semaphore;
use wasgi_engine::WhyNot;

use super::*;
use crate::metrics::Dropped;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// An app whose rewinds end as they are told to, when they are told to.
struct Rewinding {
    inner: Closure,
    open: Arc<Semaphore>,
    ends: Arc<Mutex<VecDeque<RewindError>>>,
}

impl Runner for Rewinding {
    type Instance = Handler;
    type Error = io::Error;

    fn name(&self) -> &str {
        "test"
    }

    async fn start(&self) -> io::Result<Handler> {
        self.inner.start().await
    }

    fn is_copy(_: &Handler) -> bool {
        true
    }

    async fn renew(&self, _: &mut Handler) -> Result<Option<Rewound>, RewindError> {
        self.open.acquire().await.unwrap().forget();
        match self.ends.lock().unwrap().pop_front() {
            Some(error) => Err(error),
            None => Ok(Some(Rewound {
                pages: Some(98),
                time: Duration::from_micros(160),
            })),
        }
    }

    async fn handle(instance: &mut Handler, request: Request) -> Report {
        let report = Closure::handle(instance, request).await;
        Report {
            cpu: Duration::from_micros(812),
            memory: 42_880 << 10,
            ..report
        }
    }
}

struct Billed {
    server: Arc<crate::run::Server<Rewinding>>,
    pool: Arc<Pool<Rewinding>>,
    stop: watch::Sender<Option<Ending>>,
    log: Log,
    lines: Lines,
    open: Arc<Semaphore>,
    ends: Arc<Mutex<VecDeque<RewindError>>>,
}

impl Billed {
    async fn new(inner: Closure, workers: u32, format: AccessFormat) -> Self {
        let lines = Lines::default();
        let log = Log::to(Box::new(lines.clone()), format, false).unwrap();
        let (open, ends) = (Arc::new(Semaphore::new(0)), Arc::default());
        let app = Rewinding {
            inner,
            open: Arc::clone(&open),
            ends: Arc::clone(&ends),
        };
        let (workers, budget) = (Workers::always(1, workers), Budget::new(None));
        let limits = Limits::default();
        let pool = Pool::start(
            app,
            workers,
            Wear::default(),
            &limits,
            &budget,
            log.clone(),
            Handle::current(),
        )
        .await
        .unwrap();
        Self {
            server: of_one(Arc::clone(&pool), limits, log.clone()),
            pool,
            stop: watch::channel(None).0,
            log,
            lines,
            open,
            ends,
        }
    }

    fn connect(&self, buffer: usize) -> Client {
        let (stream, server) = duplex(buffer);
        let peer = Peer::tcp("192.0.2.1:4".parse().unwrap(), "127.0.0.1:8000".parse().unwrap());
        tokio::spawn(serve(
            server,
            peer,
            Arc::clone(&self.server),
            self.stop.subscribe(),
        ));
        let read = Vec::new();
        Client { stream, read }
    }

    async fn all(&self, text: &str) -> String {
        let mut client = self.connect(1 << 20);
        client.send(text).await;
        client.rest().await
    }

    fn log(&self) -> String {
        self.log.flush(Duration::from_secs(10));
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

const BILL: &str = " cpu=0.812ms memory=42880KiB pages=98 rewind=0.160ms id=";

#[tokio::test(start_paused = true)]
async fn the_line_waits_for_the_rewind_and_the_peer_does_not() {
    let server = Billed::new(app(|request| request.text("ok")), 2, AccessFormat::CombinedBill).await;
    let mut client = server.connect(1 << 20);
    // The second on the same connection is another worker's: the first has not come back.
    for _ in 0..2 {
        client.send(GET).await;
        assert_eq!(statuses(&client.until("\r\n\r\nok").await), ["200"]);
    }
    assert_eq!(server.log(), "");
    server.open.add_permits(2);
    until(|| server.log().matches(BILL).count() == 2).await;
    let figures = server.pool.figures();
    assert_eq!(
        (
            figures.requests,
            figures.rewinds,
            figures.pages,
            figures.started,
            figures.restored
        ),
        (2, 2, 196, 2, 2)
    );
    assert_eq!(
        (figures.cpu, figures.rewind_time),
        (Duration::from_micros(1624), Duration::from_micros(320))
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slower_than_the_rewind_gets_its_bill_at_its_own_end() {
    let server = Billed::new(
        app(|mut request| async move {
            request.head(200, &[]);
            // More than hyper takes at once, less than what the worker would have to wait for.
            for _ in 0..6 {
                let _ = request.chunk(vec![b'x'; 20 << 10], false).await;
            }
            request.reply.finish();
            reusable()
        }),
        1,
        AccessFormat::CombinedBill,
    )
    .await;
    server.open.add_permits(1);
    let mut client = server.connect(1 << 10);
    client.send(LAST).await;
    until(|| server.pool.figures().rewinds == 1).await;
    assert_eq!(server.log(), "");
    assert_eq!(statuses(&client.rest().await), ["200"]);
    until(|| server.log().contains(BILL)).await;
}

#[tokio::test(start_paused = true)]
async fn who_costs_nothing_and_who_cannot_tell_have_their_line_at_once() {
    let server = Billed::new(
        app(|request| async move {
            match request.environ("PATH_INFO").as_str() {
                "/panic" => panic!("on purpose"),
                _ => request.text("ok").await,
            }
        }),
        1,
        AccessFormat::CombinedBill,
    )
    .await;
    server.all("nonsense\r\n\r\n").await;
    assert!(
        server
            .log()
            .contains("worker=- cpu=- memory=- pages=- rewind=- id="),
        "{}",
        server.log()
    );
    let vanished = server.all(&LAST.replace("GET /", "GET /panic")).await;
    assert_eq!(statuses(&vanished), ["500"]);
    until(|| {
        server
            .log()
            .contains("worker=1 cpu=- memory=- pages=- rewind=- id=")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_has_a_line_without_figures() {
    let server = Billed::new(app(|request| request.text("ok")), 1, AccessFormat::CombinedBill).await;
    // The worker answers, and does not come back from its rewind.
    assert_eq!(statuses(&server.all(LAST).await), ["200"]);
    let mut waiting = server.connect(1 << 20);
    waiting.send(&LAST.replace("GET /", "GET /leaving")).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(waiting);
    until(|| server.log().contains("\"GET /leaving HTTP/1.1\" 499 ")).await;
    assert!(
        server
            .log()
            .contains("worker=- cpu=- memory=- pages=- rewind=- id="),
        "{}",
        server.log()
    );
    assert_eq!(server.pool.figures().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn workers_that_are_not_needed_go_and_are_counted() {
    let server = Billed::new(app(|request| request.text("ok")), 3, AccessFormat::Off).await;
    let mut clients: Vec<_> = (0..3).map(|_| server.connect(1 << 20)).collect();
    // None comes back before all have been asked, so each is a worker's of its own.
    for client in &mut clients {
        client.send(GET).await;
        client.until("\r\n\r\nok").await;
    }
    server.open.add_permits(3);
    until(|| server.pool.figures().rewinds == 3).await;
    assert_eq!(server.pool.figures().started, 3);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let idle = server
        .pool
        .figures()
        .dropped
        .into_iter()
        .find(|it| it.0 == Dropped::Idle);
    assert_eq!(idle, Some((Dropped::Idle, 2)));
}

#[tokio::test(start_paused = true)]
async fn without_a_bill_the_line_comes_with_the_reply() {
    let server = Billed::new(app(|request| request.text("ok")), 1, AccessFormat::Combined).await;
    assert_eq!(statuses(&server.all(LAST).await), ["200"]);
    assert!(
        server.log().contains("ms app=test worker=1 id="),
        "{}",
        server.log()
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_come_back_is_told_by_reason_and_counted() {
    let server = Billed::new(
        app(|request| async move {
            match request.environ("PATH_INFO").as_str() {
                "/exit" => Report {
                    reusable: false,
                    why_not: Some(WhyNot::Exited(3)),
                    ..request.text("ok").await
                },
                _ => request.text("ok").await,
            }
        }),
        1,
        AccessFormat::Off,
    )
    .await;
    server.open.add_permits(100);
    server.ends.lock().unwrap().extend([
        RewindError::Grown(64),
        RewindError::Grown(128),
        RewindError::Hook,
        RewindError::Differs(0x1234),
        RewindError::Differs(0x5678),
    ]);
    for _ in 0..6 {
        assert_eq!(statuses(&server.all(LAST).await), ["200"]);
    }
    assert_eq!(
        statuses(&server.all(&LAST.replace("GET /", "GET /exit")).await),
        ["200"]
    );
    until(|| server.pool.figures().started == 7).await;
    let note = "; told once, counted in the last line of the log";
    assert_eq!(
        server.log(),
        format!(
            "app test: the app's memory grew by 64 KiB beyond its snapshot; worker 1 is replaced{note}\n\
             app test: a hook of wasgi.after_restore or os.register_at_fork failed; worker 1 is replaced{note}\n\
             error: app test: memory differs from the snapshot at 0x1234 after a rewind; worker 1 is replaced\n\
             error: app test: memory differs from the snapshot at 0x5678 after a rewind; worker 1 is replaced\n\
             warning: app test: the app ended its interpreter with exit code 3; worker 1 is replaced\n"
        )
    );
    let dropped: Vec<_> = server
        .pool
        .figures()
        .dropped
        .into_iter()
        .filter(|it| it.1 > 0)
        .collect();
    assert_eq!(
        dropped,
        [
            (Dropped::Exited, 1),
            (Dropped::Grown, 2),
            (Dropped::NotRewound, 1),
            (Dropped::Differs, 2)
        ]
    );
}
