//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub(in crate::admin) struct Limits {
    limits: BTreeMap<String, Limit>,
    /// Overrides of limits that the configuration does not have.
    strays: BTreeMap<String, Override>,
}

/// The limit, or that there is none.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in crate::admin) enum Cleared {
    Limit(Box<Limit>),
    Stray(ClearedStray),
}

#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ClearedStray {
    #[schema(required)]
    r#override: Option<Override>,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Limit {
    /// In force, as `10/1m`.
    rate: String,
    burst: u32,
    configured: Rate,
    #[schema(required)]
    r#override: Option<Override>,
    shadow: bool,
    store: String,
    #[schema(required)]
    store_reachable: Option<bool>,
    keys: u64,
    allowed: u64,
    limited: u64,
    shadowed: u64,
    queued: u64,
    in_flight: u64,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Rate {
    rate: String,
    burst: u32,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Override {
    rate: String,
    burst: u32,
    #[schema(required, format = DateTime)]
    until: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::admin) struct LimitChange {
    // A test compares it with that of the configuration: the macro takes no constant.
    #[schema(pattern = r"^[0-9]+/([0-9]+(d|h|m|s|ms|us))+$", example = "10/1m")]
    rate: String,
    /// How many may come at once; the rate's count unless given.
    #[schema(minimum = 1, maximum = 4_294_967_295_u64)]
    burst: Option<u64>,
    /// Until cleared unless given.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u64>,
}
