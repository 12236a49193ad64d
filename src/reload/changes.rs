//! What differs between two configurations, in the words of the file, and what comes of it.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::config::model::{
    Address, Admin, Bounds, Breaker, Certificates, ClientIp, Config, Endpoint, FailureClasses, Host, Limit, Log,
    Maintenance, Notify, Redis, Server, Timeouts, Trace, Upstream,
};

/// What the running process keeps as it was.
const NEEDS_UPGRADE: &str = " (needs an upgrade)";

/// Each key of a part, as it stands in the file, and whether its value differs. What is told elsewhere comes last, for all
/// keys are to be named: none is forgotten when one is added.
macro_rules! keys {
    ($part:ident { $($key:ident),+ $(; $($elsewhere:ident),+)? }, $old:expr, $new:expr) => {{
        let (old, new): (&$part, &$part) = ($old, $new);
        let $part { $($key: _,)+ $($($elsewhere: _),+)? } = old;
        [$((stringify!($key), old.$key != new.$key)),+]
    }};
}

/// One line per part that changed: `routes: +api ~web -old`, `log: ~level`. Then one for everything that counts or
/// remembers and has changed: what it keeps of before. `begun_with` is what the process runs with since its start.
pub fn changes(old: &Config, new: &Config, begun_with: &Server) -> Vec<String> {
    let (windows_before, windows) = (&old.maintenance.windows, &new.maintenance.windows);
    let parts = [
        named("listeners", &of(&old.listeners, |one| &one.name), &of(&new.listeners, |one| &one.name)),
        named("routes", &of(&old.routes, |one| &one.name), &of(&new.routes, |one| &one.name)),
        named("upstreams", &of_map(&old.upstreams), &of_map(&new.upstreams)),
        named("limits", &of_map(&old.limits), &of_map(&new.limits)),
        named("probes", &of_map(&old.probes), &of_map(&new.probes)),
        named("features", &of_map(&old.features), &of_map(&new.features)),
        named("windows", &of(windows_before, |one| &one.name), &of(windows, |one| &one.name)),
        timeouts(&old.timeouts, &new.timeouts),
        named("bounds", &bounds(&old.bounds), &bounds(&new.bounds)),
        named("notify", &by_place(&old.notify), &by_place(&new.notify)),
    ];
    let mut lines: Vec<String> = parts.into_iter().flatten().collect();
    lines.extend(server(&old.server, &new.server, begun_with));
    lines.extend(settings(old, new));
    for (name, upstream) in &new.upstreams {
        let before = old.upstreams.get(name).map(endpoints);
        let part = format!("endpoints of {name}");
        lines.extend(before.and_then(|before| named(&part, &before, &endpoints(upstream))));
    }
    lines.extend(carried(&old.upstreams, &new.upstreams, "upstream", of_upstream));
    lines.extend(carried(&old.limits, &new.limits, "limit", of_limit));
    lines
}

/// The line of a part that has names below it, if one differs.
fn named<N: PartialEq + Display, T: PartialEq>(part: &str, old: &[(N, T)], new: &[(N, T)]) -> Option<String> {
    let find = |items: &[(N, T)], name: &N| items.iter().position(|(other, _)| other == name);
    let come = new.iter().filter_map(|(name, content)| match find(old, name) {
        None => Some(format!("+{name}")),
        Some(place) => (old[place].1 != *content).then(|| format!("~{name}")),
    });
    let gone = old.iter().filter(|(name, _)| find(new, name).is_none()).map(|(name, _)| format!("-{name}"));
    let words: Vec<String> = come.chain(gone).collect();
    (!words.is_empty()).then(|| format!("{part}: {}", words.join(" ")))
}

/// The line of a part that has keys below it, if the value of one differs.
fn keyed(part: &str, keys: &[(&str, bool)]) -> Option<String> {
    let words: Vec<_> = keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("~{key}")).collect();
    (!words.is_empty()).then(|| format!("{part}: {}", words.join(" ")))
}

