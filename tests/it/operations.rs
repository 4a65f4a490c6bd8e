//! examples/systemd, supervisor, kubernetes, nginx and envoy, each by the program that it is for, as far as that can be had.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Connection;
use crate::server::{Run, Server, config, folder, project, run, wasgi};

const SOON: Duration = Duration::from_secs(60);

fn example(name: &str) -> String {
    fs::read_to_string(project().join("examples").join(name)).expect("the example is there")
}

fn tool(name: &str) -> Command {
    let path = project().join("target/test-tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `make test-tools` first",
        path.display()
    );
    Command::new(path)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("not run: there is no systemd-analyze here");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let write = |name: &str| {
        // systemd looks whether the program is there.
        let text =
            example(&format!("systemd/{name}")).replace("/usr/local/bin/wasgi", env!("CARGO_BIN_EXE_wasgi"));
        fs::write(dir.path().join(name), text).expect("can be written");
        dir.path().join(name)
    };
    let units: [PathBuf; 2] = ["wasgi.service", "wasgi.socket"].map(write);
    let verified = run(Command::new("systemd-analyze").arg("verify").args(&units), SOON);
    // Of our units: the machine's own may have faults.
    let lines = verified.stderr.lines();
    let ours: Vec<&str> = lines.filter(|line| line.contains("wasgi")).collect();
    assert!(
        verified.status.success() && ours.is_empty(),
        "{}",
        verified.stderr
    );
}

#[test]
fn kubernetes_manifests_fit_their_schemas() {
    let file = project().join("examples/kubernetes/wasgi.yaml");
    let validated = run(tool("kubernetes-validate").arg("--strict").arg(&file), SOON);
    assert!(
        validated.status.success(),
        "{}{}",
        validated.stdout,
        validated.stderr
    );
}

