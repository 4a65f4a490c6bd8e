//! Images on disk: the next start takes them, and only when nothing has changed and nothing is damaged.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::{Run, Server, app_folder, bare_wasgi, run, wasgi};

const TIME: Duration = Duration::from_secs(90);
const MAKING: &str = "importing the app to make its image";

/// An app that the test may change, and a cache of its own.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(more: &str) -> Self {
        // Has the machine code made, where links can be made to it.
        wasgi();
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = Self {
            dir: tempfile::tempdir_in(tmp).expect("a folder for the test"),
        };
        for folder in ["app", "packages", "data", "cache/wasgi"] {
            fs::create_dir_all(place.at(folder)).expect("a folder for the test");
        }
        for folder in ["cache", "cache/wasgi"] {
            fs::set_permissions(place.at(folder), Permissions::from_mode(0o700)).expect("chmod");
        }
        for entry in fs::read_dir(tmp.join("cache/wasgi")).expect("the tests' cache") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_file() {
                fs::hard_link(entry.path(), place.at("cache/wasgi").join(entry.file_name())).expect("link");
            }
        }
        fs::copy(app_folder("cached").join("app.py"), place.at("app/app.py")).expect("copy");
        fs::write(place.at("app/page.txt"), "page").expect("write");
        fs::write(place.at("packages/greeting.py"), "TEXT = 'hello'\n").expect("write");
        place.configure(more);
        place
    }

    fn configure(&self, more: &str) {
        let toml = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n\n[app]\nname = \"cached\"\nroot = \"app\"\nwsgi-file = \"app.py\"\n\
             python-path = [\"packages\"]\nworkers = 1\n{more}\n"
        );
        fs::write(self.at("app.toml"), toml).expect("write");
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str) -> Command {
        self.set_up(bare_wasgi(), name)
    }

    fn set_up(&self, mut command: Command, name: &str) -> Command {
        command
            .env("XDG_CACHE_HOME", self.at("cache"))
            .arg(name)
            .arg(self.at("app.toml"));
        command
    }

    #[track_caller]
    fn serve(&self) -> Server {
        self.serve_with(&mut self.command("serve"))
    }

    #[track_caller]
    fn serve_with(&self, command: &mut Command) -> Server {
        Server::spawn(tempfile::tempdir().expect("a folder"), command)
    }

    #[track_caller]
    fn build(&self) -> Run {
        run(&mut self.command("build"), TIME)
    }

    fn images(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.at("cache/wasgi/images")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    #[track_caller]
    fn image(&self) -> PathBuf {
        let images = self.images();
        assert_eq!(images.len(), 1, "{images:?}");
        images.into_iter().next().expect("one")
    }

    /// Waits until so many imports are under way.
    #[track_caller]
    fn wait_for_imports(&self, count: usize) {
        let deadline = Instant::now() + TIME;
        while fs::read_dir(self.at("data")).expect("lists").count() < count {
            assert!(Instant::now() < deadline, "no {count} imports");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts a server, which must import the app, and one that must not.
    #[track_caller]
    fn expect_made(&self, what: &str) -> Server {
        let server = self.serve();
        assert!(server.log.has(0, "imported"), "{what}: an old image was taken");
        self.expect_found(what);
        server
    }

    #[track_caller]
    fn expect_found(&self, what: &str) -> Server {
        let server = self.serve();
        assert!(
            !server.log.has(0, "imported") && !server.log.has(0, MAKING),
            "{what}: {}",
            server.log.all()
        );
        server
    }
}

#[track_caller]
fn text(server: &Server) -> String {
    server.get("/").expect(200).text()
}

const CACHE: &str = "snapshot-cache = true";
/// With a folder that the app leaves a file in at each import.
const WITH_DATA: &str = "snapshot-cache = true\n[files]\n\"/data\" = { path = \"data\", write = true }";

#[test]
fn a_second_start_takes_the_image() {
    let place = Place::new(CACHE);
    let first = place.serve();
    first.log.wait_for(0, MAKING);
    let found = text(&first);
    assert!(found.starts_with("hello page - "), "{found}");
    let mode = |path: &Path| fs::metadata(path).expect("is there").mode() & 0o777;
    assert_eq!(mode(&place.image()), 0o600);
    assert_eq!(mode(place.image().parent().expect("a folder")), 0o700);
    drop(first);
    let second = place.expect_found("nothing changed");
    assert_eq!(
        text(&second),
        found,
        "what was drawn at the import is the image's"
    );

    let option = Place::new("");
    drop(option.serve());
    assert!(option.images().is_empty(), "nobody asked for it");
    drop(option.serve_with(option.command("serve").arg("--snapshot-cache")));
    option.image();
}

#[test]
fn each_change_makes_a_new_image_and_the_old_one_goes() {
    let place = Place::new(CACHE);
    place.expect_made("the first start");
    let first = place.image();
    let write = |name: &str, text: &str| fs::write(place.at(name), text).expect("write");

    write("app/page.txt", "PAGE");
    assert!(text(&place.expect_made("a template")).starts_with("hello PAGE - "));
    assert_ne!(place.image(), first);
    write("app/new.txt", "");
    place.expect_made("a new file");
    write("packages/greeting.py", "TEXT = 'good day'\n");
    assert!(text(&place.expect_made("a package")).starts_with("good day PAGE - "));
    for (what, more) in [
        (
            "the environment",
            "snapshot-cache = true\n[app.env]\nMORE = \"more\"",
        ),
        (
            "another value",
            "snapshot-cache = true\n[app.env]\nMORE = \"most\"",
        ),
        ("a limit", "snapshot-cache = true\n[limits]\nmemory = \"128MiB\""),
        ("isolation", "snapshot-cache = true\nisolation = \"request\""),
        ("warmup", "snapshot-cache = true\nwarmup = [\"/\"]"),
        (
            "a folder",
            "snapshot-cache = true\n[files]\n\"/shared\" = { path = \"data\" }",
        ),
    ] {
        place.configure(more);
        place.expect_made(what);
        place.image();
    }
    write("data/row", "");
    place.expect_made("a file in a read-only folder");
}

#[test]
fn data_compiled_files_and_workers_change_nothing() {
    let place =
        Place::new("snapshot-cache = true\n[files]\n\"/app/data\" = { path = \"app/data\", write = true }");
    fs::create_dir(place.at("app/data")).expect("mkdir");
    place.expect_made("the first start");
    fs::write(place.at("app/data/rows"), "rows").expect("write");
    place.expect_found("data");
    for folder in ["app", "packages"] {
        fs::create_dir(place.at(folder).join("__pycache__")).expect("mkdir");
        fs::write(place.at(folder).join("__pycache__/x.pyc"), "").expect("write");
    }
    place.expect_found("compiled files");
    place.expect_found("workers").get("/").expect(200);
}

#[test]
fn a_damaged_or_foreign_image_is_made_anew() {
    let place = Place::new(CACHE);
    drop(place.serve());
    let image = place.image();
    let length = fs::metadata(&image).expect("is there").len();
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&image)
            .expect("opens")
    };
    let flip = |at: u64| {
        let mut byte = [0];
        open().read_exact_at(&mut byte, at).expect("reads");
        open().write_all_at(&[byte[0] ^ 1], at).expect("writes");
    };
    let elsewhere = place.at("elsewhere");
    type Damage<'a> = Box<dyn Fn() + 'a>;
    let mut damages: Vec<(&str, Damage<'_>)> = vec![
        ("magic", Box::new(|| flip(0))),
        ("version", Box::new(|| flip(8))),
        ("key", Box::new(|| flip(20))),
        ("manifest", Box::new(|| flip(40))),
        ("checksum", Box::new(|| flip(0xffff))),
        ("a page", Box::new(|| flip(0x200000 + 0x2000))),
        ("a hole", Box::new(|| flip(length - 1))),
        ("cut", Box::new(|| open().set_len(length - 1).expect("set_len"))),
        ("cut short", Box::new(|| open().set_len(10).expect("set_len"))),
        (
            "longer",
            Box::new(|| open().set_len(length + 65536).expect("set_len")),
        ),
        ("empty", Box::new(|| drop(File::create(&image).expect("creates")))),
        (
            "mode",
            Box::new(|| fs::set_permissions(&image, Permissions::from_mode(0o622)).expect("chmod")),
        ),
        (
            "a link",
            Box::new(|| {
                fs::rename(&image, &elsewhere).expect("mv");
                symlink(&elsewhere, &image).expect("symlink");
            }),
        ),
    ];
    if rustix::process::geteuid().is_root() {
        // Nobody else can give a file away.
        damages.push((
            "owner",
            Box::new(|| chown(&image, Some(65534), None).expect("chown")),
        ));
    }
    for (what, damage) in damages {
        damage();
        let server = place.serve();
        let line = server.log.wait_for(0, "making it anew");
        assert!(line.contains(".image: "), "{what}: {line}");
        assert!(server.log.has(0, "imported"), "{what}");
        assert!(text(&server).starts_with("hello page - "), "{what}");
        assert_eq!(place.image(), image, "{what}");
    }
    place.expect_found("after all of that");
}

