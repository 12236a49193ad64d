//! The configuration as it may be shown: every key, secrets as `***`.

use serde_json::Value;

use super::query::{REDACTED, redacted};
use super::raw;

const MASK: &str = "***";

/// Parts of header names whose values are credentials.
const SECRET_HEADERS: [&str; 11] =
    ["auth", "bypass", "cookie", "credential", "key", "pass", "pwd", "secret", "session", "signature", "token"];

/// Everything in the file and every default. Secrets that are not set stay empty, so that one can see it.
pub(super) fn masked(raw: &raw::File) -> Value {
    let mut value = serde_json::to_value(raw).unwrap_or(Value::Null);
    for pointer in ["/admin/token", "/redis/url", "/maintenance/bypass_token"] {
        mask(value.pointer_mut(pointer));
    }
    for notify in elements(&mut value, "notify") {
        mask(notify.get_mut("url"));
    }
    mask_query(value.pointer_mut("/trace/otlp"));
    mask_user(value.pointer_mut("/trace/otlp"));
    for probe in elements(&mut value, "probe") {
        mask(probe.get_mut("redis"));
        mask_query(probe.get_mut("http"));
        mask_user(probe.get_mut("http"));
    }
    for route in elements(&mut value, "route") {
        for pointer in
            ["/request_headers/set", "/request_headers/add", "/response_headers/set", "/response_headers/add"]
        {
            mask_headers(route.pointer_mut(pointer));
        }
        mask_user(route.pointer_mut("/redirect/to"));
        redact_query(route.pointer_mut("/redirect/to"));
    }
    for upstream in elements(&mut value, "upstream") {
        redact_query(upstream.pointer_mut("/health/path"));
    }
    for test in elements(&mut value, "test") {
        mask_headers(test.pointer_mut("/request/headers"));
        mask_user(test.pointer_mut("/request/url"));
        redact_query(test.pointer_mut("/request/url"));
    }
    value
}

/// Whether anything was taken out of a text.
pub(super) fn is_masked(text: &str) -> bool {
    text.contains(MASK) || text.contains(REDACTED)
}

fn mask(secret: Option<&mut Value>) {
    if let Some(Value::String(text)) = secret
        && !text.is_empty()
    {
        MASK.clone_into(text);
    }
}

fn mask_user(url: Option<&mut Value>) {
    if let Some(Value::String(text)) = url
        && let Some(masked) = without_user(text)
    {
        *text = masked;
    }
}

/// `https://user:password@host/path` keeps what comes behind the user. `None` where there is none.
pub fn without_user(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let at = rest[..end].rfind('@')?;
    Some(format!("{scheme}://{MASK}{}", &rest[at..]))
}

/// A query may be a key. To be taken out first: it may have an `@`.
fn mask_query(url: Option<&mut Value>) {
    if let Some(Value::String(text)) = url
        && let Some((before, _)) = text.split_once('?')
    {
        *text = format!("{before}?{MASK}");
    }
}

/// Of a query that says something else too, only what sounds like a secret.
fn redact_query(url: Option<&mut Value>) {
    if let Some(Value::String(text)) = url
        && let Some((before, query)) = text.split_once('?')
    {
        *text = format!("{before}?{}", redacted(query));
    }
}

fn mask_headers(headers: Option<&mut Value>) {
    for (name, value) in headers.and_then(Value::as_object_mut).into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        if SECRET_HEADERS.iter().any(|part| name.contains(part)) {
            mask(Some(value));
        } else {
            mask_user(Some(value));
        }
    }
}

/// The tables of a list or of a map of names.
fn elements<'a>(value: &'a mut Value, key: &str) -> Vec<&'a mut Value> {
    match value.get_mut(key) {
        Some(Value::Array(list)) => list.iter_mut().collect(),
        Some(Value::Object(map)) => map.values_mut().collect(),
        _ => Vec::new(),
    }
}
