//! One try at one endpoint, over its connections: kept ones first, then a new one. What came of it is told to the
//! endpoint's keepers.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;

use super::super::Answered;
use super::super::failure::{Failure, HeadLate, Kind, Lost};
use super::Exchange;
use crate::error::with_causes;
use crate::message::trace_context::TRACEPARENT;
use crate::telemetry::traces::{Attempt, CANCELLED, shortened};
use crate::upstream::Wish;
use crate::upstream::connection::{AnswerError, SendError};
use crate::upstream::endpoint::{Endpoint, InFlight};
use crate::upstream::lease::Lease;

/// Times that an endpoint may say it has not looked at a request before that costs attempts.
const UNPROCESSED_MAX: usize = 8;

/// A client that sends nothing for so long may be why an endpoint closes the connection. One that keeps sending is not:
/// an app that dies of uploads is to be found out.
const KEPT_WAITING: Duration = Duration::from_secs(1);

/// What an endpoint's answer has once more when the process stood still while it was awaited.
const SECOND_LOOK: Duration = Duration::from_secs(1);

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

impl Exchange<'_> {
    /// One endpoint: kept connections first, then a fresh one.
    ///
    /// A kept connection may be closed by the endpoint at the very moment it is used. That costs no attempt: the
    /// request goes on to another connection, when nothing of it was sent or nothing can have been done twice. Of those
    /// that were sent the next connection is a new one: it may be the request that the endpoint closes at, which is then
    /// not to take along every connection there is.
    pub(super) async fn on_endpoint(&mut self, mut place: InFlight, now: Instant) -> Result<Answered, Failure> {
        self.outbound.address(&place.endpoint().host);
        (self.context.endpoint, self.context.upstream_duration) = (Some(Arc::clone(&place.endpoint().label)), None);
        let worker = self.context.worker();
        let mut began = now;
        let (mut has_closed, mut unprocessed) = (false, 0);
        while !has_closed && let Some(connection) = place.endpoint().kept(worker, now) {
            self.begin_attempt(&place, began);
            match self.on_connection(Lease::new(place, connection, worker), began).await {
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
        let connection = match Box::pin(place.endpoint().connect(worker, self.route.timeouts.connect)).await {
            Ok(connection) => connection,
            Err(error) => {
                let (upstream, endpoint) = (&*self.group.name, &*place.endpoint().label);
                tracing::debug!(upstream, endpoint, error = with_causes(&error), "cannot connect");
                let kind = Kind::Connect(error);
                self.end_attempt(Err(kind.word()));
                return Err(self.failed(&place, kind, began));
            }
        };
        let began = Instant::now();
        match self.on_connection(Lease::new(place, connection, worker), began).await {
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
        let mut answer = match lease.begin(self.outbound.head(), body) {
            Ok(()) => self.in_time(&mut lease, began).await,
            Err(error) => Ok(Err(error)),
        };
        if matches!(answer, Ok(Ok(StatusCode::SWITCHING_PROTOCOLS))) && !self.may_switch(&lease) {
            answer = Ok(Err(SendError::Failed(AnswerError::Switched)));
        }
        let elapsed = began.elapsed();
        self.context.upstream_duration = Some(elapsed);
        self.end_attempt(match &answer {
            Ok(Ok(status)) => Ok(status.as_u16()),
            Ok(Err(SendError::Unsent(_))) => Err("unsent"),
            Ok(Err(_)) if self.client_fault().is_some() => Err(CANCELLED),
            Ok(Err(_)) => Err(Kind::RESET),
            Err(HeadLate { .. }) => Err(Kind::HEAD_TIMEOUT),
        });
        match answer {
            Ok(Ok(status)) => {
                self.group.metrics.answered(self.context.worker(), elapsed);
                let latency = self.own_part(elapsed);
                let mut answered = Answered { status, lease, began, elapsed, latency, is_own_failure: false };
                answered.is_own_failure = self.answered(&answered);
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

    /// Whether its endpoint was asked for what it has switched to. Otherwise what the client sends next would be bytes
    /// that nobody has judged.
    fn may_switch(&self, lease: &Lease) -> bool {
        let connect = self.context.connect.as_deref();
        let is_agreed = || connect.is_none_or(|it| lease.answer().is_some_and(|answer| it.is_agreed(answer.headers())));
        self.outbound.wants_upgrade() && is_agreed()
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
        let target = self.outbound.head().parts.uri.path_and_query();
        let told = trace.begin_attempt(|span_id| Attempt {
            span_id,
            upstream: Arc::clone(&self.group.name),
            endpoint: Arc::clone(&place.endpoint().label),
            target: target.map_or_else(String::new, |target| shortened(target.as_str())),
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
        let mut has_looked_again = false;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = lease.poll_answer(self.outbound.spare(), cx) {
                    return Poll::Ready(Ok(answer));
                }
                let Some(deadline) = end else { return Poll::Pending };
                ready!(lease.poll_alarm(deadline, cx));
                let now = Instant::now();
                let mut left = delivery.as_deref().map_or(Duration::ZERO, |delivery| delivery.leaves(limit));
                // The answer may have come while the process stood still: its timers can be ahead of its sockets then.
                if left.is_zero() && self.group.was_paused(began, now) && !mem::replace(&mut has_looked_again, true) {
                    left = limit.min(SECOND_LOOK);
                }
                if left.is_zero() {
                    return Poll::Ready(Err(HeadLate { limit }));
                }
                end = now.checked_add(left);
            }
        })
        .await
    }

    /// Of the time that a try has taken, the endpoint's own: what the client took to send its body is not.
    fn own_part(&self, elapsed: Duration) -> Duration {
        self.outbound.delivery.as_ref().map_or(elapsed, |delivery| delivery.rests_for().min(elapsed))
    }

    /// Tells the endpoint's keepers of an answer. Whether it is a failure that is the endpoint's own matter.
    fn answered(&self, answered: &Answered) -> bool {
        let (endpoint, latency, now) = (answered.lease.endpoint(), answered.latency, answered.at());
        endpoint.answered();
        if self.group.settings.breaker.count.statuses.contains(answered.status) {
            return self.group.failed(endpoint, latency, now);
        }
        self.group.succeeded(endpoint, answered.began, now);
        match answered.status {
            // It sheds load, and is not to get more of it for being fast at that.
            StatusCode::TOO_MANY_REQUESTS => endpoint.observe_failure(latency, now),
            _ => endpoint.observe(latency, now, || self.group.was_paused(answered.began, now)),
        }
        false
    }

    /// Whether the endpoint waits for the client to go on, and has done so for long enough to give it up for that.
    fn keeps_waiting(&self, began: Instant) -> bool {
        let waits = self.outbound.delivery.as_ref().is_some_and(|delivery| delivery.waits_for_client());
        waits && self.own_part(began.elapsed()) >= KEPT_WAITING
    }

    /// Whether requests can go elsewhere, be it to an endpoint that is ejected: what this one took down with it is one
    /// failure then, and not the upstream's as a whole.
    fn has_other_than(&self, endpoint: &Endpoint, now: Instant) -> bool {
        self.group.has_other(Wish { asks_ejected: true, ..self.wish }, &[endpoint.key], now)
    }

    /// Tells the endpoint's keepers of a failure, unless it was the client's, or the process's own.
    fn failed(&self, place: &InFlight, kind: Kind, began: Instant) -> Failure {
        let (mut failure, now) = (Failure::new(kind, began), Instant::now());
        let is_spoilt = failure.is_timeout() && self.group.was_paused(began, now);
        if is_spoilt || failure.is_shortage() || self.client_fault().is_some() {
            return failure;
        }
        if let Kind::Connect(error) = &failure.kind {
            place.endpoint().unreachable(error, now);
        }
        if let Some(error) = failure.no_answer() {
            place.endpoint().unanswered(error, now);
        }
        failure.was_kept_waiting = matches!(failure.kind, Kind::Reset(_)) && self.keeps_waiting(began);
        // An endpoint takes down what it has when it goes.
        failure.is_aftermath = matches!(failure.kind, Kind::Reset(_))
            && (self.holds() || self.has_other_than(place.endpoint(), now))
            && !place.endpoint().falls(began, now);
        if failure.is_waited_out(&self.group.settings) {
            place.endpoint().refuse();
        } else if failure.counts(&self.group.settings.breaker.count) {
            failure.is_own = self.group.failed(place.endpoint(), self.own_part(now - began), now);
        }
        failure
    }
}
