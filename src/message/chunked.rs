//! Follows the framing of a chunked request body without touching its data.
//!
//! The gate needs to know where a body ends to find the next head. This is not a decoder: hyper decodes.
//! It is stricter than most: anything two parsers could read differently is refused, so that hyper and
//! whatever stands behind Flagstone see the same message (RFC 9112, section 7.1).

/// Longest chunk-size line, extensions included, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Longest trailer section, in bytes.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// Where in the chunked coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SizeStart,
    Size,
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

/// The body's framing is broken; where exactly does not matter to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokenChunk;

/// Follows one chunked body, from its first size line to the end of its trailers.
#[derive(Debug)]
pub(crate) struct ChunkFollower {
    place: Place,
    /// Size of the current chunk while its line is read, then the bytes of it still to come.
    left: u64,
    /// Bytes of the current line or of the trailer section so far.
    line_bytes: usize,
}

impl ChunkFollower {
    pub(crate) fn new() -> Self {
        Self { place: Place::SizeStart, left: 0, line_bytes: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// Takes as many of `bytes` as belong to the body and says how many those were.
    ///
    /// # Errors
    /// The coding is malformed, ambiguous or beyond the bounds of this file.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BrokenChunk> {
        let mut at = 0;
        while at < bytes.len() && self.place != Place::End {
            if self.place == Place::Data {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += step;
                self.left -= step as u64;
                if self.left == 0 {
                    self.place = Place::DataCr;
                }
            } else {
                self.place = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<Place, BrokenChunk> {
        match (self.place, byte) {
            (Place::SizeStart | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size_digit(byte),
            (Place::Size, b';') => Ok(Place::Extension),
            (Place::Size | Place::Extension, b'\r') => Ok(Place::SizeLf),
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
            (Place::TrailerStart, b' ' | b'\t') => Err(BrokenChunk),
            (Place::TrailerStart | Place::TrailerLine, b'\t' | b' '..=b'~' | 0x80..) => {
                self.within(TRAILER_BYTES_MAX, Place::TrailerLine)
            }
            _ => Err(BrokenChunk),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<Place, BrokenChunk> {
        let digit = char::from(byte).to_digit(16).expect("the caller matched a hexadecimal digit");
        if self.left >> 59 != 0 {
            return Err(BrokenChunk);
        }
        self.left = self.left << 4 | u64::from(digit);
        self.within(SIZE_LINE_BYTES_MAX, Place::Size)
    }

    fn within(&mut self, bytes_max: usize, next: Place) -> Result<Place, BrokenChunk> {
        self.line_bytes += 1;
        if self.line_bytes > bytes_max { Err(BrokenChunk) } else { Ok(next) }
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
            assert_eq!(follow(bytes), Err(BrokenChunk), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn refuses_endless_extensions_and_trailers() {
        let mut extension = b"1;".to_vec();
        extension.resize(SIZE_LINE_BYTES_MAX + 8, b'x');
        assert_eq!(follow(&extension), Err(BrokenChunk));
        let mut trailers = b"0\r\n".to_vec();
        trailers.resize(TRAILER_BYTES_MAX + 8, b'x');
        assert_eq!(follow(&trailers), Err(BrokenChunk));
    }
}
