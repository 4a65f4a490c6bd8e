//! Apps that have an instance only while somebody asks for them, and the memory that they share.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::*;
use crate::answer::exchange;
use crate::bill::Meter;
use crate::metrics::Dropped;
use crate::worker::Ticket;

const MIB: u64 = 1 << 20;
const IDLE: Duration = Duration::from_secs(60);

/// An app whose instances take 4 MiB. Its requests end when they are let.
struct Heavy {
    open: Arc<Semaphore>,
    /// Starts to come that fail.
    fails: AtomicUsize,
}

impl Runner for Heavy {
    type Instance = Arc<Semaphore>;
    type Error = io::Error;

    fn name(&self) -> &str {
        "heavy"
    }

    async fn start(&self) -> io::Result<Arc<Semaphore>> {
        let fail = |left: usize| left.checked_sub(1);
        match self
            .fails
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fail)
        {
            Ok(_) => Err(io::Error::other("no such module")),
            Err(_) => Ok(Arc::clone(&self.open)),
        }
    }

    fn is_copy(_: &Arc<Semaphore>) -> bool {
        true
    }

    fn memory(_: &mut Arc<Semaphore>) -> u64 {
        4 * MIB
    }

    async fn renew(&self, _: &mut Arc<Semaphore>) -> Result<Option<Rewound>, RewindError> {
        Ok(None)
    }

    async fn handle(open: &mut Arc<Semaphore>, request: Request) -> Report {
        open.acquire().await.unwrap().forget();
        request.text("ok").await
    }
}

struct Demand {
    pool: Arc<Pool<Heavy>>,
    open: Arc<Semaphore>,
}

impl Demand {
    async fn new(workers: u32, fails: usize, budget: &Arc<Budget>) -> Self {
        let open = Arc::new(Semaphore::new(0));
        let runner = Heavy {
            open: Arc::clone(&open),
            fails: AtomicUsize::new(fails),
        };
        let (workers, limits) = (Workers::on_demand(workers, IDLE), Limits::default());
        let log = Log::to(Box::new(Lines::default()), AccessFormat::Off, false).unwrap();
        let pool = Pool::start(
            runner,
            workers,
            Wear::default(),
            &limits,
            budget,
            log,
            Handle::current(),
        );
        Self {
            pool: pool.await.unwrap(),
            open,
        }
    }

    /// A request, and where its reply goes.
    fn ask(&self) -> (Ticket<Heavy>, Arc<exchange::Exchange>) {
        let exchange = exchange::Exchange::new(None, u64::MAX);
        let request = Request::new(
            Vec::new(),
            String::new(),
            Box::new(exchange::NoInput),
            Box::new(exchange::Sink(Arc::clone(&exchange))),
        );
        (self.pool.submit(request, Meter::default()).unwrap(), exchange)
    }

    /// A request from its beginning to its end.
    async fn serve(&self) {
        let before = self.pool.figures().requests;
        let _request = self.ask();
        self.open.add_permits(1);
        until(|| self.pool.figures().requests > before).await;
        self.pool.quiet().await;
    }

    fn started(&self) -> u64 {
        self.pool.figures().started
    }

