//! Whether one endpoint can take requests: what active checks say, what its own failures say, and whether it accepts
//! connections at all.
//!
//! | part | away when | back when |
//! |---|---|---|
//! | health | an active check has not passed yet, or `unhealthy_after` of them failed in a row | the first one passes that ever did; later, `healthy_after` in a row |
//! | ejection | `ejection.failures` requests in a row failed | its time is over |
//! | refusing | it took no connection while `hold` is set | a connection succeeds |
//!
//! In the plain case a look costs two loads and no clock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::balance::{Ejection, EjectionMemory, EjectionSettings, RAMP_FULL, epoch, slow_start_permille};
use crate::config::model;

/// What active checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nobody checks it.
    Unchecked,
    /// The first check is not through.
    Unknown,
    Healthy,
    Unhealthy,
}

impl Health {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Unchecked,
            1 => Self::Unknown,
            2 => Self::Healthy,
            _ => Self::Unhealthy,
        }
    }

    fn takes(self) -> bool {
        matches!(self, Self::Unchecked | Self::Healthy)
    }
}

/// How an endpoint stands; shared by all workers.
#[derive(Debug)]
pub(crate) struct Standing {
    health: AtomicU8,
    /// It was told that checks find it away; over all reloads, until they find that it is back.
    is_told_away: AtomicBool,
    refusing: AtomicBool,
    /// Shared with the same address under the rules of before, so that a reload frees nobody.
    pub(super) ejection: Arc<Ejection>,
    slow_start: Duration,
    epoch: Instant,
    /// When it began to take requests anew, other than by the end of an ejection; 0 = as long as anybody can tell.
    joined_ns: AtomicU64,
    tally: Mutex<Tally>,
}

/// What the checks have come to.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Since checks ask what they ask now.
    has_ever_passed: bool,
    passed_in_a_row: u32,
    failed_in_a_row: u32,
    latency: Option<Duration>,
    error: Option<String>,
}

/// How an endpoint stands, in times that mean the same to every process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// As [`Health`] counts.
    pub health: u8,
    pub passed_in_a_row: u32,
    pub failed_in_a_row: u32,
    pub error: Option<String>,
    /// How long ago it began to take requests anew, other than by the end of an ejection; `None` = as long as anybody
    /// can tell.
    pub joined_for: Option<Duration>,
    pub ejection: EjectionMemory,
}

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub(crate) healthy_after: NonZeroU32,
    pub(crate) unhealthy_after: NonZeroU32,
}

impl Standing {
    /// `known` is how the same address stood, and under which settings: what those rules found out that did not change
    /// still holds. What took requests goes on to do so under other checks, until these have failed as often as they are
    /// to: a wrong path in them is to take nothing out at once.
    pub(super) fn new(settings: &model::Upstream, known: Option<(&Self, &model::Upstream)>, now: Instant) -> Self {
        let ejection = &settings.ejection;
        let rules = EjectionSettings { failures: ejection.failures, base: ejection.base, max: ejection.max };
        let ejected = known.filter(|(_, before)| before.ejection == *ejection);
        let ejection =
            ejected.map_or_else(|| Arc::new(Ejection::new(rules, now)), |(known, _)| Arc::clone(&known.ejection));
        let health = if settings.health.is_some() { Health::Unknown } else { Health::Unchecked };
        let standing = Self {
            health: AtomicU8::new(health as u8),
            is_told_away: AtomicBool::new(known.is_some_and(|(known, _)| known.is_told_away.load(Relaxed))),
            refusing: AtomicBool::new(false),
            ejection,
            slow_start: settings.slow_start,
            // Times are counted from there.
            epoch: known.map_or_else(|| epoch(now), |(known, _)| known.epoch),
            joined_ns: AtomicU64::new(known.map_or(0, |(known, _)| known.joined_ns.load(Relaxed))),
            tally: Mutex::default(),
        };
        match known {
            Some((known, before)) if before.health == settings.health => standing.inherit_health(known),
            Some((known, _)) if known.health().takes() => standing.take_as_healthy(),
            _ => {}
        }
        standing
    }

