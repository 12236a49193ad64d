//! The words a breaker speaks: its states, its transitions, its refusals and what it shows.

use std::time::Duration;

use super::permit::Cause;
use super::window::Tenth;

/// Where a breaker stands; the arrows are in the module docs of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// The probes pass.
    HalfOpen,
    /// Closed again, but a growing share passes only.
    Ramp,
}

impl State {
    pub(super) const BITS: u32 = 2;

    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
            Self::Ramp => 3,
        }
    }

    pub(super) fn of(word: u64) -> Self {
        match word & ((1 << Self::BITS) - 1) {
            0 => Self::Closed,
            1 => Self::Open,
            2 => Self::HalfOpen,
            _ => Self::Ramp,
        }
    }

    /// The name in the admin API. Ramp is a way of being closed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed | Self::Ramp => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
        }
    }

    /// The value of `flagstone_breaker_state`: 0 closed, 1 half-open, 2 open.
    #[must_use]
    pub fn gauge(self) -> i64 {
        match self {
            Self::Closed | Self::Ramp => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ConsecutiveFailures,
    FailureRatio,
    ProbeFailed,
    ProbesSucceeded,
    /// The time of the state before was over.
    Elapsed,
    /// An operator opened it.
    Forced,
    /// An operator closed it.
    Reset,
    /// Its rules changed, and another breaker has begun by them.
    Reload,
}

impl Reason {
    /// For a log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRatio => "failure_ratio",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Elapsed => "elapsed",
            Self::Forced => "forced",
            Self::Reset => "reset",
            Self::Reload => "reload",
        }
    }
}

/// One change of state, for events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
    pub reason: Reason,
    /// What it opened by, where that was the request that was the last drop.
    pub failure: Option<Cause>,
    /// 1, 2, 3 … per breaker. Two threads may report in the other order; the higher number is the truth.
    pub sequence: u64,
}

impl Transition {
    /// The event's message; `None` when the end of a ramp brings nothing that was not said when it began.
    #[must_use]
    pub fn message(&self) -> Option<&'static str> {
        match (self.from, self.to) {
            (State::Ramp, State::Closed) if self.reason == Reason::Elapsed => None,
            (_, State::Open) => Some("Circuit breaker opened"),
            (_, State::HalfOpen) => Some("Circuit breaker half-open"),
            (_, State::Closed | State::Ramp) => Some("Circuit breaker closed"),
        }
    }
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker is {}", state.name())]
pub struct Rejected {
    /// Open: the real time left. Otherwise one second, for nobody knows.
    pub retry_after: Duration,
    pub state: State,
}

/// Calls so far. They grow for as long as the breaker lives; a reset leaves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub successful: u64,
    /// Slow calls and 429 among them.
    pub failed: u64,
    /// In shadow: those that would have been rejected; they are in no other number then.
    pub rejected: u64,
}

impl Statistics {
    /// Always the sum of the three, because it is nothing else. Calls on their way and cancelled ones are not in it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.successful + self.failed + self.rejected
    }
}

/// A breaker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub state: State,
    /// Open because an operator wants it so.
    pub forced: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Open: how long until a request is tried again; `None` otherwise, and for a forced open without end.
    pub next_attempt: Option<Duration>,
    pub statistics: Statistics,
}

/// Where a breaker stands, in times that mean the same to every process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub state: State,
    /// In a row.
    pub failures: u32,
    /// Of this outage.
    pub opens: u32,
    pub forced: bool,
    /// How long it stays open yet; `None` = without end, or not open at all.
    pub open_for: Option<Duration>,
    /// Since the ramp began, if it is in one.
    pub ramping_for: Duration,
    pub statistics: Statistics,
    /// What the ratio rule looks at.
    pub window: Vec<Tenth>,
}
