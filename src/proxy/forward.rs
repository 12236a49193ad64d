//! Sending a request upstream: breaker, balance, connection, exchange, and what a failure means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::body::{Body, BodyFault, Fault, RequestBody, UpstreamBody};
use super::context::Context;
use super::refusal::Refusal;
use super::tunnel::Tunnel;
use crate::breaker::{Outcome, OwnedPermit};
use crate::config::model::{FailureClasses, HashKey};
use crate::message::hop_by_hop;
use crate::snapshot::{Route, Target};
use crate::upstream::connect::ConnectError;
use crate::upstream::endpoint::Lease;
use crate::upstream::group::Group;

/// Forwards a request and returns the answer's head with its body still flowing. The request's body is taken out of it
/// only once the breaker lets it through.
///
/// # Errors
/// No endpoint answered; the refusal says why.
///
/// # Cancel safety
/// Dropped when the client leaves: the exchange is cut, the breaker's permit and the in-flight counts go with it.
pub(super) async fn send(
    request: &mut Request<Option<Incoming>>,
    target: &Target,
    route: &Route,
    context: &mut Context,
) -> Result<Response<Body>, Refusal> {
    let group = &target.group;
    context.upstream = Some(Arc::clone(&group.name));
    let permit = admit(group)?;
    let (parts, body) = std::mem::take(request).into_parts();
    let request = Request::from_parts(parts, body.expect("nobody else takes the body"));
    let (outbound, fault) = outbound(request, route, context)?;
    let mut exchange = Exchange {
        group,
        route,
        context,
        tried: smallvec::SmallVec::new(),
        hash: 0,
        attempts_left: group.settings.retry.attempts,
        wants_upgrade: outbound.headers().contains_key(UPGRADE),
        body: fault.clone(),
    };
    exchange.hash = exchange.hash_of(&outbound);
    let result = exchange.run(outbound).await;
    settle(permit, &result, fault.as_deref(), &group.settings.breaker.count);
    let answered = match result {
        Ok(answered) => answered,
        Err(failure) => {
            return Err(match fault.and_then(|fault| fault.kind()) {
                Some(fault) => refusal_of_fault(fault),
                None => failure.refusal(),
            });
        }
    };
    exchange.downstream(answered)
}

/// Asks the breaker; the error answers at once.
fn admit(group: &Group) -> Result<Option<OwnedPermit>, Refusal> {
    let Some(breaker) = &group.breaker else { return Ok(None) };
    breaker.try_acquire_owned(Instant::now()).map(Some).map_err(|rejected| {
        group.metrics.rejected();
        Refusal::CircuitOpen { retry_after: rejected.retry_after }
    })
}

/// Tells the breaker what the upstream did. What the client did is no verdict: the permit is dropped.
fn settle(
    permit: Option<OwnedPermit>,
    result: &Result<Answered, Failure>,
    fault: Option<&BodyFault>,
    count: &FailureClasses,
) {
    let Some(permit) = permit else { return };
    let outcome = match result {
        Ok(answered) if count.statuses.contains(answered.response.status()) => Outcome::Failure,
        Ok(answered) if answered.response.status() == StatusCode::TOO_MANY_REQUESTS => Outcome::TooManyRequests,
        Ok(answered) => Outcome::Success { latency: answered.latency },
        Err(_) if fault.is_some_and(|fault| fault.kind().is_some()) => return,
        Err(failure) if failure.counts(count) => Outcome::Failure,
        Err(_) => return,
    };
    permit.record(outcome, Instant::now());
}

fn refusal_of_fault(fault: Fault) -> Refusal {
    match fault {
        Fault::Timeout => Refusal::BodyTimeout,
        Fault::TooLarge => Refusal::BodyTooLarge,
        Fault::Broken => Refusal::BadRequest("The body of the request is malformed."),
        Fault::Left => Refusal::ClientLeft,
    }
}

/// Why an exchange brought no answer.
#[derive(Debug)]
enum Failure {
    NoEndpoint,
    Connect(ConnectError),
    /// No response head within the route's `response_head`.
    HeadTimeout,
    /// The connection broke before a response head, or what came was no HTTP.
    Reset,
}

impl Failure {
    fn refusal(&self) -> Refusal {
        match self {
            Self::NoEndpoint => Refusal::NoEndpoint,
            Self::Connect(ConnectError::Timeout { .. }) => Refusal::ConnectTimeout,
            Self::Connect(_) => Refusal::ConnectFailed,
            Self::HeadTimeout => Refusal::UpstreamTimeout,
            Self::Reset => Refusal::UpstreamError,
        }
    }

    fn counts(&self, classes: &FailureClasses) -> bool {
        match self {
            Self::NoEndpoint => false,
            Self::Connect(_) => classes.connect,
            Self::HeadTimeout => classes.timeout,
            Self::Reset => classes.reset,
        }
    }
}

