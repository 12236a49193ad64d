//! What becomes of a request, decided from its head, one generation and the switches of the moment.
//!
//! The only place where that is decided: a request on its way, `flagstone explain` and a `[[test]]` ask the same
//! functions, so that an explanation cannot differ from what happens. Nothing here counts, logs, charges or waits; who
//! asks does what follows. Limits and breakers come after it, because asking them changes them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri};

use super::bypass::Entrance;
use super::refusal::{Maintained, Refusal};
use super::{https, page, respond};
use crate::message::answer::told_length;
use crate::message::host::Host;
use crate::message::{forwarded, path};
use crate::policy::access::Denied;
use crate::policy::limit;
use crate::policy::maintenance::{Active, Facts, State};
use crate::route::Found;
use crate::runtime::block_list::Blocked;
use crate::snapshot::{Limit, Route, Snapshot, Target};
use crate::upstream::group::Group;

/// What of a request decides.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub listener: &'a str,
    pub is_tls: bool,
    /// A trusted proxy sent it.
    pub peer_is_trusted: bool,
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// As [`place`] found it.
    pub host: &'a str,
    /// As [`place`] found it.
    pub path: &'a str,
    pub client_ip: IpAddr,
    /// Header or cookie prove that the client may see the app in maintenance.
    pub is_bypassed: bool,
}

/// What operators have switched, as it is now.
#[derive(Clone, Copy)]
pub struct Switches<'a> {
    /// `None` = no maintenance anywhere.
    pub maintenance: Option<&'a State>,
    /// `None` = nobody is blocked.
    pub blocked: Option<&'a Blocked>,
    /// What somebody has set features to counts, not only the configuration's defaults.
    pub features_are_set: bool,
}

/// The route, and whether the request may go there.
pub struct Decision<'s> {
    /// `None` = no route matches, or it was not looked for.
    pub route: Option<&'s Arc<Route>>,
    pub verdict: Verdict<'s>,
}

/// What becomes of a request, up to its route's limits.
pub enum Verdict<'s> {
    Pass(&'s Arc<Route>),
    /// Sent on to this address.
    ToHttps(String),
    /// It holds the token of the bypass, and gets a cookie for it.
    Enter(Box<Entrance>),
    /// A part of the maintenance page.
    PageAsset(&'s page::Asset),
    Maintenance(Arc<Active>),
    FeatureOff(Arc<Active>),
    /// The runtime block list.
    Blocked,
    Denied(Denied),
    NoRoute,
    /// These the route takes.
    MethodNotAllowed(Vec<Method>),
    /// To be sent on to https, but it names no host.
    NoHost,
}

/// What the request names, in the one form that everything after works with: its host, unless that is known already,
/// and its path.
///
/// # Errors
/// Either is malformed or ambiguous.
pub fn place<B>(request: &Request<B>, known: Option<Host>) -> Result<(Host, Cow<'_, str>), Refusal> {
    let host = known
        .map_or_else(|| Host::of_request(request.uri(), request.headers(), request.version()), Ok)
        .map_err(|_| Refusal::BadRequest("The Host of the request is missing, repeated or malformed."))?;
    let path = path::normalise(request.uri().path())
        .map_err(|_| Refusal::BadRequest("The path of the request is malformed or ambiguous."))?;
    let query_bytes = request.uri().query().map_or(0, |query| query.len() + 1);
    // An escape takes three bytes where there was one.
    if path.len() + query_bytes > path::URI_BYTES_MAX {
        return Err(Refusal::UriTooLong);
    }
    if let Some(query) = request.uri().query() {
        path::check_query(query).map_err(|_| Refusal::BadRequest("The query of the request is malformed."))?;
    }
    Ok((host, path))
}

/// The first of the stages that does not let the request pass, in their order: https, route, feature, maintenance, block
/// list, the route's own lists.
pub fn decide<'s>(asked: &Asked<'_>, snapshot: &'s Snapshot, switches: Switches<'_>) -> Decision<'s> {
    if let Some(verdict) = https::elsewhere(asked, snapshot) {
        return Decision { route: None, verdict };
    }
    let found = snapshot.routes.find(asked.host, asked.path, asked.method);
    let route = match &found {
        Found::Route(route) => Some(*route),
        Found::MethodNotAllowed(_) | Found::NotFound => None,
    };
    let refused = feature(route, switches)
        .or_else(|| maintenance(asked, route, snapshot, switches))
        .or_else(|| lists(asked, route, switches));
    let verdict = match (refused, found) {
        (Some(verdict), _) => verdict,
        (None, Found::Route(route)) => Verdict::Pass(route),
        (None, Found::MethodNotAllowed(methods)) => Verdict::MethodNotAllowed(methods),
        (None, Found::NotFound) => Verdict::NoRoute,
    };
    Decision { route, verdict }
}

/// Whether the route is switched off.
fn feature<'s>(route: Option<&Arc<Route>>, switches: Switches<'_>) -> Option<Verdict<'s>> {
    let switched = route?.feature.as_ref()?;
    let off = if switches.features_are_set { switched.off() } else { switched.off_by_default() };
    off.map(Verdict::FeatureOff)
}

