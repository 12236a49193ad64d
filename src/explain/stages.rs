//! What each stage of a request's way says about it, and why, in words.

use http::Method;

use super::{Hypothetical, Moment, Stage};
use crate::config::model::{Address, Listener};
use crate::policy::client_ip::{ClientIp, Source};
use crate::policy::limit::Value;
use crate::policy::maintenance::{Mode, Scope, State, contains};
use crate::proxy::decide::{self, Asked, Verdict};
use crate::route::{HostPattern, PathPattern, takes};
use crate::snapshot::{Route, Snapshot, Target};
use crate::upstream::group::Group;

/// Endpoints that are named; the rest are counted.
const ENDPOINTS_NAMED: usize = 8;

fn stage(name: &'static str, says: impl Into<String>) -> Stage {
    Stage { name, says: says.into() }
}

/// Where the URL leads to: the listener with its port and its kind, else the first of its kind, else the first.
pub(super) fn listener<'s>(wanted: &Hypothetical, snapshot: &'s Snapshot) -> Option<&'s Listener> {
    let listeners = &snapshot.config.listeners;
    let port = wanted.url.port_u16().unwrap_or(if wanted.is_https() { 443 } else { 80 });
    let is_kind = |listener: &&Listener| listener.tls.is_some() == wanted.is_https();
    let has_port = |listener: &&Listener| matches!(listener.address, Address::Socket(own) if own.port() == port);
    let of_kind = || listeners.iter().filter(is_kind);
    of_kind().find(has_port).or_else(|| of_kind().next()).or_else(|| listeners.first())
}

pub(super) fn asks_for_certificate(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some())
}

pub(super) fn listener_stage(wanted: &Hypothetical, listener: Option<&Listener>) -> Stage {
    let Some(listener) = listener else { return stage("listener", "there is none") };
    let name = match listener.name == listener.address.to_string() {
        true => listener.name.clone(),
        false => format!("{} ({})", listener.name, listener.address),
    };
    let speaks = match (listener.tls.is_some(), wanted.is_https()) {
        (true, true) => "TLS",
        (false, false) => "plain",
        (false, true) => "plain; no listener speaks TLS, so https ends in front of it",
        (true, false) => "TLS only; a plain request would not get through",
    };
    stage("listener", format!("{name}: {speaks}"))
}

pub(super) fn client_stage(wanted: &Hypothetical, client: &ClientIp, snapshot: &Snapshot) -> Stage {
    let header = header_name(snapshot.client_ip_header);
    let why = match client.peer_trusted {
        true if client.ip == wanted.ip.to_canonical() => {
            format!("the address of the connection, which is a trusted proxy's; {header} names no other")
        }
        true => format!("from {header}, for {} is a trusted proxy", wanted.ip),
        false => "the address of the connection, which is no trusted proxy's".to_owned(),
    };
    stage("client", format!("{}: {why}", client.ip))
}

fn header_name(source: Source) -> &'static str {
    match source {
        Source::XForwardedFor => "X-Forwarded-For",
        Source::Forwarded => "Forwarded",
        Source::XRealIp => "X-Real-IP",
    }
}

/// Which route, and which others it went before.
pub(super) fn route(asked: &Asked<'_>, route: Option<&Route>, verdict: &Verdict<'_>, snapshot: &Snapshot) -> Stage {
    let Some(route) = route else {
        let others = covering(asked, snapshot).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
        let place = format!("host {}, path {}", asked.host, asked.path);
        return stage(
            "route",
            match verdict {
                Verdict::MethodNotAllowed(methods) => {
                    let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
                    format!("none: {others} would match but takes only {}", methods.join(", "))
                }
                _ if others.is_empty() => format!("none matches {place}"),
                _ => format!("none takes {} at {place}", asked.method),
            },
        );
    };
    let all = covering(asked, snapshot);
    let own = all.iter().find(|(name, _)| *name == &*route.name).map(|(_, why)| why.as_str()).unwrap_or_default();
    let others = all.iter().map(|(name, _)| *name).filter(|name| *name != &*route.name);
    let (behind, unfit): (Vec<_>, Vec<_>) = others.partition(|name| takes_method(name, asked.method, snapshot));
    let mut text = format!("{}: {own}", route.name);
    if !behind.is_empty() {
        text += &format!("; more specific than {}", behind.join(", "));
    }
    if !unfit.is_empty() {
        text += &format!("; {} would match, but not by {}", unfit.join(", "), asked.method);
    }
    stage("route", text)
}

