use std::fs;
use std::path::Path;

use super::*;

fn environment(name: &str) -> Option<String> {
    (name == "WHO").then(|| "ada".to_owned())
}

/// The options that an ini file comes to, or what is wrong with it.
fn read(folder: &Path, ini: &str) -> Result<Vec<(String, String)>, String> {
    let file = folder.join("shop.ini");
    fs::write(&file, ini).unwrap();
    let mut reader = Reader::new(folder, &environment, uwsgi::is_option);
    reader.file("shop.ini", None).map_err(|(what, _)| what)?;
    reader.placeholders();
    match reader.problems.is_empty() {
        true => Ok(reader
            .settings
            .into_iter()
            .filter(|setting| !setting.is_placeholder)
            .map(|setting| (setting.key, setting.value))
            .collect()),
        false => Err(Errors::of_files(reader.files, reader.problems).to_string()),
    }
}

#[track_caller]
fn comes_to(ini: &str, expected: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret.txt"), "hush\n").unwrap();
    fs::write(folder.path().join("lines.txt"), "x\ny\n").unwrap();
    fs::write(
        folder.path().join("base.ini"),
        "[uwsgi]\nprocname = %n of %N\n[web]\nhttp = :%x\n",
    )
    .unwrap();
    let found = read(folder.path(), ini).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(found, expected, "{ini}");
}

#[test]
fn lines_are_read_as_uwsgi_reads_them() {
    for (ini, expected) in [
        ("[uwsgi]\nmaster\n", &[("master", "")][..]),
        (
            "  [uwsgi]\n\t http-socket\t=  :80 \r\n",
            &[("http-socket", ":80")],
        ),
        (
            "[other]\na=1\n[uwsgi]\nenv=A=b=c\n[third]\nb=2\n",
            &[("env", "A=b=c")],
        ),
        (
            "[uwsgi]\n; one\n# two\nenv=A=1\nenv=B=2\n",
            &[("env", "A=1"), ("env", "B=2")],
        ),
        // As people write them, though uWSGI itself takes them for a part of the value.
        (
            "[uwsgi] ; main\nprocesses = 4 ; four\nmaster # yes\nhome = /a#b;c\n",
            &[("processes", "4"), ("master", ""), ("home", "/a#b;c")],
        ),
        (
            "[uwsgi]\nlog-format = %(addr) ; %(uri)\n",
            &[("log-format", "%(addr) ; %(uri)")],
        ),
    ] {
        comes_to(ini, expected);
    }
}

#[test]
fn what_stands_for_something_else_is_filled_in() {
    for (ini, expected) in [
        (
            "[uwsgi]\nmodule = %n:app\nsocket = uwsgi.%n.sock\n",
            &[("module", "shop:app"), ("socket", "uwsgi.shop.sock")][..],
        ),
        (
            "[uwsgi]\nenv = WHO=$(WHO) $(NOBODY)\n",
            &[("env", "WHO=ada $(NOBODY)")],
        ),
        ("[uwsgi]\nenv = KEY=@(secret.txt)!\n", &[("env", "KEY=hush!")]),
        (
            "[uwsgi]\nbase = /srv\nchdir = %(base)/x\n",
            &[("chdir", "/srv/x")],
        ),
        (
            "[uwsgi]\nset-placeholder = n=3\nprocesses = %(n * 2)\n",
            &[("processes", "6")],
        ),
        ("[uwsgi]\nset = processes=3\n", &[("processes", "3")]),
        ("[uwsgi]\nini = base.ini\n", &[("procname", "base of shop")]),
        ("[uwsgi]\ninclude = base.ini:web\n", &[("http", ":web")]),
        (
            "[uwsgi]\nini = :blue\n[blue]\nprocesses = 1\n",
            &[("processes", "1")],
        ),
    ] {
        comes_to(ini, expected);
    }
}

