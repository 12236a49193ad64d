//! Rate limits, concurrency bounds and the header fields that tell about them, on one machine.
//!
//! A [`Limiter`] is one `[limit.NAME]`: a rate, a burst and a bounded table of keys. It decides by GCRA (`gcra`
//! has the arithmetic and its precision, `table` the memory and who leaves when it is full). It knows nothing of
//! requests, routes or clocks: the caller makes a [`Key`] and says what time it is.
//!
//! ```text
//! let key = limiter.key_ip(client_ip);
//! let decision = limiter.check(key, now);
//! ```
//!
//! A check of a known key takes no lock and allocates nothing: it finds the slot and exchanges one atomic. Threads that
//! race for one key retry their exchange; exactly as many pass as one thread would have let through.
//!
//! Several limits on a request: [`check_all`] charges all or none.

pub mod concurrency;
mod gcra;
pub mod headers;
mod key;
mod nearest;
mod rates;
mod several;
pub mod shared;
mod source;
mod table;

use std::mem::offset_of;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

pub use concurrency::{Slot, Slots};
pub(crate) use key::ipv6_mask;
pub use key::{Key, KeyBuilder, KeyHasher, Seed};
pub use several::{Ask, Stands, Verdict, check_all};
pub use shared::{Owes, Shape};
pub use source::{Facts, Part, Source, Value};

use gcra::Gcra;
use rates::Rates;
use table::Table;

/// Nanoseconds since an origin of the caller's choice, for all calls on one limiter the same and monotonic.
///
/// The origin should be no older than the machine's start: time stands still 18 years after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `rate_count` requests in `period`.
    pub rate_count: NonZeroU32,
    /// Above zero (zero counts as an eighth of a nanosecond per request).
    pub period: Duration,
    /// How many may come at once.
    pub burst: NonZeroU32,
    /// The bound of the table; see [`Limiter::bytes_max`] for what it costs.
    pub keys_max: NonZeroUsize,
    /// How many leading bits of an IPv6 address make its key, 0 to 128.
    pub ipv6_prefix: u8,
}

/// One rate limit over many keys. Share it in an `Arc`.
///
/// What a check reads of it is one line of the cache.
#[repr(C, align(64))]
pub struct Limiter {
    table: Table,
    rates: Rates,
    keys: KeyHasher,
    /// What is in force; held while it changes.
    settings: Mutex<Settings>,
}

const _: () = assert!(offset_of!(Limiter, rates) + Rates::READ_BYTES <= 64);

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// How many more would be allowed right now.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
    /// Until one more than `remaining` would be allowed; zero when the bucket is full.
    pub next: Duration,
    /// Until a request like the refused one is taken; zero when this one was allowed.
    pub wait: Duration,
}

/// What became of a request that was ready to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a request that waits has taken a place"]
pub enum Reservation {
    /// Its turn is now.
    Now(Decision),
    /// Its turn comes after this long; it has been charged already.
    Wait(Duration),
    /// The queue is full as well. [`Decision::wait`] is the time until a request can join it.
    Refused(Decision),
}

/// What a limiter's keys have used, the stalest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub settings: Settings,
    /// A key's hash, and what it owes in ticks of the settings' rate.
    pub keys: Vec<(u64, u64)>,
}

impl Limiter {
    pub fn new(settings: Settings) -> Self {
        Self::with_keys(settings, KeyHasher::new(settings.ipv6_prefix))
    }

    /// [`Limiter::new`] whose keys are those of every limiter with this seed.
    pub fn with_seed(settings: Settings, seed: Seed) -> Self {
        Self::with_keys(settings, KeyHasher::with_seed(seed, settings.ipv6_prefix))
    }

    fn with_keys(settings: Settings, keys: KeyHasher) -> Self {
        Self {
            rates: Rates::new(settings.gcra()),
            keys,
            table: Table::new(settings.keys_max.get()),
            settings: Mutex::new(settings),
        }
    }

    /// The key of a client address; see [`KeyBuilder::ip`].
    #[inline]
    pub fn key_ip(&self, ip: IpAddr) -> Key {
        self.keys.ip(ip)
    }

    /// Starts a key of several parts, or of none for a global limit.
    #[inline]
    pub fn key(&self) -> KeyBuilder {
        self.keys.builder()
    }

