//! The right to send one request, and what became of it. Not a queue place: it is given at once or not at all.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Breaker, Rejected};

/// What the upstream did with a request. What the client did is no outcome: drop the permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with anything the configuration does not count as a failure, 4xx included.
    Success {
        /// From the last byte sent upstream to the response head, so that a slow client is not held against the
        /// upstream.
        latency: Duration,
    },
    /// No connection, time-out, reset, a status that counts.
    Failure(Cause),
    /// 429: it lives and sheds load. Lowers the share of successes, is no failure in a row.
    TooManyRequests,
}

/// What a failure was, for whoever is told that the breaker has opened by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Status(u16),
    /// A response head that came later than `slow_call`.
    Slow,
    /// There was no answer; a word for why.
    NoAnswer(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Slow => f.write_str("slow_call"),
            Self::NoAnswer(word) => f.write_str(word),
        }
    }
}

impl Outcome {
    /// Why it is a failure, if it is one.
    pub(super) fn failure(self, slow_call: Option<Duration>) -> Option<Cause> {
        match self {
            Self::Success { latency } => slow_call.filter(|limit| latency > *limit).map(|_| Cause::Slow),
            Self::Failure(cause) => Some(cause),
            Self::TooManyRequests => Some(Cause::Status(429)),
        }
    }
}

/// Permission for one request. Dropped without [`Permit::record`] it counts nothing, and a half-open breaker has its
/// slot back.
#[must_use = "dropping a permit says that the request was cancelled"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    ticket: Ticket,
    recorded: bool,
}

impl<'a> Permit<'a> {
    pub(super) fn new(breaker: &'a Breaker, ticket: Ticket) -> Self {
        Self { breaker, ticket, recorded: false }
    }

    /// Reports what the upstream did. To be called when the response head is there or is known not to come.
    pub fn record(mut self, outcome: Outcome, now: Instant) {
        self.recorded = true;
        self.breaker.record(&self.ticket, outcome, now);
    }

    /// Whether a half-open breaker waits for this very request.
    pub(super) fn is_probe(&self) -> bool {
        self.ticket.probe.is_some()
    }

    /// In shadow, why the request would have been turned away. Its outcome then counts nowhere, just as if it had been.
    #[must_use]
    pub fn would_reject(&self) -> Option<Rejected> {
        self.ticket.would_reject
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            self.breaker.cancel(&self.ticket);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("probe", &self.is_probe())
            .field("would_reject", &self.ticket.would_reject)
            .finish_non_exhaustive()
    }
}

/// What a permit remembers of its admission.
pub(super) struct Ticket {
    /// The breaker's word at the time.
    pub(super) word: u64,
    /// Of a half-open breaker: the round in which it was admitted.
    pub(super) probe: Option<u32>,
    /// Shadow: it would have been turned away.
    pub(super) would_reject: Option<Rejected>,
}

impl Ticket {
    pub(super) fn request(word: u64) -> Self {
        Self { word, probe: None, would_reject: None }
    }

    pub(super) fn probe(word: u64, round: u32) -> Self {
        Self { word, probe: Some(round), would_reject: None }
    }

    pub(super) fn bystander(word: u64, rejected: Rejected) -> Self {
        Self { word, probe: None, would_reject: Some(rejected) }
    }
}
