//! Logging in from a browser: the token once, and from then on a cookie that stands for it.
//!
//! The cookie is `EXPIRES.MAC`: Unix seconds, and an HMAC-SHA256 over them and the token under the key of the state
//! folder. It can be checked without being kept, outlives restarts, and ends with its time and with the token. Nobody
//! can make one without the key, so guessing tokens by cookies leads nowhere, and a wrong one need not be counted.
//! `HttpOnly` keeps it from scripts, `SameSite=Strict` from other sites. Its name has the port in it, for browsers send
//! cookies to all ports of a host (RFC 6265, section 8.5), and many an admin side may be at one host.

pub(super) mod schema;

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::body::object;
use super::calls::calls;
use super::guard;
use super::routes::Panel;
use super::view::{Problem, problem};

/// Where the port is the scheme's own; see [`cookie_name`].
pub(super) const COOKIE_NAME: &str = "flagstone_admin";
/// A month.
const COOKIE_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(login, logout);

#[utoipa::path(post, path = "/api/login", tag = "session", request_body = schema::Login, responses((status = 204, description = "A cookie stands for the token from now on"), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn login(State(panel): State<Panel>, headers: HeaderMap, peer: guard::Client, body: Bytes) -> Response {
    let given = match object(&body, &["token"]).map(|mut body| body.remove("token")) {
        Ok(Some(Value::String(token))) => token,
        Ok(_) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "token is missing, as text").into_response(),
        Err(unusable) => return Problem::from(unusable).into_response(),
    };
    let live = panel.control.live.load_full();
    let Some(token) = &live.config.admin.token else {
        // Nobody asks for a token here: whoever got this far is in.
        return answer(None);
    };
    if let Some(refusal) = guard::refuse_token(&panel, peer, "/api/login", &given, &token.0) {
        return refusal;
    }
    let value = cookie_value(&panel.control.shared.session_key(), &token.0, unix_seconds());
    answer(Some(set_cookie(&value, COOKIE_LIFE, &headers)))
}

#[utoipa::path(post, path = "/api/logout", tag = "session", responses((status = 204, description = "The cookie is taken away")))]
async fn logout(headers: HeaderMap) -> Response {
    answer(Some(set_cookie("", Duration::ZERO, &headers)))
}

fn answer(cookie: Option<HeaderValue>) -> Response {
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn set_cookie(value: &str, life: Duration, headers: &HeaderMap) -> HeaderValue {
    // Where a proxy in front speaks https the browser must not send it in the clear.
    let is_https = headers.get(http::header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_https { "; Secure" } else { "" };
    let life = life.as_secs();
    let name = cookie_name(headers);
    let cookie = format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&cookie).expect("base64 is a header value")
}

/// The cookie that a request carries, if it carries one of ours.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let ours = cookie_name(headers);
    pairs.find(|(name, _)| *name == ours).map(|(_, value)| value)
}

/// `flagstone_admin_9900` where a request says `Host: localhost:9900`.
fn cookie_name(headers: &HeaderMap) -> Cow<'static, str> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.rsplit_once(':')?.1.parse::<u16>().ok());
    port.map_or(COOKIE_NAME.into(), |port| format!("{COOKIE_NAME}_{port}").into())
}

/// Whether a cookie stands for this token now; takes as long for every wrong one.
pub(super) fn stands_for(cookie: &str, key: &hmac::Key, token: &str) -> bool {
    stands_at(cookie, key, token, unix_seconds())
}

fn stands_at(cookie: &str, key: &hmac::Key, token: &str, now: u64) -> bool {
    let (expires, mac) = cookie.split_once('.').unwrap_or_default();
    let in_time = expires.parse::<u64>().is_ok_and(|expires| now < expires);
    let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).unwrap_or_default();
    in_time && hmac::verify(key, &signed(expires, token), &mac).is_ok()
}

fn cookie_value(key: &hmac::Key, token: &str, now: u64) -> String {
    let expires = (now + COOKIE_LIFE.as_secs()).to_string();
    let mac = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(key, &signed(&expires, token)));
    format!("{expires}.{mac}")
}

fn signed(expires: &str, token: &str) -> Vec<u8> {
    format!("{expires}\n{token}").into_bytes()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    #[test]
    fn a_cookie_stands_for_one_token_under_one_key() {
        let value = cookie_value(&key(1), "s3cret", 1000);
        assert!(stands_at(&value, &key(1), "s3cret", 1000));
        assert!(!value.contains("s3cret"));
        for wrong in ["", ".", "s3cret", "9999999.", &value[1..], &cookie_value(&key(1), "other", 1000)] {
            assert!(!stands_at(wrong, &key(1), "s3cret", 1000), "{wrong}");
        }
        assert!(!stands_at(&value, &key(2), "s3cret", 1000));
    }

    #[test]
    fn a_cookie_ends_after_a_month() {
        let value = cookie_value(&key(1), "s3cret", 1000);
        let end = 1000 + COOKIE_LIFE.as_secs();
        assert!(stands_at(&value, &key(1), "s3cret", end - 1));
        assert!(!stands_at(&value, &key(1), "s3cret", end));
        let later = value.replacen(&end.to_string(), &(end + 1).to_string(), 1);
        assert!(!stands_at(&later, &key(1), "s3cret", 1000), "signed for another time");
    }

    #[test]
    fn it_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; flagstone_admin=x.y; xflagstone_admin=z"));
        assert_eq!(cookie(&headers), Some("x.y"));
    }

    #[test]
    fn it_is_that_of_one_port() {
        let both = HeaderValue::from_static("flagstone_admin_9900=a; flagstone_admin_9901=b; flagstone_admin=c");
        let found = |host: &'static str| {
            let headers = HeaderMap::from_iter([(COOKIE, both.clone()), (HOST, HeaderValue::from_static(host))]);
            cookie(&headers).map(str::to_owned)
        };
        let expected = [("localhost:9900", "a"), ("[::1]:9901", "b"), ("[::1]", "c"), ("ops.example", "c")];
        for (host, value) in expected {
            assert_eq!(found(host).as_deref(), Some(value), "{host}");
        }
        assert_eq!(found("localhost:9902"), None);
    }

    #[test]
    fn it_is_kept_from_scripts_and_other_sites() {
        let mut headers = HeaderMap::new();
        let text = |headers: &HeaderMap| set_cookie("v", Duration::from_secs(1), headers).to_str().unwrap().to_owned();
        assert_eq!(text(&headers), "flagstone_admin=v; Path=/; Max-Age=1; HttpOnly; SameSite=Strict");
        headers.insert(http::header::ORIGIN, HeaderValue::from_static("https://ops.example"));
        assert!(text(&headers).ends_with("; Secure"));
    }
}
