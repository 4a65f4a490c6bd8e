//! What options of the command line do to a file, and without one.

use std::fs;
use std::path::Path;

use wasgi_config::{Address, Config, Entry, Errors, LIMITS, Overrides, load, load_without_app};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data", "packages", "other"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("wsgi.py"), "").unwrap();
    fs::write(
        folder.path().join("app.toml"),
        r#"[app]
wsgi-file = "wsgi.py"
callable = "app"
python-path = ["packages"]
workers = 3
[app.env]
A = "file"
B = "file"
[listen]
http = ["127.0.0.1:1", "127.0.0.1:2"]
[limits]
time = "1s"
memory = "64MiB"
[files]
"/data" = { path = "data" }
"#,
    )
    .unwrap();
    folder
}

fn with(folder: &Path, overrides: &Overrides) -> Result<Config, Errors> {
    load(Some(&folder.join("app.toml")), overrides, &|_| None)
}

fn limit(name: &str, value: &str) -> (&'static wasgi_config::LimitKey, String) {
    (
        LIMITS.iter().find(|key| key.name == name).unwrap(),
        value.to_owned(),
    )
}

#[test]
fn options_win_over_the_file_and_the_rest_stays() {
    let folder = folder();
    let path = |name: &str| fs::canonicalize(folder.path().join(name)).unwrap();
    let config = with(
        folder.path(),
        &Overrides {
            module: Some("hello:app".to_owned()),
            workers: Some(1),
            verify_rewind: true,
            env: vec!["B=option".to_owned(), "C=${B}=c".to_owned()],
            http: vec!["127.0.0.1:0".to_owned()],
            limits: vec![limit("time", "2s")],
            dirs: vec![
                format!("{}::/data:rw", path("other").display()),
                format!("{}::/more", path("data").display()),
            ],
            ..Overrides::default()
        },
    )
    .unwrap();
    assert_eq!(
        config.app.entry,
        Entry::Module {
            module: "hello".to_owned(),
            callable: "app".to_owned()
        }
    );
    assert_eq!(config.app.workers, 1);
    assert!(config.app.verify_rewind);
    let env = [("A", "file"), ("B", "option"), ("C", "${B}=c")];
    assert_eq!(
        config.app.env,
        env.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(config.listen.http, ["127.0.0.1:0".parse::<Address>().unwrap()]);
    assert_eq!(
        (config.limits.time.as_secs(), config.limits.memory),
        (2, 64 << 20)
    );
    let files: Vec<_> = config
        .files
        .iter()
        .map(|grant| (grant.guest.as_str(), grant.path.clone(), grant.write))
        .collect();
    assert_eq!(
        files,
        [("/data", path("other"), true), ("/more", path("data"), false)]
    );
    assert_eq!(config.app.python_path, [path("packages")]);
}

#[test]
fn a_file_named_alone_has_its_folder_as_root() {
    let folder = folder();
    let file = folder.path().join("wsgi.py").display().to_string();
    let overrides = Overrides {
        wsgi_file: Some(file),
        ..Overrides::default()
    };
    let config = load(None, &overrides, &|_| None).unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    assert_eq!(config.app.root, root);
    assert_eq!(
        config.app.entry,
        Entry::File {
            path: root.join("wsgi.py"),
            callable: "application".to_owned()
        }
    );
}

#[test]
fn a_file_that_is_not_there_is_told_even_without_a_file_of_settings() {
    let overrides = Overrides {
        wsgi_file: Some("/nowhere/wsgi.py".to_owned()),
        ..Overrides::default()
    };
    let said = load(None, &overrides, &|_| None).unwrap_err().to_string();
    assert!(
        said.starts_with("APP: file `/nowhere/wsgi.py` is not there\nhint: "),
        "{said}"
    );
}

#[test]
fn wrong_options_are_told_by_their_name_before_the_file() {
    let folder = folder();
    fs::write(
        folder.path().join("app.toml"),
        "[app]\nmodule = \"a:b\"\nworkers = 0\n",
    )
    .unwrap();
    let said = with(
        folder.path(),
        &Overrides {
            root: Some("/nowhere".to_owned()),
            env: vec!["A".to_owned()],
            limits: vec![limit("time", "30"), limit("queue", "x")],
            dirs: vec!["data".to_owned()],
            ..Overrides::default()
        },
    )
    .unwrap_err()
    .to_string()
    .replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(
        said,
        "--env: `A` has no value\n\
         hint: write --env A=VALUE\n\
         --dir: `data` does not say which folder of the host is seen where\n\
         hint: write --dir ./data::/data to read, --dir ./data::/data:rw to write too\n\
         --root: folder `/nowhere` is not there\n\
         hint: create it, or correct the path; it is relative to the current folder\n\
         --time: `30` has no unit\n\
         hint: write \"30s\"\n\
         --queue: `x` is not a number\n\
         hint: write a whole number\n\
         app.toml:3: app.workers: 0 is not from 1 to 256\n\
         hint: a worker for each core is a good start"
    );
}

#[test]
fn folders_can_be_granted_without_an_app() {
    let folder = folder();
    let host = folder.path().display().to_string();
    let given = load_without_app(&Overrides {
        dirs: vec![format!("{host}::/work:rw")],
        env: vec!["A=b".to_owned()],
        limits: vec![limit("memory", "1GiB")],
        ..Overrides::default()
    })
    .unwrap();
    assert_eq!(
        (
            given.files[0].guest.as_str(),
            given.files[0].write,
            given.limits.memory
        ),
        ("/work", true, 1 << 30)
    );
    assert_eq!(given.env, [("A".to_owned(), "b".to_owned())]);
    let said = load_without_app(&Overrides {
        dirs: vec![format!("{host}::/lib")],
        ..Overrides::default()
    });
    assert!(said.unwrap_err().to_string().starts_with("--dir: `/lib` "));
}

#[test]
fn another_value_for_a_secret_is_as_secret() {
    let folder = folder();
    let toml = "[app]\nwsgi-file = \"wsgi.py\"\n[app.env]\nKEY = { value = \"file\", secret = true }\n";
    fs::write(folder.path().join("app.toml"), toml).unwrap();
    let config = with(
        folder.path(),
        &Overrides {
            env: vec!["KEY=option".to_owned(), "PLAIN=plain".to_owned()],
            ..Overrides::default()
        },
    )
    .unwrap();
    assert_eq!(config.app.env, [("PLAIN".to_owned(), "plain".to_owned())]);
    assert_eq!(config.app.secrets[0].value, "option");
}

#[test]
fn the_snapshot_cache_can_be_asked_for_by_an_option() {
    let folder = folder();
    for asked in [false, true] {
        let overrides = Overrides {
            snapshot_cache: asked,
            ..Overrides::default()
        };
        assert_eq!(with(folder.path(), &overrides).unwrap().app.snapshot_cache, asked);
    }
}
