//! What the values of uWSGI's options come to, where that takes more than a line.

use nix::unistd::{Gid, Uid};

use crate::import::Setting;
use crate::import::document::quoted;
use crate::import::ini::is_true;
use crate::import::plan::Plan;
use crate::process::{group_id, is_root, user_entry};

/// What there is of `static-expires`.
pub(super) const EXPIRES: &str = "expires is one for all static files: static-expires = .* SECONDS";

/// `NAME=VALUE`
pub(in crate::import) fn env(plan: &mut Plan, setting: &Setting) {
    match setting.value.split_once('=') {
        Some((name, value)) => {
            let value = quoted(&value.replace("${", "$${"));
            plan.env.push((name.to_owned(), value, setting.clone()));
        }
        None => {
            let what = format!("`{}` has no value", setting.value);
            let hint = format!("write {} = {}=VALUE", setting.key, setting.value);
            plan.wrong(setting, what, hint);
        }
    }
}

pub(super) fn watch(plan: &mut Plan, setting: &Setting) {
    let on = is_true(&setting.value).to_string();
    Plan::set(&mut plan.app, "watch", on, setting);
}

/// `address,certificate,key`, then ciphers and an authority for clients.
pub(super) fn https(plan: &mut Plan, setting: &Setting) {
    let parts: Vec<&str> = setting.value.split(',').collect();
    let &[address, cert, key, ref others @ ..] = parts.as_slice() else {
        let hint = "write https = :443,cert.pem,key.pem";
        return plan.wrong(
            setting,
            "does not name an address, a certificate and its key",
            hint,
        );
    };
    if others.len() > 1 {
        // Who may connect would be decided by it.
        let hint = "have the web server in front ask for them";
        return plan.wrong(setting, "clients are not asked for certificates here", hint);
    }
    if !others.is_empty() {
        plan.remark(setting, false, "ciphers are rustls's own");
    }
    if let Some(address) = plan.address(setting, address) {
        let (cert, key) = (plan.path(cert), plan.path(key));
        plan.https.push((address, cert, key, setting.clone()));
    }
}

/// Digits as chmod has them; without any, everyone may connect.
pub(super) fn chmod(plan: &mut Plan, setting: &Setting) {
    let mode = match setting.value.as_str() {
        "" => "666",
        mode => mode,
    };
    Plan::set(&mut plan.of_sockets, "socket-mode", quoted(mode), setting);
}

/// `user` or `user:group`.
pub(super) fn chown(plan: &mut Plan, setting: &Setting) {
    let (user, group) = setting
        .value
        .split_once([':', ' '])
        .unwrap_or((&setting.value, ""));
    let is_other = || user_entry(user).is_some_and(|(uid, _)| uid != Uid::effective().as_raw());
    let (user, group) = (user.to_owned(), group.to_owned());
    if !is_root() && is_other() {
        // uWSGI tells it too, and goes on.
        plan.remark(
            setting,
            true,
            format!("only root can give a socket to {user}: it stays the user's that starts the server"),
        );
        if group.is_empty() {
            return;
        }
        return Plan::set(
            &mut plan.of_sockets,
            "socket-owner",
            quoted(&format!(":{group}")),
            setting,
        );
    }
    let owner = if group.is_empty() {
        user
    } else {
        format!("{user}:{group}")
    };
    Plan::set(&mut plan.of_sockets, "socket-owner", quoted(&owner), setting);
}

/// How many connections and requests may wait.
pub(in crate::import) fn backlog(plan: &mut Plan, setting: &Setting) {
    if let Some(number) = plan.number(setting) {
        Plan::set(&mut plan.limits, "queue", number.to_string(), setting);
        let backlog = number.clamp(1, 65_535).to_string();
        Plan::set(&mut plan.of_sockets, "backlog", backlog, setting);
    }
}

pub(in crate::import) fn reuse_port(plan: &mut Plan, setting: &Setting) {
    let on = is_true(&setting.value).to_string();
    Plan::set(&mut plan.of_sockets, "reuse-port", on, setting);
}

/// The user that root becomes, by name or number.
pub(in crate::import) fn user(plan: &mut Plan, setting: &Setting) {
    let is_current = user_entry(&setting.value).is_some_and(|(uid, _)| uid == Uid::effective().as_raw());
    become_other(plan, setting, is_current, "user");
}

/// Its group, likewise.
pub(in crate::import) fn group(plan: &mut Plan, setting: &Setting) {
    let is_current = group_id(&setting.value) == Some(Gid::effective().as_raw());
    become_other(plan, setting, is_current, "group");
}

/// Who is not root stays who it is, as with uWSGI, which tells it too.
fn become_other(plan: &mut Plan, setting: &Setting, is_current: bool, key: &'static str) {
    match is_root() {
        // Root's own group is not passed over: the user could have another.
        true if is_current && key == "user" => {}
        true => Plan::set(&mut plan.process, key, quoted(&setting.value), setting),
        false if is_current => {}
        false => plan.remark(
            setting,
            true,
            format!(
                "only root can become {}: the server keeps the {key} that starts it",
                setting.value
            ),
        ),
    }
}

