//! What went wrong upstream, and what that means: for the client, the breaker, ejection and retries.

use std::time::Instant;

use super::super::body::Fault;
use super::super::refusal::Refusal;
use crate::config::model::FailureClasses;
use crate::upstream::connect::ConnectError;

/// Why an exchange brought no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// When the try that failed began: a pause of the process since then spoils its verdict.
    pub(super) began: Instant,
}

#[derive(Debug)]
pub(super) enum Kind {
    NoEndpoint,
    Connect(ConnectError),
    /// No response head within the route's `response_head`.
    HeadTimeout,
    /// The connection broke before a response head, or what came was no HTTP.
    Reset,
}

impl Kind {
    /// As a span tells it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Connect(ConnectError::Timeout { .. }) => "connect_timeout",
            Self::Connect(error) if error.is_ours() => "shortage",
            Self::Connect(_) => "connect_failed",
            Self::HeadTimeout => "upstream_timeout",
            Self::Reset => "upstream_error",
        }
    }
}

impl Failure {
    pub(super) fn new(kind: Kind, began: Instant) -> Self {
        Self { kind, began }
    }

    pub(super) fn refusal(&self) -> Refusal {
        match &self.kind {
            Kind::NoEndpoint => Refusal::NoEndpoint,
            Kind::Connect(ConnectError::Timeout { .. }) => Refusal::ConnectTimeout,
            Kind::Connect(error) if error.is_ours() => Refusal::Shortage,
            Kind::Connect(_) => Refusal::ConnectFailed,
            Kind::HeadTimeout => Refusal::UpstreamTimeout,
            Kind::Reset => Refusal::UpstreamError,
        }
    }

    /// Whether the upstream is to blame, by what the breaker counts.
    pub(super) fn counts(&self, classes: &FailureClasses) -> bool {
        match &self.kind {
            Kind::NoEndpoint => false,
            Kind::Connect(error) => classes.connect && !error.is_ours(),
            Kind::HeadTimeout => classes.timeout,
            Kind::Reset => classes.reset,
        }
    }

    /// Nothing is left to connect with, to whatever endpoint.
    pub(super) fn is_ours(&self) -> bool {
        matches!(&self.kind, Kind::Connect(error) if error.is_ours())
    }

    /// Nobody is there, and that was said at once.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(&self.kind, Kind::Connect(error) if error.is_refusal())
    }

    /// It is about time, which a pause of the process makes meaningless.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::HeadTimeout | Kind::Connect(ConnectError::Timeout { .. }))
    }
}

/// The client failed to deliver its body.
pub(super) fn refusal_of_fault(fault: Fault) -> Refusal {
    match fault {
        Fault::Timeout => Refusal::BodyTimeout,
        Fault::TooLarge => Refusal::BodyTooLarge,
        Fault::Malformed => Refusal::BadRequest("The body of the request is malformed."),
        Fault::Left => Refusal::ClientLeft,
    }
}
