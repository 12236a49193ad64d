//! The way of a request, top to bottom.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::body::Body;
use super::context::Context;
use super::cut::Known;
use super::decide::{self, Decision, Switches, Verdict, decide};
use super::head_of;
use super::refusal::Refusal;
use super::{bypass, connect, files, forward, https, limits, respond, stage, unread};
use crate::listener::connection::Connection;
use crate::listener::http2::arrive::StreamFacts;
use crate::listener::incoming::Incoming;
use crate::message::cookie;
use crate::message::host::Host;
use crate::snapshot::{Action, Snapshot, Switched};

/// Answers one request, in `answer`, by the generation that it came in. Never fails: what goes wrong is an answer too.
/// Its body is there; `stream` is of one of HTTP/2.
///
/// Request and answer stay with the caller: a future holds each of its arguments twice, and each future between would
/// move what it returns.
pub(crate) async fn handle(
    request: &mut Request<Option<Incoming>>,
    answer: &mut Option<Response<Body>>,
    connection: Arc<Connection>,
    snapshot: &Arc<Snapshot>,
    stream: Option<&mut StreamFacts>,
) {
    let mut context = Context::begin(request, connection, Arc::clone(snapshot), stream);
    let asker = respond::Asker::of(request, &context);
    let served = {
        let mut known = Known::of(&context, snapshot);
        // Pinned here and lent on: a future of that size is not to be moved.
        let serving = pin!(serve(request, answer, &mut context, snapshot));
        known.unless_cut(serving).await
    };
    let result = served.unwrap_or_else(|active| Err(turn_away(&Verdict::Maintenance(active), &mut context)));
    // A stream that broke a rule is reset already, and lives no longer than until it waits.
    if !matches!(result, Err(Refusal::BadRequest(_))) {
        stage::end(context.version()).await;
    }
    let result = result.and_then(|()| answer.as_ref().map_or(Ok(()), |answer| connect::judge(answer, &context)));
    let is_refusal = result.is_err();
    if let Err(refusal) = result {
        *answer = Some(respond::refuse(&refusal, asker, &mut context));
    }
    let Some(response) = answer else { unreachable!("what is not refused has been answered") };
    let is_clean = match request.body_mut().take() {
        Some(unread) if unread.is_end_stream() => true,
        Some(unread) => Box::pin(unread::drain(unread, context.noted.expects_continue)).await,
        // Whoever took it may have left some of it, unless the app has answered.
        None => !is_refusal || !asker.has_body,
    };
    // A stream that is not read to its end is reset behind its answer (RFC 9113, section 8.1); the connection lives on.
    let is_last = context.connection.is_last() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if (!is_clean || is_last) && context.version() != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    respond::finish(response, &mut context);
    context.attach(response);
}

/// Whoever needs the body takes it out of the request.
async fn serve(
    request: &mut Request<Option<Incoming>>,
    answer: &mut Option<Response<Body>>,
    context: &mut Context,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    locate(request, context)?;
    let (decision, is_maintained) = decide_now(request, context, snapshot);
    if let Some(route) = decision.route {
        context.enter(Arc::clone(route));
    }
    let Verdict::Pass(route) = decision.verdict else {
        *answer = Some(instead(&decision.verdict, request, context, snapshot)?);
        return Ok(());
    };
    if is_maintained && snapshot.maintenance.bypass.is_some() {
        // What lets a client in here is not for the app to know.
        request.headers_mut().remove(bypass::HEADER);
    }
    if context.is_bypassed {
        cookie::remove(request.headers_mut(), bypass::COOKIE_NAME);
    }
    if route.limits.read_certificate {
        context.tell_certificate(request.headers_mut());
    }
    limits::admit(route, request.headers(), context).await?;
    *answer = Some(match &route.action {
        // Apart, for it is large: whoever is not forwarded does not pay for the room that it takes. Made where it
        // stays, for which the room has to be there first.
        Action::Upstream(target) => {
            stage::end(context.version()).await;
            return Box::into_pin(Box::write(
                Box::new_uninit(),
                forward::send(request, answer, target, route, context),
            ))
            .await;
        }
        Action::Files(folder) => {
            Box::pin(files::serve(head_of(request), folder, context.path(), route.strip_prefix.as_deref())).await?
        }
        Action::Redirect(redirect) => respond::redirect(redirect, request, context)?,
        Action::Respond(fixed) => respond::fixed(fixed),
    });
    Ok(())
}

