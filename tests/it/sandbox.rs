//! The walls: what an app sees of the host's files and environment, and what it may change.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Server, app_folder, folder};

const SECRET: &str = "the host's secret";

/// root/ (read-only), data/ (writable), shared/ (read-only), and beside them what nobody granted.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let toml = "[listen]\nhttp = \"127.0.0.1:0\"\n\n[app]\nname = \"sandbox\"\nroot = \"root\"\nwsgi-file = \"app.py\"\n\
                workers = 1\n\n[app.env]\nPLAIN = \"as it is\"\nTAKEN = \"<${GRANTED}>\"\n\n\
                [files]\n\"/data\" = { path = \"data\", write = true }\n\"/shared\" = { path = \"shared\" }\n";
    let dir = folder(toml);
    prepare(&dir).expect("files for the test");
    Server::start_in(dir, |command| {
        command.env("GRANTED", "from the host").env("PASSWORD", SECRET);
    })
});

fn prepare(dir: &TempDir) -> std::io::Result<()> {
    let at = |name: &str| dir.path().join(name);
    let app = app_folder("sandbox");
    fs::create_dir_all(at("root/folder"))?;
    fs::create_dir(at("shared"))?;
    fs::copy(app.join("app.py"), at("root/app.py"))?;
    fs::copy(app.join("helper.py"), at("root/helper.py"))?;
    fs::write(at("root/inside.txt"), "inside")?;
    fs::write(at("root/folder/deep.txt"), "deep")?;
    fs::write(at("shared/shared.txt"), "shared")?;
    fs::write(at("secret.txt"), SECRET)?;
    fs::create_dir(at("private"))?;
    fs::write(at("private/secret.txt"), SECRET)?;
    for place in ["root", "data", "shared"] {
        symlink("../secret.txt", at(place).join("link-up"))?;
        symlink(at("secret.txt"), at(place).join("link-absolute"))?;
        symlink("../private", at(place).join("link-folder"))?;
        symlink("/", at(place).join("link-root"))?;
        symlink(
            "../../../../../../../../../../../../etc/passwd",
            at(place).join("link-etc"),
        )?;
    }
    symlink("inside.txt", at("root/link-inside"))?;
    symlink("link-inside", at("root/link-twice"))?;
    symlink("folder/../inside.txt", at("root/link-around"))?;
    symlink("link-loop", at("root/link-loop"))
}

