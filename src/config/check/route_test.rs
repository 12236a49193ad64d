//! `[[test]]`.

use http::{Method, StatusCode, Uri};

use super::super::document::Path;
use super::super::model::{Expect, RouteTest};
use super::super::raw;
use super::Check;

impl Check<'_> {
    pub(super) fn tests(&mut self, raw: &[raw::Test], at: &Path) -> Vec<RouteTest> {
        let each = raw.iter().enumerate();
        each.map(|(index, test)| self.test(test, &at.index(index))).collect()
    }

    fn test(&mut self, raw: &raw::Test, at: &Path) -> RouteTest {
        if raw.name.is_empty() {
            self.missing(&at.key("name"), "say what the test says");
        }
        if raw.expect == raw::Expect::default() {
            let help = "say which route, upstream, status or limits";
            self.warn(&at.key("expect"), "is empty, so the test passes whatever happens", help);
        }
        let request = at.key("request");
        let is_whole = |url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
        };
        let url = raw.request.url.parse::<Uri>().ok().filter(is_whole);
        if raw.request.url.is_empty() {
            self.missing(&request.key("url"), "write a whole URL, such as \"https://example.com/api\"");
        } else if url.is_none() {
            self.refuse(
                &request.key("url"),
                &raw.request.url,
                "not a whole URL",
                "write one such as \"https://example.com/api\"",
            );
        }
        let ip = raw.request.ip.parse().unwrap_or_else(|_| {
            self.refuse(&request.key("ip"), &raw.request.ip, "not an address", "write one such as \"203.0.113.9\"");
            std::net::Ipv4Addr::LOCALHOST.into()
        });
        let mut headers = Vec::new();
        for (name, value) in &raw.request.headers {
            let at = request.key("headers").key(name);
            headers.extend(self.header_name(name, &at).zip(self.header_value(value, &at)));
        }
        RouteTest {
            name: raw.name.clone(),
            method: self.method(&raw.request.method, &request.key("method")).unwrap_or(Method::GET),
            url: url.unwrap_or_default(),
            ip,
            headers,
            expect: self.expect(&raw.expect, &at.key("expect")),
        }
    }

    fn expect(&mut self, raw: &raw::Expect, at: &Path) -> Expect {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let status: Option<StatusCode> = (raw.status > 0).then(|| self.status(raw.status, &at.key("status")));
        Expect { route: given(&raw.route), upstream: given(&raw.upstream), status, limits: raw.limits.clone() }
    }
}