    /// Whether it can take requests at `now`, its `max_in_flight` aside.
    pub(crate) fn takes(&self, now: Instant) -> bool {
        self.health().takes() && !self.is_refusing() && !self.ejection.is_ejected(now)
    }

    pub(crate) fn health(&self) -> Health {
        Health::of(self.health.load(Relaxed))
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.load(Relaxed)
    }

    /// Whether it answered well when it was asked last, be it by a check alone. False as long as nobody has asked it, and
    /// by requests alone where nothing is ever ejected.
    pub(super) fn is_sound(&self) -> bool {
        self.ejection.is_sound() || (self.health() == Health::Healthy && !self.ejection.is_failing())
    }

    /// Only an ejection keeps it away.
    pub(super) fn is_only_ejected(&self, now: Instant) -> bool {
        self.health().takes() && !self.is_refusing() && self.ejection.is_ejected(now)
    }

    /// Notes that it refuses connections, or does so no more.
    pub(super) fn set_refusing(&self, refusing: bool) {
        let before = self.refusing.swap(refusing, Relaxed);
        if before && !refusing {
            self.join(Instant::now());
        }
    }

    /// It takes requests from now on, a growing share if `slow_start` says so.
    pub(super) fn join(&self, now: Instant) {
        if !self.slow_start.is_zero() {
            self.joined_ns.store(self.nanos(now), Relaxed);
        }
    }

    /// Counts one active check; the new health when it changed.
    pub(super) fn checked(&self, result: Result<Duration, String>, rules: Thresholds, now: Instant) -> Option<Health> {
        let before = self.health();
        let mut tally = self.tally.lock();
        let after = match result {
            Ok(latency) => {
                tally.latency = Some(latency);
                tally.error = None;
                tally.failed_in_a_row = 0;
                tally.passed_in_a_row = tally.passed_in_a_row.saturating_add(1);
                let is_first = !std::mem::replace(&mut tally.has_ever_passed, true);
                // An app that was still starting is not one that comes and goes.
                let enough = is_first || tally.passed_in_a_row >= rules.healthy_after.get();
                if before != Health::Unhealthy || enough { Health::Healthy } else { before }
            }
            Err(error) => {
                tally.error = Some(error);
                tally.passed_in_a_row = 0;
                tally.failed_in_a_row = tally.failed_in_a_row.saturating_add(1);
                let enough = before != Health::Healthy || tally.failed_in_a_row >= rules.unhealthy_after.get();
                if enough { Health::Unhealthy } else { before }
            }
        };
        drop(tally);
        if after == before {
            return None;
        }
        if after == Health::Healthy && before == Health::Unhealthy {
            self.join(now);
        }
        self.health.store(after as u8, Relaxed);
        Some(after)
    }

    /// Notes that it is told to be away, or to be back; whether that is news.
    pub(super) fn set_told_away(&self, is_away: bool) -> bool {
        self.is_told_away.swap(is_away, Relaxed) != is_away
    }

    /// Whether checks have failed only, so far.
    pub(super) fn has_yet_to_pass(&self) -> bool {
        self.health() == Health::Unhealthy && !self.tally.lock().has_ever_passed
    }

    /// The latency of the last check that passed, and why the last one failed if it did.
    pub(crate) fn last_check(&self) -> (Option<Duration>, Option<String>) {
        let tally = self.tally.lock();
        (tally.latency, tally.error.clone())
    }

    fn inherit_health(&self, other: &Self) {
        let tally = other.tally.lock().clone();
        *self.tally.lock() = tally;
        self.health.store(other.health.load(Relaxed), Relaxed);
    }

    /// It was not checked, or not in this way, and took requests.
    fn take_as_healthy(&self) {
        if self.health() == Health::Unknown {
            self.tally.lock().has_ever_passed = true;
            self.health.store(Health::Healthy as u8, Relaxed);
        }
    }

    /// How it stands, for the same address in another process.
    pub(crate) fn memory(&self, now: Instant) -> Memory {
        let tally = self.tally.lock();
        Memory {
            health: self.health.load(Relaxed),
            passed_in_a_row: tally.passed_in_a_row,
            failed_in_a_row: tally.failed_in_a_row,
            error: tally.error.clone(),
            joined_for: self.joined_for(now),
            ejection: self.ejection.memory(now),
        }
    }

