//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(ToSchema)]
pub(in crate::admin) struct Maintenance {
    is_active: bool,
    #[schema(required)]
    mode: Option<String>,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required, format = DateTime)]
    started_at: Option<String>,
    #[schema(required, format = DateTime)]
    estimated_completion: Option<String>,
    /// It should have ended.
    overdue: bool,
    routes: Vec<String>,
    blocked_requests: u64,
    in_flight: i64,
    #[schema(required)]
    by: Option<String>,
    upcoming: Vec<Upcoming>,
    /// Each flag file that is there, the global one first.
    flags: Vec<ActiveFlag>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct ActiveFlag {
    /// Whose flag it is; `null` = the global one.
    #[schema(required)]
    route: Option<String>,
    mode: String,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    message: Option<String>,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(required, format = DateTime)]
    estimated_completion: Option<String>,
    /// It should have ended.
    overdue: bool,
    /// It ends by itself when the end has come.
    auto_end: bool,
    /// What is in flight is cut after `grace`.
    terminate: bool,
    /// Seconds; `null` = none.
    #[schema(required)]
    grace: Option<f64>,
    /// Those that the global one is bound to; empty = all.
    routes: Vec<String>,
    /// Of those it is for, by its file's name or in `routes`, those that there are not: it covers nothing by them.
    unknown_routes: Vec<String>,
    /// Those that it is bound to; empty = all.
    hosts: Vec<String>,
    /// Those that it is bound to; empty = all.
    paths: Vec<String>,
    /// Clients that see the app.
    allow: Vec<String>,
    #[schema(required)]
    by: Option<String>,
}

#[derive(ToSchema)]
pub(in crate::admin) struct Upcoming {
    name: String,
    #[schema(format = DateTime)]
    start: String,
    #[schema(format = DateTime)]
    end: String,
    reason: String,
}

/// The keys of a flag file; all of them optional.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Flag {
    reason: Option<String>,
    message: Option<String>,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    until: Option<String>,
    mode: Option<FlagMode>,
    routes: Option<OneOrMany>,
    hosts: Option<OneOrMany>,
    paths: Option<OneOrMany>,
    allow: Option<OneOrMany>,
    grace: Option<Grace>,
    terminate: Option<bool>,
    auto_end: Option<bool>,
    /// Ignored: it is the API.
    by: Option<String>,
}

/// `30s`, or seconds.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::admin) enum Grace {
    Text(String),
    Seconds(u64),
}

/// One entry may stand for itself.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::admin) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::admin) enum FlagMode {
    Full,
    ReadOnly,
    Emergency,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Emergency {
    reason: Option<String>,
    /// After the grace period, what is in flight is cut.
    terminate_jobs: Option<bool>,
    /// Seconds.
    #[schema(minimum = 0, maximum = 315_360_000)]
    grace_period: Option<f64>,
}
