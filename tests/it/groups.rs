//! Groups of tenants in processes of their own: they behave as in the server's, are confined, and come back when they end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::client::{PATIENCE, Reply};
use crate::requests::{ask as admin, found};
use crate::server::{Server, app_folder, packages, project, wasgi};

/// A user that no other test, and nobody else, is.
const UID: u32 = 47_110;

/// Apps `one` and `two`, in groups of their own, and `here`, which is in none.
struct Grouped {
    server: Server,
    /// Names of groups are folders' names, and tests run side by side.
    group: String,
}

fn fresh_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed))
}

impl Grouped {
    /// `app` is added to the app.toml of each, `group` to the groups' tables.
    fn start(app: &str, group: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the test");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["one", "two", "here"] {
            let folder = dir.path().join("tenants").join(name);
            fs::create_dir_all(folder.join("data")).expect("a folder");
            fs::copy(app_folder("grouped").join("app.py"), folder.join("app.py")).expect("app.py");
            let text = format!(
                "[app]\nwsgi-file = \"app.py\"\nworkers = 2\n[files]\n\"/data\" = {{ path = \"data\", write = true }}\n\
                 [app.env]\nSECRET = {{ value = \"hush {name}\", secret = true }}\n{app}"
            );
            fs::write(folder.join("app.toml"), text).expect("app.toml");
            if geteuid().is_root() {
                chown(folder.join("data"), Some(UID), Some(UID)).expect("chown");
            }
        }
        let name = fresh_name();
        let server = format!(
            "apps = [\"tenants/*/app.toml\"]\nhosts = [\"{{name}}.test\"]\n[listen]\nhttp = \"127.0.0.1:0\"\n\
             [admin]\nsocket = \"admin.sock\"\n[app.one]\ngroup = \"{name}-1\"\n[app.two]\ngroup = \"{name}-2\"\n\
             [group.{name}-1]\n{group}\n[group.{name}-2]\n{group}\n"
        );
        fs::write(dir.path().join("server.toml"), server).expect("server.toml");
        let mut command = wasgi();
        command.arg("serve").arg(dir.path().join("server.toml"));
        let server = Server::spawn(dir, &mut command);
        server.log.wait_for(0, "3 apps looked at in ");
        Self { server, group: name }
    }

    fn ask(&self, app: &str, target: &str) -> Reply {
        ask(&self.server, app, "GET", target, b"")
    }

    /// The process of an app's group, the newest that the log tells of.
    fn pid(&self, app: &str, since: usize) -> Pid {
        let number = if app == "one" { 1 } else { 2 };
        let start = format!("group {}-{number}: process ", self.group);
        let line = self.server.log.wait_for(since, &start);
        let pid = line.split(&start).nth(1).and_then(|rest| rest.split(' ').next());
        Pid::from_raw(pid.expect("a number").parse().expect("a number")).expect("not 0")
    }

    fn folder(&self, app: &str) -> PathBuf {
        self.server.dir.path().join("tenants").join(app)
    }

    /// Where a group keeps its images: as the server's user, or as another.
    fn homes(&self, number: u32) -> [PathBuf; 2] {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        ["wasgi/groups", "wasgi-groups"]
            .map(|groups| cache.join(groups).join(format!("{}-{number}", self.group)))
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        for home in [1, 2].into_iter().flat_map(|number| self.homes(number)) {
            let _ = fs::remove_dir_all(home);
        }
    }
}

fn ask(server: &Server, app: &str, method: &str, target: &str, body: &[u8]) -> Reply {
    let mut connection = server.connect();
    let length = body.len();
    connection.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: {app}.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    ));
    let sent = connection.send_meanwhile(body.to_vec());
    let reply = connection.reply();
    sent.join().expect("sent");
    reply
}

