//! `server.toml`, and what it makes of the files of apps whose owners are not trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use wasgi_config::{Address, Admin, ServerConfig, Tenant, load_server};

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn server(&self, text: &str) -> Result<ServerConfig, String> {
        let file = self.write("server.toml", text);
        load_server(&file, &|_| None).map_err(|errors| self.plain(&errors.to_string()))
    }

    fn app(&self, server: &ServerConfig, name: &str, text: &str) -> Result<Tenant, String> {
        let file = self.write(&format!("{name}/app.toml"), text);
        let env = |name: &str| matches!(name, "OPEN" | "CLOSED").then(|| "value".to_owned());
        server
            .load_app(&file, &env)
            .map_err(|errors| self.plain(&errors.to_string()))
    }

    fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path("").display()), "")
            .replace(&self.path("").display().to_string(), "")
    }
}

const APPS: &str = "apps = [\"*/app.toml\"]\n";
const LEAST: &str = "[app]\nmodule = \"a:b\"\n";

#[test]
fn the_operators_mistakes_come_all_at_once() {
    let folder = Folder::new();
    let said = folder
        .server(
            "app = 1\nhosts = [\"http://{name}.org\"]\nmemory = \"2\"\nbuilders = 0\ngrant = [\"nowhere\"]\nidle-time = \"1s\"\n\
             [defaults]\nworkers = 1000\nmodule = \"a:b\"\n[defaults.limits]\ntime = \"1\"\n[caps]\nspeed = 1\n",
        )
        .err()
        .unwrap();
    for line in [
        "server.toml:1: apps: does not say where the apps are",
        "server.toml:1: app: must be a table, not a number",
        "server.toml:2: hosts: `http://` is not part of a host's name",
        "server.toml:3: memory: ",
        "server.toml:4: builders: 0 is not from 1 to 256",
        "server.toml:5: grant: folder `nowhere` is not there",
        "server.toml:6: idle-time: unknown name",
        "server.toml:8: app.workers: 1000 is not from 1 to 256",
        "server.toml:9: defaults.module: unknown key",
        "server.toml:11: limits.time: ",
        "server.toml:13: caps.speed: unknown key",
    ] {
        assert!(said.lines().any(|it| it.starts_with(line)), "{line}\nin\n{said}");
    }
}

#[test]
fn what_is_wrong_with_groups_is_told_with_the_rest() {
    let folder = Folder::new();
    let text = "[group.\"a/b\"]\n[group.shop]\nuser = \"nobody-of-this-name\"\nlandlock = true\n[group.top]\nuser = \"root\"\n\
                require-landlock = 1\n[app.shop]\ngroup = \"shops\"\n[defaults]\ngroup = \"none\"\n";
    let said = folder.server(&format!("{APPS}{text}")).err().unwrap();
    for line in [
        "server.toml:2: group.a/b: is no name for a group",
        "server.toml:4: group.shop.user: there is no user `nobody-of-this-name` on this machine",
        "server.toml:5: group.shop.landlock: unknown key",
        "server.toml:7: group.top.user: root is no user to confine apps with",
        "server.toml:8: group.top.require-landlock: must be true or false, not a number",
        "server.toml:10: app.shop.group: there is no group `shops`",
        "server.toml:12: defaults.group: there is no group `none`",
    ] {
        assert!(said.lines().any(|it| it.starts_with(line)), "{line}\nin\n{said}");
    }
}

#[test]
fn an_app_is_in_its_own_group_or_that_of_all() {
    let folder = Folder::new();
    let text = "[group.a]\nuser = \"47110\"\nrequire-landlock = true\n[group.b]\n[app.shop]\ngroup = \"a\"\n";
    let group = |server: &ServerConfig, name: &str| {
        let group = server.group(&folder.path(&format!("{name}/app.toml")));
        group.map(|it| {
            (
                it.name.clone(),
                it.user.as_ref().map(|user| user.uid),
                it.require_landlock,
            )
        })
    };
    let server = folder.server(&format!("{APPS}{text}")).unwrap();
    assert_eq!(group(&server, "shop"), Some(("a".to_owned(), Some(47_110), true)));
    assert_eq!(group(&server, "wiki"), None);
    let server = folder
        .server(&format!("{APPS}{text}[defaults]\ngroup = \"b\"\n"))
        .unwrap();
    assert_eq!(group(&server, "shop").map(|it| it.0), Some("a".to_owned()));
    assert_eq!(group(&server, "wiki"), Some(("b".to_owned(), None, false)));
    // Not for an app's own file to say.
    let said = folder
        .app(&server, "wiki", &format!("{LEAST}group = \"a\"\n"))
        .err()
        .unwrap();
    assert!(said.contains("group: unknown key"), "{said}");
}

