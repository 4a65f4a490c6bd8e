//! A `server.toml` and the apps of owners who do not trust each other: where each is served, and how they come, change, fail
//! and go.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::{PATIENCE, Reply};
use crate::server::{Server, run, wasgi};

const LEAST: &str = "[app]\nmodule = \"app:app\"\n";

/// The folder of a server whose tenants are in `tenants/`.
pub struct Host(TempDir);

impl Host {
    pub fn new(server: &str) -> Self {
        let host = Self(tempfile::tempdir().expect("a folder for the test"));
        host.write(
            "server.toml",
            &format!("apps = [\"tenants/*/app.toml\"]\n{server}\n[listen]\nhttp = \"127.0.0.1:0\"\n"),
        );
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
        // In one go, as an editor or a deployment does.
        let new = path.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, path).expect("its name");
    }

    /// An app that answers with `says`, SCRIPT_NAME and PATH_INFO.
    pub fn app(&self, name: &str, toml: &str, says: &str) {
        self.write(&format!("tenants/{name}/app.py"), &code(says));
        self.write(&format!("tenants/{name}/app.toml"), toml);
    }

    pub fn start(self) -> Server {
        let mut command = wasgi();
        command.arg("serve").arg(self.path("server.toml"));
        Server::spawn(self.0, &mut command)
    }
}

fn code(says: &str) -> String {
    format!(
        "def app(environ, start_response):\n    start_response(\"200 OK\", [(\"Content-Type\", \"text/plain\")])\n    \
         return [f\"{says} {{environ['SCRIPT_NAME']}} {{environ['PATH_INFO']}}\".encode(\"latin-1\")]\n"
    )
}

/// As another host of the same server.
pub trait Ask {
    fn ask(&self, host: &str, path: &str) -> Reply;
    fn wait_for_reply(&self, host: &str, path: &str, what: &str, is: impl Fn(&Reply) -> bool) -> Reply;
    fn rewrite(&self, name: &str, text: &str);
}

impl Ask for Server {
    fn ask(&self, host: &str, path: &str) -> Reply {
        let mut connection = self.connect();
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
        connection.reply()
    }

