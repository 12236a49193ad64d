//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub(in crate::admin) struct BlockList {
    entries: Vec<BlockedNetwork>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct BlockedNetwork {
    cidr: String,
    /// `null` = for good.
    #[schema(required, format = DateTime)]
    until: Option<String>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Unblocked {
    cidr: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::admin) struct Block {
    /// An address or a network.
    #[schema(example = "192.0.2.0/24")]
    cidr: String,
    /// For good unless given.
    #[schema(minimum = 1, maximum = 315_360_000)]
    ttl_seconds: Option<u64>,
}
