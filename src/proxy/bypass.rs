//! The bypass: who knows the token sees the app while everybody else sees maintenance.
//!
//! The token comes in the header `X-Maintenance-Bypass`, or once as `?maintenance_bypass=TOKEN`, which is answered
//! by a redirect to the same URL without it and a cookie. The cookie is `EXPIRES.MAC`: Unix seconds, and an
//! HMAC-SHA256 over them and the token, so that it ends with its time, with another token and with another key.
//!
//! The token never reaches the app while maintenance is on, and a cookie that lets in never does. The access log masks
//! the token, on or off.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::body::Body;
use super::decide::Asked;
use super::respond::OwnCookie;
use crate::message::cookie;
use crate::secret::Secret;

/// The header that carries the token.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-maintenance-bypass");
const PARAMETER: &str = "maintenance_bypass";
pub(super) const COOKIE_NAME: &str = "flagstone_bypass";
/// A working day: who still works on it then enters the token once more.
const COOKIE_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
const MAC_BYTES: usize = 32;

/// The token of one configuration.
pub struct Bypass {
    token: String,
    key: hmac::Key,
}

/// A client that came in by the URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Path and query without the token.
    target: String,
    cookie: String,
    keeps_method: bool,
}

impl Bypass {
    pub(crate) fn new(token: &str, secret: &Secret) -> Self {
        Self { token: token.to_owned(), key: secret.key_for("bypass cookie") }
    }

    /// Whether header or cookie let a client see the app.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        headers.get(HEADER).is_some_and(|given| self.is_token(given.as_bytes()))
            || cookie::values(headers, COOKIE_NAME).any(|value| self.is_cookie(value, unix_seconds()))
    }

    /// For a request whose query holds the token: the way in. A wrong token is none.
    pub(super) fn entrance(&self, asked: &Asked<'_>) -> Option<Entrance> {
        let query = asked.uri.query().filter(|query| query.contains(PARAMETER))?;
        let given = query.split('&').find_map(value_of)?;
        // A plus is one, as in what `openssl rand -base64` makes: no token has a space for which it could stand.
        let given: Vec<u8> = percent_encoding::percent_decode_str(given).collect();
        if !self.is_token(&given) {
            return None;
        }
        let rest: Vec<&str> = query.split('&').filter(|pair| value_of(pair).is_none()).collect();
        let target = match rest.is_empty() {
            true => asked.path.to_owned(),
            false => format!("{}?{}", asked.path, rest.join("&")),
        };
        let keeps_method = !matches!(*asked.method, Method::GET | Method::HEAD);
        Some(Entrance { target, cookie: self.cookie(unix_seconds()), keeps_method })
    }

    /// Takes as long for a wrong first byte as for a wrong last one: what is compared are two MACs.
    fn is_token(&self, given: &[u8]) -> bool {
        let wanted = hmac::sign(&self.key, self.token.as_bytes());
        hmac::verify(&self.key, given, wanted.as_ref()).is_ok()
    }

    fn is_cookie(&self, value: &[u8], now: u64) -> bool {
        let Some((expires, mac)) = std::str::from_utf8(value).ok().and_then(|value| value.split_once('.')) else {
            return false;
        };
        let in_time = expires.parse::<u64>().is_ok_and(|expires| now < expires);
        let mac = unhex(mac);
        in_time && mac.is_some_and(|mac| hmac::verify(&self.key, &self.signed(expires), &mac).is_ok())
    }

    fn cookie(&self, now: u64) -> String {
        let expires = (now + COOKIE_LIFE.as_secs()).to_string();
        let mac = hmac::sign(&self.key, &self.signed(&expires));
        let mac: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{expires}.{mac}")
    }

    fn signed(&self, expires: &str) -> Vec<u8> {
        format!("{expires}\n{}", self.token).into_bytes()
    }
}

impl Entrance {
    /// A request with a body is asked for again as it was.
    pub fn status(&self) -> StatusCode {
        if self.keeps_method { StatusCode::TEMPORARY_REDIRECT } else { StatusCode::SEE_OTHER }
    }

