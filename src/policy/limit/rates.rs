//! The rate in force and the one before it, read by every check without a lock.
//!
//! A sequence lock over plain atomics: a reader copies the words and looks whether the version stood still
//! meanwhile. Readers write nothing, so the line stays shared between cores; a writer holds them up for the few
//! nanoseconds that its stores take.
//!
//! A stored word is `tat << 1 | generation & 1`. Whoever meets a word of the generation before converts it; a change
//! of rate converts all of them, so no word is ever two generations old. Hence a change stops nobody, and no
//! key is judged by one rate with ticks of the other.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::Nanos;
use super::gcra::Gcra;

/// See the module's notes.
pub(super) struct Rates {
    /// Odd while the words are being written; twice the generation otherwise.
    version: AtomicU64,
    words: [AtomicU64; 6],
}

/// A consistent copy.
#[derive(Clone, Copy)]
pub(super) struct Current {
    version: u64,
    pub(super) gcra: Gcra,
    previous: Gcra,
}

impl Rates {
    pub(super) fn new(gcra: Gcra) -> Self {
        Self { version: AtomicU64::new(0), words: words(&gcra, &gcra).map(AtomicU64::new) }
    }

    #[inline]
    pub(super) fn load(&self) -> Current {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if version & 1 == 0 && self.version.load(Ordering::Relaxed) == version {
                let [a, b, c, d, e, f] = words;
                let gcra = Gcra { interval: a, tolerance: b, ticks_per_nano: c };
                let previous = Gcra { interval: d, tolerance: e, ticks_per_nano: f };
                return Current { version, gcra, previous };
            }
            spin_loop();
        }
    }

    /// Whether `current` is still what [`Self::load`] would give. A word that was read before this said yes is of
    /// that generation or of the one before.
    #[inline]
    pub(super) fn stands(&self, current: &Current) -> bool {
        self.version.load(Ordering::Acquire) == current.version
    }

    /// Puts `gcra` in force. The caller lets nobody else in until all words are of the new generation.
    pub(super) fn replace(&self, gcra: Gcra) {
        let old = self.load();
        self.version.store(old.version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words(&gcra, &old.gcra)) {
            word.store(value, Ordering::Relaxed);
        }
        self.version.store(old.version + 2, Ordering::Release);
    }
}

impl Current {
    /// What the key with this word owes at `now`, in ticks of the rate in force.
    #[inline]
    pub(super) fn used(&self, word: u64, now: Nanos) -> u64 {
        if self.is_fresh(word) {
            (word >> 1).saturating_sub(self.gcra.ticks(now))
        } else {
            let used = (word >> 1).saturating_sub(self.previous.ticks(now));
            self.gcra.convert(&self.previous, used)
        }
    }

    /// The word of a key that owes `used` at `now`.
    #[inline]
    pub(super) fn word(&self, used: u64, now: Nanos) -> u64 {
        (self.gcra.ticks(now) + used) << 1 | self.generation()
    }

    #[inline]
    pub(super) fn is_fresh(&self, word: u64) -> bool {
        word & 1 == self.generation()
    }

    #[inline]
    fn generation(&self) -> u64 {
        self.version >> 1 & 1
    }
}

fn words(gcra: &Gcra, previous: &Gcra) -> [u64; 6] {
    [gcra.interval, gcra.tolerance, gcra.ticks_per_nano, previous.interval, previous.tolerance, previous.ticks_per_nano]
}
