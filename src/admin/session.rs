//! Logging in from a browser: the token once, and from then on a cookie that stands for it.
//!
//! The cookie is an HMAC of a fixed text under the token: it can be checked without being kept, outlives restarts, ends
//! with the token, and does not give the token away. `HttpOnly` keeps it from scripts, `SameSite=Strict` from other
//! sites.

pub(super) mod schema;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::calls::calls;
use super::guard;
use super::limits::object;
use super::routes::Panel;
use super::view::problem;

pub(super) const COOKIE_NAME: &str = "flagstone_admin";
const SIGNED: &[u8] = b"flagstone admin session 1";
/// A month, in seconds.
const COOKIE_LIFE: u32 = 30 * 24 * 60 * 60;

pub(super) fn router() -> Router<Panel> {
    calls()
}

calls!(login, logout);

#[utoipa::path(post, path = "/api/login", tag = "session", request_body = schema::Login, responses((status = 204, description = "A cookie stands for the token from now on"), (status = 422, description = "A value cannot be used", body = super::schema::Problem, content_type = "application/problem+json")))]
async fn login(State(panel): State<Panel>, headers: HeaderMap, peer: guard::Client, body: Bytes) -> Response {
    let given = match object(&body, &["token"]).map(|mut body| body.remove("token")) {
        Ok(Some(Value::String(token))) => token,
        Ok(_) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "token is missing, as text").into_response(),
        Err(unusable) => return unusable.into_response(),
    };
    let live = panel.control.live.load_full();
    let Some(token) = &live.config.admin.token else {
        // Nobody asks for a token here: whoever got this far is in.
        return answer(None);
    };
    if let Some(refusal) = guard::refuse_token(&panel, peer, "/api/login", &given, &token.0) {
        return refusal;
    }
    answer(Some(set_cookie(&cookie_value(&token.0), COOKIE_LIFE, &headers)))
}

#[utoipa::path(post, path = "/api/logout", tag = "session", responses((status = 204, description = "The cookie is taken away")))]
async fn logout(headers: HeaderMap) -> Response {
    answer(Some(set_cookie("", 0, &headers)))
}

fn answer(cookie: Option<HeaderValue>) -> Response {
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn set_cookie(value: &str, life: u32, headers: &HeaderMap) -> HeaderValue {
    // Where a proxy in front speaks https the browser must not send it in the clear.
    let is_https = headers.get(http::header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&cookie).expect("base64 is a header value")
}

/// The cookie that a request carries, if it carries one of ours.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// Whether a cookie stands for this token; takes as long for every wrong one.
pub(super) fn stands_for(cookie: &str, token: &str) -> bool {
    let mac = BASE64_URL_SAFE_NO_PAD.decode(cookie).unwrap_or_default();
    hmac::verify(&key(token), SIGNED, &mac).is_ok()
}

fn cookie_value(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key(token), SIGNED))
}

fn key(token: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_stands_for_one_token() {
        let value = cookie_value("s3cret");
        assert!(stands_for(&value, "s3cret"));
        assert!(!value.contains("s3cret"));
        for wrong in ["", "s3cret", &value[1..], &cookie_value("other")] {
            assert!(!stands_for(wrong, "s3cret"), "{wrong}");
        }
    }

    #[test]
    fn it_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.insert(COOKIE, HeaderValue::from_static("a=b; flagstone_admin=x.y; xflagstone_admin=z"));
        assert_eq!(cookie(&headers), Some("x.y"));
    }

    #[test]
    fn it_is_kept_from_scripts_and_other_sites() {
        let mut headers = HeaderMap::new();
        let text = |headers: &HeaderMap| set_cookie("v", 1, headers).to_str().unwrap().to_owned();
        assert_eq!(text(&headers), "flagstone_admin=v; Path=/; Max-Age=1; HttpOnly; SameSite=Strict");
        headers.insert(http::header::ORIGIN, HeaderValue::from_static("https://ops.example"));
        assert!(text(&headers).ends_with("; Secure"));
    }
}
