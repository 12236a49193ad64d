//! Follows the framing of a chunked body without touching its data.
//!
//! Both what a client sends and what an app answers is taken apart by it (`super::body`). It is stricter than most:
//! anything two parsers could read differently is refused, so that whatever stands before and behind Flagstone sees the
//! same message (RFC 9112, section 7.1).

/// Longest chunk-size line, extensions included, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Longest trailer section, in bytes.
pub(super) const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Where in the chunked coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SizeStart,
    Size,
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerLine,
    TrailerLf,
    EndLf,
    End,
}

impl Place {
    /// Behind the last chunk, or at the end.
    fn is_in_trailers(self) -> bool {
        use Place::{End, EndLf, TrailerLf, TrailerLine, TrailerStart};
        matches!(self, TrailerStart | TrailerLine | TrailerLf | EndLf | End)
    }
}

/// The body's framing is broken; where exactly does not matter to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenChunk {
    Malformed,
    /// Beyond [`TRAILER_BYTES_MAX`].
    TrailersTooLarge,
}

/// A run of bytes of one kind, and how many of those at hand belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Sizes, extensions and line ends.
    Framing(usize),
    Data(usize),
    /// Of the trailer section, its last empty line included.
    Trailers(usize),
}

/// Follows one chunked body, from its first size line to the end of its trailers.
#[derive(Clone, Debug)]
pub(crate) struct ChunkFollower {
    place: Place,
    /// Size of the current chunk while its line is read, then the bytes of it still to come.
    left: u64,
    /// Bytes of the current line or of the trailer section so far.
    line_bytes: usize,
    /// Whether blanks may stand behind a size: some old servers pad it.
    takes_padding: bool,
}

impl ChunkFollower {
    /// For what a client sends.
    pub(crate) fn new() -> Self {
        Self { place: Place::SizeStart, left: 0, line_bytes: 0, takes_padding: false }
    }

    /// For what an app sends: nobody behind it reads the same bytes.
    pub(crate) fn of_answer() -> Self {
        Self { takes_padding: true, ..Self::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// Whether data comes next.
    pub(crate) fn is_in_data(&self) -> bool {
        self.place == Place::Data
    }

    /// Whether the trailer section, or the empty line in its stead, comes next.
    pub(crate) fn is_before_trailers(&self) -> bool {
        self.place == Place::TrailerStart && self.line_bytes == 0
    }

    /// Takes as many of `bytes` as belong to the body and says how many those were.
    ///
    /// # Errors
    /// The coding is malformed, ambiguous or beyond the bounds of this file.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BrokenChunk> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let (Run::Framing(taken) | Run::Data(taken) | Run::Trailers(taken)) = self.next(&bytes[at..])?;
            at += taken;
        }
        Ok(at)
    }

    /// Takes those bytes from the front that are of one kind. Of none at all, or behind the end, it takes none.
    ///
    /// # Errors
    /// As [`ChunkFollower::advance`].
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Run, BrokenChunk> {
        match self.place {
            Place::Data => {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= data as u64;
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
                Ok(Run::Data(data))
            }
            place if place.is_in_trailers() => Ok(Run::Trailers(self.steps(bytes, |place| place != Place::End)?)),
            _ => Ok(Run::Framing(self.steps(bytes, |place| place != Place::Data && !place.is_in_trailers())?)),
        }
    }

