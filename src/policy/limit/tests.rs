use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn settings(count: u32, period: Duration, burst: u32) -> Settings {
    Settings {
        rate_count: NonZeroU32::new(count).unwrap(),
        period,
        burst: NonZeroU32::new(burst).unwrap(),
        keys_max: NonZeroUsize::new(1_000).unwrap(),
        ipv6_prefix: 64,
    }
}

fn limiter(count: u32, seconds: u64, burst: u32) -> Limiter {
    Limiter::new(settings(count, Duration::from_secs(seconds), burst))
}

fn key(limiter: &Limiter, number: u32) -> Key {
    limiter.key_ip(IpAddr::from(number.to_be_bytes()))
}

#[test]
fn the_burst_passes_and_one_more_does_not() {
    let limiter = limiter(10, 60, 3);
    let key = key(&limiter, 1);
    for remaining in [2, 1, 0] {
        let decision = limiter.check(key, Nanos(5));
        assert!(decision.allowed);
        assert_eq!((decision.remaining, decision.wait), (remaining, Duration::ZERO));
        assert_eq!(decision.reset, Duration::from_secs(6) * (3 - remaining));
    }
    let refused = limiter.check(key, Nanos(5));
    assert_eq!((refused.allowed, refused.remaining), (false, 0));
    assert_eq!((refused.wait, refused.reset), (Duration::from_secs(6), Duration::from_secs(18)));
}

#[test]
fn exactly_tau_passes_and_a_nanosecond_earlier_does_not() {
    for (count, seconds, burst) in [(10, 60, 1), (10, 60, 4), (1, 86_400, 2), (1_000_000, 1, 7), (7, 60, 3)] {
        let limiter = limiter(count, seconds, burst);
        let key = key(&limiter, 1);
        (0..burst).for_each(|_| assert!(limiter.check(key, Nanos(SECOND)).allowed));
        // 7/1m has T between two nanoseconds: the wait is rounded up.
        let wait = (seconds * SECOND).div_ceil(u64::from(count));
        let early = limiter.check(key, Nanos(SECOND + wait - 1));
        assert_eq!((early.allowed, early.wait), (false, Duration::from_nanos(1)));
        assert!(limiter.check(key, Nanos(SECOND + wait)).allowed);
        assert!(!limiter.check(key, Nanos(SECOND + wait)).allowed);
    }
}

#[test]
fn waiting_as_long_as_told_is_enough() {
    let limiter = limiter(999_983, 1, 2);
    let key = key(&limiter, 1);
    let mut now = 0;
    for _ in 0..10_000 {
        let decision = limiter.check(key, Nanos(now));
        if !decision.allowed {
            now += decision.wait.as_nanos() as u64;
            assert!(limiter.check(key, Nanos(now)).allowed);
        }
    }
}

#[test]
fn seven_a_minute_does_not_drift_in_a_year() {
    let limiter = limiter(7, 60, 2);
    let key = key(&limiter, 1);
    // Arrivals and answers are each rounded up to a nanosecond.
    let interval = Duration::from_nanos((60 * SECOND).div_ceil(7) + 1);
    for minute in 0..365 * 24 * 60 {
        for seventh in 0..7 {
            let now = minute * 60 * SECOND + (seventh * 60 * SECOND).div_ceil(7);
            let decision = limiter.check(key, Nanos(now));
            assert!(decision.allowed && decision.reset <= interval, "{:?} in minute {minute}", decision.reset);
        }
    }
}

#[test]
fn keys_do_not_share() {
    let limiter = limiter(1, 60, 1);
    assert!(limiter.check(key(&limiter, 1), Nanos(0)).allowed);
    assert!(limiter.check(key(&limiter, 2), Nanos(0)).allowed);
    assert!(!limiter.check(key(&limiter, 1), Nanos(0)).allowed);
    assert_eq!((limiter.len(), limiter.keys_active(Nanos(0))), (2, 2));
    assert_eq!((limiter.len(), limiter.keys_active(Nanos(60 * SECOND))), (2, 0));
}

