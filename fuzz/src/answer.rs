//! What an app answers: whatever comes, and in whatever pieces, is one answer that another reader finds too, or none.

#[path = "../../src/message/answer/in_pieces.rs"]
mod in_pieces;

use flagstone::message::answer::{BadAnswer, HeadReader};
use http::{HeaderMap, HeaderName, HeaderValue};

use self::in_pieces::{Read, read_in_pieces};
use super::reference;

/// The first byte says whether HEAD was asked, and in which pieces the others come.
pub fn check(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let is_for_head = how & 1 == 1;
    let at_once = read_in_pieces(bytes, usize::MAX, is_for_head);
    let in_pieces = read_in_pieces(bytes, usize::from(how >> 1) + 1, is_for_head);
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
    let expected = Read {
        status: other.status,
        headers: map(other.fields.iter().filter(|field| !ends_here(field))),
        body: other.body,
        trailers: map(&other.trailers),
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

fn map<'a>(fields: impl IntoIterator<Item = &'a (String, Vec<u8>)>) -> HeaderMap {
    let name = |name: &str| HeaderName::try_from(name).expect("what we took for one");
    let value = |value: &[u8]| HeaderValue::from_bytes(value).expect("what we took for one");
    fields.into_iter().map(|field| (name(&field.0), value(&field.1))).collect()
}
