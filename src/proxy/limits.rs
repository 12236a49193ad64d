//! Asking a route's limits, and telling the client what they said.
//!
//! Most limits need no more than one look at a table; those that queue, bound what is in flight, watch only, or count
//! in a shared store take the longer way below: charge every limit or none, wait for the turn, take the places.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use smallvec::SmallVec;

use super::context::Context;
use super::decide::limit_facts;
use super::handle::turn_away;
use super::refusal::Refusal;
use super::waiting::unless_turned_away;
use crate::config::model::RedisOnError;
use crate::policy::limit::{Ask, Decision, Facts, Key, Nanos, Reservation, Shape, Slot, Verdict, check_all, headers};
use crate::shared::Shared;
use crate::shared_limit::RemoteKey;
use crate::snapshot::{Limit, Route};

/// A request that is early by less than this is asked again by a fresh clock. Another worker that read the clock after
/// us may have charged before us, and then the last request of a full burst is early by what lies between the two
/// readings; by a reading that follows the other's charge it is not.
const OVERTAKEN: Duration = Duration::from_millis(10);

/// A limit and the request's key there.
#[derive(Clone)]
struct Asked<'a> {
    limit: &'a Arc<Limit>,
    key: Key,
    /// Its name in the shared store, for a limit that counts there.
    remote: Option<RemoteKey>,
}

type AskedLimits<'a> = SmallVec<[Asked<'a>; 4]>;
type Decisions = SmallVec<[Decision; 4]>;

/// Charges every limit of the route, or none when one refuses; waits where requests queue, and notes when that was
/// over.
///
/// # Errors
/// The client is over a limit that is not in shadow, or may not go on any more though it waits.
///
/// # Cancel safety
/// Dropped while it waits, it gives back what it has charged.
pub(super) async fn admit(route: &Route, headers: &HeaderMap, context: &mut Context) -> Result<(), Refusal> {
    if route.limits.each.is_empty() {
        return Ok(());
    }
    let facts = limit_facts(route, context.path(), headers, context.client_ip);
    let keys = route.limits.keys(&facts);
    if route.limits.are_plain {
        return at_once(&keys, route, context);
    }
    // In a box of its own, so as not to make the future of every request larger.
    Box::pin(in_turn(asked(&keys, route, &facts), route, context)).await?;
    context.admitted = Instant::now();
    Ok(())
}

/// The short way: nothing waits, nothing but rates is asked.
fn at_once(keys: &[Key], route: &Route, context: &mut Context) -> Result<(), Refusal> {
    let limits = &route.limits;
    let check = |context: &Context, now| check_all(limits.met(context.client_ip, keys), now);
    let mut verdict = check(context, context.snapshot.shared.nanos_at(context.began));
    if verdict.wait().is_some_and(|wait| wait < OVERTAKEN) {
        verdict = check(context, context.snapshot.shared.nanos());
    }
    let (Verdict::Allowed(stands) | Verdict::Refused(stands)) = &verdict;
    let stands = stands.iter().map(|(index, decision)| (&*limits.each[*index], decision));
    tell(stands.clone(), context);
    if let Verdict::Refused(_) = verdict {
        return Err(refuse(stands, route, context));
    }
    limits.count_passed(context.client_ip);
    Ok(())
}

fn asked<'a>(keys: &[Key], route: &'a Route, facts: &Facts<'_>) -> AskedLimits<'a> {
    let remote = |limit: &Limit| RemoteKey::new(&limit.name, &limit.source, facts, limit.settings.ipv6_prefix);
    let asked = |ask: Ask<'_>| {
        let limit = &route.limits.each[ask.index];
        Asked { limit, key: ask.key, remote: limit.store.as_ref().map(|_| remote(limit)) }
    };
    route.limits.met(facts.client_ip, keys).map(asked).collect()
}

