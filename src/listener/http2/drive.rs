//! What keeps an HTTP/2 connection going, and what brings it to its end: its clients and streams, its timer, a drain,
//! and somebody who waits for its place.
//!
//! An end that is ours is told to the client first, which may have a request on the way (RFC 9113, section 6.8): then
//! the connection is [`Ending`], and over when nothing is open any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Sleep, sleep};

use super::super::connection::{Connection, Phase};
use super::super::serve::DRAIN_FIRST_REQUEST;
use super::super::timer::{End, Timer};
use super::{Http, LAST_WORDS};
use crate::config::model::Timeouts;
use crate::proxy::cut::Cuts;
use crate::worker::Place;

/// A connection, and beside it its one timer. A drain and a round of cuts have its task woken.
pub(super) struct Drive<'a> {
    http: Http,
    connection: Arc<Connection>,
    timeouts: &'a Timeouts,
    place: &'a Place,
    cuts: &'a Cuts,
    /// The last round of cuts that the streams know of.
    round: u64,
    timer: Timer<'a>,
    /// For the first request of a connection that has just begun when it is to end.
    first_request: Option<Pin<Box<Sleep>>>,
    /// While it rests: ready when it is to give up its place.
    wanted: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
    ending: Option<Ending>,
}

impl<'a> Drive<'a> {
    pub(super) fn new(http: Http, timeouts: &'a Timeouts, place: &'a Place, cuts: &'a Cuts) -> Self {
        Self {
            connection: Arc::clone(&http.connection),
            http,
            timeouts,
            place,
            cuts,
            round: cuts.round(),
            timer: Timer::with_rest(timeouts, None),
            first_request: None,
            wanted: None,
            ending: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.round != self.cuts.round() {
            self.round = self.cuts.round();
            // The streams look for themselves.
            self.http.streams.wake_all();
        }
        if let Poll::Ready(end) = self.http.poll(cx) {
            return Poll::Ready(end);
        }
        if self.ending.is_none() && self.is_to_end(cx) {
            self.begin_ending();
            if let Poll::Ready(end) = self.http.poll(cx) {
                return Poll::Ready(end);
            }
        }
        let phase = self.http.phase();
        if let Some(ending) = &mut self.ending
            && self.connection.is_answered()
            && phase != Phase::WriteBlocked
            && ending.poll_patience(&self.connection, cx).is_ready()
        {
            return Poll::Ready(End::Idle);
        }
        self.poll_wanted(phase, cx);
        self.poll_timer(phase, cx)
    }

    /// Whether a drain or a request of its own ends it. A connection that has just begun may have its first request on
    /// the way: its client cannot know of the drain.
    fn is_to_end(&mut self, cx: &mut Context<'_>) -> bool {
        let is_told = self.place.drain().has_begun() || self.connection.is_closing();
        if !is_told || self.connection.requests() > 0 {
            return is_told;
        }
        let first_request = self.first_request.get_or_insert_with(|| Box::pin(sleep(DRAIN_FIRST_REQUEST)));
        first_request.as_mut().poll(cx).is_ready()
    }

    /// Whether somebody else waits for the place of a connection that rests.
    fn poll_wanted(&mut self, phase: Phase, cx: &mut Context<'_>) {
        if phase != Phase::Idle || self.ending.is_some() {
            self.wanted = None;
        }
        if let Some(wanted) = &mut self.wanted
            && wanted.as_mut().poll(cx).is_ready()
        {
            self.begin_ending();
            cx.waker().wake_by_ref();
        }
    }

    fn poll_timer(&mut self, phase: Phase, cx: &mut Context<'_>) -> Poll<End> {
        match ready!(self.timer.poll_phase((phase, self.connection.requests()), &self.connection, cx)) {
            // One among many, as over HTTP/1.
            End::Rest { until } => {
                self.timer = Timer::with_rest(self.timeouts, Some((self.connection.requests(), until)));
                self.wanted = Some(Box::pin(self.place.is_wanted()));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // With nothing begun it is told first, and may have a request on the way: from then on it is `ending` that
            // ends it.
            End::Idle | End::HeadTimeout if !self.connection.has_partial_head() => {
                if self.ending.is_none() {
                    self.begin_ending();
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            end => Poll::Ready(end),
        }
    }

    fn begin_ending(&mut self) {
        self.http.end_gracefully();
        self.ending = Some(Ending::default());
    }
}

/// A connection that takes no new streams any more.
#[derive(Default)]
struct Ending(Option<Pin<Box<Sleep>>>);

impl Ending {
    /// From when nothing is open any more; a client that does not answer holds nobody up for longer. A body that is on
    /// its way behind its answer does, and nobody tells of its end.
    fn poll_patience(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.0.get_or_insert_with(|| Box::pin(sleep(LAST_WORDS))).as_mut().poll(cx));
            if connection.may_rest() {
                return Poll::Ready(());
            }
            self.0 = None;
        }
    }
}
