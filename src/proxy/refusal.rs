//! Every answer that Flagstone gives in place of the app, in one table.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::body::Fault;
use crate::listener::head::BadHead;
use crate::policy::limit::headers::retry_seconds;

/// nginx's status for a client that left before it was answered: for logs and counts, nobody is sent it.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Why a request was not answered by the app.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The switch is on for this request.
    Maintenance(Maintained),
    /// The route's feature is switched off.
    FeatureOff(Maintained),
    RateLimited {
        status: StatusCode,
        retry_after: Duration,
    },
    /// Too many of the client's requests are in flight.
    Concurrency {
        status: StatusCode,
    },
    /// The upstream's breaker is open.
    CircuitOpen {
        retry_after: Duration,
    },
    /// `allow` or `deny` of the route.
    Denied,
    /// The runtime block list.
    Blocked,
    NoRoute,
    /// A route matches but for the method; the value of `Allow`.
    MethodNotAllowed(HeaderValue),
    NoEndpoint,
    ConnectFailed,
    ConnectTimeout,
    /// Nothing is left to connect to the app with, or to open a file.
    Shortage,
    /// There is a file that this process may not read.
    Unreadable,
    /// Whether there is a file cannot be told, or what is in it.
    FileError,
    UpstreamTimeout,
    UpstreamError,
    /// The app answered well, but did not agree to the upgrade that the client can only have whole.
    NotUpgraded,
    BodyTooLarge,
    BodyTimeout,
    /// The client went away in the middle of its body: nobody is there to be told.
    ClientLeft,
    BadRequest(&'static str),
    /// Its host is not the one that its connection was secured for.
    Misdirected,
    /// It came on a connection from before certificates were asked for as they are now.
    AdmittedOtherwise,
    UriTooLong,
    HeadersTooLarge,
    HeadTimeout,
}

/// What a maintenance answer says.
#[derive(Clone, Debug)]
pub struct Maintained {
    pub(crate) scope: std::sync::Arc<crate::policy::maintenance::Active>,
    pub(crate) status: StatusCode,
    pub(crate) retry_after_secs: u64,
}

/// One row of the table.
pub struct Row {
    pub status: StatusCode,
    /// Value of `Flagstone-Reason`.
    pub reason: &'static str,
    /// For people: one plain sentence.
    pub detail: &'static str,
    /// The connection is no longer in a state to be trusted with another request.
    pub(crate) closes: bool,
}

impl Refusal {
    /// The answer would send the client on to a host, and it names none, as HTTP/1.0 may.
    pub(super) const NO_HOST: Self = Self::BadRequest("The request names no host to be sent on to.");

    /// What a head that breaks a rule or a bound is answered with.
    pub fn of_head(why: BadHead) -> Self {
        match why {
            BadHead::Malformed(_) => Self::BadRequest("The request is malformed."),
            BadHead::UriTooLong => Self::UriTooLong,
            BadHead::HeadersTooLarge => Self::HeadersTooLarge,
        }
    }

    /// The client failed to deliver its body.
    pub(super) fn of_fault(fault: Fault) -> Self {
        match fault {
            Fault::Timeout => Self::BodyTimeout,
            Fault::TooLarge => Self::BodyTooLarge,
            Fault::Malformed => Self::BadRequest("The body of the request is malformed."),
            Fault::Short => Self::BadRequest("The request was broken off."),
            Fault::Left => Self::ClientLeft,
        }
    }

