//! The request as its endpoint gets it, and what is kept of it for a further try.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use super::super::body::{BodyFault, RequestBody};
use super::super::context::Context;
use super::super::refusal::Refusal;
use super::super::replay::Replay;
use crate::config::model;
use crate::listener::incoming::Incoming;
use crate::message::hop_by_hop;
use crate::snapshot::Route;

/// One request, ready to be sent, perhaps more than once.
pub(super) struct Outbound {
    /// `None` while it is on its way.
    request: Option<Request<RequestBody>>,
    /// The head once more, for as long as it may be sent again.
    spare: Option<Request<()>>,
    body: Kept,
    /// Why the client's body ended early, if it did.
    pub(super) fault: Option<Arc<BodyFault>>,
    /// Its method is one that may be sent twice.
    is_repeatable: bool,
    /// The endpoint may send it back although it was sent.
    may_be_refused: bool,
    pub(super) wants_upgrade: bool,
}

/// What there is of the body for a further try.
enum Kept {
    /// There is no body.
    Nothing,
    /// It is kept as it flows, up to a bound.
    Flowing(Replay),
    /// Nobody keeps it.
    Gone,
}

impl Outbound {
    /// Rewrites the request for its endpoint: one hop's fields off, the forwarding fields on.
    ///
    /// # Errors
    /// Its body is announced as longer than the route takes.
    pub(super) fn new(
        request: Request<Incoming>,
        route: &Route,
        settings: &model::Upstream,
        context: &mut Context,
    ) -> Result<Self, Refusal> {
        let retry = &settings.retry;
        let (mut parts, body) = request.into_parts();
        let announced = content_length(&parts.headers);
        if announced.zip(route.body_bytes_max).is_some_and(|(length, bytes_max)| length > bytes_max) {
            return Err(Refusal::BodyTooLarge);
        }
        let (body, fault) =
            RequestBody::new(body, route.body_bytes_max, route.timeouts.request_body, &context.connection);
        // HTTP/2 has no upgrades.
        let upgrade = if body.is_empty() && parts.method == Method::GET && !settings.http2 {
            hop_by_hop::upgrade_protocol(&parts.headers).cloned()
        } else {
            None
        };
        hop_by_hop::strip_request(&mut parts.headers, settings.http2);
        // hyper sends 100 Continue when the endpoint's connection asks for the first byte of the body.
        parts.headers.remove(EXPECT);
        context.forward_headers(&mut parts.headers);
        if let Some(protocol) = upgrade {
            hop_by_hop::set_upgrade(&mut parts.headers, protocol);
        }
        route.request_headers.apply(&mut parts.headers);
        if !settings.http2 && !body.is_empty() {
            keep_body(&parts.method, &mut parts.headers);
        }
        parts.uri = origin_form(&parts.uri, context.path(), route.strip_prefix.as_deref());
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let wants_upgrade = parts.headers.contains_key(UPGRADE);
        let repeats = retry.on.reset || !retry.on.statuses.0.is_empty();
        let is_repeatable = repeats && !wants_upgrade && retry.methods.contains(&parts.method);
        let fits = announced.is_none_or(|length| length <= retry.replay_bytes_max as u64);
        let (body, kept) = match body {
            RequestBody::Empty => (RequestBody::Empty, Kept::Nothing),
            body if (is_repeatable && retry.attempts > 0 || settings.http2) && fits => {
                let replay = Replay::new(body, retry.replay_bytes_max);
                (replay.first(), Kept::Flowing(replay))
            }
            body => (body, Kept::Gone),
        };
        let request = Some(Request::from_parts(parts, body));
        let may_be_refused = settings.http2;
        Ok(Self { request, spare: None, body: kept, fault, is_repeatable, may_be_refused, wants_upgrade })
    }

    /// The headers, while it is not on its way.
    pub(super) fn headers_mut(&mut self) -> Option<&mut HeaderMap> {
        self.request.as_mut().map(Request::headers_mut)
    }

    /// The request while it is not on its way.
    pub(super) fn request(&self) -> Option<&Request<RequestBody>> {
        self.request.as_ref()
    }

    /// Takes it to be sent. A copy of the head stays here where it may be sent again.
    pub(super) fn depart(&mut self) -> Option<Request<RequestBody>> {
        let request = self.request.take()?;
        let may_return = (self.is_repeatable || self.may_be_refused) && !matches!(self.body, Kept::Gone);
        self.spare = may_return.then(|| crate::proxy::head_of(&request));
        Some(request)
    }

    /// It came back: nothing of it was sent.
    pub(super) fn returned(&mut self, request: Request<RequestBody>) {
        self.request = Some(request);
    }

    /// Whether it can be sent: it never left, or came back.
    pub(super) fn is_here(&self) -> bool {
        self.request.is_some()
    }

    /// Makes it ready to be sent again after it was sent, wholly or in part, and may have been read; whether that can be done.
    pub(super) fn repeat(&mut self) -> bool {
        self.is_repeatable && self.repeat_unprocessed()
    }

    /// The same where it is known that nobody has looked at it: then any method may be repeated.
    pub(super) fn repeat_unprocessed(&mut self) -> bool {
        if self.fault.as_ref().is_some_and(|fault| fault.kind().is_some()) {
            return false;
        }
        let body = match &self.body {
            Kept::Nothing => Some(RequestBody::Empty),
            Kept::Flowing(replay) => replay.again(),
            Kept::Gone => None,
        };
        let (Some(body), Some(head)) = (body, self.spare.take()) else { return false };
        self.request = Some(head.map(|()| body));
        true
    }

    /// Bytes that wait with it, roughly.
    pub(super) fn weight(&self) -> usize {
        /// What a request costs beside its head: tasks, buffers.
        const BASE: usize = 2048;
        let fields = self.request.iter().flat_map(Request::headers);
        BASE + fields.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    }
}

/// Says that a body of unknown length follows a GET or HEAD: hyper, left alone, takes it for none, so that the app would get
/// a request that the client never sent, whole even where its body turns out to be malformed.
fn keep_body(method: &Method, headers: &mut HeaderMap) {
    if matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The target in origin form, with the path that was matched.
pub(crate) fn origin_form(uri: &Uri, path: &str, strip_prefix: Option<&str>) -> Uri {
    let path = match strip_prefix.and_then(|prefix| path.strip_prefix(prefix)) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    if uri.authority().is_none() && uri.path() == path {
        return uri.clone();
    }
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(text).expect("a normalised path and a parsed query make a target");
    Uri::from(target)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
