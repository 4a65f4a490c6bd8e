//! What happens to a request that goes too far, to its client, to its worker, and to everyone else.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Framing;
use crate::server::{Server, config, folder, wasgi};

const LIMIT: Duration = Duration::from_millis(700);
const GRACE: Duration = Duration::from_secs(1);

/// For all tests that only look at their own request. Workers come and go here, so requests may wait for one.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let more =
        "workers = 4\n[limits]\ntime = \"700ms\"\nmemory = \"128MiB\"\nqueue-time = \"60s\"\nqueue = 1000";
    Server::start(&config("limits", more))
});

/// Runs into the time limit: the client gets 504 while a neighbour is served, and the log says where it was stuck.
#[track_caller]
fn expect_time_limit(path: &str) {
    let mark = SERVER.log.mark();
    let mut connection = SERVER.connect();
    let start = Instant::now();
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    SERVER.get("/ok").expect(200);
    let reply = connection.reply().expect(504);
    assert!(start.elapsed() >= LIMIT, "after {:?}", start.elapsed());
    assert!(!reply.text().contains("Traceback"), "{}", reply.text());
    // The traceback names the view, and so this request, since no other test asks for it.
    let view = path[1..].replace('-', "_");
    SERVER.log.wait_for(mark, &format!("in {view}"));
    SERVER.log.wait_for(mark, "TimeLimit");
    SERVER.get("/ok").expect(200);
}

#[test]
fn an_endless_loop_gets_504_and_a_traceback() {
    expect_time_limit("/loop");
    expect_time_limit("/loop-before-first-chunk");
}

#[test]
fn an_iterable_that_runs_no_bytecode_is_ended() {
    let mark = SERVER.log.mark();
    SERVER.get("/empty-pieces").expect(504);
    SERVER.log.wait_for(mark, "closed the empty pieces");
}

#[test]
fn a_loop_that_catches_exceptions_is_ended() {
    expect_time_limit("/loop-catching-exceptions");
}

#[test]
fn finally_blocks_run_at_the_time_limit() {
    let mark = SERVER.log.mark();
    expect_time_limit("/loop-cleaning-up");
    SERVER.log.wait_for(mark, "cleaned up after the loop");
    expect_time_limit("/sleep-cleaning-up");
    SERVER.log.wait_for(mark, "cleaned up after the sleep");
}

#[test]
fn sleeping_and_waiting_are_ended() {
    expect_time_limit("/sleep");
    expect_time_limit("/select-forever");
}

#[test]
fn a_regular_expression_that_explodes_is_ended() {
    expect_time_limit("/regex");
}

