//! Several nodes behind a balancer, as examples/haproxy has them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Connection, PATIENCE};
use crate::server::{Server, config, project};

/// A program in the foreground; ends with this value.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn haproxy(file: &Path) -> Command {
    let found = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    let program = found.into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(program.expect("HAProxy is installed: run `make test-tools` first"));
    // In the foreground, one process.
    command.arg("-db").arg("-f").arg(file).stdin(Stdio::null());
    command
}

#[test]
fn a_node_that_is_killed_under_load_costs_no_request() {
    let mut nodes: Vec<Server> = (0..3)
        .map(|_| Server::start(&config("pep3333", "workers = 1")))
        .collect();
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let front = free.local_addr().expect("an address");
    drop(free);
    let mut text = fs::read_to_string(project().join("examples/haproxy/haproxy.cfg")).expect("the example");
    for (node, written) in nodes
        .iter()
        .zip(["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"])
    {
        assert!(text.contains(written), "{written} is in the example");
        text = text.replace(written, &node.address().to_string());
    }
    text = text.replace("127.0.0.1:8080", &front.to_string());
    let dir = tempfile::tempdir().expect("a folder for the test");
    let file = dir.path().join("haproxy.cfg");
    fs::write(&file, text).expect("can be written");
    let checked = haproxy(&file).arg("-c").output().expect("HAProxy runs");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let balancer = haproxy(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _balancer = Balancer(balancer.expect("HAProxy runs"));
    wait_for(front);

    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let request = "GET /ok HTTP/1.1\r\nHost: test\r\n\r\n";
    let count_to = |more: usize| {
        let (before, deadline) = (answered.load(Ordering::Relaxed), Instant::now() + PATIENCE * 2);
        while answered.load(Ordering::Relaxed) < before + more {
            assert!(Instant::now() < deadline, "requests stand still");
            thread::sleep(Duration::from_millis(5));
        }
    };
    thread::scope(|scope| {
        let ask = || {
            let mut connection = Connection::tcp(front);
            while !over.load(Ordering::Relaxed) {
                let reply = connection.send(request).reply().expect(200);
                answered.fetch_add(1, Ordering::Relaxed);
                if reply.head.header("connection") == Some("close") {
                    connection = Connection::tcp(front);
                }
            }
        };
        let clients: [_; 8] = std::array::from_fn(|_| scope.spawn(ask));
        count_to(500);
        let node = nodes.remove(0);
        node.signal(Signal::KILL);
        node.wait(PATIENCE);
        count_to(1000);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("all its requests are answered");
        }
    });
    println!("requests: {}", answered.load(Ordering::Relaxed));
}

fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        thread::sleep(Duration::from_millis(5));
    }
}