/// Whether maintenance answers in place of the app, and how.
pub(crate) fn maintenance<'s>(
    asked: &Asked<'_>,
    route: Option<&Arc<Route>>,
    snapshot: &'s Snapshot,
    switches: Switches<'_>,
) -> Option<Verdict<'s>> {
    let state = switches.maintenance?;
    let maintenance = &snapshot.maintenance;
    if let Some(entrance) = maintenance.bypass.as_ref().and_then(|bypass| bypass.entrance(asked)) {
        return Some(Verdict::Enter(Box::new(entrance)));
    }
    let is_read = matches!(*asked.method, Method::GET | Method::HEAD);
    if let Some(asset) = maintenance.pages.page_asset(asked.path).filter(|_| is_read) {
        return Some(Verdict::PageAsset(asset));
    }
    let client = (asked.client_ip, asked.is_bypassed);
    let facts = facts_of(route.map(|route| &**route), (asked.host, asked.path), asked.method, client, snapshot);
    state.check(&facts).cloned().map(Verdict::Maintenance)
}

/// The block list first, which also covers what no route matches, then the route's own lists.
pub(crate) fn lists<'s>(asked: &Asked<'_>, route: Option<&Arc<Route>>, switches: Switches<'_>) -> Option<Verdict<'s>> {
    if switches.blocked.is_some_and(|blocked| blocked.contains(asked.client_ip)) {
        return Some(Verdict::Blocked);
    }
    route.and_then(|route| route.access.check(asked.client_ip).err()).map(Verdict::Denied)
}

/// The limits that a client meets on a route.
pub fn limits_met(route: &Route, client_ip: IpAddr) -> impl Iterator<Item = &Arc<Limit>> {
    route.limits.each.iter().filter(move |limit| limit.is_met_by(client_ip))
}

/// What limits may count by.
pub fn limit_facts<'a>(route: &'a Route, path: &'a str, headers: &'a HeaderMap, client_ip: IpAddr) -> limit::Facts<'a> {
    limit::Facts { client_ip, route: &route.name, path, headers }
}

/// The upstream that takes the request, and what its breaker gave: the route's own, or its fallback where the breaker
/// says no.
///
/// # Errors
/// When neither takes it, how long until the first of both may.
pub fn upstream<'a, T>(
    target: &'a Target,
    ask: impl Fn(&'a Group) -> Result<T, Duration>,
) -> Result<(&'a Arc<Group>, T), Duration> {
    let retry_after = match ask(&target.group) {
        Ok(given) => return Ok((&target.group, given)),
        Err(retry_after) => retry_after,
    };
    let Some(fallback) = &target.fallback else { return Err(retry_after) };
    ask(fallback).map(|given| (fallback, given)).map_err(|its_own| its_own.min(retry_after))
}

/// The bytes of body that a head announces, if it does.
///
/// # Errors
/// They are more than the route takes.
pub fn announced_body(headers: &HeaderMap, route: &Route) -> Result<Option<u64>, Refusal> {
    let announced = told_length(headers);
    match announced.zip(route.body_bytes_max) {
        Some((length, bytes_max)) if length > bytes_max => Err(Refusal::BodyTooLarge),
        _ => Ok(announced),
    }
}

/// What decides about a request in maintenance. `place` is its host and path, `client` the address and whether
/// it has a bypass.
pub fn facts_of<'a>(
    route: Option<&'a Route>,
    place: (&'a str, &'a str),
    method: &Method,
    client: (IpAddr, bool),
    snapshot: &'a Snapshot,
) -> Facts<'a> {
    let maintenance = &snapshot.maintenance;
    let is_exempt = route.is_some_and(|route| route.maintenance_exempt) || maintenance.exempt_paths.contains(place.1);
    Facts {
        route: route.map(|route| &*route.name),
        host: place.0,
        path: place.1,
        method_is_safe: matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
        client_ip: client.0,
        allow: &maintenance.allow,
        exempt: is_exempt || client.1,
    }
}

impl Verdict<'_> {
    /// How a request is refused that may not pass; `None` when it passes, or something else is served in its place.
    pub fn refusal(&self, snapshot: &Snapshot) -> Option<Refusal> {
        Some(match self {
            Self::Pass(_) | Self::ToHttps(_) | Self::Enter(_) | Self::PageAsset(_) => return None,
            Self::Maintenance(active) => maintained(active, snapshot),
            Self::FeatureOff(active) => Refusal::FeatureOff(maintained_by(active, snapshot)),
            Self::Blocked => Refusal::Blocked,
            Self::Denied(_) => Refusal::Denied,
            Self::NoRoute => Refusal::NoRoute,
            Self::MethodNotAllowed(methods) => Refusal::MethodNotAllowed(respond::allow(methods)),
            Self::NoHost => Refusal::NO_HOST,
        })
    }
}

fn maintained(active: &Arc<Active>, snapshot: &Snapshot) -> Refusal {
    Refusal::Maintenance(maintained_by(active, snapshot))
}

fn maintained_by(active: &Arc<Active>, snapshot: &Snapshot) -> Maintained {
    let maintenance = &snapshot.maintenance;
    Maintained {
        scope: Arc::clone(active),
        status: maintenance.status,
        retry_after_secs: active.retry_after(jiff::Timestamp::now(), maintenance.retry_after),
    }
}

impl Asked<'_> {
    /// Whether the client came by https.
    pub(super) fn came_by_https(&self, snapshot: &Snapshot) -> bool {
        came_by_https(self.is_tls, self.peer_is_trusted, self.headers, snapshot)
    }
}

/// Whether a client came by https, here or where a trusted proxy took it in.
pub(super) fn came_by_https(is_tls: bool, peer_is_trusted: bool, headers: &HeaderMap, snapshot: &Snapshot) -> bool {
    let is_told = || {
        let proto = snapshot.arrival(peer_is_trusted, headers).and_then(|arrival| arrival.proto);
        forwarded::is_https(headers, proto.as_deref())
    };
    is_tls || (peer_is_trusted && is_told())
}
