//! Why an endpoint takes no connection, told at most once a second however many requests find out.

use std::time::Instant;

use super::connect::ConnectError;
use super::endpoint::Change;
use crate::error::with_causes;
use crate::telemetry::events::Sampler;

/// The failures to connect to one endpoint. It outlives reloads, as the endpoint does.
#[derive(Debug)]
pub(super) struct Unreachable {
    sampler: Sampler<String>,
    epoch: Instant,
}

impl Unreachable {
    pub(super) fn new(now: Instant) -> Self {
        Self { sampler: Sampler::new(1), epoch: now }
    }

    /// A request found it so; what there is to tell now.
    pub(super) fn hit(&self, error: &ConnectError, now: Instant) -> Option<Change> {
        let count = self.sampler.hit(0, self.second(now), || with_causes(error))?;
        Some(Change::Unreachable { error: with_causes(error), count })
    }

    /// What has not been told of the seconds before this one. For whoever looks now and then.
    pub(super) fn flush(&self, now: Instant) -> Option<Change> {
        let mut change = None;
        self.sampler.flush(self.second(now), |_, count, error| {
            change = Some(Change::Unreachable { error: error.unwrap_or_default(), count });
        });
        change
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    fn told(error: &str, count: u64) -> Option<Change> {
        Some(Change::Unreachable { error: format!("no connection: {error}"), count })
    }

    #[test]
    fn a_flood_makes_a_line_a_second_and_none_is_lost() {
        let start = Instant::now();
        let unreachable = Unreachable::new(start);
        let failed = |text: &str| ConnectError::Failed(io::Error::other(text.to_owned()));
        assert_eq!(unreachable.hit(&failed("refused"), start), told("refused", 1));
        for _ in 0..999 {
            assert_eq!(unreachable.hit(&failed("reset"), start), None);
        }
        assert_eq!(unreachable.flush(start), None, "this second has its line");
        let later = start + Duration::from_secs(1);
        assert_eq!(unreachable.flush(later), told("reset", 999));
        assert_eq!(unreachable.flush(later + Duration::from_secs(1)), None, "nothing is left");
    }
}
