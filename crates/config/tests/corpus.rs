//! Each file of `tests/corpus/config` against what must be said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wasgi_config::{
    Address, Config, Entry, Errors, Grant, Isolation, Limits, Overrides, Secret, StaticMount, TryFile, load,
};

fn corpus(folder: &str) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/corpus/config")
        .join(folder);
    fs::canonicalize(corpus).unwrap()
}

fn environment(name: &str) -> Option<String> {
    (name == "CORPUS_NAME").then(|| "ada".to_owned())
}

fn read(path: &Path) -> Result<Config, Errors> {
    load(Some(path), &Overrides::default(), &environment)
}

/// The message of `x.toml` is in `x.txt` beside it. Set `BLESS=1` to write what is said now, then read the difference.
#[test]
fn every_invalid_file_gets_its_exact_message() {
    let folder = corpus("invalid");
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    cases.sort();
    assert!(cases.len() > 20, "the corpus is at {}", folder.display());
    let mut wrong = Vec::new();
    for case in cases {
        let said = match read(&case) {
            Ok(config) => format!("(accepted: {config:?})"),
            Err(errors) => errors.to_string(),
        };
        // Messages name the file as it was named to `load`, here with this machine's folders.
        let said = said
            .replace(&format!("{}/", folder.display()), "")
            .replace(&corpus("").display().to_string(), "CORPUS");
        let expected = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, format!("{said}\n")).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != format!("{said}\n") {
            wrong.push(format!("{}\n{said}\n", expected.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these now say something else:\n\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_least_file_gets_every_default() {
    let config = read(&corpus("valid").join("least.toml")).unwrap();
    assert_eq!(config.app.name, "valid", "the folder's name");
    assert_eq!(config.app.root, corpus("valid"));
    assert_eq!(
        config.app.entry,
        Entry::Module {
            module: "wsgi".to_owned(),
            callable: "application".to_owned()
        }
    );
    assert_eq!((config.app.workers, config.app.max_requests), (2, None));
    assert!(config.app.venv.is_empty() && config.app.python_path.is_empty() && config.app.env.is_empty());
    assert_eq!(config.listen.http, ["127.0.0.1:8000".parse::<Address>().unwrap()]);
    assert_eq!(config.limits, Limits::default());
    assert!(config.files.is_empty());
    assert_eq!(config.app.isolation, Isolation::Worker);
    assert!(config.app.warmup.is_empty());
    assert!(!config.app.verify_rewind);
}

#[test]
fn the_most_file_means_what_it_says() {
    let config = read(&corpus("valid").join("most.toml")).unwrap();
    assert_eq!(config.app.name, "most");
    assert_eq!(config.app.root, corpus("site"));
    assert_eq!(
        config.app.entry,
        Entry::File {
            path: corpus("site").join("wsgi.py"),
            callable: "application".to_owned()
        }
    );
    assert_eq!(
        config.app.venv,
        [corpus("site/venv/lib/python3.13/site-packages")]
    );
    assert_eq!(config.app.python_path, [corpus("site/packages")]);
    assert_eq!((config.app.workers, config.app.max_requests), (4, Some(1000)));
    assert_eq!(config.app.isolation, Isolation::Request);
    assert_eq!(config.app.warmup, ["/", "/list?page=1"]);
    assert!(config.app.verify_rewind);
    assert!(config.app.snapshot_cache);
    let env = [
        ("GREETING", "hello ada"),
        ("LITERAL", "${CORPUS_NAME} costs $5"),
        ("PLAIN", "plain"),
    ];
    assert_eq!(
        config.app.env,
        env.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let secret = Secret {
        name: "PASSWORD".to_owned(),
        value: "hush ada".to_owned(),
    };
    assert_eq!(config.app.secrets, [secret]);
    assert!(
        !format!("{config:?}").contains("hush"),
        "debug output shows a secret"
    );
    let socket = corpus("valid").join("hello.sock");
    let addresses = ["127.0.0.1:0", "[::1]:8000", &format!("unix:{}", socket.display())];
    assert_eq!(
        config.listen.http,
        addresses.map(|text| text.parse::<Address>().unwrap())
    );
    let seconds = Duration::from_secs;
    let limits = Limits {
        time: Duration::from_millis(500),
        cpu: Duration::from_millis(250),
        cpu_per_minute: Duration::from_secs(10),
        slow: seconds(2),
        start_time: seconds(120),
        memory: 1 << 30,
        memory_total: 4 << 30,
        disk: 10 << 30,
        disk_files: 1_000_000,
        temp: 0,
        temp_files: 20,
        open_files: 100,
        request_body: 0,
        reply_size: 2 << 20,
        reply_rate: 64 << 10,
        request_head: 8192,
        concurrency: 8,
        rate: 100,
        queue: 0,
        queue_time: seconds(1),
        connections: 10,
        head_time: seconds(5),
        body_time: seconds(5),
        idle_time: seconds(5),
        write_time: seconds(5),
        stop_time: Duration::ZERO,
        log_rate: 8 << 10,
    };
    assert_eq!(config.limits, limits);
    let proxy = config.proxy.unwrap();
    assert_eq!((proxy.hops, proxy.unix), ([2, 1, 0, 0, 1, 0], true));
    assert_eq!(proxy.networks.len(), 3);
    let grant = |guest: &str, path: &str, write| Grant {
        guest: guest.to_owned(),
        path: corpus(path),
        write,
        quota: None,
        max_files: None,
    };
    assert_eq!(
        config.files,
        [
            grant("/app/instance", "site/data", true),
            Grant {
                quota: Some(1 << 30),
                max_files: Some(500),
                ..grant("/data", "site/data", true)
            },
            grant("/read", "site", false)
        ]
    );
    let plain = |mount: &str| StaticMount {
        mount: mount.to_owned(),
        path: corpus("site/data"),
        index: vec!["index.html".to_owned()],
        try_files: vec![TryFile::Path(String::new()), TryFile::Folder],
        expires: None,
        cache_control: None,
        listing: false,
        follow_symlinks: false,
        fallthrough: true,
    };
    assert_eq!(
        config.statics,
        [
            StaticMount {
                expires: Some(Duration::from_secs(3600)),
                follow_symlinks: true,
                fallthrough: false,
                ..plain("/static/old")
            },
            plain("/static"),
            StaticMount {
                index: Vec::new(),
                try_files: vec![
                    TryFile::Path(String::new()),
                    TryFile::Path(".html".to_owned()),
                    TryFile::Folder,
                    TryFile::Fixed("404.html".to_owned())
                ],
                listing: true,
                ..plain("")
            },
        ]
    );
}

/// Long paths are this machine's, so this message is not in the corpus.
#[test]
fn a_socket_path_longer_than_the_system_takes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.toml");
    fs::write(
        &file,
        format!(
            "[app]\nmodule = \"a:b\"\n[listen]\nhttp = \"unix:{}\"\n",
            "s".repeat(108)
        ),
    )
    .unwrap();
    let said = read(&file).unwrap_err().to_string();
    assert!(
        said.contains("app.toml:4: listen.http: the socket's path has"),
        "{said}"
    );
    assert!(said.contains("at most 107"), "{said}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| {
        read(path)
            .unwrap_err()
            .to_string()
            .replace(&folder.path().display().to_string(), "")
    };
    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"[app]\nname = \"caf\xe9\"\n").unwrap();
    assert_eq!(
        said(&latin),
        "/latin.toml: is not UTF-8 text\nhint: save it in UTF-8"
    );
    assert_eq!(
        said(folder.path()),
        ": is a folder\nhint: name the file in it: /app.toml"
    );
    assert!(said(&folder.path().join("no.toml")).starts_with("/no.toml: is not there\nhint: "));
}