fn timeouts(old: &Timeouts, new: &Timeouts) -> Option<String> {
    let keys = keys!(
        Timeouts {
            tls_handshake,
            request_head,
            request_body,
            idle,
            connect,
            response_head,
            response_body,
            stream_idle
        },
        old,
        new
    );
    keyed("timeouts", &keys)
}

fn server(old: &Server, new: &Server, begun_with: &Server) -> Vec<String> {
    // What comes back to what the process runs with needs nothing.
    let note = |is_as_begun: bool| if is_as_begun { "" } else { NEEDS_UPGRADE };
    let (workers, state_dir) = (note(new.workers == begun_with.workers), note(new.state_dir == begun_with.state_dir));
    let keys = keys!(Server { shutdown_delay, shutdown_grace, max_connections; workers, state_dir }, old, new);
    let lines = [
        (old.workers != new.workers).then(|| format!("server.workers: changed{workers}")),
        (old.state_dir != new.state_dir).then(|| format!("server.state_dir: changed{state_dir}")),
        keyed("server", &keys),
    ];
    lines.into_iter().flatten().collect()
}

/// The parts that have no names below them.
fn settings(old: &Config, new: &Config) -> impl Iterator<Item = String> {
    let maintenance = keys!(
        Maintenance { flag, page, status, retry_after, exempt_paths, allow, bypass_token, announce; windows },
        &old.maintenance,
        &new.maintenance
    );
    let lines = [
        keyed("admin", &keys!(Admin { listen, token, allowed_hosts }, &old.admin, &new.admin)),
        keyed("log", &keys!(Log { level, format, access, access_format }, &old.log, &new.log)),
        keyed("client_ip", &keys!(ClientIp { trusted_proxies, header }, &old.client_ip, &new.client_ip)),
        keyed("redis", &keys!(Redis { url, ca, timeout, on_error }, &old.redis, &new.redis)),
        keyed("maintenance", &maintenance),
        keyed("host", &keys!(Host { memory_percent, disk_percent, cpu_percent }, &old.host, &new.host)),
        keyed("trace", &keys!(Trace { otlp, sample }, &old.trace, &new.trace)),
        keyed("certificates", &keys!(Certificates { warn_days }, &old.certificates, &new.certificates)),
        (old.tests != new.tests).then(|| "tests: changed".to_owned()),
    ];
    lines.into_iter().flatten()
}

/// A line for each that is in both and not the same.
fn carried<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    part: &str,
    what: fn(&T, &T) -> String,
) -> Vec<String> {
    let both = new.iter().filter_map(|(name, new)| Some((name, old.get(name)?, new)));
    let changed = both.filter(|(_, old, new)| old != new);
    changed.map(|(name, old, new)| format!("{part} {name}: {}", what(old, new))).collect()
}

