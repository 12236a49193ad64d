//! Who may talk to the admin side: no web page of others, and with a token nobody without it.
//!
//! A client that tries wrong tokens is told to wait after a few, also with the right one: else guessing would go on
//! unnoticed. To say nothing at all is no try, and neither is a wrong token that was tried before, which tells nobody
//! anything: a script that goes on with an old one locks out nobody who shares its address. Every refusal is logged, but
//! for that of a dashboard where nobody has logged in yet, and never so many that the log is all refusals.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;

use super::dashboard;
use super::routes::Panel;
use super::server::Peer;
use super::session;
use super::view::problem;
use crate::config::model::{Admin, Secret};
use crate::message::host::{Host, HostError};
use crate::policy::limit::{Key, KeyBuilder, Limiter, Settings};
use crate::telemetry::events::Event;
use crate::telemetry::traces::shortened;

/// What the dashboard's own calls carry.
const DASHBOARD: HeaderName = HeaderName::from_static("flagstone-dashboard");
/// Wrong tokens that a client may try at once, and how long until it may try one more.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_secs(6);
/// Clients whose tries are counted; the stalest goes first.
const CLIENTS_MAX: usize = 4096;
/// Wrong tokens that are remembered, of all clients together; the oldest goes first.
const KNOWN_MAX: usize = 1024;
/// Refusals that are logged at once, and one more each second.
const LOGGED: u32 = 100;

/// The token that a request was let in by; `None` = none was asked for.
#[derive(Clone, PartialEq)]
pub(super) struct Admission(Option<Secret>);

impl Admission {
    /// Whether the same is asked for now.
    pub(super) fn holds(&self, admin: &Admin) -> bool {
        self.0 == admin.token
    }
}

/// Counts refusals.
pub(super) struct Refusals {
    tries: Limiter,
    /// Who tried which wrong token, hashed.
    known: Mutex<VecDeque<Key>>,
    logged: Limiter,
}

/// Whose request it is; `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Peer>().and_then(|peer| peer.0)))
    }
}

impl Refusals {
    pub(super) fn new() -> Self {
        let limiter = |period: Duration, burst: u32, keys: usize| {
            Limiter::new(Settings {
                rate_count: NonZeroU32::MIN,
                period,
                burst: NonZeroU32::new(burst).expect("above zero"),
                keys_max: NonZeroUsize::new(keys).expect("above zero"),
                ipv6_prefix: 64,
            })
        };
        Self {
            tries: limiter(TRY_AGAIN, TRIES, CLIENTS_MAX),
            known: Mutex::default(),
            logged: limiter(Duration::from_secs(1), LOGGED, 1),
        }
    }

    /// Whether this client has given this wrong token before, as far back as is remembered.
    fn knows(&self, client: Client, given: &[u8]) -> bool {
        let key = self.builder(client).bytes(given).finish();
        let mut known = self.known.lock();
        if known.contains(&key) {
            return true;
        }
        if known.len() == KNOWN_MAX {
            known.pop_front();
        }
        known.push_back(key);
        false
    }

    fn key(&self, client: Client) -> Key {
        self.builder(client).finish()
    }

    fn builder(&self, client: Client) -> KeyBuilder {
        match client.0 {
            Some(ip) => self.tries.key().ip(ip),
            // All who come through the socket file are one: the file's mode says who they are.
            None => self.tries.key(),
        }
    }
}

/// Refuses foreign Hosts and Origins, and requests without the token.
pub(super) async fn check(State(panel): State<Panel>, client: Client, mut request: Request, next: Next) -> Response {
    if panel.place.is_left() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the admin side has moved: see admin.listen");
    }
    let live = panel.control.live.load_full();
    let admin = &live.config.admin;
    request.extensions_mut().insert(Admission(admin.token.clone()));
    let headers = request.headers();
    if !is_own_host(&request, &admin.allowed_hosts) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this Host is not one of the admin side's: add it to admin.allowed_hosts",
        );
    }
    if headers.contains_key(ORIGIN) && !is_same_origin(text(headers, ORIGIN), text(headers, HOST)) {
        return refuse(StatusCode::FORBIDDEN, "a page of another origin may not drive the admin side");
    }
    let path = request.uri().path();
    if let Some(token) = admin.token.as_ref().filter(|_| !is_open(request.method(), path)) {
        let bearer = bearer(headers);
        let cookie = session::cookie(headers);
        let key = || panel.control.shared.session_key();
        if bearer.is_none() && cookie.is_some_and(|cookie| session::stands_for(cookie, &key(), &token.0)) {
            return next.run(request).await;
        }
        let Some(bearer) = bearer else {
            // The dashboard asks before anybody has logged in: that is how it learns that somebody has to.
            if cookie.is_none() && headers.contains_key(DASHBOARD) {
                return ask_for_token();
            }
            // An old cookie is what a browser sends by itself, and who guesses the token cannot make one: no try.
            return unauthorized(&panel, client, path);
        };
        if let Some(refusal) = refuse_token(&panel, client, path, bearer, &token.0) {
            return refusal;
        }
    }
    next.run(request).await
}

