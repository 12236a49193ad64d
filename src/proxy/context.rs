//! What is known about one request from its head to the last byte of its answer.
//!
//! The context rides in the answer's body (or in its tunnel) and is dropped with it, however that ends: finished,
//! broken off or abandoned by the client. Dropping it writes the log line and counts the request.

use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use smallvec::SmallVec;

use super::body::{Body, BodyError};
use super::connect::Connect;
use super::cut;
use super::decide::{Asked, Verdict, came_by_https, facts_of};
use super::noted::Noted;
use super::refusal::{CLIENT_CLOSED_REQUEST, Refusal};
use super::trace::Trace;
use crate::error::with_causes;
use crate::listener::connection::Connection;
use crate::listener::head::BadHead;
use crate::listener::http2::arrive::StreamFacts;
use crate::message::host::Host;
use crate::message::{forwarded, hexadecimal};
use crate::policy::limit::Slot;
use crate::policy::maintenance::{Active, Facts};
use crate::route::PathPattern;
use crate::snapshot::{Route, Snapshot, Switched};
use crate::telemetry::access_log;
use crate::telemetry::traces::{Finished, shortened};
use crate::upstream::lease::Upgraded;

/// 32 hexadecimal digits, as nginx's `$request_id`.
fn new_request_id(random: u128) -> HeaderValue {
    let mut value = HeaderValue::from_maybe_shared(digits(random)).expect("hexadecimal digits are a header value");
    // Never the same twice: HPACK does not put it in its table, where it would drive out what is (RFC 7541, 6.2.3).
    value.set_sensitive(true);
    value
}

/// Owned rather than copied: clones share it without an allocation more. Apart, because a loop over what is known to be
/// 32 bytes is unrolled, and one over any number of bytes, as that which looks at them next, becomes vector
/// instructions.
#[inline(never)]
fn digits(random: u128) -> Bytes {
    Bytes::from_owner(hexadecimal::digits(random))
}

/// What a request asks for, shared by all that want to know until its end.
pub(super) struct Line {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
}

/// One request. It stays below a KiB: what is larger costs the allocator ten times as much.
pub(crate) struct Context {
    pub(super) connection: Arc<Connection>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) began: Instant,
    /// When nothing kept it from its endpoint any more: when it began, unless it had to wait. To ask the clock again
    /// costs more than the time that it would tell of.
    pub(super) admitted: Instant,
    pub(super) line: Arc<Line>,
    pub(super) noted: Noted,
    pub(super) client_ip: IpAddr,
    peer_is_trusted: bool,
    host: Host,
    /// What its client's first line of HTTP/2 said, until it is located.
    pub(super) named: Option<Host>,
    /// Where it differs from what the client sent.
    normal_path: Option<Box<str>>,
    pub(super) request_id: HeaderValue,
    pub(super) route: Option<Arc<Route>>,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) upstream_duration: Option<Duration>,
    pub(super) reason: Option<&'static str>,
    /// Which limit, feature, breaker or flag that was.
    pub(super) decided_by: Option<Arc<str>>,
    /// Its places among the requests in flight, until the answer's last byte.
    pub(super) slots: SmallVec<[Slot; 1]>,
    /// `RateLimit` of a limited route.
    pub(super) rate_limit: Option<HeaderValue>,
    /// Its client asks for another protocol on one stream of HTTP/2.
    pub(super) connect: Option<Box<Connect>>,
    /// Set between a 101 and its way to the client.
    pub(super) tunnel: Option<(Upgraded, Duration)>,
    status: Option<StatusCode>,
    /// Before it had sent all of its request.
    pub(super) has_client_left: bool,
    body_bytes: u64,
    /// The client may see the app in maintenance.
    pub(super) is_bypassed: bool,
    /// Why its head is refused, where that was not done before.
    pub(super) bad_head: Option<BadHead>,
    /// `None` = tracing is off, and all that this costs.
    pub(super) trace: Option<Box<Trace>>,
    cut: cut::Watch,
}

