//! Small bodies for every refusal but maintenance.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::{Kind, content_type};

/// What a refusal says.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub status: StatusCode,
    /// As in `Flagstone-Reason`: `no_route`, `rate_limited` …
    pub reason: &'a str,
    /// A sentence for who asked.
    pub detail: &'a str,
    /// For people to name when they ask for help; empty = none.
    pub request_id: &'a str,
}

/// The body of a refusal, in English. Nothing in it comes back unescaped.
pub fn refusal_page(kind: Kind, refusal: &Refusal<'_>) -> (HeaderValue, Bytes) {
    let title = refusal.status.canonical_reason().unwrap_or("Refused");
    let body = match kind {
        Kind::Html => html(refusal, title),
        Kind::Json => json!({
            "type": "about:blank",
            "title": title,
            "status": refusal.status.as_u16(),
            "detail": refusal.detail,
            "reason": refusal.reason,
        })
        .to_string(),
        Kind::Text => format!("{title}\n{}\n", refusal.detail),
        Kind::Grpc => String::new(),
    };
    (content_type(kind), Bytes::from(body))
}

fn html(refusal: &Refusal<'_>, title: &str) -> String {
    let mut page = String::with_capacity(HEAD.len() + 256);
    page.push_str(HEAD);
    page.push_str(title);
    page.push_str(STYLE);
    let _ = write!(page, "{}</p><h1>", refusal.status.as_u16());
    page.push_str(title);
    page.push_str("</h1><p dir=\"auto\">");
    escape_into(&mut page, refusal.detail);
    page.push_str("</p>");
    if !refusal.request_id.is_empty() {
        page.push_str("<p><small>Request ID: ");
        escape_into(&mut page, refusal.request_id);
        page.push_str("</small></p>");
    }
    page.push_str("</main></body></html>\n");
    page
}

fn escape_into(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"robots\" content=\"noindex\"><title>";

/// The maintenance page's colours and measures.
const STYLE: &str = "</title><style>\
:root{--ground:#f5f4f1;--ink:#1f1e1b;--quiet:#605c54;color-scheme:light dark}\
@media(prefers-color-scheme:dark){:root{--ground:#151614;--ink:#eeece6;--quiet:#a5a198}}\
*{box-sizing:border-box;margin:0}\
body{min-block-size:100vh;display:grid;align-items:center;justify-items:center;padding:2rem 1.5rem;\
background:var(--ground);color:var(--ink);overflow-wrap:anywhere;\
font:1.0625rem/1.6 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Helvetica Neue\",\"Noto Sans\",sans-serif}\
main{inline-size:100%;max-inline-size:33rem}\
h1{margin-block:.25rem .75rem;font-size:clamp(1.75rem,1.3rem + 2vw,2.25rem);line-height:1.15;font-weight:650;letter-spacing:-.022em}\
p{color:var(--quiet)}p:has(small){margin-block-start:1.5rem}</style></head><body><main><p>";
