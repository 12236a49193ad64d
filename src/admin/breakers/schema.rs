//! What these calls take and answer; see `admin::schema`.
#![expect(dead_code, reason = "read by the derive macro only")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct CircuitBreakers {
    circuit_breakers: BTreeMap<String, CircuitBreaker>,
}

#[derive(ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::admin) enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct CircuitBreaker {
    state: BreakerState,
    /// In a row.
    failures: u64,
    /// It rejects nothing: `rejectedCalls` are those that it let through and would have rejected.
    shadow: Option<bool>,
    #[schema(format = DateTime)]
    next_attempt_time: Option<String>,
    statistics: BreakerStatistics,
}

/// `totalCalls` is the sum of the others.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(in crate::admin) struct BreakerStatistics {
    total_calls: u64,
    successful_calls: u64,
    failed_calls: u64,
    rejected_calls: u64,
}