impl Context {
    /// Takes down what is needed later; nothing is decided yet.
    pub(super) fn begin<B>(
        request: &Request<B>,
        connection: Arc<Connection>,
        snapshot: Arc<Snapshot>,
        stream: Option<&mut StreamFacts>,
    ) -> Box<Self> {
        let StreamFacts { bad_head, connect, host: named } = stream.map(mem::take).unwrap_or_default();
        let headers = request.headers();
        let client = snapshot.trusted.resolve(connection.peer_ip, headers, snapshot.client_ip_header);
        let kept = forwarded::kept_request_id(headers, client.peer_trusted).cloned();
        let request_id = kept.unwrap_or_else(|| new_request_id(fastrand::u128(..)));
        let bypass = snapshot.maintenance.bypass.as_ref();
        let is_bypassed = bypass.is_some_and(|bypass| bypass.admits(headers));
        let came_by_https = || came_by_https(connection.is_tls(), client.peer_trusted, headers, &snapshot);
        let trace = snapshot.traced.map(|share| Trace::begin(headers, share, came_by_https));
        let began = Instant::now();
        let line = Line { method: request.method().clone(), uri: request.uri().clone(), version: request.version() };
        let line = Arc::new(line);
        // Made where it stays, rather than moved there: nothing that could fail comes between.
        let mut context = Box::write(
            Box::new_uninit(),
            Self {
                connection,
                began,
                admitted: began,
                line,
                noted: Noted::default(),
                client_ip: client.ip,
                peer_is_trusted: client.peer_trusted,
                host: Host::default(),
                named,
                normal_path: None,
                request_id,
                route: None,
                upstream: None,
                endpoint: None,
                upstream_duration: None,
                reason: None,
                decided_by: None,
                slots: SmallVec::new(),
                rate_limit: None,
                connect,
                tunnel: None,
                status: None,
                has_client_left: false,
                body_bytes: 0,
                is_bypassed,
                bad_head,
                trace,
                cut: cut::Watch::new(&snapshot),
                snapshot,
            },
        );
        context.noted.gather(headers);
        context
    }

    pub(crate) fn worker(&self) -> usize {
        self.connection.worker
    }

    pub(super) fn is_head(&self) -> bool {
        self.line.method == Method::HEAD
    }

    pub(super) fn version(&self) -> Version {
        self.line.version
    }

    pub(super) fn is_tls(&self) -> bool {
        self.connection.is_tls()
    }

    /// What of the request decides where it goes.
    pub(super) fn asked<'a, B>(&'a self, request: &'a Request<B>) -> Asked<'a> {
        Asked {
            listener: &self.connection.listener,
            is_tls: self.is_tls(),
            peer_is_trusted: self.peer_is_trusted,
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            host: self.host(),
            path: self.path(),
            client_ip: self.client_ip,
            is_bypassed: self.is_bypassed,
        }
    }

    /// Lower-case, without port; empty when the request names none.
    pub(super) fn host(&self) -> &str {
        self.host.name()
    }

    /// Normalised, once [`Self::locate`] has said so; what is matched and forwarded.
    pub(super) fn path(&self) -> &str {
        self.normal_path.as_deref().unwrap_or(self.line.uri.path())
    }

    /// Where the request goes. `normal_path` is `None` when it came in that form.
    pub(super) fn locate(&mut self, host: Host, normal_path: Option<Box<str>>) {
        (self.host, self.normal_path) = (host, normal_path);
    }

    /// The route is known: the request counts as in flight there.
    pub(super) fn enter(&mut self, route: Arc<Route>) {
        route.metrics.begin(self.worker());
        self.route = Some(route);
    }

