//! One request on its way: which endpoint, which connection, whether it goes on after a failure, and the wait for an
//! endpoint when none can take it.
//!
//! | what happened | it goes on | costs an attempt |
//! |---|---|---|
//! | a kept connection closed before anything was sent | on the next connection | no |
//! | a kept connection closed as it was used | once, on a new connection, if it may be repeated | no |
//! | the endpoint says that it did not look at it | on the next connection, a few times | no |
//! | no connection, `hold` is set | at another endpoint, or when one returns, until `hold` is over | no |
//! | a connection refused, another endpoint is left | there, if `retry.on` has `connect` and `retry.attempts` is not 0; any method | no |
//! | no connection | at another endpoint, if `retry.on` has `connect`; any method | yes |
//! | the connection broke before a head | if `retry.on` has `reset_before_response` and it may be repeated | yes |
//! | an answer with a status of `retry.on` | if it may be repeated; the last answer stands | yes |
//! | no head in time | never: the app may be at work on it | |
//! | no descriptor is left for a connection | never | |
//!
//! It may be repeated when its method is one of `retry.methods`, it asks for no upgrade, and its body is still at hand.
//! A try at an endpoint that had one already comes after a pause with full jitter; at another endpoint, at once.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};

use super::super::body::Fault;
use super::super::context::Context;
use super::Answered;
use super::failure::{Failure, HeadLate, Kind, Lost};
use super::outbound::Outbound;
use crate::balance::{Retry, RetryBudget, full_jitter, hash_of};
use crate::config::model::{Balance, HashKey};
use crate::error::with_causes;
use crate::message::cookie;
use crate::message::trace_context::TRACEPARENT;
use crate::snapshot::Route;
use crate::telemetry::traces::Attempt;
use crate::upstream::Wish;
use crate::upstream::connection::{AnswerError, RequestHead, SendError};
use crate::upstream::endpoint::{InFlight, Lease};
use crate::upstream::group::Group;
use crate::upstream::hold::{Ticket, Turn};

/// Endpoints that may refuse a request one after another before that costs attempts.
const REFUSALS_MAX: usize = 16;
/// Times that an endpoint may say it has not looked at a request before that costs attempts.
const UNPROCESSED_MAX: usize = 8;
/// With `hold` set, how long at least a request waits that was reset: until an app that is being killed is wholly gone.
const RESET_PAUSE: Duration = Duration::from_millis(50);

/// One request on its way, over as many endpoints and connections as it takes.
pub(super) struct Exchange<'a> {
    group: &'a Arc<Group>,
    route: &'a Route,
    context: &'a mut Context,
    outbound: Box<Outbound>,
    /// Keys of endpoints that failed this request.
    tried: Vec<u64>,
    wish: Wish,
    attempts_left: u32,
    attempts_made: u32,
    /// Where requests are held, the endpoint before reset this one: it may be on its way out.
    was_reset: bool,
    /// Its share of the budget while a further try is on its way.
    retry: Option<Retry<Arc<RetryBudget>>>,
    /// Its place in the queue and since when it has it.
    queued: Option<(Ticket, Instant)>,
    /// Held from leaving the queue to the answer's head.
    turn: Option<Turn>,
    /// Why it is in the queue.
    last: Option<Failure>,
}

/// What one try on one connection came to, other than an answer.
enum Missed {
    /// Nothing of it was sent, the request is back.
    Unsent,
    /// It was sent, and the endpoint says that it was not looked at.
    Unprocessed,
    /// The connection was closed, and nothing of an answer had come.
    Closed(AnswerError),
    Failed(Kind),
}

impl Missed {
    fn kind(self) -> Kind {
        match self {
            Self::Unsent => Kind::Reset(Lost::Unsent),
            Self::Unprocessed => Kind::Reset(Lost::Unprocessed),
            Self::Closed(error) => Kind::Reset(error.into()),
            Self::Failed(kind) => kind,
        }
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        group: &'a Arc<Group>,
        route: &'a Route,
        context: &'a mut Context,
        outbound: Box<Outbound>,
    ) -> Self {
        // Made where it stays: it is large.
        Self {
            wish: wish(outbound.head(), group, context),
            attempts_left: group.settings.retry.attempts,
            group,
            route,
            context,
            outbound,
            tried: Vec::new(),
            attempts_made: 0,
            was_reset: false,
            retry: None,
            queued: None,
            turn: None,
            last: None,
        }
    }