#[test]
fn an_app_is_served_where_no_image_can_be_kept() {
    let place = Place::new(CACHE);
    let images = place.at("cache/wasgi/images");
    fs::create_dir(&images).expect("mkdir");
    let said = |server: &Server| {
        assert!(text(server).starts_with("hello page - "));
        server.log.wait_for(0, "its image is not kept: ")
    };

    fs::set_permissions(&images, Permissions::from_mode(0o500)).expect("chmod");
    // Root may write anywhere, unless it gives that up.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--bounding-set=-dac_override", "--inh-caps=-dac_override", "--"])
            .arg(env!("CARGO_BIN_EXE_wasgi"));
        place.set_up(setpriv, "serve")
    } else {
        place.command("serve")
    };
    let line = said(&place.serve_with(&mut command));
    assert!(
        line.contains("cannot be written") && line.contains("denied"),
        "{line}"
    );
    assert!(place.images().is_empty());

    fs::set_permissions(&images, Permissions::from_mode(0o777)).expect("chmod");
    let line = said(&place.serve());
    assert!(line.contains("others may write to it"), "{line}");
    let run = place.build();
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("others may write to it\nhint: "),
        "{}",
        run.stderr
    );

    fs::set_permissions(&images, Permissions::from_mode(0o700)).expect("chmod");
    place.expect_made("with a folder of its own");
}