#[test]
fn a_refund_makes_room_for_one() {
    let limiter = limiter(1, 60, 2);
    let key = key(&limiter, 1);
    limiter.refund(key, Nanos(0));
    assert!(limiter.is_empty(), "nothing to give back");
    assert!(limiter.check(key, Nanos(0)).allowed && limiter.check(key, Nanos(0)).allowed);
    limiter.refund(key, Nanos(0));
    assert_eq!(limiter.peek(key, Nanos(0)).remaining, 1);
    assert!(limiter.check(key, Nanos(0)).allowed);
    assert!(!limiter.check(key, Nanos(0)).allowed);
    for _ in 0..5 {
        limiter.refund(key, Nanos(0));
    }
    assert_eq!(limiter.peek(key, Nanos(0)).remaining, 2, "never more than the burst");
}

#[test]
fn peeking_charges_nothing() {
    let limiter = limiter(1, 60, 1);
    let key = key(&limiter, 1);
    for _ in 0..3 {
        assert_eq!(limiter.peek(key, Nanos(0)).remaining, 1);
    }
    assert!(limiter.is_empty());
    assert!(limiter.check(key, Nanos(0)).allowed);
    assert_eq!(limiter.peek(key, Nanos(0)), limiter.check(key, Nanos(0)));
}

#[test]
fn those_who_wait_take_turns_in_order() {
    let limiter = limiter(1, 1, 2);
    let key = key(&limiter, 1);
    let reserve = |now| limiter.reserve(key, Nanos(now), 3);
    assert!(matches!(reserve(0), Reservation::Now(Decision { remaining: 1, .. })));
    assert!(matches!(reserve(0), Reservation::Now(Decision { remaining: 0, .. })));
    for turn in 1..=3 {
        assert_eq!(reserve(0), Reservation::Wait(Duration::from_secs(turn)));
    }
    let Reservation::Refused(refused) = reserve(0) else { panic!("the queue holds three") };
    assert_eq!((refused.allowed, refused.wait), (false, Duration::from_secs(1)));
    assert_eq!(reserve(SECOND), Reservation::Wait(Duration::from_secs(3)));
}

#[test]
fn who_leaves_the_queue_frees_the_last_place() {
    let limiter = limiter(1, 1, 1);
    let key = key(&limiter, 1);
    let [_, first, second, refused] = [0; 4].map(|now| limiter.reserve(key, Nanos(now), 2));
    assert_eq!(first, Reservation::Wait(Duration::from_secs(1)));
    assert_eq!(second, Reservation::Wait(Duration::from_secs(2)));
    limiter.cancel(key, refused, Nanos(0));
    assert!(matches!(limiter.reserve(key, Nanos(0), 2), Reservation::Refused(_)));
    limiter.cancel(key, first, Nanos(0));
    assert_eq!(limiter.reserve(key, Nanos(0), 2), Reservation::Wait(Duration::from_secs(2)));
}

#[test]
fn a_changed_rate_keeps_what_was_used() {
    let limiter = limiter(10, 60, 10);
    let key = key(&limiter, 1);
    (0..4).for_each(|_| assert!(limiter.check(key, Nanos(0)).allowed));
    let minute = Duration::from_secs(60);

    // 7/1m counts in sevenths of a nanosecond: the ticks themselves change.
    for (count, burst, remaining) in [(100, 100, 96), (7, 7, 3), (7, 4, 0), (1_000_000, 1_000, 996), (10, 10, 6)] {
        assert!(limiter.update(settings(count, minute, burst), Nanos(0)));
        assert_eq!(limiter.peek(key, Nanos(0)).remaining, remaining, "{count}/1m, burst {burst}");
    }
    assert!(limiter.update(settings(10, minute, 2), Nanos(0)));
    assert_eq!(limiter.peek(key, Nanos(0)).wait, Duration::from_secs(6), "one full bucket is owed, not two");
    let other_bound = Settings { keys_max: NonZeroUsize::MIN, ..limiter.settings() };
    assert!(!limiter.update(other_bound, Nanos(0)));
    assert_eq!(limiter.settings(), settings(10, minute, 2));
}

