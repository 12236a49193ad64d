//! One stream of HTTP/2, from its request to the end of its answer or of its tunnel (RFC 9113, section 8.1).
//!
//! | the stream | what happens |
//! |---|---|
//! | its client resets it | whatever it waits for is dropped, and with it the request to the app |
//! | answered, its request not read to the end | h2 resets it behind the answer, with NO_ERROR |
//! | its answer breaks off | reset: the client sees that it is no end |
//! | dropped without an answer, with its connection or by a panic | reset with CANCEL, if anybody is there to hear it |

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::answer::{self, Said};
use super::arrive::Arrived;
use super::sending::Sending;
use super::upgraded::Upgraded;
use crate::listener::connection::Connection;
use crate::proxy::body::Body;
use crate::proxy::handle::handle;
use crate::proxy::tunnel;
use crate::snapshot::Snapshot;

/// Serves one request. `patience` is for a client that takes nothing of its answer, unless its route has another.
#[allow(clippy::manual_async_fn, reason = "the future of an `async fn` holds each of its arguments twice")]
pub(super) fn serve(
    mut arrived: Arrived,
    mut respond: SendResponse<Bytes>,
    connection: Arc<Connection>,
    snapshot: Arc<Snapshot>,
    said: Arc<Said>,
    patience: Duration,
) -> impl Future<Output = ()> + Send {
    async move {
        // For a stream that was reset before its turn came, nothing is begun, which would say that it has ended.
        if poll_fn(|cx| Poll::Ready(is_reset(&mut respond, cx))).await {
            return connection.head_answered();
        }
        let mut answer = None;
        let handled = {
            let facts = Some(&mut arrived.facts);
            let handling = pin!(handle(&mut arrived.request, &mut answer, connection, &snapshot, facts));
            unless_reset(&mut respond, arrived.wanted, handling).await
        };
        drop(arrived.request);
        begin(handled.and(answer), arrived.opening, &mut respond, &said, patience).await;
    }
}

/// What follows the head of an answer.
enum Rest {
    Nothing,
    Body(Sending),
    Tunnel(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Future for Rest {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(()),
            Self::Body(sending) => Pin::new(sending).poll(cx),
            Self::Tunnel(tunnel) => tunnel.as_mut().poll(cx),
        }
    }
}

/// Runs `handling` to its end, or leaves it when the client resets the stream or the connection ends. The client is told
/// when its body is `wanted`.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    mut wanted: Option<oneshot::Receiver<()>>,
    mut handling: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut is_new = true;
    poll_fn(|cx| {
        if let Poll::Ready(answer) = handling.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        if wanted.is_some() {
            poll_continue(&mut wanted, respond, cx);
        }
        // Nothing has come since the first look.
        if !mem::take(&mut is_new) && is_reset(respond, cx) {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

fn is_reset(respond: &mut SendResponse<Bytes>, cx: &mut Context<'_>) -> bool {
    let reset = respond.poll_reset(cx);
    if let Poll::Ready(reset) = &reset {
        tracing::debug!(?reset, "a client reset its stream");
    }
    reset.is_ready()
}

/// Says 100, once the body is wanted.
#[cold]
fn poll_continue(wanted: &mut Option<oneshot::Receiver<()>>, respond: &mut SendResponse<Bytes>, cx: &mut Context<'_>) {
    let Some(receiver) = wanted else { return };
    if let Poll::Ready(word) = Pin::new(receiver).poll(cx) {
        *wanted = None;
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::CONTINUE;
        if word.is_ok()
            && let Err(error) = respond.send_informational(head)
        {
            tracing::debug!(%error, "a client could not be told to go on");
        }
    }
}

/// Sends the head of an answer, if there is one.
fn begin(
    answer: Option<Response<Body>>,
    opening: Option<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    said: &Said,
    patience: Duration,
) -> Rest {
    let Some(answer) = answer else { return Rest::Nothing };
    match opening {
        Some(receiving) if answer.status().is_success() => open(answer, receiving, respond, said),
        _ => send(answer, respond, said, patience),
    }
}

fn send(answer: Response<Body>, respond: &mut SendResponse<Bytes>, said: &Said, patience: Duration) -> Rest {
    let (mut head, mut body) = split(answer);
    let (is_whole, patience) = (body.is_end_stream(), body.patience().unwrap_or(patience));
    let length = body.size_hint().exact().filter(|_| !is_whole);
    answer::complete(&mut head, length, said);
    match respond.send_response(head, is_whole) {
        Ok(_) if is_whole => Rest::Nothing,
        Ok(stream) => Rest::Body(Sending::new(body, stream, patience)),
        Err(error) => {
            tracing::debug!(%error, "an answer could not be sent");
            body.was_unsent();
            respond.send_reset(Reason::INTERNAL_ERROR);
            Rest::Nothing
        }
    }
}

/// Opens the stream to what the app has agreed to.
fn open(answer: Response<Body>, receiving: RecvStream, respond: &mut SendResponse<Bytes>, said: &Said) -> Rest {
    let (mut head, mut body) = split(answer);
    answer::complete(&mut head, None, said);
    let Some(mut tunnel) = body.take_tunnel() else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Rest::Nothing;
    };
    match respond.send_response(head, false) {
        Ok(sending) => {
            let upgraded = Upgraded::new(sending, receiving);
            Rest::Tunnel(Box::pin(tunnel::run(upgraded, Bytes::new(), *tunnel)))
        }
        Err(error) => {
            tracing::debug!(%error, "the client left in the middle of an upgrade");
            tunnel.context.was_unsent();
            Rest::Nothing
        }
    }
}

fn split(answer: Response<Body>) -> (Response<()>, Body) {
    let (parts, body) = answer.into_parts();
    (Response::from_parts(parts, ()), body)
}
