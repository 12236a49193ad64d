//! What a breaker keeps behind its mutex: all that only matters outside Closed, and whom those states admit.

use std::time::Duration;

use super::nanos_of;

/// What to tell a client that was turned away by HalfOpen or Ramp: nobody knows the time, but it is soon.
const RETRY_AFTER_UNKNOWN: Duration = Duration::from_secs(1);
/// A probe without a verdict after so long gives its place to another: its client may be slow, or what it asked for.
/// Long for an answer, short for an outage, and little for an upstream that hangs.
pub(super) const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// Ramp starts with this share of the traffic.
const RAMP_START: f64 = 0.1;

/// What only matters outside Closed.
pub(super) struct Inner {
    /// Transitions so far.
    pub(super) sequence: u64,
    /// It opens no more by its rules.
    pub(super) is_retired: bool,
    /// Opens of this outage so far; the exponent of the doubling.
    pub(super) opens: u32,
    /// Open: its end in nanoseconds, `None` for a forced open without one.
    pub(super) open_until: Option<u64>,
    pub(super) forced: bool,
    /// HalfOpen: probes on their way in this round, and those that succeeded in any.
    pub(super) probes_in_flight: u32,
    pub(super) probes_succeeded: u32,
    /// Counts up whenever those on their way are overdue and lose their places.
    pub(super) probe_round: u32,
    /// When the latest probe was admitted, in nanoseconds.
    pub(super) probe_admitted: u64,
    /// Ramp: its start in nanoseconds, and the admissions saved up.
    pub(super) ramp_since: u64,
    pub(super) ramp_credit: f64,
}

/// What a state says to one more request.
pub(super) enum Admission {
    Request,
    /// Of this round.
    Probe(u32),
    Refused(Duration),
}

impl Inner {
    pub(super) fn new() -> Self {
        Self {
            sequence: 0,
            is_retired: false,
            opens: 0,
            open_until: None,
            forced: false,
            probes_in_flight: 0,
            probes_succeeded: 0,
            probe_round: 0,
            probe_admitted: 0,
            ramp_since: 0,
            ramp_credit: 0.0,
        }
    }

    /// `open` is for how long it usually is: who has forced it open does not say.
    pub(super) fn refuse_open(&self, open: Duration, now: u64) -> Admission {
        Admission::Refused(match self.open_until {
            Some(until) => Duration::from_nanos(until.saturating_sub(now)),
            None => open,
        })
    }

    pub(super) fn admit_probe(&mut self, probes: u32, now: u64) -> Admission {
        if self.probes_in_flight + self.probes_succeeded >= probes {
            if now.saturating_sub(self.probe_admitted) < nanos_of(PROBE_PATIENCE) {
                return Admission::Refused(RETRY_AFTER_UNKNOWN);
            }
            self.probe_round = self.probe_round.wrapping_add(1);
            self.probes_in_flight = 0;
        }
        self.probes_in_flight += 1;
        self.probe_admitted = now;
        Admission::Probe(self.probe_round)
    }

    /// A probe of `round` is no longer on its way. One that was overdue has no place to give back.
    pub(super) fn end_probe(&mut self, round: u32) {
        if round == self.probe_round {
            self.probes_in_flight -= 1;
        }
    }

    /// Lets `share` of the requests through, evenly rather than by chance.
    pub(super) fn admit_share(&mut self, share: f64) -> Admission {
        self.ramp_credit += share;
        if self.ramp_credit < 1.0 {
            return Admission::Refused(RETRY_AFTER_UNKNOWN);
        }
        self.ramp_credit -= 1.0;
        Admission::Request
    }

    pub(super) fn begin_half_open(&mut self) {
        self.probes_in_flight = 0;
        self.probes_succeeded = 0;
    }

    pub(super) fn begin_ramp(&mut self, now: u64) {
        self.ramp_since = now;
        self.ramp_credit = 1.0 - RAMP_START; // the first one passes
    }

    /// 0.1 to 1.
    pub(super) fn ramp_share(&self, ramp: Duration, now: u64) -> f64 {
        let elapsed = now.saturating_sub(self.ramp_since) as f64;
        RAMP_START + (1.0 - RAMP_START) * elapsed / nanos_of(ramp) as f64
    }
}