#[test]
fn an_app_in_a_group_behaves_as_in_the_servers_process() {
    let grouped = Grouped::start("[limits]\ntime = \"2s\"\nmemory = \"96MiB\"\n", "");
    let large: Vec<u8> = (0..3_000_000u32).map(|byte| byte as u8).collect();
    let sum: u64 = large.iter().map(|byte| u64::from(*byte)).sum();
    let code = fs::read(app_folder("grouped").join("app.py")).expect("app.py");
    for app in ["here", "one"] {
        let get = |path: &str| grouped.ask(app, path).expect(200);
        assert_eq!(get("/").text(), "hello");
        assert_eq!(get("/secret").text(), format!("hush {app}"));
        assert_eq!(get("/stream").text(), "piece 0\npiece 1\npiece 2\n");
        let long = get("/long").body;
        assert_eq!((long.len(), long[65_535], long[127 * 65_536]), (11 << 20, 0, 127));
        let one = get("/one");
        assert_eq!(
            (one.header("content-length"), one.body.len()),
            (Some("100000"), 100_000)
        );
        assert_eq!(get("/file").body, code);
        assert_eq!(get("/write").text(), "1");
        assert_eq!(get("/temp").text(), "['note']");
        assert_eq!(get("/passwd").text(), "FileNotFoundError");
        let uploaded = ask(&grouped.server, app, "POST", "/upload", &large).expect(200);
        assert_eq!(uploaded.text(), sum.to_string());
        let head = ask(&grouped.server, app, "HEAD", "/one", b"");
        assert_eq!(head.status(), 200);

        let mark = grouped.server.log.mark();
        get("/say");
        grouped.server.log.wait_for(mark, "said by the app");
        grouped.server.log.wait_for(mark, "and by its errors");
        for (path, status, told) in [
            ("/raise", 500, "LookupError: raised on purpose"),
            ("/bad", 500, "not bytes"),
            ("/busy", 504, "time limit of 2s reached"),
            ("/memory", 500, "memory limit of 96 MiB reached"),
            ("/exit", 500, "the app ended its interpreter with exit code 3"),
        ] {
            let mark = grouped.server.log.mark();
            grouped.ask(app, path).expect(status);
            if path != "/bad" {
                let line = grouped.server.log.wait_for(mark, told);
                assert!(line.contains(app), "{line}");
            }
            assert_eq!(get("/").text(), "hello", "after {path}");
        }
    }
}

#[test]
fn flask_runs_in_a_group_and_each_request_finds_it_fresh() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let folder = dir.path().join("tenants/shop");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(
        folder.join("app.py"),
        "from flask import Flask, request\napp = Flask(__name__)\nseen = []\n\n@app.post('/add/<word>')\n\
         def add(word):\n    seen.append(word + request.form['more'])\n    return {'seen': seen}\n",
    )
    .expect("app.py");
    let packages = packages();
    let text =
        format!("[app]\nmodule = \"app:app\"\nisolation = \"request\"\npython-path = [{packages:?}]\n");
    fs::write(folder.join("app.toml"), text).expect("app.toml");
    let name = fresh_name();
    let text = format!(
        "apps = [\"tenants/*/app.toml\"]\ngrant = [{packages:?}]\nhosts = [\"{{name}}.test\"]\n\
         [listen]\nhttp = \"127.0.0.1:0\"\n[defaults]\ngroup = \"{name}\"\n[group.{name}]\n"
    );
    fs::write(dir.path().join("server.toml"), text).expect("server.toml");
    let mut command = wasgi();
    command.arg("serve").arg(dir.path().join("server.toml"));
    let server = Server::spawn(dir, &mut command);
    for word in ["a", "b", "c"] {
        let mut connection = server.connect();
        connection.send(format!(
            "POST /add/{word} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 6\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\nmore=1"
        ));
        let seen = connection.reply().expect(200).json();
        assert_eq!(seen["seen"], serde_json::json!([format!("{word}1")]));
    }
}

#[test]
fn a_process_that_is_killed_takes_no_other_with_it_and_is_started_anew() {
    let grouped = Grouped::start("", "");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbours: Vec<_> = ["two", "here"]
            .map(|app| {
                let (grouped, over) = (&grouped, &over);
                scope.spawn(move || {
                    let mut asked = 0;
                    while !over.load(Relaxed) {
                        assert_eq!(grouped.ask(app, "/").expect(200).text(), "hello");
                        asked += 1;
                    }
                    asked
                })
            })
            .into();
        for _ in 0..3 {
            assert_eq!(grouped.ask("one", "/count").expect(200).status(), 200);
            let mark = grouped.server.log.mark();
            let pid = newest(&grouped);
            let running = scope.spawn(|| grouped.ask("one", "/busy"));
            found(&grouped.server, "/busy", "guest");
            kill_process(pid, Signal::KILL).expect("it is there");
            let reply = running.join().expect("asks").expect(502);
            let id = reply.header("x-request-id").expect("an id").to_owned();
            assert!(reply.text().contains(&id), "{}", reply.text());
            let told = grouped
                .server
                .log
                .wait_for(mark, "was ended by signal 9 (SIGKILL); its running requests fail");
            grouped
                .server
                .log
                .wait_for(mark, &format!("[{id}]: its process ended"));
            assert!(
                told.contains(&format!("its process {} ", pid.as_raw_nonzero())),
                "{told}"
            );
            // Requests that come meanwhile wait for the next process.
            let deadline = Instant::now() + PATIENCE;
            while grouped.ask("one", "/").status() != 200 {
                assert!(Instant::now() < deadline, "the group does not answer again");
            }
        }
        over.store(true, Relaxed);
        for neighbour in neighbours {
            assert!(neighbour.join().expect("a neighbour lost a request") > 3);
        }
    });
}

