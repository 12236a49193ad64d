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
use http::Response;
use http_body::Body as _;
use tokio::sync::oneshot;

use super::answer;
use super::arrive::Arrived;
use super::sending::Sending;
use super::upgraded::Upgraded;
use crate::listener::connection::Connection;
use crate::live::Live;
use crate::proxy::body::Body;
use crate::proxy::handle::handle;
use crate::proxy::tunnel::{self, Tunnel};

/// Serves one request. `patience` is for a client that takes nothing of its answer.
pub(super) async fn serve(
    arrived: Arrived,
    mut respond: SendResponse<Bytes>,
    connection: Arc<Connection>,
    live: Arc<Live>,
    patience: Duration,
) {
    let Arrived { request, facts, opening } = arrived;
    let answer = {
        let handling = pin!(handle(request, connection, live, Some(facts)));
        unless_reset(&mut respond, handling).await
    };
    let Some(answer) = answer else { return };
    match opening.filter(|_| answer.status().is_success()) {
        None => send(answer, respond, patience).await,
        Some(opening) => Box::pin(tunnel(answer, respond, opening)).await,
    }
}

/// What an extended CONNECT needs once it is granted.
pub(super) struct Opening {
    pub(super) tunnel: oneshot::Receiver<Tunnel>,
    pub(super) receiving: RecvStream,
}

/// Runs `handling` to its end, or leaves it when the client resets the stream or the connection ends.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    mut handling: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut is_reset = |cx: &mut Context<'_>| {
        let reset = respond.poll_reset(cx);
        if let Poll::Ready(reset) = &reset {
            tracing::debug!(?reset, "a client reset its stream");
        }
        reset.is_ready()
    };
    let mut is_new = true;
    poll_fn(|cx| {
        let is_first = mem::take(&mut is_new);
        // For a stream that was reset before its turn came, nothing is begun.
        if is_first && is_reset(cx) {
            return Poll::Ready(None);
        }
        match handling.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // Nothing has come since.
            Poll::Pending if is_first => Poll::Pending,
            Poll::Pending if is_reset(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Sends an answer: what is at hand of it in one go.
async fn send(answer: Response<Body>, mut respond: SendResponse<Bytes>, patience: Duration) {
    let (mut head, body) = split(answer);
    let is_whole = body.is_end_stream();
    answer::complete(head.headers_mut(), body.size_hint().exact().filter(|_| !is_whole));
    let stream = match respond.send_response(head, is_whole) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "an answer could not be sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    if !is_whole {
        Sending::new(body, stream, patience).await;
    }
}

/// Opens the stream to what the app has agreed to.
async fn tunnel(answer: Response<Body>, mut respond: SendResponse<Bytes>, mut opening: Opening) {
    let (mut head, _) = split(answer);
    answer::complete(head.headers_mut(), None);
    let Ok(tunnel) = opening.tunnel.try_recv() else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    match respond.send_response(head, false) {
        Ok(sending) => tunnel::run(Upgraded::new(sending, opening.receiving), Bytes::new(), tunnel).await,
        Err(error) => tracing::debug!(%error, "the client left in the middle of an upgrade"),
    }
}

fn split(answer: Response<Body>) -> (Response<()>, Body) {
    let (parts, body) = answer.into_parts();
    (Response::from_parts(parts, ()), body)
}