/// A response head, and the connection its body comes on.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    latency: Duration,
}

/// No response head came in time.
struct HeadLate;

/// What one try on one connection came to.
enum Tried {
    Answered(Box<Answered>),
    /// Nothing of it was sent: it may go elsewhere, whatever its method.
    Unsent(Box<Request<RequestBody>>),
    Failed(Failure),
}

/// One request on its way, over as many connections as it takes.
struct Exchange<'a> {
    group: &'a Group,
    route: &'a Route,
    context: &'a mut Context,
    /// Endpoints that failed this request.
    tried: smallvec::SmallVec<[usize; 4]>,
    hash: u64,
    attempts_left: u32,
    wants_upgrade: bool,
    /// What becomes of the request's body, when it has one.
    body: Option<Arc<BodyFault>>,
}

impl Exchange<'_> {
    async fn run(&mut self, mut request: Request<RequestBody>) -> Result<Answered, Failure> {
        let mut last = Failure::NoEndpoint;
        loop {
            let Some(index) = self.group.pick(self.hash, &self.tried) else { return Err(last) };
            // A copy to send again, where sending again is safe: no body, and a method that may be repeated.
            let copy = self.may_repeat(&request).then(|| copy_of(&request));
            let failure = match self.on_endpoint(index, request).await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            let (failure, unsent) = failure;
            request = match unsent.map(|request| *request).or(copy) {
                Some(request) if self.takes_another_try(&failure) => request,
                _ => return Err(failure),
            };
            self.group.metrics.retried();
            self.tried.push(index);
            last = failure;
        }
    }

    /// One endpoint: kept connections first, then a fresh one.
    ///
    /// A kept connection may be closed by the endpoint at the very moment it is used. That costs no attempt: the
    /// request goes on to another connection, when nothing of it was sent or nothing can have been done twice.
    async fn on_endpoint(
        &mut self,
        index: usize,
        mut request: Request<RequestBody>,
    ) -> Result<Answered, (Failure, Option<Box<Request<RequestBody>>>)> {
        let endpoint = self.group.endpoint(index);
        // HTTP/1.0 may come without a Host, HTTP/1.1 may not leave without one.
        if !self.route.preserve_host || !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, endpoint.host.clone());
        }
        self.context.endpoint = Some(Arc::clone(&endpoint.label));
        let worker = self.context.worker();
        while let Some(sender) = endpoint.kept(worker).await {
            let copy = self.may_repeat(&request).then(|| copy_of(&request));
            let lease = Lease::new(endpoint.enter(), sender, worker);
            request = match self.on_connection(lease, request).await {
                Tried::Answered(answered) => return Ok(*answered),
                Tried::Unsent(request) => *request,
                Tried::Failed(Failure::Reset) if copy.is_some() => copy.expect("looked at in the guard"),
                Tried::Failed(failure) => return Err((failure, None)),
            };
        }
        let in_flight = endpoint.enter();
        let sender = match endpoint.connect(self.route.timeouts.connect).await {
            Ok(sender) => sender,
            Err(error) => {
                tracing::debug!(endpoint = &*endpoint.label, %error, "cannot connect");
                return Err((Failure::Connect(error), Some(Box::new(request))));
            }
        };
        match self.on_connection(Lease::new(in_flight, sender, worker), request).await {
            Tried::Answered(answered) => Ok(*answered),
            Tried::Unsent(request) => Err((Failure::Reset, Some(request))),
            Tried::Failed(failure) => Err((failure, None)),
        }
    }

    async fn on_connection(&mut self, mut lease: Lease, request: Request<RequestBody>) -> Tried {
        let began = Instant::now();
        let answer = self.in_time(lease.send(request)).await;
        let latency = began.elapsed();
        self.context.upstream_duration = Some(latency);
        match answer {
            Ok(Ok(response)) => {
                self.group.metrics.answered(self.context.worker(), latency);
                Tried::Answered(Box::new(Answered { response, lease, latency }))
            }
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Tried::Unsent(Box::new(request)),
                None => {
                    tracing::debug!(error = %error.error(), "no answer from the upstream");
                    Tried::Failed(Failure::Reset)
                }
            },
            Err(HeadLate) => Tried::Failed(Failure::HeadTimeout),
        }
    }

    /// Waits for the answer's head. The time counts from the last moment that the endpoint took some of the request's
    /// body: a long upload is no slow answer, and a slow client has a timeout of its own.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, HeadLate> {
        let limit = self.route.timeouts.response_head;
        let mut answer = std::pin::pin!(answer);
        let Some(body) = &self.body else {
            return tokio::time::timeout(limit, answer).await.map_err(|_| HeadLate);
        };
        let mut seen = (body.progress(), body.has_ended());
        loop {
            if let Ok(answer) = tokio::time::timeout(limit, answer.as_mut()).await {
                return Ok(answer);
            }
            let now = (body.progress(), body.has_ended());
            if now == seen && !body.waits_for_client() {
                return Err(HeadLate);
            }
            seen = now;
        }
    }

    fn may_repeat(&self, request: &Request<RequestBody>) -> bool {
        request.body().is_empty()
            && self.group.settings.retry.on.reset
            && self.group.settings.retry.methods.contains(request.method())
            && !self.wants_upgrade
    }

    fn takes_another_try(&mut self, failure: &Failure) -> bool {
        let retry = &self.group.settings.retry;
        let listed = match failure {
            Failure::Connect(_) => retry.on.connect,
            Failure::Reset => retry.on.reset,
            Failure::HeadTimeout | Failure::NoEndpoint => false,
        };
        let takes = listed && self.attempts_left > 0;
        self.attempts_left = self.attempts_left.saturating_sub(1);
        takes
    }

    fn hash_of(&self, request: &Request<RequestBody>) -> u64 {
        let crate::config::model::Balance::Hash(key) = &self.group.settings.balance else { return 0 };
        match key {
            HashKey::ClientIp => crate::snapshot::hash(&self.context.client_ip),
            HashKey::Header(name) => crate::snapshot::hash(&request.headers().get(name).map(HeaderValue::as_bytes)),
            HashKey::Cookie(name) => crate::snapshot::hash(&cookie(request.headers(), name)),
            HashKey::Uri => crate::snapshot::hash(&request.uri().path()),
        }
    }

    /// Makes the upstream's answer the client's.
    fn downstream(&mut self, answered: Answered) -> Result<Response<Body>, Refusal> {
        let Answered { mut response, lease, .. } = answered;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // Unasked, it would turn what the client sends next into bytes that nobody has judged.
            return if self.wants_upgrade { Ok(self.switch(response, lease)) } else { Err(Refusal::UpstreamError) };
        }
        hop_by_hop::strip_response(response.headers_mut());
        response.extensions_mut().clear();
        *response.version_mut() = Version::HTTP_11;
        let timeout = self.route.timeouts.response_body;
        let request = self.body.take();
        Ok(response.map(|incoming| Body::upstream(UpstreamBody::new(incoming, timeout, lease, request))))
    }

    /// Both sides agreed to speak something else: what follows is a tunnel.
    fn switch(&mut self, mut response: Response<Incoming>, lease: Lease) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut response);
        let (parts, _) = response.into_parts();
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = parts.headers;
        let protocol = answer.headers().get(UPGRADE).cloned();
        hop_by_hop::strip_response(answer.headers_mut());
        if let Some(protocol) = protocol {
            hop_by_hop::set_upgrade(answer.headers_mut(), protocol);
        }
        self.context.tunnel = Some((upgrade, self.route.timeouts.stream_idle, lease));
        answer
    }
}