#[test]
fn two_servers_may_make_it_at_once() {
    let place = Place::new(WITH_DATA);
    fs::write(place.at("app/wait"), "").expect("write");
    thread::scope(|scope| {
        let servers = [(); 2].map(|()| scope.spawn(|| place.serve()));
        place.wait_for_imports(2);
        fs::remove_file(place.at("app/wait")).expect("rm");
        for server in servers {
            assert!(text(&server.join().expect("serves")).starts_with("hello page - "));
        }
    });
    // Both saw a file go meanwhile.
    assert!(place.images().is_empty());
    thread::scope(|scope| {
        let servers = [(); 2].map(|()| scope.spawn(|| place.serve()));
        for server in servers {
            assert!(text(&server.join().expect("serves")).starts_with("hello page - "));
        }
    });
    place.expect_found("made by two");
    place.image();
}

#[test]
fn what_changes_during_the_import_is_not_kept() {
    let place = Place::new(WITH_DATA);
    fs::write(place.at("app/wait"), "").expect("write");
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let server = place.serve();
            assert!(text(&server).starts_with("hello page - "));
            server
        });
        place.wait_for_imports(1);
        fs::remove_file(place.at("app/wait")).expect("rm");
        let line = server.join().expect("serves").log.wait_for(0, "not kept: ");
        assert!(
            line.contains("app/wait changed while the app was being imported"),
            "{line}"
        );
    });
    assert!(place.images().is_empty());
    place.expect_made("in peace");
}

