//! The bounded keyed store: hash -> one atomic word.
//!
//! Set-associative: a key may live in one of two buckets of eight slots, a slot is the key's whole 64-bit hash and its
//! word. Finding a key takes no lock: it reads one cache line, seldom more than two. Only adding a key takes one, that
//! of its shard of at most 4,096 keys, for as long as it takes to look at sixteen slots.
//!
//! **Bounds.** Never more than `keys_max` keys. There are 5/4 as many slots as keys so that few buckets overflow
//! before the bound is reached: 20 bytes a key at full load, plus under 128 bytes of rounding and
//! the shard's own 64 bytes for every shard (20.02 bytes a key at 100,000 keys). A table for up to seven keys costs
//! 192 bytes flat. A shard's slots are allocated when its first key arrives.
//!
//! **Who leaves.** A new key takes, in this order: the slot of a key that owes nothing (which equals an absent one); an
//! empty slot, while the shard is below its share of `keys_max`; else the slot of the stalest, the key with the
//! smallest `tat`, of sixteen or more where the new one may live or nearby: one of the stalest 6 % in the mean. A key
//! over its limit has the largest `tat` there is, so a flood of new keys pushes out its own kind.
//!
//! **Races.** A slot changes hands under the shard's lock: its key is set to zero, its word is exchanged only if
//! nobody charged it meanwhile, then the new key is set. A finder that saw the old key and the old word fails its own
//! exchange and looks again. What is left: a finder whose key is pushed out between its look and its exchange, by a key
//! whose word is the very same number, charges that key one request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::key::random;

const WAYS: usize = 8;
const SHARD_KEYS_MAX: usize = 4_096;

pub(super) struct Table {
    shards: Box<[Shard]>,
    layout: Layout,
}

/// Where in a shard keys live.
#[derive(Clone, Copy)]
struct Layout {
    /// In every shard.
    buckets: usize,
    /// Another one in every table. A client's hash is the same in all limits that count alike: at the same place in each
    /// of them, its slots would push each other out of the processor's cache.
    offset: u64,
}

/// One key's place.
#[derive(Default)]
pub(super) struct Slot {
    /// The hash; zero = empty.
    key: AtomicU64,
    pub(super) word: AtomicU64,
}

/// A shard held against newcomers; those already in may be charged all the same.
pub(super) struct Locked<'a> {
    shard: &'a Shard,
    buckets: &'a [Bucket],
    layout: Layout,
    homes: [usize; 2],
    _guard: MutexGuard<'a, ()>,
}

/// On a line of its own, so that adding to one does not slow finding in its neighbour.
#[repr(align(64))]
struct Shard {
    buckets: OnceLock<Box<[Bucket]>>,
    /// Nothing under it can leave a shard half done but `owes`, which does not panic.
    adding: Mutex<()>,
    /// Written under the lock.
    keys: AtomicUsize,
    keys_max: usize,
}

/// Two cache lines, which current processors fetch together.
#[derive(Default)]
#[repr(align(128))]
struct Bucket([Slot; WAYS]);

impl Table {
    /// `keys_max` at least 1.
    pub(super) fn new(keys_max: usize) -> Self {
        let shards = keys_max.div_ceil(SHARD_KEYS_MAX);
        let share = keys_max / shards;
        let left_over = keys_max % shards;
        let shard = |index| Shard {
            buckets: OnceLock::new(),
            adding: Mutex::new(()),
            keys: AtomicUsize::new(0),
            keys_max: share + usize::from(index < left_over),
        };
        let buckets = (keys_max.div_ceil(shards) * 5 / 4).div_ceil(WAYS);
        Self { shards: (0..shards).map(shard).collect(), layout: Layout { buckets, offset: random() } }
    }

    // Its eight comparisons would take the registers of whoever looks for the key.
    #[inline(never)]
    pub(super) fn find(&self, key: u64) -> Option<&Slot> {
        let buckets = self.shard(key).buckets.get()?;
        let first = self.layout.first_home(key);
        buckets[first].find(key).or_else(|| self.find_in_second_home(key, first, buckets))
    }