#[test]
fn files_are_found_by_pattern() {
    let folder = Folder::new();
    let server = folder
        .server("apps = [\"tenants/*/app.toml\", \"one/app.toml\"]")
        .unwrap();
    assert!(server.files().is_empty());
    let expected =
        ["one/app.toml", "tenants/a/app.toml", "tenants/b/app.toml"].map(|name| folder.write(name, LEAST));
    folder.write("tenants/app.toml", LEAST);
    assert_eq!(server.files(), expected);
    assert_eq!(ServerConfig::name(Path::new("/srv/my app/app.toml")), "my-app");
}

#[test]
fn an_app_lowers_limits_and_passes_no_cap() {
    let folder = Folder::new();
    let server = folder
        .server(&format!(
            "{APPS}[defaults]\nworkers = 3\n[defaults.limits]\ntime = \"5s\"\n[caps]\nworkers = 4\ntime = \"20s\"\nmemory = \"128MiB\"\n"
        ))
        .unwrap();
    let least = folder.app(&server, "a", LEAST).unwrap().config;
    assert_eq!(
        (least.app.workers, least.limits.time),
        (3, Duration::from_secs(5))
    );
    assert_eq!(
        least.limits.memory,
        128 << 20,
        "the default is lowered to the cap"
    );
    assert!(least.app.snapshot_cache);
    let lower = folder.app(
        &server,
        "a",
        &format!("{LEAST}workers = 4\n[limits]\ntime = \"20s\"\nmemory = \"64MiB\"\n"),
    );
    let lower = lower.unwrap().config;
    assert_eq!(
        (lower.app.workers, lower.limits.time),
        (4, Duration::from_secs(20))
    );
    assert_eq!(lower.limits.memory, 64 << 20);
    let over = folder.app(
        &server,
        "a",
        &format!("{LEAST}workers = 5\n[limits]\ntime = \"21s\"\nmemory = \"1GiB\"\n"),
    );
    assert_eq!(
        over.unwrap_err(),
        "a/app.toml:3: app.workers: 5 passes the operator's cap of 4\n\
         hint: write 4 or less, or leave it out\n\
         a/app.toml:5: limits.time: 21s passes the operator's cap of 20s\n\
         hint: write \"20s\" or less, or leave it out\n\
         a/app.toml:6: limits.memory: 1GiB passes the operator's cap of 128MiB\n\
         hint: write \"128MiB\" or less, or leave it out"
    );
}

#[test]
fn replies_are_compressed_no_harder_than_the_operator_lets_them() {
    let folder = Folder::new();
    let server = |more: &str| folder.server(&format!("{APPS}{more}")).unwrap();
    let level = |server: &ServerConfig, app: &str| {
        let app = folder.app(server, "a", &format!("{LEAST}{app}"));
        app.map(|app| app.config.compress.map(|compress| compress.level))
    };
    let usual = server("[defaults.compress]\nencodings = [\"gzip\"]\n[caps]\ncompress-level = 3\n");
    assert_eq!(level(&usual, ""), Ok(Some(3)));
    assert_eq!(level(&usual, "[compress]\nlevel = 2\n"), Ok(Some(2)));
    assert_eq!(level(&usual, "[compress]\nencodings = []\n"), Ok(None));
    assert_eq!(
        level(&usual, "[compress]\nlevel = 5\n").unwrap_err(),
        "a/app.toml:4: compress.level: 5 passes the operator's cap of 3\n\
         hint: write 3 or less, or leave it out"
    );
    let never = server("[caps]\ncompress-level = 0\n");
    assert_eq!(level(&never, ""), Ok(None));
    assert_eq!(
        level(&never, "[compress]\nencodings = [\"br\"]\n").unwrap_err(),
        "a/app.toml:4: compress.encodings: the operator of the server has no replies compressed\n\
         hint: leave [compress] out"
    );
}