/// Compares a token that somebody gave, and refuses it when it is wrong, or when so many were before that this one is
/// not looked at.
pub(super) fn refuse_token(panel: &Panel, client: Client, path: &str, given: &str, token: &str) -> Option<Response> {
    let refusals = &panel.refusals;
    let (key, now) = (refusals.key(client), panel.control.shared.nanos());
    let left = refusals.tries.peek(key, now);
    if !left.allowed {
        let secs = left.wait.as_secs() + 1;
        tell(panel, client, path);
        let detail = format!("too many wrong tokens came from you: wait {secs} s before the next try");
        let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &detail);
        response.headers_mut().insert(RETRY_AFTER, secs.into());
        return Some(response);
    }
    if is_same(given.as_bytes(), token.as_bytes()) {
        return None;
    }
    if !refusals.knows(client, given.as_bytes()) {
        refusals.tries.check(key, now);
    }
    Some(unauthorized(panel, client, path))
}

fn unauthorized(panel: &Panel, client: Client, path: &str) -> Response {
    tell(panel, client, path);
    ask_for_token()
}

fn ask_for_token() -> Response {
    let mut response = refuse(StatusCode::UNAUTHORIZED, "send the token of [admin] as Authorization: Bearer TOKEN");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"flagstone\""));
    response
}

fn tell(panel: &Panel, client: Client, path: &str) {
    let logged = &panel.refusals.logged;
    if logged.check(logged.key().finish(), panel.control.shared.nanos()).allowed {
        panel.control.shared.events.emit(Event::Unauthorized { client: client.0, path: shortened(path) });
    }
}

/// What needs no token: the probes, and what one logs in with, which holds no data.
fn is_open(method: &Method, path: &str) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/healthz" | "/readyz" => true,
        "/" => is_read,
        "/api/login" | "/api/logout" => *method == Method::POST,
        _ => is_read && path.starts_with(dashboard::FOLDER),
    }
}

/// The scheme's name is written in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_same_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some() && origin == host
}

/// An address, a loopback name or a listed one, in target and `Host` alike. No Host at all comes from no browser.
fn is_own_host<B>(request: &http::Request<B>, allowed: &[String]) -> bool {
    let host = match Host::of_request(request.uri(), request.headers(), request.version()) {
        Ok(host) => host,
        Err(error) => return error == HostError::Missing,
    };
    let name = host.name();
    name.is_empty()
        || name.starts_with('[')
        || name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(given, token).is_ok()
}

fn refuse(status: StatusCode, detail: &str) -> Response {
    problem(status, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_loopback_names_or_listed() {
        let own = |target: &str, hosts: &[&[u8]]| {
            let mut request = http::Request::get(target);
            for &host in hosts {
                request = request.header(HOST, host);
            }
            is_own_host(&request.body(()).unwrap(), &["ops.example".into()])
        };
        for host in
            ["127.0.0.1:9900", "[::1]:9900", "10.0.0.7", "LocalHost:9900", "localhost.", "a.localhost", "ops.example:1"]
        {
            assert!(own("/", &[host.as_bytes()]), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", "", "localhost:x", "[::1].evil"]
        {
            assert!(!own("/", &[host.as_bytes()]), "{host}");
        }
        assert!(own("/", &[]), "no browser leaves it out");
        assert!(!own("/", &[b"\xff"]));
        assert!(!own("/", &[b"localhost", b"evil.example"]));
        assert!(!own("http://evil.example/", &[b"localhost"]));
    }

    #[test]
    fn an_origin_is_the_host_it_asks() {
        assert!(is_same_origin(Some("http://127.0.0.1:9900"), Some("127.0.0.1:9900")));
        for origin in [None, Some("null"), Some("http://127.0.0.1:9901"), Some("https://evil.example"), Some("")] {
            assert!(!is_same_origin(origin, Some("127.0.0.1:9900")), "{origin:?}");
        }
        assert!(!is_same_origin(Some("http://a"), None));
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"secret", b"secret"));
        assert!(!is_same(b"secre", b"secret"));
        assert!(!is_same(b"secrex", b"secret"));
        assert!(!is_same(b"", b"secret"));
    }

    #[test]
    fn a_bearer_is_told_from_other_schemes() {
        let given = |value: &'static str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(given("Bearer a b").as_deref(), Some("a b"));
        assert_eq!(given("bearer  x").as_deref(), Some("x"));
        for other in ["Basic eA==", "x", ""] {
            assert_eq!(given(other), None, "{other}");
        }
    }
}