#[test]
fn build_makes_an_image_or_leaves_it() {
    let place = Place::new(CACHE);
    let made = place.build();
    assert_eq!(made.code(), 0, "{}", made.stderr);
    let image = place.image();
    let expected = format!("app.toml: image made: {} (", image.display());
    assert!(made.stdout.contains(&expected), "{}", made.stdout);
    assert!(made.stdout.contains(" MiB on disk, "), "{}", made.stdout);
    assert!(made.stderr.contains(MAKING), "{}", made.stderr);
    let inode = fs::metadata(&image).expect("is there").ino();

    let left = place.build();
    assert_eq!(left.code(), 0, "{}", left.stderr);
    assert!(
        left.stdout.contains("app.toml: image is up to date: "),
        "{}",
        left.stdout
    );
    assert!(!left.stderr.contains("imported"), "{}", left.stderr);
    assert_eq!(fs::metadata(&image).expect("is there").ino(), inode);
    place.expect_found("built ahead of time");
}

#[test]
fn build_says_why_it_cannot() {
    let place = Place::new("");
    let run = place.build();
    assert_eq!(run.code(), 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("\nhint: write snapshot-cache = true"),
        "{}",
        run.stderr
    );

    place.configure(CACHE);
    fs::write(
        place.at("packages/greeting.py"),
        "kept = open('/tmp/kept', 'w')\nTEXT = 'hello'\n",
    )
    .expect("write");
    let run = place.build();
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("cannot have an image: open after import: '/tmp/kept'\nhint: "),
        "{}",
        run.stderr
    );
    // It is served all the same.
    let server = place.serve();
    assert!(text(&server).starts_with("hello page - "));
    assert!(place.images().is_empty());

    fs::write(
        place.at("packages/greeting.py"),
        "raise ValueError('on purpose')\n",
    )
    .expect("write");
    let run = place.build();
    assert_eq!(run.code(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("ValueError: on purpose"), "{}", run.stderr);
}

#[test]
fn requests_start_afresh_from_an_image_on_disk() {
    let place = Place::new("snapshot-cache = true\nisolation = \"request\"");
    let made = text(&place.expect_made("the first start"));
    let server = place.expect_found("isolation by request");
    for _ in 0..5 {
        assert_eq!(text(&server), made);
    }
}

#[test]
fn secrets_are_in_no_image_and_do_not_make_a_new_one() {
    let place = Place::new("");
    let code =
        "TEXT = 'hello'\nimport os, wsgiref.handlers\n\n\ndef secret():\n    return os.environ['KEY']\n";
    fs::write(place.at("packages/greeting.py"), code).expect("write");
    let app = fs::read_to_string(place.at("app/app.py")).expect("read");
    let app = app.replace("greeting.TEXT", "greeting.secret()");
    fs::write(place.at("app/app.py"), app).expect("write");
    for isolation in ["worker", "request"] {
        place.configure(&format!(
            "snapshot-cache = true\nisolation = {isolation:?}\nwarmup = [\"/\"]\n[app.env]\nMORE = \"not-secret\"\n\
             KEY = {{ value = \"${{HOST_KEY}}\", secret = true }}"
        ));
        let serve = |key: &str| place.serve_with(place.command("serve").env("HOST_KEY", key));
        let server = serve("swordfish-one");
        assert!(server.log.has(0, "imported"), "{isolation}");
        server.log.wait_for(0, "SecretWithheld: KEY is secret: ");
        for _ in 0..3 {
            let found = text(&server);
            assert!(
                found.starts_with("swordfish-one page not-secret "),
                "{isolation}: {found}"
            );
        }
        let server = serve("swordfish-two");
        assert!(!server.log.has(0, "imported"), "{isolation}");
        assert!(
            text(&server).starts_with("swordfish-two page not-secret "),
            "{isolation}"
        );
        let bytes = fs::read(place.image()).expect("the image");
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("not-secret") && !holds("swordfish"), "{isolation}");
        assert!(!server.log.all().contains("swordfish"), "{isolation}");
    }
}
