//! Answers made here: refusals, redirects, fixed texts. And the last touches to every answer.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use smallvec::SmallVec;

use super::body::Body;
use super::context::Context;
use super::decide::{Asked, Verdict};
use super::https;
use super::noted::Noted;
use super::page::{self, Kind};
use super::refusal::{Maintained, Refusal, Row};
use crate::config::model::Redirect;
use crate::message::negotiate;
use crate::policy::limit::headers::{RATELIMIT, RATELIMIT_POLICY};
use crate::policy::maintenance::Scope;
use crate::snapshot::{FixedAnswer, Snapshot};
use crate::telemetry::events::Event;

const FLAGSTONE_REASON: HeaderName = HeaderName::from_static("flagstone-reason");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What an answer needs to know of its request, kept aside because the request may be gone by then.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    is_safe: bool,
    pub(super) has_body: bool,
}

impl Asker {
    pub(super) fn of<B: http_body::Body>(request: &Request<Option<B>>, context: &Context) -> Self {
        Self {
            // The 200 of a file would open the stream that the client wants for another protocol.
            is_safe: is_safe(request.method()) && context.connect.is_none(),
            has_body: request.body().as_ref().is_some_and(|body| !body.is_end_stream()),
        }
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A cookie of ours, with an answer until its last touches: no edit of the app's cookies is meant for it.
#[derive(Clone)]
pub(super) struct OwnCookie(pub(super) HeaderValue);

fn kind_of(noted: &Noted) -> Kind {
    let content_type = noted.content_type.as_ref().map(HeaderValue::as_bytes);
    negotiate::kind(content_type, noted.accept.as_ref().map(HeaderValue::as_bytes))
}

/// The best of the languages that there are for a kind; empty = the first of them.
fn language<'a>(noted: &Noted, kind: Kind, pages: &'a page::Pages) -> &'a str {
    let Some(asked) = &noted.accept_language else { return "" };
    let languages: SmallVec<[&str; 12]> = pages.languages(kind).collect();
    negotiate::language([asked.as_bytes()], &languages).map_or("", |index| languages[index])
}

/// The fields that every refusal of one kind has, with those in place that differ from answer to answer. Made once: to
/// clone them costs a fraction of putting them together.
struct Heads(Vec<HeaderMap>);

impl Heads {
    fn of(kind: Kind, is_built_in_page: bool, has_retry_after: bool) -> HeaderMap {
        static HEADS: LazyLock<Heads> = LazyLock::new(Heads::make);
        HEADS.0[Self::place(kind, is_built_in_page, has_retry_after)].clone()
    }

    fn place(kind: Kind, is_built_in_page: bool, has_retry_after: bool) -> usize {
        (kind as usize * 2 + usize::from(is_built_in_page)) * 2 + usize::from(has_retry_after)
    }

    fn make() -> Self {
        let mut heads = Vec::new();
        for kind in [Kind::Html, Kind::Json, Kind::Text, Kind::Grpc] {
            for (is_built_in_page, has_retry_after) in [(false, false), (false, true), (true, false), (true, true)] {
                debug_assert_eq!(heads.len(), Self::place(kind, is_built_in_page, has_retry_after));
                let mut head = HeaderMap::with_capacity(10);
                head.insert(CONTENT_TYPE, page::content_type(kind));
                head.insert(FLAGSTONE_REASON, HeaderValue::from_static("maintenance"));
                head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                head.insert(VARY, HeaderValue::from_static("accept, accept-language"));
                head.insert(X_REQUEST_ID, HeaderValue::from_static(""));
                if has_retry_after {
                    head.insert(RETRY_AFTER, HeaderValue::from_static(""));
                }
                if is_built_in_page && kind == Kind::Html {
                    head.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::BUILT_IN_POLICY));
                }
                heads.push(head);
            }
        }
        Self(heads)
    }
}

