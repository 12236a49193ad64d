//! What the bodies of several calls have in common.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::view::Unusable;
use crate::config::{duration, second};

/// The moment that `ttlSeconds` means; `None` without it.
pub(super) fn end(body: &Map<String, Value>, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let wrong = "ttlSeconds is a whole number from 1 to 315360000";
    match body.get("ttlSeconds") {
        None | Some(Value::Null) => Ok(None),
        Some(seconds) => {
            let seconds =
                seconds.as_u64().filter(|seconds| (1..=duration::MAX.as_secs()).contains(seconds)).ok_or(wrong)?;
            let end = second::ceil(now).checked_add(Duration::from_secs(seconds));
            end.map(Some).map_err(|_| wrong.to_owned())
        }
    }
}

/// A body that is a JSON object with none but these keys.
pub(super) fn object(body: &[u8], keys: &[&str]) -> Result<Map<String, Value>, Unusable> {
    let object: Map<_, _> = serde_json::from_slice(body)
        .map_err(|error| Unusable::Form(format!("the body is not the JSON object that this call takes: {error}")))?;
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => Err(format!("{unknown:?} is no key of this call: it takes {}", keys.join(", ")).into()),
        None => Ok(object),
    }
}
