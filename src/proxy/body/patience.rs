//! How long a body may keep its reader waiting.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::alarm::Alarm;

/// Time that runs only while a read is waiting.
#[derive(Debug)]
pub(crate) struct Patience {
    pub(super) limit: Duration,
    alarm: Alarm,
    /// When the current wait is too long.
    end: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, alarm: Alarm::default(), end: None }
    }

    /// Nothing is waited for any more.
    pub(crate) fn rest(&mut self) {
        self.end = None;
    }

    /// The current wait may last for `left` from now on.
    pub(super) fn extend(&mut self, left: Duration) {
        self.end = Some(Instant::now() + left);
    }

    /// Ready when the current wait has lasted too long.
    pub(crate) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.limit);
        self.alarm.poll(end.into_std(), cx)
    }
}