/// The one place where a refusal becomes an answer.
pub(super) fn refuse(refusal: &Refusal, asker: Asker, context: &mut Context) -> Response<Body> {
    let row = refusal.row();
    context.has_client_left = matches!(refusal, Refusal::ClientLeft);
    // What the client did, no policy decided.
    context.reason = (!context.has_client_left).then_some(row.reason);
    if let Refusal::Maintenance(Maintained { scope, .. }) = refusal
        && let Scope::Route(name) = &scope.scope
    {
        context.decided_by = Some(name.as_str().into());
    }
    let kind = kind_of(&context.noted);
    if let Some(file) = in_place_of(refusal, kind, asker.is_safe, context.path(), &context.snapshot) {
        return asset(file, row.reason, context);
    }
    let page = shown_to(kind, refusal).map(|maintained| maintenance(maintained, kind, context));
    let is_built_in = page.as_ref().is_some_and(|page| page.built_in);
    let body = page.map_or_else(|| plain(&row, kind, context), |page| page.body);
    let retry_after = refusal.retry_after_secs();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    *headers = Heads::of(kind, is_built_in, retry_after.is_some());
    headers.insert(X_REQUEST_ID, context.request_id.clone());
    if let Some(secs) = retry_after {
        headers.insert(RETRY_AFTER, secs.into());
    }
    if !matches!(refusal, Refusal::Maintenance(_)) {
        headers.insert(FLAGSTONE_REASON, HeaderValue::from_static(row.reason));
    }
    if let Refusal::MethodNotAllowed(methods) = refusal {
        headers.insert(ALLOW, methods.clone());
    }
    if kind == Kind::Grpc {
        grpc(&mut response, refusal, grpc_type(&context.noted));
    }
    if row.closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the page of maintenance says of a refusal, for whom it is shown.
fn shown_to(kind: Kind, refusal: &Refusal) -> Option<&Maintained> {
    match refusal {
        Refusal::Maintenance(maintained) => Some(maintained),
        // A script reads its own reason; people see the same page.
        Refusal::FeatureOff(maintained) if kind == Kind::Html => Some(maintained),
        _ => None,
    }
}

/// The file that whoever is shown the page gets in place of a refusal: the page may refer to it.
fn in_place_of<'s>(
    refusal: &Refusal,
    kind: Kind,
    is_safe: bool,
    path: &str,
    snapshot: &'s Snapshot,
) -> Option<&'s page::Asset> {
    let is_shown = is_safe && shown_to(kind, refusal).is_some();
    is_shown.then(|| snapshot.maintenance.pages.asset(path)).flatten()
}

/// What answers made here are to a request with these headers, that nobody sends.
pub fn kind_for(headers: &HeaderMap) -> Kind {
    let mut noted = Noted::default();
    noted.gather(headers);
    kind_of(&noted)
}

/// Whether a request that nobody sends would get such a file.
pub fn has_in_place_of(refusal: &Refusal, asked: &Asked<'_>, snapshot: &Snapshot) -> bool {
    in_place_of(refusal, kind_for(asked.headers), is_safe(asked.method), asked.path, snapshot).is_some()
}

fn plain(row: &Row, kind: Kind, context: &Context) -> Bytes {
    let request_id = context.request_id.to_str().unwrap_or_default();
    let text = page::Refusal { status: row.status, reason: row.reason, detail: row.detail, request_id };
    page::refusal_page(kind, &text).1
}

fn maintenance(maintained: &Maintained, kind: Kind, context: &Context) -> page::Answer {
    let pages = &context.snapshot.maintenance.pages;
    let facts = page::Facts {
        active: &maintained.scope,
        lang: language(&context.noted, kind, pages),
        status: maintained.status,
        retry_after: maintained.retry_after_secs,
        request_id: context.request_id.to_str().unwrap_or_default(),
    };
    let page = pages.maintenance(kind, &facts);
    if let Some(error) = page.warning.clone() {
        context.snapshot.shared.events.emit(Event::MaintenancePageBroken { error });
    }
    page
}

/// A file of the page folder, with the reason why it is given.
pub(super) fn asset(asset: &page::Asset, reason: &'static str, context: &Context) -> Response<Body> {
    let mut response = answer(StatusCode::OK, asset.content_type.clone(), asset.body.clone());
    let headers = response.headers_mut();
    headers.insert(FLAGSTONE_REASON, HeaderValue::from_static(reason));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, context.request_id.clone());
    response
}

/// A gRPC client reads the status in the headers of a 200 (gRPC over HTTP/2, "Responses": Trailers-Only), one of
/// gRPC-Web as well (PROTOCOL-WEB.md, "Message framing"). `own` is the type of its call.
fn grpc(response: &mut Response<Body>, refusal: &Refusal, own: Option<HeaderValue>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    if let Some(own) = own {
        headers.insert(CONTENT_TYPE, own);
    }
    headers.extend(grpc_status(refusal));
}

/// How a call ended.
fn grpc_status(refusal: &Refusal) -> [(HeaderName, HeaderValue); 2] {
    let message = match refusal {
        Refusal::Maintenance(maintained) => page::grpc_message(&maintained.scope),
        _ => HeaderValue::from_static(refusal.row().detail),
    };
    [(GRPC_STATUS, HeaderValue::from_static(refusal.grpc_status())), (GRPC_MESSAGE, message)]
}