    /// Sends it until there is an answer or nothing more to try.
    ///
    /// # Errors
    /// The last failure.
    pub(super) async fn run(&mut self) -> Result<Answered, Failure> {
        let mut now = self.context.admitted;
        if let Some((home, patience)) = self.wish.home.and_then(|home| Some((home, self.group.patience_for(home)?))) {
            let is_known = || self.group.patience_for(home).is_none();
            Box::pin(self.group.hold.watch(now + patience, is_known)).await;
            now = Instant::now();
        }
        loop {
            let free = !self.group.hold.is_anyone_waiting() || self.turn.is_some();
            let claimed = if free { self.group.claim(self.wish, &self.tried, now) } else { None };
            let place = match claimed {
                Some(place) => place,
                None => {
                    let place = Box::pin(self.wait()).await?;
                    now = Instant::now();
                    place
                }
            };
            let key = place.endpoint().key;
            let result = self.on_endpoint(place, now).await;
            self.turn = None;
            self.retry = None;
            match result {
                Ok(answered) => {
                    if !self.wants_another(&answered) || !self.another(key, false) {
                        return Ok(answered);
                    }
                }
                Err(failure) => {
                    if !self.goes_on(&failure, key) {
                        return Err(failure);
                    }
                    self.last = Some(failure);
                }
            }
            Box::pin(self.back_off()).await;
            now = Instant::now();
        }
    }

    /// How the client failed to deliver its body, if it did.
    pub(super) fn client_fault(&self) -> Option<Fault> {
        self.outbound.delivery.as_ref().and_then(|delivery| delivery.fault())
    }

    /// The cookie that makes the endpoint of this answer the client's home. None while its home merely has no room: the
    /// next request may find it there.
    pub(super) fn new_home(&self, answered: &Answered) -> Option<HeaderValue> {
        let affinity = self.group.affinity.as_ref()?;
        let token = answered.lease.endpoint().token?;
        let home = self.wish.home.and_then(|token| self.group.home(token));
        let stays = home.is_some_and(|home| {
            home.token == Some(token) || (home.standing.takes(answered.at()) && !self.tried.contains(&home.key))
        });
        (!stays).then(|| affinity.set_cookie(token, self.context.is_tls()))
    }

    /// Whether the request asked for an upgrade.
    pub(super) fn wants_upgrade(&self) -> bool {
        self.outbound.wants_upgrade()
    }

    /// One endpoint: kept connections first, then a fresh one.
    ///
    /// A kept connection may be closed by the endpoint at the very moment it is used. That costs no attempt: the
    /// request goes on to another connection, when nothing of it was sent or nothing can have been done twice. Of those
    /// that were sent the next connection is a new one: it may be the request that the endpoint closes at, which is then
    /// not to take along every connection there is.
    async fn on_endpoint(&mut self, mut place: InFlight, now: Instant) -> Result<Answered, Failure> {
        self.outbound.address(&place.endpoint().host);
        self.context.endpoint = Some(Arc::clone(&place.endpoint().label));
        let worker = self.context.worker();
        let mut began = now;
        let (mut has_closed, mut unprocessed) = (false, 0);
        while !has_closed && let Some(ready) = place.endpoint().kept(worker, now) {
            self.begin_attempt(&place, began);
            match self.on_connection(Lease::new(place, ready, worker), began).await {
                Ok(answered) => return Ok(answered),
                Err((lease, missed)) => {
                    place = lease.close();
                    match missed {
                        Missed::Unsent => {}
                        Missed::Unprocessed if unprocessed < UNPROCESSED_MAX && self.outbound.repeat_unprocessed() => {
                            unprocessed += 1;
                        }
                        Missed::Closed(_) if self.group.settings.retry.on.reset && self.outbound.repeat() => {
                            has_closed = true;
                        }
                        missed => return Err(self.failed(&place, missed.kind(), began)),
                    }
                    began = Instant::now();
                }
            }
        }
        let began = Instant::now();
        self.begin_attempt(&place, began);
        // Boxed, like all that most requests have no need of: the future of every request is as large as the largest
        // wait in it.
        let ready = match Box::pin(place.endpoint().connect(worker, self.route.timeouts.connect)).await {
            Ok(ready) => ready,
            Err(error) => {
                let (upstream, endpoint) = (&*self.group.name, &*place.endpoint().label);
                tracing::debug!(upstream, endpoint, error = with_causes(&error), "cannot connect");
                let kind = Kind::Connect(error);
                self.end_attempt(Err(kind.word()));
                return Err(self.failed(&place, kind, began));
            }
        };
        let began = Instant::now();
        match self.on_connection(Lease::new(place, ready, worker), began).await {
            Ok(answered) => Ok(answered),
            Err((lease, missed)) => {
                if matches!(missed, Missed::Unprocessed) {
                    // What goes on then needs no leave to repeat it.
                    self.outbound.repeat_unprocessed();
                }
                Err(self.failed(&lease.close(), missed.kind(), began))
            }
        }
    }

