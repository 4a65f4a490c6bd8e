//! app.toml and the command line: every mistake is told, with its place, before anything listens.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::server::{Run, Server, app_folder, config, folder, run, wasgi};

const TIME: Duration = Duration::from_secs(60);

fn serve(toml: &str) -> Run {
    let dir = folder(toml);
    run(wasgi().arg("serve").arg("app.toml").current_dir(dir.path()), TIME)
}

/// Refused as a mistake of the user: exit code 2, nothing listening.
#[track_caller]
fn expect_mistakes(run: &Run, mistakes: &[&str]) {
    assert_eq!(run.code(), 2, "{}", run.stderr);
    assert!(
        !run.stderr.contains("listening on") && !run.stderr.contains("panicked"),
        "{}",
        run.stderr
    );
    for mistake in mistakes {
        assert!(
            run.stderr.contains(mistake),
            "{mistake:?} is not told:\n{}",
            run.stderr
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let toml = "[app]\n\
                name = \"a b\"\n\
                root = \"nowhere\"\n\
                wrokers = 2\n\
                workers = \"two\"\n\
                [listen]\n\
                http = \"127.0.0.1:notaport\"\n\
                [limits]\n\
                time = 30\n\
                memory = \"256 parsecs\"\n\
                request-head = \"1GiB\"\n\
                harakiri = \"30s\"\n\
                [files]\n\
                \"/data\" = { path = \"missing\", wirte = true }\n\
                \"relative\" = { path = \".\" }\n\
                [limts]\n\
                time = \"1s\"\n";
    let run = serve(toml);
    expect_mistakes(
        &run,
        &[
            "app.toml:2: app.name:",
            "app.toml:3: app.root:",
            "app.toml:4: app.wrokers:",
            "did you mean workers?",
            "app.toml:5: app.workers:",
            "app.toml:7: listen.http:",
            "app.toml:9: limits.time:",
            "app.toml:10: limits.memory:",
            "app.toml:11: limits.request-head:",
            "app.toml:12: limits.harakiri:",
            "app.toml:14: files",
            "app.toml:15: files",
            "app.toml:16: limts:",
            "did you mean [limits]?",
            "hint:",
        ],
    );
}

#[test]
fn check_tells_the_same_mistakes() {
    let dir = folder("[app]\nmodul = \"hello:app\"\n");
    let run = run(wasgi().arg("check").arg("app.toml").current_dir(dir.path()), TIME);
    expect_mistakes(&run, &["app.toml:2: app.modul:", "did you mean module?"]);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_line() {
    expect_mistakes(&serve("[app]\nname = \"hello\nroot = 5"), &["app.toml:2:"]);
    expect_mistakes(&serve("[app]\nname = \"a\"\nname = \"b\"\n"), &["app.toml:3:"]);
}

#[test]
fn a_missing_file_is_told() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let run = run(
        wasgi()
            .args(["serve", "nothing/app.toml"])
            .current_dir(dir.path()),
        TIME,
    );
    expect_mistakes(&run, &["nothing/app.toml"]);
}

#[test]
fn an_app_without_an_entry_is_told() {
    expect_mistakes(&serve("[app]\nname = \"a\"\n"), &["module", "wsgi-file"]);
    expect_mistakes(
        &serve("[app]\nwsgi-file = \"missing.py\"\n"),
        &["app.toml:2: app.wsgi-file:", "missing.py"],
    );
    expect_mistakes(
        &serve("[app]\nmodule = \"a:b\"\nwsgi-file = \"app.toml\"\n"),
        &["module", "wsgi-file"],
    );
}

#[test]
fn a_variable_that_the_host_does_not_have_is_told() {
    let run =
        serve("[app]\nmodule = \"a:b\"\n[app.env]\nKEY = \"${NO_SUCH_VARIABLE}\"\nOTHER = \"${unclosed\"\n");
    expect_mistakes(
        &run,
        &[
            "app.toml:4: app.env.KEY:",
            "NO_SUCH_VARIABLE",
            "app.toml:5: app.env.OTHER:",
        ],
    );
}

#[test]
fn wrong_options_are_told() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    fs::write(
        dir.path().join("hello.py"),
        "def app(environ, start_response): pass",
    )
    .expect("a file for the test");
    let serve = |options: &[&str]| run(wasgi().arg("serve").args(options).current_dir(dir.path()), TIME);
    expect_mistakes(
        &serve(&["hello:app", "--time", "30", "--memory", "lots"]),
        &["--time", "--memory"],
    );
    expect_mistakes(
        &serve(&["hello:app", "--wrokers", "2"]),
        &["--wrokers", "--workers"],
    );
    expect_mistakes(&serve(&["hello:app", "--http", "nowhere"]), &["--http"]);
    expect_mistakes(
        &serve(&["hello:app", "--root", "missing"]),
        &["--root", "missing"],
    );
    expect_mistakes(
        &serve(&["hello:app", "--access-log", "loud"]),
        &["--access-log", "combined"],
    );
    let none = run(&mut wasgi(), TIME);
    assert_ne!(none.code(), 0);
    assert!(
        (none.stderr.clone() + &none.stdout).contains("serve"),
        "says what there is: {}",
        none.stderr
    );
}

#[test]
fn an_app_can_be_served_without_a_file() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut command = wasgi();
    command.args([
        "serve",
        "app:application",
        "--http",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--time",
        "30s",
    ]);
    command
        .args(["--memory", "256MiB", "--root"])
        .arg(app_folder("pep3333"));
    let server = Server::spawn(dir, &mut command);
    assert_eq!(server.get("/ok").expect(200).text(), "fine\n");
}

