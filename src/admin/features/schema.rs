//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct FeatureFlags {
    feature_flags: BTreeMap<String, FeatureFlag>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct FeatureFlag {
    /// In force.
    value: bool,
    /// What the configuration says.
    default: bool,
}

#[derive(ToSchema)]
pub(in crate::admin) struct ChangedFeature {
    key: String,
    value: bool,
    default: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct FeatureChange {
    /// One of `[features]`.
    key: String,
    /// `null` puts the configuration's value back in force.
    #[schema(required)]
    value: Option<bool>,
}