    #[track_caller]
    fn wait_for_reply(&self, host: &str, path: &str, what: &str, is: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.ask(host, path);
            if is(&reply) {
                return reply;
            }
            assert!(
                Instant::now() < deadline,
                "{what} does not come:\n{}",
                self.log.all()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn rewrite(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        let new = path.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, path).expect("its name");
    }
}

#[test]
fn hosts_and_mounts_lead_to_their_apps() {
    let host = Host::new("");
    host.app(
        "shop",
        &format!("{LEAST}hosts = [\"shop.test\", \"*.shop.test\"]\n"),
        "shop",
    );
    host.app(
        "wiki",
        &format!("{LEAST}hosts = [\"shop.test\"]\nmount = \"/wiki\"\n"),
        "wiki",
    );
    host.app("any", &format!("{LEAST}mount = \"/any\"\n"), "any");
    let server = host.start();
    for (name, path, says) in [
        ("shop.test", "/", "shop  /"),
        ("SHOP.test:8000", "/wikipedia", "shop  /wikipedia"),
        ("a.b.shop.test", "/x", "shop  /x"),
        ("shop.test", "/wiki/a%20b?c", "wiki /wiki /a b"),
        ("shop.test", "/%77iki/", "wiki /wiki /"),
        ("other.test", "/any/", "any /any /"),
    ] {
        assert_eq!(server.ask(name, path).expect(200).text(), says, "{name}{path}");
    }
    let redirect = server.ask("shop.test", "/wiki?a=b").expect(301);
    assert_eq!(redirect.header("location"), Some("/wiki/?a=b"));
    let posted = server
        .request("POST", "/any", "Content-Length: 2\r\n", b"ab")
        .expect(308);
    assert_eq!(posted.header("location"), Some("/any/"));
    let nobody = server.ask("other.test", "/").expect(404);
    assert!(nobody.text().contains("no app is served"), "{}", nobody.text());
    let line = server.log.wait_for(0, "\"GET /any/ ");
    assert!(line.contains(" app=any worker="), "{line}");
}

#[test]
fn an_app_that_fails_stops_no_other_and_is_tried_again_when_its_files_change() {
    let host = Host::new("hosts = [\"{name}.test\"]\n[caps]\ntime = \"5s\"");
    host.app("good", LEAST, "good");
    host.app("broken", LEAST, "broken");
    host.write("tenants/broken/app.py", "import nowhere\n");
    host.app("greedy", &format!("{LEAST}[limits]\ntime = \"6s\"\n"), "greedy");
    let server = host.start();
    server.log.wait_for(0, "3 apps looked at in ");
    assert_eq!(server.ask("good.test", "/").expect(200).text(), "good  /");
    for (name, why) in [
        ("broken", "ModuleNotFoundError: No module named 'nowhere'"),
        ("greedy", "its app.toml is wrong"),
    ] {
        let reply = server.ask(&format!("{name}.test"), "/").expect(503);
        assert!(reply.header("retry-after").is_some());
        let text = reply.text();
        let id = text.trim_end().rsplit(' ').next().expect("the request's id");
        server
            .log
            .wait_until(0, "the reason under the request's id", |line| {
                line.contains(id) && line.contains(why)
            });
    }
    server.log.wait_for(0, "Traceback");
    server
        .log
        .wait_for(0, "app.toml:4: limits.time: 6s passes the operator's cap of 5s");

    server.rewrite("tenants/broken/app.py", &code("mended"));
    let is_served = |reply: &Reply| reply.status() == 200;
    let reply = server.wait_for_reply("broken.test", "/", "the mended app", is_served);
    assert_eq!(reply.text(), "mended  /");
    server.rewrite("tenants/greedy/app.toml", LEAST);
    server.wait_for_reply("greedy.test", "/", "the modest app", is_served);
}

#[test]
fn a_file_that_is_dropped_in_is_served_and_one_taken_out_goes() {
    let host = Host::new("hosts = [\"{name}.test\"]");
    host.app("first", LEAST, "first");
    let server = host.start();
    server.ask("second.test", "/").expect(404);
    let folder = server.dir.path().join("tenants/second");
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("app.py"), code("second")).expect("app.py");
    server.rewrite("tenants/second/app.toml", LEAST);
    let reply = server.wait_for_reply("second.test", "/", "the new app", |reply| reply.status() == 200);
    assert_eq!(reply.text(), "second  /");
    fs::remove_file(folder.join("app.toml")).expect("rm");
    server.wait_for_reply("second.test", "/", "its end", |reply| reply.status() == 404);
    server.log.wait_for(0, "app second: gone");
    server.ask("first.test", "/").expect(200);
}

#[test]
fn of_two_apps_for_one_route_the_first_is_served_and_both_are_named() {
    let host = Host::new("");
    host.app("one", &format!("{LEAST}hosts = [\"a.test\"]\n"), "one");
    let server = host.start();
    server.ask("a.test", "/").expect(200);
    // A name that comes first does not help.
    let thief = server.dir.path().join("tenants/a-thief");
    fs::create_dir_all(&thief).expect("a folder");
    fs::write(thief.join("app.py"), code("thief")).expect("app.py");
    server.rewrite(
        "tenants/a-thief/app.toml",
        &format!("{LEAST}hosts = [\"a.test\"]\n"),
    );
    let line = server.log.wait_for(0, "are both to be served at a.test/");
    assert!(
        line.contains("tenants/one/app.toml and ") && line.contains("tenants/a-thief/app.toml"),
        "{line}"
    );
    assert_eq!(server.ask("a.test", "/").expect(200).text(), "one  /");
    fs::remove_file(server.dir.path().join("tenants/one/app.toml")).expect("rm");
    server.wait_for_reply("a.test", "/", "the other app", |reply| reply.text() == "thief  /");
}

#[test]
fn a_reload_takes_new_code_and_keeps_the_old_if_that_is_broken() {
    let host = Host::new("hosts = [\"{name}.test\"]\n");
    host.app("shop", LEAST, "old");
    let server = host.start();
    assert_eq!(server.ask("shop.test", "/").expect(200).text(), "old  /");
    server.rewrite("tenants/shop/app.py", &code("new"));
    server.signal(Signal::HUP);
    server.wait_for_reply("shop.test", "/", "the new code", |reply| reply.text() == "new  /");

    for (broken, why) in [
        ("raise ValueError('at import')\n", "ValueError: at import"),
        (
            "def app(environ, start_response):\n    raise ValueError('at the probe')\n",
            "probe /: ",
        ),
    ] {
        let mark = server.log.mark();
        server.rewrite("tenants/shop/app.py", broken);
        server.signal(Signal::HUP);
        let line = server
            .log
            .wait_for(mark, "not loaded anew, what was loaded before goes on");
        assert!(line.contains(why), "{line}");
        server.log.wait_for(mark, "reload: 1 apps, 1 failed");
        assert_eq!(server.ask("shop.test", "/").expect(200).text(), "new  /");
    }
}

