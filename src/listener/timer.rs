//! The time a connection gives its client, and how a connection ends.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection::{Connection, Phase};
use crate::config::model::Timeouts;

/// How a connection's HTTP came to its end.
pub(super) enum End {
    /// hyper is done, or the gate refused something.
    Finished,
    HeadTimeout,
    Idle,
    /// The socket failed, or the client stopped reading: nothing more can be said.
    Broken,
}

/// The one timer of a connection: re-armed when the phase changes, at rest while we are busy.
pub(super) struct Timer<'a> {
    sleep: Pin<Box<Sleep>>,
    timeouts: &'a Timeouts,
    phase: Phase,
    requests: u64,
    deadline: Option<Instant>,
}

impl<'a> Timer<'a> {
    pub(super) fn new(timeouts: &'a Timeouts) -> Self {
        let deadline = Instant::now() + timeouts.request_head;
        let sleep = Box::pin(tokio::time::sleep_until(deadline));
        Self { sleep, timeouts, phase: Phase::Busy, requests: 0, deadline: None }
    }

    /// Ready when the client kept us waiting for too long.
    ///
    /// `requests` is how many there were: each one begins the wait anew.
    pub(super) fn poll_phase(
        &mut self,
        (phase, requests): (Phase, u64),
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
        let is_same = phase == self.phase && requests == self.requests;
        let progressed = phase == Phase::WriteBlocked && connection.take_write_progress();
        if !is_same || progressed {
            (self.phase, self.requests) = (phase, requests);
            self.deadline = self.patience(phase).map(|patience| Instant::now() + patience);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if self.sleep.deadline() > deadline || self.sleep.is_elapsed() {
            if deadline <= Instant::now() {
                return Poll::Ready(self.verdict());
            }
            self.sleep.as_mut().reset(deadline);
        }
        // An earlier deadline than ours only wakes us to look again.
        while self.sleep.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(self.verdict());
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn patience(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Head => Some(self.timeouts.request_head),
            Phase::Idle => Some(self.timeouts.idle),
            Phase::WriteBlocked => Some(self.timeouts.response_body),
            Phase::Busy => None,
        }
    }

    fn verdict(&self) -> End {
        match self.phase {
            Phase::Head => End::HeadTimeout,
            Phase::Idle | Phase::Busy => End::Idle,
            Phase::WriteBlocked => End::Broken,
        }
    }
}