/// The long way.
async fn in_turn(asked: AskedLimits<'_>, route: &Route, context: &mut Context) -> Result<(), Refusal> {
    let shared = Arc::clone(&context.snapshot.shared);
    let (watched, enforced): (AskedLimits<'_>, AskedLimits<'_>) =
        asked.into_iter().partition(|asked| asked.limit.settings.shadow);
    let worker = context.worker();
    let mut charges = Charges { shared: &shared, charged: SmallVec::new() };
    for (index, asked) in enforced.iter().enumerate() {
        let charged = reserve(asked, worker, &shared).await;
        if let Reservation::Refused(refusal) = charged.reservation {
            drop(charges);
            let mut decisions = foresee_all(&enforced, &shared);
            decisions[index] = refusal;
            tell(stands(&enforced, &decisions), context);
            return Err(refuse(stands(&enforced, &decisions), route, context));
        }
        charges.charged.push(charged);
    }
    let turn = charges.turn();
    if !turn.is_zero()
        && let Err(verdict) = unless_turned_away(context, tokio::time::sleep(turn)).await
    {
        // The app is to be sent nothing any more: the turn is the next one's.
        drop(charges);
        return Err(turn_away(&verdict, context));
    }
    // Only now: whoever waits for a turn is not in flight yet.
    let slots = match charges.slots() {
        Ok(slots) => slots,
        Err(limit) => {
            drop(charges);
            tell(stands(&enforced, &foresee_all(&enforced, &shared)), context);
            limit.metrics.limited(true);
            shared.rate_limited(route.sample_place, &route.name, &limit.name, true);
            context.decided_by = Some((*limit.name).into());
            return Err(Refusal::Concurrency { status: limit.settings.status });
        }
    };
    context.slots.extend(slots);
    // Only those who pass: what one limit refuses costs nothing at the others, as when all were enforced.
    for asked in &watched {
        watch(asked, route, worker, &shared, &mut context.slots).await;
    }
    let decisions = charges.keep();
    tell(stands(&enforced, &decisions), context);
    enforced.iter().for_each(|asked| asked.limit.metrics.allowed());
    Ok(())
}

/// Decides and counts without consequence.
async fn watch(asked: &Asked<'_>, route: &Route, worker: usize, shared: &Shared, slots: &mut SmallVec<[Slot; 1]>) {
    let Asked { limit, key, .. } = asked;
    let settings = &limit.settings;
    let reservation = reserve(asked, worker, shared).await.reservation;
    let slot = settings.concurrency.map(|bound| limit.slots.acquire(*key, bound));
    if matches!(reservation, Reservation::Refused(_)) || matches!(slot, Some(None)) {
        limit.metrics.limited(false);
        shared.rate_limited(route.sample_place, &route.name, &limit.name, false);
    } else {
        limit.metrics.allowed();
    }
    slots.extend(slot.flatten());
}

/// Asks one limit, where it counts.
async fn reserve<'a>(asked: &'a Asked<'a>, worker: usize, shared: &Shared) -> Charged<'a> {
    let Asked { limit, key, remote } = asked;
    let queue = limit.settings.queue;
    let here = || match limit.limiter.reserve(*key, shared.nanos(), queue) {
        Reservation::Refused(refusal) if refusal.wait < OVERTAKEN => limit.limiter.reserve(*key, shared.nanos(), queue),
        reservation => reservation,
    };
    let (Some(store), Some(remote)) = (&limit.store, remote) else {
        return Charged { asked, reservation: here(), at: CountedAt::Here };
    };
    // What was heard last about the key. It can only owe more by now: whoever is over the limit need not be asked for.
    let before = shared.nanos();
    let heard = limit.limiter.foresee(*key, before, queue);
    // An outage that lets everyone in lets them in, too.
    if !heard.allowed && !store.lets_all_in() {
        return Charged { asked, reservation: Reservation::Refused(heard), at: CountedAt::Nowhere };
    }
    let shape = limit.limiter.shape();
    if let Ok(answer) = store.charge(worker, remote, shape, queue).await {
        // As of before the question, so that a slow answer keeps nobody out for longer than the store would.
        limit.limiter.note(*key, shape.owes(answer.owed), before);
        let reservation = shape.reservation(answer.is_charged, answer.owed, queue);
        return Charged { asked, reservation, at: CountedAt::Store(shape) };
    }
    match store.on_error() {
        RedisOnError::Local => Charged { asked, reservation: here(), at: CountedAt::Here },
        RedisOnError::Allow => {
            Charged { asked, reservation: Reservation::Now(shape.standing(0)), at: CountedAt::Nowhere }
        }
        RedisOnError::Deny => {
            let second = Duration::from_secs(1);
            let denied = Decision { allowed: false, remaining: 0, reset: second, next: second, wait: second };
            Charged { asked, reservation: Reservation::Refused(denied), at: CountedAt::Nowhere }
        }
    }
}