/// Finds out what the request names.
fn locate<B>(request: &Request<B>, context: &mut Context) -> Result<(), Refusal> {
    if let Some(why) = context.bad_head {
        return Err(Refusal::of_head(why));
    }
    let known = context.named.take().or_else(|| named(request, context));
    let (host, path) = decide::place(request, known)?;
    let normal_path = match path {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path.into_boxed_str()),
    };
    let may_ask = context.connection.tls.as_ref().is_none_or(|tls| tls.may_ask_for(&host));
    context.locate(host, normal_path);
    let (connection, snapshot) = (&context.connection, &context.snapshot);
    if snapshot.asks_for_certificates && !https::is_admitted(connection, snapshot) {
        connection.close();
        return Err(Refusal::AdmittedOtherwise);
    }
    if may_ask { Ok(()) } else { Err(Refusal::Misdirected) }
}

/// What a request of HTTP/1 names by its `Host` alone; it has no more than one (`listener::head`).
fn named<B>(request: &Request<B>, context: &Context) -> Option<Host> {
    let is_alone = request.version() == Version::HTTP_11 && request.uri().authority().is_none();
    let line = context.noted.host.as_ref().filter(|_| is_alone)?;
    context.connection.host_of(line.as_bytes()).ok()
}

/// What becomes of the request as things stand now, and whether there is maintenance somewhere.
fn decide_now<'s, B>(request: &Request<B>, context: &Context, snapshot: &'s Snapshot) -> (Decision<'s>, bool) {
    let state = snapshot.shared.switch.load();
    let blocked = Some(&snapshot.shared.runtime.blocked);
    let switches = Switches { maintenance: state.as_deref(), blocked, features_are_set: true };
    (decide(&context.asked(request), snapshot, switches), state.is_some())
}

/// Answers a request that may not pass, by a refusal or by what is served in place of the app, and counts it.
#[cold]
fn instead<B>(
    verdict: &Verdict<'_>,
    request: &Request<B>,
    context: &mut Context,
    snapshot: &Snapshot,
) -> Result<Response<Body>, Refusal> {
    match verdict {
        Verdict::ToHttps(location) => Ok(respond::see(StatusCode::PERMANENT_REDIRECT, location)),
        Verdict::Enter(entrance) => Ok(entrance.answer(context.asked(request).came_by_https(snapshot))),
        Verdict::PageAsset(asset) => Ok(respond::asset(asset, "maintenance", context)),
        refused => Err(turn_away(refused, context)),
    }
}

/// Refuses a request that may not go on, and counts it.
#[cold]
pub(super) fn turn_away(verdict: &Verdict<'_>, context: &mut Context) -> Refusal {
    let (shared, route) = (&context.snapshot.shared, context.route.as_ref());
    let (place, name) = (route.map(|route| route.sample_place), route.map(|route| &*route.name));
    let turned_away = |why: &str| shared.turned_away(context.client_ip, place, name, why);
    match verdict {
        Verdict::Maintenance(active) => {
            active.count_blocked();
            shared.blocked(place, name);
        }
        Verdict::FeatureOff(_) => {
            context.decided_by = route.and_then(|route| route.feature.as_ref()).map(Switched::key);
        }
        Verdict::Blocked => turned_away("the address is on the block list"),
        Verdict::Denied(denied) => turned_away(&denied.to_string()),
        Verdict::NoRoute | Verdict::MethodNotAllowed(_) | Verdict::NoHost => {}
        // No refusals: see below.
        Verdict::Pass(_) | Verdict::ToHttps(_) | Verdict::Enter(_) | Verdict::PageAsset(_) => {}
    }
    verdict.refusal(&context.snapshot).expect("what neither passes nor is served is refused")
}
