//! The way of a request, top to bottom.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;

use super::body::Body;
use super::context::Context;
use super::cut::Known;
use super::head_of;
use super::refusal::{Maintained, Refusal};
use super::{bypass, connect, files, forward, https, limits, respond, unread};
use crate::listener::connection::Connection;
use crate::live::Live;
use crate::message::host::Host;
use crate::message::path;
use crate::policy::maintenance::{Active, Facts};
use crate::route::Found;
use crate::snapshot::{Action, Route, Snapshot, Switched};

/// Answers one request. Never fails: what goes wrong is an answer too.
pub(crate) async fn handle(
    request: Request<Incoming>,
    connection: Arc<Connection>,
    live: Arc<Live>,
) -> Result<Response<Body>, Infallible> {
    let snapshot = live.load_full();
    let mut context = Context::begin(&request, connection, Arc::clone(&snapshot));
    let asker = respond::Asker::of(&request);
    let mut request = request.map(Some);
    let known = Known::of(&request, context.client_ip, context.is_bypassed, Arc::clone(&snapshot));
    let result = match known.unless_cut(serve(&mut request, &mut context, &snapshot)).await {
        Ok(result) => result,
        Err(active) => Err(maintained(&active, &snapshot)),
    };
    let result = result.and_then(|answer| connect::judge(answer, &context));
    let is_refusal = result.is_err();
    let mut response = result.unwrap_or_else(|refusal| respond::refuse(&refusal, &asker, &mut context));
    let is_clean = match request.into_body() {
        Some(unread) => unread::drain(unread, asker.expects_continue).await,
        // Whoever took it may have left some of it, unless the app has answered.
        None => !is_refusal || !asker.has_body,
    };
    // A stream that is not read to its end is reset behind its answer (RFC 9113, section 8.1); the connection lives on.
    if !is_clean && context.version() != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let response = respond::finish(response, &context);
    Ok(context.attach(response))
}

/// Whoever needs the body takes it out of the request.
async fn serve(
    request: &mut Request<Option<Incoming>>,
    context: &mut Context,
    snapshot: &Snapshot,
) -> Result<Response<Body>, Refusal> {
    locate(request, context)?;
    if let Some(answer) = https::redirect(request, context, snapshot)? {
        return Ok(answer);
    }
    let found = match snapshot.routes.find(&context.host, &context.path, request.method()) {
        Found::Route(route) => Ok(enter(route, context)),
        Found::MethodNotAllowed(methods) => Err(Refusal::MethodNotAllowed(respond::allow(&methods))),
        Found::NotFound => Err(Refusal::NoRoute),
    };
    let feature = found.as_ref().ok().and_then(|route| route.feature.as_ref());
    if let Some(off) = feature.and_then(Switched::off) {
        context.decided_by = feature.map(Switched::key);
        return Err(Refusal::FeatureOff(maintained_by(&off, snapshot)));
    }
    if let Some(answer) = check_maintenance(request, found.as_deref().ok(), context, snapshot)? {
        return Ok(answer);
    }
    check_lists(found.as_deref().ok(), context, snapshot)?;
    let route = found?;
    limits::admit(&route, request.headers(), context).await?;
    match &route.action {
        Action::Upstream(target) => forward::send(request, target, &route, context).await,
        Action::Files(folder) => {
            files::serve(head_of(request), folder, &context.path, route.strip_prefix.as_deref()).await
        }
        Action::Redirect(redirect) => Ok(respond::redirect(redirect, request, context)),
        Action::Respond(answer) => Ok(respond::fixed(answer)),
    }
}

/// Finds out what the request names, in the one form that everything after works with.
fn locate<B>(request: &Request<B>, context: &mut Context) -> Result<(), Refusal> {
    if let Some(why) = context.bad_head {
        return Err(Refusal::of_head(why));
    }
    let host = Host::of_request(request.uri(), request.headers(), request.version())
        .map_err(|_| Refusal::BadRequest("The Host of the request is missing, repeated or malformed."))?;
    context.host.push_str(host.name());
    if context.connection.tls.as_ref().is_some_and(|tls| !tls.may_ask_for(host.name())) {
        return Err(Refusal::Misdirected);
    }
    let path = path::normalise(request.uri().path())
        .map_err(|_| Refusal::BadRequest("The path of the request is malformed or ambiguous."))?;
    context.path.push_str(&path);
    if let Some(query) = request.uri().query() {
        path::check_query(query).map_err(|_| Refusal::BadRequest("The query of the request is malformed."))?;
    }
    Ok(())
}

fn enter(route: &Arc<Route>, context: &mut Context) -> Arc<Route> {
    context.enter(Arc::clone(route));
    Arc::clone(route)
}

/// The block list first, which also covers what no route matches, then the route's own lists.
fn check_lists(route: Option<&Route>, context: &Context, snapshot: &Snapshot) -> Result<(), Refusal> {
    let (shared, ip) = (&snapshot.shared, context.client_ip);
    let (place, name) = (route.map(|route| route.sample_place), route.map(|route| &*route.name));
    if shared.runtime.blocked.contains(ip) {
        shared.turned_away(ip, place, name, "the address is on the block list");
        return Err(Refusal::Blocked);
    }
    if let Some(Err(denied)) = route.map(|route| route.access.check(ip)) {
        shared.turned_away(ip, place, name, &denied.to_string());
        return Err(Refusal::Denied);
    }
    Ok(())
}

/// Lets a request pass, or answers it in place of the app: by a refusal, or by what maintenance itself serves.
fn check_maintenance<B>(
    request: &mut Request<B>,
    route: Option<&Route>,
    context: &Context,
    snapshot: &Snapshot,
) -> Result<Option<Response<Body>>, Refusal> {
    let Some(state) = snapshot.shared.switch.load() else { return Ok(None) };
    let maintenance = &snapshot.maintenance;
    if let Some(bypass) = &maintenance.bypass {
        if let Some(entrance) = bypass.entrance(request, &context.path) {
            return Ok(Some(entrance.answer(context.is_tls())));
        }
        // What lets a client in here is not for the app to know.
        request.headers_mut().remove(bypass::HEADER);
    }
    if let Some(asset) = maintenance.pages.page_asset(&context.path).filter(|_| is_read(request.method())) {
        return Ok(Some(respond::asset(asset, context)));
    }
    let client = (context.client_ip, context.is_bypassed);
    let facts = facts_of(route, (&context.host, &context.path), request.method(), client, snapshot);
    let Some(blocked) = state.check(&facts) else { return Ok(None) };
    blocked.count();
    snapshot.shared.blocked(route.map(|route| route.sample_place), facts.route);
    Err(maintained(blocked.active, snapshot))
}

/// What decides about a request in maintenance. `place` is its host and path, `client` the address and whether
/// it has a bypass.
pub(super) fn facts_of<'a>(
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

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
