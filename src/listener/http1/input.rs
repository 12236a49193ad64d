//! What a client sends, cut into heads and pieces of bodies (RFC 9112, sections 2 and 6).

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::upload::Ending;
use crate::listener::head::{self, BadHead, BodyFraming, Head, HeadBounds};
use crate::message::answer::{BadAnswer, BodyReader};

/// Empty lines before a request line, in bytes; more are not from an old client but from a hostile one.
const BLANK_BYTES_MAX: usize = 16;
/// As much of HTTP/2's preface as looks like a head.
const PREFACE_LINES: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// What is kept of the first line of a refused head, for the log.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Room to read a body into: as much as it is long, within these bounds.
const BODY_ROOM_MIN: usize = 8 * 1024;
const BODY_ROOM_MAX: usize = 64 * 1024;
/// A first line that is longer than its target may be has this much for method and version.
const LINE_SPARE_BYTES: usize = 64;

/// Where in the stream of messages the next byte stands.
#[derive(Debug)]
enum Place {
    Head,
    Body(BodyReader),
}

/// Bytes that were read, and where in them we are.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: BytesMut,
    place: Place,
    /// Of `bytes`, looked through without finding the end of the head.
    scanned: usize,
    /// Empty lines since the last message, in bytes.
    blank_bytes: usize,
}

/// What comes next of a body.
#[derive(Debug)]
pub(super) enum Next {
    Piece(Bytes),
    End(Ending),
    /// Nothing, before more is read.
    Unread,
}

impl Input {
    /// `early` is what was read before.
    pub(super) fn new(early: BytesMut) -> Self {
        Self { bytes: early, place: Place::Head, scanned: 0, blank_bytes: 0 }
    }

    pub(super) fn is_mid_body(&self) -> bool {
        !matches!(self.place, Place::Head)
    }

    /// Whether the client began with HTTP/2's preface (RFC 9113, section 3.4), as far as its first line: what is wrong
    /// with the rest is for HTTP/2 to say.
    pub(super) fn is_http2(&self) -> bool {
        self.blank_bytes == 0 && self.bytes.starts_with(PREFACE_LINES)
    }

    /// The next head, once it is there as a whole. `fields` is taken to put its fields in.
    ///
    /// # Errors
    /// It breaks a rule or a bound.
    pub(super) fn take_head(&mut self, bounds: &HeadBounds, fields: &mut HeaderMap) -> Result<Option<Head>, BadHead> {
        self.skip_blank()?;
        let Some(end) = head::find_end(&self.bytes, self.scanned)? else {
            self.scanned = self.bytes.len();
            return self.check_partial(bounds).map(|()| None);
        };
        // Looked at before it is taken: of one that is refused the log tells the first line.
        if end > bounds.head_bytes_max {
            return Err(head::too_large(&self.bytes, bounds));
        }
        let whole = self.bytes.split_to(end).freeze();
        let head = head::read(&whole, bounds, fields).inspect_err(|_| {
            let rest = std::mem::replace(&mut self.bytes, BytesMut::from(&whole[..]));
            self.bytes.unsplit(rest);
        })?;
        (self.scanned, self.blank_bytes) = (0, 0);
        self.place = match head.framing {
            BodyFraming::None | BodyFraming::Upgrade => Place::Head,
            BodyFraming::Length(length) => Place::Body(BodyReader::sized(length)),
            BodyFraming::Chunked => Place::Body(BodyReader::chunked_request()),
        };
        Ok(Some(head))
    }

    /// The next piece of the body of the last head.
    pub(super) fn take_body(&mut self) -> Next {
        let Place::Body(body) = &mut self.place else { return Next::End(Ending::Whole(None)) };
        let next = body.next(&mut self.bytes).map(|frame| frame.map(Frame::into_data));
        let has_ended = body.has_ended();
        if has_ended {
            self.place = Place::Head;
        }
        match next {
            Ok(Some(Ok(piece))) => Next::Piece(piece),
            Ok(Some(Err(trailers))) => Next::End(Ending::Whole(trailers.into_trailers().ok())),
            Ok(None) if has_ended => Next::End(Ending::Whole(None)),
            Ok(None) => Next::Unread,
            Err(why) => Next::End(Ending::Malformed(why)),
        }
    }

    /// Why what has been read of the body cannot be the beginning of a good one, if it cannot.
    pub(super) fn malformed(&self) -> Option<BadAnswer> {
        let Place::Body(body) = &self.place else { return None };
        body.broken_by(&self.bytes)
    }

    /// How much of a body to read at once, in bytes.
    pub(super) fn body_room(&self) -> usize {
        let left = match &self.place {
            Place::Body(body) => body.left(),
            Place::Head => None,
        };
        let left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(BODY_ROOM_MAX);
        left.clamp(BODY_ROOM_MIN, BODY_ROOM_MAX)
    }

    /// Whether more than `bytes` of a body are still to be read, as far as that is known.
    pub(super) fn owes_more_than(&self, bytes: u64) -> bool {
        match &self.place {
            Place::Body(body) => body.left().is_none_or(|left| left.saturating_sub(self.bytes.len() as u64) > bytes),
            Place::Head => false,
        }
    }