    /// Makes room for the fields that tell the app about its client (docs/routes.md, "Headers that the app gets"), and
    /// returns them.
    pub(super) fn forward_headers(&self, headers: &mut HeaderMap) -> forwarded::Told {
        let facts = forwarded::Facts {
            peer_trusted: self.peer_is_trusted,
            client: self.connection.client_text(self.client_ip),
            peer_ip: self.connection.peer_ip,
            proto: if self.is_tls() { "https" } else { "http" },
            host: self.noted.host.clone(),
            request_id: self.request_id.clone(),
        };
        if let Some(arrival) = self.snapshot.arrival(self.peer_is_trusted, headers) {
            forwarded::prefer(headers, arrival.proto.as_deref(), arrival.host.as_deref());
        }
        let told = forwarded::replace(headers, facts);
        self.tell_certificate(headers);
        if let Some(trace) = &self.trace {
            trace.tell(headers);
        }
        told
    }

    /// Where the client was asked for a certificate, has what it showed stand in place of what it says of one.
    pub(super) fn tell_certificate(&self, headers: &mut HeaderMap) {
        if let Some(tls) = self.connection.tls.as_ref().filter(|tls| tls.is_asked_for_certificate()) {
            let shown = tls.certificate.as_ref();
            let (subject, whole) = (shown.and_then(|it| it.subject.clone()), shown.and_then(|it| it.whole.clone()));
            forwarded::set_client_certificate(headers, subject, whole);
        }
    }

    /// Notes the answer's status and lets the context live on in its body.
    pub(super) fn attach(mut self: Box<Self>, response: &mut Response<Body>) {
        self.status = (!self.has_client_left).then_some(response.status());
        response.body_mut().attach(self);
    }

    /// Its answer went nowhere: the stream had been reset meanwhile. Nobody was answered then, unless the answer is to what
    /// it was reset for.
    pub(crate) fn was_unsent(&mut self) {
        if self.reason != Some("bad_request") {
            (self.status, self.reason, self.decided_by) = (None, None, None);
        }
    }

    /// Counts body bytes on their way to the client.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    /// The answer ends here, short of its length; the client will see that.
    pub(crate) fn broke_off(&mut self, error: &BodyError) {
        let (upstream, endpoint) = (self.upstream.as_deref(), self.endpoint.as_deref());
        tracing::debug!(error = with_causes(error), upstream, endpoint, "answer broke off");
        if self.line.version < Version::HTTP_11 {
            // Without chunks, the end of the connection may be the end of the answer.
            self.connection.end_in_reset();
        }
        self.reason = Some(match error {
            BodyError::Cut => "maintenance",
            BodyError::Timeout => "upstream_timeout",
            BodyError::Undelivered(fault) => Refusal::of_fault(*fault).row().reason,
            _ => "upstream_error",
        });
    }

    /// Whether maintenance cuts this request, which is being answered. Its connection's task is woken when that may
    /// have changed.
    pub(crate) fn is_cut(&mut self) -> bool {
        self.cut.is_new_round(&self.snapshot) && self.cut_by().is_some()
    }

    /// The maintenance that cuts requests such as it.
    pub(super) fn cut_by(&self) -> Option<Arc<Active>> {
        self.snapshot.shared.switch.load()?.cutting(&self.facts()).cloned()
    }

