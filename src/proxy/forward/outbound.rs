//! The request as its endpoint gets it, and what is kept of it for a further try.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use http_body::Body as _;

use super::super::body::{Delivery, RequestBody};
use super::super::context::Context;
use super::super::decide;
use super::super::refusal::Refusal;
use super::super::replay::Replay;
use crate::config::model;
use crate::listener::incoming::Incoming;
use crate::message::{forwarded, hop_by_hop};
use crate::snapshot::Route;
use crate::upstream::connection::RequestHead;

/// One request, ready to be sent, perhaps more than once.
pub(super) struct Outbound {
    head: Parts,
    /// Fields beside those of the head.
    told: forwarded::Told,
    /// It goes out with the host that it came with, or that its route has set.
    names_host: bool,
    wants_upgrade: bool,
    /// `None` while it is on its way.
    body: Option<RequestBody>,
    kept: Kept,
    /// How the client's body comes, unless there is none.
    pub(super) delivery: Option<Arc<Delivery>>,
    /// Its method is one that may be sent twice.
    is_repeatable: bool,
    /// An answer may make it go on elsewhere.
    may_follow_an_answer: bool,
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
        head: Parts,
        body: Incoming,
        route: &Route,
        settings: &model::Upstream,
        context: &mut Context,
    ) -> Result<Box<Self>, Refusal> {
        let retry = &settings.retry;
        let announced = if body.is_end_stream() { None } else { decide::announced_body(&head.headers, route)? };
        let (body, delivery) =
            RequestBody::new(body, route.body_bytes_max, route.timeouts.request_body, &context.connection);
        // HTTP/2 has no upgrades, and in HTTP/1.0 they are to be ignored (RFC 9110, section 7.8).
        let knows_upgrades = head.version != Version::HTTP_10 && !settings.http2;
        let may_upgrade = knows_upgrades && body.is_empty() && head.method == Method::GET;
        // Made where it stays, before it is rewritten, and apart from the future of its request: that is not to be
        // larger than a KiB, for what is costs the allocator several times as much.
        let mut it = Box::write(
            Box::new_uninit(),
            Self {
                head,
                told: forwarded::Told::new(),
                names_host: false,
                wants_upgrade: false,
                body: None,
                kept: Kept::Nothing,
                delivery,
                is_repeatable: false,
                may_follow_an_answer: false,
            },
        );
        if body.is_empty() && context.noted.is_chunked {
            // Its framing ends here, and an app may insist on one where a body could be (RFC 9110, section 8.6).
            it.head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        it.rewrite(may_upgrade, route, settings.http2, context);
        let repeats = retry.on.reset || !retry.on.statuses.0.is_empty();
        it.is_repeatable = repeats && !it.wants_upgrade && retry.methods.contains(&it.head.method);
        it.may_follow_an_answer = it.is_repeatable && !retry.on.statuses.0.is_empty();
        let fits = announced.is_none_or(|length| length <= retry.replay_bytes_max as u64);
        it.body = Some(match body {
            RequestBody::Empty => RequestBody::Empty,
            body if (it.is_repeatable && retry.attempts > 0 || settings.http2) && fits => {
                let replay = Replay::new(body, retry.replay_bytes_max);
                let first = replay.first();
                it.kept = Kept::Flowing(replay);
                first
            }
            body => {
                it.kept = Kept::Gone;
                body
            }
        });
        Ok(it)
    }

    /// Takes one hop's fields off and puts on what its endpoint is to know.
    fn rewrite(&mut self, may_upgrade: bool, route: &Route, is_http2: bool, context: &Context) {
        let (head, noted) = (&mut self.head, &context.noted);
        let may_upgrade = may_upgrade && noted.asks_to_upgrade;
        let upgrade = if may_upgrade { hop_by_hop::upgrade_protocol(&head.headers).cloned() } else { None };
        hop_by_hop::strip_request(&mut head.headers, is_http2);
        if noted.has_expectation {
            // 100 Continue is sent to the client when the endpoint's connection asks for the first byte of the body.
            head.headers.remove(EXPECT);
        }
        self.told = context.forward_headers(&mut head.headers);
        self.wants_upgrade = upgrade.is_some();
        if let Some(protocol) = upgrade {
            hop_by_hop::set_upgrade(&mut head.headers, protocol);
        }
        let mut names_host = route.preserve_host && noted.host.is_some();
        if !route.request_headers.is_empty() {
            forwarded::put(&mut head.headers, self.told.drain(..));
            route.request_headers.apply(&mut head.headers);
            let keeps_host = route.preserve_host || route.request_headers.sets(&HOST);
            names_host = keeps_host && head.headers.contains_key(HOST);
        }
        self.names_host = names_host;
        if let Some(target) = target(&head.uri, context.path(), route.strip_prefix.as_deref()) {
            head.uri = target;
        }
        head.version = Version::HTTP_11;
        head.extensions.clear();
    }

    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead { parts: &self.head, told: &self.told }
    }

    pub(super) fn wants_upgrade(&self) -> bool {
        self.wants_upgrade
    }

    pub(super) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.head.headers
    }

    /// Says that it is for `host`, unless it names one that stays: HTTP/1.0 may come without, HTTP/1.1 may
    /// not leave without.
    pub(super) fn address(&mut self, host: &HeaderValue) {
        if !self.names_host {
            self.head.headers.insert(HOST, host.clone());
        }
    }

    /// The map of its fields, where nobody needs those once there is an answer.
    pub(super) fn spare(&mut self) -> Option<&mut HeaderMap> {
        if self.may_follow_an_answer { None } else { Some(&mut self.head.headers) }
    }

    /// Takes its body to be sent; with that, it is on its way.
    pub(super) fn depart(&mut self) -> Option<RequestBody> {
        self.body.take()
    }

    /// It came back: nothing of it was sent.
    pub(super) fn returned(&mut self, body: RequestBody) {
        self.body = Some(body);
    }

    /// Whether it can be sent: it never left, or came back.
    pub(super) fn is_here(&self) -> bool {
        self.body.is_some()
    }

    /// Whether it could be sent again, as things stand. Who is about to ask for that reads its body no further.
    pub(super) fn may_repeat(&self) -> bool {
        self.is_repeatable
            && match &self.kept {
                Kept::Nothing => true,
                Kept::Flowing(replay) => replay.is_at_hand(),
                Kept::Gone => false,
            }
    }

    /// Makes it ready to be sent again after it was sent, wholly or in part, and may have been read; whether that can
    /// be done.
    pub(super) fn repeat(&mut self) -> bool {
        self.is_repeatable && self.repeat_unprocessed()
    }

    /// The same where it is known that nobody has looked at it: then any method may be repeated.
    pub(super) fn repeat_unprocessed(&mut self) -> bool {
        if self.delivery.as_ref().is_some_and(|delivery| delivery.fault().is_some()) {
            return false;
        }
        self.body = match &self.kept {
            Kept::Nothing => Some(RequestBody::Empty),
            Kept::Flowing(replay) => replay.again(),
            Kept::Gone => None,
        };
        self.body.is_some()
    }

    /// Bytes that wait with it, roughly.
    pub(super) fn weight(&self) -> usize {
        /// What a request costs beside its head: tasks, buffers.
        const BASE: usize = 2048;
        let told = self.told.iter().map(|(name, value)| (*name, value));
        let fields = self.head.headers.iter().chain(told);
        BASE + fields.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    }
}

/// The target in origin form, with the path that was matched; `None` where it came so.
pub fn target(uri: &Uri, path: &str, strip_prefix: Option<&str>) -> Option<Uri> {
    let path = match strip_prefix.and_then(|prefix| path.strip_prefix(prefix)) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    if uri.authority().is_none() && uri.path() == path {
        return None;
    }
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(text).expect("a normalised path and a parsed query make a target");
    Some(Uri::from(target))
}
