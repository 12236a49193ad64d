//! How much is read at once.

use super::room;

/// What a connection reads to begin with.
const BYTES_MIN: usize = room::BYTES;
/// Read from an endpoint ahead of the client. A client that reads slowly holds about twice as much. With 64 KiB a large
/// body costs two thirds more, with 128 KiB a quarter; from here on only the memory grows.
const BYTES_MAX: usize = 160 * 1024;

/// A kept connection does not hold on to more than this.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Grows with what comes, and shrinks again.
#[derive(Debug)]
pub(super) struct Appetite {
    bytes: usize,
    /// The read before was a small one.
    was_small: bool,
}

impl Default for Appetite {
    fn default() -> Self {
        Self { bytes: BYTES_MIN, was_small: false }
    }
}

impl Appetite {
    /// For the next read.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether that is what a connection begins with.
    pub(super) fn is_least(&self) -> bool {
        self.bytes == BYTES_MIN
    }

    /// Whether what is read into is larger than what is worth keeping.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > KEPT_BYTES_MAX
    }

    /// So much is announced.
    pub(super) fn expects(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.bytes = self.bytes.max(bytes.min(BYTES_MAX));
    }

    /// So much has been read. One small read may be chance; after two in a row less is asked for.
    pub(super) fn had(&mut self, bytes: usize) {
        let is_small = bytes < self.bytes / 2;
        if bytes >= self.bytes {
            self.bytes = (self.bytes * 2).min(BYTES_MAX);
        } else if is_small && self.was_small {
            self.bytes = (self.bytes / 2).max(BYTES_MIN);
        }
        self.was_small = is_small && !self.was_small;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_shrinks_with_what_comes() {
        let mut appetite = Appetite::default();
        let mut after = |bytes| {
            appetite.had(bytes);
            appetite.bytes()
        };
        assert_eq!(after(1000), BYTES_MIN);
        assert_eq!(after(BYTES_MIN), 2 * BYTES_MIN);
        for _ in 0..10 {
            after(usize::MAX);
        }
        assert_eq!(after(usize::MAX), BYTES_MAX);
        assert_eq!(after(100), BYTES_MAX);
        assert_eq!(after(BYTES_MAX / 2), BYTES_MAX);
        assert_eq!(after(100), BYTES_MAX);
        assert_eq!(after(100), BYTES_MAX / 2);
        for _ in 0..20 {
            after(0);
        }
        assert_eq!(after(0), BYTES_MIN);
    }

    #[test]
    fn what_is_announced_is_asked_for_at_once() {
        let mut appetite = Appetite::default();
        appetite.expects(100);
        assert_eq!(appetite.bytes(), BYTES_MIN);
        appetite.expects(u64::MAX);
        assert_eq!(appetite.bytes(), BYTES_MAX);
    }
}
