//! Sticky sessions (`affinity = "cookie:NAME"`): a cookie that names the endpoint a client began with, its *home*.
//!
//! Its value is a message authentication code over the upstream's name and the endpoint's label, so it tells nobody an
//! address, nobody can make one for an endpoint of their choice, and it stays good over restarts and reloads for as
//! long as the endpoint keeps its label and the state folder its key. There is nothing to remember here, and nothing to
//! expire.

use std::fmt;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue};

use crate::message::cookie;
use crate::secret::Secret;

/// Half a MAC: 2¹²⁸ are enough to name an endpoint.
const TOKEN_BYTES: usize = 16;

/// Names one endpoint of one upstream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(u128);

/// What one upstream gives out and takes back.
pub(crate) struct Affinity {
    cookie: String,
    upstream: String,
    key: hmac::Key,
}

impl Affinity {
    pub(super) fn new(cookie: &str, upstream: &str, secret: &Secret) -> Self {
        Self { cookie: cookie.to_owned(), upstream: upstream.to_owned(), key: secret.key_for("affinity cookie") }
    }

    /// The name of the endpoint with this label.
    pub(super) fn token(&self, label: &str) -> Token {
        // The name of an upstream has no line feed.
        let mac = hmac::sign(&self.key, format!("{}\n{label}", self.upstream).as_bytes());
        let half = mac.as_ref()[..TOKEN_BYTES].try_into().expect("a MAC of 32 bytes has 16");
        Token(u128::from_be_bytes(half))
    }

    /// What a request's cookie says. Whether there is such an endpoint is another question.
    pub(crate) fn home(&self, headers: &HeaderMap) -> Option<Token> {
        cookie::values(headers, &self.cookie).find_map(Token::parse)
    }

    /// The `Set-Cookie` that makes `token` a client's home for its session.
    pub(crate) fn set_cookie(&self, token: Token, is_https: bool) -> HeaderValue {
        let secure = if is_https { "; Secure" } else { "" };
        let text = format!("{}={token}; Path=/; HttpOnly; SameSite=Lax{secure}", self.cookie);
        HeaderValue::try_from(text).expect("a cookie's name and hexadecimal digits are a header value")
    }
}

impl Token {
    fn parse(value: &[u8]) -> Option<Self> {
        let is_hex = value.len() == 2 * TOKEN_BYTES && value.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(value).ok().filter(|_| is_hex)?;
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Whoever has it can pin a session: not for logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Affinity").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    #[test]
    fn a_cookie_leads_back_to_its_endpoint() {
        let affinity = Affinity::new("sticky", "app", &Secret::random());
        let token = affinity.token("10.0.0.1:3000");
        for (is_https, end) in
            [(false, "; Path=/; HttpOnly; SameSite=Lax"), (true, "; Path=/; HttpOnly; SameSite=Lax; Secure")]
        {
            let set = affinity.set_cookie(token, is_https);
            let set = set.to_str().unwrap();
            let (pair, attributes) = set.split_at(set.find(';').unwrap());
            assert_eq!(attributes, end);
            assert_eq!(affinity.home(&with(&format!("a=b; {pair}; c=d"))), Some(token));
        }
    }

    #[test]
    fn a_token_is_worth_something_for_its_endpoint_upstream_and_key_only() {
        let secret = Secret::random();
        let token = Affinity::new("sticky", "app", &secret).token("a:1");
        assert_eq!(Affinity::new("other", "app", &secret).token("a:1"), token);
        assert_ne!(Affinity::new("sticky", "app", &secret).token("b:1"), token);
        assert_ne!(Affinity::new("sticky", "api", &secret).token("a:1"), token);
        assert_ne!(Affinity::new("sticky", "app", &Secret::random()).token("a:1"), token);
    }

    #[test]
    fn what_is_no_token_is_no_home() {
        let affinity = Affinity::new("sticky", "app", &Secret::random());
        let token = affinity.token("a:1").to_string();
        for value in ["", "x", &token[1..], &format!("{token}0"), &format!("+{}", &token[1..]), &"ü".repeat(16)] {
            let headers = HeaderMap::from_iter([(
                COOKIE,
                HeaderValue::from_bytes(format!("sticky={value}").as_bytes()).unwrap(),
            )]);
            assert_eq!(affinity.home(&headers), None, "{value}");
        }
        // An older cookie of the same name, from another path or domain, does not hide it.
        assert!(affinity.home(&with(&format!("sticky=old; sticky={token}"))).is_some());
    }
}
