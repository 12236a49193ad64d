//! A few short texts in one piece of memory.

use std::array;

/// How long each may be.
pub(super) const BYTES_MAX: usize = 256;

/// `N` texts, each of them there or not, that are filled again and again.
#[derive(Clone, Debug)]
pub(super) struct Texts<const N: usize> {
    joined: String,
    spans: [Option<Span>; N],
}

/// Where a text stands, in bytes. N texts of 256 bytes, or thrice that where none of it is UTF-8, are far below 64 KiB.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u16,
    end: u16,
}

impl<const N: usize> Texts<N> {
    pub(super) fn at(&self, index: usize) -> Option<&str> {
        self.spans[index].map(|span| &self.joined[span.start.into()..span.end.into()])
    }

    pub(super) fn clear(&mut self) {
        self.joined.clear();
        self.spans = [None; N];
    }

    /// One that is not there yet, cut short if need be.
    #[inline]
    pub(super) fn put(&mut self, index: usize, text: Option<&str>) {
        let Some(text) = text else { return };
        if text.len() > BYTES_MAX {
            return self.put_bytes(index, std::iter::once(text.as_bytes()));
        }
        let start = self.joined.len();
        self.joined.push_str(text);
        self.span(index, start);
    }

    /// The same, of `pieces` that need not be UTF-8; of none, it is not there.
    pub(super) fn put_bytes<'a>(&mut self, index: usize, pieces: impl Iterator<Item = &'a [u8]>) {
        let start = self.joined.len();
        for piece in pieces {
            let room = BYTES_MAX.saturating_sub(self.joined.len() - start);
            let piece = &piece[..piece.len().min(room)];
            // Nearly all of it is ASCII, which is seen to eight bytes at a time here, and byte by byte there.
            match std::str::from_utf8(piece) {
                Ok(text) => self.joined.push_str(text),
                Err(_) => self.joined.push_str(&String::from_utf8_lossy(piece)),
            }
            self.span(index, start);
        }
    }

    fn span(&mut self, index: usize, start: usize) {
        let at = |byte: usize| u16::try_from(byte).expect("texts are cut");
        self.spans[index] = Some(Span { start: at(start), end: at(self.joined.len()) });
    }
}

impl<const N: usize> Default for Texts<N> {
    fn default() -> Self {
        Self { joined: String::new(), spans: array::from_fn(|_| None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_from_the_others_and_from_none() {
        let mut texts = Texts::<4>::default();
        texts.put(2, Some("first"));
        texts.put(0, Some(""));
        texts.put_bytes(3, [b"a=".as_slice(), b"\xff", "ü".as_bytes()].into_iter());
        assert_eq!([0, 1, 2, 3].map(|index| texts.at(index)), [Some(""), None, Some("first"), Some("a=\u{fffd}ü")]);
        texts.clear();
        texts.put(1, None);
        assert_eq!([0, 1, 2, 3].map(|index| texts.at(index)), [None; 4]);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut texts = Texts::<2>::default();
        let long = format!("{}ü and more", "x".repeat(BYTES_MAX - 1));
        texts.put(0, Some(&long));
        texts.put_bytes(1, [long.as_bytes(), b"and this"].into_iter());
        let expected = format!("{}\u{fffd}", "x".repeat(BYTES_MAX - 1));
        assert_eq!([texts.at(0), texts.at(1)], [Some(expected.as_str()); 2]);
    }

    #[test]
    fn the_longest_there_can_be_have_room() {
        let mut texts = Texts::<10>::default();
        for index in 0..10 {
            texts.put_bytes(index, std::iter::once([0xff; 1_000].as_slice()));
        }
        assert_eq!(texts.at(9).map(|text| text.chars().count()), Some(BYTES_MAX));
    }
}
