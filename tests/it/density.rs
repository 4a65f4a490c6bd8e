//! Many apps on one machine: their images, made side by side, and a server that holds only those that somebody asks for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::server::{Server, bare_wasgi, packages, run, wasgi};

const TIME: Duration = Duration::from_secs(300);

/// Distinct Flask apps that share their packages, and a cache of their own.
struct Farm {
    dir: TempDir,
    count: usize,
}

impl Farm {
    fn new(count: usize) -> Self {
        // Has the machine code made, where links can be made to it.
        wasgi();
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::tempdir_in(tmp).expect("a folder for the test");
        let farm = Self { dir, count };
        fs::create_dir_all(farm.at("cache/wasgi")).expect("a folder for the test");
        for folder in ["cache", "cache/wasgi"] {
            fs::set_permissions(farm.at(folder), Permissions::from_mode(0o700)).expect("chmod");
        }
        for entry in fs::read_dir(tmp.join("cache/wasgi")).expect("the tests' cache") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_file() {
                fs::hard_link(entry.path(), farm.at("cache/wasgi").join(entry.file_name())).expect("link");
            }
        }
        for number in 0..count {
            let code = format!(
                "from flask import Flask\n\napp = Flask(__name__)\nseen = []\n\n\n@app.get(\"/\")\n\
                 def view_{number}():\n    seen.append(1)\n    return f\"app {number}, visit {{len(seen)}}\"\n\n\n\
                 @app.get(\"/slow\")\ndef slow():\n    import time\n    print(\"it begins\")\n    time.sleep(1)\n    return \"slow\"\n"
            );
            farm.write(number, &code, "");
        }
        farm
    }

    fn write(&self, number: usize, code: &str, more: &str) {
        let folder = self.folder(number);
        fs::create_dir_all(&folder).expect("a folder for the app");
        let toml = format!(
            "[app]\nmodule = \"app:app\"\npython-path = [{:?}]\nworkers = 1\nsnapshot-cache = true\nwarmup = [\"/\"]\n{more}",
            packages()
        );
        fs::write(folder.join("app.toml"), toml).expect("app.toml");
        fs::write(folder.join("app.py"), code).expect("app.py");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn folder(&self, number: usize) -> PathBuf {
        self.at(&format!("tenants/app-{number}"))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = bare_wasgi();
        command.env("XDG_CACHE_HOME", self.at("cache")).arg(name);
        command
    }

    /// The file of a server of all apps, each at a host of its name; `more` are further lines.
    fn server(&self, more: &str) -> PathBuf {
        let file = self.at("server.toml");
        let toml = format!(
            "apps = [\"tenants/*/app.toml\"]\nhosts = [\"{{name}}.test\"]\ngrant = [{:?}]\n{more}\n\
             [listen]\nhttp = \"127.0.0.1:0\"\n",
            packages()
        );
        fs::write(&file, toml).expect("server.toml");
        file
    }

    #[track_caller]
    fn serve(&self, more: &str) -> Server {
        let mut command = self.command("serve");
        command.arg(self.server(more));
        Server::spawn(tempfile::tempdir().expect("a folder"), &mut command)
    }

    fn build(&self) -> Command {
        let mut command = self.command("build");
        command.args((0..self.count).map(|number| self.folder(number).join("app.toml")));
        command
    }
}

#[test]
fn images_of_many_apps_are_made_side_by_side_and_bad_ones_stop_nobody() {
    let farm = Farm::new(5);
    farm.write(1, "def app(:\n", "");
    farm.write(3, "", "wrokers = 1\n");
    let built = run(farm.build().args(["--jobs", "2"]), TIME);
    let (out, err) = (&built.stdout, &built.stderr);
    assert_eq!(built.code(), 1, "{out}{err}");
    let line = |number: usize| {
        let name = format!("app-{number}/app.toml ");
        let line = out.lines().find(|line| line.contains(&name));
        line.unwrap_or_else(|| panic!("no line for {name}: {out}"))
            .to_owned()
    };
    for number in [0, 2, 4] {
        assert!(
            line(number).contains(" made ") && line(number).ends_with(" MiB"),
            "{out}"
        );
    }
    assert!(
        line(1).contains(" failed ") && line(1).contains("SyntaxError"),
        "{out}"
    );
    assert!(
        line(3).contains(" failed ") && line(3).contains("configuration"),
        "{out}"
    );
    assert!(
        out.contains("\n5 apps: 3 made, 0 up to date, 2 failed; "),
        "{out}"
    );
    assert!(err.contains("app app-1 ") && err.contains("SyntaxError"), "{err}");
    assert!(
        err.contains("unknown key") && err.contains("did you mean workers?"),
        "{err}"
    );
    assert!(err.contains("[5/5] "), "{err}");

    farm.write(1, "def app(environ, start_response):\n    pass\n", "");
    farm.write(3, "def app(environ, start_response):\n    pass\n", "");
    let again = run(&mut farm.build(), TIME);
    assert_eq!(again.code(), 0, "{}{}", again.stdout, again.stderr);
    assert!(
        again
            .stdout
            .contains("\n5 apps: 2 made, 3 up to date, 0 failed; "),
        "{}",
        again.stdout
    );
}

