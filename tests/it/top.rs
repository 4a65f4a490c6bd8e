//! `wasgi top`, in a real terminal and without one.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::PATIENCE;
use crate::server::{Server, config, run, wasgi};

/// `wasgi top` in a terminal of 60 columns and 20 lines.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    output: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn open(server: &Server) -> Self {
        let wasgi = wasgi();
        let command = format!(
            "stty cols 60 rows 20; stty -a; {} top --admin {}; echo ended with $?; stty -a",
            wasgi.get_program().display(),
            server.dir.path().join("admin.sock").display()
        );
        let mut child = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script of bsdutils starts");
        let (told, output) = mpsc::channel();
        let mut screen = child.stdout.take().expect("piped");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let _ = told.send(bytes[..count].to_vec());
            }
        });
        Self {
            keys: child.stdin.take().expect("piped"),
            child,
            output,
            shown: String::new(),
        }
    }

    fn press(&mut self, key: u8) {
        self.keys.write_all(&[key]).expect("the terminal takes keys");
        self.keys.flush().expect("the terminal takes keys");
    }

    /// Waits until this has been shown since the last time.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.shown);
            if let Ok(more) = self.output.recv_timeout(Duration::from_millis(100)) {
                self.shown.push_str(&String::from_utf8_lossy(&more));
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Server {
    Server::start(&config("plain", "[admin]\nsocket = \"admin.sock\""))
}

#[test]
fn it_shows_what_apps_do_takes_keys_and_leaves_the_terminal_as_it_was() {
    let server = start();
    server.get("/").expect(200);
    let mut terminal = Terminal::open(&server);
    let before = terminal.until("\x1b[?1049h");
    terminal.until("by requests; keys: q quit");
    let screen = terminal.until("\x1b[J");
    assert!(
        screen.contains("\nplain ") && screen.contains("APP"),
        "{screen:?}"
    );
    // Figures move on by themselves.
    let deadline = Instant::now() + PATIENCE;
    loop {
        server.get("/").expect(200);
        let screen = terminal.until("\x1b[J");
        let lines: Vec<_> = screen.split("\r\n").collect();
        for line in &lines {
            let text = line.trim_start_matches("\x1b[H").trim_end_matches("\x1b[J");
            let text = text.trim_end_matches("\x1b[K");
            assert!(text.chars().count() <= 60 && !text.contains('\x1b'), "{line:?}");
        }
        if lines[0].contains("1 apps, ") && !lines[0].contains(" 0.0 requests/s") {
            break;
        }
        assert!(Instant::now() < deadline, "{screen:?}");
    }
    terminal.press(b'm');
    terminal.until("by memory; ");
    terminal.press(b'q');
    terminal.until("\x1b[?25h\x1b[?1049l");
    let after = terminal.until("-extproc");
    assert!(after.contains("ended with 0"), "{after:?}");
    let settings = |text: &str| {
        text.split_once("speed")
            .expect("stty")
            .1
            .split("-extproc")
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(settings(&before), settings(&after));
}

#[test]
fn control_c_ends_it_and_a_server_that_goes_is_told() {
    let server = start();
    let mut terminal = Terminal::open(&server);
    terminal.until("\x1b[J");
    server.signal(rustix::process::Signal::TERM);
    terminal.until("no server at ");
    terminal.press(3);
    terminal.until("\x1b[?1049l");
    terminal.until("ended with 0");
}

#[test]
fn without_a_terminal_it_prints_once() {
    let server = start();
    for _ in 0..3 {
        server.get("/").expect(200);
    }
    let ask = |arguments: &[&str]| {
        let socket = server.dir.path().join("admin.sock");
        let told = run(
            wasgi().arg("top").args(arguments).arg("--admin").arg(socket),
            Duration::from_secs(30),
        );
        assert_eq!(told.code(), 0, "{}", told.stderr);
        told.stdout
    };
    let plain = ask(&[]);
    let lines: Vec<_> = plain.lines().collect();
    assert!(
        lines[0].starts_with("APP") && lines[1].starts_with("plain "),
        "{plain:?}"
    );
    assert!(lines.len() == 2 && !plain.contains('\x1b'), "{plain:?}");
    let json: Value = serde_json::from_str(&ask(&["--json", "--sort", "cpu"])).expect("JSON");
    assert_eq!(
        (&json[0]["app"], &json[0]["state"]),
        (&"plain".into(), &"serving".into())
    );
    assert!(json[0]["p99_ms"].as_f64() > Some(0.0), "{json}");
    let none = run(wasgi().args(["top", "--admin", "/nothing/here"]), PATIENCE);
    assert_eq!(none.code(), 1);
    assert!(
        none.stderr
            .contains("no server at /nothing/here: it listens there with socket = "),
        "{}",
        none.stderr
    );
}
