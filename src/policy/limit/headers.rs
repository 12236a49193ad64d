//! `RateLimit-Policy`, `RateLimit` and `Retry-After`, as text.
//!
//! After draft-ietf-httpapi-ratelimit-headers-11 (May 2026): both fields are lists of strings with parameters (RFC
//! 9651), one item per limit. `q` requests in `w` seconds is the rate; a burst that differs from the rate's count goes
//! into `flagstone-burst`, a vendor parameter as section 3.1 wants them. `t` counts to the moment at which `r`
//! grows, which for a refusal is the moment that `Retry-After` names; seconds are rounded up, so that a client that
//! waits them out has waited long enough.
//!
//! No partition key (`pk`) is sent: it would tell clients how they are told apart, and the draft makes it optional.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::nearest::Nearest;
use super::{Decision, Settings};

pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// One limit as its fields describe it, formatted once.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Quoted, with what comes before the number that remains, and what parts it from the item before.
    remaining: Box<[u8]>,
    item: Box<[u8]>,
}

impl Policy {
    /// `name` is shown with `?` for whatever a structured string cannot carry (anything but printable ASCII).
    pub fn new(name: &str, settings: &Settings) -> Self {
        let (count, seconds) = whole_seconds(settings.rate_count, settings.period);
        let mut item = quoted(name);
        let remaining = remaining(&item);
        number(&mut item, b";q=", count.get());
        number(&mut item, b";w=", seconds.get());
        if settings.burst != settings.rate_count {
            number(&mut item, b";flagstone-burst=", u64::from(settings.burst.get()));
        }
        Self { remaining, item: item.into_vec().into() }
    }

    /// A bound on requests in flight: `"per_ip";q=10;qu="concurrent-requests"`.
    pub fn concurrency(name: &str, slots: NonZeroU32) -> Self {
        let mut item = quoted(name);
        let remaining = remaining(&item);
        number(&mut item, b";q=", u64::from(slots.get()));
        item.extend_from_slice(b";qu=\"concurrent-requests\"");
        Self { remaining, item: item.into_vec().into() }
    }
}

fn remaining(quoted_name: &[u8]) -> Box<[u8]> {
    [SEPARATOR, quoted_name, b";r="].concat().into()
}

/// The `RateLimit-Policy` of a route, to be made once and cloned per answer. `None` without policies.
pub fn policies<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Option<HeaderValue> {
    let mut text = Text::new();
    for policy in policies {
        if !text.is_empty() {
            text.extend_from_slice(SEPARATOR);
        }
        text.extend_from_slice(&policy.item);
    }
    value(&text)
}

/// The `RateLimit` of one answer: formatted on the stack, one allocation for the value. `None` without limits.
///
/// Of more than eight limits it tells the eight that are nearest to refusing: a head that grows with every limit is
/// one that clients and proxies refuse in the end.
pub fn rate_limit<'a, I>(limits: I) -> Option<HeaderValue>
where
    I: IntoIterator<Item = (&'a Policy, &'a Decision), IntoIter: ExactSizeIterator>,
{
    let limits = limits.into_iter();
    if limits.len() <= TOLD_MAX {
        return items(limits);
    }
    let limits: Vec<_> = limits.collect();
    let mut nearest = Nearest::new();
    limits.iter().enumerate().for_each(|(index, (_, decision))| nearest.consider(index, decision));
    items(nearest.into_stands().into_iter().map(|(index, _)| limits[index]))
}

fn items<'a>(limits: impl Iterator<Item = (&'a Policy, &'a Decision)>) -> Option<HeaderValue> {
    let mut text = Text::new();
    for (policy, decision) in limits {
        let parted_from = if text.is_empty() { SEPARATOR.len() } else { 0 };
        number(&mut text, &policy.remaining[parted_from..], u64::from(decision.remaining));
        let seconds = if decision.allowed { seconds(decision.next) } else { retry_seconds(decision.wait) };
        number(&mut text, b";t=", seconds);
    }
    value(&text)
}

/// How many limits one `RateLimit` tells of, and one `RateLimit-Policy`.
pub const TOLD_MAX: usize = 8;

/// Eight limits with names of usual length.
type Text = SmallVec<[u8; 256]>;

/// Between the items of a list.
const SEPARATOR: &[u8] = b", ";