    /// Apart, so that a key in its first home, as most are, is found with few registers.
    #[inline(never)]
    fn find_in_second_home<'a>(&self, key: u64, first: usize, buckets: &'a [Bucket]) -> Option<&'a Slot> {
        buckets[self.layout.second_home(key, first)].find(key)
    }

    /// As [`Self::find`], and sure of the answer: a key that is just being moved is not missed.
    pub(super) fn find_surely(&self, key: u64) -> Option<&Slot> {
        self.find(key).or_else(|| {
            let _guard = self.shard(key).adding.lock();
            self.find(key)
        })
    }

    /// Holds the shard of `key`.
    pub(super) fn lock(&self, key: u64) -> Locked<'_> {
        let shard = self.shard(key);
        let guard = shard.adding.lock();
        let layout = self.layout;
        let buckets = shard.buckets.get_or_init(|| (0..layout.buckets).map(|_| Bucket::default()).collect());
        Locked { shard, buckets, layout, homes: layout.homes(key), _guard: guard }
    }

    /// Shows every key's hash and word to `visit`, shard by shard, each held against newcomers meanwhile.
    pub(super) fn for_each(&self, mut visit: impl FnMut(u64, &AtomicU64)) {
        for shard in &self.shards {
            let _guard = shard.adding.lock();
            for slot in shard.buckets.get().into_iter().flatten().flat_map(|bucket| &bucket.0) {
                match slot.key.load(Ordering::Relaxed) {
                    0 => {}
                    key => visit(key, &slot.word),
                }
            }
        }
    }

    /// Keys held, those that owe nothing any more included.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.keys.load(Ordering::Relaxed)).sum()
    }

    /// Bytes allocated now.
    pub(super) fn bytes(&self) -> usize {
        let buckets = |shard: &Shard| shard.buckets.get().map_or(0, |buckets| size_of_val(&**buckets));
        size_of_val(&*self.shards) + self.shards.iter().map(buckets).sum::<usize>()
    }

    /// Bytes allocated once every shard has had a key.
    pub(super) fn bytes_max(&self) -> usize {
        size_of_val(&*self.shards) + self.shards.len() * self.layout.buckets * size_of::<Bucket>()
    }

    #[inline]
    fn shard(&self, key: u64) -> &Shard {
        // The low bits; the buckets are chosen by the high and the middle ones.
        &self.shards[spread(key.rotate_right(20), self.shards.len())]
    }
}

impl Layout {
    /// The two buckets of a key; the same one twice only where there is no other.
    fn homes(&self, key: u64) -> [usize; 2] {
        let first = self.first_home(key);
        [first, self.second_home(key, first)]
    }

    #[inline]
    fn first_home(&self, key: u64) -> usize {
        spread(key.wrapping_add(self.offset), self.buckets)
    }

    #[inline]
    fn second_home(&self, key: u64, first: usize) -> usize {
        match spread(key.rotate_left(24), self.buckets) {
            second if second != first => second,
            _ if first + 1 == self.buckets => 0,
            _ => first + 1,
        }
    }
}

impl Slot {
    /// Whether the slot still is that of `key`.
    #[inline]
    pub(super) fn holds(&self, key: u64) -> bool {
        self.key.load(Ordering::Acquire) == key
    }
}