    /// Status, reason and text of this refusal.
    pub fn row(&self) -> Row {
        let (status, reason, detail) = match self {
            Self::Maintenance(maintained) => {
                (maintained.status, "maintenance", "This site is down for maintenance and will be back soon.")
            }
            Self::FeatureOff(maintained) => {
                (maintained.status, "feature_off", "This part of the site is switched off at the moment.")
            }
            Self::RateLimited { status, .. } => {
                (*status, "rate_limited", "Too many requests came from you in a short time.")
            }
            Self::Concurrency { status } => {
                (*status, "concurrency", "Too many of your requests are being answered at the same time.")
            }
            Self::CircuitOpen { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "circuit_open",
                "The app behind this address is failing and is given time to recover.",
            ),
            Self::Denied => (StatusCode::FORBIDDEN, "denied", "Your address may not use this part of the site."),
            Self::Blocked => (StatusCode::FORBIDDEN, "blocked", "Your address has been blocked."),
            Self::NoRoute => (StatusCode::NOT_FOUND, "no_route", "There is nothing at this address."),
            Self::MethodNotAllowed(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "no_route", "This address does not take this method.")
            }
            Self::NoEndpoint => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_endpoint",
                "No instance of the app behind this address can take the request.",
            ),
            Self::ConnectFailed => {
                (StatusCode::BAD_GATEWAY, "connect_failed", "The app behind this address could not be reached.")
            }
            Self::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "connect_failed",
                "The app behind this address did not accept a connection in time.",
            ),
            Self::Shortage => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connect_failed",
                "The server has too much to do at the moment to get what is at this address.",
            ),
            Self::Unreadable => (StatusCode::FORBIDDEN, "denied", "The server may not read what is at this address."),
            Self::FileError => {
                (StatusCode::INTERNAL_SERVER_ERROR, "upstream_error", "What is at this address cannot be read.")
            }
            Self::UpstreamTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The app behind this address did not answer in time.")
            }
            Self::UpstreamError => {
                (StatusCode::BAD_GATEWAY, "upstream_error", "The app behind this address broke off its answer.")
            }
            Self::NotUpgraded => {
                (StatusCode::BAD_GATEWAY, "upstream_error", "The app behind this address did not open the stream.")
            }
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body of the request is larger than this site takes.")
            }
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "bad_request", "The body of the request did not arrive in time.")
            }
            Self::ClientLeft => (StatusCode::BAD_REQUEST, "bad_request", "The request was broken off."),
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, "bad_request", *detail),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "bad_request",
                "The connection was made for another host than the one that the request names.",
            ),
            Self::AdmittedOtherwise => (
                StatusCode::MISDIRECTED_REQUEST,
                "bad_request",
                "The connection was made before this site asked for certificates as it does now. Make another one.",
            ),
            Self::UriTooLong => {
                (StatusCode::URI_TOO_LONG, "too_large", "The address of the request is longer than this site takes.")
            }
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_large",
                "The headers of the request are larger than this site takes.",
            ),
            Self::HeadTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "bad_request", "The head of the request did not arrive in time.")
            }
        };
        let closes = matches!(
            self,
            Self::BodyTooLarge
                | Self::BodyTimeout
                | Self::ClientLeft
                | Self::BadRequest(_)
                | Self::AdmittedOtherwise
                | Self::UriTooLong
                | Self::HeadersTooLarge
                | Self::HeadTimeout
        );
        Row { status, reason, detail, closes }
    }

    /// Seconds for `Retry-After`, at least 1.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::Maintenance(maintained) | Self::FeatureOff(maintained) => Some(maintained.retry_after_secs.max(1)),
            Self::RateLimited { retry_after, .. } | Self::CircuitOpen { retry_after } => {
                Some(retry_seconds(*retry_after))
            }
            // When a place will be free nobody knows.
            Self::Concurrency { .. } | Self::Shortage => Some(1),
            _ => None,
        }
    }

    /// The code for a client of gRPC (its "Status codes and their use"). `UNAVAILABLE`, 14, invites it to send the same again:
    /// a client whose own request was too slow would be too slow again, and hears of its deadline.
    pub fn grpc_status(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } | Self::Concurrency { .. } | Self::BodyTooLarge => "8",
            Self::Denied | Self::Blocked | Self::Unreadable => "7",
            Self::NoRoute | Self::MethodNotAllowed(_) => "12",
            Self::UpstreamTimeout | Self::ConnectTimeout | Self::BodyTimeout | Self::HeadTimeout => "4",
            Self::BadRequest(_) | Self::UriTooLong | Self::HeadersTooLarge => "3",
            _ => "14",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_of_grpc_is_invited_to_send_what_is_too_large_again() {
        let too_large = [Refusal::UriTooLong, Refusal::HeadersTooLarge, Refusal::BodyTooLarge];
        assert_eq!(too_large.map(|refusal| refusal.grpc_status()), ["3", "3", "8"]);
        assert_eq!(Refusal::NoEndpoint.grpc_status(), "14");
    }

    #[test]
    fn whoever_was_late_a_client_of_grpc_hears_of_its_deadline() {
        let late = [Refusal::UpstreamTimeout, Refusal::ConnectTimeout, Refusal::BodyTimeout, Refusal::HeadTimeout];
        assert_eq!(late.map(|refusal| refusal.grpc_status()), ["4"; 4]);
    }
}
