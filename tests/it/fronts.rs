//! A real nginx in front, with the configuration file of examples/nginx: the same list over each protocol.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, PATIENCE, Reply};
use crate::server::{Server, app_folder, packages, project};

/// A program in the foreground; ends with this value.
struct Front(Child);

impl Drop for Front {
    fn drop(&mut self) {
        // nginx's workers end with it only if it is asked.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket");
    free.local_addr().expect("an address")
}

/// nginx with examples/nginx/wasgi.conf, ports and paths of its own put into it.
fn nginx(dir: &Path, fronts: &[(&str, SocketAddr)]) -> Front {
    let mut text = fs::read_to_string(project().join("examples/nginx/wasgi.conf")).expect("the example");
    for (written, address) in fronts {
        assert!(text.contains(written), "{written} is in the example");
        text = text.replace(written, &address.to_string());
    }
    text = text.replace("/run/wasgi/", &format!("{}/", dir.display()));
    fs::write(dir.join("wasgi.conf"), text).expect("can be written");
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp = kinds.map(|kind| format!("{kind}_temp_path {}/{kind};", dir.display()));
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let main = format!(
        "{user} daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{}}\nhttp {{ access_log off; {temp} include {dir}/wasgi.conf; }}\n",
        dir = dir.display(),
        temp = temp.join(" ")
    );
    fs::write(dir.join("nginx.conf"), main).expect("can be written");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(dir.join("nginx.conf")).stdin(Stdio::null());
    let front = command
        .spawn()
        .expect("nginx is installed: run `make test-tools` first");
    Front(front)
}

fn ask(connection: &mut Connection, method: &str, target: &str, fields: &str, body: &[u8]) -> Reply {
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: front.example\r\n{fields}\r\n"
    ));
    connection.send(body);
    connection.reply_to(method)
}

#[test]
fn an_app_behind_nginx_sees_each_request_as_the_client_sent_it() {
    let (root, packages) = (app_folder("proxied"), packages());
    let server = Server::start(&format!(
        "[listen]\nhttp = [\"127.0.0.1:0\", \"unix:http.sock\"]\nuwsgi = \"unix:uwsgi.sock\"\nscgi = \"unix:scgi.sock\"\n\
         [app]\nname = \"fronts\"\nroot = {root:?}\nwsgi-file = \"app.py\"\npython-path = [{packages:?}]\nmount = \"/em\"\n\
         [limits]\nrequest-body = \"32MiB\"\n[proxy]\ntrust = [\"unix\"]\n"
    ));
    let fronts = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"].map(|written| (written, free()));
    let _nginx = nginx(server.dir.path(), &fronts);
    for (written, address) in fronts {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        let mut client = Connection::tcp(address);
        let seen = ask(
            &mut client,
            "GET",
            "/em/caf%C3%A9?q=%C3%A9",
            "Cookie: a=1; b=2\r\n",
            b"",
        )
        .expect(200)
        .json();
        assert_eq!(seen["SCRIPT_NAME"], "/em", "{written}");
        assert_eq!(seen["PATH_INFO"], "/caf\u{c3}\u{a9}", "{written}");
        assert_eq!(
            (&seen["QUERY_STRING"], &seen["HTTP_COOKIE"]),
            (&"q=%C3%A9".into(), &"a=1; b=2".into())
        );
        assert_eq!(
            (&seen["REMOTE_ADDR"], &seen["HTTP_HOST"]),
            (&"127.0.0.1".into(), &"front.example".into())
        );
        let body = vec![b'x'; 20 << 20];
        let length = format!("Content-Length: {}\r\n", body.len());
        let seen = ask(&mut client, "POST", "/em/", &length, &body)
            .expect(200)
            .json();
        assert_eq!(seen["body"], body.len().to_string(), "{written}");
        let chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let seen = ask(
            &mut client,
            "POST",
            "/em/",
            "Transfer-Encoding: chunked\r\n",
            chunks,
        )
        .expect(200)
        .json();
        assert_eq!(seen["body"], "11", "{written}");
        ask(&mut client, "HEAD", "/em/", "", b"").expect(200);
        let reply = ask(&mut client, "GET", "/em?q", "", b"").expect(301);
        let location = reply.header("location").expect("a redirect");
        let path = location.strip_prefix("http://front.example").unwrap_or(location);
        assert!(path.ends_with("/em/?q"), "{written}: {location}");
        // Fewer than keepalive_requests, after which nginx wants a new connection.
        for _ in 0..900 {
            ask(&mut client, "GET", "/em/", "", b"").expect(200);
        }
    }
}
