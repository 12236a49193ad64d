//! What an app answers over HTTP/1, taken from its bytes as they come.
//!
//! httparse reads the head; what that says of the body and of the connection is decided here (RFC 9112, sections 6.3
//! and 9.3):
//!
//! | answer | its body |
//! |---|---|
//! | 101 | none: what follows is another protocol |
//! | another 1xx | it is no answer yet, and is skipped |
//! | to HEAD, or 204, or 304 | none |
//! | `Transfer-Encoding: chunked` | by its chunks |
//! | `Content-Length` | by its length |
//! | neither | to the end of the connection |
//!
//! Refused, because the next to read it may read it otherwise: a length beside chunks, more than one length or one that
//! is no number, another coding than `chunked`, chunks in HTTP/1.0, folded lines, control bytes, blanks before a colon.
//! A line may end in a bare line feed: what goes on to the client is written anew.

#[cfg(test)]
mod in_pieces;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::memchr_iter;
use smallvec::SmallVec;

pub use super::body::BodyReader;
use super::chunked::TRAILER_BYTES_MAX;

/// The largest head.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most fields of a head, and of trailers.
pub(super) const FIELDS_MAX: usize = 100;

/// What came is no answer, or one with two readings. Its connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the head is larger than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("the trailers are larger than {TRAILER_BYTES_MAX} bytes")]
    TrailersTooLarge,
    #[error("the body ended early")]
    Truncated,
}

use BadAnswer::Malformed;

const MALFORMED_LINE: BadAnswer = Malformed("a header line is malformed");

/// The head of a final answer.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    /// For what follows it.
    pub body: BodyReader,
    /// Whether the app keeps the connection open behind the body.
    pub keeps_alive: bool,
}

/// Looks for the head of the one answer to one request.
#[derive(Debug)]
pub struct HeadReader {
    is_for_head: bool,
    /// So much at the front has been looked at, and is no whole head.
    scanned: usize,
    /// Of the answers that came before the last one.
    interim_bytes: usize,
}

impl HeadReader {
    /// `is_for_head`: the request's method is HEAD.
    pub fn new(is_for_head: bool) -> Self {
        Self { is_for_head, scanned: 0, interim_bytes: 0 }
    }

    /// Takes a head off the front of `bytes` and puts its fields into `headers`, which is empty: all but those that
    /// concern this connection alone, `Transfer-Encoding` and a `Connection` that names no field. `None` while it is
    /// not whole.
    ///
    /// # Errors
    /// See [`BadAnswer`].
    pub fn read(&mut self, bytes: &mut BytesMut, headers: &mut HeaderMap) -> Result<Option<Head>, BadAnswer> {
        while !bytes.is_empty() && (self.scanned == 0 || may_end(bytes, self.scanned)) {
            let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
            let mut response = httparse::Response::new(&mut []);
            let parser = httparse::ParserConfig::default();
            let length = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut slots) {
                Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
                Ok(httparse::Status::Complete(_)) => return Err(BadAnswer::HeadTooLarge),
                Ok(httparse::Status::Partial) => break,
                Err(error) => return Err(why(error)),
            };
            let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.ok_or(Malformed("the status is none"))?;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                // Any number of them is allowed, and somebody has to read them.
                self.interim_bytes += length;
                if self.interim_bytes > HEAD_BYTES_MAX {
                    return Err(BadAnswer::HeadTooLarge);
                }
                bytes.advance(length);
                self.scanned = 0;
                continue;
            }
            let mut told = Told { is_http11: response.version == Some(1), ..Told::default() };
            told.gather(response.headers, bytes)?;
            let body = told.framing(status, self.is_for_head)?;
            let keeps_alive = told.keeps_alive() && status != StatusCode::SWITCHING_PROTOCOLS;
            let keeps_alive = keeps_alive && !body.ends_the_connection();
            told.put_fields(headers, &bytes.split_to(length).freeze())?;
            return Ok(Some(Head { status, body, keeps_alive }));
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(BadAnswer::HeadTooLarge);
        }
        self.scanned = bytes.len();
        Ok(None)
    }
}