    /// What has been switched against it since it was let pass, in the order of [`super::decide::decide`].
    pub(super) fn turned_away(&self) -> Option<Verdict<'static>> {
        let shared = &self.snapshot.shared;
        let feature = self.route.as_ref().and_then(|route| route.feature.as_ref());
        let maintenance = || {
            let state = shared.switch.load()?;
            state.check(&self.facts()).cloned().map(Verdict::Maintenance)
        };
        let blocked = || shared.runtime.blocked.contains(self.client_ip).then_some(Verdict::Blocked);
        feature.and_then(Switched::off).map(Verdict::FeatureOff).or_else(maintenance).or_else(blocked)
    }

    fn facts(&self) -> Facts<'_> {
        let place = (self.host(), self.path());
        let client = (self.client_ip, self.is_bypassed);
        facts_of(self.route.as_deref(), place, &self.line.method, client, &self.snapshot)
    }

    /// `target` is the request's own.
    fn line<'a>(&'a self, target: &'a str, duration: Duration) -> access_log::Line<'a> {
        access_log::Line {
            unix_ms: self.snapshot.shared.unix_ms_at(self.began + duration),
            client: self.connection.is_named(self.client_ip).then_some(self.client_ip),
            authorization: self.noted.authorization.as_ref().map(HeaderValue::as_bytes),
            method: self.line.method.as_str(),
            target: target.as_bytes(),
            version: self.line.version,
            status: self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16()),
            body_bytes: self.body_bytes,
            duration,
            upstream: self.upstream.as_deref(),
            endpoint: self.endpoint.as_deref(),
            upstream_duration: self.upstream_duration,
            route: self.route.as_ref().map(|route| &*route.name),
            reason: self.reason,
            request_id: self.request_id.to_str().ok(),
            trace_id: self.trace.as_ref().map(|trace| trace.context.trace_id_text()),
            referer: self.noted.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: self.noted.user_agent.as_ref().map(HeaderValue::as_bytes),
            host: self.noted.host.as_ref().map(HeaderValue::as_bytes),
        }
    }

    /// Leaves what is known of a recorded request to be exported.
    #[cold]
    fn export(&mut self, duration: Duration) {
        let Some(trace) = self.trace.take() else { return };
        let Some(recording) = trace.recording else { return };
        let route = self.route.as_ref().map(|route| Arc::clone(&route.name));
        let finished = Finished {
            context: trace.context,
            parent: recording.parent,
            tracestate: recording.tracestate,
            began: recording.began,
            began_at: self.began,
            duration,
            method: self.line.method.clone(),
            scheme: if recording.came_by_https { "https" } else { "http" },
            path: shortened(self.path()),
            query: self.line.uri.query().map(shortened),
            host: self.host.name().to_owned(),
            port: self.host.port(),
            client: self.client_ip,
            peer: self.connection.peer,
            version: self.line.version,
            user_agent: self.noted.user_agent.as_ref().and_then(|agent| agent.to_str().ok()).map(shortened),
            request_id: self.request_id.to_str().map(shortened).unwrap_or_default(),
            status: self.status.map(|status| status.as_u16()),
            body_bytes: self.body_bytes,
            pattern: route.as_ref().and_then(|route| self.pattern(route)),
            route,
            reason: self.reason,
            decided_by: self.decided_by.clone(),
            upstream: self.upstream.clone(),
            attempts: recording.attempts,
        };
        self.snapshot.shared.traces.push(Box::new(finished));
    }

    /// The path of this route that covers the request: the longest.
    fn pattern(&self, route: &str) -> Option<String> {
        let settings = self.snapshot.config.routes.iter().find(|settings| settings.name == *route)?;
        let patterns = settings.paths.iter().filter_map(|text| PathPattern::parse(text).ok());
        let covering = patterns.filter(|pattern| pattern.matches(self.path()));
        covering.max_by_key(|pattern| pattern.as_str().len()).map(|pattern| pattern.as_str().to_owned())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.status.is_none() {
            // The client left before it was told.
            (self.reason, self.decided_by) = (None, None);
        }
        let duration = self.began.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        match &self.route {
            Some(route) => route.metrics.end(self.worker(), status, duration),
            None => {
                self.snapshot.no_route.begin(self.worker());
                self.snapshot.no_route.end(self.worker(), status, duration);
            }
        }
        let line = |target: &str| {
            let line = self.line(target, duration);
            self.snapshot.access_log.write(self.worker(), &line);
            self.snapshot.shared.recent.note(self.worker(), &line, self.decided_by.as_deref());
        };
        match self.line.uri.path_and_query() {
            // The authority of HTTP/2 is a field of its own.
            Some(target) if self.line.uri.authority().is_none() || self.line.version == Version::HTTP_2 => {
                line(target.as_str());
            }
            _ => line(&self.line.uri.to_string()),
        }
        self.connection.head_answered();
        if self.trace.as_ref().is_some_and(|trace| trace.recording.is_some()) {
            self.export(duration);
        }
    }
}