    /// Goes on where another one stood, in what is still asked for here.
    pub(super) fn recall(&self, memory: &Memory, now: Instant) {
        let is_checked = self.health() != Health::Unchecked;
        if Health::of(memory.health) == Health::Unchecked {
            self.take_as_healthy();
        } else if is_checked {
            let mut tally = self.tally.lock();
            // The memory does not say, and most have.
            tally.has_ever_passed = true;
            tally.passed_in_a_row = memory.passed_in_a_row;
            tally.failed_in_a_row = memory.failed_in_a_row;
            tally.error.clone_from(&memory.error);
            let health = Health::of(memory.health);
            self.health.store(health as u8, Relaxed);
            self.is_told_away.store(health == Health::Unhealthy, Relaxed);
        }
        let joined = memory.joined_for.map(|since| self.nanos(now.checked_sub(since).unwrap_or(self.epoch)));
        self.joined_ns.store(joined.unwrap_or(0), Relaxed);
        self.ejection.recall(&memory.ejection, now);
    }

    /// Of its share, for `slow_start`.
    pub(super) fn ramp_permille(&self, now: Instant) -> u16 {
        if self.slow_start.is_zero() {
            return RAMP_FULL;
        }
        match self.joined_for(now).into_iter().chain(self.ejection.back_since(now)).min() {
            Some(since) => slow_start_permille(since, self.slow_start),
            None => RAMP_FULL,
        }
    }

    fn joined_for(&self, now: Instant) -> Option<Duration> {
        match self.joined_ns.load(Relaxed) {
            0 => None,
            joined => Some(Duration::from_nanos(self.nanos(now).saturating_sub(joined))),
        }
    }