impl Context {
    /// Hands the tunnel of an accepted upgrade to the connection's driver, and itself along with it.
    pub(super) fn into_tunnel(mut self: Box<Self>) {
        if let Some((upgrade, idle, lease)) = self.tunnel.take() {
            let connection = Arc::clone(&self.connection);
            connection.set_tunnel(Tunnel { upgrade, idle, lease, context: self });
        }
    }
}

/// Rewrites the request for its endpoint: one hop's fields off, the forwarding fields on.
fn outbound(
    request: Request<Incoming>,
    route: &Route,
    context: &mut Context,
) -> Result<(Request<RequestBody>, Option<Arc<BodyFault>>), Refusal> {
    let (mut parts, body) = request.into_parts();
    let announced = content_length(&parts.headers);
    if announced.zip(route.body_bytes_max).is_some_and(|(length, bytes_max)| length > bytes_max) {
        return Err(Refusal::BodyTooLarge);
    }
    let (body, fault) = RequestBody::new(body, route.body_bytes_max, route.timeouts.request_body);
    let upgrade = if body.is_empty() && parts.method == Method::GET {
        hop_by_hop::upgrade_protocol(&parts.headers).cloned()
    } else {
        None
    };
    hop_by_hop::strip_request(&mut parts.headers, false);
    // hyper sends 100 Continue when the endpoint's connection asks for the first byte of the body.
    parts.headers.remove(EXPECT);
    context.forward_headers(&mut parts.headers);
    if let Some(protocol) = upgrade {
        hop_by_hop::set_upgrade(&mut parts.headers, protocol);
    }
    route.request_headers.apply(&mut parts.headers);
    parts.uri = origin_form(&parts.uri, &context.path, route.strip_prefix.as_deref());
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok((Request::from_parts(parts, body), fault))
}

/// The target in origin form, with the path that was matched.
fn origin_form(uri: &Uri, path: &str, strip_prefix: Option<&str>) -> Uri {
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

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn cookie<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}