#[test]
fn what_kubernetes_asks_a_node_is_answered_without_an_app() {
    let text = example("kubernetes/wasgi.yaml");
    let lines = text
        .lines()
        .skip_while(|line| !line.contains("server.toml: |"))
        .skip(1);
    let toml: Vec<&str> = lines
        .take_while(|line| *line != "---")
        .map(|line| line.get(4..).unwrap_or_default())
        .collect();
    let toml = toml
        .join("\n")
        .replace("0.0.0.0:8000", "127.0.0.1:0")
        .replace("0.0.0.0:9100", "127.0.0.1:0")
        .replace("/srv/tenants", "tenants");
    let dir = tempfile::tempdir().expect("a folder for the test");
    fs::write(dir.path().join("server.toml"), toml).expect("can be written");
    let mut command = wasgi();
    command
        .arg("serve")
        .arg(dir.path().join("server.toml"))
        .env("ADMIN_TOKEN", "a-token-of-some-length");
    let server = Server::spawn(dir, &mut command);
    let line = server.log.wait_for(0, "admin on http://");
    let (_, admin) = line.split_once("http://").expect("an address");
    let admin: SocketAddr = admin
        .split_whitespace()
        .next()
        .expect("a word")
        .parse()
        .expect("an address");
    let probes: Vec<&str> = text.lines().filter(|line| line.contains("httpGet: ")).collect();
    assert_eq!(probes.len(), 3, "{probes:?}");
    for probe in probes {
        assert!(probe.contains("port: admin"), "{probe}");
        let (_, path) = probe.split_once("path: ").expect("a path");
        let path = path.split(',').next().expect("a path");
        let deadline = Instant::now() + SOON;
        loop {
            let mut connection = Connection::tcp(admin);
            connection.send(format!(
                "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
            ));
            let status = connection.reply().status();
            if status == 200 {
                break;
            }
            assert!(status == 503 && Instant::now() < deadline, "{path}: {status}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn nginx_takes_the_files() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    for name in ["nodes.conf", "wasgi.conf"] {
        let main = format!(
            "pid {dir}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{temp} include {file}; }}\n",
            dir = dir.path().display(),
            temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {}/{kind};", dir.path().display()))
                .join(" "),
            file = project().join("examples/nginx").join(name).display(),
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, main).expect("can be written");
        let mut nginx = Command::new("/usr/sbin/nginx");
        let tested = run(
            nginx
                .arg("-t")
                .arg("-q")
                .arg("-e")
                .arg("stderr")
                .arg("-c")
                .arg(&file),
            SOON,
        );
        assert!(
            tested.status.success() && tested.stderr.is_empty(),
            "{name}: {}",
            tested.stderr
        );
    }
}

/// Envoy itself is in no distribution that tests could install it from; what is looked at is what a slip of the pen breaks:
/// the YAML, types that are not those of their extension, clusters that are named and not there.
#[test]
fn envoys_file_holds_together() {
    const LOOK: &str = r#"
import re, sys, yaml

class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key is given twice"
        return super().construct_mapping(node, deep)

with open(sys.argv[1]) as file:
    config = yaml.load(file, Strict)
assert set(config) == {"static_resources"}, config.keys()
resources = config["static_resources"]
clusters = {cluster["name"]: cluster for cluster in resources["clusters"]}
asked = []

def walk(value):
    if isinstance(value, list):
        for item in value:
            walk(item)
    elif isinstance(value, dict):
        if "typed_config" in value:
            kind = value["typed_config"]["@type"]
            last = value["name"].rsplit(".", 1)[1].replace("_", "")
            assert re.fullmatch(r"type\.googleapis\.com/envoy\.extensions\.[\w.]+\.v3\.\w+", kind), kind
            # envoy.filters.http.router: ...http.router.v3.Router
            module = kind.split(".v3.")[0].rsplit(".", 1)[1].replace("_", "")
            assert module == last, (value["name"], kind)
        if isinstance(value.get("cluster"), str):
            asked.append(value["cluster"])
        for item in value.values():
            walk(item)

walk(resources)
assert asked and set(asked) == set(clusters), (asked, clusters.keys())
for name, cluster in clusters.items():
    assert cluster["load_assignment"]["cluster_name"] == name
    assert cluster["health_checks"], name
"#;
    let file = project().join("examples/envoy/envoy.yaml");
    let looked = run(tool("python").arg("-c").arg(LOOK).arg(&file), SOON);
    assert!(looked.status.success(), "{}", looked.stderr);
}

/// supervisord with the example's program; ends with this value.
struct Supervisor {
    file: PathBuf,
}

impl Supervisor {
    fn start(dir: &Path) -> Self {
        let program = wasgi();
        let cache = program.get_envs().find(|(name, _)| *name == "XDG_CACHE_HOME");
        let cache = cache.and_then(|(_, value)| value).expect("is set");
        let text = example("supervisor/wasgi.conf")
            .replace("/usr/local/bin/wasgi", env!("CARGO_BIN_EXE_wasgi"))
            .replace(
                "/etc/wasgi/server.toml",
                &dir.join("app.toml").display().to_string(),
            )
            .replace("user=wasgi\n", "")
            .replace("/var/cache/wasgi", &cache.to_string_lossy())
            .replace("/var/log/wasgi.log", &dir.join("log").display().to_string());
        let at = |name: &str| dir.join(name).display().to_string();
        let own = format!(
            "[supervisord]\nlogfile={}\npidfile={}\nchildlogdir={}\n\
             [unix_http_server]\nfile={socket}\n[supervisorctl]\nserverurl=unix://{socket}\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = \
             supervisor.rpcinterface:make_main_rpcinterface\n\n{text}",
            at("supervisord.log"),
            at("supervisord.pid"),
            dir.display(),
            socket = at("supervisor.sock"),
        );
        let file = dir.join("supervisord.conf");
        fs::write(&file, own).expect("can be written");
        let started = run(tool("supervisord").arg("-c").arg(&file), SOON);
        assert!(started.status.success(), "{}{}", started.stdout, started.stderr);
        Self { file }
    }

    fn ask(&self, words: &[&str]) -> Run {
        run(tool("supervisorctl").arg("-c").arg(&self.file).args(words), SOON)
    }

    /// The process id once the program runs, and is not `other`.
    #[track_caller]
    fn running(&self, other: Option<i32>) -> i32 {
        let deadline = Instant::now() + SOON;
        loop {
            let said = self.ask(&["status", "wasgi"]).stdout;
            let pid = said
                .split_once("RUNNING")
                .and_then(|(_, rest)| rest.split_once("pid "))
                .and_then(|(_, rest)| rest.split(',').next())
                .and_then(|pid| pid.trim().parse().ok());
            match pid {
                Some(pid) if Some(pid) != other => return pid,
                _ => assert!(Instant::now() < deadline, "not running: {said}"),
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.ask(&["shutdown"]);
    }
}

#[test]
fn supervisor_starts_restarts_and_stops_it() {
    let dir = folder(&config("pep3333", "workers = 1"));
    let supervisor = Supervisor::start(dir.path());
    let first = supervisor.running(None);
    let restarted = supervisor.ask(&["restart", "wasgi"]);
    assert!(
        restarted.stdout.contains("wasgi: started"),
        "{}",
        restarted.stdout
    );
    let second = supervisor.running(Some(first));
    kill_process(Pid::from_raw(second).expect("not 0"), Signal::KILL).expect("it runs");
    let third = supervisor.running(Some(second));
    assert_ne!(third, first);
    let stopped = supervisor.ask(&["stop", "wasgi"]);
    assert!(stopped.stdout.contains("wasgi: stopped"), "{}", stopped.stdout);
    let log = fs::read_to_string(dir.path().join("log")).expect("is there");
    assert_eq!(log.matches("listening on ").count(), 3, "{log}");
    assert_eq!(
        log.matches("stopping: running requests may finish").count(),
        2,
        "{log}"
    );
    let status = supervisor.ask(&["status", "wasgi"]).stdout;
    assert!(status.contains("STOPPED"), "{status}");
}
