//! Many apps on one machine: their images, made side by side, and a server that holds only those that somebody asks for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::server::{bare_wasgi, packages, run, wasgi};

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
            "[app]\nmodule = \"app:app\"\npython-path = [{:?}]\nsnapshot-cache = true\nwarmup = [\"/\"]\n{more}",
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
fn a_servers_images_are_made_ahead_of_time() {
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
    let again = run(farm.command("build").arg(&file), TIME);
    assert!(
        again
            .stdout
            .contains("\n3 apps: 0 made, 3 up to date, 0 failed; "),
        "{}",
        again.stdout
    );
}