#[test]
fn an_app_that_is_watched_is_loaded_anew_when_a_file_changes() {
    let host = Host::new("hosts = [\"{name}.test\"]\n");
    host.app("shop", &format!("{LEAST}watch = true\n"), "old");
    let server = host.start();
    assert_eq!(server.ask("shop.test", "/").expect(200).text(), "old  /");
    server.rewrite("tenants/shop/app.py", &code("new"));
    server.wait_for_reply("shop.test", "/", "the new code", |reply| reply.text() == "new  /");
}

#[test]
fn a_reload_tells_what_waits_for_a_restart() {
    let host = Host::new("memory = \"1GiB\"");
    host.app("shop", &format!("{LEAST}mount = \"/shop\"\n"), "shop");
    let server = host.start();
    let before = fs::read_to_string(server.dir.path().join("server.toml")).expect("is there");
    let reload = |text: &str| {
        let mark = server.log.mark();
        server.rewrite("server.toml", text);
        server.signal(Signal::HUP);
        server.log.wait_for(mark, "reload: 1 apps, 0 failed");
        let waits = |line: &String| line.contains("a reload does not take that over");
        server
            .log
            .since(mark)
            .into_iter()
            .filter(waits)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reload(&format!("{before}\n[defaults]\nworkers = 3\n")),
        Vec::<String>::new()
    );
    let told = reload(&format!(
        "{}redirect = []\n[proxy]\ntrust = [\"10.0.0.0/8\"]\n",
        before.replace("127.0.0.1:0", "127.0.0.1:1")
    ));
    let file = server.dir.path().join("server.toml");
    let expected = [
        "4: listen.http: has changed",
        "5: listen.redirect: is new",
        "7: proxy.trust: is new",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        let start = format!("warning: {}:{expected}; ", file.display());
        assert!(told.starts_with(&start), "{told} is not {start}");
        assert!(
            told.contains("restart the server") && told.contains("kill -USR2"),
            "{told}"
        );
    }
    server.ask("a.test", "/shop/").expect(200);
}

#[test]
fn several_apps_of_one_owner_are_served_by_name() {
    let host = Host::new("");
    host.app(
        "shop",
        &format!("{LEAST}hosts = [\"shop.test\"]\n[listen]\nhttp = \"127.0.0.1:0\"\n"),
        "shop",
    );
    host.app(
        "wiki",
        &format!("{LEAST}mount = \"/wiki\"\n[listen]\nhttp = \"127.0.0.1:0\"\n"),
        "wiki",
    );
    let mut command = wasgi();
    command
        .arg("serve")
        .args(["shop", "wiki"].map(|name| host.path(&format!("tenants/{name}/app.toml"))));
    let server = Server::spawn(host.0, &mut command);
    assert_eq!(server.ask("shop.test", "/").expect(200).text(), "shop  /");
    assert_eq!(server.ask("x", "/wiki/").expect(200).text(), "wiki /wiki /");
}

#[test]
fn an_operator_reloads_rolls_back_drains_and_resumes_one_app() {
    operate("");
}

#[test]
fn an_operator_does_so_with_an_app_in_a_group() {
    operate(GROUPED);
}

