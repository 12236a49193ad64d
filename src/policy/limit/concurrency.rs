//! Requests in flight per key.
//!
//! A key is in the table only while one of its requests is in flight, so the table is as bounded as the requests
//! themselves are (connections times streams). Nothing waits here: a request gets a slot or does not.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Key;

const SHARDS: usize = 16;

/// How many requests of each key are in flight.
#[derive(Default)]
pub struct Slots {
    in_flight: AtomicUsize,
    shards: [Mutex<Counts>; SHARDS],
}

/// One request in flight; its place is free again when this is dropped. Keep it with the body, not with the head.
#[must_use = "dropping it frees the place"]
pub struct Slot {
    slots: Arc<Slots>,
    key: Key,
}

impl Slots {
    /// A place for one request of `key`, or `None` when `per_key_max` of that key's are in flight.
    ///
    /// The bound is the caller's, so that generations of the configuration with different bounds share what is in
    /// flight. The key comes from the limiter (or [`super::KeyHasher`]) that makes all keys for this.
    pub fn acquire(self: &Arc<Self>, key: Key, per_key_max: NonZeroU32) -> Option<Slot> {
        let mut counts = self.counts(key);
        let count = counts.entry(key).or_insert(0);
        if *count >= per_key_max.get() {
            return None;
        }
        *count += 1;
        drop(counts);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Slot { slots: Arc::clone(self), key })
    }

    /// Requests in flight over all keys.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn release(&self, key: Key) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.counts(key);
        let Some(count) = counts.get_mut(&key) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
            shrink(&mut counts);
        }
    }

    fn counts(&self, key: Key) -> MutexGuard<'_, Counts> {
        // The map itself uses the lowest and the highest bits.
        self.shards[(key.hash() >> 32) as usize % SHARDS].lock()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.release(self.key);
    }
}

type Counts = HashMap<Key, u32, BuildHasherDefault<AsItIs>>;

/// Gives memory back after a surge; seldom enough to cost nothing otherwise.
fn shrink(counts: &mut Counts) {
    if counts.capacity() > 256 && counts.len() < counts.capacity() / 8 {
        counts.shrink_to(counts.capacity() / 4);
    }
}

/// A [`Key`] is a keyed hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::policy::limit::KeyHasher;

    fn bound(per_key_max: u32) -> NonZeroU32 {
        NonZeroU32::new(per_key_max).unwrap()
    }

    fn in_flight_of(slots: &Slots, key: Key) -> u32 {
        slots.counts(key).get(&key).copied().unwrap_or(0)
    }

    fn keys_held(slots: &Slots) -> usize {
        slots.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn key(keys: &KeyHasher, number: u32) -> Key {
        keys.builder().bytes(&number.to_ne_bytes()).finish()
    }

    #[test]
    fn a_key_has_its_bound_and_others_have_theirs() {
        let (slots, keys, bound) = (Arc::<Slots>::default(), KeyHasher::new(64), bound(2));
        let held = [slots.acquire(key(&keys, 1), bound).unwrap(), slots.acquire(key(&keys, 1), bound).unwrap()];
        assert!(slots.acquire(key(&keys, 1), bound).is_none());
        assert!(slots.acquire(key(&keys, 2), bound).is_some());
        assert_eq!((slots.in_flight(), in_flight_of(&slots, key(&keys, 1))), (2, 2));
        drop(held);
        assert_eq!((slots.in_flight(), keys_held(&slots)), (0, 0));
        assert!(slots.acquire(key(&keys, 1), bound).is_some());
    }

    #[test]
    fn a_lower_bound_keeps_those_in_flight() {
        let (slots, keys, bound) = (Arc::<Slots>::default(), KeyHasher::new(64), bound(3));
        let key = key(&keys, 1);
        let mut held: Vec<_> = (0..3).map(|_| slots.acquire(key, bound).unwrap()).collect();
        let bound = NonZeroU32::MIN;
        held.truncate(1);
        assert!(slots.acquire(key, bound).is_none());
        held.clear();
        assert!(slots.acquire(key, bound).is_some());
    }

    #[test]
    fn memory_comes_back_after_a_surge() {
        let (slots, keys, bound) = (Arc::<Slots>::default(), KeyHasher::new(64), bound(1));
        let capacity = |slots: &Slots| slots.shards.iter().map(|shard| shard.lock().capacity()).sum::<usize>();
        let held: Vec<_> = (0..100_000).map(|number| slots.acquire(key(&keys, number), bound).unwrap()).collect();
        assert!(capacity(&slots) >= 100_000);
        drop(held);
        assert!(capacity(&slots) <= SHARDS * 512, "{}", capacity(&slots));
    }

    #[test]
    fn threads_never_hold_more_than_the_bound() {
        let (slots, keys, bound) = (Arc::<Slots>::default(), KeyHasher::new(64), bound(5));
        let key = key(&keys, 1);
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..2_000 {
                        let slot = slots.acquire(key, bound);
                        assert!(in_flight_of(&slots, key) <= 5);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!((slots.in_flight(), keys_held(&slots)), (0, 0));
    }

    #[test]
    fn a_slot_goes_where_the_body_goes() {
        fn goes_anywhere<T: Send + Sync + 'static>() {}
        goes_anywhere::<Slot>();
        goes_anywhere::<Slots>();
    }
}