fn number(text: &mut Text, parameter: &[u8], number: u64) {
    text.extend_from_slice(parameter);
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn value(text: &Text) -> Option<HeaderValue> {
    (!text.is_empty()).then(|| HeaderValue::from_bytes(text).expect("names are quoted as printable ASCII"))
}

/// `Retry-After` (RFC 9110, section 10.2.3): `wait` in whole seconds, rounded up, at least 1.
pub fn retry_seconds(wait: Duration) -> u64 {
    seconds(wait).max(1)
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A string of RFC 9651, section 3.3.3.
fn quoted(name: &str) -> Text {
    let mut quoted = Text::from_slice(b"\"");
    for character in name.chars() {
        match character {
            '"' | '\\' => quoted.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => quoted.push(character as u8),
            _ => quoted.push(b'?'),
        }
    }
    quoted.push(b'"');
    quoted
}

/// The same rate with a period of whole seconds, which is all that `w` can say: 5/500ms is 10 in 1 s. A rate that
/// does not come out even is rounded down, so as not to promise more than there is; below one it stays one.
fn whole_seconds(count: NonZeroU32, period: Duration) -> (NonZeroU64, NonZeroU64) {
    let window = NonZeroU64::new(seconds(period)).unwrap_or(NonZeroU64::MIN);
    if period.subsec_nanos() == 0 {
        return (NonZeroU64::from(count), window);
    }
    let scaled = u128::from(count.get()) * u128::from(window.get()) * 1_000_000_000 / period.as_nanos();
    // The largest integer that a structured field can carry has fifteen digits.
    let scaled = scaled.min(999_999_999_999_999) as u64;
    (NonZeroU64::new(scaled).unwrap_or(NonZeroU64::MIN), window)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn settings(count: u32, period: Duration, burst: u32) -> Settings {
        Settings {
            rate_count: NonZeroU32::new(count).unwrap(),
            period,
            burst: NonZeroU32::new(burst).unwrap(),
            keys_max: NonZeroUsize::MIN,
            ipv6_prefix: 64,
        }
    }

    fn policy(name: &str, count: u32, period: Duration, burst: u32) -> String {
        let policy = Policy::new(name, &settings(count, period, burst));
        policies([&policy]).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_policy_tells_rate_window_and_an_unlike_burst() {
        let minute = Duration::from_secs(60);
        assert_eq!(policy("per_ip", 100, minute, 100), r#""per_ip";q=100;w=60"#);
        assert_eq!(policy("per_ip", 100, minute, 20), r#""per_ip";q=100;w=60;flagstone-burst=20"#);
    }

    #[test]
    fn windows_are_whole_seconds() {
        assert_eq!(policy("a", 5, Duration::from_millis(500), 5), r#""a";q=10;w=1"#);
        assert_eq!(policy("a", 1, Duration::from_millis(1500), 1), r#""a";q=1;w=2"#);
        assert_eq!(policy("a", 3, Duration::from_millis(1500), 3), r#""a";q=4;w=2"#);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(policy("a\"b\\c\nd\u{e9}", 1, Duration::from_secs(1), 1), r#""a\"b\\c?d?";q=1;w=1"#);
    }

    #[test]
    fn several_limits_are_one_list() {
        let minute = Policy::new("minute", &settings(50, Duration::from_secs(60), 50));
        let slots = Policy::concurrency("slots", NonZeroU32::new(8).unwrap());
        let value = policies([&minute, &slots]).unwrap();
        assert_eq!(value, r#""minute";q=50;w=60, "slots";q=8;qu="concurrent-requests""#);
        assert!(policies([]).is_none());
    }

    #[test]
    fn a_refusal_names_the_same_moment_twice() {
        let policy = Policy::new("per_ip", &settings(1, Duration::from_secs(60), 1));
        let decision = |allowed, remaining, next, wait| Decision { allowed, remaining, reset: next, next, wait };
        let millis = Duration::from_millis;

        let passed = decision(true, 50, millis(29_001), Duration::ZERO);
        assert_eq!(rate_limit([(&policy, &passed)]).unwrap(), r#""per_ip";r=50;t=30"#);
        let refused = decision(false, 0, millis(300), millis(300));
        assert_eq!(rate_limit([(&policy, &refused)]).unwrap(), r#""per_ip";r=0;t=1"#);
        assert_eq!(retry_seconds(refused.wait), 1);
        assert!(rate_limit([]).is_none());
    }

    #[test]
    fn of_many_limits_those_nearest_to_refusing_are_told() {
        let policies: Vec<_> =
            (0..20).map(|n| Policy::new(&format!("l{n}"), &settings(1, Duration::from_secs(60), 1))).collect();
        let decision = |allowed, remaining| Decision {
            allowed,
            remaining,
            reset: Duration::ZERO,
            next: Duration::ZERO,
            wait: Duration::ZERO,
        };
        // The further down, the nearer, but for two in front: one is used up, one refuses.
        let mut decisions: Vec<_> = (0..20).map(|n| decision(true, 100 - n)).collect();
        decisions[3] = decision(true, 0);
        decisions[5] = decision(false, 0);
        let value = rate_limit(policies.iter().zip(&decisions)).unwrap();
        let items: Vec<_> = value.to_str().unwrap().split(", ").collect();
        assert_eq!(items[..2], [r#""l3";r=0;t=0"#, r#""l5";r=0;t=1"#]);
        let names: Vec<_> = items.iter().map(|item| item.split(';').next().unwrap()).collect();
        assert_eq!(names[2..], ["\"l14\"", "\"l15\"", "\"l16\"", "\"l17\"", "\"l18\"", "\"l19\""]);
    }

    #[test]
    fn retry_after_rounds_up_and_is_at_least_one() {
        for (wait, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60), (60_000, 60)] {
            assert_eq!(retry_seconds(Duration::from_millis(wait)), seconds, "{wait}");
        }
    }
}
