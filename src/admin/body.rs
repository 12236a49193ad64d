//! What the bodies of several calls have in common.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::view::Unusable;
use crate::config::{duration, second};

/// A body that is a JSON object with none but these keys.
pub(super) fn object(body: &[u8], keys: &[&str]) -> Result<Map<String, Value>, Unusable> {
    let object: Map<_, _> = serde_json::from_slice(body).map_err(no_object)?;
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{unknown:?} is no key of this call: it takes {}", keys.join(", ")).into()),
        None => Ok(object),
    }
}

/// A body that is a JSON object of any keys, or that there is not: then it is an empty one.
pub(super) fn any_object(body: &[u8]) -> Result<Map<String, Value>, Unusable> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice::<Option<_>>(body).map(Option::unwrap_or_default).map_err(no_object)
}

fn no_object(error: serde_json::Error) -> Unusable {
    Unusable::Form(format!("the body is not the JSON object that this call takes: {error}"))
}

/// The moment that `ttlSeconds` means; `None` without it.
pub(super) fn end(body: &Map<String, Value>, now: Timestamp) -> Result<Option<Timestamp>, Unusable> {
    let wrong = "ttlSeconds is a whole number from 1 to 315360000";
    match body.get("ttlSeconds") {
        None | Some(Value::Null) => Ok(None),
        Some(seconds) => {
            let seconds = seconds.as_u64().filter(|seconds| (1..=duration::MAX.as_secs()).contains(seconds));
            let lasts = Duration::from_secs(seconds.ok_or(wrong)?);
            Ok(Some(second::ceil(now).checked_add(lasts).map_err(|_| wrong)?))
        }
    }
}