/// Whether a head may end behind the first `scanned` bytes: spares those that come in drops from being read from the
/// front each time.
fn may_end(bytes: &[u8], scanned: usize) -> bool {
    let bytes = &bytes[scanned.saturating_sub(3)..];
    memchr_iter(b'\n', bytes).any(|at| matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

fn why(error: httparse::Error) -> BadAnswer {
    Malformed(match error {
        httparse::Error::TooManyHeaders => "the head has more than 100 fields",
        httparse::Error::Version => "it is no HTTP/1",
        httparse::Error::Status => "the status line is malformed",
        _ => return MALFORMED_LINE,
    })
}

/// The fields of a head, and what those say that decides the framing.
#[derive(Default)]
struct Told {
    /// Those that go further than this connection, each with the place of its value in the head.
    fields: SmallVec<[(HeaderName, Range<usize>); 16]>,
    is_http11: bool,
    length: Option<u64>,
    is_chunked: bool,
    has_odd_coding: bool,
    says_close: bool,
    says_keep_alive: bool,
}

impl Told {
    /// `lines` stand in `head`.
    fn gather(&mut self, lines: &[httparse::Header<'_>], head: &[u8]) -> Result<(), BadAnswer> {
        for httparse::Header { name, value } in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| MALFORMED_LINE)?;
            match name {
                CONNECTION if !self.connection(value) => continue,
                CONTENT_LENGTH => self.content_length(value)?,
                TRANSFER_ENCODING => {
                    self.transfer_encoding(value);
                    continue;
                }
                _ => {}
            }
            // An empty value may stand nowhere.
            let start = if value.is_empty() { 0 } else { value.as_ptr() as usize - head.as_ptr() as usize };
            self.fields.push((name, start..start + value.len()));
        }
        Ok(())
    }

    /// Whether it names more than the two options that end here.
    fn connection(&mut self, value: &[u8]) -> bool {
        if value == b"keep-alive" {
            // What most say who say anything.
            self.says_keep_alive = true;
            return false;
        }
        let mut names_more = false;
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.says_keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.says_close = true;
            } else {
                names_more |= !option.is_empty();
            }
        }
        names_more
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), BadAnswer> {
        if self.length.is_some() {
            return Err(Malformed("more than one Content-Length"));
        }
        self.length = content_length(value);
        self.length.map(drop).ok_or(Malformed("Content-Length is not a number of bytes"))
    }

    /// No other coding was asked for (RFC 9112, section 7.4), and who sends one may be read in two ways.
    fn transfer_encoding(&mut self, value: &[u8]) {
        self.has_odd_coding |= self.is_chunked || !value.eq_ignore_ascii_case(b"chunked");
        self.is_chunked = true;
    }

    fn framing(&self, status: StatusCode, is_for_head: bool) -> Result<BodyReader, BadAnswer> {
        if is_for_head || matches!(status.as_u16(), 101 | 204 | 304) {
            return Ok(BodyReader::none());
        }
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if self.has_odd_coding => Err(Malformed("Transfer-Encoding is not \"chunked\"")),
            (true, None) if !self.is_http11 => Err(Malformed("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(BodyReader::chunked_answer()),
            (false, Some(length)) => Ok(BodyReader::sized(length)),
            (false, None) => Ok(BodyReader::until_close()),
        }
    }

    fn keeps_alive(&self) -> bool {
        !self.says_close && (self.is_http11 || self.says_keep_alive)
    }

    fn put_fields(&mut self, headers: &mut HeaderMap, head: &Bytes) -> Result<(), BadAnswer> {
        headers.reserve(self.fields.len());
        for (name, place) in self.fields.drain(..) {
            let value = HeaderValue::from_maybe_shared(head.slice(place)).map_err(|_| MALFORMED_LINE)?;
            headers.append(name, value);
        }
        Ok(())
    }
}

/// The length that a head tells of its body, if it does.
pub(crate) fn told_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH).and_then(|length| content_length(length.as_bytes()))
}

/// The one way that a length is read. Digits only: no sign, no list, no blank, nothing over 2^63 (RFC 9110, section 8.6).
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    let length = digits.then(|| value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    length.filter(|length| *length < 1 << 63)
}
