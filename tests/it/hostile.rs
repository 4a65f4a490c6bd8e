//! Two tenants of one server: one tries everything, the other must not notice.
//!
//! Once in one process, and once in processes of their own, where nothing may be different.
//!
//! While each attack runs, the victim is asked again and again, one request after the other. None of them may fail, or take
//! longer than `LATEST`, which is far beyond what a busy machine needs and far below what waiting for an attacker would take.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use crate::client::Reply;
use crate::server::{Server, app_folder, wasgi};

/// How long any request of the victim's may take.
const LATEST: Duration = Duration::from_secs(5);

/// The attacker's time limit: longer than an attack takes that ends by another limit, on a busy machine too.
const LIMIT: &str = "5s";

/// Users of the tenants' processes.
const UIDS: [(&str, u32); 2] = [("victim", 47_111), ("hostile", 47_112)];

const PASSWORD: &str = "the victim's own secret";

struct Tenants {
    /// Serves the attacker to whoever does not ask for the victim by its name.
    server: Server,
}

/// Each test twice: with both tenants in the server's process, and with each in a group of its own.
macro_rules! tests {
    ($($name:ident,)*) => {
        mod in_one_process {
            $(#[test]
            fn $name() {
                super::$name(&super::Tenants::start(""));
            })*
        }

        mod in_groups {
            $(#[test]
            fn $name() {
                super::$name(&super::Tenants::start(&super::groups()));
            })*
        }
    };
}

tests! {
    time_and_memory_of_a_neighbour_are_its_own,
    disk_and_descriptors_end_at_their_quotas,
    replies_without_end_are_cut,
    heads_beyond_measure_are_refused,
    nothing_of_a_neighbour_or_the_host_can_be_read,
    the_log_is_neither_flooded_nor_forged,
}

/// The part of a `server.toml` that puts each tenant in a group, as a user of its own where this one can give it one.
fn groups() -> String {
    let mut text = String::new();
    for (name, uid) in UIDS {
        let user = match geteuid().is_root() {
            true => format!("user = \"{uid}\"\n"),
            false => String::new(),
        };
        text += &format!("[group.hostile-test-{name}]\n{user}");
    }
    text
}

impl Tenants {
    /// `groups` are tables of groups to be named after the tenants; none for one process.
    fn start(groups: &str) -> Self {
        Self::start_with(groups, "")
    }