fn takes_method(name: &str, method: &Method, snapshot: &Snapshot) -> bool {
    let route = snapshot.config.routes.iter().find(|route| route.name == name);
    route.is_some_and(|route| route.methods.is_empty() || route.methods.iter().any(|own| takes(own, method)))
}

/// Every route whose host and path cover the request, and by what.
fn covering<'s>(asked: &Asked<'_>, snapshot: &'s Snapshot) -> Vec<(&'s str, String)> {
    let covers = |route: &'s crate::config::model::Route| {
        let matches_host = |text: &&String| HostPattern::parse(text).is_ok_and(|host| host.matches(asked.host));
        let host = match route.hosts.iter().find(matches_host) {
            Some(host) => format!("host {host}"),
            None if route.hosts.is_empty() => "any host".to_owned(),
            None => return None,
        };
        let matches_path = |text: &&String| PathPattern::parse(text).is_ok_and(|path| path.matches(asked.path));
        let path = route.paths.iter().filter(matches_path).max_by_key(|path| (path.starts_with('='), path.len()))?;
        let methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
        let method = if methods.is_empty() { String::new() } else { format!(", method {}", methods.join(" or ")) };
        Some((route.name.as_str(), format!("{host}, path {path}{method}")))
    };
    snapshot.config.routes.iter().filter_map(covers).collect()
}

pub(super) fn maintenance(
    asked: &Asked<'_>,
    route: Option<&Route>,
    verdict: &Verdict<'_>,
    snapshot: &Snapshot,
    moment: Moment<'_>,
) -> Option<Stage> {
    if matches!(verdict, Verdict::ToHttps(_) | Verdict::NoHost | Verdict::FeatureOff(_)) {
        return None;
    }
    let Some(state) = moment.switches.maintenance else { return Some(stage("maintenance", "off")) };
    Some(stage(
        "maintenance",
        match verdict {
            Verdict::Maintenance(active) => {
                let whose = match &active.scope {
                    Scope::Global => "on for everything it covers".to_owned(),
                    Scope::Route(name) => format!("on for route {name}"),
                };
                let reason = active.flag.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
                format!("{whose}, mode {}{reason}", active.flag.mode.name())
            }
            Verdict::Enter(_) => "on; the URL holds the bypass token".to_owned(),
            Verdict::PageAsset(_) => "on; this is a part of its page".to_owned(),
            _ if state.is_empty() => "off".to_owned(),
            _ => format!("on, but {}", why_not_blocked(asked, route, snapshot, state)),
        },
    ))
}