    /// `began` is now, as near as the caller knows.
    async fn on_connection(&mut self, mut lease: Lease, began: Instant) -> Result<Answered, (Lease, Missed)> {
        let Some(body) = self.outbound.depart() else {
            unreachable!("a request is sent only after it was made ready");
        };
        let answer = match lease.begin(self.outbound.head(), body) {
            Ok(()) => self.in_time(&mut lease, began).await,
            Err(error) => Ok(Err(error)),
        };
        let latency = began.elapsed();
        self.context.upstream_duration = Some(latency);
        self.end_attempt(match &answer {
            Ok(Ok(status)) => Ok(status.as_u16()),
            Ok(Err(SendError::Unsent(_))) => Err("unsent"),
            Ok(Err(_)) => Err(Kind::RESET),
            Err(HeadLate { .. }) => Err(Kind::HEAD_TIMEOUT),
        });
        match answer {
            Ok(Ok(status)) => {
                self.group.metrics.answered(self.context.worker(), latency);
                let answered = Answered { status, lease, began, latency };
                self.answered(&answered);
                Ok(answered)
            }
            Ok(Err(SendError::Unsent(body))) => {
                self.outbound.returned(body);
                Err((lease, Missed::Unsent))
            }
            Ok(Err(SendError::Unprocessed)) => Err((lease, Missed::Unprocessed)),
            Ok(Err(SendError::StreamReset(error))) => {
                let error = error.into();
                self.note("the upstream reset the stream", &lease, &error);
                Err((lease, Missed::Failed(Kind::Reset(error.into()))))
            }
            Ok(Err(SendError::Closed(error))) => {
                self.note("the upstream closed the connection", &lease, &error);
                Err((lease, Missed::Closed(error)))
            }
            Ok(Err(SendError::Failed(error))) => {
                self.note("no answer from the upstream", &lease, &error);
                Err((lease, Missed::Failed(Kind::Reset(error.into()))))
            }
            Err(late) => Err((lease, Missed::Failed(Kind::HeadTimeout(late)))),
        }
    }

    /// Each one, for whoever looks for it; what was the endpoint's is told of by its keepers.
    fn note(&self, what: &str, lease: &Lease, error: &AnswerError) {
        let (upstream, endpoint) = (&*self.group.name, &*lease.endpoint().label);
        tracing::debug!(upstream, endpoint, error = with_causes(error), "{what}");
    }

    /// Notes a try at an endpoint and tells it of its span, where the request is recorded.
    fn begin_attempt(&mut self, place: &InFlight, began: Instant) {
        let Some(trace) = &mut self.context.trace else { return };
        let settings = &self.group.settings;
        let told = trace.begin_attempt(|span_id| Attempt {
            span_id,
            upstream: Arc::clone(&self.group.name),
            endpoint: Arc::clone(&place.endpoint().label),
            is_tls: settings.tls.is_some(),
            is_http2: settings.http2,
            began,
            end: None,
        });
        let headers = self.outbound.headers_mut();
        // A route may keep it from its app.
        if let Some(told) = told.filter(|_| headers.contains_key(TRACEPARENT)) {
            headers.insert(TRACEPARENT, told);
        }
    }