    /// Whether the keys that either makes are good for both.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.keys == other.keys
    }

    /// Charges one request to `key`, or refuses it and charges nothing.
    #[inline]
    pub fn check(&self, key: Key, now: Nanos) -> Decision {
        match self.charge(key, now, 0) {
            (gcra, Ok(used)) => gcra.allowed(used),
            (gcra, Err(used)) => gcra.refused(used, gcra.tolerance),
        }
    }

    /// What [`Self::check`] would say, charging nothing: `remaining` is what there is before the request.
    pub fn peek(&self, key: Key, now: Nanos) -> Decision {
        self.foresee(key, now, 0)
    }

    /// Whether [`Self::reserve`] would take a request, charging nothing. `allowed` also when it would have to wait.
    pub fn foresee(&self, key: Key, now: Nanos, queue_max: u32) -> Decision {
        let (gcra, used) = self.owed(key, now);
        let ceiling = gcra.ceiling(queue_max);
        match gcra.charge(used, ceiling) {
            Some(_) => gcra.allowed(used),
            None => gcra.refused(used, ceiling),
        }
    }

    /// Charges one request to `key` if it may pass at once or wait among at most `queue_max` others, in order.
    ///
    /// As nginx's `burst` without `nodelay`: whoever waits has taken the next free turn by moving `tat` on, so
    /// turns are `T` apart and come in the order of the calls.
    pub fn reserve(&self, key: Key, now: Nanos, queue_max: u32) -> Reservation {
        match self.charge(key, now, queue_max) {
            (gcra, Ok(used)) if used <= gcra.tolerance => Reservation::Now(gcra.allowed(used)),
            (gcra, Ok(used)) => Reservation::Wait(gcra.turn(used)),
            (gcra, Err(used)) => Reservation::Refused(gcra.refused(used, gcra.ceiling(queue_max))),
        }
    }

    /// Gives back what `reservation` took, when its client leaves before its turn. Nothing, when it was refused.
    ///
    /// Those behind keep the turns they were given and wait no shorter; the place that became free is at the end, for
    /// the next to come, who may so pass together with the last of those waiting. What passes from any moment on
    /// is never more than it would have been had nobody left.
    pub fn cancel(&self, key: Key, reservation: Reservation, now: Nanos) {
        match reservation {
            Reservation::Now(_) | Reservation::Wait(_) => self.refund(key, now),
            Reservation::Refused(_) => {}
        }
    }

    /// Gives one request back to `key`, as when another limit refused the request that this one had let through.
    ///
    /// Between the charge and the refund others see the bucket one request emptier than it ends up being, and may be
    /// refused for it. If the key was pushed out of a full table in between there is nothing to give back; if
    /// it came back since, it gains one request.
    pub fn refund(&self, key: Key, now: Nanos) {
        let hash = key.hash();
        loop {
            let rates = self.rates.at(now);
            let Some(slot) = self.table.find_surely(hash) else {
                return;
            };
            let word = slot.word.load(Ordering::Acquire);
            let refunded = rates.word(rates.used(word).saturating_sub(rates.gcra.interval));
            if !slot.holds(hash) || !rates.stands() {
                continue;
            }
            if slot.word.compare_exchange_weak(word, refunded, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Sets what `key` owes, as somebody else who keeps the count says; see [`shared`].
    pub fn note(&self, key: Key, owes: Owes, now: Nanos) {
        let hash = key.hash();
        loop {
            let rates = self.rates.at(now);
            let used = owes.in_ticks_of(&rates.gcra);
            let Some(slot) = self.table.find(hash) else {
                let shard = self.table.lock(hash);
                let rates = self.rates.at(now);
                let word = rates.word(owes.in_ticks_of(&rates.gcra));
                if used == 0 || shard.add(hash, word, |word| rates.used(word)) {
                    return;
                }
                continue;
            };
            let word = slot.word.load(Ordering::Acquire);
            if !slot.holds(hash) || !rates.stands() {
                continue;
            }
            let noted = rates.word(used);
            if slot.word.compare_exchange_weak(word, noted, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// The rate in force, for a count that is kept elsewhere.
    pub fn shape(&self) -> Shape {
        Shape(self.rates.gcra())
    }

    /// Puts another rate and burst in force; every key keeps the number of requests it has used, up to the new burst.
    ///
    /// Checks go on meanwhile and see either the old rate or the new one. `keys_max` and `ipv6_prefix` cannot change
    /// in place: where they differ nothing is done and the answer is false; [`Self::rebuild`] is for that.
    #[must_use = "false means that nothing changed"]
    pub fn update(&self, settings: Settings, now: Nanos) -> bool {
        let mut current = self.settings.lock();
        if (settings.keys_max, settings.ipv6_prefix) != (current.keys_max, current.ipv6_prefix) {
            return false;
        }
        *current = settings;
        self.rates.replace(settings.gcra());
        let rates = self.rates.at(now);
        self.table.for_each(|_, word| {
            // Charges go on under this; those that come after find a word of the new generation.
            let converted = |word| (!rates.is_fresh(word)).then(|| rates.word(rates.used(word)));
            let _already_fresh = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, converted);
        });
        true
    }

    /// A limiter with other settings that knows the same keys and what each has used.
    ///
    /// What is charged to `self` while this runs may be missing in the copy. Keys made by either are good for both,
    /// except those of IPv6 addresses when the prefix differs. Past a smaller `keys_max` the stalest are left behind.
    #[must_use]
    pub fn rebuild(&self, settings: Settings, now: Nanos) -> Self {
        let _unchanging = self.settings.lock();
        let rebuilt = Self::with_keys(settings, self.keys.with_ipv6_prefix(settings.ipv6_prefix));
        let (from, to) = (self.rates.at(now), rebuilt.rates.at(now));
        let mut owing = Vec::new();
        self.table.for_each(|hash, word| {
            let used = to.gcra.convert(&from.gcra, from.used(word.load(Ordering::Acquire)));
            if used > 0 {
                owing.push((used, hash));
            }
        });
        // The stalest stay out of a smaller table, or go in first, to be the ones that are pushed out.
        owing.sort_unstable();
        let too_many = owing.len().saturating_sub(settings.keys_max.get());
        for (used, hash) in owing.split_off(too_many) {
            let shard = rebuilt.table.lock(hash);
            shard.add(hash, to.word(used), |word| to.used(word));
        }
        rebuilt
    }

    /// What each key has used, for a limiter of the same seed in another process.
    pub fn memory(&self, now: Nanos) -> Memory {
        let settings = self.settings.lock();
        let rates = self.rates.at(now);
        let mut keys = Vec::new();
        self.table.for_each(|hash, word| match rates.used(word.load(Ordering::Acquire)) {
            0 => {}
            used => keys.push((hash, used)),
        });
        // The stalest go first wherever there is too little room for all.
        keys.sort_unstable_by_key(|&(_, used)| used);
        Memory { settings: *settings, keys }
    }

    /// Takes over what keys have used; those that are known already stay as they are. IPv6 clients are left out where
    /// the prefix is another: their keys mean nothing here, and are pushed out like any that nobody asks for.
    pub fn recall(&self, memory: &Memory, now: Nanos) {
        let old = memory.settings.gcra();
        let rates = self.rates.at(now);
        let too_many = memory.keys.len().saturating_sub(self.settings().keys_max.get());
        for &(hash, used) in &memory.keys[too_many..] {
            let used = rates.gcra.convert(&old, used);
            if hash != 0 && used > 0 {
                self.table.lock(hash).add(hash, rates.word(used), |word| rates.used(word));
            }
        }
    }

    pub fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    /// Keys in the table, including those whose bucket is full again: never more than `keys_max`.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key has been seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys whose bucket is not full at `now`. Walks the table: for a status page, not for the request path.
    pub fn keys_active(&self, now: Nanos) -> usize {
        let rates = self.rates.at(now);
        let mut active = 0;
        self.table.for_each(|_, word| active += usize::from(rates.used(word.load(Ordering::Relaxed)) > 0));
        active
    }

    /// Bytes held now, this struct included.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.table.bytes()
    }

    /// What [`Self::bytes`] never exceeds: 20.02 bytes a key at the default `keys_max` of 100,000.
    pub fn bytes_max(&self) -> usize {
        size_of::<Self>() + self.table.bytes_max()
    }

    /// What `key` owes after one more request, or what it owes now when that would be more than `queue_max` beyond
    /// the burst; and the rate by which it was judged.
    // Always, for what it gives is larger than what it does: five words, of which most callers want two.
    #[inline(always)]
    fn charge(&self, key: Key, now: Nanos, queue_max: u32) -> (Gcra, Result<u64, u64>) {
        let hash = key.hash();
        loop {
            let rates = self.rates.at(now);
            let gcra = rates.gcra;
            let Some(slot) = self.table.find(hash) else {
                match self.admit(hash, now) {
                    Some(gcra) => return (gcra, Ok(gcra.interval)),
                    None => continue,
                }
            };
            let word = slot.word.load(Ordering::Acquire);
            let used = rates.used(word);
            if !slot.holds(hash) || !rates.stands() {
                continue;
            }
            let Some(after) = gcra.charge(used, gcra.ceiling(queue_max)) else {
                return (gcra, Err(used));
            };
            let charged = rates.word(after);
            if slot.word.compare_exchange_weak(word, charged, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return (gcra, Ok(after));
            }
        }
    }

    /// Adds a key with its first request, which fits any burst; `None` when somebody else added it just now.
    #[inline(never)]
    fn admit(&self, hash: u64, now: Nanos) -> Option<Gcra> {
        let shard = self.table.lock(hash);
        // Read under the lock: a change of rate visits this shard before or after, never in between.
        let rates = self.rates.at(now);
        let word = rates.word(rates.gcra.interval);
        shard.add(hash, word, |word| rates.used(word)).then_some(rates.gcra)
    }

    fn owed(&self, key: Key, now: Nanos) -> (Gcra, u64) {
        let hash = key.hash();
        loop {
            let rates = self.rates.at(now);
            let Some(slot) = self.table.find_surely(hash) else {
                return (rates.gcra, 0);
            };
            let used = rates.used(slot.word.load(Ordering::Acquire));
            if slot.holds(hash) && rates.stands() {
                return (rates.gcra, used);
            }
        }
    }
}

impl Settings {
    fn gcra(&self) -> Gcra {
        Gcra::new(self.rate_count, self.period, self.burst)
    }
}

#[cfg(test)]
mod tests;