/// The process of `one`'s group that runs now.
fn newest(grouped: &Grouped) -> Pid {
    let start = format!("group {}-1: process ", grouped.group);
    let lines = grouped.server.log.since(0);
    let line = lines.iter().rev().find(|line| line.contains(&start));
    let pid = line.and_then(|line| line.split(&start).nth(1)?.split(' ').next()?.parse().ok());
    Pid::from_raw(pid.expect("a process")).expect("not 0")
}

#[test]
fn its_requests_are_listed_with_what_they_cost_and_ended() {
    let grouped = Grouped::start("[limits]\ntime = \"10m\"\n", "");
    let send = |target: &str| {
        let mut connection = grouped.server.connect();
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: one.test\r\n\r\n"));
        connection
    };
    let (mut busy, _asleep) = (send("/busy"), send("/nap"));
    found(&grouped.server, "/nap", "sleep");
    let deadline = Instant::now() + PATIENCE;
    let request = loop {
        let request = found(&grouped.server, "/busy", "guest");
        if request["cpu_ms"].as_f64() > Some(50.0) {
            break request;
        }
        assert!(Instant::now() < deadline, "{request}");
    };
    let memory = request["memory"].as_u64().expect("a number");
    assert!((1 << 20..256 << 20).contains(&memory), "{request}");
    let (id, mark) = (request["id"].as_str().expect("an id"), grouped.server.log.mark());
    let told = admin(&grouped.server, &["kill", &format!("one/{id}")]);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    assert_eq!(busy.reply().expect(503).header("x-request-id"), Some(id));
    let killed = "wasgi.limit.Killed: the operator has ended the request";
    grouped.server.log.wait_for(mark, killed);
}

