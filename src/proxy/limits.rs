//! Asking a route's limits, and telling the client what they said.

use std::sync::Arc;

use smallvec::SmallVec;

use super::context::Context;
use super::refusal::Refusal;
use crate::policy::limit::{Decision, check_all, headers};
use crate::snapshot::{Limit, Route};

/// The limits that a request is charged with.
type Asked<'a> = SmallVec<[&'a Arc<Limit>; 4]>;

/// Charges every limit of the route, or none when one refuses.
///
/// # Errors
/// The client is over a limit that is not in shadow.
pub(super) fn admit(route: &Route, context: &mut Context) -> Result<(), Refusal> {
    if route.limits.is_empty() {
        return Ok(());
    }
    let now = context.snapshot.shared.nanos();
    let ip = context.client_ip;
    let applies = |limit: &&Arc<Limit>| !limit.exempt.contains(ip);
    let (shadow, enforced): (Asked<'_>, Asked<'_>) =
        route.limits.iter().filter(applies).partition(|limit| limit.settings.shadow);
    for limit in shadow {
        // Decided and counted on its own: it must not keep the others from being charged.
        match limit.limiter.check(limit.limiter.key_ip(ip), now).allowed {
            true => limit.metrics.allowed(),
            false => limit.metrics.limited(false),
        }
    }
    let verdict = check_all(enforced.iter().map(|limit| (&*limit.limiter, limit.limiter.key_ip(ip))), now);
    let decisions = || enforced.iter().zip(&verdict.decisions);
    context.rate_limit = headers::rate_limit(decisions().map(|(limit, decision)| (&limit.policy, decision)));
    if verdict.allowed {
        enforced.iter().for_each(|limit| limit.metrics.allowed());
        return Ok(());
    }
    let longest = decisions().filter(|(_, decision)| !decision.allowed).max_by_key(|(_, decision)| decision.wait);
    let (limit, decision): (_, &Decision) = longest.expect("a verdict that refuses has a decision that does");
    limit.metrics.limited(true);
    context.snapshot.shared.rate_limited(route.sample_place, &route.name, &limit.name);
    Err(Refusal::RateLimited { status: limit.settings.status, retry_after: decision.wait })
}
