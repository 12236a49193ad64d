//! Who may talk to the admin side: no web page, and with a token nobody without it.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, StatusCode};

use super::routes::Panel;
use super::server::Peer;
use super::view::problem;
use crate::telemetry::events::Event;

/// Refuses foreign Hosts and Origins, and requests without the token.
pub(super) async fn check(State(panel): State<Panel>, request: Request, next: Next) -> Response {
    let live = panel.control.live.load_full();
    let admin = &live.config.admin;
    let headers = request.headers();
    if !is_own_host(text(headers, HOST), &admin.allowed_hosts) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this Host is not one of the admin side's: add it to admin.allowed_hosts",
        );
    }
    if let Some(origin) = text(headers, ORIGIN) {
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none() || host != text(headers, HOST) {
            return refuse(StatusCode::FORBIDDEN, "a page of another origin may not drive the admin side");
        }
    }
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    if let Some(token) = admin.token.as_ref().filter(|_| !is_probe) {
        let given = text(headers, AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !is_same(given.as_bytes(), token.0.as_bytes()) {
            let client = request.extensions().get::<Peer>().and_then(|peer| peer.0);
            let path = request.uri().path().to_owned();
            panel.control.shared.events.emit(Event::Unauthorized { client, path });
            return refuse(StatusCode::UNAUTHORIZED, "send the token of [admin] as Authorization: Bearer");
        }
    }
    next.run(request).await
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// An address, a loopback name or a listed one. No Host at all comes from no browser.
fn is_own_host(host: Option<&str>, allowed: &[String]) -> bool {
    let Some(host) = host else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Takes as long for a wrong first byte as for a wrong last one.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differing == 0
}

fn refuse(status: StatusCode, detail: &str) -> Response {
    problem(status, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_loopback_names_or_listed() {
        for host in ["127.0.0.1:9900", "[::1]:9900", "10.0.0.7", "localhost:9900", "a.localhost", "ops.example:9900"] {
            assert!(is_own_host(Some(host), &["ops.example".into()]), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", ""] {
            assert!(!is_own_host(Some(host), &["ops.example".into()]), "{host}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"secret", b"secret"));
        assert!(!is_same(b"secre", b"secret"));
        assert!(!is_same(b"secrex", b"secret"));
        assert!(!is_same(b"", b"secret"));
    }
}
