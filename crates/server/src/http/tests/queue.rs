//! Requests that wait for a worker, and workers that are replaced.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use wasgi_engine::WhyNot;

use super::*;
use crate::answer::exchange;
use crate::bill::Meter;
use crate::metrics::Dropped;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

/// An app that notes whom it serves, and lets each go when it is told to.
struct Gate {
    open: Arc<Semaphore>,
    served: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    fn new() -> (Self, Closure) {
        let gate = Self {
            open: Arc::new(Semaphore::new(0)),
            served: Arc::default(),
        };
        let (open, served) = (Arc::clone(&gate.open), Arc::clone(&gate.served));
        let app = app(move |request| {
            let (open, served) = (Arc::clone(&open), Arc::clone(&served));
            async move {
                served.lock().unwrap().push(request.environ("PATH_INFO"));
                open.acquire().await.unwrap().forget();
                request.text("ok").await
            }
        });
        (gate, app)
    }

    async fn serving(&self, count: usize) {
        until(|| self.served.lock().unwrap().len() == count).await;
    }
}

fn limits(queue: usize) -> Limits {
    Limits {
        queue,
        queue_time: Duration::from_millis(1500),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_in_the_order_they_came() {
    let (gate, app) = Gate::new();
    let server = Server::with(
        app,
        1,
        None,
        Limits {
            queue: 8,
            ..Limits::default()
        },
    )
    .await;
    let mut clients = Vec::new();
    for path in ["/0", "/1", "/2", "/3"] {
        let mut client = server.connect();
        client.send(&get(path)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        clients.push(client);
    }
    gate.open.add_permits(4);
    for client in &mut clients {
        assert_eq!(statuses(&client.rest().await), ["200"]);
    }
    assert_eq!(*gate.served.lock().unwrap(), ["/0", "/1", "/2", "/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_long_wait_are_a_503_with_retry_after() {
    let (gate, app) = Gate::new();
    let server = Server::with(app, 1, None, limits(1)).await;
    let (mut running, mut waiting) = (server.connect(), server.connect());
    running.send(&get("/running")).await;
    gate.serving(1).await;
    waiting.send(&get("/waiting")).await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(1)).await;

    let refused = server.all(GET).await;
    assert_eq!(statuses(&refused), ["503"]);
    assert!(
        refused.contains("retry-after: 2\r\n") && refused.contains("queue is full"),
        "{refused}"
    );
    assert!(begun.elapsed() < Duration::from_secs(1));

    let late = waiting.rest().await;
    assert_eq!(statuses(&late), ["503"]);
    assert!(
        late.contains("retry-after: 2\r\n") && late.contains("queue-time"),
        "{late}"
    );
    assert_eq!(begun.elapsed().as_millis() / 100, 15);

    gate.open.add_permits(1);
    assert_eq!(statuses(&running.rest().await), ["200"]);
    assert_eq!(*gate.served.lock().unwrap(), ["/running"]);
    assert!(server.log().contains("worker=- id="), "{}", server.log());
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_0_lets_nobody_wait() {
    let (gate, app) = Gate::new();
    let server = Server::with(app, 1, None, limits(0)).await;
    let mut running = server.connect();
    running.send(GET).await;
    gate.serving(1).await;
    assert_eq!(statuses(&server.all(GET).await), ["503"]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_makes_room_and_is_not_served() {
    let (gate, app) = Gate::new();
    let server = Server::with(app, 1, None, limits(1)).await;
    let (mut running, mut leaving, mut staying) = (server.connect(), server.connect(), server.connect());
    running.send(&get("/running")).await;
    gate.serving(1).await;
    leaving.send(&get("/leaving")).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(leaving);
    tokio::time::sleep(Duration::from_millis(1)).await;
    staying.send(&get("/staying")).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    gate.open.add_permits(2);
    assert_eq!(statuses(&staying.rest().await), ["200"]);
    assert_eq!(*gate.served.lock().unwrap(), ["/running", "/staying"]);
    assert!(
        server.log().contains("\"GET /leaving HTTP/1.1\" 499 "),
        "{}",
        server.log()
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_serves_one_request_at_a_time_and_all_workers_serve() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::with(
        app(move |request| {
            let (now, most) = (Arc::clone(&counted), Arc::clone(&peak));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                request.text("ok").await
            }
        }),
        3,
        None,
        Limits::default(),
    )
    .await;
    let all: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for mut client in all {
        client.send(GET).await;
        tokio::spawn(async move { client.rest().await });
    }
    until(|| server.log().matches("\" 200 2 ").count() == 20).await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    for worker in 1..=3 {
        assert!(
            server.log().contains(&format!("worker={worker} ")),
            "{}",
            server.log()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_spent_is_replaced_under_its_number() {
    let server = Server::new(app(|request| async move {
        let spent = request.environ("PATH_INFO") == "/spend";
        request.text("ok").await;
        Report {
            reusable: !spent,
            why_not: Some(WhyNot::Crashed("stack overflow".to_owned())),
            ..Report::default()
        }
    }))
    .await;
    assert_eq!(statuses(&server.all(&get("/spend")).await), ["200"]);
    assert_eq!(statuses(&server.all(GET).await), ["200"]);
    let log = server.log();
    assert!(
        log.contains("warning: app test: the instance crashed: stack overflow; worker 1 is replaced\n"),
        "{log}"
    );
    assert_eq!(log.matches("worker=1 ").count(), 2, "{log}");
}

/// Counts starts, and fails those it is told to.
struct Starting {
    starts: Arc<AtomicUsize>,
    fails: std::ops::Range<usize>,
    inner: Closure,
}

impl Runner for Starting {
    type Instance = Handler;
    type Error = io::Error;

    fn name(&self) -> &str {
        "test"
    }

    async fn start(&self) -> io::Result<Handler> {
        let number = self.starts.fetch_add(1, Ordering::SeqCst);
        if self.fails.contains(&number) {
            return Err(io::Error::other("no memory"));
        }
        self.inner.start().await
    }

    fn is_copy(_: &Handler) -> bool {
        false
    }

    async fn renew(&self, _: &mut Handler) -> Result<Option<Rewound>, RewindError> {
        Ok(None)
    }

    async fn handle(instance: &mut Handler, request: Request) -> Report {
        Closure::handle(instance, request).await
    }
}

async fn start(
    fails: std::ops::Range<usize>,
    wear: Wear,
    app: Closure,
) -> (io::Result<Arc<Pool<Starting>>>, Arc<AtomicUsize>, Lines) {
    let starts = Arc::new(AtomicUsize::new(0));
    let lines = Lines::default();
    let log = Log::to(Box::new(lines.clone()), AccessFormat::Off, false).unwrap();
    let starting = Starting {
        starts: Arc::clone(&starts),
        fails,
        inner: app,
    };
    (
        Pool::start(
            starting,
            Workers::always(2, 2),
            wear,
            &Limits::default(),
            &Budget::new(None),
            log,
            Handle::current(),
        )
        .await,
        starts,
        lines,
    )
}

async fn one(pool: &Arc<Pool<Starting>>) {
    let exchange = exchange::Exchange::new(None, u64::MAX);
    let request = Request::new(
        Vec::new(),
        String::new(),
        Box::new(exchange::NoInput),
        Box::new(exchange::Sink(exchange)),
    );
    let ticket = pool.submit(request, Meter::default()).ok().unwrap();
    pool.quiet().await;
    assert!(ticket.errand().number().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_start_is_told_at_once() {
    let (pool, starts, _) = start(1..9, Wear::default(), echo()).await;
    assert_eq!(pool.err().unwrap().to_string(), "no memory");
    assert_eq!(starts.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_tried_until_it_starts() {
    let spent = app(|request| async move {
        request.text("ok").await;
        Report::default()
    });
    let (pool, starts, lines) = start(2..6, Wear::default(), spent).await;
    let pool = pool.unwrap();
    let begun = Instant::now();
    one(&pool).await;
    until(|| starts.load(Ordering::SeqCst) == 7).await;
    // 0.5 + 1 + 2 + 4 s.
    assert_eq!(begun.elapsed().as_millis() / 100, 75);
    let told = || {
        String::from_utf8(lines.0.lock().unwrap().clone())
            .unwrap()
            .matches("does not start")
            .count()
    };
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while told() < 4 && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(told(), 4);
}

#[tokio::test(start_paused = true)]
async fn max_requests_replaces_each_worker_in_its_own_time() {
    let (pool, starts, _) = start(0..0, of_requests(100), app(|request| request.text("ok"))).await;
    let pool = pool.unwrap();
    // The worker used last is used next, so one is worn out at a time.
    let mut at = Vec::new();
    for number in 1..=1000 {
        let before = starts.load(Ordering::SeqCst);
        one(&pool).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if starts.load(Ordering::SeqCst) > before {
            at.push(number);
        }
    }
    assert!((9..=10).contains(&at.len()), "{at:?}");
    let gaps: Vec<u64> = std::iter::once(0)
        .chain(at.iter().copied())
        .zip(at.iter().copied())
        .map(|(a, b)| b - a)
        .collect();
    assert!(gaps.iter().all(|gap| *gap <= 110), "{gaps:?}");
}

fn of_requests(count: u64) -> Wear {
    Wear {
        max_requests: Some(count),
        ..Wear::default()
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_lived_for_max_lifetime_is_replaced_after_its_request() {
    let wear = Wear {
        max_lifetime: Some(Duration::from_secs(100)),
        ..Wear::default()
    };
    let (pool, starts, _) = start(0..0, wear, app(|request| request.text("ok"))).await;
    let pool = pool.unwrap();
    tokio::time::advance(Duration::from_secs(99)).await;
    one(&pool).await;
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    // And a tenth.
    tokio::time::advance(Duration::from_secs(12)).await;
    one(&pool).await;
    until(|| starts.load(Ordering::SeqCst) == 3).await;
    // The new one, which is the first to be taken, is young.
    tokio::time::sleep(Duration::from_millis(1)).await;
    one(&pool).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(starts.load(Ordering::SeqCst), 3);
    assert!(pool.figures().dropped.contains(&(Dropped::MaxLifetime, 1)));
}

#[tokio::test(start_paused = true)]
async fn who_has_come_to_max_memory_is_replaced_after_its_request() {
    for (bytes, replaced) in [((40 << 20) + 1, 0), (40 << 20, 1)] {
        let wear = Wear {
            max_memory: Some(bytes),
            ..Wear::default()
        };
        let large = app(|request| async move {
            Report {
                memory: 40 << 20,
                ..request.text("ok").await
            }
        });
        let (pool, starts, _) = start(0..0, wear, large).await;
        let pool = pool.unwrap();
        one(&pool).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(starts.load(Ordering::SeqCst), 2 + replaced, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_requests_a_second_than_rate_get_a_429_that_says_when() {
    let limits = Limits {
        rate: 1,
        ..Limits::default()
    };
    let server = Server::with(echo(), 1, None, limits).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = server.all(&[get, get, last].concat()).await;
    assert_eq!(statuses(&all), ["200", "200", "429"]);
    assert!(all.contains("retry-after: 1\r\n"), "{all}");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(statuses(&server.all(&[get, last].concat()).await), ["200", "429"]);
}