fn why_not_blocked(asked: &Asked<'_>, route: Option<&Route>, snapshot: &Snapshot, state: &State) -> &'static str {
    let maintenance = &snapshot.maintenance;
    if asked.is_bypassed {
        return "the client has the bypass";
    }
    if route.is_some_and(|route| route.maintenance_exempt) {
        return "the route is exempt";
    }
    if maintenance.exempt_paths.contains(asked.path) {
        return "the path is exempt";
    }
    if contains(&maintenance.allow, asked.client_ip) {
        return "the client is on the configuration's allow list";
    }
    let place = (asked.host, asked.path);
    let facts = decide::facts_of(route, place, asked.method, (asked.client_ip, false), snapshot);
    match state.covering(&facts).next() {
        None => "the flag does not cover this request",
        Some(active) if active.flag.mode == Mode::ReadOnly && facts.method_is_safe => "it lets the method pass",
        Some(_) => "the client is on the flag's allow list",
    }
}

pub(super) fn feature(route: Option<&Route>, verdict: &Verdict<'_>, snapshot: &Snapshot) -> Option<Stage> {
    let route = route?;
    let settings = snapshot.config.routes.iter().find(|settings| settings.name == *route.name)?;
    let state = if matches!(verdict, Verdict::FeatureOff(_)) { "off" } else { "on" };
    Some(stage("feature", format!("{} is {state}", settings.feature.as_ref()?)))
}

pub(super) fn access(
    asked: &Asked<'_>,
    route: Option<&Route>,
    verdict: &Verdict<'_>,
    moment: Moment<'_>,
) -> Option<Stage> {
    let text = match verdict {
        Verdict::Blocked => format!("{} is on the block list", asked.client_ip),
        Verdict::Denied(denied) => format!("{}: {denied} of the route", asked.client_ip),
        Verdict::Pass(_) => {
            let list = if moment.switches.blocked.is_some() { "not blocked; " } else { "" };
            let lists = if route.is_some_and(|route| route.access.is_open()) {
                "the route has no allow or deny list"
            } else {
                "the route's allow and deny lists let it in"
            };
            format!("{list}{lists}")
        }
        _ => return None,
    };
    Some(stage("access", text))
}

/// One for each limit of the route, met or not.
pub(super) fn limits(asked: &Asked<'_>, route: &Route, snapshot: &Snapshot) -> Vec<Stage> {
    if route.limits.each.is_empty() {
        return vec![stage("limits", "none")];
    }
    let facts = decide::limit_facts(route, asked.path, asked.headers, asked.client_ip);
    let met: Vec<_> = decide::limits_met(route, asked.client_ip).map(|limit| limit.name.as_str()).collect();
    let told = route.limits.each.iter().map(|limit| {
        let (name, settings) = (&limit.name, &limit.settings);
        if !met.contains(&name.as_str()) {
            return stage("limit", format!("{name}: does not count {}, which is exempt", asked.client_ip));
        }
        let parts: Vec<_> = settings.key.iter().map(ToString::to_string).collect();
        let values: Vec<_> = limit.source.values(&facts).map(|value| value_text(value, settings.ipv6_prefix)).collect();
        let counted = if values.is_empty() { String::new() } else { format!(" = {}", values.join(", ")) };
        let (rate, burst, note) = match limit.overridden(&snapshot.shared) {
            Some(set) => (set.rate, set.burst, ", set by an operator"),
            None => (settings.rate, settings.burst, ""),
        };
        let shadow = if settings.shadow { ", only watched" } else { "" };
        let places = settings.concurrency.map(|bound| format!(", {bound} in flight")).unwrap_or_default();
        let by = parts.join(" + ");
        stage("limit", format!("{name}: {rate}, burst {burst}{places}{note}{shadow}; counts by {by}{counted}"))
    });
    told.collect()
}

fn value_text(value: Value<'_>, ipv6_prefix: u8) -> String {
    match value {
        Value::Ip(ip) => match ip.to_canonical() {
            std::net::IpAddr::V6(ip) => {
                ipnet::Ipv6Net::new(ip, ipv6_prefix.min(128)).map_or(ip.to_string(), |net| net.trunc().to_string())
            }
            ip => ip.to_string(),
        },
        Value::Bytes(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// `chosen` is the group that takes the request, or the one that refuses it.
pub(super) fn breaker(target: &Target, chosen: &Group, moment: Moment<'_>) -> Stage {
    let own = &target.group;
    let state = |group: &Group| match (&group.breaker, moment.breakers) {
        (None, _) => "none".to_owned(),
        (Some(_), None) => "on; its state is known to a running process only".to_owned(),
        (Some(breaker), Some(states)) => {
            let state = states.get(&*group.name).map_or("closed", String::as_str).to_lowercase().replace('_', "-");
            let shadow = if breaker.settings().shadow { ", only watched" } else { "" };
            format!("{state}{shadow}")
        }
    };
    let fallback = match std::ptr::eq(&raw const **own, chosen) {
        true => String::new(),
        false => format!("; {} falls back to {}, whose breaker is {}", own.name, chosen.name, state(chosen)),
    };
    stage("breaker", format!("{}{fallback}", state(own)))
}

pub(super) fn upstream(group: &Group) -> Stage {
    let endpoints = &group.settings.endpoints;
    let mut named: Vec<String> = Vec::new();
    for endpoint in endpoints.iter().take(ENDPOINTS_NAMED) {
        let weight = if endpoint.weight.get() == 1 { String::new() } else { format!(" (weight {})", endpoint.weight) };
        let backup = if endpoint.backup { " (backup)" } else { "" };
        named.push(format!("{}{weight}{backup}", endpoint.address));
    }
    if endpoints.len() > ENDPOINTS_NAMED {
        named.push(format!("and {} more", endpoints.len() - ENDPOINTS_NAMED));
    }
    stage("upstream", format!("{}: {}", group.name, named.join(", ")))
}