    fn dropped(&self, why: Dropped) -> u64 {
        let dropped = self.pool.figures().dropped;
        dropped.iter().find(|(it, _)| *it == why).unwrap().1
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_comes_with_the_first_request_and_goes_when_idle() {
    let budget = Budget::new(None);
    let app = Demand::new(3, 0, &budget).await;
    sleep(IDLE).await;
    assert_eq!((app.started(), budget.used()), (0, 0));
    for _ in 0..4 {
        app.serve().await;
        sleep(IDLE / 2).await;
    }
    assert_eq!((app.started(), budget.used()), (1, 4 * MIB));
    sleep(2 * IDLE).await;
    assert_eq!((app.dropped(Dropped::Idle), budget.used()), (1, 0));
    app.serve().await;
    assert_eq!(app.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_has_been_idle_for_the_longest_makes_room() {
    let budget = Budget::new(Some(8 * MIB));
    let [a, b, c] = [
        Demand::new(1, 0, &budget).await,
        Demand::new(1, 0, &budget).await,
        Demand::new(1, 0, &budget).await,
    ];
    a.serve().await;
    sleep(Duration::from_millis(1)).await;
    b.serve().await;
    sleep(Duration::from_millis(1)).await;
    a.serve().await;
    c.serve().await;
    let evicted = [&a, &b, &c].map(|app| app.dropped(Dropped::Evicted));
    assert_eq!((evicted, budget.used()), ([0, 1, 0], 8 * MIB));
}

#[tokio::test(start_paused = true)]
async fn requests_without_memory_wait_in_their_queue_until_there_is_some() {
    let budget = Budget::new(Some(4 * MIB));
    let (a, b) = (Demand::new(1, 0, &budget).await, Demand::new(1, 0, &budget).await);
    let busy = a.ask();
    until(|| busy.0.errand().number().is_some()).await;
    let waiting = b.ask();
    sleep(Duration::from_secs(5)).await;
    assert_eq!((waiting.0.errand().number(), b.started()), (None, 0));
    // Who goes leaves the queue, as at `queue-time`.
    assert!(b.ask().0.withdraw());

    b.open.add_permits(1);
    a.open.add_permits(1);
    until(|| b.pool.figures().requests == 1).await;
    assert_eq!(a.dropped(Dropped::Evicted), 1);
}

#[tokio::test(start_paused = true)]
async fn an_app_with_all_its_instances_busy_does_not_keep_others_out() {
    let budget = Budget::new(Some(8 * MIB));
    let (many, one) = (Demand::new(2, 0, &budget).await, Demand::new(1, 0, &budget).await);
    let requests: Vec<_> = (0..8).map(|_| many.ask()).collect();
    until(|| many.started() == 2).await;
    let _waiting = one.ask();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(one.started(), 0);
    one.open.add_permits(1);
    many.open.add_permits(1);
    until(|| one.pool.figures().requests == 1).await;
    let taken = requests
        .iter()
        .filter(|(it, _)| it.errand().number().is_some())
        .count();
    assert!(taken < 8, "{taken}");
    many.open.add_permits(7);
    until(|| many.pool.figures().requests == 8).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_does_not_start_is_not_tried_with_each_request() {
    let app = Demand::new(1, 2, &Budget::new(None)).await;
    let failed = async || {
        let (_ticket, exchange) = app.ask();
        match poll_fn(|cx| exchange.poll_start(cx)).await {
            exchange::Start::Failed(Failure::NotStarted(why)) => why,
            _ => panic!("it was served"),
        }
    };
    assert_eq!(failed().await, "no such module");
    assert!(failed().await.contains("next start is tried in "));
    sleep(Duration::from_millis(500)).await;
    assert_eq!(failed().await, "no such module");
    let begun = Instant::now();
    while failed_again(&app).await {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(begun.elapsed().as_millis() / 100, 10);
    assert_eq!(app.started(), 1);
}

async fn failed_again(app: &Demand) -> bool {
    let (ticket, exchange) = app.ask();
    app.open.add_permits(1);
    let failed = matches!(
        poll_fn(|cx| exchange.poll_start(cx)).await,
        exchange::Start::Failed(_)
    );
    app.pool.quiet().await;
    drop(ticket);
    if failed {
        app.open.acquire().await.unwrap().forget();
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn an_app_at_its_own_limit_keeps_its_instances_and_its_requests_wait() {
    let server = Budget::new(None);
    let own = Budget::within(&server);
    own.set_limit(Some(9 * MIB));
    let app = Demand::new(4, 0, &own).await;
    let requests = [(); 4].map(|()| app.ask());
    until(|| app.started() == 2 && app.pool.busy() == (2, 2)).await;
    assert_eq!((own.used(), server.used()), (8 * MIB, 8 * MIB));
    app.open.add_permits(4);
    until(|| app.pool.figures().requests == 4).await;
    app.pool.quiet().await;
    assert_eq!((app.started(), app.dropped(Dropped::Evicted)), (2, 0));
    drop(requests);
}