#[test]
fn blocks_repeat_and_choose() {
    for (ini, expected) in [
        (
            "[uwsgi]\nfor = a b\nenv = %(_)=1\nendfor =\nmaster\n",
            &[("env", "a=1"), ("env", "b=1"), ("master", "")][..],
        ),
        (
            "[uwsgi]\nfor-times = 2\nenv = N%(_)=x\nendfor =\n",
            &[("env", "N1=x"), ("env", "N2=x")],
        ),
        (
            "[uwsgi]\nfor-readline = lines.txt\nenv = %(_)=1\nend-for\n",
            &[("env", "x=1"), ("env", "y=1")],
        ),
        (
            "[uwsgi]\nif-env = WHO\nenv = W=%(_)\nendif =\nif-env = NOBODY\nmaster\nendif\n",
            &[("env", "W=ada")],
        ),
        (
            "[uwsgi]\nif-env = WHO=bob\nthreads = 1\nelse =\nthreads = 2\nendif\nlazy\n",
            &[("threads", "2"), ("lazy", "")],
        ),
        (
            "[uwsgi]\nif-not-exists = lines.txt\nthreads = 1\nendif\nif-file = lines.txt\nthreads = 2\nendif\n",
            &[("threads", "2")],
        ),
        (
            "[uwsgi]\nprocesses = 2\nif-opt = processes=2\nthreads = %(_)\nendif\n",
            &[("processes", "2"), ("threads", "2")],
        ),
    ] {
        comes_to(ini, expected);
    }
}

#[test]
fn what_has_no_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (ini, expected) in [
        ("[uwsgi]\nini = shop.ini\n", "more than 16 deep"),
        ("[uwsgi]\na = %(b)\nb = x%(a)\n", "stands for itself"),
        (
            "[uwsgi]\nfor-times = 99999\nenv = %(_)=1\nendfor\n",
            "more than 10000 options",
        ),
        (
            "[uwsgi]\nfor = a\nif-env = A\nendif\n",
            "shop.ini:3: if-env: blocks cannot be within blocks",
        ),
        (
            "[uwsgi]\nenv = A=@(nowhere)\n",
            "shop.ini:2: env: file `nowhere` cannot be read",
        ),
        (
            "[uwsgi]\nini = nowhere.ini\n",
            "shop.ini:2: ini: file `nowhere.ini` is not there",
        ),
        ("[uwsgi]\nxml = a.xml\n", "only ini files are read"),
        ("[app]\n", "has no section [uwsgi]"),
    ] {
        let said = read(folder.path(), ini).unwrap_err();
        assert!(said.contains(expected), "{ini}: {said}");
    }
}

