//! Answers made here: refusals, redirects, fixed texts. And the last touches to every answer.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, EXPECT, LOCATION,
    RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::body::Body;
use super::context::Context;
use super::decide::Asked;
use super::https;
use super::page::{self, Kind};
use super::refusal::{Maintained, Refusal, Row};
use crate::config::model::Redirect;
use crate::message::negotiate;
use crate::policy::limit::headers::{RATELIMIT, RATELIMIT_POLICY};
use crate::policy::maintenance::Scope;
use crate::snapshot::FixedAnswer;

const FLAGSTONE_REASON: HeaderName = HeaderName::from_static("flagstone-reason");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What an answer needs to know of its request, kept aside because the request may be gone by then.
pub(super) struct Asker {
    accept: Option<HeaderValue>,
    accept_language: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    is_safe: bool,
    pub(super) has_body: bool,
    pub(super) expects_continue: bool,
}

impl Asker {
    pub(super) fn of<B: http_body::Body>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            accept: headers.get(ACCEPT).cloned(),
            accept_language: headers.get(ACCEPT_LANGUAGE).cloned(),
            content_type: headers.get(CONTENT_TYPE).cloned(),
            is_safe: matches!(*request.method(), Method::GET | Method::HEAD),
            has_body: !request.body().is_end_stream(),
            expects_continue: headers.contains_key(EXPECT),
        }
    }

    /// The fields again, as negotiation reads them.
    fn headers(&self) -> HeaderMap {
        let fields =
            [(ACCEPT, &self.accept), (ACCEPT_LANGUAGE, &self.accept_language), (CONTENT_TYPE, &self.content_type)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// The one place where a refusal becomes an answer.
pub(super) fn refuse(refusal: &Refusal, asker: &Asker, context: &mut Context) -> Response<Body> {
    let row = refusal.row();
    context.reason = Some(row.reason);
    if let Refusal::Maintenance(Maintained { scope, .. }) = refusal
        && let Scope::Route(name) = &scope.scope
    {
        context.decided_by = Some(name.as_str().into());
    }
    let asked = asker.headers();
    let kind = negotiate::kind(&asked);
    let mut response = match refusal {
        Refusal::Maintenance(maintained) => maintenance(maintained, kind, &asked, asker, context),
        // A script reads its own reason; people see the same page.
        Refusal::FeatureOff(maintained) if kind == Kind::Html => maintenance(maintained, kind, &asked, asker, context),
        _ => plain(&row, kind),
    };
    let headers = response.headers_mut();
    headers.insert(FLAGSTONE_REASON, HeaderValue::from_static(row.reason));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-language"));
    headers.insert(X_REQUEST_ID, context.request_id.clone());
    if let Some(secs) = refusal.retry_after_secs() {
        headers.insert(RETRY_AFTER, secs.into());
    }
    if let Refusal::MethodNotAllowed(methods) = refusal {
        headers.insert(ALLOW, methods.clone());
    }
    if kind == Kind::Grpc {
        grpc(&mut response, refusal, &row);
    }
    if row.closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn plain(row: &Row, kind: Kind) -> Response<Body> {
    let text = page::Refusal { status: row.status, reason: row.reason, title: "", detail: row.detail };
    let (content_type, body) = page::refusal_page(kind, &text);
    answer(row.status, content_type, body)
}

fn maintenance(
    maintained: &Maintained,
    kind: Kind,
    asked: &HeaderMap,
    asker: &Asker,
    context: &Context,
) -> Response<Body> {
    let pages = &context.snapshot.maintenance.pages;
    if let Some(asset) = pages.asset(&context.path).filter(|_| asker.is_safe) {
        return answer(StatusCode::OK, asset.content_type.clone(), asset.body.clone());
    }
    let languages: smallvec::SmallVec<[&str; 12]> = pages.languages(kind).collect();
    let lang = negotiate::language(asked, &languages).and_then(|index| languages.get(index)).copied();
    let facts = page::Facts {
        active: &maintained.scope,
        lang: lang.unwrap_or_default(),
        status: maintained.status,
        retry_after: maintained.retry_after_secs,
        request_id: context.request_id.to_str().unwrap_or_default(),
    };
    let page = pages.maintenance(kind, &facts);
    if let Some(warning) = &page.warning {
        tracing::warn!("{warning}");
    }
    let mut response = answer(maintained.status, page.content_type, page.body);
    if page.built_in && kind == Kind::Html {
        let policy = HeaderValue::from_static(page::BUILT_IN_POLICY);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// A file of the page folder, for a request that nothing blocks.
pub(super) fn asset(asset: &page::Asset, context: &Context) -> Response<Body> {
    let mut response = answer(StatusCode::OK, asset.content_type.clone(), asset.body.clone());
    let headers = response.headers_mut();
    headers.insert(FLAGSTONE_REASON, HeaderValue::from_static("maintenance"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, context.request_id.clone());
    response
}

/// A gRPC client reads the status in the headers of a 200 (gRPC over HTTP/2, "Responses": Trailers-Only).
fn grpc(response: &mut Response<Body>, refusal: &Refusal, row: &Row) {
    let code = match refusal {
        Refusal::RateLimited { .. } | Refusal::Concurrency { .. } => "8",
        Refusal::Denied | Refusal::Blocked => "7",
        Refusal::NoRoute | Refusal::MethodNotAllowed(_) => "12",
        Refusal::UpstreamTimeout | Refusal::ConnectTimeout => "4",
        Refusal::BadRequest(_) | Refusal::UriTooLong | Refusal::HeadersTooLarge => "3",
        _ => "14",
    };
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from_static(code));
    let message = match refusal {
        Refusal::Maintenance(maintained) => page::grpc_message(&maintained.scope),
        _ => HeaderValue::from_static(row.detail),
    };
    headers.insert(GRPC_MESSAGE, message);
}

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The last touches: what the route and its limits add to every answer.
pub(super) fn finish(mut response: Response<Body>, context: &Context) -> Response<Body> {
    https::add_hsts(response.headers_mut(), context);
    let Some(route) = &context.route else { return response };
    let headers = response.headers_mut();
    if let Some(state) = &context.rate_limit {
        if let Some(policy) = route.limits.policy() {
            headers.insert(RATELIMIT_POLICY, policy);
        }
        headers.insert(RATELIMIT, state.clone());
    }
    route.response_headers.apply(headers);
    response
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
pub(super) fn redirect<B>(redirect: &Redirect, request: &Request<B>, context: &Context) -> Response<Body> {
    see(redirect.status, &location(redirect, &context.asked(request)))
}

/// Where it leads to, with its variables filled in.
pub(crate) fn location(redirect: &Redirect, asked: &Asked<'_>) -> String {
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
        ("$scheme", if asked.is_tls { "https" } else { "http" }),
    ];
    fill(&redirect.to, &values)
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