impl Locked<'_> {
    /// Adds `key` with `word`; false when it is there already. `owes` orders words: zero = nothing, less = staler.
    pub(super) fn add(&self, key: u64, word: u64, owes: impl Fn(u64) -> u64) -> bool {
        if self.homes.iter().any(|&home| self.buckets[home].find(key).is_some()) {
            return false;
        }
        while !self.try_add(key, word, &owes) {}
        true
    }

    /// False when the slot that was chosen has been charged since, and another one may be the stalest.
    fn try_add(&self, key: u64, word: u64, owes: &impl Fn(u64) -> u64) -> bool {
        let mut empty = None;
        let mut stalest: Option<Candidate<'_>> = None;
        for slot in self.homes.iter().flat_map(|&home| self.buckets[home].slots(key)) {
            match slot.key.load(Ordering::Relaxed) {
                0 => empty = empty.or(Some(slot)),
                held => keep_stalest(&mut stalest, Candidate::new(slot, held, owes)),
            }
        }
        let keys = self.shard.keys.load(Ordering::Relaxed);
        match (empty, stalest) {
            (_, Some(stalest)) if stalest.owes == 0 => stalest.replace(key, word),
            (Some(empty), _) if keys < self.shard.keys_max => {
                self.shard.keys.store(keys + 1, Ordering::Relaxed);
                empty.fill(key, word)
            }
            (Some(empty), _) => self.stalest_around(owes).replace(0, 0) && empty.fill(key, word),
            (None, Some(stalest)) if keys < self.shard.keys_max => match self.make_room() {
                Some(empty) => {
                    self.shard.keys.store(keys + 1, Ordering::Relaxed);
                    empty.fill(key, word)
                }
                None => stalest.replace(key, word),
            },
            (None, Some(stalest)) => stalest.replace(key, word),
            (None, None) => unreachable!("a slot is empty or held"),
        }
    }

    /// Moves one of the sixteen keys in the way to its other bucket, if any has a place there, and gives its slot.
    #[cold]
    fn make_room(&self) -> Option<&Slot> {
        for &home in &self.homes {
            for slot in &self.buckets[home].0 {
                let key = slot.key.load(Ordering::Relaxed);
                let other = self.layout.homes(key).into_iter().find(|&other| other != home);
                let Some(empty) = other.and_then(|other| self.buckets[other].find(0)) else {
                    continue;
                };
                // Whoever looks for the key now comes to the lock. Who found it before exchanges the word before it is
                // taken, and the charge moves along, or fails: a word is zero only at the origin of time.
                slot.key.store(0, Ordering::Release);
                empty.fill(key, slot.word.swap(0, Ordering::AcqRel));
                return Some(slot);
            }
        }
        None
    }

    /// The stalest of at least sixteen keys in and after the first home.
    ///
    /// Where the shard is full and yet the new key's own places are not, few keys live in them. To choose among
    /// those few would push out whoever is there, however much it owes, again and again.
    fn stalest_around(&self, owes: &impl Fn(u64) -> u64) -> Candidate<'_> {
        let from = self.homes[0];
        let mut stalest = None;
        let mut seen = 0;
        for bucket in self.buckets[from..].iter().chain(&self.buckets[..from]) {
            for slot in &bucket.0 {
                match slot.key.load(Ordering::Relaxed) {
                    0 => {}
                    held => {
                        keep_stalest(&mut stalest, Candidate::new(slot, held, owes));
                        seen += 1;
                    }
                }
            }
            if seen >= 2 * WAYS {
                break;
            }
        }
        stalest.expect("a shard at its bound, which is at least one, holds a key")
    }
}

impl Bucket {
    #[inline]
    fn find(&self, key: u64) -> Option<&Slot> {
        self.slots(key).find(|slot| slot.holds(key))
    }

    /// The slots in the order in which `key` uses them: half of the keys start with the second cache line, so that
    /// most keys of a well-filled bucket are in the first line that is read for them.
    #[inline]
    fn slots(&self, key: u64) -> impl Iterator<Item = &Slot> {
        let line = key as usize & (WAYS / 2);
        (0..WAYS).map(move |way| &self.0[way ^ line])
    }
}

impl Slot {
    /// The word first: whoever sees the key sees its word. True, for it cannot fail.
    fn fill(&self, key: u64, word: u64) -> bool {
        self.word.store(word, Ordering::Relaxed);
        self.key.store(key, Ordering::Release);
        true
    }
}

/// A slot that may be taken from its key.
struct Candidate<'a> {
    slot: &'a Slot,
    key: u64,
    word: u64,
    owes: u64,
}

impl<'a> Candidate<'a> {
    fn new(slot: &'a Slot, key: u64, owes: &impl Fn(u64) -> u64) -> Self {
        let word = slot.word.load(Ordering::Relaxed);
        Self { slot, key, word, owes: owes(word) }
    }

    /// Gives the slot to `key` (to nobody, when that is zero), or back to its owner when that was charged meanwhile.
    fn replace(self, key: u64, word: u64) -> bool {
        self.slot.key.store(0, Ordering::Release);
        let taken = self.slot.word.compare_exchange(self.word, word, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        self.slot.key.store(if taken { key } else { self.key }, Ordering::Release);
        taken
    }
}

fn keep_stalest<'a>(stalest: &mut Option<Candidate<'a>>, candidate: Candidate<'a>) {
    if stalest.as_ref().is_none_or(|stalest| candidate.owes < stalest.owes) {
        *stalest = Some(candidate);
    }
}

/// `hash` scaled to `0..len` by its high bits.
#[inline]
fn spread(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests;