fn of_words<'a>(make: fn(&'a [String]) -> Foreign<'a>, words: &'a [String]) -> Imported {
    import(make(words), &environment).unwrap()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn command_lines_of_guides_come_to_app_toml() {
    let current = fs::canonicalize(".").unwrap();
    let here = current.display();
    for (line, expected) in [
        (
            "--socket 0.0.0.0:8000 --protocol=http -w wsgi",
            &["module = \"wsgi:application\"", "http = [\"0.0.0.0:8000\"]"][..],
        ),
        (
            "-s x.sock -w myapp:app",
            &[
                "module = \"myapp:app\"",
                &format!("uwsgi = [\"unix:{here}/x.sock\"]"),
            ],
        ),
        (
            "-s/tmp/x.sock --manage-script-name --mount /em=myapp:app",
            &[
                "mount = \"/em\"",
                "module = \"myapp:app\"",
                "uwsgi = [\"unix:/tmp/x.sock\"]",
            ],
        ),
        (
            "--http :8000 --wsgi-file x.py --callable app -p 2 --threads=3",
            &[
                "callable = \"app\"",
                &format!("wsgi-file = \"{here}/x.py\""),
                "http = [\"0.0.0.0:8000\"]",
                "workers = 6",
            ],
        ),
        (
            "--http 127.0.0.1:1 -w a -H venv -Mp4 --harakiri 20 --limit-as 512",
            &[
                "workers = 4",
                "time = \"20s\"",
                "memory = \"512MiB\"",
                &format!("venv = \"{here}/venv\""),
            ],
        ),
        (
            "--http :1 a.py --static-map /s=/srv --static-index i.html --static-expires .*=60",
            &[
                "\"/s\" = { path = \"/srv\", index = [\"i.html\"], expires = \"60s\", follow-symlinks = true }",
            ],
        ),
        (
            "-s @hello -w a --chmod-socket --listen 100000 --reuse-port",
            &[
                "uwsgi = [\"unix:@hello\"]",
                "socket-mode = \"666\"",
                "backlog = 65535",
                "queue = 100000",
                "reuse-port = true",
            ],
        ),
        (
            "-s /tmp/x.sock -w a --chmod-socket=664 -l 7",
            &["socket-mode = \"664\"", "backlog = 7", "queue = 7"],
        ),
        (
            "--http :1 -w a --env A=${B} --disable-logging --limit-post 1000",
            &[
                "\"A\" = \"$${B}\"",
                "access = \"off\"",
                "request-body = \"1000B\"",
            ],
        ),
    ] {
        let words = words(line);
        let imported = of_words(Foreign::UwsgiWords, &words);
        for wanted in expected {
            assert!(
                imported.toml.lines().any(|line| line == *wanted),
                "{line}: {wanted}\n{}",
                imported.toml
            );
        }
    }
    for (line, expected) in [
        (
            "-w 4 -b 127.0.0.1:4000 myproject:app",
            &[
                "module = \"myproject:app\"",
                "workers = 4",
                "http = [\"127.0.0.1:4000\"]",
                "access = \"off\"",
            ][..],
        ),
        (
            "--bind=unix:x.sock -b :5000 --access-logfile - wsgi",
            &[
                "module = \"wsgi:application\"",
                "access = \"combined\"",
                "  \"0.0.0.0:5000\",",
            ],
        ),
        (
            "-b unix:/tmp/x.sock --backlog 9 --reuse-port a:b",
            &[
                "socket-mode = \"666\"",
                "backlog = 9",
                "queue = 9",
                "reuse-port = true",
            ],
        ),
        ("-b unix:/tmp/x.sock -m 007 a:b", &["socket-mode = \"660\""]),
        (
            "-b 0.0.0.0 -t 60 --graceful-timeout 5 --max-requests 9 --max-requests-jitter 2 -n shop a:b",
            &[
                "http = [\"0.0.0.0:8000\"]",
                "time = \"60s\"",
                "stop-time = \"5s\"",
                "max-requests = 9",
                "name = \"shop\"",
            ],
        ),
        (
            "--certfile c.pem --keyfile k.pem -b :443 --reload -e A=b a:b",
            &["watch = true", "\"A\" = \"b\""],
        ),
    ] {
        let words = words(line);
        let imported = of_words(Foreign::GunicornWords, &words);
        for wanted in expected {
            assert!(
                imported.toml.lines().any(|line| line == *wanted),
                "{line}: {wanted}\n{}",
                imported.toml
            );
        }
    }
}

#[test]
fn slips_of_a_command_line_are_told_at_once() {
    let words = words("-s :1 -w a:b --proceses 2 --harakiri soon --limit-post");
    let said = import(Foreign::UwsgiWords(&words), &environment)
        .unwrap_err()
        .to_string();
    for wanted in [
        "--proceses: unknown option\nhint: did you mean processes?",
        "--harakiri: `soon` is not a number",
        "--limit-post: has no value",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    let said = import(Foreign::UwsgiWords(&[]), &environment)
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("APP: is missing\nhint: name it as module:callable"),
        "{said}"
    );
    let words = [
        "-k".to_owned(),
        "uvicorn.workers.UvicornWorker".to_owned(),
        "a:b".to_owned(),
    ];
    let said = import(Foreign::GunicornWords(&words), &environment)
        .unwrap_err()
        .to_string();
    assert!(said.contains("is not a kind of worker here"), "{said}");
}

#[test]
fn assignments_of_gunicorns_file_count_and_programs_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conf.py");
    let cores = std::thread::available_parallelism().unwrap().get();
    let text = "import multiprocessing\nbind = ['127.0.0.1:1',\n  \"unix:/tmp/a.sock\"]  # two\nworkers = multiprocessing.cpu_count() * 2 + 1\n\
                wsgi_app = 'shop:app'\ntimeout = 7\naccesslog = '-'\nown = compute()\ndef on_exit(server):\n    timeout = 9\n";
    fs::write(&file, text).unwrap();
    let words = [
        "-c".to_owned(),
        file.display().to_string(),
        "-t".to_owned(),
        "8".to_owned(),
    ];
    let imported = import(Foreign::GunicornWords(&words), &environment).unwrap();
    for wanted in [
        "  \"127.0.0.1:1\",",
        "  \"unix:/tmp/a.sock\",",
        &format!("workers = {}", 2 * cores + 1),
        "module = \"shop:app\"",
        "time = \"8s\"",
        "access = \"combined\"",
    ] {
        assert!(
            imported.toml.lines().any(|line| line == wanted),
            "{wanted}\n{}",
            imported.toml
        );
    }
    fs::write(&file, "wsgi_app = 'a:b'\n\nworkers = int(os.environ['N'])\n").unwrap();
    let said = import(Foreign::GunicornWords(&words[..2]), &environment)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("conf.py:3: workers: is worked out by Python"),
        "{said}"
    );
}