    /// With more limits of the attacker's.
    fn start_with(groups: &str, limits: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the test");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let in_group = |name: &str| match groups {
            "" => String::new(),
            _ => format!("group = \"hostile-test-{name}\"\n"),
        };
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("write");
        for name in ["victim", "hostile"] {
            fs::create_dir_all(dir.path().join("tenants").join(name).join("data")).expect("folder");
            let code = fs::read_to_string(app_folder(name).join("app.py")).expect("app.py");
            write(&format!("tenants/{name}/app.py"), &code);
        }
        write(
            "server.toml",
            &format!(
                "apps = [\"tenants/*/app.toml\"]\n[listen]\nhttp = \"127.0.0.1:0\"\n{groups}\
                 [app.victim]\nhosts = [\"victim.test\"]\npass-env = [\"PASSWORD\"]\n{}[app.hostile]\n{}",
                in_group("victim"),
                in_group("hostile")
            ),
        );
        write(
            "tenants/victim/app.toml",
            "[app]\nwsgi-file = \"app.py\"\nworkers = 1\n[app.env]\n\
             PASSWORD = { value = \"${PASSWORD}\", secret = true }\n\
             [files]\n\"/data\" = { path = \"data\", write = true, quota = \"1MiB\" }\n",
        );
        write("tenants/victim/data/count", "0");
        write(
            "tenants/hostile/app.toml",
            &format!(
                "[app]\nwsgi-file = \"app.py\"\nworkers = 4\n[limits]\ntime = \"{LIMIT}\"\nmemory = \"96MiB\"\n\
                 temp = \"4MiB\"\ntemp-files = 40\nopen-files = 100\nreply-size = \"1MiB\"\nwrite-time = \"2s\"\n{limits}\
                 [files]\n\"/data\" = {{ path = \"data\", write = true, quota = \"4MiB\", max-files = 40 }}\n"
            ),
        );
        // What a tenant with access to its own folder can put there.
        let data = dir.path().join("tenants/hostile/data");
        symlink(dir.path().join("tenants/victim"), data.join("neighbour")).expect("symlink");
        symlink("/", data.join("everything")).expect("symlink");
        if !groups.is_empty() && geteuid().is_root() {
            for (name, uid) in UIDS {
                let folder = dir.path().join("tenants").join(name).join("data");
                for entry in fs::read_dir(&folder).expect("folder").flatten() {
                    lchown(entry.path(), Some(uid), Some(uid)).expect("chown");
                }
                lchown(&folder, Some(uid), Some(uid)).expect("chown");
            }
        }
        let mut command = wasgi();
        command.arg("serve").arg(dir.path().join("server.toml"));
        command
            .env("PASSWORD", PASSWORD)
            .env("OPERATOR_SECRET", "the operator's own secret");
        let server = Server::spawn(dir, &mut command);
        server.log.wait_for(0, "2 apps looked at in ");
        Self { server }
    }

    fn folder(&self, name: &str) -> std::path::PathBuf {
        self.server.dir.path().join("tenants").join(name)
    }

    fn ask_victim(&self) -> Reply {
        let mut connection = self.server.connect();
        connection.send("GET / HTTP/1.1\r\nHost: victim.test\r\nConnection: close\r\n\r\n");
        connection.reply()
    }

    /// Asks the victim for as long as `attack` takes, and at least a few times.
    #[track_caller]
    fn while_victim_is_served<T: Send>(&self, attack: impl FnOnce(&Server) -> T + Send) -> T {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                let result = attack(&self.server);
                over.store(true, Relaxed);
                result
            });
            let mut asked = 0;
            while asked < 5 || !(over.load(Relaxed) || running.is_finished()) {
                let before = Instant::now();
                let reply = self.ask_victim().expect(200);
                assert!(before.elapsed() < LATEST, "{:?}", before.elapsed());
                assert!(
                    reply.text().ends_with(&format!(" {}", PASSWORD.len())),
                    "{}",
                    reply.text()
                );
                asked += 1;
                thread::sleep(Duration::from_millis(20));
            }
            running.join().expect("the attack is over")
        })
    }

    /// What an attack gets for an answer that is let through.
    #[track_caller]
    fn attack(&self, path: &str) -> String {
        self.while_victim_is_served(|hostile| hostile.get(path).expect(200).text())
    }

    /// On four workers at once; the statuses.
    #[track_caller]
    fn attack_with_all(&self, path: &str) -> Vec<u16> {
        self.while_victim_is_served(|hostile| {
            thread::scope(|scope| {
                let attacks: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| hostile.get(path).status()))
                    .collect();
                attacks.into_iter().map(|it| it.join().expect("asks")).collect()
            })
        })
    }

    /// Bytes and names in the attacker's folder.
    fn taken(&self) -> (u64, usize) {
        fn walk(folder: &std::path::Path) -> (u64, usize) {
            let mut all = (0, 0);
            for entry in fs::read_dir(folder).expect("folder").flatten() {
                let seen = entry.metadata().expect("metadata");
                let (bytes, names) = match seen.is_dir() {
                    true => walk(&entry.path()),
                    false => (if seen.is_file() { seen.len() } else { 0 }, 0),
                };
                all = (all.0 + bytes, all.1 + names + 1);
            }
            all
        }
        walk(&self.folder("hostile").join("data"))
    }
}

fn time_and_memory_of_a_neighbour_are_its_own(tenants: &Tenants) {
    assert_eq!(tenants.attack_with_all("/cpu"), [504; 4]);
    let statuses = tenants.attack_with_all("/memory");
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 500 | 504)),
        "{statuses:?}"
    );
    assert_eq!(tenants.attack("/recursion"), "RecursionError");
    let said = tenants.while_victim_is_served(|hostile| hostile.get("/c_recursion").status());
    assert!(matches!(said, 200 | 500 | 504), "{said}");
}

fn who_burns_the_cpu_is_refused_once_its_minute_is_used_up(groups: &str) {
    let tenants = Tenants::start_with(groups, "cpu-per-minute = \"4s\"\n");
    let statuses = tenants.attack_with_all("/cpu");
    assert!(
        statuses.iter().all(|status| matches!(status, 504 | 429)),
        "{statuses:?}"
    );
    assert_eq!(tenants.attack_with_all("/cpu"), [429; 4]);
    tenants.while_victim_is_served(|hostile| hostile.get("/chance").expect(429));
}