#[test]
fn a_servers_images_are_made_ahead_of_time_as_it_would_make_them() {
    let farm = Farm::new(3);
    let file = farm.server("");
    let built = run(farm.command("build").arg(&file), TIME);
    assert_eq!(built.code(), 0, "{}{}", built.stdout, built.stderr);
    assert!(
        built
            .stdout
            .contains("\n3 apps: 3 made, 0 up to date, 0 failed; "),
        "{}",
        built.stdout
    );
    let server = farm.serve("");
    for number in 0..3 {
        expect(&server, number, 1);
    }
    assert!(!server.log.has(0, "importing the app"), "{}", server.log.all());
}

#[test]
fn an_app_has_an_instance_only_while_somebody_asks_for_it() {
    let farm = Farm::new(30);
    let built = run(farm.command("build").arg(farm.server("")), TIME);
    assert_eq!(built.code(), 0, "{}{}", built.stdout, built.stderr);

    let server = farm.serve("idle-timeout = \"5s\"");
    let before = own_memory(&server);
    for number in 0..30 {
        expect(&server, number, 1);
        expect(&server, number, 2);
    }
    let busy = own_memory(&server);
    // What the engine takes to begin with stays.
    let less = busy - (busy - before) / 3;
    let deadline = Instant::now() + TIME;
    while own_memory(&server) > less {
        assert!(
            Instant::now() < deadline,
            "{before} {busy} {}",
            own_memory(&server)
        );
        thread::sleep(Duration::from_millis(100));
    }
    // An instance that is new knows nothing of the visits before.
    for number in 0..30 {
        expect(&server, number, 1);
    }
    assert!(!server.log.has(0, "importing the app"), "{}", server.log.all());
}

#[test]
fn when_memory_is_short_who_was_asked_last_stays() {
    let farm = Farm::new(8);
    let built = run(farm.command("build").arg(farm.server("")), TIME);
    assert_eq!(built.code(), 0, "{}{}", built.stdout, built.stderr);

    let server = farm.serve("memory = \"12MiB\"");
    for number in 0..8 {
        expect(&server, number, 1);
    }
    expect(&server, 7, 2);
    expect(&server, 0, 1);
    server.signal(Signal::TERM);
    server.wait(TIME);
    assert!(server.log.has(0, "for others' memory"), "{}", server.log.all());
}

#[test]
fn requests_wait_for_memory_that_another_app_is_using() {
    let farm = Farm::new(2);
    let server = farm.serve("memory = \"1MiB\"");
    expect(&server, 1, 1);
    let mut slow = server.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: app-0.test\r\nConnection: close\r\n\r\n");
    // Its instance is there, and the other's has gone for it.
    server.log.wait_for(0, "it begins");
    expect(&server, 1, 1);
    slow.reply().expect(200);
    expect(&server, 0, 1);
}

#[test]
fn a_first_request_does_not_wait_for_what_the_server_does_ahead_of_time() {
    let farm = Farm::new(4);
    let built = run(farm.command("build").arg(farm.server("")), TIME);
    assert_eq!(built.code(), 0, "{}{}", built.stdout, built.stderr);
    // The first to be looked at: its import ends when the test says so, and none is beside it.
    let waits = "import os, time\nprint(\"it begins\")\nwhile not os.path.exists(\"/data/go\"):\n    time.sleep(0.01)\n\n\n\
                 def app(environ, start_response):\n    start_response(\"200 OK\", [])\n    return [b\"late\"]\n";
    let data = farm.folder(0).join("data");
    fs::create_dir(&data).expect("mkdir");
    farm.write(
        0,
        waits,
        "\n[files]\n\"/data\" = { path = \"data\", write = true }\n",
    );
    let server = farm.serve("builders = 1");
    server.log.wait_for(0, "it begins");
    for number in 1..4 {
        expect(&server, number, 1);
    }
    let all_done = "4 apps looked at in ";
    assert!(!server.log.has(0, all_done), "{}", server.log.all());
    fs::write(data.join("go"), "").expect("write");
    server.log.wait_for(0, all_done);
    assert!(!server.log.has(0, "app app-1: importing"), "{}", server.log.all());
}

/// The app's count of visits in the instance that it has, after those of the warm-up.
#[track_caller]
fn expect(server: &Server, number: usize, visit: usize) {
    let mut connection = server.connect();
    connection.send(format!(
        "GET / HTTP/1.1\r\nHost: app-{number}.test\r\nConnection: close\r\n\r\n"
    ));
    let text = connection.reply().expect(200).text();
    assert_eq!(text, format!("app {number}, visit {}", 20 + visit));
}

/// Memory of no file and no other process, in bytes.
fn own_memory(server: &Server) -> usize {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid())).expect("proc is there");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let text = line.expect("a figure").trim().trim_end_matches(" kB");
    text.parse::<usize>().expect("a number") << 10
}
