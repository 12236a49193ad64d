//! The configuration as it may be shown: every key, secrets as `***`.

use serde_json::Value;

use super::raw;

const MASK: &str = "***";

/// Parts of header names whose values are credentials.
const SECRET_HEADERS: [&str; 7] = ["auth", "cookie", "token", "secret", "key", "password", "signature"];

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
    }
    for test in elements(&mut value, "test") {
        mask_headers(test.pointer_mut("/request/headers"));
    }
    value
}

fn mask(secret: Option<&mut Value>) {
    if let Some(Value::String(text)) = secret
        && !text.is_empty()
    {
        MASK.clone_into(text);
    }
}

/// `https://user:password@host/path` keeps what comes behind the user.
fn mask_user(url: Option<&mut Value>) {
    let Some(Value::String(text)) = url else {
        return;
    };
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find('/').unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            *text = format!("{scheme}://{MASK}{}", &rest[at..]);
        }
    }
}

/// A query may be a key. To be taken out first: it may have an `@`.
fn mask_query(url: Option<&mut Value>) {
    if let Some(Value::String(text)) = url
        && let Some((before, _)) = text.split_once('?')
    {
        *text = format!("{before}?{MASK}");
    }
}

fn mask_headers(headers: Option<&mut Value>) {
    for (name, value) in headers.and_then(Value::as_object_mut).into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        if SECRET_HEADERS.iter().any(|part| name.contains(part)) {
            mask(Some(value));
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
