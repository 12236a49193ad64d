//! Several limits on one request: all charged, or none.

use std::time::Duration;

use smallvec::SmallVec;

use super::nearest::Nearest;
use super::{Decision, Key, Limiter, Nanos};

/// One limit that a request is asked for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What the caller knows the limit by; they ascend.
    pub index: usize,
    pub limiter: &'a Limiter,
    pub key: Key,
}

/// Limits by their [`Ask::index`] and where they stand, in their order.
pub type Stands = SmallVec<[(usize, Decision); 2]>;

/// What several limits said together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// All let it through. Those that are nearest to refusing, at most [`TOLD_MAX`](super::headers::TOLD_MAX).
    Allowed(Stands),
    /// All of them; the refusals are those that say so.
    Refused(Stands),
}

impl Verdict {
    /// Until none of the limits would refuse; `None` when none did.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Allowed(_) => None,
            Self::Refused(stands) => stands.iter().map(|(_, decision)| decision.wait).max(),
        }
    }
}

/// Charges one request to each of `limits`. When one refuses, those before it get theirs back and those after it are
/// only looked at. For the race between a charge and its return see [`Limiter::refund`].
pub fn check_all<'a>(limits: impl Iterator<Item = Ask<'a>> + Clone, now: Nanos) -> Verdict {
    let mut nearest = Nearest::new();
    for Ask { index, limiter, key } in limits.clone() {
        match limiter.charge(key, now, 0) {
            (gcra, Ok(used)) => nearest.consider_allowed(index, &gcra, used),
            (_, Err(_)) => return Verdict::Refused(stand_back(limits, index, now)),
        }
    }
    Verdict::Allowed(nearest.into_stands())
}

#[cold]
fn stand_back<'a>(limits: impl Iterator<Item = Ask<'a>>, refused: usize, now: Nanos) -> Stands {
    let stand = |Ask { index, limiter, key }| {
        if index < refused {
            limiter.refund(key, now);
        }
        (index, limiter.peek(key, now))
    };
    limits.map(stand).collect()
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};

    use proptest::prelude::*;

    use super::*;
    use crate::policy::limit::Settings;
    use crate::policy::limit::headers::TOLD_MAX;

    fn limiter(burst: u32) -> Limiter {
        let burst = NonZeroU32::new(burst).unwrap();
        let keys_max = NonZeroUsize::new(100).unwrap();
        Limiter::new(Settings { rate_count: burst, period: Duration::from_secs(60), burst, keys_max, ipv6_prefix: 64 })
    }

    fn asked<'a>(limiters: &'a [&'a Limiter]) -> impl Iterator<Item = Ask<'a>> + Clone {
        limiters.iter().enumerate().map(|(index, limiter)| Ask { index, limiter, key: limiter.key().finish() })
    }

    #[test]
    fn none_is_charged_when_one_refuses() {
        let (wide, narrow, last) = (limiter(10), limiter(2), limiter(5));
        let limiters = [&wide, &narrow, &last];
        let check = |now| check_all(asked(&limiters), now);
        let pass = |seconds: u64| {
            let Verdict::Allowed(stands) = check(Nanos(seconds * 1_000_000_000)) else { panic!("there is room") };
            stands.iter().map(|(_, decision)| decision.remaining).collect::<Vec<_>>()
        };

        assert_eq!(pass(0), [9, 1, 4]);
        assert_eq!(pass(0), [8, 0, 3]);
        for _ in 0..20 {
            let refused = check(Nanos(0));
            assert_eq!(refused.wait(), Some(Duration::from_secs(30)));
            let Verdict::Refused(stands) = refused else { panic!("the second is used up") };
            let each = stands.iter().map(|(index, decision)| (*index, decision.allowed, decision.remaining));
            assert_eq!(each.collect::<Vec<_>>(), [(0, true, 8), (1, false, 0), (2, true, 3)]);
        }
        assert_eq!(pass(30), [9, 0, 4]);
    }

    proptest! {
        #[test]
        fn those_nearest_to_refusing_are_told(bursts in proptest::collection::vec(1..40u32, 1..60)) {
            let limiters: Vec<_> = bursts.iter().map(|&burst| limiter(burst)).collect();
            let limiters: Vec<_> = limiters.iter().collect();
            let Verdict::Allowed(stands) = check_all(asked(&limiters), Nanos(0)) else { panic!("there is room") };
            let told: Vec<_> = stands.iter().map(|(index, decision)| (*index, decision.remaining)).collect();

            let mut nearest: Vec<_> = bursts.iter().map(|burst| burst - 1).enumerate().collect();
            nearest.sort_by_key(|&(_, remaining)| remaining);
            nearest.truncate(TOLD_MAX);
            nearest.sort_unstable();
            prop_assert_eq!(told, nearest);
        }
    }
}
