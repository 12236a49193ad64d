//! Several limits on one request: all charged, or none.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Decision, Key, Limiter, Nanos};

/// What several limits said together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Whether all allowed it.
    pub allowed: bool,
    /// Where each limit stands now, in their order. When `allowed` is false, the refusals are those that say so.
    pub decisions: SmallVec<[Decision; 2]>,
}

impl Verdict {
    /// Until none of the limits would refuse; zero when none does.
    pub fn wait(&self) -> Duration {
        self.decisions.iter().map(|decision| decision.wait).max().unwrap_or_default()
    }
}

/// Charges one request to each of `limits`. When one refuses, those before it get theirs back and those after it are
/// only looked at. For the race between a charge and its return see [`Limiter::refund`].
pub fn check_all<'a, I>(limits: I, now: Nanos) -> Verdict
where
    I: IntoIterator<Item = (&'a Limiter, Key)> + Clone,
{
    let charged = limits.clone().into_iter();
    let mut decisions = SmallVec::with_capacity(charged.size_hint().0);
    for (limiter, key) in charged {
        let decision = limiter.check(key, now);
        if !decision.allowed {
            return stand_back(limits, decisions.len(), now);
        }
        decisions.push(decision);
    }
    Verdict { allowed: true, decisions }
}

#[cold]
fn stand_back<'a>(limits: impl IntoIterator<Item = (&'a Limiter, Key)>, charged: usize, now: Nanos) -> Verdict {
    let stand = |(index, (limiter, key)): (usize, (&'a Limiter, Key))| {
        if index < charged {
            limiter.refund(key, now);
        }
        limiter.peek(key, now)
    };
    Verdict { allowed: false, decisions: limits.into_iter().enumerate().map(stand).collect() }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use super::*;
    use crate::policy::limit::Settings;

    fn limiter(burst: u32) -> Limiter {
        let burst = NonZeroU32::new(burst).unwrap();
        let keys_max = NonZeroUsize::new(100).unwrap();
        Limiter::new(Settings { rate_count: burst, period: Duration::from_secs(60), burst, keys_max, ipv6_prefix: 64 })
    }

    #[test]
    fn none_is_charged_when_one_refuses() {
        let (wide, narrow, last) = (limiter(10), limiter(2), limiter(5));
        let limits = [&wide, &narrow, &last].map(|limiter| (limiter, limiter.key().finish()));
        let pass = |seconds: u64| {
            let verdict = check_all(limits, Nanos(seconds * 1_000_000_000));
            assert!(verdict.allowed);
            verdict.decisions.iter().map(|decision| decision.remaining).collect::<Vec<_>>()
        };

        assert_eq!(pass(0), [9, 1, 4]);
        assert_eq!(pass(0), [8, 0, 3]);
        for _ in 0..20 {
            let refused = check_all(limits, Nanos(0));
            let each = refused.decisions.iter().map(|decision| (decision.allowed, decision.remaining));
            assert_eq!(each.collect::<Vec<_>>(), [(true, 8), (false, 0), (true, 3)]);
            assert_eq!((refused.allowed, refused.wait()), (false, Duration::from_secs(30)));
        }
        assert_eq!(pass(30), [9, 0, 4]);
    }
}