fn operate(defaults: &str) {
    let host = Host::new(&format!(
        "hosts = [\"{{name}}.test\"]\n[admin]\nsocket = \"admin.sock\"\n{defaults}"
    ));
    host.app("shop", LEAST, "old");
    host.app("wiki", LEAST, "wiki");
    let server = host.start();
    let socket = server.dir.path().join("admin.sock");
    let command = |name: &str, app: &str| {
        let mut command = wasgi();
        command.args([name, app, "--admin"]).arg(&socket);
        run(&mut command, PATIENCE)
    };
    let done = |name: &str| {
        let run = command(name, "shop");
        assert_eq!(run.code(), 0, "{name}: {}", run.stderr);
        run.stdout
    };
    let says = |status: u16| server.ask("shop.test", "/").expect(status).text();

    server.log.wait_for(0, "2 apps looked at in ");
    server.rewrite("tenants/shop/app.py", &code("new"));
    assert_eq!(says(200), "old  /");
    assert_eq!(done("reload"), "app shop is loaded anew\n");
    assert_eq!(says(200), "new  /");
    done("rollback");
    assert_eq!(says(200), "old  /");
    done("rollback");
    assert_eq!(says(200), "new  /");

    server.rewrite("tenants/shop/app.py", "1 / 0\n");
    let broken = command("reload", "shop");
    assert_eq!(broken.code(), 1);
    assert!(
        broken.stderr.contains("what was loaded before goes on")
            && broken.stderr.contains("ZeroDivisionError"),
        "{}",
        broken.stderr
    );
    assert_eq!(says(200), "new  /");

    done("drain");
    assert!(says(503).contains("takes no requests at present"));
    server.ask("wiki.test", "/").expect(200);
    done("resume");
    assert_eq!(says(200), "new  /");

    assert!(done("logs").contains("ZeroDivisionError"));
    let nobody = command("reload", "nobody");
    assert_eq!(
        (nobody.code(), nobody.stderr.as_str()),
        (1, "wasgi: there is no app nobody\n")
    );
}

#[test]
fn options_of_an_app_do_not_go_with_a_servers_file() {
    let host = Host::new("");
    for (option, value) in [("--workers", "2"), ("--access-log", "off"), ("--time", "1s")] {
        let mut command = wasgi();
        command
            .arg("serve")
            .arg(host.path("server.toml"))
            .args([option, value]);
        let run = run(&mut command, PATIENCE);
        assert_eq!(run.code(), 2, "{}", run.stderr);
        let said = format!("{option}: does not go with server.toml\n");
        assert!(run.stderr.starts_with(&said), "{}", run.stderr);
    }
}

/// Connections of the load, and requests that it makes at least.
const CONNECTIONS: usize = 64;
const REQUESTS: usize = 100_000;
const RELOADS: usize = 20;

/// Lets the clients stop, whether the test passes or not: who waits for them would wait for ever.
struct StopClients<'a>(&'a AtomicBool);

impl Drop for StopClients<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn reloads_under_load_lose_no_request() {
    reload_under_load("", REQUESTS);
}

#[test]
fn reloads_under_load_lose_no_request_in_a_groups_process() {
    reload_under_load(GROUPED, REQUESTS / 5);
}

/// All apps in one group.
const GROUPED: &str = "[group.tenants-test]\n[defaults]\ngroup = \"tenants-test\"\n";

fn reload_under_load(defaults: &str, requests: usize) {
    let host = Host::new(&format!(
        "hosts = [\"{{name}}.test\"]\n[limits]\nidle-time = \"60s\"\n{defaults}[defaults.limits]\nqueue = 1000\n"
    ));
    host.app("shop", &format!("{LEAST}workers = 2\n"), "load 0");
    let server = host.start();
    server.ask("shop.test", "/").expect(200);
    let done = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !stop.load(SeqCst) {
                    connection.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
                    let reply = connection.reply().expect(200);
                    assert!(
                        reply.complete && reply.text().starts_with("load "),
                        "{}",
                        reply.text()
                    );
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        let _stopped = StopClients(&stop);
        let wait_for = |requests: usize| {
            let deadline = Instant::now() + 10 * PATIENCE;
            while done.load(SeqCst) < requests {
                assert!(Instant::now() < deadline, "{} requests only", done.load(SeqCst));
                thread::sleep(Duration::from_millis(1));
            }
        };
        for round in 1..=RELOADS {
            // Spread over the load.
            wait_for(requests * round / (RELOADS + 1));
            let mark = server.log.mark();
            server.rewrite("tenants/shop/app.py", &code(&format!("load {round}")));
            server.signal(Signal::HUP);
            server.log.wait_for(mark, "reload: 1 apps, 0 failed");
        }
        wait_for(requests);
    });
    assert_eq!(
        server.ask("shop.test", "/").expect(200).text(),
        format!("load {RELOADS}  /")
    );
}