/// What one limit said.
struct Charged<'a> {
    asked: &'a Asked<'a>,
    reservation: Reservation,
    at: CountedAt,
}

/// Where a request was charged.
#[derive(Clone, Copy)]
enum CountedAt {
    Here,
    Store(Shape),
    Nowhere,
}

/// What a request has been charged with so far; dropped, it is given back.
struct Charges<'a> {
    shared: &'a Shared,
    charged: SmallVec<[Charged<'a>; 4]>,
}

impl<'a> Charges<'a> {
    /// How long until the request's turn has come everywhere; counts it where it has to wait.
    fn turn(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for Charged { asked, reservation, .. } in &self.charged {
            if let Reservation::Wait(turn) = reservation {
                asked.limit.metrics.queued();
                longest = longest.max(*turn);
            }
        }
        longest
    }

    /// A place everywhere, or the limit that has none.
    fn slots(&self) -> Result<SmallVec<[Slot; 1]>, &'a Limit> {
        let mut slots = SmallVec::new();
        for Charged { asked, .. } in &self.charged {
            let Some(bound) = asked.limit.settings.concurrency else { continue };
            slots.push(asked.limit.slots.acquire(asked.key, bound).ok_or(&**asked.limit)?);
        }
        Ok(slots)
    }

    /// The request passes: what was charged stays so. Where each limit stands, in order.
    fn keep(mut self) -> Decisions {
        let now = self.shared.nanos();
        let charged = std::mem::take(&mut self.charged);
        let stands = |charged: Charged<'_>| match charged.reservation {
            Reservation::Now(decision) => decision,
            _ => Decision { allowed: true, ..foresee(charged.asked, now) },
        };
        charged.into_iter().map(stands).collect()
    }
}

impl Drop for Charges<'_> {
    fn drop(&mut self) {
        let now = self.shared.nanos();
        for Charged { asked, reservation, at } in self.charged.drain(..) {
            let limit = asked.limit;
            if let (CountedAt::Store(shape), Some(store), Some(remote)) = (at, &limit.store, &asked.remote) {
                store.refund(remote.clone(), shape);
            }
            if !matches!(at, CountedAt::Nowhere) {
                limit.limiter.cancel(asked.key, reservation, now);
            }
        }
    }
}

/// What the limit would say to one more request.
fn foresee(asked: &Asked<'_>, now: Nanos) -> Decision {
    let limit = asked.limit;
    match &limit.store {
        Some(store) if store.lets_all_in() => limit.limiter.shape().standing(0),
        _ => limit.limiter.foresee(asked.key, now, limit.settings.queue),
    }
}

fn foresee_all(asked: &[Asked<'_>], shared: &Shared) -> Decisions {
    let now = shared.nanos();
    asked.iter().map(|asked| foresee(asked, now)).collect()
}

fn stands<'a>(
    asked: &'a [Asked<'a>],
    decisions: &'a [Decision],
) -> impl ExactSizeIterator<Item = (&'a Limit, &'a Decision)> {
    asked.iter().zip(decisions).map(|(asked, decision)| (&**asked.limit, decision))
}

fn tell<'a>(stands: impl ExactSizeIterator<Item = (&'a Limit, &'a Decision)>, context: &mut Context) {
    context.rate_limit = headers::rate_limit(stands.map(|(limit, decision)| (&limit.policy, decision)));
}

/// Counts the refusal for the limit that keeps the client away the longest.
#[cold]
fn refuse<'a>(
    stands: impl Iterator<Item = (&'a Limit, &'a Decision)>,
    route: &Route,
    context: &mut Context,
) -> Refusal {
    // A place that became free between the refusal and the second look leaves no refusal: then it is the last one
    // asked.
    let longest = stands.max_by_key(|(_, decision)| (!decision.allowed, decision.wait));
    let (limit, decision) = longest.expect("whoever was refused was asked");
    limit.metrics.limited(true);
    context.snapshot.shared.rate_limited(route.sample_place, &route.name, &limit.name, true);
    context.decided_by = Some((*limit.name).into());
    Refusal::RateLimited { status: limit.settings.status, retry_after: decision.wait }
}
