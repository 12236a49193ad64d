//! An answer read as a connection reads it, for the tests here and for `fuzz/src/answer.rs`, which has this file too.

use bytes::BytesMut;
use http::HeaderMap;

use super::{BadAnswer, HeadReader};

/// What comes of bytes after which the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
    pub(super) keeps_alive: bool,
    /// What stands behind it.
    pub(super) rest: Vec<u8>,
}

/// A piece of so many bytes at a time.
pub(super) fn read_in_pieces(bytes: &[u8], piece: usize, is_for_head: bool) -> Result<Read, BadAnswer> {
    let (mut buffer, mut pieces) = (BytesMut::new(), bytes.chunks(piece));
    let (mut reader, mut headers) = (HeadReader::new(is_for_head), HeaderMap::new());
    let mut head = loop {
        buffer.extend_from_slice(pieces.next().ok_or(BadAnswer::Truncated)?);
        if let Some(head) = reader.read(&mut buffer, &mut headers)? {
            break head;
        }
    };
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    loop {
        match head.body.next(&mut buffer)?.map(http_body::Frame::into_data) {
            Some(Ok(data)) => body.extend_from_slice(&data),
            Some(Err(frame)) => trailers = frame.into_trailers().expect("data or trailers"),
            None if head.body.has_ended() => break,
            None => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => head.body.close()?,
            },
        }
    }
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    let (status, keeps_alive) = (head.status.as_u16(), head.keeps_alive);
    Ok(Read { status, headers, body, trailers, keeps_alive, rest: buffer.to_vec() })
}
