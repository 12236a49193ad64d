//! Sends plain requests on to https, and tells browsers to come that way (RFC 6797).

use std::time::Duration;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderValue};

use super::context::Context;
use super::decide::{Asked, Verdict};
use crate::config::model::{Address, Listener};
use crate::listener::connection::Connection;
use crate::snapshot::Snapshot;

/// Where certificate authorities look for the answer to their challenge (RFC 8555, section 8.3): they begin with plain
/// requests, and there may be no certificate yet.
const ACME: &str = "/.well-known/acme-challenge/";
const HTTPS: u16 = 443;

/// Where https is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// `None` = https' own.
    port: Option<u16>,
}

impl Entrance {
    /// `None` when no listener redirects. The port is 443 where a listener with TLS has it, or where none has a port
    /// that is known: whoever puts another in front of us must say so elsewhere. Else it is the first one's.
    pub(crate) fn of(listeners: &[Listener]) -> Option<Self> {
        if !listeners.iter().any(|listener| listener.redirect_https) {
            return None;
        }
        let tls = listeners.iter().filter(|listener| listener.tls.is_some());
        let ports = tls.filter_map(|listener| match listener.address {
            Address::Socket(address) => Some(address.port()),
            Address::Name { port, .. } => Some(port),
            Address::Unix(_) => None,
        });
        let ports: Vec<_> = ports.filter(|port| *port != 0).collect();
        let is_usual = ports.contains(&HTTPS);
        Some(Self { port: ports.first().copied().filter(|_| !is_usual) })
    }

    fn location(self, host: &str, path: &str, query: Option<&str>) -> String {
        let mut location = format!("https://{host}");
        if let Some(port) = self.port {
            location += &format!(":{port}");
        }
        location += path;
        if let Some(query) = query {
            location.push('?');
            location += query;
        }
        location
    }
}

/// The value of `Strict-Transport-Security`; `None` for zero, which is no header.
pub(crate) fn hsts(max_age: Duration) -> Option<HeaderValue> {
    let secs = max_age.as_secs() + u64::from(max_age.subsec_nanos() > 0);
    (secs > 0).then(|| HeaderValue::try_from(format!("max-age={secs}")).expect("digits are a header value"))
}

/// Whether the client was let in by what lets clients in at its listener now. Who came before certificates were asked
/// for, or when others could sign them, has to shake hands again.
pub(super) fn is_admitted(connection: &Connection, snapshot: &Snapshot) -> bool {
    let asks = snapshot.listener(&connection.listener).and_then(|listener| listener.tls.as_ref()?.admission());
    asks.is_none() || asks == connection.tls.as_ref().and_then(|tls| tls.admission)
}

/// What answers over this connection carry. Only over TLS (RFC 6797, section 7.2).
pub(crate) fn hsts_over<'a>(connection: &Connection, snapshot: &'a Snapshot) -> Option<&'a HeaderValue> {
    if !snapshot.has_hsts || !connection.is_tls() {
        return None;
    }
    snapshot.listener(&connection.listener)?.hsts.as_ref()
}

/// Sets it. The listener's word stands in place of the app's: two would be read as the first (section 8.1).
pub(super) fn add_hsts(headers: &mut HeaderMap, context: &Context) {
    if let Some(value) = hsts_over(&context.connection, &context.snapshot) {
        headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
    }
}

/// A plain request that is to come again over https; `None` when it may go on.
pub(super) fn elsewhere<'s>(asked: &Asked<'_>, snapshot: &Snapshot) -> Option<Verdict<'s>> {
    let entrance = snapshot.https?;
    let redirects = snapshot.listener(asked.listener).is_some_and(|listener| listener.redirects_https);
    let is_exempt = || asked.path.starts_with(ACME) || snapshot.maintenance.exempt_paths.contains(asked.path);
    if !redirects || asked.came_by_https(snapshot) || is_exempt() {
        return None;
    }
    if asked.host.is_empty() {
        return Some(Verdict::NoHost);
    }
    Some(Verdict::ToHttps(entrance.location(asked.host, asked.path, asked.uri.query())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn entrance(listeners: &[(&str, bool)]) -> Option<Entrance> {
        let mut text = String::from("[[route]]\nname = \"a\"\nrespond = { body = \"a\" }\n");
        for (address, is_tls) in listeners {
            text += &format!("[[listener]]\naddress = {address:?}\nredirect_https = {}\n", !is_tls);
            if *is_tls {
                text += "tls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }\n";
            }
        }
        Entrance::of(&config::parse(&text, std::path::Path::new("/"), &|_| None).unwrap().config.listeners)
    }

    #[test]
    fn the_port_is_named_when_it_is_not_the_usual_one() {
        let plain = ("0.0.0.0:80", false);
        let at = |port| Some(Entrance { port });
        assert_eq!(entrance(&[("0.0.0.0:443", true)]), None);
        assert_eq!(entrance(&[plain]), at(None));
        assert_eq!(entrance(&[plain, ("0.0.0.0:443", true)]), at(None));
        assert_eq!(entrance(&[plain, ("[::]:8443", true), ("0.0.0.0:9443", true)]), at(Some(8443)));
        assert_eq!(entrance(&[plain, ("0.0.0.0:8443", true), ("[::]:443", true)]), at(None));
        assert_eq!(entrance(&[plain, ("unix:/run/tls.sock", true)]), at(None));
        assert_eq!(entrance(&[plain, ("127.0.0.1:0", true)]), at(None));
    }

    #[test]
    fn the_whole_address_comes_along() {
        let entrance = Entrance { port: Some(8443) };
        assert_eq!(entrance.location("a.example", "/b%20c", Some("d=e")), "https://a.example:8443/b%20c?d=e");
        assert_eq!(Entrance { port: None }.location("[::1]", "/", None), "https://[::1]/");
    }

    #[test]
    fn a_part_of_a_second_is_a_second_and_none_is_no_header() {
        assert_eq!(hsts(Duration::ZERO), None);
        assert_eq!(hsts(Duration::from_millis(500)).unwrap(), "max-age=1");
        assert_eq!(hsts(Duration::from_secs(63_072_000)).unwrap(), "max-age=63072000");
    }
}
