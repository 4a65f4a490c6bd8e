//! From the configuration to the engine's terms: where in the guest the app's folders are seen.

use std::path::Path;

use wasgi_config::{Config, Entry, Grant};
use wasgi_engine::{AppSpec, Isolation, Limits, Mount, Quota};

/// Where the guest sees the app's root.
const ROOT: &str = "/app";

/// What the engine needs to know of the app.
///
/// The root is `/app`, read-only, first on `sys.path` and the working directory. Folders of python-path and the venv
/// inside it are used there; the others are seen as `/path/0`, `/path/1`... and `/venv/lib/python3.13/site-packages`.
pub(crate) fn spec(config: &Config) -> AppSpec {
    let app = &config.app;
    let mut mounts = vec![mount(&app.root, ROOT.to_owned())];
    let mut see = |host: &Path, elsewhere: String| match inside(&app.root, host) {
        Some(guest) => guest,
        None => {
            mounts.push(mount(host, elsewhere.clone()));
            elsewhere
        }
    };
    let mut sys_path = vec![ROOT.to_owned()];
    for (index, folder) in app.python_path.iter().enumerate() {
        sys_path.push(see(folder, format!("/path/{index}")));
    }
    let mut site_dirs = Vec::new();
    for (index, folder) in app.venv.iter().enumerate() {
        let version = folder
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        let name = version
            .filter(|name| name.starts_with("python3."))
            .map_or(index.to_string(), str::to_owned);
        site_dirs.push(see(folder, format!("/venv/lib/{name}/site-packages")));
    }
    mounts.extend(grants(&config.files, &config.limits));
    let entry = match &app.entry {
        Entry::Module { module, callable } => wasgi_engine::Entry::Module {
            module: module.clone(),
            callable: callable.clone(),
        },
        Entry::File { path, callable } => {
            let path = inside(&app.root, path).unwrap_or_else(|| path.to_string_lossy().into_owned());
            wasgi_engine::Entry::File {
                path,
                callable: callable.clone(),
            }
        }
    };
    AppSpec {
        name: app.name.clone(),
        entry,
        sys_path,
        site_dirs,
        mounts,
        env: app.env.clone(),
        secrets: app
            .secrets
            .iter()
            .map(|secret| wasgi_engine::Secret {
                name: secret.name.clone(),
                value: secret.value.clone(),
            })
            .collect(),
        working_dir: ROOT.to_owned(),
        isolation: match app.isolation {
            wasgi_config::Isolation::Worker => Isolation::Worker,
            wasgi_config::Isolation::Request => Isolation::Request,
        },
        warmup: app.warmup.clone(),
        snapshot_cache: app.snapshot_cache,
        weight: app.weight,
        limits: limits(&config.limits),
    }
}

/// The engine's share of the limits; the server keeps the others.
pub(crate) fn limits(limits: &wasgi_config::Limits) -> Limits {
    Limits {
        time: limits.time,
        cpu: (!limits.cpu.is_zero()).then_some(limits.cpu),
        cpu_per_minute: (!limits.cpu_per_minute.is_zero()).then_some(limits.cpu_per_minute),
        start: limits.start_time,
        slow: (!limits.slow.is_zero()).then_some(limits.slow),
        memory: limits.memory,
        temp: Quota {
            bytes: Some(limits.temp),
            files: Some(limits.temp_files),
        },
        open_files: limits.open_files,
        ..Limits::default()
    }
}

/// The folders of `[files]`. What the operator caps holds for each of them, whatever its own quota says.
pub(crate) fn grants<'a>(
    files: &'a [Grant],
    limits: &'a wasgi_config::Limits,
) -> impl Iterator<Item = Mount> + 'a {
    let lesser = |own: Option<u64>, of_all: u64| own.into_iter().chain((of_all > 0).then_some(of_all)).min();
    files.iter().map(move |grant| Mount {
        host: grant.path.clone(),
        guest: grant.guest.clone(),
        write: grant.write,
        quota: Quota {
            bytes: lesser(grant.quota, limits.disk),
            files: lesser(grant.max_files, limits.disk_files),
        },
    })
}

fn mount(host: &Path, guest: String) -> Mount {
    Mount {
        host: host.to_owned(),
        guest,
        write: false,
        quota: Quota::default(),
    }
}

