//! What the values of uWSGI's options come to, where that takes more than a line.

use nix::unistd::{Gid, Group, Uid, User};

use crate::import::Setting;
use crate::import::document::quoted;
use crate::import::ini::is_true;
use crate::import::plan::Plan;

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

pub(super) fn chmod(plan: &mut Plan, setting: &Setting) {
    if setting.value != "660" {
        plan.remark(
            setting,
            true,
            "not supported: unix sockets are 660: their user and group may connect",
        );
    }
}

/// The user that the server is to run as, by name or number.
pub(in crate::import) fn user(plan: &mut Plan, setting: &Setting) {
    let named = match setting.value.parse() {
        Ok(number) => Some(Uid::from_raw(number)),
        Err(_) => User::from_name(&setting.value)
            .ok()
            .flatten()
            .map(|user| user.uid),
    };
    become_other(plan, setting, named.map(|uid| uid == Uid::effective()), "user");
}

/// Its group, likewise.
pub(in crate::import) fn group(plan: &mut Plan, setting: &Setting) {
    let named = match setting.value.parse() {
        Ok(number) => Some(Gid::from_raw(number)),
        Err(_) => Group::from_name(&setting.value)
            .ok()
            .flatten()
            .map(|group| group.gid),
    };
    become_other(plan, setting, named.map(|gid| gid == Gid::effective()), "group");
}

/// As whom the server runs must not be more than the file says; if it is less, that is told, as uWSGI passes over it.
fn become_other(plan: &mut Plan, setting: &Setting, same: Option<bool>, noun: &str) {
    match same {
        Some(true) => {}
        _ if Uid::effective().is_root() => {
            let what = format!(
                "the server does not change its {noun}, and root is more than `{}`",
                setting.value
            );
            let hint = "start it as that user: with User= in its systemd unit, or by setpriv or runuser";
            plan.wrong(setting, what, hint);
        }
        _ => plan.remark(
            setting,
            true,
            format!("not supported: the server keeps the {noun} that starts it"),
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

pub(super) fn daemonize(plan: &mut Plan, setting: &Setting) {
    let text = "not supported: the server stays in the foreground, with its log in the file: start it by systemd, or setsid";
    plan.remark(setting, true, text);
    logto(plan, setting);
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
