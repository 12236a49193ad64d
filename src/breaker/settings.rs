//! What a breaker is told once, at its construction.

use std::num::NonZeroU32;
use std::time::Duration;

/// The rules of one breaker. Equal settings after a reload mean that the breaker carries on.
///
/// With both rules off it never opens by itself, but can still be forced open.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Opens at so many failures in a row; `None` = this rule is off.
    pub failures: Option<NonZeroU32>,
    /// Opens at this share of failures in `window`, above 0, at most 1; `None` = this rule is off.
    pub failure_ratio: Option<f64>,
    /// Fewer than this in `window` and the ratio says nothing.
    pub min_requests: NonZeroU32,
    /// Looked at in tenths: it holds the current tenth and the nine before. At least 10 ns.
    pub window: Duration,
    /// A response head later than this is a failure; `None` = never.
    pub slow_call: Option<Duration>,
    /// The first open time; doubled on every re-open of the same outage …
    pub open: Duration,
    /// … up to this. Below `open` it counts as `open`.
    pub max_open: Duration,
    /// Requests that half-open lets through; all must succeed.
    pub probes: NonZeroU32,
    /// After half-open the admitted share grows from a tenth to all within this time; zero = at once.
    pub ramp: Duration,
    /// Decide and count, reject nothing.
    pub shadow: bool,
}

impl Default for Settings {
    /// The defaults of `[upstream.*.breaker]`.
    fn default() -> Self {
        const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("5 is not 0");
        const TWENTY: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
        Self {
            failures: Some(FIVE),
            failure_ratio: Some(0.5),
            min_requests: TWENTY,
            window: Duration::from_secs(10),
            slow_call: None,
            open: Duration::from_secs(30),
            max_open: Duration::from_secs(300),
            probes: NonZeroU32::MIN,
            ramp: Duration::ZERO,
            shadow: false,
        }
    }
}

impl Settings {
    /// How long the open after `opens` earlier ones of the same outage lasts.
    pub(super) fn open_time(&self, opens: u32) -> Duration {
        let factor = 1_u32.checked_shl(opens).unwrap_or(u32::MAX);
        self.open.saturating_mul(factor).min(self.max_open.max(self.open))
    }
}
