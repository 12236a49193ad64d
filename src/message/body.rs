//! The body of a message: by its length, by its chunks, or, of an answer, to the end of the connection (RFC 9112,
//! sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::answer::BadAnswer::{self, Malformed, Truncated};
use super::answer::FIELDS_MAX;
use super::chunked::{BrokenChunk, ChunkFollower, Run};

/// Takes one body off the front of what is read.
#[derive(Debug)]
pub struct BodyReader(Kind);

#[derive(Debug)]
enum Kind {
    Ended,
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// Its chunks are broken behind what has been taken.
    Broken(BadAnswer),
}

#[derive(Debug)]
struct Chunks {
    follower: ChunkFollower,
    /// The trailer section so far.
    trailers: Vec<u8>,
}

impl BodyReader {
    /// For a message without a body.
    pub fn none() -> Self {
        Self(Kind::Ended)
    }

    pub(crate) fn sized(length: u64) -> Self {
        Self(if length == 0 { Kind::Ended } else { Kind::Length(length) })
    }

    /// What an app sends in chunks.
    pub(super) fn chunked_answer() -> Self {
        Self(Kind::Chunked(Chunks { follower: ChunkFollower::of_answer(), trailers: Vec::new() }))
    }

    /// What a client sends in chunks.
    pub(crate) fn chunked_request() -> Self {
        Self(Kind::Chunked(Chunks { follower: ChunkFollower::new(), trailers: Vec::new() }))
    }

    /// Why `bytes` cannot be how it goes on, if they cannot.
    pub(crate) fn broken_by(&self, bytes: &[u8]) -> Option<BadAnswer> {
        let Kind::Chunked(chunks) = &self.0 else { return None };
        chunks.follower.clone().advance(bytes).err().map(BadAnswer::from)
    }

    pub(super) fn until_close() -> Self {
        Self(Kind::UntilClose)
    }

    /// Whether only the end of the connection is the end of the body.
    pub(super) fn ends_the_connection(&self) -> bool {
        matches!(self.0, Kind::UntilClose)
    }

    /// Whether all of it has been taken.
    pub fn has_ended(&self) -> bool {
        matches!(self.0, Kind::Ended)
    }

    /// How much is still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.0 {
            Kind::Ended => Some(0),
            Kind::Length(left) => Some(left),
            Kind::Chunked(_) | Kind::UntilClose | Kind::Broken(_) => None,
        }
    }

    /// Takes all of a body whose length is known, if all of it is there.
    pub fn take_whole(&mut self, bytes: &mut BytesMut) -> Option<Bytes> {
        let left = usize::try_from(self.left()?).ok()?;
        if left > bytes.len() {
            return None;
        }
        self.0 = Kind::Ended;
        Some(if left == 0 { Bytes::new() } else { bytes.split_to(left).freeze() })
    }

    /// Takes what there is of it; `None` when that is nothing, at its end too.
    ///
    /// # Errors
    /// Its chunks, or their trailers, are malformed.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<Bytes>>, BadAnswer> {
        let frame = match &mut self.0 {
            Kind::Ended => return Ok(None),
            Kind::Broken(why) => Err(*why),
            _ if bytes.is_empty() => return Ok(None),
            Kind::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.0 = Kind::Ended;
                }
                Ok(Some(Frame::data(bytes.split_to(taken).freeze())))
            }
            Kind::UntilClose => Ok(Some(Frame::data(bytes.split().freeze()))),
            Kind::Chunked(chunks) => chunks.next(bytes),
        };
        match (&mut self.0, &frame) {
            (_, Err(why)) => self.0 = Kind::Broken(*why),
            // So that the last piece is known to be the last where that can be seen already.
            (Kind::Chunked(chunks), Ok(Some(frame))) if frame.is_data() => match chunks.look_ahead(bytes) {
                Ok(()) if chunks.follower.is_done() => self.0 = Kind::Ended,
                Ok(()) => {}
                Err(why) => self.0 = Kind::Broken(why.into()),
            },
            (Kind::Chunked(chunks), Ok(_)) if chunks.follower.is_done() => self.0 = Kind::Ended,
            _ => {}
        }
        frame
    }

    /// So many bytes of it, whose length is known, went another way.
    pub(crate) fn passed(&mut self, bytes: u64) {
        if let Kind::Length(left) = self.0 {
            *self = Self::sized(left.saturating_sub(bytes));
        }
    }

    /// The connection has come to its end.
    ///
    /// # Errors
    /// The body had not.
    pub fn close(&mut self) -> Result<(), BadAnswer> {
        match self.0 {
            Kind::Ended | Kind::UntilClose => {
                self.0 = Kind::Ended;
                Ok(())
            }
            Kind::Length(_) | Kind::Chunked(_) | Kind::Broken(_) => Err(Truncated),
        }
    }
}

impl Chunks {
    fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame<Bytes>>, BadAnswer> {
        while !bytes.is_empty() {
            match self.follower.next(bytes)? {
                Run::Framing(taken) => bytes.advance(taken),
                Run::Data(taken) => return Ok(Some(Frame::data(bytes.split_to(taken).freeze()))),
                Run::Trailers(taken) => {
                    self.trailers.extend_from_slice(&bytes[..taken]);
                    bytes.advance(taken);
                    let is_whole = self.follower.is_done() && self.trailers != b"\r\n";
                    return if is_whole { fields(&self.trailers).map(Frame::trailers).map(Some) } else { Ok(None) };
                }
            }
        }
        Ok(None)
    }

    /// Takes what follows a piece of data, up to the next one or, without trailers, to the end.
    fn look_ahead(&mut self, bytes: &mut BytesMut) -> Result<(), BrokenChunk> {
        if self.follower.is_in_data() {
            return Ok(());
        }
        if let Run::Framing(taken) = self.follower.next(bytes)? {
            bytes.advance(taken);
        }
        if self.follower.is_before_trailers() && bytes.starts_with(b"\r\n") {
            self.follower.next(bytes)?;
            bytes.advance(2);
        }
        Ok(())
    }
}

impl From<BrokenChunk> for BadAnswer {
    fn from(why: BrokenChunk) -> Self {
        match why {
            BrokenChunk::Malformed => Malformed("the chunks are malformed"),
            BrokenChunk::TrailersTooLarge => Self::TrailersTooLarge,
        }
    }
}

/// A trailer section, with its last empty line.
fn fields(section: &[u8]) -> Result<HeaderMap, BadAnswer> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut slots) else {
        return Err(Malformed("a trailer is malformed"));
    };
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) = (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("a trailer is malformed")) };
        headers.append(name, value);
    }
    Ok(headers)
}
