//! Gunicorn's options, a row for each.

use crate::import::Setting;
use crate::import::document::quoted;
use crate::import::ini::is_true;
use crate::import::plan::Plan;
use crate::import::table::Outcome::{Honoured, NotNeeded, NotSupported, Read};
use crate::import::table::{Row, flag, value};
use crate::import::uwsgi;

const HOOKS: &str =
    "functions of a gunicorn.conf.py are not run; os.register_at_fork runs in each copy of the app";

/// All options that are known. docs/uwsgi-options.md is made of it.
#[rustfmt::skip]
pub(in crate::import) const TABLE: &[Row] = &[
    value(&["APP", "wsgi-app"], Honoured("`module` of [app]; without `:callable` it is `application`", |plan, it| plan.module = Some(it.clone()))),
    value(&["bind"], Honoured("`http` of [listen]", bind)).short('b'),
    value(&["workers"], Honoured("`workers` of [app], times `threads`", |plan, it| { plan.processes = plan.number(it).map(|number| (number, it.clone())); })).short('w'),
    value(&["threads"], Honoured("`workers` of [app] is `workers` times `threads`: so many requests at a time", |plan, it| { plan.threads = plan.number(it).map(|number| (number, it.clone())); })),
    value(&["worker-class"], Honoured("sync and gthread are what there is; gevent and eventlet are told, and ASGI's workers refused", worker_class)).short('k'),
    value(&["worker-connections"], NotSupported("`concurrency` of [limits] with isolation = \"request\" has many requests at a time")),
    value(&["timeout"], Honoured("`time` of [limits]", |plan, it| plan.seconds("time", it))).short('t'),
    value(&["graceful-timeout"], Honoured("`stop-time` of [limits]", |plan, it| plan.seconds("stop-time", it))),
    value(&["keep-alive"], Honoured("`idle-time` of [limits]", |plan, it| plan.seconds("idle-time", it))),
    value(&["max-requests"], Honoured("`max-requests` of [app]", |plan, it| { if let Some(number) = plan.number(it) { Plan::set(&mut plan.app, "max-requests", number.to_string(), it); } })),
    value(&["max-requests-jitter"], NotNeeded("workers are replaced up to a tenth later, each at its own time")),
    value(&["backlog"], Honoured("`backlog` of [listen] and `queue` of [limits]: how many connections and requests may wait", uwsgi::backlog)),
    value(&["access-logfile"], Honoured("`access` of [log]; a file takes all lines", access_log)),
    value(&["error-logfile", "log-file"], Honoured("`file` of [log]", log_file)),
    value(&["log-level"], NotSupported("the host has no levels; the app's logging has its own")),
    value(&["access-logformat"], NotSupported("`access` of [log] has a language of its own")),
    value(&["log-config", "log-config-json", "logger-class", "statsd-host", "statsd-prefix", "dogstatsd-tags"], NotSupported("[log] and [admin] of app.toml are what there is")),
    flag(&["log-syslog"], Honoured("`to` of [log]", |plan, it| { Plan::set(&mut plan.log, "to", quoted("syslog"), it) })),
    value(&["log-syslog-to", "log-syslog-prefix", "log-syslog-facility"], NotSupported("lines go to /dev/log")),
    flag(&["enable-stdio-inheritance", "capture-output"], NotNeeded("what the app prints is in the log")).short('R'),
    flag(&["disable-redirect-access-to-syslog"], NotNeeded("lines of requests go where all lines go")),
    flag(&["daemon"], Honoured("`daemon` of [server]: serves in the background, and whoever starts it waits until it does", |plan, it| { Plan::set(&mut plan.process, "daemon", is_true(&it.value).to_string(), it) })).short('D'),
    value(&["pid", "pidfile"], Honoured("`pidfile` of [server]", |plan, it| uwsgi::file(plan, "pidfile", it))).short('p'),
    value(&["user"], Honoured("`user` of [server]: root becomes it for good, once sockets are bound; who is not root stays who it is, and is told", uwsgi::user)).short('u'),
    value(&["group"], Honoured("`group` of [server], with user; else it is the user's own", uwsgi::group)).short('g'),
    value(&["umask"], Honoured("`socket-mode` of [listen]: 666 less the umask, which is 0 if nothing is said", umask)).short('m'),
    flag(&["initgroups"], NotNeeded("the user's own groups are taken")),
    value(&["chdir"], Honoured("`root` of [app]: the folder that the app sees", |plan, it| plan.chdir = Some(it.clone()))),
    value(&["pythonpath"], Honoured("`python-path` of [app]; folders between commas", |plan, it| { for path in it.value.split(',') { plan.python_path.push(Setting { value: path.to_owned(),..it.clone() }); } })),
    value(&["env", "raw-env"], Honoured("[app.env], which is all of the app's environment", uwsgi::env)).short('e'),
    value(&["name", "proc-name"], Honoured("`name` of [app]", |plan, it| plan.name = Some(it.clone()))).short('n'),
    flag(&["reload"], Honoured("`watch` of [app]", |plan, it| { Plan::set(&mut plan.app, "watch", is_true(&it.value).to_string(), it) })),
    value(&["reload-engine", "reload-extra-file"], NotNeeded("all files of the app's folder are looked at")),
    flag(&["preload", "preload-app"], NotNeeded("the app is imported once, and workers are copies of it")),
    flag(&["reuse-port"], Honoured("`reuse-port` of [listen]", uwsgi::reuse_port)),
    flag(&["no-sendfile", "check-config", "print-config", "spew"], NotNeeded("wasgi check and wasgi import show what a configuration comes to")),
    value(&["worker-tmp-dir", "tmp-upload-dir"], NotNeeded("the app's /tmp is its own")),
    value(&["limit-request-line"], Honoured("`request-head` of [limits] is for the line and the headers together: at least 8 KiB", |plan, it| { if plan.number(it).is_some_and(|bytes| bytes > 8190) { plan.remark(it, true, "the line and the headers together have at most 64 KiB"); } })),
    value(&["limit-request-fields", "limit-request-field_size", "limit-request-field-size"], NotNeeded("`request-head` of [limits] bounds the line and the headers together")),
    value(&["forwarded-allow-ips"], Honoured("`trust` of [proxy]", trust)),
    value(&["secure-scheme-headers", "forwarder-headers", "header-map", "proxy-allow-from"], NotSupported("[proxy] says which headers of whom count")),
    flag(&["proxy-protocol"], NotSupported("the peer's own address is told")),
    value(&["certfile"], Honoured("`https` of [listen], with `keyfile`", |plan, it| plan.certificate = Some(it.clone()))),
    value(&["keyfile"], Honoured("`https` of [listen], with `certfile`", |plan, it| plan.key = Some(it.clone()))),
    value(&["ca-certs", "cert-reqs", "ciphers", "ssl-version"], NotSupported("ciphers are rustls's own, and clients are not asked for certificates")),
    flag(&["do-handshake-on-connect", "suppress-ragged-eofs"], NotNeeded("connections are set up beside the workers")),
    value(&["paste", "paster"], NotSupported("write a wsgi.py that makes the application")),
    value(&["config"], Read("a gunicorn.conf.py is not run: its simple assignments count, the others are told")).short('c'),
    value(&["on-starting", "on-reload", "when-ready", "pre-fork", "post-fork", "post-worker-init", "worker-int", "worker-abort", "pre-exec", "pre-request", "post-request", "child-exit", "worker-exit", "nworkers-changed", "on-exit"], NotSupported(HOOKS)),
];