#[test]
fn waiting_for_the_body_counts() {
    let mark = SERVER.log.mark();
    let mut connection = SERVER.connect();
    connection.send("POST /read-body HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    connection.reply().expect(504);
    assert!(
        connection.is_closed(),
        "the rest of the body may still come, and is no request"
    );
    SERVER.log.wait_for(mark, "in read_body");
}

/// Takes no notice of the exception, so it is stopped: 504, and a line that says so.
#[track_caller]
fn expect_stopped(path: &str) {
    let mark = SERVER.log.mark();
    let start = Instant::now();
    SERVER.get(path).expect(504);
    assert!(start.elapsed() >= LIMIT, "after {:?}", start.elapsed());
    SERVER.log.wait_for(mark, "is replaced");
    SERVER.get("/ok").expect(200);
}

#[test]
fn what_does_not_end_by_itself_is_stopped() {
    expect_stopped("/loop-stubborn");
    expect_stopped("/sleep-stubborn");
    expect_stopped("/loop-without-handler");
    expect_stopped("/big-power");
}

#[test]
fn a_caught_time_limit_does_not_make_a_reply() {
    let reply = SERVER.get("/loop-caught").expect(504);
    assert!(!reply.text().contains("as if nothing had happened"));
}

#[test]
fn a_reply_that_has_begun_is_cut() {
    let mut connection = SERVER.connect();
    connection.send("GET /loop-in-generator HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = connection.reply();
    assert_eq!((reply.status(), reply.head.framing), (200, Framing::Chunked));
    assert_eq!(reply.text(), "first\n");
    assert!(!reply.complete, "a client must see that the reply is not whole");

    let reply = SERVER.get("/reply-for-ever");
    assert_eq!(reply.status(), 200);
    assert!(!reply.complete);
}

#[test]
fn close_is_bounded_too() {
    let mark = SERVER.log.mark();
    let reply = SERVER.get("/loop-in-close");
    assert_eq!((reply.status(), reply.text()), (200, "all of it\n".to_owned()));
    SERVER.log.wait_for(mark, "in close");
}

#[test]
fn what_ends_in_time_is_left_alone() {
    assert_eq!(SERVER.get("/finish-in-time").expect(200).text(), "in time\n");
}

/// How long after its start a request was answered, and its worker given up.
fn kill(server: &Server, path: &str) -> (Duration, Duration) {
    let mark = server.log.mark();
    let start = Instant::now();
    server.get(path).expect(504);
    let answered = start.elapsed();
    let (replaced, _) = server
        .log
        .wait_until(mark, "is replaced", |line| line.contains("is replaced"));
    // The next request waits for the new worker, so that what is measured next is not its start.
    server.get("/ok").expect(200);
    (answered, replaced - start)
}

#[test]
fn the_time_limit_is_kept_to_100_ms() {
    let server = Server::start(&config(
        "limits",
        "workers = 1\n[limits]\ntime = \"700ms\"\nqueue-time = \"60s\"",
    ));
    server.get("/ok").expect(200);
    let tolerance = Duration::from_millis(100);
    for (path, end) in [
        ("/loop", LIMIT),
        ("/sleep", LIMIT),
        ("/regex", LIMIT),
        ("/loop-stubborn", LIMIT + GRACE),
        ("/sleep-stubborn", LIMIT + GRACE),
        ("/loop-without-handler", LIMIT + GRACE),
    ] {
        // Another process may have the machine for a moment; a limit that is kept late is late every time.
        let mut seen = Vec::new();
        let kept = (0..4).any(|_| {
            let (answered, replaced) = kill(&server, path);
            assert!(answered >= LIMIT, "{path} was answered after {answered:?}");
            assert!(replaced >= LIMIT, "{path} was ended after {replaced:?}");
            seen.push((answered, replaced));
            answered <= LIMIT + GRACE + tolerance && replaced <= end + tolerance
        });
        assert!(
            kept,
            "{path} should end after {end:?}; answered and ended after {seen:?}"
        );
    }
}

#[test]
fn neighbours_are_served_while_one_misbehaves() {
    let server = Server::start(&config(
        "limits",
        "workers = 2\n[limits]\ntime = \"3s\"\nmemory = \"128MiB\"",
    ));
    for path in ["/loop", "/regex", "/sleep", "/growing-while-catching"] {
        // Both workers are there: the last round's has been replaced.
        let both = thread::scope(|scope| {
            let ask = || server.get("/finish-in-time").expect(200);
            let (one, other) = (scope.spawn(ask), scope.spawn(ask));
            one.join().and_then(|_| other.join())
        });
        assert!(both.is_ok());
        let mut bad = server.connect();
        bad.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < Duration::from_millis(2000) {
            let asked = Instant::now();
            server.get("/ok").expect(200);
            times.push(asked.elapsed());
        }
        times.sort();
        let median = times[times.len() / 2];
        assert!(
            times.len() >= 20,
            "only {} answers during {path}: {times:?}",
            times.len()
        );
        assert!(
            median < Duration::from_millis(50),
            "answers take {median:?} during {path}"
        );
        bad.reply().expect(504);
    }
}

// Memory

/// Time enough to fill the memory slowly, on a busy machine.
static SMALL: LazyLock<Server> = LazyLock::new(|| {
    let more = "workers = 2\n[limits]\ntime = \"25s\"\nmemory = \"96MiB\"\nqueue-time = \"60s\"";
    Server::start(&config("limits", more))
});

/// Runs out of memory: 500, a line that says so, and the server goes on.
#[track_caller]
fn expect_out_of_memory(path: &str, said: &[&str]) {
    let mark = SMALL.log.mark();
    SMALL.get(path).expect(500);
    SMALL.log.wait_until(mark, "out of memory", |line| {
        said.iter().any(|said| line.contains(said))
    });
    SMALL.get("/ok").expect(200);
}

#[test]
fn too_much_at_once_is_a_memory_error() {
    expect_out_of_memory("/one-gigabyte", &["MemoryError"]);
    // More than a 32-bit size can say, which Python has another name for.
    expect_out_of_memory("/big-bytes", &["MemoryError", "OverflowError"]);
}

#[test]
fn growing_without_end_is_a_memory_error() {
    for path in ["/growing-list", "/growing-dict", "/growing-string"] {
        expect_out_of_memory(path, &["MemoryError"]);
    }
}

#[test]
fn memory_that_is_never_given_back_ends_the_worker_at_most() {
    for _ in 0..6 {
        // Told once, then counted.
        SMALL.get("/growing-for-good").expect(500);
        SMALL.get("/ok").expect(200);
    }
}

#[test]
fn a_memory_error_that_is_swallowed_runs_into_the_time_limit() {
    SERVER.get("/growing-while-catching").expect(504);
    SERVER.get("/ok").expect(200);
}

#[test]
fn a_reply_head_is_bounded() {
    let mark = SERVER.log.mark();
    SERVER.get("/headers-of-megabytes").expect(500);
    SERVER.log.wait_for(mark, "headers_of_megabytes");
}

#[test]
fn the_server_does_not_hold_what_slow_clients_do_not_take() {
    let server = Server::start(&config("limits", "workers = 3\n[limits]\ntime = \"10s\""));
    for _ in 0..6 {
        server.get("/ok").expect(200);
    }
    let before = server.resident();
    let mut slow: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send("GET /reply-of-a-gigabyte HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.head_to("GET").status, 200);
    }
    // A gigabyte each would be there by now if it were not held back.
    let end = Instant::now() + Duration::from_secs(3);
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(server.resident());
        thread::sleep(Duration::from_millis(20));
    }
    let grown = most.saturating_sub(before) >> 20;
    assert!(grown < 60, "{grown} MiB more for three slow clients");
}

#[test]
fn too_many_open_files_are_an_os_error() {
    // With time for a thousand files on a machine that is busy.
    let server = Server::start(&config("limits", "workers = 1"));
    let mut connection = server.connect();
    connection.send("GET /many-files-held?200000 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.head_to("GET").status, 200);
    let said = String::from_utf8(connection.chunk().expect("how many")).expect("text");
    assert!(said.starts_with("OSError after"), "{said}");
}

#[test]
fn many_open_files_leave_some_for_the_others() {
    // As a login shell or systemd starts it: 1024 files, of which each of two workers wants 900.
    let dir = folder(&config("limits", "workers = 3"));
    let wasgi = wasgi();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""])
        .arg(wasgi.get_program());
    command.arg("serve").arg(dir.path().join("app.toml"));
    for (name, value) in wasgi.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let server = Server::spawn(dir, &mut command);
    let mut greedy = [server.connect(), server.connect()];
    for connection in &mut greedy {
        connection.send("GET /many-files-held?900 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.head_to("GET").status, 200);
        let said = String::from_utf8(connection.chunk().expect("how many")).expect("text");
        assert_eq!(said, "900 files\n");
    }
    // They hold them now.
    for _ in 0..5 {
        server.get("/ok").expect(200);
    }
    assert!(
        greedy
            .iter_mut()
            .all(|connection| connection.chunk() == Some(Vec::new()))
    );
}

// Ways out

#[test]
fn leaving_the_interpreter_ends_one_worker() {
    for (path, said) in [("/os-exit", "exit code 1"), ("/os-exit-zero", "exit code 0")] {
        let mark = SERVER.log.mark();
        SERVER.get(path).expect(500);
        SERVER.log.wait_for(mark, said);
        SERVER.get("/ok").expect(200);
    }
    let mark = SERVER.log.mark();
    SERVER.get("/os-abort").expect(500);
    SERVER.log.wait_for(mark, "is replaced");
    SERVER.get("/ok").expect(200);
}

#[test]
fn system_exit_is_an_exception_like_others() {
    let mark = SERVER.log.mark();
    SERVER.get("/sys-exit").expect(500);
    SERVER.log.wait_for(mark, "SystemExit");
    SERVER.log.wait_for(mark, "in sys_exit");
    let reply = SERVER.get("/sys-exit-in-generator");
    assert_eq!((reply.status(), reply.complete), (200, false));
    SERVER.log.wait_for(mark, "SystemExit: enough");
    SERVER.get("/keyboard-interrupt").expect(500);
    SERVER.log.wait_for(mark, "KeyboardInterrupt");
    SERVER.get("/exception").expect(500);
    SERVER.log.wait_for(mark, "ValueError: the view does not work");
    SERVER.get("/ok").expect(200);
}

#[test]
fn what_the_sandbox_lacks_fails_as_python_code_expects() {
    for (path, said) in [
        ("/thread", "can't start new thread"),
        ("/subprocess", "Error"),
        ("/connect", "OSError"),
        ("/null-pointer", "Error"),
        ("/kill-self", "Error"),
    ] {
        let mark = SERVER.log.mark();
        SERVER.get(path).expect(500);
        SERVER
            .log
            .wait_for(mark, &format!("in {}", path[1..].replace('-', "_")));
        SERVER.log.wait_for(mark, said);
        SERVER.get("/ok").expect(200);
    }
}

#[test]
fn workers_that_ended_leave_nothing_behind() {
    let server = Server::start(&config("limits", "workers = 2\n[limits]\ntime = \"20s\""));
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", server.pid()))
            .expect("Linux")
            .count()
    };
    let end_some = |count: usize| {
        for _ in 0..count {
            server.get("/os-exit").expect(500);
            server.get("/ok").expect(200);
        }
    };
    end_some(20);
    let (files, memory) = (open(), server.resident());
    end_some(150);
    // The last of them may still be on their way out.
    let deadline = Instant::now() + Duration::from_secs(10);
    while open() > files + 8 || server.resident() > memory + (48 << 20) {
        assert!(
            Instant::now() < deadline,
            "{files} files and {} MiB have become {} and {}",
            memory >> 20,
            open(),
            server.resident() >> 20
        );
        thread::sleep(Duration::from_millis(50));
    }
}

// max-requests

#[test]
fn max_requests_replaces_workers_between_requests() {
    let server = Server::start(&config("limits", "workers = 2\nmax-requests = 20"));
    let mut answers: HashMap<String, u32> = HashMap::new();
    let mut connection = server.connect();
    for _ in 0..100 {
        connection.send("GET /worker HTTP/1.1\r\nHost: test\r\n\r\n");
        *answers.entry(connection.reply().expect(200).text()).or_default() += 1;
    }
    assert!(answers.len() >= 5, "100 requests by {} workers", answers.len());
    assert!(
        answers.values().all(|count| *count <= 22),
        "20 requests each, and up to a tenth more: {answers:?}"
    );
}

#[test]
fn workers_stay_without_max_requests() {
    let server = Server::start(&config("limits", "workers = 1"));
    let first = server.get("/worker").expect(200).text();
    for _ in 0..30 {
        assert_eq!(server.get("/worker").expect(200).text(), first);
    }
}
