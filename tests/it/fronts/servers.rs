//! The web servers, each with its example, on ports and in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::server::{app_folder, packages, project, wasgi};

/// Free ports in the place of those that the examples have.
pub struct Ports(BTreeMap<u16, u16>);

impl Ports {
    /// For these, and for wasgi's.
    pub fn new(fronts: impl Iterator<Item = u16>) -> Self {
        let written = fronts.chain([8000, 3031, 9000, 4000]);
        // All at a time, so that none is given twice.
        let taken: Vec<_> = written
            .map(|written| (written, TcpListener::bind("127.0.0.1:0").expect("a socket")))
            .collect();
        let port = |socket: &TcpListener| socket.local_addr().expect("an address").port();
        Self(
            taken
                .iter()
                .map(|(written, socket)| (*written, port(socket)))
                .collect(),
        )
    }

    pub fn of(&self, written: u16) -> u16 {
        self.0[&written]
    }

    fn put_into(&self, text: &str) -> String {
        let mut out = String::new();
        for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
            let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
            match digits.parse().ok().and_then(|number: u16| self.0.get(&number)) {
                Some(port) => out.push_str(&format!("{port}{}", &part[digits.len()..])),
                None => out.push_str(part),
            }
        }
        out
    }
}

/// A web server in the foreground; ends with this value.
pub struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    /// Its folder: wasgi's unix sockets are there, and `data`, which the app shares with the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Processes of its own end with it only if it is asked.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder for the test");
    fs::create_dir(dir.path().join("data")).expect("a folder for the test");
    dir
}

/// An example with the test's ports and paths.
fn example(name: &str, ports: &Ports, dir: &TempDir) -> String {
    let text = fs::read_to_string(project().join("examples").join(name)).expect("the example");
    let dir = format!("{}/", dir.path().display());
    ports.put_into(&text).replace("/run/wasgi/", &dir)
}

fn write(dir: &TempDir, name: &str, text: &str) {
    fs::write(dir.path().join(name), text).expect("can be written");
}

fn start(mut command: Command, dir: TempDir) -> Program {
    let child = command.stdin(Stdio::null()).spawn();
    let child = child.expect("the server is installed: run `make test-tools` first");
    Program { child, dir }
}

pub fn nginx(ports: &Ports) -> Program {
    let dir = folder();
    write(&dir, "wasgi.conf", &example("nginx/wasgi.conf", ports, &dir));
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp = kinds.map(|kind| format!("{kind}_temp_path {}/{kind};", dir.path().display()));
    let user = if geteuid().is_root() { "user root;" } else { "" };
    let main = format!(
        "{user} daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
         events {{}}\nhttp {{ access_log off; {temp} include {dir}/wasgi.conf; }}\n",
        dir = dir.path().display(),
        temp = temp.join(" ")
    );
    write(&dir, "nginx.conf", &main);
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(dir.path().join("nginx.conf"));
    start(command, dir)
}

/// With wasgi as a CGI program as well.
pub fn apache(ports: &Ports) -> Program {
    let dir = folder();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let wasgi = wasgi();
    let variable = |wanted: &str| {
        let mut all = wasgi.get_envs();
        let value = all.find(|(name, _)| *name == wanted).and_then(|(_, value)| value);
        value.expect("it is set").to_str().expect("text").to_owned()
    };
    let text = example("apache/wasgi.conf", ports, &dir)
        .replace("/usr/lib/cgi-bin", &at("cgi-bin"))
        .replace("/var/cache/wasgi", &variable("XDG_CACHE_HOME"));
    write(&dir, "wasgi.conf", &text);

    let hello = "name = \"hello\"\nroot = \"/srv/hello\"\nwsgi-file = \"wsgi.py\"\n";
    let fronts = format!(
        "name = \"fronts\"\nroot = {:?}\nmodule = \"app:app\"\npython-path = [{:?}]\n",
        app_folder("fronts"),
        packages()
    );
    let program = example("apache/app.cgi", ports, &dir);
    assert!(program.contains(hello), "{program}");
    let program = program.replace(hello, &fronts);
    let data = format!(
        "\n[files]\n\"/data\" = {{ path = {:?}, write = true }}\n",
        at("data")
    );
    fs::create_dir(dir.path().join("cgi-bin")).expect("a folder for the test");
    write(&dir, "cgi-bin/app.cgi", &(program + &data));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path().join("cgi-bin/app.cgi"), mode).expect("chmod");

    let modules = [
        "mpm_event",
        "authz_core",
        "alias",
        "env",
        "proxy",
        "proxy_http",
        "proxy_uwsgi",
        "proxy_fcgi",
        "proxy_scgi",
        "cgi",
    ];
    let load = |module| format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n");
    let main = format!(
        "ServerRoot {0}\nServerName localhost\nPidFile {0}/pid\nErrorLog {0}/error.log\n{1}Include {0}/wasgi.conf\n",
        dir.path().display(),
        modules.map(load).concat()
    );
    write(&dir, "apache.conf", &main);
    let own = Path::new(env!("CARGO_BIN_EXE_wasgi")).parent().expect("a folder");
    let mut command = Command::new("/usr/sbin/apache2");
    command
        .args(["-DFOREGROUND", "-f"])
        .arg(dir.path().join("apache.conf"));
    command.env("PATH", format!("{}:/usr/bin:/bin", own.display()));
    start(command, dir)
}

pub fn lighttpd(ports: &Ports) -> Program {
    let dir = folder();
    let own = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let main = format!(
        "server.document-root = \"{0}/data\"\nserver.bind = \"127.0.0.1\"\nserver.port = {1}\n\
         server.errorlog = \"{0}/error.log\"\nserver.upload-dirs = ( \"{0}\" )\n{2}",
        dir.path().display(),
        own.expect("a socket").port(),
        example("lighttpd/wasgi.conf", ports, &dir)
    );
    write(&dir, "lighttpd.conf", &main);
    let mut command = Command::new("/usr/sbin/lighttpd");
    command.arg("-D").arg("-f").arg(dir.path().join("lighttpd.conf"));
    start(command, dir)
}

pub fn haproxy(ports: &Ports) -> Program {
    let dir = folder();
    write(&dir, "wasgi.cfg", &example("haproxy/wasgi.cfg", ports, &dir));
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(dir.path().join("wasgi.cfg"));
    start(command, dir)
}

pub fn caddy(ports: &Ports) -> Program {
    let dir = folder();
    write(&dir, "Caddyfile", &example("caddy/Caddyfile", ports, &dir));
    let log = fs::File::create(dir.path().join("log")).expect("a file");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(dir.path().join("Caddyfile")).stderr(log);
    // Where it keeps what it has of certificates, and its last configuration.
    command
        .env("HOME", dir.path())
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME");
    start(command, dir)
}