#[test]
fn mistakes_that_only_the_whole_shows_have_the_ini_files_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.ini");
    let ini = "[uwsgi]\nmodule = a:b\nchdir = %d\nvenv = %dnowhere\nlimit-as = 1\nlog-format = %(nonsense)\n";
    fs::write(&file, ini).unwrap();
    let name = file.display().to_string();
    let imported = import(Foreign::UwsgiFile(&name), &environment).unwrap();
    let said = imported
        .load(&Overrides::default(), &environment)
        .unwrap_err()
        .to_string();
    for wanted in [
        "shop.ini:4: venv: folder",
        "shop.ini:5: limit-as: 1MiB is not from",
        "shop.ini:6: log-format:",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
}

#[test]
fn unknown_options_are_told_and_refused_if_strict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.ini");
    let name = file.display().to_string();
    fs::write(
        &file,
        "[uwsgi]\nmodule = a:b\nchdir = %d\nthunder-lock = true\ncache2 = name=x\nvaccum = true\n",
    )
    .unwrap();
    let imported = import(Foreign::UwsgiFile(&name), &environment).unwrap();
    let told: Vec<(bool, &str)> = imported
        .remarks
        .iter()
        .map(|remark| (remark.is_warning, remark.text.rsplit('/').next().unwrap()))
        .collect();
    assert_eq!(
        told[0],
        (
            false,
            "shop.ini:4: thunder-lock: not needed here: one queue hands requests to workers"
        )
    );
    assert!(
        told[1].0 && told[1].1.starts_with("shop.ini:5: cache2: not supported: "),
        "{told:?}"
    );
    assert_eq!(
        told[2],
        (true, "shop.ini:6: vaccum: unknown option; did you mean vacuum?")
    );
    fs::write(&file, "[uwsgi]\nstrict\nmodule = a:b\nvaccum = true\n").unwrap();
    let said = import(Foreign::UwsgiFile(&name), &environment)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("shop.ini:4: vaccum: unknown option\nhint: did you mean vacuum?"),
        "{said}"
    );
}

#[test]
fn each_option_has_one_row() {
    for table in [uwsgi::TABLE, gunicorn::TABLE] {
        let mut names: Vec<&str> = table.iter().flat_map(|row| row.names).copied().collect();
        let mut shorts: Vec<char> = table.iter().filter_map(|row| row.short).collect();
        let counts = (names.len(), shorts.len());
        names.sort_unstable();
        names.dedup();
        shorts.sort_unstable();
        shorts.dedup();
        assert_eq!((names.len(), shorts.len()), counts);
    }
}

/// What `uid`, `gid` and `chown-socket` come to.
#[test]
fn root_becomes_the_user_that_is_asked_for_and_others_are_told() {
    let words = words("-s /tmp/x.sock -w a:b --uid 65534 --gid 65533 --chown-socket 65534:65533");
    let imported = of_words(Foreign::UwsgiWords, &words);
    let lines = [
        "user = \"65534\"",
        "group = \"65533\"",
        "socket-owner = \"65534:65533\"",
    ];
    let are_there = lines.map(|wanted| imported.toml.lines().any(|line| line == wanted));
    let told = imported
        .remarks
        .iter()
        .filter(|remark| remark.is_warning && remark.text.contains("only root can "));
    match crate::is_root() {
        true => assert_eq!((are_there, told.count()), ([true; 3], 0), "{}", imported.toml),
        false => assert_eq!((are_there, told.count()), ([false; 3], 3), "{}", imported.toml),
    }
}

#[test]
fn who_is_asked_to_stay_stays() {
    let [uid, gid] = [nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()];
    let words = words(&format!("-s /tmp/x.sock -w a:b --uid {uid} --gid {gid}"));
    let imported = of_words(Foreign::UwsgiWords, &words);
    assert!(!imported.toml.contains("[server]"), "{}", imported.toml);
    assert!(
        !imported.remarks.iter().any(|remark| remark.is_warning),
        "{:?}",
        imported.remarks
    );
}
