//! Sending a request upstream: breaker, exchange, and what the client gets of it.
//!
//! | file | what it is |
//! |---|---|
//! | `outbound` | the request as its endpoint gets it, and what is kept of it |
//! | `exchange` | one request on its way, over as many endpoints and connections as it takes |
//! | `failure` | what can go wrong |

mod exchange;
mod failure;
mod outbound;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::UPGRADE;
use http::{Request, Response, StatusCode, Version};

use self::exchange::Exchange;
use self::failure::Failure;
use self::outbound::Outbound;
pub use self::outbound::target;
use super::body::{Body, Delivery};
use super::context::Context;
use super::decide;
use super::refusal::Refusal;
use super::respond::OwnCookie;
use crate::breaker::{Cause, Outcome, Permit};
use crate::listener::incoming;
use crate::message::hop_by_hop;
use crate::snapshot::{Route, Target};
use crate::upstream::group::Group;
use crate::upstream::lease::Lease;

/// Forwards a request; `answer` is the answer's head with its body still flowing. The request's body is taken out of it
/// only once the breaker lets it through.
///
/// # Errors
/// No endpoint answered; the refusal says why.
///
/// # Cancel safety
/// Dropped when the client leaves: the exchange is cut or taken out of its queue, the breaker's permit and the
/// in-flight counts go with it.
pub(super) async fn send(
    request: &mut Request<Option<incoming::Incoming>>,
    answer: &mut Option<Response<Body>>,
    target: &Target,
    route: &Route,
    context: &mut Context,
) -> Result<(), Refusal> {
    let (group, permit) = match decide::upstream(target, |group| ask(group, context.admitted)) {
        Ok(admitted) => admitted,
        Err(retry_after) => {
            context.decided_by = Some(Arc::clone(&target.group.name));
            return Err(Refusal::CircuitOpen { retry_after });
        }
    };
    context.upstream = Some(Arc::clone(&group.name));
    // Asked before the request is rewritten for its endpoint.
    let home = group.affinity.as_ref().and_then(|affinity| affinity.home(request.headers()));
    let came_by_https = group.affinity.is_some() && context.asked(request).came_by_https(&context.snapshot);
    let (parts, body) = std::mem::take(request).into_parts();
    let body = body.expect("nobody else takes the body");
    let outbound = Outbound::new(parts, body, route, &group.settings, context)?;
    let mut exchange = Exchange::new(group, route, context, outbound, home);
    let result = exchange.run().await;
    let fault = exchange.client_fault();
    // What the client did is no verdict: the permit is dropped.
    if let Some(permit) = permit.filter(|_| result.is_ok() || fault.is_none()) {
        settle(permit, &result, group);
    }
    match result {
        Ok(answered) => {
            let new_home = exchange.new_home(&answered, came_by_https);
            let delivery = exchange.take_delivery();
            let response = answer.insert(downstream(answered, delivery, route, context)?);
            if let Some(cookie) = new_home {
                response.extensions_mut().insert(OwnCookie(cookie));
            }
            Ok(())
        }
        Err(failure) => Err(fault.map_or_else(|| failure.refusal(context), Refusal::of_fault)),
    }
}

/// Asks the breaker; an error is how long it goes on to say no.
fn ask(group: &Group, now: Instant) -> Result<Option<Permit<'_>>, Duration> {
    let Some(breaker) = &group.breaker else { return Ok(None) };
    match breaker.try_acquire(now) {
        Ok(permit) => {
            if permit.would_reject().is_some() {
                group.metrics.rejected();
            }
            Ok(Some(permit))
        }
        Err(rejected) => {
            group.metrics.rejected();
            Err(rejected.retry_after)
        }
    }
}

/// Tells the breaker what the upstream did.
fn settle(permit: Permit<'_>, result: &Result<Answered, Failure>, group: &Group) {
    let breaker = &group.settings.breaker;
    match result {
        Ok(answered) if answered.is_own_failure => {}
        Ok(answered) => {
            let outcome = match answered.status {
                status if breaker.count.statuses.contains(status) => Outcome::Failure(Cause::Status(status.as_u16())),
                StatusCode::TOO_MANY_REQUESTS => Outcome::TooManyRequests,
                _ => Outcome::Success { latency: answered.latency },
            };
            let is_slow = breaker.slow_call.is_some_and(|limit| answered.latency > limit);
            if !(is_slow && group.was_paused(answered.began, answered.at())) {
                permit.record(outcome, answered.at());
            }
        }
        Err(failure) => {
            let now = Instant::now();
            let is_spoilt = failure.is_timeout() && group.was_paused(failure.began, now);
            if failure.counts(&breaker.count)
                && !failure.is_own
                && !is_spoilt
                && !failure.is_waited_out(&group.settings)
            {
                permit.record(Outcome::Failure(Cause::NoAnswer(failure.kind.word())), now);
            }
        }
    }
}

/// The connection that an answer comes on; its head is there.
struct Answered {
    status: StatusCode,
    lease: Lease,
    /// When the request was sent.
    began: Instant,
    /// From there to the head.
    elapsed: Duration,
    /// From the last of the request's body that the endpoint took to the head.
    latency: Duration,
    /// It says that the endpoint failed, which is not held against the upstream as a whole.
    is_own_failure: bool,
}

impl Answered {
    /// When the head was there.
    fn at(&self) -> Instant {
        self.began + self.elapsed
    }
}

/// Makes the upstream's answer the client's.
fn downstream(
    answered: Answered,
    delivery: Option<Arc<Delivery>>,
    route: &Route,
    context: &mut Context,
) -> Result<Response<Body>, Refusal> {
    let now = answered.at();
    let Answered { mut lease, .. } = answered;
    let mut response = lease.take_answer().ok_or(Refusal::UpstreamError)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(response, lease, route, context);
    }
    hop_by_hop::strip_response(response.headers_mut());
    response.extensions_mut().clear();
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|()| Body::answer(lease, delivery, route.timeouts.response_body, now)))
}

/// Both sides agreed to speak something else: what follows is a tunnel.
fn switch(
    response: Response<()>,
    lease: Lease,
    route: &Route,
    context: &mut Context,
) -> Result<Response<Body>, Refusal> {
    let upgraded = lease.into_upgraded().ok_or(Refusal::UpstreamError)?;
    let mut answer = response.map(|()| Body::empty());
    let protocol = answer.headers().get(UPGRADE).cloned();
    hop_by_hop::strip_response(answer.headers_mut());
    if let Some(protocol) = protocol {
        hop_by_hop::set_upgrade(answer.headers_mut(), protocol);
    }
    if let Some(connect) = &context.connect {
        answer = connect.open(answer);
    }
    context.tunnel = Some((upgraded, route.timeouts.stream_idle));
    Ok(answer)
}
