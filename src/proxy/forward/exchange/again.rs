//! Whether a request goes on after a try, and when.

use std::time::{Duration, Instant};

use super::super::Answered;
use super::super::failure::{Failure, Kind};
use super::Exchange;
use crate::balance::full_jitter;
use crate::upstream::endpoint::InFlight;

/// Endpoints that may refuse a request one after another before that costs attempts.
const REFUSALS_MAX: usize = 16;
/// With `hold` set, how long at least a request waits that was reset: until an app that is being killed is wholly gone.
const RESET_PAUSE: Duration = Duration::from_millis(50);

impl Exchange<'_> {
    pub(super) fn holds(&self) -> bool {
        !self.group.settings.hold.is_zero()
    }

    /// Whether the request goes on after this failure; it is ready to be sent then.
    pub(super) fn goes_on(&mut self, failure: &Failure, key: u64) -> bool {
        if failure.is_shortage() {
            // Another endpoint or another moment would need just what is lacking.
            return false;
        }
        self.wish.asks_ejected = matches!(failure.kind, Kind::Connect(_));
        let on = &self.group.settings.retry.on;
        let is_unsent = self.outbound.is_here();
        if is_unsent && failure.is_waited_out(&self.group.settings) {
            // Not an attempt: nothing was sent, and waiting for the endpoint is what `hold` asks for.
            return self.queued.is_none_or(|(_, since)| since.elapsed() < self.group.settings.hold);
        }
        if is_unsent && failure.is_refusal() && self.goes_elsewhere(key) {
            return true;
        }
        let is_listed = match failure.kind {
            Kind::Connect(_) => on.connect,
            Kind::Reset(_) if is_unsent => on.connect || on.reset,
            Kind::Reset(_) => on.reset,
            Kind::HeadTimeout(_) | Kind::NoEndpoint | Kind::TurnedAway(_) => false,
        };
        is_listed && (is_unsent || self.outbound.repeat()) && self.another(key, matches!(failure.kind, Kind::Reset(_)))
    }

    /// Goes on at an endpoint that was not tried yet after the one with this key refused the connection. That is no
    /// attempt: nothing was sent, and being refused takes no time. So two replicas may go at once, and no visitor
    /// notices.
    fn goes_elsewhere(&mut self, key: u64) -> bool {
        let retry = &self.group.settings.retry;
        if !retry.on.connect || retry.attempts == 0 || self.tried.len() >= REFUSALS_MAX || self.client_fault().is_some()
        {
            return false;
        }
        self.tried.push(key);
        let has_other = self.group.has_other(self.wish, &self.tried, Instant::now());
        if has_other {
            self.group.metrics.retried();
        } else {
            self.tried.pop();
        }
        has_other
    }

    pub(super) fn wants_another(&self, answered: &Answered) -> bool {
        self.group.settings.retry.on.statuses.contains(answered.status) && self.outbound.may_repeat()
    }

    /// The place for a further try, in place of an answer that is not wanted. `claimed` is elsewhere.
    ///
    /// # Errors
    /// How the request ends: that answer stands where there is no such place, or the request cannot be sent again. Until
    /// then what is left of it goes on to who gave the answer.
    pub(super) async fn instead_of(
        &mut self,
        mut answered: Answered,
        mut claimed: Option<InFlight>,
        now: Instant,
    ) -> Result<InFlight, Result<Answered, Failure>> {
        // Nobody else has room: its own endpoint once more.
        let is_own = claimed.is_none() && answered.lease.endpoint().standing.takes(now);
        if claimed.is_none() && !is_own && self.holds() {
            let aside = answered.lease.set_aside();
            let waited = self.wait().await;
            answered.lease = aside.back();
            match waited {
                Err(failure) if matches!(failure.kind, Kind::TurnedAway(_)) => return Err(Err(failure)),
                waited => claimed = waited.ok(),
            }
        }
        if (claimed.is_none() && !is_own) || !self.outbound.repeat() {
            return Err(Ok(answered));
        }
        Ok(claimed.unwrap_or_else(|| answered.lease.close()))
    }

    /// Takes a further attempt after one at the endpoint with this key, if there is one.
    ///
    /// Where requests are held, one that was reset (`was_reset`) needs no budget, for an app that restarts resets
    /// everything it has at once; instead it waits long enough to find out whether the app is gone.
    pub(super) fn another(&mut self, key: u64, was_reset: bool) -> bool {
        if self.attempts_left == 0 || self.client_fault().is_some() {
            return false;
        }
        let is_calm = was_reset && self.holds();
        let retry = if is_calm { None } else { self.group.retry() };
        if retry.is_none() && !is_calm {
            return false;
        }
        self.was_reset = is_calm;
        self.retry = retry;
        self.attempts_left -= 1;
        self.attempts_made += 1;
        self.tried.push(key);
        self.group.metrics.retried();
        true
    }

    /// Waits a little before an endpoint is tried that was tried before.
    pub(super) async fn back_off(&self) {
        let Some(retries) = self.attempts_made.checked_sub(1) else { return };
        if !self.group.has_other(self.wish, &self.tried, Instant::now()) {
            let pause = if self.was_reset { RESET_PAUSE } else { Duration::ZERO };
            tokio::time::sleep(pause + full_jitter(retries, fastrand::u64(..))).await;
        }
    }
}