fn bind(plan: &mut Plan, setting: &Setting) {
    for address in setting.value.split(',') {
        let address = address.trim();
        let is_path = address.starts_with("unix:") || address.starts_with("fd://");
        let has_port = address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = match is_path || has_port {
            true => address.to_owned(),
            false => format!("{address}:8000"),
        };
        if let Some(address) = plan.address(setting, &address) {
            plan.addresses.push(("http", address, setting.clone()));
        }
    }
}

/// A number as Python writes it; with a 0 before it, octal.
fn umask(plan: &mut Plan, setting: &Setting) {
    let text = setting.value.as_str();
    let octal = text
        .strip_prefix("0o")
        .or(text.strip_prefix('0'))
        .filter(|rest| !rest.is_empty());
    let umask = match octal {
        Some(digits) => u32::from_str_radix(digits, 8),
        None => text.parse(),
    };
    match umask {
        Ok(umask) if umask <= 0o777 => plan.umask = Some((umask, Some(setting.clone()))),
        _ => plan.wrong(setting, format!("`{text}` is not a umask"), "write --umask 007"),
    }
}

fn worker_class(plan: &mut Plan, setting: &Setting) {
    match setting.value.as_str() {
        "sync" | "gthread" => {}
        "gevent" | "eventlet" | "gevent_pywsgi" | "gevent_wsgi" => plan.remark(
            setting,
            true,
            "not supported: there are no greenlets; isolation = \"request\" has many waiting requests at a time",
        ),
        _ => {
            let what = format!("`{}` is not a kind of worker here", setting.value);
            plan.wrong(setting, what, "wasgi serves WSGI apps: leave it out, or write sync or gthread");
        }
    }
}

fn access_log(plan: &mut Plan, setting: &Setting) {
    let access = if setting.value.is_empty() {
        "off"
    } else {
        "combined"
    };
    Plan::set(&mut plan.log, "access", quoted(access), setting);
    if !matches!(setting.value.as_str(), "" | "-") && !plan.log.iter().any(|(key, ..)| *key == "file") {
        log_file(plan, setting);
        plan.remark(
            setting,
            false,
            "the file takes all lines, not only those of requests",
        );
    }
}

fn log_file(plan: &mut Plan, setting: &Setting) {
    plan.log.retain(|(key, ..)| *key != "file");
    if setting.value != "-" {
        let path = plan.path(&setting.value);
        Plan::set(&mut plan.log, "file", quoted(&path), setting);
    }
}

/// `127.0.0.1,10.0.0.0/8`, or `*`.
fn trust(plan: &mut Plan, setting: &Setting) {
    let peers: Vec<String> = setting.value.split(',').map(|peer| quoted(peer.trim())).collect();
    if setting.value == "*" {
        let hint = "name the addresses of the proxy: anyone could say who they are";
        return plan.wrong(setting, "everyone would be trusted", hint);
    }
    Plan::set(
        &mut plan.proxy,
        "trust",
        format!("[{}]", peers.join(", ")),
        setting,
    );
}