pub(super) fn buffer_size(plan: &mut Plan, setting: &Setting) {
    if let Some(bytes) = plan.number(setting) {
        let used = bytes.clamp(8 << 10, 64 << 10);
        if bytes > used {
            plan.remark(setting, true, "64 KiB is the most that a request's head may have");
        }
        Plan::set(&mut plan.limits, "request-head", format!("\"{used}B\""), setting);
    }
}

pub(super) fn limit_as(plan: &mut Plan, setting: &Setting) {
    if let Some(megabytes) = plan.number(setting).filter(|megabytes| *megabytes > 0) {
        if megabytes > 4096 {
            plan.remark(setting, true, "4096 is the most that a worker can have");
        }
        let value = format!("\"{}MiB\"", megabytes.min(4096));
        Plan::set(&mut plan.limits, "memory", value, setting);
    }
}

pub(super) fn lifetime(plan: &mut Plan, setting: &Setting) {
    if let Some(seconds) = plan.number(setting) {
        Plan::set(&mut plan.app, "max-lifetime", format!("\"{seconds}s\""), setting);
    }
}

/// Megabytes.
pub(super) fn max_memory(plan: &mut Plan, setting: &Setting) {
    if let Some(megabytes) = plan.number(setting) {
        Plan::set(
            &mut plan.app,
            "max-memory",
            format!("\"{megabytes}MiB\""),
            setting,
        );
    }
}

pub(super) fn daemonize(plan: &mut Plan, setting: &Setting) {
    Plan::set(&mut plan.process, "daemon", "true".to_owned(), setting);
    logto(plan, setting);
}

/// `pidfile`, `fifo`: a key that takes one path.
pub(in crate::import) fn file(plan: &mut Plan, key: &'static str, setting: &Setting) {
    let path = plan.path(&setting.value);
    Plan::set(&mut plan.process, key, quoted(&path), setting);
}

pub(super) fn logto(plan: &mut Plan, setting: &Setting) {
    if setting
        .value
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        let hint = "write log-syslog, or the path of a file";
        return plan.wrong(setting, "lines are not sent over UDP", hint);
    }
    let path = plan.path(&setting.value);
    Plan::set(&mut plan.log, "file", quoted(&path), setting);
    // uWSGI's grow until log-maxsize, or logrotate, says otherwise.
    if !plan.log.iter().any(|(key, ..)| *key == "rotate-size") {
        Plan::set(&mut plan.log, "rotate-size", quoted("0"), setting);
    }
}

/// `[name] file:path`, `syslog[:...]`, `stdio`, `systemd`.
pub(super) fn logger(plan: &mut Plan, setting: &Setting) {
    let which = setting.value.rsplit(' ').next().unwrap_or_default();
    let (kind, argument) = which.split_once(':').unwrap_or((which, ""));
    match kind {
        "file" => {
            let inner = Setting {
                value: argument.to_owned(),
                ..setting.clone()
            };
            logto(plan, &inner);
        }
        "syslog" => Plan::set(&mut plan.log, "to", quoted("syslog"), setting),
        "systemd" => Plan::set(&mut plan.log, "to", quoted("journald"), setting),
        "stdio" => {}
        _ => plan.wrong(
            setting,
            format!("`{kind}` is no logger here"),
            "write file:PATH, syslog, systemd or stdio",
        ),
    }
}

pub(super) fn static_map(plan: &mut Plan, setting: &Setting) {
    match setting.value.split_once('=') {
        Some((mount, folder)) => {
            let folder = match setting.key.as_str() {
                "static-map2" => format!("{}{mount}", folder.trim_end_matches('/')),
                _ => folder.to_owned(),
            };
            let mount = if mount.starts_with('/') {
                mount.to_owned()
            } else {
                format!("/{mount}")
            };
            plan.statics.push((mount, folder, setting.clone()));
        }
        None => plan.wrong(setting, "does not name a folder", "write /static=folder"),
    }
}

/// `pattern seconds`
pub(super) fn expires(plan: &mut Plan, setting: &Setting) {
    let (pattern, seconds) = setting
        .value
        .rsplit_once([' ', '='])
        .unwrap_or(("", &setting.value));
    let is_all = matches!(
        pattern.trim().trim_start_matches('^').trim_end_matches('$'),
        "*" | ".*" | "/*" | "/.*" | "/" | ""
    );
    match seconds.parse::<u64>() {
        Ok(seconds) if is_all => plan.expires = Some((format!("\"{seconds}s\""), setting.clone())),
        Ok(_) => plan.remark(setting, true, format!("not supported: {EXPIRES}")),
        Err(_) => plan.wrong(
            setting,
            format!("`{seconds}` is not a number of seconds"),
            "write static-expires = .* 3600",
        ),
    }
}
