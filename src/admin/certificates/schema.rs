//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use utoipa::ToSchema;

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct Certificate {
    domain: String,
    names: Vec<String>,
    issuer: String,
    #[schema(format = DateTime)]
    not_after: String,
    days_left: i64,
    status: String,
}
