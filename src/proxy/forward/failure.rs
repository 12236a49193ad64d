//! What went wrong upstream, and what that means: for the client, the breaker, ejection and retries.

use std::error::Error;
use std::time::{Duration, Instant};

use super::super::context::Context;
use super::super::decide::Verdict;
use super::super::handle;
use super::super::refusal::Refusal;
use crate::config::model::{FailureClasses, Upstream};
use crate::upstream::connect::ConnectError;
use crate::upstream::connection::AnswerError;

/// Why an exchange brought no answer.
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// When the try that failed began: a pause of the process since then spoils its verdict.
    pub(super) began: Instant,
    /// Its endpoint dropped others with it, one of which has been counted.
    pub(super) is_aftermath: bool,
    /// It is its endpoint's own matter, and not the upstream's as a whole.
    pub(super) is_own: bool,
    /// Its endpoint had waited for the client's body for a while, and may have lost patience.
    pub(super) was_kept_waiting: bool,
}

pub(super) enum Kind {
    NoEndpoint,
    /// What was switched against the request while it waited for an endpoint.
    TurnedAway(Box<Verdict<'static>>),
    Connect(ConnectError),
    /// No response head within the route's `response_head`.
    HeadTimeout(HeadLate),
    /// The connection broke before a response head, or what came was no HTTP.
    Reset(Lost),
}

/// No response head came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {limit:?}")]
pub(super) struct HeadLate {
    pub(super) limit: Duration,
}

/// How a request that found a connection came to nothing on it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the connection was closed before anything was sent")]
    Unsent,
    #[error("the endpoint refused the stream")]
    Unprocessed,
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl Kind {
    /// As a span tells the last two.
    pub(super) const HEAD_TIMEOUT: &str = "upstream_timeout";
    pub(super) const RESET: &str = "upstream_error";

    /// As a span tells it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::TurnedAway(_) => "turned_away",
            Self::Connect(ConnectError::Timeout { .. }) => "connect_timeout",
            Self::Connect(error) if error.is_shortage() => "shortage",
            Self::Connect(_) => "connect_failed",
            Self::HeadTimeout(_) => Self::HEAD_TIMEOUT,
            Self::Reset(_) => Self::RESET,
        }
    }
}

impl Failure {
    pub(super) fn new(kind: Kind, began: Instant) -> Self {
        Self { kind, began, is_aftermath: false, is_own: false, was_kept_waiting: false }
    }

    pub(super) fn refusal(&self, context: &mut Context) -> Refusal {
        match &self.kind {
            Kind::NoEndpoint => Refusal::NoEndpoint,
            Kind::TurnedAway(verdict) => handle::turn_away(verdict, context),
            Kind::Connect(ConnectError::Timeout { .. }) => Refusal::ConnectTimeout,
            Kind::Connect(error) if error.is_shortage() => Refusal::Shortage,
            Kind::Connect(_) => Refusal::ConnectFailed,
            Kind::HeadTimeout(_) => Refusal::UpstreamTimeout,
            Kind::Reset(_) => Refusal::UpstreamError,
        }
    }

    /// Whether the endpoint is to blame, by what the breaker counts.
    pub(super) fn counts(&self, classes: &FailureClasses) -> bool {
        match &self.kind {
            Kind::NoEndpoint | Kind::TurnedAway(_) => false,
            Kind::Connect(error) => classes.connect && !error.is_shortage(),
            Kind::HeadTimeout(_) => classes.timeout,
            Kind::Reset(_) => classes.reset && !self.is_aftermath && !self.was_kept_waiting,
        }
    }

    /// An endpoint that takes no connection is waited for where requests are held: that counts for nobody.
    pub(super) fn is_waited_out(&self, settings: &Upstream) -> bool {
        !settings.hold.is_zero() && matches!(self.kind, Kind::Connect(_))
    }

    /// Why the endpoint gave no answer on a connection that there was.
    pub(super) fn no_answer(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            Kind::NoEndpoint | Kind::TurnedAway(_) | Kind::Connect(_) => None,
            Kind::HeadTimeout(late) => Some(late),
            Kind::Reset(Lost::Answer(error)) if error.is_of_request() => None,
            Kind::Reset(lost) => Some(lost),
        }
    }

    /// Nothing is left to connect with, to whatever endpoint.
    pub(super) fn is_shortage(&self) -> bool {
        matches!(&self.kind, Kind::Connect(error) if error.is_shortage())
    }

    /// Nobody is there, and that was said at once.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(&self.kind, Kind::Connect(error) if error.is_refusal())
    }

    /// It is about time, which a pause of the process makes meaningless.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::HeadTimeout(_) | Kind::Connect(ConnectError::Timeout { .. }))
    }
}
