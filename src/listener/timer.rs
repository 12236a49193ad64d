//! The time a connection gives its client, and how a connection ends.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, Phase};
use crate::alarm::Alarm;
use crate::config::model::Timeouts;

/// How a connection's HTTP came to its end.
pub(super) enum End {
    /// Both sides are done.
    Finished,
    HeadTimeout,
    Idle,
    /// Idle for long enough to let go of what HTTP holds, but not too long yet.
    Rest {
        until: Instant,
    },
    /// The socket failed, or the client stopped reading: nothing more can be said.
    Broken,
}

/// A connection that is idle for this long is one among many: its next request may cost the making of two buffers.
const REST_AFTER: Duration = Duration::from_secs(1);

/// The one timer of a connection: set anew when the phase changes, at rest while we are busy.
pub(super) struct Timer<'a> {
    alarm: Alarm,
    timeouts: &'a Timeouts,
    phase: Phase,
    requests: u64,
    deadline: Option<Instant>,
    /// Whether an idle connection comes to rest before its time is over.
    may_rest: bool,
    /// While idle: when its time is over.
    idle_until: Option<Instant>,
}

impl<'a> Timer<'a> {
    pub(super) fn new(timeouts: &'a Timeouts) -> Self {
        let (alarm, phase) = (Alarm::default(), Phase::Busy);
        Self { alarm, timeouts, phase, requests: 0, deadline: None, may_rest: false, idle_until: None }
    }

    /// For a connection that comes to rest when it is idle; after such a rest, `resumed` says how many requests there
    /// were and until when it may be idle.
    pub(super) fn with_rest(timeouts: &'a Timeouts, resumed: Option<(u64, Instant)>) -> Self {
        let mut timer = Self { may_rest: true, ..Self::new(timeouts) };
        if let Some((requests, until)) = resumed {
            (timer.phase, timer.requests) = (Phase::Idle, requests);
            (timer.deadline, timer.idle_until) = (Some(until), Some(until));
        }
        timer
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
            self.begin(connection);
        }
        while let Some(deadline) = self.deadline {
            ready!(self.alarm.poll(deadline.into_std(), cx));
            if let Some(end) = self.verdict(connection) {
                return Poll::Ready(end);
            }
            self.begin(connection);
        }
        Poll::Pending
    }

    /// Sets the deadline of a phase that begins.
    fn begin(&mut self, connection: &Connection) {
        let patience = self.patience(connection).map(|patience| Instant::now() + patience);
        (self.deadline, self.idle_until) = (patience, None);
        if self.phase == Phase::Idle && self.may_rest && self.timeouts.idle > REST_AFTER {
            self.idle_until = patience;
            self.deadline = patience.map(|until| until - self.timeouts.idle + REST_AFTER);
        }
    }

    fn patience(&self, connection: &Connection) -> Option<Duration> {
        match self.phase {
            Phase::Head => Some(self.timeouts.request_head),
            Phase::Idle => Some(self.timeouts.idle),
            Phase::WriteBlocked => Some(connection.patience().unwrap_or(self.timeouts.response_body)),
            Phase::Busy => None,
        }
    }

    /// `None` when it is not idle after all, because the body of a request is on its way behind its answer: its time
    /// begins when that has ended, which nobody tells.
    fn verdict(&self, connection: &Connection) -> Option<End> {
        match self.phase {
            Phase::Head => Some(End::HeadTimeout),
            Phase::Idle if !connection.may_rest() => None,
            Phase::Idle => match self.idle_until.filter(|until| self.deadline < Some(*until)) {
                Some(until) => Some(End::Rest { until }),
                None => Some(End::Idle),
            },
            Phase::Busy => Some(End::Idle),
            Phase::WriteBlocked => Some(End::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const IDLE: Duration = Duration::from_secs(75);

    fn timeouts() -> Timeouts {
        let long = Duration::from_secs(3600);
        Timeouts {
            tls_handshake: long,
            request_head: long,
            request_body: long,
            idle: IDLE,
            connect: long,
            response_head: long,
            response_body: long,
            stream_idle: long,
        }
    }

    async fn end(timer: &mut Timer<'_>, connection: &Connection) -> End {
        poll_fn(|cx| timer.poll_phase((Phase::Idle, 1), connection, cx)).await
    }

    fn connection() -> Connection {
        Connection::new(0, None, "web".into(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_comes_to_rest_and_keeps_its_time() {
        let (timeouts, began) = (timeouts(), Instant::now());
        let mut timer = Timer::with_rest(&timeouts, None);
        let End::Rest { until } = end(&mut timer, &connection()).await else { panic!("no rest") };
        assert_eq!((began.elapsed(), until - began), (REST_AFTER, IDLE));
        let mut resumed = Timer::with_rest(&timeouts, Some((1, until)));
        assert!(matches!(end(&mut resumed, &connection()).await, End::Idle));
        assert_eq!(began.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_idle_while_a_body_is_on_its_way() {
        let (timeouts, connection) = (timeouts(), std::sync::Arc::new(connection()));
        for timer in [Timer::with_rest(&timeouts, None), Timer::new(&timeouts)] {
            let (mut timer, body, began) = (timer, connection.open_body(), Instant::now());
            let ended = tokio::time::timeout(3 * IDLE, end(&mut timer, &connection)).await;
            assert!(ended.is_err());
            drop(body);
            assert!(matches!(end(&mut timer, &connection).await, End::Idle | End::Rest { .. }));
            assert!(began.elapsed() <= 4 * IDLE);
        }
    }
}
