//! One SQLite file, several workers: no update is lost, and no lock outlives who held it.

use std::collections::HashSet;
use std::thread;

use crate::server::{Server, config};

const FILES: &str = "[files]\n\"/data\" = { path = \"data\", write = true }";

#[test]
fn workers_that_count_in_one_file_lose_nothing() {
    let server = Server::start(&config(
        "counter",
        &format!("workers = 3\n{FILES}\n[limits]\ntime = \"60s\""),
    ));
    let counted: Vec<u32> = thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let add = || server.get("/add").expect(200).text().parse().expect("a number");
                    (0..25).map(|_| add()).collect::<Vec<u32>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect()
    });
    let distinct: HashSet<_> = counted.iter().collect();
    assert_eq!(
        (distinct.len(), counted.iter().max()),
        (150, Some(&150)),
        "every number once"
    );
    assert_eq!(server.get("/read").expect(200).text(), "150");
    assert_eq!(server.get("/check").expect(200).text(), "ok");
    let log = server.log.all();
    for word in ["disk I/O error", "malformed", "locked", "Traceback"] {
        assert!(!log.contains(word), "{log}");
    }
}

#[test]
fn a_worker_that_is_stopped_gives_up_its_locks() {
    let more = format!("workers = 2\n{FILES}\n[limits]\ntime = \"3s\"\nqueue-time = \"60s\"");
    let server = Server::start(&config("counter", &more));
    assert_eq!(server.get("/add").expect(200).text(), "1");
    // Holds an exclusive lock with half of its change already in the file, and is stopped there.
    // The client has its 504 before that, so the next one waits for the lock during the grace.
    server.get("/hold").expect(504);
    assert_eq!(
        server.get("/add").expect(200).text(),
        "2",
        "the half change is rolled back"
    );
    assert_eq!(server.get("/check").expect(200).text(), "ok");
}