#[test]
fn an_app_names_its_own_folder_and_what_is_granted() {
    let folder = Folder::new();
    for name in ["shared", "for-a", "secret", "a", "b/data"] {
        fs::create_dir_all(folder.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(folder.path("secret"), folder.path("a/link")).unwrap();
    let server = folder
        .server(&format!(
            "{APPS}grant = [\"shared\"]\n[app.a]\ngrant = [\"for-a\"]\n"
        ))
        .unwrap();
    let with = |path: &str| format!("{LEAST}python-path = [\"{path}\"]\n");
    for (app, path, good) in [
        ("a", "../shared", true),
        ("a", "../for-a", true),
        ("b", "../for-a", false),
        ("a", "../secret", false),
        ("a", "link", false),
        ("a", "../b", false),
        ("a", "/", false),
    ] {
        let outcome = folder.app(&server, app, &with(path));
        assert_eq!(outcome.is_ok(), good, "{app} {path}: {outcome:?}");
    }
    let files = format!(
        "{LEAST}root = \"/\"\nvenv = \"/usr\"\n[files]\n\"/data\" = {{ path = \"/etc\", write = true }}\n"
    );
    let said = folder.app(&server, "b", &files).unwrap_err();
    for key in [
        "app.root: folder `/` is",
        "app.venv: folder `/usr` is",
        "path: folder `/etc` is",
    ] {
        assert!(said.contains(key), "{key} in {said}");
    }
}

#[test]
fn an_app_sees_no_variable_of_the_host_that_is_not_passed_on() {
    let folder = Folder::new();
    let server = folder.server(&format!("{APPS}pass-env = [\"OPEN\"]\n")).unwrap();
    let with = |name: &str| format!("{LEAST}[app.env]\nA = \"${{{name}}}\"\n");
    assert_eq!(
        folder.app(&server, "a", &with("OPEN")).unwrap().config.app.env[0].1,
        "value"
    );
    let own = folder
        .server(&format!("{APPS}[app.a]\npass-env = [\"CLOSED\"]\n"))
        .unwrap();
    assert!(folder.app(&own, "a", &with("CLOSED")).is_ok());
    assert!(
        folder.app(&own, "b", &with("CLOSED")).is_err(),
        "another's is not passed on"
    );
    let said = folder.app(&server, "a", &with("CLOSED")).unwrap_err();
    assert!(said.contains("the host's environment has no CLOSED"), "{said}");
}

#[test]
fn the_operator_says_where_apps_are_served() {
    let folder = Folder::new();
    let routes = |tenant: Tenant| {
        let routes = tenant.config.app.routes.iter().map(ToString::to_string);
        (routes.collect::<Vec<_>>().join(" "), tenant.is_pinned)
    };
    let typed = format!("{LEAST}hosts = [\"a.org\"]\nmount = \"/em/\"\n");
    let open = folder.server(APPS).unwrap();
    assert_eq!(
        routes(folder.app(&open, "a", &typed).unwrap()),
        ("a.org/em".into(), false)
    );
    assert_eq!(
        routes(folder.app(&open, "a", LEAST).unwrap()),
        ("*/".into(), false)
    );

    let pinned = folder
        .server(&format!(
            "{APPS}hosts = [\"{{name}}.org\"]\n[app.b]\nhosts = [\"b.com\", \"*.b.com\"]\nmount = \"/x\"\n"
        ))
        .unwrap();
    assert_eq!(
        routes(folder.app(&pinned, "a", LEAST).unwrap()),
        ("a.org/".into(), true)
    );
    assert_eq!(
        routes(folder.app(&pinned, "b", LEAST).unwrap()),
        ("b.com/x *.b.com/x".into(), true)
    );
    let said = folder.app(&pinned, "a", &typed).unwrap_err();
    assert_eq!(said.matches("is the operator's to say").count(), 2, "{said}");
    let said = folder.app(
        &open,
        "a",
        &format!("{LEAST}name = \"b\"\n[listen]\nhttp = \"0.0.0.0:80\"\n"),
    );
    let said = said.unwrap_err();
    assert!(said.contains("on this server the app is called a"), "{said}");
    assert!(said.contains("listen.http: where the server listens"), "{said}");
    let admin = format!("{LEAST}[admin]\ntoken = \"0123456789abcdef\"\n");
    let said = folder.app(&open, "a", &admin).unwrap_err();
    assert!(
        said.contains("admin.token: how the server is steered is the operator's"),
        "{said}"
    );
}

#[test]
fn whom_the_server_believes_is_the_operators_to_say() {
    let folder = Folder::new();
    let open = folder.server(APPS).unwrap();
    assert_eq!(open.proxy, None);
    for table in ["[proxy]\ntrust = [\"0.0.0.0/0\"]\n", "[proxy]\n"] {
        let said = folder.app(&open, "a", &format!("{LEAST}{table}")).unwrap_err();
        assert!(
            said.contains("proxy: whose word counts is the operator's"),
            "{said}"
        );
    }
    let text = format!("{APPS}[proxy]\ntrust = [\"10.0.0.0/8\"]\nhops = 2\n");
    let proxy = folder.server(&text).unwrap().proxy.unwrap();
    assert!(proxy.trusts("10.1.2.3".parse().ok()) && !proxy.trusts(None));
    assert_eq!(proxy.hops, [2, 2, 0, 0, 0, 0]);
    assert!(folder.server(&format!("{APPS}[proxy]\nhops = 2\n")).is_err());
}

#[test]
fn the_operators_file_says_where_the_server_is_steered() {
    let folder = Folder::new();
    let text = format!(
        "{APPS}[admin]\nsocket = \"admin.sock\"\ntcp = \"127.0.0.1:9090\"\ntoken = \"0123456789abcdef\"\nstats = \"[::1]:1717\"\n"
    );
    let admin = folder.server(&text).unwrap().admin;
    assert_eq!(admin.socket, Some(Address::Unix(folder.path("admin.sock"))));
    assert_eq!(admin.tcp.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(admin.stats.unwrap().to_string(), "[::1]:1717");
    let token = admin.token.unwrap();
    assert_eq!(token.value, "0123456789abcdef");
    assert!(!format!("{token:?}").contains("0123"));
    assert_eq!(folder.server(APPS).unwrap().admin, Admin::default());
}

#[test]
fn an_owners_log_is_in_a_folder_that_the_app_may_write_to() {
    let folder = Folder::new();
    for name in ["outside", "a/logs", "a/read", "a/plain"] {
        fs::create_dir_all(folder.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(folder.path("outside"), folder.path("a/link")).unwrap();
    std::os::unix::fs::symlink(folder.path("a/logs"), folder.path("a/inner")).unwrap();
    let server = folder.server(APPS).unwrap();
    let with = |log: &str| {
        let files =
            "[files]\n\"/logs\" = { path = \"logs\", write = true }\n\"/read\" = { path = \"read\" }\n";
        let app = folder.app(&server, "a", &format!("{LEAST}{files}[log]\n{log}"));
        app.map(|app| app.config.log)
    };
    for file in ["logs/a.log", "inner/a.log"] {
        let log = with(&format!(
            "file = \"{file}\"\naccess = \"json\"\nrotate-size = \"1MiB\"\n"
        ))
        .unwrap();
        assert_eq!(log.file, Some(folder.path("a/logs/a.log")), "{file}");
        assert_eq!(log.rotate_size, Some(1 << 20));
    }
    for file in [
        "read/a.log",
        "plain/a.log",
        "a.log",
        "link/a.log",
        "../outside/a.log",
        "/var/log/a.log",
    ] {
        let said = with(&format!("file = \"{file}\"\n")).unwrap_err();
        let expected = format!(
            "a/app.toml:7: log.file: `{file}` is not in a folder that the app may write to\n\
             hint: show the app its folder, under [files]: \"/logs\" = {{ path = \"logs\", write = true }}; \
             its quota counts the log as well"
        );
        assert_eq!(said, expected);
    }
    let said = with("access = \"json\"\nto = \"syslog\"\nrotate-keep = 3\n").unwrap_err();
    for line in [
        "a/app.toml:8: log.to: where the server's log goes is the operator's to say",
        "a/app.toml:7: log.access: the server's log is the operator's; this is for a log of the app's own",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

#[test]
fn caps_hold_for_limits_that_are_off_by_default() {
    let folder = Folder::new();
    let server = folder
        .server(&format!(
            "{APPS}[caps]\ncpu = \"2s\"\ncpu-per-minute = \"30s\"\nreply-rate = \"1MiB\"\nmemory-total = \"512MiB\"\n"
        ))
        .unwrap();
    let least = folder.app(&server, "a", LEAST).unwrap().config.limits;
    assert_eq!(
        (least.cpu, least.cpu_per_minute),
        (Duration::from_secs(2), Duration::from_secs(30))
    );
    assert_eq!((least.reply_rate, least.memory_total), (1 << 20, 512 << 20));
    let typed = |limits: &str| folder.app(&server, "a", &format!("{LEAST}[limits]\n{limits}"));
    let lower = typed("cpu = \"1s\"\n").unwrap().config.limits;
    assert_eq!(lower.cpu, Duration::from_secs(1));
    assert_eq!(
        typed("cpu = \"0s\"\ncpu-per-minute = \"31s\"\nreply-rate = \"2MiB\"\n").unwrap_err(),
        "a/app.toml:4: limits.cpu: 0ms passes the operator's cap of 2s\n\
         hint: write \"2s\" or less, or leave it out\n\
         a/app.toml:5: limits.cpu-per-minute: 31s passes the operator's cap of 30s\n\
         hint: write \"30s\" or less, or leave it out\n\
         a/app.toml:6: limits.reply-rate: 2MiB passes the operator's cap of 1MiB\n\
         hint: write \"1MiB\" or less, or leave it out"
    );
}
