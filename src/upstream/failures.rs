//! Why an endpoint takes no connection, gives no answer or breaks it off, each told at most once a second however many
//! requests find out.

use std::error::Error;
use std::time::Instant;

use super::endpoint::Change;
use crate::error::with_causes;
use crate::telemetry::events::Sampler;

/// What failed at an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lack {
    Connection,
    Answer,
    /// What follows an answer's head.
    Rest,
}

impl Lack {
    const ALL: [Self; 3] = [Self::Connection, Self::Answer, Self::Rest];

    fn told(self, error: String, count: u64) -> Change {
        match self {
            Self::Connection => Change::Unreachable { error, count },
            Self::Answer => Change::Unanswered { error, count },
            Self::Rest => Change::BrokeOff { error, count },
        }
    }
}

/// The failures at one endpoint. It outlives reloads, as the endpoint does.
#[derive(Debug)]
pub(super) struct Failures {
    sampler: Sampler<String>,
    epoch: Instant,
}

impl Failures {
    pub(super) fn new(now: Instant) -> Self {
        Self { sampler: Sampler::new(Lack::ALL.len()), epoch: now }
    }

    /// A request found it so; what there is to tell now.
    pub(super) fn hit(&self, lack: Lack, error: &(dyn Error + 'static), now: Instant) -> Option<Change> {
        let count =
            self.sampler.hit(lack as usize, now.saturating_duration_since(self.epoch), || with_causes(error))?;
        Some(lack.told(with_causes(error), count))
    }

    /// What has not been told, of those whose last line is a second old. For whoever looks now and then.
    pub(super) fn flush(&self, now: Instant, mut tell: impl FnMut(Change)) {
        self.sampler.flush(now.saturating_duration_since(self.epoch), |lack, count, error| {
            tell(Lack::ALL[lack].told(error.unwrap_or_default(), count));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::upstream::connect::ConnectError;

    fn told(error: &str, count: u64) -> Option<Change> {
        Some(Change::Unreachable { error: format!("no connection: {error}"), count })
    }

    fn flushed(failures: &Failures, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        failures.flush(now, |change| changes.push(change));
        changes
    }

    #[test]
    fn a_flood_makes_a_line_a_second_and_none_is_lost() {
        let start = Instant::now();
        let failures = Failures::new(start);
        let hit = |text: &str| {
            let error = ConnectError::Failed(io::Error::other(text.to_owned()));
            failures.hit(Lack::Connection, &error, start)
        };
        assert_eq!(hit("refused"), told("refused", 1));
        for _ in 0..999 {
            assert_eq!(hit("reset"), None);
        }
        assert_eq!(flushed(&failures, start), [], "this second has its line");
        let later = start + Duration::from_secs(1);
        assert_eq!(flushed(&failures, later), Vec::from_iter(told("reset", 999)));
        assert_eq!(flushed(&failures, later + Duration::from_secs(1)), [], "nothing is left");
    }

    #[test]
    fn each_lack_is_told_beside_the_others() {
        let start = Instant::now();
        let failures = Failures::new(start);
        let error = io::Error::other("gone");
        let changes = Lack::ALL.map(|lack| lack.told("gone".to_owned(), 1));
        for (lack, change) in Lack::ALL.into_iter().zip(&changes) {
            assert_eq!(failures.hit(lack, &error, start).as_ref(), Some(change));
            assert_eq!(failures.hit(lack, &error, start), None);
        }
        assert_eq!(flushed(&failures, start + Duration::from_secs(1)), changes);
    }
}
