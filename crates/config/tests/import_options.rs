//! docs/uwsgi-options.md has the options as the code has them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

const HEAD: &str = "\
# Options of uWSGI and Gunicorn

What becomes of each when `wasgi serve uwsgi.ini`, `wasgi uwsgi` or `wasgi gunicorn` meets it. `wasgi import` writes what a
file comes to as an `app.toml`. How to move over is told in [coming-from.md](coming-from.md).

**Honoured** options count, as the text says. Those **not needed** are about something that is so without them. Those **not
supported** are told when the server starts, with their line and the reason. What is not in the table is told too, and is
a mistake under `strict` and on a command line.
";

/// Set `BLESS=1` to write it, then read the difference.
#[test]
fn the_page_of_options_is_that_of_the_code() {
    let mut page = HEAD.to_owned();
    for (server, rows) in wasgi_config::documentation() {
        let first = if server == "uWSGI" {
            "option"
        } else {
            "option or setting"
        };
        write!(page, "\n## {server}\n\n| {first} | | |\n|---|---|---|\n").unwrap();
        for row in rows {
            let names: Vec<String> = row.names.iter().map(|name| format!("`{name}`")).collect();
            let text = row.text.replace('|', "\\|");
            writeln!(page, "| {} | {} | {text} |", names.join(", "), row.outcome).unwrap();
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/uwsgi-options.md");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/uwsgi-options.md is not that of the code: run with BLESS=1"
    );
}

/// Those that guides have.
#[test]
fn every_option_that_guides_have_is_known() {
    let [(_, rows), _] = wasgi_config::documentation();
    let known: Vec<&str> = rows.iter().flat_map(|row| row.names.iter().copied()).collect();
    let guides = "module wsgi-file file callable mount manage-script-name chdir pythonpath venv virtualenv home pyhome env socket \
                  uwsgi-socket http http-socket https fastcgi-socket scgi-socket protocol chmod-socket chown-socket uid gid \
                  processes workers threads master max-requests max-worker-lifetime harakiri http-timeout socket-timeout listen \
                  buffer-size post-buffering limit-post limit-as reload-on-rss cheaper cheaper-algo cheaper-initial cheaper-step \
                  lazy-apps enable-threads thunder-lock single-interpreter need-app vacuum die-on-term pidfile safe-pidfile \
                  daemonize logto logger log-format log-x-forwarded-for disable-logging log-4xx log-5xx stats static-map \
                  check-static static-index static-expires touch-reload py-autoreload master-fifo cache2 auto-procname procname \
                  strict";
    for option in guides.split_whitespace() {
        assert!(known.contains(&option), "{option}");
    }
}