/// What each part of an upstream is judged by; the parts are carried over by `upstream::group`.
fn of_upstream(old: &Upstream, new: &Upstream) -> String {
    let rules = |upstream: &Upstream| {
        // What counts as a failure is asked anew each time.
        let breaker = upstream.breaker.clone();
        Breaker { count: FailureClasses::default(), fallback: None, ..breaker }
    };
    let connects =
        |upstream: &Upstream| (upstream.tls.clone(), upstream.http2, upstream.max_idle, upstream.idle_timeout);
    let parts = [
        ("breaker", rules(old) == rules(new)),
        ("health", old.health == new.health),
        ("ejections", old.ejection == new.ejection),
        ("connections", connects(old) == connects(new)),
    ];
    let named = |wanted: bool| {
        let names: Vec<_> = parts.iter().filter(|(_, is_kept)| *is_kept == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    format!("kept {}; begun anew {}", named(true), named(false))
}

fn of_limit(old: &Limit, new: &Limit) -> String {
    match old.key == new.key {
        true => "each key keeps what it has used".to_owned(),
        false => "it counts by another key, from nothing".to_owned(),
    }
}

/// By the keys of the file.
fn bounds(it: &Bounds) -> [(&'static str, Option<u64>); 5] {
    let Bounds { header_bytes_max, headers_max, uri_bytes_max, body_bytes_max, h2_streams_max } = *it;
    [
        ("max_header_bytes", Some(header_bytes_max as u64)),
        ("max_headers", Some(headers_max as u64)),
        ("max_uri_bytes", Some(uri_bytes_max as u64)),
        ("max_body", body_bytes_max),
        ("h2_max_streams", Some(h2_streams_max.get().into())),
    ]
}

/// By their addresses.
fn endpoints(upstream: &Upstream) -> Vec<(&Address, &Endpoint)> {
    upstream.endpoints.iter().map(|endpoint| (&endpoint.address, endpoint)).collect()
}

/// What has no names, by the words for its place in the file.
fn by_place(items: &[Notify]) -> Vec<(String, &Notify)> {
    items.iter().enumerate().map(|(place, item)| (format!("notify[{place}]"), item)).collect()
}

fn of<'a, T>(items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Vec<(&'a str, &'a T)> {
    items.iter().map(|item| (name(item), item)).collect()
}

fn of_map<T>(items: &BTreeMap<String, T>) -> Vec<(&str, &T)> {
    items.iter().map(|(name, item)| (name.as_str(), item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const BASE: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\n[[route]]\nname = \"web\"\nupstream = \"app\"\n\
                        limits = [\"per_ip\"]\n[[route]]\nname = \"old\"\npath = [\"/old\"]\nrespond = { body = \"old\" }\n\
                        [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n[limit.per_ip]\nrate = \"1/1s\"\n";

    fn of_text(text: &str) -> Config {
        config::parse(text, std::path::Path::new("/flagstone.toml"), &|_| None).unwrap().config
    }

    fn from_base(edit: impl Fn(String) -> String) -> Vec<String> {
        let base = of_text(BASE);
        changes(&base, &of_text(&edit(BASE.to_owned())), &base.server)
    }

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(from_base(|text| format!("# a comment\n{text}")), [""; 0]);
    }

    #[test]
    fn what_comes_goes_and_changes_is_named() {
        let lines = from_base(|text| {
            text.replace("name = \"old\"", "name = \"api\"")
                .replace("limits = [\"per_ip\"]", "strip_prefix = \"/\"\nmax_body = 1")
        });
        assert_eq!(lines, ["routes: ~web +api -old"]);
    }

    #[test]
    fn each_kind_of_part_is_told_by_name() {
        let url = "http://127.0.0.1:9/";
        let full = format!(
            "[[notify]]\nurl = \"{url}\"\n[upstream.rest]\nendpoints = [\"127.0.0.1:2\"]\n[limit.rest]\nrate = \"1/1s\"\n\
             [probe.rest]\ntcp = \"127.0.0.1:3\"\n[features]\nrest = true\n[[listener]]\nname = \"rest\"\n\
             address = \"127.0.0.1:8081\"\n[[route]]\nname = \"rest\"\npath = [\"/rest\"]\nupstream = \"rest\"\n\
             [[maintenance.window]]\nname = \"rest\"\nschedule = \"0 3 * * *\"\nduration = \"1h\"\n"
        );
        let (base, with) = (of_text(BASE), of_text(&format!("{BASE}{full}")));
        let parts = ["listeners", "routes", "upstreams", "limits", "probes", "features", "windows"];
        for (sign, lines) in [("+", changes(&base, &with, &base.server)), ("-", changes(&with, &base, &base.server))] {
            let mut told: Vec<_> = parts.iter().map(|part| format!("{part}: {sign}rest")).collect();
            told.push(format!("notify: {sign}notify[0]"));
            assert_eq!(lines, told);
        }
        let lines = from_base(|text| {
            text.replace("[\"127.0.0.1:1\"]", "[{ address = \"127.0.0.1:1\", weight = 2 }, \"127.0.0.1:2\"]")
                + "[timeouts]\nidle = \"9s\"\nconnect = \"9s\"\n[bounds]\nmax_body = 0\n"
        });
        // What routes do not say themselves they have from there.
        let told = "routes: ~web ~old; upstreams: ~app; timeouts: ~idle ~connect; bounds: ~max_body; \
                    endpoints of app: ~127.0.0.1:1 +127.0.0.1:2";
        assert_eq!(lines[..lines.len() - 1].join("; "), told);
    }

    #[test]
    fn what_is_not_shown_is_compared_too() {
        let with = |password| of_text(&format!("{BASE}[probe.store]\nredis = \"redis://:{password}@127.0.0.1\"\n"));
        let (old, new) = (with("before"), with("after"));
        assert_eq!(changes(&old, &new, &old.server), ["probes: ~store"]);
    }

    #[test]
    fn what_counts_says_what_it_keeps() {
        let lines = from_base(|text| text.replace("1/1s", "2/1s") + "[upstream.app.retry]\nattempts = 2\n");
        assert_eq!(
            lines,
            [
                "upstreams: ~app",
                "limits: ~per_ip",
                "upstream app: kept breaker, health, ejections, connections; begun anew none",
                "limit per_ip: each key keeps what it has used",
            ]
        );
        let lines = from_base(|text| text + "key = \"path\"\n[upstream.app.breaker]\nfailures = 9\n");
        assert_eq!(
            lines[2..],
            [
                "upstream app: kept health, ejections, connections; begun anew breaker",
                "limit per_ip: it counts by another key, from nothing",
            ]
        );
    }

    #[test]
    fn what_needs_an_upgrade_says_so() {
        let lines = from_base(|text| {
            format!(
                "[server]\nworkers = 3\nmax_connections = 5\n[admin]\nlisten = \"127.0.0.1:9901\"\n[log]\nlevel = \"debug\"\n{text}"
            )
        });
        assert_eq!(
            lines,
            ["server.workers: changed (needs an upgrade)", "server: ~max_connections", "admin: ~listen", "log: ~level"]
        );
    }

    #[test]
    fn what_has_no_names_below_it_tells_its_keys() {
        let lines = from_base(|text| {
            "[server]\nshutdown_grace = \"1s\"\n[admin]\nlisten = \"127.0.0.1:9901\"\ntoken = \"secret\"\n\
             [log]\nlevel = \"debug\"\naccess = \"off\"\n[client_ip]\nheader = \"X-Real-IP\"\n\
             [redis]\nurl = \"redis://h\"\n[maintenance]\nannounce = \"1h\"\nbypass_token = \"secret\"\n\
             [host]\ncpu_percent = 50\n[trace]\notlp = \"http://127.0.0.1:4318\"\n[certificates]\nwarn_days = 9\n"
                .to_owned()
                + &text
        });
        let told = [
            "server: ~shutdown_grace",
            "admin: ~listen ~token",
            "log: ~level ~access",
            "client_ip: ~header",
            "redis: ~url",
            "maintenance: ~bypass_token ~announce",
            "host: ~cpu_percent",
            "trace: ~otlp",
            "certificates: ~warn_days",
        ];
        assert_eq!(lines, told);
    }

    #[test]
    fn going_back_to_what_runs_needs_no_upgrade() {
        // The flag file is in the state folder.
        let (base, other) = (of_text(BASE), of_text(&format!("[server]\nworkers = 3\nstate_dir = \"/s\"\n{BASE}")));
        assert_eq!(
            changes(&other, &base, &base.server),
            ["server.workers: changed", "server.state_dir: changed", "maintenance: ~flag"]
        );
        let third = of_text(&format!("[server]\nworkers = 4\nstate_dir = \"/s\"\n{BASE}"));
        assert_eq!(changes(&other, &third, &base.server), ["server.workers: changed (needs an upgrade)"]);
    }
}
