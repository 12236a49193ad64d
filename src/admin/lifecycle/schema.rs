//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use utoipa::ToSchema;

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Draining {
    pid: u32,
    delay_seconds: f64,
    grace_seconds: f64,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Upgraded {
    pid: u32,
    version: String,
    previous_pid: u32,
}
