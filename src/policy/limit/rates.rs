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

/// See the module's notes. What every check reads comes first: the version and the rate in force.
#[repr(C)]
pub(super) struct Rates {
    /// Odd while the words are being written; twice the generation otherwise.
    version: AtomicU64,
    /// The rate in force, then the one before it.
    words: [AtomicU64; 6],
}

/// The rate in force and a moment, in the ticks of that rate.
#[derive(Clone, Copy)]
pub(super) struct Current<'a> {
    rates: &'a Rates,
    version: u64,
    pub(super) gcra: Gcra,
    now: Nanos,
    ticks: u64,
}

impl Rates {
    /// Bytes that a check reads, from the first on.
    pub(super) const READ_BYTES: usize = size_of::<[AtomicU64; 4]>();

    pub(super) fn new(gcra: Gcra) -> Self {
        Self { version: AtomicU64::new(0), words: words(&gcra, &gcra).map(AtomicU64::new) }
    }

    #[inline]
    pub(super) fn at(&self, now: Nanos) -> Current<'_> {
        let (version, gcra) = self.in_force();
        Current { rates: self, version, gcra, now, ticks: gcra.ticks(now) }
    }

    pub(super) fn gcra(&self) -> Gcra {
        self.in_force().1
    }

    #[inline]
    fn in_force(&self) -> (u64, Gcra) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let gcra = self.read(0);
            fence(Ordering::Acquire);
            if version & 1 == 0 && self.version.load(Ordering::Relaxed) == version {
                return (version, gcra);
            }
            spin_loop();
        }
    }

    /// Three words, which mean something if the version stood still meanwhile.
    #[inline]
    fn read(&self, from: usize) -> Gcra {
        let [interval, tolerance, ticks_per_nano] = [0, 1, 2].map(|at| self.words[from + at].load(Ordering::Relaxed));
        Gcra { interval, tolerance, ticks_per_nano }
    }

    /// What the key with this word of the generation before owes, in ticks of the rate in force; see [`Current::used`].
    #[cold]
    fn converted(&self, word: u64, now: Nanos) -> u64 {
        let [in_force, previous] = [0, 3].map(|from| self.read(from));
        let used = (word >> 1).saturating_sub(previous.ticks(now));
        in_force.convert(&previous, used)
    }

    /// Puts `gcra` in force. The caller lets nobody else in until all words are of the new generation.
    pub(super) fn replace(&self, gcra: Gcra) {
        let (version, old) = self.in_force();
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words(&gcra, &old)) {
            word.store(value, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }
}

impl Current<'_> {
    /// What the key with this word owes, in ticks of the rate in force.
    ///
    /// A word from before the last change is told by the rate of then, and so is right only if [`Self::stands`] says
    /// yes afterwards.
    #[inline]
    pub(super) fn used(&self, word: u64) -> u64 {
        if self.is_fresh(word) { (word >> 1).saturating_sub(self.ticks) } else { self.rates.converted(word, self.now) }
    }

    /// The word of a key that owes `used`.
    #[inline]
    pub(super) fn word(&self, used: u64) -> u64 {
        (self.ticks + used) << 1 | self.generation()
    }

    #[inline]
    pub(super) fn is_fresh(&self, word: u64) -> bool {
        word & 1 == self.generation()
    }

    /// Whether this rate is still in force. A word that was read before this said yes is of its generation or of the
    /// one before.
    #[inline]
    pub(super) fn stands(&self) -> bool {
        fence(Ordering::Acquire);
        self.rates.version.load(Ordering::Relaxed) == self.version
    }

    #[inline]
    fn generation(&self) -> u64 {
        self.version >> 1 & 1
    }
}

fn words(gcra: &Gcra, previous: &Gcra) -> [u64; 6] {
    [gcra.interval, gcra.tolerance, gcra.ticks_per_nano, previous.interval, previous.tolerance, previous.ticks_per_nano]
}
