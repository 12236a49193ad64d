//! The way of a request, top to bottom.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

use super::body::Body;
use super::context::Context;
use super::refusal::{Maintained, Refusal};
use super::{files, forward, limits, respond, unread};
use crate::listener::connection::Connection;
use crate::live::Live;
use crate::message::host::Host;
use crate::message::path;
use crate::policy::maintenance::Facts;
use crate::route::Found;
use crate::snapshot::{Action, Route, Snapshot};

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
    let result = serve(&mut request, &mut context, &snapshot).await;
    let is_refusal = result.is_err();
    let mut response = result.unwrap_or_else(|refusal| respond::refuse(&refusal, &asker, &mut context));
    let is_clean = match request.into_body() {
        Some(unread) => unread::drain(unread, asker.expects_continue).await,
        // Whoever took it may have left some of it, unless the app has answered.
        None => !is_refusal || !asker.has_body,
    };
    if !is_clean {
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
    let found = match snapshot.routes.find(&context.host, &context.path, request.method()) {
        Found::Route(route) => Ok(enter(route, context)),
        Found::MethodNotAllowed(methods) => Err(Refusal::MethodNotAllowed(respond::allow(&methods))),
        Found::NotFound => Err(Refusal::NoRoute),
    };
    check_maintenance(found.as_deref().ok(), request.method(), context, snapshot)?;
    if found.as_ref().is_ok_and(|route| route.is_feature_off) {
        return Err(Refusal::FeatureOff { retry_after: snapshot.maintenance.retry_after });
    }
    check_lists(found.as_deref().ok(), context, snapshot)?;
    let route = found?;
    limits::admit(&route, request.headers(), context).await?;
    match &route.action {
        Action::Upstream(target) => forward::send(request, target, &route, context).await,
        Action::Files(folder) => {
            files::serve(without_body(request), folder, &context.path, route.strip_prefix.as_deref()).await
        }
        Action::Redirect(redirect) => Ok(respond::redirect(redirect, request, context)),
        Action::Respond(answer) => Ok(respond::fixed(answer)),
    }
}

/// Finds out what the request names, in the one form that everything after works with.
fn locate<B>(request: &Request<B>, context: &mut Context) -> Result<(), Refusal> {
    let host = Host::of_request(request.uri(), request.headers(), request.version())
        .map_err(|_| Refusal::BadRequest("The Host of the request is missing, repeated or malformed."))?;
    context.host.push_str(host.name());
    let path = path::normalise(request.uri().path())
        .map_err(|_| Refusal::BadRequest("The path of the request is malformed or ambiguous."))?;
    context.path.push_str(&path);
    if let Some(query) = request.uri().query() {
        path::check_query(query).map_err(|_| Refusal::BadRequest("The query of the request is malformed."))?;
    }
    Ok(())
}

fn without_body<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
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

fn check_maintenance(
    route: Option<&Route>,
    method: &Method,
    context: &Context,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    let Some(state) = snapshot.shared.switch.load() else { return Ok(()) };
    let maintenance = &snapshot.maintenance;
    let facts = Facts {
        route: route.map(|route| &*route.name),
        host: &context.host,
        path: &context.path,
        method_is_safe: matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
        client_ip: context.client_ip,
        allow: &maintenance.allow,
        exempt: route.is_some_and(|route| route.maintenance_exempt) || maintenance.exempt_paths.contains(&context.path),
    };
    let Some(blocked) = state.check(&facts) else { return Ok(()) };
    blocked.count();
    snapshot.shared.blocked(route.map(|route| route.sample_place), facts.route, blocked.active);
    Err(Refusal::Maintenance(Maintained {
        scope: Arc::clone(blocked.active),
        status: maintenance.status,
        retry_after_secs: blocked.active.retry_after(jiff::Timestamp::now(), maintenance.retry_after),
    }))
}