    /// Passes over what there is of a body that nobody wants; whether that was all of it.
    pub(super) fn skip_body(&mut self) -> bool {
        loop {
            match self.take_body() {
                Next::Piece(_) => {}
                Next::End(end) => return matches!(end, Ending::Whole(_)),
                Next::Unread => return false,
            }
        }
    }

    /// The first line of a head that was refused, or has not come to its end.
    pub(super) fn first_line(&self) -> Box<[u8]> {
        let end = memchr::memchr2(b'\r', b'\n', &self.bytes).unwrap_or(self.bytes.len());
        self.bytes[..end.min(LINE_BYTES_MAX)].into()
    }

    /// Empty lines before a request line are to be ignored (RFC 9112, section 2.2).
    fn skip_blank(&mut self) -> Result<(), BadHead> {
        let blank = self.bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        if blank > 0 {
            self.bytes.advance(blank);
            self.scanned = self.scanned.saturating_sub(blank);
            self.blank_bytes += blank;
        }
        if self.blank_bytes > BLANK_BYTES_MAX {
            return Err(BadHead::Malformed("too many empty lines"));
        }
        Ok(())
    }

    fn check_partial(&self, bounds: &HeadBounds) -> Result<(), BadHead> {
        // No method begins so; TLS does, and whoever speaks that here waits for an answer.
        if self.bytes.first().is_some_and(|first| !first.is_ascii_graphic() && *first != b'\r') {
            return Err(BadHead::Malformed("the request line is malformed"));
        }
        let line_bytes_max = bounds.uri_bytes_max + LINE_SPARE_BYTES;
        let has_line = || memchr::memchr(b'\n', &self.bytes[..line_bytes_max]).is_some();
        let is_line_too_long = self.bytes.len() > line_bytes_max && !has_line();
        if self.bytes.len() > bounds.head_bytes_max || is_line_too_long {
            return Err(head::too_large(&self.bytes, bounds));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HeadBounds = HeadBounds { head_bytes_max: 1024, headers_max: 5, uri_bytes_max: 64 };

    fn input(bytes: &[u8]) -> Input {
        Input::new(BytesMut::from(bytes))
    }

    fn head(input: &mut Input) -> Result<Option<Head>, BadHead> {
        input.take_head(&BOUNDS, &mut HeaderMap::new())
    }

    /// All pieces of a body, and how it ended.
    fn body(input: &mut Input) -> (Vec<u8>, Next) {
        let mut pieces = Vec::new();
        loop {
            match input.take_body() {
                Next::Piece(piece) => pieces.extend_from_slice(&piece),
                end => return (pieces, end),
            }
        }
    }

    #[test]
    fn one_message_ends_where_the_next_begins() {
        let mut input = input(
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\nT: v\r\n\r\n\
              \r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\nGET /d",
        );
        assert_eq!(head(&mut input).unwrap().unwrap().parts.uri, "/a");
        assert!(matches!(body(&mut input), (pieces, Next::End(Ending::Whole(None))) if pieces == b"abc"));
        assert_eq!(head(&mut input).unwrap().unwrap().parts.uri, "/b");
        assert!(input.is_mid_body());
        let (pieces, end) = body(&mut input);
        assert!(matches!(end, Next::End(Ending::Whole(Some(trailers))) if trailers["t"] == "v"));
        assert_eq!(pieces, b"def");
        assert_eq!(head(&mut input).unwrap().unwrap().parts.uri, "/c");
        assert!(!input.is_mid_body());
        assert!(head(&mut input).unwrap().is_none());
        assert_eq!(&*input.first_line(), b"GET /d");
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        let message = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 2\r\n\r\nhi";
        let (mut input, mut found) = (input(b""), None);
        for byte in &message[..message.len() - 2] {
            assert!(found.is_none());
            input.bytes.extend_from_slice(&[*byte]);
            found = head(&mut input).unwrap();
        }
        assert_eq!(found.unwrap().parts.headers["x"], "y");
        assert!(matches!(input.take_body(), Next::Unread));
        input.bytes.extend_from_slice(b"hi");
        assert!(matches!(body(&mut input), (pieces, _) if pieces == b"hi"));
    }

    #[test]
    fn what_is_refused_is_still_there_for_the_log() {
        let mut malformed = input(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nrest");
        assert!(head(&mut malformed).is_err());
        assert_eq!(&*malformed.first_line(), b"GET /x HTTP/1.1");
        let mut endless = input(&[b'a'; 2000]);
        assert_eq!(head(&mut endless).unwrap_err(), BadHead::UriTooLong);
        let mut blank = input(&b"\r\n".repeat(9));
        assert!(head(&mut blank).is_err());
    }

    #[test]
    fn a_malformed_body_is_known_as_far_as_it_has_come() {
        for (body, is_malformed) in [("2\r\nab\r\n", false), ("2\r\nabc", true), ("0\r\n\r\nX", false)] {
            let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut input = input(format!("{chunked}{body}").as_bytes());
            head(&mut input).unwrap().unwrap();
            assert_eq!(input.malformed().is_some(), is_malformed, "{body}");
        }
    }

    #[test]
    fn a_body_that_is_not_wanted_is_passed_over_when_it_is_there() {
        for (message, is_there) in [("abc", true), ("ab", false)] {
            let mut input =
                input(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{message}").as_bytes());
            head(&mut input).unwrap().unwrap();
            assert_eq!(input.skip_body(), is_there);
        }
    }
}