    /// The redirect to the clean URL.
    pub(super) fn answer(&self, is_https: bool) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        let (life, secure) = (COOKIE_LIFE.as_secs(), if is_https { "; Secure" } else { "" });
        let cookie = format!("{COOKIE_NAME}={}; Max-Age={life}; Path=/; HttpOnly; SameSite=Lax{secure}", self.cookie);
        let cookie = HeaderValue::try_from(cookie).expect("digits and names are a header value");
        response.extensions_mut().insert(OwnCookie(cookie));
        let headers = response.headers_mut();
        let target = HeaderValue::from_str(&self.target).unwrap_or(HeaderValue::from_static("/"));
        headers.insert(LOCATION, target);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}

/// The value of a `maintenance_bypass=…`.
fn value_of(pair: &str) -> Option<&str> {
    pair.split_once('=').filter(|(name, _)| *name == PARAMETER).map(|(_, value)| value)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * MAC_BYTES || !text.is_ascii() {
        return None;
    }
    (0..MAC_BYTES).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn bypass() -> Bypass {
        Bypass::new("open+sesame", &Secret::of(7))
    }

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn enter(target: &str) -> Option<Entrance> {
        let uri: http::Uri = target.parse().unwrap();
        let asked = Asked {
            listener: "web",
            is_tls: false,
            peer_is_trusted: false,
            method: &Method::GET,
            uri: &uri,
            headers: &HeaderMap::new(),
            host: "",
            path: uri.path(),
            client_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            is_bypassed: false,
        };
        bypass().entrance(&asked)
    }

    #[test]
    fn the_header_admits_with_the_whole_token_only() {
        assert!(bypass().admits(&with(HEADER, "open+sesame")));
        for wrong in ["", "open", "open+sesame ", "open+sesamE"] {
            assert!(!bypass().admits(&with(HEADER, wrong)), "{wrong:?}");
        }
        assert!(!bypass().admits(&HeaderMap::new()));
    }

    #[test]
    fn a_cookie_admits_until_it_expires() {
        let cookie = bypass().cookie(1000);
        let last = 1000 + COOKIE_LIFE.as_secs() - 1;
        assert!(bypass().is_cookie(cookie.as_bytes(), last));
        assert!(!bypass().is_cookie(cookie.as_bytes(), last + 1));
        let later = cookie.replacen("44200", "99999", 1);
        assert_ne!(later, cookie);
        assert!(!bypass().is_cookie(later.as_bytes(), 1000), "signed for another time");
        for broken in ["", ".", "99999999999.", "99999999999.zz", &cookie[..cookie.len() - 1]] {
            assert!(!bypass().is_cookie(broken.as_bytes(), 0), "{broken:?}");
        }
    }

    #[test]
    fn a_cookie_of_another_token_or_key_is_worth_nothing() {
        let cookie = bypass().cookie(1000);
        assert!(!Bypass::new("other", &Secret::of(7)).is_cookie(cookie.as_bytes(), 1000));
        assert!(!Bypass::new("open+sesame", &Secret::of(8)).is_cookie(cookie.as_bytes(), 1000));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let cookie = format!("a=b; {COOKIE_NAME}={}; c=d", bypass().cookie(unix_seconds()));
        assert!(bypass().admits(&with(COOKIE, &cookie)));
    }

    #[test]
    fn the_way_in_leads_to_the_url_without_the_token() {
        for (asked, clean) in [
            ("/shop?maintenance_bypass=open+sesame", "/shop"),
            ("/shop?a=1&maintenance_bypass=open%2Bsesame&b=2", "/shop?a=1&b=2"),
        ] {
            assert_eq!(enter(asked).unwrap().target, clean);
        }
        for closed in
            ["/shop", "/shop?maintenance_bypass=wrong", "/?xmaintenance_bypass=open%2Bsesame", "/?maintenance_bypass"]
        {
            assert_eq!(enter(closed), None, "{closed}");
        }
    }
}