    /// Begins with 1, since 0 means never.
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).map_or(u64::MAX, |nanos| nanos.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &str) -> model::Upstream {
        let text = format!(
            "[[route]]\nname = \"a\"\nupstream = \"app\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [upstream.app]\nendpoints = [\"127.0.0.1:1\"]\n{extra}"
        );
        let loaded = crate::config::parse(&text, std::path::Path::new("flagstone.toml"), &|_| None).unwrap();
        loaded.config.upstreams["app"].clone()
    }

    fn standing(extra: &str) -> Standing {
        Standing::new(&settings(extra), None, Instant::now())
    }

    fn rules(healthy_after: u32, unhealthy_after: u32) -> Thresholds {
        let count = |count| NonZeroU32::new(count).unwrap();
        Thresholds { healthy_after: count(healthy_after), unhealthy_after: count(unhealthy_after) }
    }

    #[test]
    fn the_first_check_decides() {
        let now = Instant::now();
        let healthy = standing("[upstream.app.health]\n");
        assert!(!healthy.takes(now));
        healthy.checked(Ok(Duration::ZERO), rules(2, 3), now);
        assert!(healthy.takes(now));
        let unhealthy = standing("[upstream.app.health]\n");
        unhealthy.checked(Err("refused".into()), rules(2, 3), now);
        assert_eq!(unhealthy.health(), Health::Unhealthy);
    }

    #[test]
    fn what_has_never_passed_needs_to_pass_once() {
        let now = Instant::now();
        let standing = standing("[upstream.app.health]\n");
        let check = |passes: bool| {
            let result = if passes { Ok(Duration::ZERO) } else { Err("bad".to_owned()) };
            standing.checked(result, rules(2, 1), now);
            (standing.takes(now), standing.has_yet_to_pass())
        };
        let starting = [false, false, true].map(check);
        assert_eq!(starting, [(false, true), (false, true), (true, false)]);
        let back = [false, true, true].map(check);
        assert_eq!(back, [(false, false), (false, false), (true, false)]);
    }

    #[test]
    fn later_it_takes_as_many_in_a_row_as_configured() {
        let now = Instant::now();
        let standing = standing("[upstream.app.health]\n");
        let check = |passes: bool| {
            let result = if passes { Ok(Duration::ZERO) } else { Err("bad".to_owned()) };
            standing.checked(result, rules(2, 3), now);
            standing.takes(now)
        };
        let seen = [true, false, false, true, false, false, false, true, false, true, true].map(check);
        assert_eq!(seen, [true, true, true, true, true, true, false, false, false, false, true]);
    }

    #[test]
    fn other_checks_begin_with_what_took_requests_and_ask_anew_of_what_did_not() {
        let (now, after) = (Instant::now(), settings("[upstream.app.health]\npath = \"/other\"\n"));
        let fail = |standing: &Standing| {
            standing.checked(Err("bad".to_owned()), rules(2, 3), now);
        };
        for extra in ["", "[upstream.app.health]\n"] {
            let before = settings(extra);
            let known = Standing::new(&before, None, now);
            if before.health.is_some() {
                known.checked(Ok(Duration::ZERO), rules(2, 3), now);
                fail(&known);
                fail(&known);
            }
            let standing = Standing::new(&after, Some((&known, &before)), now);
            let seen = [(); 3].map(|()| {
                let takes = standing.takes(now);
                fail(&standing);
                takes
            });
            assert_eq!((seen, standing.health()), ([true; 3], Health::Unhealthy), "{extra}");
        }
        let before = settings("[upstream.app.health]\n");
        let known = Standing::new(&before, None, now);
        fail(&known);
        let standing = Standing::new(&after, Some((&known, &before)), now);
        assert_eq!(standing.health(), Health::Unknown, "its checks may be what was wrong");
        let elsewhere = Standing::new(&after, None, now);
        elsewhere.recall(&Standing::new(&settings(""), None, now).memory(now), now);
        assert_eq!(elsewhere.health(), Health::Healthy);
    }

    #[test]
    fn what_returns_starts_slowly_and_what_was_always_there_does_not() {
        let now = Instant::now();
        let standing = standing("slow_start = \"10s\"\n");
        assert_eq!(standing.ramp_permille(now), 1000);
        standing.join(now);
        assert_eq!(standing.ramp_permille(now), 100);
        assert_eq!(standing.ramp_permille(now + Duration::from_secs(11)), 1000);
    }

    #[test]
    fn what_refuses_takes_nothing_and_starts_slowly_when_it_is_back() {
        let standing = standing("slow_start = \"1h\"\n");
        standing.set_refusing(false);
        assert_eq!(standing.ramp_permille(Instant::now()), 1000, "it was not away");
        standing.set_refusing(true);
        assert!(!standing.takes(Instant::now()));
        standing.set_refusing(false);
        let now = Instant::now();
        assert!(standing.takes(now));
        assert_eq!(standing.ramp_permille(now), 100);
    }

    #[test]
    fn another_process_knows_what_was_told_of_its_checks() {
        let (settings, now) = (settings("[upstream.app.health]\n"), Instant::now());
        for (result, is_news) in [(Ok(Duration::ZERO), [true, false]), (Err("bad".to_owned()), [false, true])] {
            let (known, other) = (Standing::new(&settings, None, now), Standing::new(&settings, None, now));
            known.checked(result, rules(1, 1), now);
            let recalled = || {
                other.recall(&known.memory(now), now);
                &other
            };
            assert_eq!([true, false].map(|is_away| recalled().set_told_away(is_away)), is_news);
        }
    }

    #[test]
    fn another_process_goes_on_with_a_slow_start() {
        let (settings, now) = (settings("slow_start = \"10s\"\n[upstream.app.health]\n"), Instant::now());
        let after = |away: &dyn Fn(&Standing)| {
            let (known, other) = (Standing::new(&settings, None, now), Standing::new(&settings, None, now));
            away(&known);
            other.recall(&known.memory(now + Duration::from_secs(5)), now);
            [0, 4, 6].map(|secs| other.ramp_permille(now + Duration::from_secs(secs)))
        };
        assert_eq!(after(&|_| {}), [1000; 3], "it was always there");
        let unhealthy = after(&|known| {
            for result in [Err("bad".to_owned()), Ok(Duration::ZERO)] {
                known.checked(result, rules(1, 1), now);
            }
        });
        assert_eq!(unhealthy, [550, 910, 1000]);
        let ejected = after(&|known| {
            for _ in 0..5 {
                drop(known.ejection.record(false, now, || true));
            }
            drop(known.ejection.restore(now));
        });
        assert_eq!(ejected, [550, 910, 1000]);
    }
}