#[test]
fn a_process_has_nothing_of_the_servers_or_another_groups_open() {
    let grouped = Grouped::start("", "");
    let pid = newest(&grouped).as_raw_nonzero();
    grouped.ask("one", "/write").expect(200);
    // A socket of a network would be in one of these tables.
    let net: String = ["tcp", "tcp6", "udp", "udp6"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .concat();
    let python = project().join("target/python");
    let own = [
        grouped.folder("one"),
        grouped.homes(1)[0].clone(),
        fs::canonicalize(&python).unwrap_or(python),
    ];
    let mut seen = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("proc is there")
        .flatten()
    {
        // One that is closed meanwhile is of no interest.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        seen += 1;
        let text = target.display().to_string();
        if let Some(inode) = text.strip_prefix("socket:[") {
            let inode = inode.trim_end_matches(']');
            assert!(!net.split_whitespace().any(|field| field == inode), "{text}");
            continue;
        }
        let is_nameless = ["pipe:", "anon_inode:", "/memfd:", "/dev/null"]
            .iter()
            .any(|start| text.starts_with(start));
        let is_its = own.iter().any(|folder| target.starts_with(folder));
        let is_rest = text.ends_with(".cwasm") || text == format!("/proc/{pid}/pagemap");
        assert!(is_nameless || is_its || is_rest, "{text}");
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn a_process_that_does_not_answer_is_ended() {
    let grouped = Grouped::start("", "");
    let (pid, mark) = (newest(&grouped), grouped.server.log.mark());
    kill_process(pid, Signal::STOP).expect("it is there");
    let line = grouped.server.log.wait_for(mark, "has not answered for ");
    assert!(
        line.contains(&format!("its process {} ", pid.as_raw_nonzero())),
        "{line}"
    );
    let deadline = Instant::now() + PATIENCE;
    while grouped.ask("one", "/").status() != 200 {
        assert!(Instant::now() < deadline, "the group does not answer again");
    }
}

#[test]
fn processes_end_with_the_server_however_it_ends() {
    for signal in [Signal::TERM, Signal::KILL] {
        let grouped = Grouped::start("", "");
        let pids = [grouped.pid("one", 0), grouped.pid("two", 0)];
        grouped.server.signal(signal);
        grouped.server.wait(PATIENCE);
        let deadline = Instant::now() + PATIENCE;
        for pid in pids {
            while fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                .is_ok_and(|command| command.contains("group-process"))
            {
                assert!(Instant::now() < deadline, "a process is left");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_running_request_is_finished_when_the_server_stops() {
    let grouped = Grouped::start("", "");
    let mut connection = grouped.server.connect();
    connection.send("GET /stream HTTP/1.1\r\nHost: one.test\r\n\r\n");
    connection.head_to("GET");
    // As a service manager does, to all of its processes.
    kill_process(grouped.pid("one", 0), Signal::TERM).expect("it is there");
    grouped.server.signal(Signal::TERM);
    let rest = String::from_utf8(connection.rest()).expect("text");
    assert!(rest.contains("piece 2"), "{rest}");
    assert!(grouped.server.wait(PATIENCE).success());
}

#[test]
fn an_app_that_joins_or_moves_gets_a_process_that_may_see_it() {
    let grouped = Grouped::start("", "");
    let first = grouped.pid("one", 0);
    // Loaded anew, with nothing that is new to see: the same process.
    let mark = grouped.server.log.mark();
    grouped.server.signal(Signal::HUP);
    grouped.server.log.wait_for(mark, "reload: 3 apps, 0 failed");
    assert_eq!(grouped.ask("one", "/").expect(200).text(), "hello");
    assert_eq!(newest(&grouped), first);

    // As a deployment does it: a new folder under the old name.
    let (folder, new) = (grouped.folder("one"), grouped.folder(".new"));
    fs::create_dir_all(new.join("data")).expect("a folder");
    for name in ["app.py", "app.toml"] {
        let text = fs::read_to_string(folder.join(name)).expect("text");
        fs::write(new.join(name), text.replace("b\"hello\"", "b\"moved\"")).expect("a file");
    }
    fs::rename(&folder, grouped.folder(".old")).expect("moved away");
    fs::rename(&new, &folder).expect("moved");
    let mark = grouped.server.log.mark();
    grouped.server.signal(Signal::HUP);
    grouped.server.log.wait_for(mark, "reload: 3 apps, 0 failed");
    assert_eq!(grouped.ask("one", "/").expect(200).text(), "moved");
    let second = newest(&grouped);
    assert_ne!(second, first);
}

/// A line of `/proc/PID/status`.
fn status(pid: Pid, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("proc is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("the kernel tells").trim().to_owned()
}

#[test]
fn a_process_is_its_users_and_can_get_no_more() {
    let is_root = geteuid().is_root();
    let user = if is_root {
        format!("user = \"{UID}\"\n")
    } else {
        String::new()
    };
    let grouped = Grouped::start("", &user);
    let pid = grouped.pid("one", 0);
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    for thread in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))
        .expect("threads")
        .flatten()
    {
        let text = fs::read_to_string(thread.path().join("status")).expect("status");
        assert!(
            text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"),
            "{text}"
        );
    }
    if is_root {
        for name in ["Uid", "Gid"] {
            let all = [UID; 4].map(|uid| uid.to_string()).join("\t");
            assert_eq!(status(pid, name), all);
        }
        assert_eq!(status(pid, "Groups"), "");
        for name in ["CapEff", "CapPrm", "CapAmb"] {
            assert_eq!(status(pid, name), "0000000000000000", "{name}");
        }
        assert_eq!(grouped.ask("one", "/write").expect(200).text(), "1");
        let note = fs::metadata(grouped.folder("one").join("data/note")).expect("written");
        assert_eq!(note.uid(), UID);
    }
    // What the secrets are is in no place that other users, or the command line, tell.
    for place in ["cmdline", "environ"] {
        let text =
            fs::read_to_string(format!("/proc/{}/{place}", pid.as_raw_nonzero())).expect("proc is there");
        assert!(!text.contains("hush"), "{place}: {text}");
    }
}

#[test]
fn another_user_is_roots_to_give() {
    if geteuid().is_root() {
        return;
    }
    let dir: TempDir = tempfile::tempdir().expect("a folder");
    let text = "apps = [\"*/app.toml\"]\n[group.a]\nuser = \"47110\"\n";
    fs::write(dir.path().join("server.toml"), text).expect("server.toml");
    let mut command = wasgi();
    let run = crate::server::run(command.arg("serve").arg(dir.path().join("server.toml")), PATIENCE);
    assert_eq!(run.code(), 2);
    assert!(run.stderr.contains("group.a.user: only root"), "{}", run.stderr);
}
