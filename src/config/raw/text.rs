//! Durations, sizes and rates as they stand in the file: unread text with a pattern in the schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::{duration, rate, size};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in super::super) struct Duration(pub(in super::super) String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in super::super) struct Rate(pub(in super::super) String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(in super::super) enum Size {
    Bytes(u64),
    Text(String),
}

impl From<&str> for Duration {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&str> for Size {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What a variable holds is seen when the file is read, not by an editor.
fn or_variable(pattern: &str) -> String {
    format!("{pattern}|\\$\\{{")
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a duration such as \"10s\"",
            "type": "string",
            "pattern": or_variable(duration::PATTERN),
            "examples": ["250ms", "10s", "1h30m"],
        })
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a rate such as \"100/1m\"",
            "type": "string",
            "pattern": or_variable(rate::PATTERN),
            "examples": ["100/1m"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "a size such as \"64KiB\"",
            "type": ["string", "integer"],
            "pattern": or_variable(size::PATTERN),
            "minimum": 0,
            "examples": ["64KiB", "10MiB", 65536],
        })
    }
}