fn act(action: &str, arguments: &[(&str, &str)]) -> Value {
    let query: Vec<_> = arguments
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    SERVER
        .get(&format!("/{action}?{}", query.join("&")))
        .expect(200)
        .json()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[track_caller]
fn expect(action: &str, arguments: &[(&str, &str)], result: impl Into<Value>) {
    assert_eq!(
        act(action, arguments),
        json!({ "result": result.into() }),
        "{action} {arguments:?}"
    );
}

/// An OSError (or ValueError, for what cannot be a path), whatever its number.
#[track_caller]
fn expect_denied(action: &str, arguments: &[(&str, &str)]) {
    let reply = act(action, arguments);
    assert!(
        reply.get("result").is_none(),
        "{action} {arguments:?} went through: {reply}"
    );
    let error = reply["error"].as_str().unwrap_or_default();
    assert!(
        reply["errno"].is_number() || error == "ValueError",
        "{action} {arguments:?}: {reply}"
    );
}

fn host(path: &str) -> std::path::PathBuf {
    SERVER.dir.path().join(path)
}

fn root() -> String {
    act("cwd", &[])["result"].as_str().expect("a path").to_owned()
}

#[test]
fn the_app_reads_its_own_files() {
    expect("read", &[("path", "inside.txt")], "inside");
    expect("read", &[("path", "folder/deep.txt")], "deep");
    expect("read", &[("path", "folder/../inside.txt")], "inside");
    expect("read", &[("path", "/shared/shared.txt")], "shared");
    expect("import-cache", &[], "helper");
    assert_eq!(
        act("path", &[])["result"][0],
        root().as_str(),
        "the root is first on sys.path"
    );
}

#[test]
fn links_inside_a_folder_work() {
    expect("read", &[("path", "link-inside")], "inside");
    expect("read", &[("path", "link-twice")], "inside");
    expect("read", &[("path", "link-around")], "inside");
    expect_denied("read", &[("path", "link-loop")]);
}

#[test]
fn nothing_else_can_be_read() {
    let secret = host("secret.txt");
    let root = root();
    for path in [
        "../secret.txt",
        "folder/../../secret.txt",
        "/secret.txt",
        "/data/../secret.txt",
        "/data/../../secret.txt",
        "/shared/../secret.txt",
        "//secret.txt",
        "/etc/passwd",
        "../../../../../../../etc/passwd",
        "/proc/self/environ",
        "/proc/1/cmdline",
        "/dev/mem",
        "/etc/ssh/ssh_host_rsa_key",
        "app.toml",
        "../app.toml",
        "inside.txt\0.jpg",
        secret.to_str().expect("text"),
        &format!("{root}/../secret.txt"),
        &format!("{root}/..{}", secret.display()),
    ] {
        expect_denied("read", &[("path", path)]);
    }
    expect_denied("open-at", &[("path", "/data"), ("name", "../secret.txt")]);
    expect_denied("open-at", &[("path", "folder"), ("name", "../../secret.txt")]);
    expect_denied("open-at", &[("path", "folder"), ("name", "/etc/passwd")]);
    expect("open-at", &[("path", "folder"), ("name", "deep.txt")], "deep");
}

#[test]
fn links_lead_nowhere_outside() {
    for place in [".", "/data", "/shared"] {
        for name in [
            "link-up",
            "link-absolute",
            "link-etc",
            "link-folder/secret.txt",
            "link-root/etc/passwd",
        ] {
            expect_denied("read", &[("path", &format!("{place}/{name}"))]);
        }
        expect("exists", &[("path", &format!("{place}/link-up"))], false);
        for name in ["link-folder", "link-root"] {
            expect_denied("listing", &[("path", &format!("{place}/{name}"))]);
            expect_denied("chdir", &[("path", &format!("{place}/{name}"))]);
        }
    }
    expect_denied("write", &[("path", "/data/link-up")]);
    expect_denied("truncate", &[("path", "/data/link-up")]);
    expect_denied("write", &[("path", "/data/link-folder/new.txt")]);
    assert_eq!(fs::read_to_string(host("secret.txt")).expect("is there"), SECRET);
    assert!(!host("private/new.txt").exists());
}

#[test]
fn links_that_the_app_makes_lead_nowhere_outside() {
    for (number, target) in ["../secret.txt", "/etc/passwd", "..", "/", "../private/secret.txt"]
        .iter()
        .enumerate()
    {
        let path = format!("/data/made-{number}");
        // Making one may be refused or not; following it must be.
        act("symlink", &[("path", target), ("to", &path)]);
        expect_denied("read", &[("path", &path)]);
        expect_denied("read", &[("path", &format!("{path}/secret.txt"))]);
    }
    for (path, to) in [
        ("../secret.txt", "/data/hard"),
        ("/data/link-up", "/data/hard"),
        ("inside.txt", "/data/hard"),
    ] {
        let made = act("link", &[("path", path), ("to", to)]);
        if made.get("result").is_some() {
            let text = act("read", &[("path", to)])["result"].clone();
            assert_ne!(text, SECRET, "a hard link to {path}");
            assert_ne!(text, "inside", "a way to write what is read-only: {path}");
        }
    }
}

/// Names and contents of a folder's files.
fn contents(folder: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        if entry.file_type().expect("a type").is_dir() {
            found.extend(
                contents(&entry.path())
                    .into_iter()
                    .map(|(inner, text)| (format!("{name}/{inner}"), text)),
            );
            found.push((name, None));
        } else {
            found.push((name, fs::read(entry.path()).ok()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_read_only_folder_cannot_be_changed() {
    for (place, folder, file) in [(".", "root", "inside.txt"), ("/shared", "shared", "shared.txt")] {
        let before = contents(&host(folder));
        let state = || {
            let data = fs::metadata(host(folder).join(file)).expect("is there");
            (data.modified().expect("a time"), data.permissions())
        };
        let unchanged = state();
        let path = format!("{place}/{file}");
        let path = path.as_str();
        let new = format!("{place}/new.txt");
        for action in ["write", "append", "read-and-write", "truncate", "remove", "utime"] {
            expect_denied(action, &[("path", path)]);
        }
        expect_denied("write", &[("path", &new)]);
        expect_denied("append", &[("path", &new)]);
        expect_denied("mkdir", &[("path", &format!("{place}/new-folder"))]);
        expect_denied("rename", &[("path", path), ("to", &new)]);
        expect_denied("rename", &[("path", path), ("to", "/data/moved.txt")]);
        expect_denied("link", &[("path", path), ("to", &new)]);
        expect_denied("link", &[("path", path), ("to", "/data/linked.txt")]);
        expect_denied("symlink", &[("path", path), ("to", &new)]);
        act("write", &[("path", "/data/mine.txt")]);
        expect_denied("rename", &[("path", "/data/mine.txt"), ("to", path)]);
        expect_denied("link", &[("path", "/data/mine.txt"), ("to", &new)]);
        assert_eq!(contents(&host(folder)), before);
        // WASI has no chmod; that it does nothing must be true.
        act("chmod", &[("path", path)]);
        assert_eq!(state(), unchanged);
    }
    expect_denied("rmdir", &[("path", "folder")]);
    assert!(!host("data/moved.txt").exists() && !host("data/linked.txt").exists());
}

#[test]
fn importing_leaves_no_compiled_files_behind() {
    expect("import-cache", &[], "helper");
    assert!(!host("root/__pycache__").exists());
}

#[test]
fn the_standard_library_cannot_be_changed() {
    let library = act("path", &[])["result"].clone();
    for folder in library
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
    {
        expect_denied("write", &[("path", &format!("{folder}/json/__init__.py"))]);
        expect_denied("write", &[("path", &format!("{folder}/injected.py"))]);
    }
}

#[test]
fn a_writable_folder_can_be_written() {
    expect("write", &[("path", "/data/a.txt"), ("text", "caf\u{e9}")], 4);
    assert_eq!(
        fs::read_to_string(host("data/a.txt")).expect("is there"),
        "caf\u{e9}"
    );
    expect("append", &[("path", "/data/a.txt")], 4);
    expect("read-and-write", &[("path", "/data/a.txt")], 7);
    assert_eq!(
        fs::read_to_string(host("data/a.txt")).expect("is there"),
        "changedre"
    );
    expect("mkdir", &[("path", "/data/sub")], Value::Null);
    expect(
        "rename",
        &[("path", "/data/a.txt"), ("to", "/data/sub/b.txt")],
        Value::Null,
    );
    expect("stat", &[("path", "/data/sub/b.txt")], 9);
    expect("listing", &[("path", "/data/sub")], json!(["b.txt"]));
    expect("truncate", &[("path", "/data/sub/b.txt")], Value::Null);
    expect("remove", &[("path", "/data/sub/b.txt")], Value::Null);
    expect("rmdir", &[("path", "/data/sub")], Value::Null);
    assert!(!host("data/sub").exists());
    // Out of it leads nothing, also not for what is written.
    expect_denied(
        "rename",
        &[("path", "/data/mine.txt"), ("to", "/data/../moved.txt")],
    );
    expect_denied("write", &[("path", "/data/../outside.txt")]);
    expect_denied("write", &[("path", "/outside.txt")]);
    assert!(!host("outside.txt").exists());
}

#[test]
fn temporary_files_stay_inside() {
    expect("temporary", &[], "temporary");
}

#[test]
fn the_environment_is_what_app_env_says() {
    let expected = json!({ "PLAIN": "as it is", "TAKEN": "<from the host>" });
    assert_eq!(act("env", &[])["result"], expected);
    assert_eq!(act("environ-bytes", &[])["result"], expected);
}

#[test]
fn the_host_has_no_name_in_there() {
    let identity = act("identity", &[])["result"].clone();
    assert_eq!(identity["platform"], "wasi");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    assert_ne!(identity["node"], name.trim());
    let shown = identity.to_string() + &act("path", &[]).to_string() + &root();
    assert!(
        !shown.contains(SERVER.dir.path().to_str().expect("text")),
        "the host's paths: {shown}"
    );
}