    fn steps(&mut self, bytes: &[u8], goes_on: impl Fn(Place) -> bool) -> Result<usize, BrokenChunk> {
        let mut at = 0;
        while at < bytes.len() && goes_on(self.place) {
            self.place = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<Place, BrokenChunk> {
        match (self.place, byte) {
            (Place::SizeStart | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size_digit(byte),
            (Place::Size | Place::SizeBlank, b' ' | b'\t') if self.takes_padding => {
                self.within(SIZE_LINE_BYTES_MAX, Place::SizeBlank)
            }
            (Place::Size | Place::SizeBlank, b';') => Ok(Place::Extension),
            (Place::Size | Place::SizeBlank | Place::Extension, b'\r') => Ok(Place::SizeLf),
            // A bare LF ends the line for some parsers and not for others.
            (Place::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.within(SIZE_LINE_BYTES_MAX, Place::Extension),
            (Place::SizeLf, b'\n') => {
                self.line_bytes = 0;
                Ok(if self.left == 0 { Place::TrailerStart } else { Place::Data })
            }
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::SizeStart),
            (Place::TrailerStart, b'\r') => Ok(Place::EndLf),
            (Place::EndLf, b'\n') => Ok(Place::End),
            (Place::TrailerLine, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerLf, b'\n') => Ok(Place::TrailerStart),
            (Place::TrailerStart, b' ' | b'\t') => Err(BrokenChunk::Malformed),
            (Place::TrailerStart | Place::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.within(TRAILER_BYTES_MAX, Place::TrailerLine).map_err(|_| BrokenChunk::TrailersTooLarge)
            }
            _ => Err(BrokenChunk::Malformed),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<Place, BrokenChunk> {
        let digit = char::from(byte).to_digit(16).expect("the caller matched a hexadecimal digit");
        if self.left >> 59 != 0 {
            return Err(BrokenChunk::Malformed);
        }
        self.left = self.left << 4 | u64::from(digit);
        self.within(SIZE_LINE_BYTES_MAX, Place::Size)
    }

    fn within(&mut self, bytes_max: usize, next: Place) -> Result<Place, BrokenChunk> {
        self.line_bytes += 1;
        if self.line_bytes > bytes_max { Err(BrokenChunk::Malformed) } else { Ok(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(bytes: &[u8]) -> Result<(usize, bool), BrokenChunk> {
        let mut follower = ChunkFollower::new();
        let taken = follower.advance(bytes)?;
        Ok((taken, follower.is_done()))
    }

    #[test]
    fn finds_the_end_and_leaves_the_next_head() {
        let body = b"4\r\nWiki\r\n0\r\n\r\n";
        let mut wire = body.to_vec();
        wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(follow(&wire), Ok((body.len(), true)));
    }

    #[test]
    fn takes_extensions_and_trailers() {
        let body = b"5;a=\"b\"\r\nhello\r\n0;last\r\nDigest: x\r\nOther: y\r\n\r\n";
        assert_eq!(follow(body), Ok((body.len(), true)));
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        let body = b"1f\r\n0123456789012345678901234567890\r\n0\r\nT: v\r\n\r\nrest";
        let mut follower = ChunkFollower::new();
        let taken: usize = body.iter().map(|byte| follower.advance(&[*byte]).unwrap()).sum();
        assert_eq!((taken, follower.is_done()), (body.len() - 4, true));
    }

    #[test]
    fn refuses_what_two_parsers_could_read_differently() {
        let broken: [&[u8]; 14] = [
            b"0x4\r\nWiki\r\n",
            b"+4\r\nWiki\r\n",
            b" 4\r\nWiki\r\n",
            b"4 \r\nWiki\r\n",
            b"4_0\r\nWiki\r\n",
            b"4\nWiki\r\n",
            b"4\r\nWikiX\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"\r\n",
            b"4;a\nb\r\nWiki\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"4\rX",
        ];
        for bytes in broken {
            assert_eq!(follow(bytes), Err(BrokenChunk::Malformed), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn runs_tell_data_from_framing_and_trailers() {
        use Run::{Data, Framing, Trailers};
        let mut follower = ChunkFollower::of_answer();
        let (mut rest, mut runs) = (&b"2 \r\nhi\r\n1\r\n!\r\n0\r\nA: b\r\n\r\nnext"[..], Vec::new());
        while !follower.is_done() {
            let run = follower.next(rest).unwrap();
            let (Framing(taken) | Data(taken) | Trailers(taken)) = run;
            runs.push(run);
            rest = &rest[taken..];
        }
        assert_eq!(runs, [Framing(4), Data(2), Framing(5), Data(1), Framing(5), Trailers(8)]);
        assert_eq!((rest, follower.next(rest)), (&b"next"[..], Ok(Trailers(0))));
    }

    #[test]
    fn only_answers_may_pad_a_size() {
        for padded in [&b"4 \r\nWiki\r\n"[..], b"4\t ;a\r\nWiki\r\n"] {
            assert_eq!(ChunkFollower::new().advance(padded), Err(BrokenChunk::Malformed));
            assert_eq!(ChunkFollower::of_answer().advance(padded), Ok(padded.len()));
        }
        for broken in [&b" 4\r\n"[..], b"4 4\r\n", b"4 \n"] {
            assert_eq!(
                ChunkFollower::of_answer().advance(broken),
                Err(BrokenChunk::Malformed),
                "{}",
                broken.escape_ascii()
            );
        }
    }

    #[test]
    fn refuses_endless_extensions_and_trailers() {
        let mut extension = b"1;".to_vec();
        extension.resize(SIZE_LINE_BYTES_MAX + 8, b'x');
        assert_eq!(follow(&extension), Err(BrokenChunk::Malformed));
        let mut trailers = b"0\r\n".to_vec();
        trailers.resize(TRAILER_BYTES_MAX + 3, b'x');
        assert_eq!(follow(&trailers), Ok((trailers.len(), false)));
        trailers.push(b'x');
        assert_eq!(follow(&trailers), Err(BrokenChunk::TrailersTooLarge));
    }
}