/// Where the guest sees `host` if it is in the app's root.
fn inside(root: &Path, host: &Path) -> Option<String> {
    let below = host.strip_prefix(root).ok()?.to_str()?;
    Some(if below.is_empty() {
        ROOT.to_owned()
    } else {
        format!("{ROOT}/{below}")
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use wasgi_config::{App, Listen};

    use super::*;

    #[test]
    fn folders_in_the_root_are_used_there_and_others_get_a_place() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let config = Config {
            app: App {
                name: "shop".to_owned(),
                root: "/srv/shop".into(),
                entry: Entry::File {
                    path: "/srv/shop/web/wsgi.py".into(),
                    callable: "app".to_owned(),
                },
                venv: paths(&["/srv/venv/lib/python3.13/site-packages"]),
                python_path: paths(&["/srv/shop/packages", "/srv/common", "/srv/shop"]),
                workers: 1,
                max_requests: None,
                max_lifetime: None,
                max_memory: None,
                isolation: wasgi_config::Isolation::default(),
                warmup: Vec::new(),
                verify_rewind: false,
                snapshot_cache: false,
                routes: vec![],
                weight: 100,
                watch: false,
                probe: "/".to_owned(),
                env: vec![("A".to_owned(), "b".to_owned())],
                secrets: vec![wasgi_config::Secret {
                    name: "KEY".to_owned(),
                    value: "hush".to_owned(),
                }],
            },
            listen: Listen {
                http: Vec::new(),
                https: Vec::new(),
                h2c: Vec::new(),
                redirect: Vec::new(),
                uwsgi: Vec::new(),
                fastcgi: Vec::new(),
                scgi: Vec::new(),
                proxy_protocol: Vec::new(),
                sockets: wasgi_config::Sockets::default(),
            },
            process: wasgi_config::Process::default(),
            limits: wasgi_config::Limits::default(),
            files: vec![Grant {
                guest: "/data".to_owned(),
                path: "/srv/data".into(),
                write: true,
                quota: Some(1 << 20),
                max_files: None,
            }],
            log: wasgi_config::Logging::default(),
            trace: None,
            statics: Vec::new(),
            compress: None,
            admin: wasgi_config::Admin::default(),
            proxy: None,
        };
        let spec = spec(&config);
        assert_eq!(spec.sys_path, ["/app", "/app/packages", "/path/1", "/app"]);
        assert_eq!(spec.site_dirs, ["/venv/lib/python3.13/site-packages"]);
        assert_eq!(
            spec.entry,
            wasgi_engine::Entry::File {
                path: "/app/web/wsgi.py".to_owned(),
                callable: "app".to_owned()
            }
        );
        let mounts: Vec<_> = spec
            .mounts
            .iter()
            .map(|mount| (mount.host.to_str().unwrap(), mount.guest.as_str(), mount.write))
            .collect();
        assert_eq!(
            mounts,
            [
                ("/srv/shop", "/app", false),
                ("/srv/common", "/path/1", false),
                (
                    "/srv/venv/lib/python3.13/site-packages",
                    "/venv/lib/python3.13/site-packages",
                    false
                ),
                ("/srv/data", "/data", true),
            ]
        );
        assert_eq!((spec.working_dir.as_str(), spec.env.len()), ("/app", 1));
        assert_eq!(
            (spec.secrets[0].name.as_str(), spec.secrets[0].value.as_str()),
            ("KEY", "hush")
        );
        let shown = format!("{config:?} {spec:?}");
        assert!(
            shown.contains("Secret(KEY)") && !shown.contains("hush"),
            "{shown}"
        );
    }

    #[test]
    fn a_folder_has_the_lesser_of_its_own_quota_and_that_of_all() {
        let limits = |disk, disk_files| wasgi_config::Limits {
            disk,
            disk_files,
            ..wasgi_config::Limits::default()
        };
        let quota = |own, limits| {
            let grant = Grant {
                guest: "/data".to_owned(),
                path: PathBuf::from("/srv/data"),
                write: true,
                quota: own,
                max_files: None,
            };
            grants(&[grant], &limits)
                .next()
                .map(|mount| (mount.quota.bytes, mount.quota.files))
        };
        assert_eq!(quota(None, limits(0, 0)), Some((None, None)));
        assert_eq!(quota(Some(5), limits(0, 7)), Some((Some(5), Some(7))));
        assert_eq!(quota(Some(5), limits(3, 0)), Some((Some(3), None)));
        assert_eq!(quota(None, limits(3, 0)), Some((Some(3), None)));
    }
}