    fn end_attempt(&mut self, outcome: Result<u16, &'static str>) {
        if let Some(trace) = &mut self.context.trace {
            trace.end_attempt(outcome);
        }
    }

    /// Waits for the answer's head. The time counts from the last moment that the endpoint took some of the request's
    /// body: a long upload is no slow answer, and a slow client has a timeout of its own.
    async fn in_time(&mut self, lease: &mut Lease, began: Instant) -> Result<Result<StatusCode, SendError>, HeadLate> {
        let limit = self.route.timeouts.response_head;
        let delivery = self.outbound.delivery.clone();
        // A limit that reaches beyond all time is none.
        let mut end = began.checked_add(limit);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = lease.poll_answer(self.outbound.spare(), cx) {
                    return Poll::Ready(Ok(answer));
                }
                let Some(deadline) = end else { return Poll::Pending };
                ready!(lease.poll_alarm(deadline, cx));
                let left = delivery.as_deref().map_or(Duration::ZERO, |delivery| match delivery.waits_for_client() {
                    true => limit,
                    false => limit.saturating_sub(delivery.rests_for()),
                });
                if left.is_zero() {
                    return Poll::Ready(Err(HeadLate { limit }));
                }
                end = Instant::now().checked_add(left);
            }
        })
        .await
    }

    /// Tells the endpoint's keepers of an answer.
    fn answered(&self, answered: &Answered) {
        let (endpoint, now) = (answered.lease.endpoint(), answered.at());
        let is_failure = self.group.settings.breaker.count.statuses.contains(answered.status);
        self.group.record(endpoint, !is_failure, now);
        endpoint.answered(answered.latency, now);
    }

    /// Tells the endpoint's keepers of a failure, unless it was the client's, or the process's own.
    fn failed(&self, place: &InFlight, kind: Kind, began: Instant) -> Failure {
        let (failure, now) = (Failure::new(kind, began), Instant::now());
        let is_spoilt = failure.is_timeout() && self.group.was_paused(began, now);
        if is_spoilt || failure.is_ours() || self.client_fault().is_some() {
            return failure;
        }
        if let Kind::Connect(error) = &failure.kind {
            place.endpoint().unreachable(error, now);
        }
        if let Some(error) = failure.no_answer() {
            place.endpoint().unanswered(error, now);
        }
        if failure.is_waited_out(&self.group.settings) {
            place.endpoint().refuse();
        } else if failure.counts(&self.group.settings.breaker.count) {
            self.group.record(place.endpoint(), false, now);
        }
        failure
    }

    fn holds(&self) -> bool {
        !self.group.settings.hold.is_zero()
    }

    /// Whether the request goes on after this failure; it is ready to be sent then.
    fn goes_on(&mut self, failure: &Failure, key: u64) -> bool {
        if failure.is_ours() {
            // Another endpoint or another moment would need just what is lacking.
            return false;
        }
        let on = &self.group.settings.retry.on;
        let is_unsent = self.outbound.is_here();
        if is_unsent && failure.is_waited_out(&self.group.settings) {
            // Not an attempt: nothing was sent, and waiting for the endpoint is what `hold` asks for.
            return self.queued.is_none_or(|(_, since)| since.elapsed() < self.group.settings.hold);
        }
        if is_unsent && failure.is_refusal() && self.goes_elsewhere(key) {
            return true;
        }
        let is_listed = match failure.kind {
            Kind::Connect(_) => on.connect,
            Kind::Reset(_) if is_unsent => on.connect || on.reset,
            Kind::Reset(_) => on.reset,
            Kind::HeadTimeout(_) | Kind::NoEndpoint => false,
        };
        is_listed && self.another(key, matches!(failure.kind, Kind::Reset(_)))
    }

    /// Goes on at an endpoint that was not tried yet after the one with this key refused the connection. That is no
    /// attempt: nothing was sent, and being refused takes no time. So two replicas may go at once, and no visitor
    /// notices.
    fn goes_elsewhere(&mut self, key: u64) -> bool {
        let retry = &self.group.settings.retry;
        if !retry.on.connect || retry.attempts == 0 || self.tried.len() >= REFUSALS_MAX || self.client_fault().is_some()
        {
            return false;
        }
        self.tried.push(key);
        let has_other = self.group.has_other(&self.tried, Instant::now());
        if has_other {
            self.group.metrics.retried();
        } else {
            self.tried.pop();
        }
        has_other
    }

    fn wants_another(&self, answered: &Answered) -> bool {
        self.group.settings.retry.on.statuses.contains(answered.status)
    }

    /// Takes a further attempt after one at the endpoint with this key, if there is one and the request can be sent
    /// again.
    ///
    /// Where requests are held, one that was reset (`was_reset`) needs no budget, for an app that restarts resets
    /// everything it has at once; instead it waits long enough to find out whether the app is gone.
    fn another(&mut self, key: u64, was_reset: bool) -> bool {
        if self.attempts_left == 0 || self.client_fault().is_some() {
            return false;
        }
        let is_calm = was_reset && self.holds();
        let retry = if is_calm { None } else { self.group.retry() };
        if (retry.is_none() && !is_calm) || (!self.outbound.is_here() && !self.outbound.repeat()) {
            return false;
        }
        self.was_reset = is_calm;
        self.retry = retry;
        self.attempts_left -= 1;
        self.attempts_made += 1;
        self.tried.push(key);
        self.group.metrics.retried();
        true
    }

    /// Waits a little before an endpoint is tried that was tried before.
    async fn back_off(&self) {
        let Some(retries) = self.attempts_made.checked_sub(1) else { return };
        if !self.group.has_other(&self.tried, Instant::now()) {
            let pause = if self.was_reset { RESET_PAUSE } else { Duration::ZERO };
            tokio::time::sleep(pause + full_jitter(retries, fastrand::u64(..))).await;
        }
    }

    /// Waits in line until an endpoint can take the request, as long as the upstream's patience lasts.
    async fn wait(&mut self) -> Result<InFlight, Failure> {
        self.turn = None;
        let began = Instant::now();
        let hold = &self.group.hold;
        if self.group.rally(began)
            && !hold.is_anyone_waiting()
            && let Some(place) = self.group.claim(self.wish, &self.tried, began)
        {
            return Ok(place);
        }
        let (ticket, since) = *self.queued.get_or_insert_with(|| (hold.ticket(), began));
        loop {
            let (patience, now) = (self.group.patience(), Instant::now());
            let deadline = since + patience;
            if now >= deadline {
                let place = self.group.claim(self.wish, &self.tried, now);
                return place.ok_or_else(|| self.gives_up(began));
            }
            let bytes = self.outbound.weight();
            match hold.wait(ticket, bytes, deadline, || self.group.has_room()).await {
                Ok(turn) => match self.group.claim(self.wish, &self.tried, Instant::now()) {
                    Some(place) => {
                        self.turn = Some(turn);
                        return Ok(place);
                    }
                    None => turn.in_vain(),
                },
                Err(_) => return Err(self.gives_up(began)),
            }
        }
    }

    fn gives_up(&mut self, began: Instant) -> Failure {
        self.last.take().unwrap_or_else(|| Failure::new(Kind::NoEndpoint, began))
    }
}

/// What a request says of the endpoint it should go to.
fn wish(head: RequestHead<'_>, group: &Group, context: &Context) -> Wish {
    let headers = &head.parts.headers;
    let home = group.affinity.as_ref().and_then(|affinity| affinity.home(headers));
    let Balance::Hash(key) = &group.settings.balance else { return Wish { hash: 0, home } };
    let hash = match key {
        HashKey::ClientIp => Some(match context.client_ip {
            IpAddr::V4(ip) => hash_of(&ip.octets()),
            IpAddr::V6(ip) => hash_of(&ip.octets()),
        }),
        HashKey::Header(name) => head.field(name).map(|value| hash_of(value.as_bytes())),
        HashKey::Cookie(name) => cookie::values(headers, name).next().map(hash_of),
        HashKey::Uri => Some(hash_of(head.parts.uri.path().as_bytes())),
    };
    // Requests without a key would else all go to one endpoint.
    Wish { hash: hash.unwrap_or_else(|| fastrand::u64(..)), home }
}