#[test]
fn a_rebuilt_limiter_knows_what_was_used() {
    let limiter = limiter(10, 60, 10);
    for number in 0..500 {
        (0..=number % 10).for_each(|_| assert!(limiter.check(key(&limiter, number), Nanos(7)).allowed));
    }
    let larger = NonZeroUsize::new(9_000).unwrap();
    let rebuilt = limiter.rebuild(Settings { keys_max: larger, ..settings(7, Duration::from_secs(60), 20) }, Nanos(7));
    assert_eq!(rebuilt.len(), 500);
    for number in 0..500 {
        assert_eq!(rebuilt.peek(key(&limiter, number), Nanos(7)).remaining, 19 - number % 10);
    }

    let smaller = NonZeroUsize::new(50).unwrap();
    let rebuilt = limiter.rebuild(Settings { keys_max: smaller, ..limiter.settings() }, Nanos(7));
    assert_eq!(rebuilt.len(), 50);
    let full = (0..500).filter(|&number| !rebuilt.peek(key(&limiter, number), Nanos(7)).allowed).count();
    assert!(full >= 45, "{full} of 50 places went to the 50 keys that are over the limit");
}

fn with_keys_max(keys_max: usize, settings: Settings) -> Limiter {
    Limiter::new(Settings { keys_max: NonZeroUsize::new(keys_max).unwrap(), ..settings })
}