#[test]
fn options_win_over_the_file() {
    let toml =
        config("limits", "workers = 1\n[limits]\ntime = \"100s\"").replace("127.0.0.1:0", "127.0.0.1:1");
    let server = Server::start_in(folder(&toml), |command| {
        command.args(["--http", "127.0.0.1:0", "--time", "300ms"]);
    });
    assert_ne!(server.address().port(), 1);
    server.get("/loop").expect(504);
}

#[test]
fn several_listeners_are_served() {
    let toml =
        config("pep3333", "workers = 1").replace("\"127.0.0.1:0\"", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]");
    let server = Server::start(&toml);
    server.log.wait_for(0, "listening on http://127.0.0.2:");
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        assert_ne!(address.port(), 0, "the real port is told");
        let mut connection = crate::client::Connection::tcp(address);
        connection.send("GET /environ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        assert_eq!(
            connection.reply().expect(200).json()["SERVER_PORT"],
            address.port().to_string()
        );
    }
}

#[test]
fn an_address_in_use_is_told_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let toml = config("pep3333", "workers = 1").replace("127.0.0.1:0", &address);
    let dir = folder(&toml);
    let run = run(wasgi().arg("serve").arg(dir.path().join("app.toml")), TIME);
    assert_ne!(run.code(), 0);
    assert!(
        run.stderr.contains(&address) && run.stderr.contains("in use"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("listening on"), "{}", run.stderr);
}

#[test]
fn help_and_version_are_complete() {
    let help = run(wasgi().arg("--help"), TIME);
    assert_eq!(help.code(), 0);
    for word in ["serve", "check", "--version"] {
        assert!(help.stdout.contains(word), "{word} is missing:\n{}", help.stdout);
    }
    let help = run(wasgi().args(["serve", "--help"]), TIME);
    assert_eq!(help.code(), 0);
    for option in [
        "--root",
        "--http",
        "--workers",
        "--time",
        "--memory",
        "--request-body",
        "--request-head",
        "--max-requests",
        "--access-log",
        "--venv",
        "--env",
        "30s",
        "256MiB",
        "16MiB",
        "64KiB",
        "combined",
    ] {
        assert!(
            help.stdout.contains(option),
            "{option} is missing:\n{}",
            help.stdout
        );
    }
    let version = run(wasgi().arg("--version"), TIME);
    assert_eq!(version.code(), 0);
    for name in ["wasgi 0.", "CPython 3.13", "wasmtime 48"] {
        assert!(
            version.stdout.contains(name),
            "{name} is missing: {}",
            version.stdout
        );
    }
}