/// The trailers of a call that maintenance cuts in the middle of its answer; `None` where its client reads none.
pub(super) fn grpc_status_of_cut(context: &Context) -> Option<HeaderMap> {
    let called = context.noted.content_type.as_ref()?;
    if !negotiate::reads_trailers(called.as_bytes()) {
        return None;
    }
    let refusal = Verdict::Maintenance(context.cut_by()?).refusal(&context.snapshot)?;
    Some(HeaderMap::from_iter(grpc_status(&refusal)))
}

/// That of the call, without its parameters.
fn grpc_type(noted: &Noted) -> Option<HeaderValue> {
    let called = noted.content_type.as_ref()?;
    let own = negotiate::grpc_type(called.as_bytes());
    if own.len() == called.len() { Some(called.clone()) } else { HeaderValue::from_bytes(own).ok() }
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The last touches: what the route and its limits add to every answer.
pub(super) fn finish(response: &mut Response<Body>, context: &mut Context) {
    https::add_hsts(response.headers_mut(), context);
    if context.is_head() && !response.body().is_end_stream() {
        without_body(response);
    }
    let own_cookie = response.extensions_mut().remove::<OwnCookie>();
    add_of_route(response.headers_mut(), context);
    if let Some(OwnCookie(cookie)) = own_cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn add_of_route(headers: &mut HeaderMap, context: &mut Context) {
    let state = context.rate_limit.take();
    let Some(route) = &context.route else { return };
    if let Some(state) = state {
        if let Some(policy) = route.limits.policy(&context.snapshot.shared.runtime.overrides) {
            headers.append(RATELIMIT_POLICY, policy);
        }
        // Beside the app's own, which know of other quotas: both are lists.
        headers.append(RATELIMIT, state);
    }
    if route.response_headers.is_empty() {
        return;
    }
    // What is said here of the moment (a refusal, the cookie of a bypass) is for nobody to keep, however long the route
    // lets its files be kept.
    let is_made_here = context.reason.is_some() || context.upstream.is_none();
    let no_store = is_made_here.then(|| headers.remove(CACHE_CONTROL)).flatten();
    route.response_headers.apply(headers);
    if let Some(no_store) = no_store {
        headers.insert(CACHE_CONTROL, no_store);
    }
}

/// Leaves its length (RFC 9110, section 9.3.2). HTTP/1 does so too, h2 does not.
fn without_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    *response.body_mut() = Body::empty();
}

/// The value of `Allow`.
pub(super) fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).expect("method names are tokens")
}

/// A route's own fixed answer.
pub(super) fn fixed(fixed: &FixedAnswer) -> Response<Body> {
    answer(fixed.status, fixed.content_type.clone(), fixed.body.clone())
}

/// A route's redirect.
pub(super) fn redirect<B>(
    redirect: &Redirect,
    request: &Request<B>,
    context: &Context,
) -> Result<Response<Body>, Refusal> {
    Ok(see(redirect.status, &location(redirect, &context.asked(request), &context.snapshot)?))
}

/// Where it leads to, with its variables filled in.
///
/// # Errors
/// It leads to the host that was asked for, and there was none.
pub fn location(redirect: &Redirect, asked: &Asked<'_>, snapshot: &Snapshot) -> Result<String, Refusal> {
    if asked.host.is_empty() && redirect.to.contains("$host") {
        return Err(Refusal::NO_HOST);
    }
    let query = asked.uri.query();
    let uri = match query {
        Some(query) => format!("{}?{query}", asked.path),
        None => asked.path.to_owned(),
    };
    let values = [
        ("$uri", uri.as_str()),
        ("$path", asked.path),
        ("$query", query.unwrap_or_default()),
        ("$host", asked.host),
        ("$scheme", if asked.came_by_https(snapshot) { "https" } else { "http" }),
    ];
    Ok(fill(&redirect.to, &values))
}

/// Replaces each `$name`, in one pass: what is filled in is not looked through again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                text.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                text.push('$');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    text
}

/// From a folder's name to the folder, with the slash that its page's links need.
pub(super) fn to_folder(path: &str, query: Option<&str>) -> Response<Body> {
    let location = match query {
        Some(query) => format!("{path}/?{query}"),
        None => format!("{path}/"),
    };
    see(StatusCode::PERMANENT_REDIRECT, &location)
}

pub(super) fn see(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, location);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let values = [("$uri", "/a?$host"), ("$host", "example.com")];
        assert_eq!(fill("https://$host$uri", &values), "https://example.com/a?$host");
        assert_eq!(fill("$other $", &values), "$other $");
    }
}
