//! What an app answers: whatever comes, and in whatever pieces, is one answer that another reader finds too, or none.

use std::collections::BTreeMap;

use bytes::BytesMut;
use flagstone::message::answer::{BadAnswer, HeadReader};
use http::HeaderMap;

use super::reference;

/// Its fields by name, in lower case.
type Fields = BTreeMap<String, Vec<Vec<u8>>>;

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    keeps_alive: bool,
    /// What follows it.
    rest: Vec<u8>,
}

/// The first byte says whether HEAD was asked, and in which pieces the others come.
pub fn check(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let is_for_head = how & 1 == 1;
    let at_once = read(bytes, usize::MAX, is_for_head);
    let in_pieces = read(bytes, usize::from(how >> 1) + 1, is_for_head);
    assert_eq!(at_once.as_ref().ok(), in_pieces.as_ref().ok(), "{}", bytes.escape_ascii());
    let Ok(answer) = at_once else { return };
    let other = reference::answer(bytes, is_for_head);
    let (other, rest) = other.unwrap_or_else(|stop| panic!("{stop:?}: {answer:?}\n{}", bytes.escape_ascii()));
    let says = |what: &str| {
        let lines = other.fields.iter().filter(|field| field.0 == "connection");
        let mut options = lines.flat_map(|field| field.1.split(|&byte| byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(what.as_bytes()))
    };
    let may_stay = !other.is_open && !says("close") && (!other.is_old || says("keep-alive"));
    let expected = Answer {
        status: other.status,
        fields: by_name(other.fields.iter().filter(|field| !ends_here(field))),
        body: other.body,
        trailers: by_name(&other.trailers),
        keeps_alive: may_stay && other.status != 101,
        rest: rest.to_vec(),
    };
    assert_eq!(answer, expected, "{}", bytes.escape_ascii());
}

/// Whether a field concerns nobody but the two ends of the connection.
fn ends_here((name, value): &(String, Vec<u8>)) -> bool {
    let is_ours = |option: &[u8]| {
        let option = option.trim_ascii().to_ascii_lowercase();
        matches!(&option[..], b"" | b"close" | b"keep-alive")
    };
    name == "transfer-encoding" || (name == "connection" && value.split(|&byte| byte == b',').all(is_ours))
}

fn read(bytes: &[u8], piece: usize, is_for_head: bool) -> Result<Answer, BadAnswer> {
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
    let list = |headers: &HeaderMap| {
        let fields: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        by_name(&fields)
    };
    Ok(Answer {
        status: head.status.as_u16(),
        fields: list(&headers),
        body,
        trailers: list(&trailers),
        keeps_alive: head.keeps_alive,
        rest: buffer.to_vec(),
    })
}

fn by_name<'a>(fields: impl IntoIterator<Item = &'a (String, Vec<u8>)>) -> Fields {
    let mut map = Fields::new();
    for (name, value) in fields {
        map.entry(name.clone()).or_default().push(value.clone());
    }
    map
}