#[test]
fn who_burns_the_cpu_in_one_process_is_refused_once_its_minute_is_used_up() {
    who_burns_the_cpu_is_refused_once_its_minute_is_used_up("");
}

#[test]
fn who_burns_the_cpu_in_a_group_is_refused_once_its_minute_is_used_up() {
    who_burns_the_cpu_is_refused_once_its_minute_is_used_up(&groups());
}

fn disk_and_descriptors_end_at_their_quotas(tenants: &Tenants) {
    for (path, said) in [
        ("/disk", "ENOSPC"),
        ("/hole", "ENOSPC"),
        ("/nameless", "ENOSPC"),
        ("/temp", "ENOSPC"),
        ("/files", "ENOSPC"),
        ("/folders", "ENOSPC"),
        ("/descriptors", "EMFILE"),
    ] {
        assert_eq!(tenants.attack(path), said, "{path}");
        let (bytes, names) = tenants.taken();
        assert!(
            bytes <= 4 << 20 && names <= 40,
            "{path}: {bytes} bytes, {names} names"
        );
    }
}

fn replies_without_end_are_cut(tenants: &Tenants) {
    let reply = tenants.while_victim_is_served(|hostile| hostile.get("/endless"));
    assert!(
        !reply.complete && reply.body.len() <= 1 << 20,
        "{}",
        reply.body.len()
    );
    let reply = tenants.while_victim_is_served(|hostile| hostile.get("/slow"));
    assert!(!reply.complete);
    // A client of its own that takes nothing holds one of its own workers, until write-time.
    tenants.while_victim_is_served(|hostile| {
        let mut client = hostile.connect();
        client.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
        thread::sleep(Duration::from_secs(1));
        hostile.get("/chance").expect(200);
    });
}

fn heads_beyond_measure_are_refused(tenants: &Tenants) {
    tenants.while_victim_is_served(|hostile| {
        let huge = format!("X-Huge: {}\r\n", "x".repeat(70_000));
        hostile.request("GET", "/chance", &huge, b"").expect(431);
        let many = "X-Many: x\r\n".repeat(5_000);
        hostile.request("GET", "/chance", &many, b"").expect(431);
    });
}

fn nothing_of_a_neighbour_or_the_host_can_be_read(tenants: &Tenants) {
    let victim = tenants.folder("victim").display().to_string();
    let there = format!("{victim}/data/count");
    let missing = format!("{victim}/data/missing");
    for path in [
        &*there,
        "/data/neighbour/data/count",
        "/data/everything/etc/passwd",
        "/data/../../etc/passwd",
        "/app/../victim/app.py",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/1/environ",
        "/dev/mem",
        "/etc/passwd",
    ] {
        for attack in ["read", "link", "hard_link"] {
            let said = tenants.attack(&format!("/{attack}/{}", path.replace('/', "%2F")));
            assert!(
                said.len() < 20 && said.starts_with('E'),
                "{attack} {path}: {said}"
            );
        }
    }
    // Not even whether it is there.
    let look = |path: &str| tenants.attack(&format!("/look/{}", path.replace('/', "%2F")));
    assert_eq!(look(&there), look(&missing));
    assert_eq!(
        look("/data/neighbour/data/count"),
        look("/data/neighbour/data/missing")
    );
    let environment = tenants.attack("/environment");
    assert!(!environment.contains("secret"), "{environment}");
    assert_eq!(tenants.attack("/sockets"), "nothing");
    assert_eq!(tenants.attack("/processes"), "nothing");
    assert_ne!(tenants.attack("/chance"), tenants.attack("/chance"));
}

fn the_log_is_neither_flooded_nor_forged(tenants: &Tenants) {
    let mark = tenants.server.log.mark();
    assert_eq!(tenants.attack("/forge"), "forged");
    tenants.server.log.wait_for(mark, "GET /forge ");
    for line in tenants.server.log.since(mark) {
        assert!(
            !line.starts_with("127.0.0.1 - - [01/Jan/2030") && !line.starts_with("app victim"),
            "{line}"
        );
        assert!(!line.contains(['\x1b', '\0', '\r', '\u{2028}']), "{line:?}");
    }
    assert_eq!(tenants.attack("/flood"), "flooded");
}
