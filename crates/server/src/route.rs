//! Which app answers for a host and a path.

use std::collections::HashMap;
use std::sync::Arc;

use wasgi_config::{Host, Route};

use crate::runner::Runner;
use crate::site::Site;

/// All routes of a server. Changes are made by making another.
pub struct Routes<R: Runner> {
    exact: HashMap<String, Mounts<R>>,
    below: HashMap<String, Mounts<R>>,
    any: Mounts<R>,
}

/// The apps of one host, longest mount first.
struct Mounts<R: Runner>(Vec<(String, Arc<Site<R>>)>);

/// What answers for a request.
pub(crate) struct Found<'r, R: Runner> {
    pub(crate) site: &'r Arc<Site<R>>,
    /// The part of the path that is `SCRIPT_NAME`.
    pub(crate) mount: &'r str,
}

/// Longest host name that is looked up (RFC 1035 2.3.4); a longer one is nobody's.
const HOST_MAX: usize = 255;

impl<R: Runner> Routes<R> {
    /// Of each route given twice the first counts.
    pub fn new(routes: impl IntoIterator<Item = (Route, Arc<Site<R>>)>) -> Self {
        let mut all = Self {
            exact: HashMap::new(),
            below: HashMap::new(),
            any: Mounts(Vec::new()),
        };
        for (Route { host, mount }, site) in routes {
            let mounts = match host {
                Host::Exact(name) => all.exact.entry(name).or_insert(Mounts(Vec::new())),
                Host::Below(name) => all.below.entry(name).or_insert(Mounts(Vec::new())),
                Host::Any => &mut all.any,
            };
            if !mounts.0.iter().any(|(other, _)| *other == mount) {
                mounts.0.push((mount, site));
            }
        }
        for mounts in all
            .exact
            .values_mut()
            .chain(all.below.values_mut())
            .chain([&mut all.any])
        {
            mounts.0.sort_by_key(|(mount, _)| std::cmp::Reverse(mount.len()));
        }
        all
    }

    /// The app for a host as the client named it, without its port, and a decoded path.
    ///
    /// The host counts before the path: an exact name, then the longest `*.` that fits, then any. If no app there is
    /// mounted over the path, the next is looked at.
    pub(crate) fn find(&self, host: &[u8], path: &[u8]) -> Option<Found<'_, R>> {
        if self.exact.is_empty() && self.below.is_empty() {
            return self.any.find(path);
        }
        let mut lower = [0; HOST_MAX];
        let host = host.strip_suffix(b".").unwrap_or(host);
        let name = lower
            .get_mut(..host.len())
            .and_then(|lower| {
                lower.copy_from_slice(host);
                lower.make_ascii_lowercase();
                str::from_utf8(lower).ok()
            })
            .unwrap_or_default();
        let exact = self.exact.get(name).and_then(|mounts| mounts.find(path));
        let below = || {
            let parents = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            parents
                .filter_map(|parent| self.below.get(parent))
                .find_map(|mounts| mounts.find(path))
        };
        exact.or_else(below).or_else(|| self.any.find(path))
    }

    /// Each app once.
    pub(crate) fn sites(&self) -> Vec<Arc<Site<R>>> {
        let mounts = self.exact.values().chain(self.below.values()).chain([&self.any]);
        let mut sites: Vec<_> = mounts
            .flat_map(|mounts| mounts.0.iter().map(|(_, site)| site))
            .collect();
        sites.sort_by_key(|site| Arc::as_ptr(site));
        sites.dedup_by_key(|site| Arc::as_ptr(site));
        sites.into_iter().cloned().collect()
    }
}

impl<R: Runner> Mounts<R> {
    fn find(&self, path: &[u8]) -> Option<Found<'_, R>> {
        self.0.iter().find_map(|(mount, site)| {
            let rest = path.strip_prefix(mount.as_bytes())?;
            // A segment's boundary: `/em` is not over `/emma`. All paths are below the root, `*` included.
            let fits = mount.is_empty() || rest.is_empty() || rest[0] == b'/';
            fits.then_some(Found { site, mount })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::Nothing;

    #[test]
    fn hosts_count_before_paths_and_longer_before_shorter() {
        let routes = [
            ("a.org", "", "a"),
            ("a.org", "/em", "a-em"),
            ("a.org", "/em/x", "a-em-x"),
            ("*.org", "", "org"),
            ("*.b.org", "/only", "b"),
            ("*", "/any", "any"),
        ];
        let routes = Routes::<Nothing>::new(routes.map(|(host, mount, name)| {
            let host = host.parse().unwrap();
            let mount = mount.to_owned();
            (Route { host, mount }, Site::new(name))
        }));
        for (host, path, expected) in [
            ("a.org", "/", Some("a")),
            ("A.ORG.", "/x", Some("a")),
            ("a.org", "/em", Some("a-em")),
            ("a.org", "/em/", Some("a-em")),
            ("a.org", "/emma", Some("a")),
            ("a.org", "/em/x/y", Some("a-em-x")),
            ("c.b.org", "/only/", Some("b")),
            ("c.b.org", "/other", Some("org")),
            ("org", "/any", Some("any")),
            ("org", "/", None),
            ("com", "/", None),
            ("\u{e9}", "/any", Some("any")),
        ] {
            let found = routes.find(host.as_bytes(), path.as_bytes());
            assert_eq!(found.map(|found| &**found.site.name()), expected, "{host} {path}");
        }
        let long = [b'a'; 300];
        assert!(routes.find(&long, b"/").is_none());
        assert_eq!(routes.sites().len(), 6);
    }
}