#[test]
fn racing_threads_get_exactly_the_burst() {
    // As many keys as fit: some are moved to their other bucket while they are being charged.
    const KEYS: u32 = 2_000;
    let limiter = with_keys_max(KEYS as usize, settings(1, Duration::from_secs(3_600), 5));
    let passed: Vec<AtomicU32> = (0..KEYS).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (limiter, passed) = (&limiter, &passed);
            scope.spawn(move || {
                for step in 0..KEYS * 4 {
                    let number = (step / 4 + thread % 2 * 7) % KEYS;
                    let allowed = limiter.check(key(limiter, number), Nanos(1)).allowed;
                    passed[number as usize].fetch_add(u32::from(allowed), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(limiter.len(), KEYS as usize);
    assert!(passed.iter().all(|passed| passed.load(Ordering::Relaxed) == 5));
}

#[test]
fn a_flood_beside_it_gives_a_key_nothing_extra() {
    let burst = 40_000;
    let limiter = with_keys_max(500, settings(1, Duration::from_secs(3_600), burst));
    let regular = key(&limiter, 1);
    let passed = AtomicU32::new(0);
    let visit = || passed.fetch_add(u32::from(limiter.check(regular, Nanos(1)).allowed), Ordering::Relaxed);
    // Ahead of the strangers, who have used one each.
    (0..1_000).for_each(|_| _ = visit());
    thread::scope(|scope| {
        for thread in 1..=2 {
            let limiter = &limiter;
            scope.spawn(move || {
                for stranger in 0..50_000 {
                    assert!(limiter.check(key(limiter, thread << 24 | stranger), Nanos(1)).allowed);
                }
            });
            scope.spawn(|| (0..burst).for_each(|_| _ = visit()));
        }
    });
    assert_eq!(passed.into_inner(), burst);
    assert_eq!(limiter.len(), 500);
}

#[test]
fn a_change_of_rate_amid_checks_lets_nothing_extra_through() {
    let burst = 20_000;
    let limiter = Limiter::new(settings(1, Duration::from_secs(3_600), burst));
    let key = key(&limiter, 1);
    let (passed, done) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while limiter.check(key, Nanos(0)).allowed {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for count in [7, 1, 3, 5, 1].into_iter().cycle() {
                assert!(limiter.update(settings(count, Duration::from_secs(3_600), burst), Nanos(0)));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(passed.into_inner(), burst);
}

#[test]
fn a_flood_of_new_keys_spares_those_over_their_limit() {
    let limiter = Limiter::new(Settings {
        keys_max: NonZeroUsize::new(10_000).unwrap(),
        ..settings(10, Duration::from_secs(600), 10)
    });
    let culprits = 0..1_000;
    for culprit in culprits.clone() {
        while limiter.check(key(&limiter, culprit), Nanos(0)).allowed {}
    }
    for stranger in 10_000..1_010_000 {
        assert!(limiter.check(key(&limiter, stranger), Nanos(0)).allowed);
    }
    assert_eq!(limiter.len(), 10_000);
    assert!(limiter.bytes() <= limiter.bytes_max());
    let kept = culprits.filter(|&culprit| !limiter.peek(key(&limiter, culprit), Nanos(0)).allowed).count();
    assert_eq!(kept, 1_000);
}

#[test]
fn the_bound_in_bytes_is_the_one_stated() {
    for (keys_max, per_key_max) in
        [(3, 64.0), (8, 48.0), (100, 24.0), (1_000, 20.8), (100_000, 20.03), (1_000_000, 20.05)]
    {
        let table = Table::new(keys_max);
        let per_key = table.bytes_max() as f64 / keys_max as f64;
        assert!(per_key <= per_key_max, "{keys_max}: {per_key}");
    }
    assert_eq!(limiter(1, 1, 1).table.bytes(), 64, "slots come with the first key");
}

#[test]
fn threads_share_a_limiter() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Limiter>();
}

/// A token bucket told the other way round: tokens drip in, each request takes one, waiting ones make it negative.
struct Bucket {
    tokens: f64,
    burst: f64,
    per_nano: f64,
    then: u64,
}

impl Bucket {
    fn new(count: u32, period: Duration, burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { tokens: burst, burst, per_nano: f64::from(count) / period.as_nanos() as f64, then: 0 }
    }

    fn at(&mut self, now: u64) -> f64 {
        self.tokens = self.burst.min(self.tokens + (now - self.then) as f64 * self.per_nano);
        self.then = now;
        self.tokens
    }
}

/// Rates whose T is a whole number of ticks, so that agreement is to the nanosecond.
fn exact_rate() -> impl Strategy<Value = (u32, Duration)> {
    prop_oneof![
        (1..=8u32, 1..100_000u64).prop_map(|(count, seconds)| (count, Duration::from_secs(seconds))),
        (1..=8u32, 1..1_000_000u64).prop_map(|(count, nanos)| (count, Duration::from_nanos(nanos))),
        (0..=6u32, 1..=3_600u64).prop_map(|(power, seconds)| (10u32.pow(power), Duration::from_secs(seconds))),
    ]
}

/// Gaps in units of T/4: mostly below the rate or about it, now and then a long rest.
fn gaps() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let gap = prop_oneof![4 => Just(0u64), 8 => 0..6u64, 2 => 0..40u64, 1 => 0..1_000u64];
    proptest::collection::vec((gap, any::<bool>()), 1..400)
}

proptest! {
    #[test]
    fn it_agrees_with_a_token_bucket(count in 1..2_000u32, seconds in 1..3_600u64, burst in 1..200u32,
                                     queue in 0..20u32, gaps in gaps()) {
        let period = Duration::from_secs(seconds);
        let limiter = Limiter::new(settings(count, period, burst));
        let key = key(&limiter, 1);
        let mut model = Bucket::new(count, period, burst);
        let quarter = seconds * SECOND / u64::from(count) / 4;
        // Arrivals a nanosecond off the grid keep clear of ties, which another test decides exactly.
        let mut now = 0;
        for (gap, odd) in gaps {
            now += gap * quarter + if odd { 1 + quarter / 3 } else { 0 };
            let tokens = model.at(now);
            let ties = [1.0, 1.0 - f64::from(queue)];
            if ties.iter().any(|tie| (tokens - tie).abs() < 1e-4) {
                if !matches!(limiter.reserve(key, Nanos(now), queue), Reservation::Refused(_)) {
                    model.tokens -= 1.0;
                }
                continue;
            }
            match limiter.reserve(key, Nanos(now), queue) {
                Reservation::Now(decision) => {
                    prop_assert!(tokens > 1.0, "passed with {tokens}");
                    model.tokens -= 1.0;
                    prop_assert!((f64::from(decision.remaining) - model.tokens.floor()).abs() <= 1.0);
                    let reset = (model.burst - model.tokens) / model.per_nano;
                    prop_assert!((decision.reset.as_nanos() as f64 - reset).abs() < 1e-4 / model.per_nano + 2.0);
                }
                Reservation::Wait(wait) => {
                    prop_assert!(tokens < 1.0 && tokens > 1.0 - f64::from(queue), "waits with {tokens}");
                    model.tokens -= 1.0;
                    let turn = -model.tokens / model.per_nano;
                    prop_assert!((wait.as_nanos() as f64 - turn).abs() < 1e-4 / model.per_nano + 2.0);
                }
                Reservation::Refused(decision) => {
                    prop_assert!(tokens < 1.0 - f64::from(queue), "refused with {tokens}");
                    let wait = (1.0 - f64::from(queue) - tokens) / model.per_nano;
                    prop_assert!((decision.wait.as_nanos() as f64 - wait).abs() < 1e-4 / model.per_nano + 2.0);
                }
            }
        }
    }

    /// Whole-number tokens: a request costs `period`, each nanosecond brings `count`. Ties included.
    #[test]
    fn it_agrees_to_the_nanosecond_where_t_is_exact((count, period) in exact_rate(), burst in 1..50u32, gaps in gaps()) {
        let limiter = Limiter::new(settings(count, period, burst));
        let key = key(&limiter, 1);
        let (cost, full) = (period.as_nanos(), period.as_nanos() * u128::from(burst));
        let (mut tokens, mut now) = (full, 0);
        for (gap, odd) in gaps {
            let elapsed = gap * (period.as_nanos() as u64 / u64::from(count)).div_ceil(4) + u64::from(odd);
            now += elapsed;
            tokens = full.min(tokens + u128::from(elapsed) * u128::from(count));
            let decision = limiter.check(key, Nanos(now));
            prop_assert_eq!(decision.allowed, tokens >= cost);
            if decision.allowed {
                tokens -= cost;
                prop_assert_eq!(u128::from(decision.remaining), tokens / cost);
            } else {
                prop_assert_eq!(decision.wait.as_nanos(), (cost - tokens).div_ceil(u128::from(count)));
            }
            prop_assert_eq!(decision.reset.as_nanos(), (full - tokens).div_ceil(u128::from(count)));
        }
    }
}

#[test]
fn a_limiter_of_the_same_seed_goes_on_where_another_stood() {
    let seed = [7; 16];
    let old = Limiter::with_seed(settings(10, Duration::from_secs(10), 10), seed);
    let key = old.key_ip("192.0.2.1".parse().unwrap());
    let now = Nanos(5_000_000_000);
    for _ in 0..6 {
        assert!(old.check(key, now).allowed);
    }
    let memory = old.memory(now);
    assert_eq!(memory.keys.len(), 1);
    // Another clock, and half the rate: the number of requests used is what counts.
    let new = Limiter::with_seed(settings(5, Duration::from_secs(10), 8), seed);
    let later = Nanos(77);
    new.recall(&memory, later);
    assert_eq!(new.key_ip("192.0.2.1".parse().unwrap()), key);
    assert_eq!([new.check(key, later).allowed, new.check(key, later).allowed], [true, true]);
    assert!(!new.check(key, later).allowed);
    // What has come back by itself is not worth telling.
    assert_eq!(old.memory(Nanos(now.0 + 6_000_000_000)).keys, []);
    let stranger = Limiter::new(old.settings());
    assert_ne!(stranger.key_ip("192.0.2.1".parse().unwrap()), key);
    assert!(new.has_keys_of(&old) && !stranger.has_keys_of(&old));
    let wider = Limiter::with_seed(Settings { ipv6_prefix: 56, ..old.settings() }, seed);
    assert!(!wider.has_keys_of(&old), "clients on IPv6 have other keys there");
}

#[test]
fn too_many_remembered_keys_leave_out_the_stalest() {
    let many = Limiter::with_seed(settings(10, Duration::from_secs(10), 10), [1; 16]);
    let now = Nanos(0);
    for number in 0..100 {
        for _ in 0..=number / 20 {
            assert!(many.check(key(&many, number), now).allowed);
        }
    }
    let few = Settings { keys_max: NonZeroUsize::new(10).unwrap(), ..many.settings() };
    let few = Limiter::with_seed(few, [1; 16]);
    few.recall(&many.memory(now), now);
    assert!(few.len() <= 10);
    assert_eq!(few.peek(key(&many, 0), now).remaining, 10, "it was among the stalest");
}
