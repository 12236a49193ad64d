//! What holds between the parts: names that must exist, names that must be unique, routes in each other's way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::super::document::Path;
use super::super::model::{Action, Address, Config, LimitStore, Listener, Route};
use super::super::problem::suggest;
use super::Check;

impl Check<'_> {
    pub(super) fn references(&mut self, config: &Config) {
        let root = Path::root();
        self.unique_names(config);
        self.unique_addresses(config);
        self.route_references(config);
        self.fallbacks(config);
        self.conflicts(&config.routes);
        self.test_references(config);
        for (name, limit) in &config.limits {
            if limit.store == LimitStore::Redis
                && config.redis.url.is_none()
                && !self.is_spoilt(&root.key("redis").key("url"))
            {
                let at = root.key("limit").key(name).key("store");
                self.refuse(&at, "redis", "there is no shared store", "set redis.url = \"redis://…\"");
            }
        }
        self.unused(config);
        self.believed_by_nobody(config);
    }

    /// The PROXY header of who is not trusted is read as a request, and no request begins so.
    fn believed_by_nobody(&mut self, config: &Config) {
        let speaks_it = |listener: &Listener| listener.proxy_protocol && !matches!(listener.address, Address::Unix(_));
        let trusted = Path::root().key("client_ip").key("trusted_proxies");
        if !config.client_ip.trusted_proxies.is_empty() || self.is_refused(&trusted) {
            return;
        }
        for (index, _) in config.listeners.iter().enumerate().filter(|(_, listener)| speaks_it(listener)) {
            self.warn(
                &Path::root().key("listener").index(index).key("proxy_protocol"),
                "believes nobody, for client_ip.trusted_proxies is empty",
                "name the proxies in front there",
            );
        }
    }

    fn unique_names(&mut self, config: &Config) {
        let root = Path::root();
        self.unique(config.route_names(), &root.key("route"));
        let named = |listener: &&Listener| listener.name != listener.address.to_string();
        let names: HashSet<_> = config.listeners.iter().filter(named).map(|listener| &listener.name).collect();
        // Two without a name that have the same address are reported as such, unless they may have the same.
        let counts = |listener: &Listener| names.contains(&listener.name) || is_any_port(&listener.address);
        // What was refused for an address stands at some default, and so does its name.
        let is_named = |index: usize, listener: &Listener| {
            let address = root.key("listener").index(index).key("address");
            counts(listener) && (named(&listener) || !self.is_refused(&address))
        };
        let listeners = config.listeners.iter().enumerate();
        let listeners =
            listeners.map(|(index, listener)| if is_named(index, listener) { listener.name.as_str() } else { "" });
        let listeners: Vec<&str> = listeners.collect();
        self.unique(listeners.into_iter(), &root.key("listener"));
        let windows = config.maintenance.windows.iter().map(|window| window.name.as_str());
        self.unique(windows, &root.key("maintenance").key("window"));
    }

    fn unique<'a>(&mut self, names: impl Iterator<Item = &'a str>, at: &Path) {
        let mut seen = HashMap::new();
        for (index, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
            if let Some(first) = seen.insert(name, index) {
                let here = at.index(index).key("name");
                self.refuse(
                    &here,
                    name,
                    format!("{} has this name already", self.shown(&at.index(first))),
                    "give each its own",
                );
            }
        }
    }

    /// Port 0 asks for any free port, so it may come twice.
    fn unique_addresses(&mut self, config: &Config) {
        let root = Path::root();
        let mut seen: Vec<(&Address, Path)> = Vec::new();
        let admin = config.admin.listen.iter().map(|address| (address, root.key("admin").key("listen")));
        let listeners = config.listeners.iter().enumerate();
        let listeners = listeners.map(|(index, one)| (&one.address, root.key("listener").index(index).key("address")));
        for (address, at) in admin.chain(listeners).filter(|(address, _)| !is_any_port(address)) {
            // What was refused stands at some default, or at what it was taken for.
            if self.is_refused(&at) {
                continue;
            }
            match seen.iter().find(|(other, _)| overlap(other, address)) {
                Some((other, first)) => {
                    let message = format!("{} listens there already", self.shown(first));
                    let help = match *other == address {
                        true => "give each its own address",
                        false => "give each its own port, for 0.0.0.0 and [::] are every address",
                    };
                    self.refuse(&at, &address.to_string(), message, help);
                }
                None => seen.push((address, at)),
            }
        }
    }

    fn route_references(&mut self, config: &Config) {
        for (index, route) in config.routes.iter().enumerate() {
            let at = Path::root().key("route").index(index);
            if let Action::Upstream(name) = &route.action
                && !(name.is_empty() && self.is_missing_action(&at))
            {
                self.known(name, &config.upstreams, "upstream", &at.key("upstream"));
            }
            let mut seen = BTreeSet::new();
            for (index, limit) in route.limits.iter().enumerate() {
                let at = at.key("limits").index(index);
                self.known(limit, &config.limits, "limit", &at);
                if !seen.insert(limit) {
                    self.refuse(&at, limit, "is listed twice", "list it once");
                }
            }
            if let Some(feature) = &route.feature {
                self.known(feature, &config.features, "features", &at.key("feature"));
            }
        }
    }

    /// A route that does nothing was reported when it was read.
    fn is_missing_action(&self, at: &Path) -> bool {
        let half = ["upstream", "files", "redirect", "respond"].iter().any(|key| self.is_spoilt(&at.key(key)));
        half || self.problems.iter().any(|problem| problem.path == at.as_str())
    }

    /// `section` is where the name would stand: `upstream`.
    fn known<T>(&mut self, name: &str, all: &BTreeMap<String, T>, section: &str, at: &Path) {
        if all.contains_key(name) || self.is_spoilt(&Path::root().key(section).key(name)) {
            return;
        }
        let (message, header) = match section {
            "features" => ("no feature has this name", format!("[features] with \"{name}\" = true")),
            _ => (
                if section == "limit" { "no limit has this name" } else { "no upstream has this name" },
                format!("[{section}.{name}]"),
            ),
        };
        let help = match all.is_empty() {
            true => format!("add {header}"),
            false => suggest(name, all.keys().map(String::as_str)),
        };
        self.refuse(at, name, message, help);
    }

    /// Each upstream has at most one fallback, so a walk that comes back to its start is a circle.
    fn fallbacks(&mut self, config: &Config) {
        for (name, upstream) in &config.upstreams {
            let at = Path::root().key("upstream").key(name).key("breaker").key("fallback");
            let Some(first) = &upstream.breaker.fallback else {
                continue;
            };
            if first == name {
                self.refuse(&at, first, "falls back to itself", "name another upstream");
                continue;
            }
            self.known(first, &config.upstreams, "upstream", &at);
            let mut way = vec![name.as_str()];
            let mut next = Some(first);
            while let Some(current) = next.filter(|current| !way.contains(&current.as_str())) {
                way.push(current);
                next = config.upstreams.get(current).and_then(|upstream| upstream.breaker.fallback.as_ref());
            }
            if next.is_some_and(|back| back == name) && way.len() > 1 {
                way.push(name);
                self.refuse(
                    &at,
                    first,
                    "fallbacks go round in a circle",
                    format!("{}: take one of them out", way.join(" → ")),
                );
            }
        }
    }

    /// Two routes for the same host, path and method: which one serves could not be told from the file.
    fn conflicts(&mut self, routes: &[Route]) {
        let mut seen: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for (index, route) in routes.iter().enumerate() {
            let at = Path::root().key("route").index(index);
            if ["host", "path", "method"].iter().any(|key| self.is_spoilt(&at.key(key))) {
                continue;
            }
            let hosts = or_any(route.hosts.iter().map(String::as_str));
            let methods = or_any(route.methods.iter().map(http::Method::as_str));
            let mut told = BTreeSet::new();
            for (place, path) in route.paths.iter().enumerate() {
                let trimmed = if path.len() > 1 && !path.starts_with('=') { path.trim_end_matches('/') } else { path };
                let keys = hosts.iter().flat_map(|&host| methods.iter().map(move |&method| (host, trimmed, method)));
                for key in keys {
                    let first = *seen.entry(key).or_insert(index);
                    if first != index && told.insert((first, place)) {
                        self.conflict((first, &routes[first]), index, place, path, key);
                    }
                }
            }
        }
    }

    fn conflict(&mut self, first: (usize, &Route), index: usize, place: usize, path: &str, key: (&str, &str, &str)) {
        let host = if key.0.is_empty() { "any host".to_owned() } else { format!("host {}", key.0) };
        let method = if key.2.is_empty() { "any method".to_owned() } else { format!("method {}", key.2) };
        let at = Path::root().key("route").index(index).key("path").index(place);
        let (index, first) = (Path::root().key("route").index(first.0), first.1);
        let place = self.places.whole_place(index.as_str()).filter(|_| self.places.are_in_several_files());
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let name = match first.name.is_empty() {
            true => index.as_str().to_owned(),
            false => format!("route \"{}\"", first.name),
        };
        let message = format!("{name}{place} has this path already, for {host} and {method}");
        self.refuse(&at, path, message, "tell them apart by host, path or method");
    }

    fn test_references(&mut self, config: &Config) {
        let routes: BTreeMap<String, ()> = config.routes.iter().map(|route| (route.name.clone(), ())).collect();
        for (index, test) in config.tests.iter().enumerate() {
            let at = Path::root().key("test").index(index).key("expect");
            // One without a name, which was reported, may be meant.
            if let Some(name) = &test.expect.route
                && !routes.contains_key(name)
                && !routes.contains_key("")
                && !self.is_spoilt(&Path::root().key("route"))
            {
                self.refuse(
                    &at.key("route"),
                    name,
                    "no route has this name",
                    suggest(name, routes.keys().map(String::as_str)),
                );
            }
            if let Some(name) = &test.expect.upstream {
                self.known(name, &config.upstreams, "upstream", &at.key("upstream"));
            }
            for (index, name) in test.expect.limits.iter().flatten().enumerate() {
                self.known(name, &config.limits, "limit", &at.key("limits").index(index));
            }
        }
    }

    fn unused(&mut self, config: &Config) {
        let mut upstreams: BTreeSet<&str> = BTreeSet::new();
        upstreams.extend(config.routes.iter().filter_map(|route| match &route.action {
            Action::Upstream(name) => Some(name.as_str()),
            Action::Files(_) | Action::Redirect(_) | Action::Respond(_) => None,
        }));
        upstreams.extend(config.upstreams.values().filter_map(|upstream| upstream.breaker.fallback.as_deref()));
        for name in config.upstreams.keys().filter(|name| !upstreams.contains(name.as_str())) {
            self.warn(
                &Path::root().key("upstream").key(name),
                "no route uses this upstream",
                "name it in a route, or take it out",
            );
        }
        let limits: BTreeSet<&str> = config.routes.iter().flat_map(|route| &route.limits).map(String::as_str).collect();
        for name in config.limits.keys().filter(|name| !limits.contains(name.as_str())) {
            self.warn(
                &Path::root().key("limit").key(name),
                "no route uses this limit",
                "name it in a route's limits, or take it out",
            );
        }
    }
}

/// Whichever is free.
fn is_any_port(address: &Address) -> bool {
    matches!(address, Address::Socket(socket) if socket.port() == 0)
}

/// Whether the system refuses the second of two (ip(7), `EADDRINUSE`). `[::]` is not held against addresses of IPv4: it
/// depends on the system and on the other listeners whether it takes these, too.
fn overlap(one: &Address, other: &Address) -> bool {
    let (Address::Socket(one), Address::Socket(other)) = (one, other) else { return one == other };
    let ips = (one.ip().to_canonical(), other.ip().to_canonical());
    let is_within = match ips {
        (IpAddr::V4(one), IpAddr::V4(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
        (IpAddr::V6(one), IpAddr::V6(other)) => one.is_unspecified() || other.is_unspecified(),
        _ => false,
    };
    one == other || (is_within && one.port() == other.port())
}

/// An empty list means any, for which the empty text stands.
fn or_any<'a>(list: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let list: Vec<&str> = list.collect();
    if list.is_empty() { vec![""] } else { list }
}
