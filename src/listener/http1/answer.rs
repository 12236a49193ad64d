//! An answer as HTTP/1 writes it: its head, and the framing of its body (RFC 9112, sections 4, 5, 6 and 9.3).

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::listener::date;
use crate::message::answer::content_length;
use crate::message::{field_line, hop_by_hop, trailers};
use crate::pieces::Queue;

/// What of a request decides about the form of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) is_head: bool,
    /// The connection may go on behind this answer.
    pub(super) is_kept: bool,
    pub(super) takes_trailers: bool,
}

/// What is known of the body before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Unknown,
}

/// How the body of an answer goes out.
#[derive(Debug)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// The fields that may come behind it.
    Chunked(Vec<HeaderName>),
    /// The end of the connection is its end.
    ToTheEnd,
}

/// A body ended before its length.
#[derive(Debug)]
pub(super) struct Short;

/// Writes the head of an answer; returns how its body goes out, and whether the connection goes on behind it.
pub(super) fn write_head(
    status: StatusCode,
    fields: &HeaderMap,
    length: Length,
    asked: &Asked,
    out: &mut Vec<u8>,
) -> (Framing, bool) {
    let is_http11 = asked.version >= Version::HTTP_11;
    let has_body = HasBody::of(status, asked.is_head);
    let (mut told_length, mut has_connection, mut has_trailer, mut has_date) = (None, false, false, false);
    write_status(status, is_http11, out);
    for (name, value) in fields {
        match *name {
            // Written last, from all that they say together.
            CONNECTION => has_connection = true,
            TRAILER => has_trailer = true,
            // Ours to say.
            TRANSFER_ENCODING => continue,
            CONTENT_LENGTH => {
                told_length.get_or_insert(value);
            }
            _ => {
                has_date |= *name == DATE;
                field_line::write(out, name.as_str(), value.as_bytes());
            }
        }
    }
    let framing = match write_length(length, told_length, has_body, is_http11, out) {
        Framing::Chunked(_) if has_trailer => Framing::Chunked(write_trailer(fields, out)),
        framing => framing,
    };
    let closes = has_connection && hop_by_hop::wants_close(fields);
    let is_kept = asked.is_kept && !closes && !matches!(framing, Framing::ToTheEnd);
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    write_connection(has_connection.then_some(fields), is_kept || is_upgrade, is_http11, out);
    if !has_date {
        field_line::write(out, "date", date::now().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    (framing, is_kept && !is_upgrade)
}

/// Whether a body follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HasBody {
    Yes,
    Never,
    /// The answer to HEAD tells what a body would be like (RFC 9110, section 9.3.2).
    Untold,
}

impl HasBody {
    /// RFC 9110, sections 8.6, 15.2, 15.3.5 and 15.4.5.
    fn of(status: StatusCode, is_head: bool) -> Self {
        match status {
            StatusCode::NO_CONTENT => Self::Never,
            _ if is_head => Self::Untold,
            StatusCode::NOT_MODIFIED => Self::Never,
            status if status.is_informational() => Self::Never,
            _ => Self::Yes,
        }
    }
}

/// Says how long the body is, or that it comes in chunks. `told` is what the answer says of it.
fn write_length(
    length: Length,
    told: Option<&HeaderValue>,
    has_body: HasBody,
    is_http11: bool,
    out: &mut Vec<u8>,
) -> Framing {
    let told_bytes = || told.and_then(|told| content_length(told.as_bytes()));
    let length = match length {
        // A body may say less about itself than who made it.
        Length::Unknown => told_bytes().map_or(length, Length::Known),
        Length::Known(_) => length,
    };
    match (has_body, length) {
        (HasBody::Yes, Length::Known(bytes)) => {
            write_number(out, bytes);
            return Framing::Length(bytes);
        }
        (HasBody::Yes, Length::Unknown) if is_http11 => {
            field_line::write(out, "transfer-encoding", b"chunked");
            return Framing::Chunked(Vec::new());
        }
        (HasBody::Yes, Length::Unknown) => return Framing::ToTheEnd,
        (HasBody::Untold, Length::Known(bytes)) => match told {
            Some(told) => field_line::write(out, "content-length", told.as_bytes()),
            None if bytes > 0 => write_number(out, bytes),
            None => {}
        },
        (HasBody::Untold, Length::Unknown) | (HasBody::Never, _) => {}
    }
    Framing::Length(0)
}

fn write_status(status: StatusCode, is_http11: bool, out: &mut Vec<u8>) {
    if is_http11 && status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(if is_http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // A client may want one, so a number that nobody has given a meaning gets one too.
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, bytes: u64) {
    field_line::write(out, "content-length", itoa::Buffer::new().format(bytes).as_bytes());
}

/// The answer's own words about the connection, and what has to be said beside them.
fn write_connection(own: Option<&HeaderMap>, is_kept: bool, is_http11: bool, out: &mut Vec<u8>) {
    let ours = match (is_kept, is_http11) {
        (false, true) => Some("close"),
        (true, false) => Some("keep-alive"),
        (true, true) | (false, false) => None,
    };
    if own.is_none() && ours.is_none() {
        return;
    }
    let own = || own.into_iter().flat_map(|fields| fields.get_all(CONNECTION));
    let is_told = |word: &&str| own().any(|line| hop_by_hop::lists(line, word));
    let ours = ours.filter(|word| !is_told(word)).map(str::as_bytes);
    write_list(out, "connection", own().map(|line| line.as_bytes()).chain(ours));
}

/// Announces the trailers, and returns their names.
fn write_trailer(fields: &HeaderMap, out: &mut Vec<u8>) -> Vec<HeaderName> {
    write_list(out, "trailer", fields.get_all(TRAILER).iter().map(|line| line.as_bytes()));
    trailers::announced(fields).collect()
}

fn write_list<'a>(out: &mut Vec<u8>, name: &str, items: impl Iterator<Item = &'a [u8]>) {
    let mut separator: &[u8] = b": ";
    out.extend_from_slice(name.as_bytes());
    for item in items {
        out.extend_from_slice(separator);
        out.extend_from_slice(item);
        separator = b", ";
    }
    out.extend_from_slice(b"\r\n");
}

impl Framing {
    /// Puts one piece of the body on its way. What is beyond an announced length is left out.
    pub(super) fn push(&mut self, mut data: Bytes, output: &mut Queue) {
        if let Self::Length(left) = self {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
        }
        match self {
            Self::Chunked(_) => output.push_chunk(data),
            Self::Length(_) | Self::ToTheEnd => output.push(data),
        }
    }

    /// How much of an announced length is still to come; nothing where none is announced.
    pub(super) fn left(&self) -> u64 {
        if let Self::Length(left) = self { *left } else { 0 }
    }

    /// So much of an announced length went another way.
    pub(super) fn passed(&mut self, bytes: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Puts the end of the body on its way, with those of the trailers that were announced.
    ///
    /// # Errors
    /// Bytes are missing: the client can only see that by the end of the connection.
    pub(super) fn end(&self, trailers: Option<&HeaderMap>, output: &mut Queue) -> Result<(), Short> {
        match self {
            Self::Length(0) | Self::ToTheEnd => Ok(()),
            Self::Length(_) => Err(Short),
            Self::Chunked(announced) => {
                output.push_last_chunk(trailers::section(trailers, announced));
                Ok(())
            }
        }
    }

    /// Whether everything that was announced has been put on its way.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Length(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { version: Version::HTTP_11, is_head: false, is_kept: true, takes_trailers: false };

    type Line = (&'static str, &'static str);

    /// The head without its Date, and whether the connection goes on.
    fn head(status: u16, lines: &[Line], length: Length, asked: Asked) -> (String, bool) {
        let fields: HeaderMap = lines.iter().fold(HeaderMap::new(), |mut fields, (name, value)| {
            fields.append(HeaderName::from_static(name), value.parse().unwrap());
            fields
        });
        let mut out = Vec::new();
        let (_, is_kept) = write_head(StatusCode::from_u16(status).unwrap(), &fields, length, &asked, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
        (lines.collect::<String>().replace("\r\n", "|"), is_kept)
    }

    #[test]
    fn a_body_has_one_framing() {
        use Length::{Known, Unknown};
        let http10 = Asked { version: Version::HTTP_10, is_kept: false, ..ASKED };
        let kept10 = Asked { version: Version::HTTP_10, ..ASKED };
        let of_head = Asked { is_head: true, ..ASKED };
        type Row<'a> = (u16, &'a [Line], Length, Asked, &'a str, bool);
        let rows: [Row<'_>; 17] = [
            (200, &[("a", "b")], Known(3), ASKED, "HTTP/1.1 200 OK|a: b|content-length: 3||", true),
            (200, &[("content-length", "3")], Known(3), ASKED, "HTTP/1.1 200 OK|content-length: 3||", true),
            (200, &[], Known(0), ASKED, "HTTP/1.1 200 OK|content-length: 0||", true),
            (200, &[("content-length", "3")], Unknown, ASKED, "HTTP/1.1 200 OK|content-length: 3||", true),
            (200, &[], Unknown, ASKED, "HTTP/1.1 200 OK|transfer-encoding: chunked||", true),
            (200, &[("transfer-encoding", "gzip")], Known(1), ASKED, "HTTP/1.1 200 OK|content-length: 1||", true),
            (204, &[("content-length", "3")], Known(0), ASKED, "HTTP/1.1 204 No Content||", true),
            (304, &[("content-length", "3")], Known(0), ASKED, "HTTP/1.1 304 Not Modified||", true),
            (204, &[("content-length", "9")], Known(0), of_head, "HTTP/1.1 204 No Content||", true),
            (200, &[("content-length", "9")], Known(0), of_head, "HTTP/1.1 200 OK|content-length: 9||", true),
            (200, &[("content-length", "9")], Unknown, of_head, "HTTP/1.1 200 OK|content-length: 9||", true),
            (200, &[], Known(0), of_head, "HTTP/1.1 200 OK||", true),
            (200, &[], Unknown, http10, "HTTP/1.0 200 OK||", false),
            (200, &[], Unknown, kept10, "HTTP/1.0 200 OK||", false),
            (200, &[], Known(1), kept10, "HTTP/1.0 200 OK|content-length: 1|connection: keep-alive||", true),
            (200, &[], Known(1), http10, "HTTP/1.0 200 OK|content-length: 1||", false),
            (799, &[], Known(1), ASKED, "HTTP/1.1 799 Unknown|content-length: 1||", true),
        ];
        for (status, lines, length, asked, expected, is_kept) in rows {
            assert_eq!(head(status, lines, length, asked), (expected.to_owned(), is_kept), "{lines:?} {asked:?}");
        }
    }

    #[test]
    fn the_end_of_a_connection_is_announced_once() {
        let closing = Asked { is_kept: false, ..ASKED };
        let rows: [(&[Line], Asked, &str, bool); 5] = [
            (&[], closing, "connection: close|", false),
            (&[("connection", "close")], ASKED, "connection: close|", false),
            (&[("connection", "close")], closing, "connection: close|", false),
            (&[("connection", "x"), ("connection", "y")], closing, "connection: x, y, close|", false),
            (&[("connection", "x")], ASKED, "connection: x|", true),
        ];
        for (lines, asked, expected, is_kept) in rows {
            let expected = format!("HTTP/1.1 200 OK|content-length: 0|{expected}|");
            assert_eq!(head(200, lines, Length::Known(0), asked), (expected, is_kept), "{lines:?}");
        }
        let upgrade = [("connection", "upgrade"), ("upgrade", "x")];
        let expected = "HTTP/1.1 101 Switching Protocols|upgrade: x|connection: upgrade||".to_owned();
        assert_eq!(head(101, &upgrade, Length::Known(0), ASKED), (expected, false));
    }

    #[test]
    fn chunks_carry_what_was_announced_and_end_once() {
        let mut out = Vec::new();
        let fields = HeaderMap::from_iter([(TRAILER, "X-Sum, x-other".parse().unwrap())]);
        let (mut framing, _) = write_head(StatusCode::OK, &fields, Length::Unknown, &ASKED, &mut out);
        let mut output = Queue::default();
        for piece in ["", "hello, hello, hello"] {
            framing.push(Bytes::from(piece), &mut output);
        }
        let trailers: HeaderMap = [("x-sum", "7"), ("set-cookie", "a")]
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .into_iter()
            .collect();
        framing.end(Some(&trailers), &mut output).unwrap();
        assert_eq!(output.text(), "13\r\nhello, hello, hello\r\n0\r\nx-sum: 7\r\n\r\n");
    }

    #[test]
    fn a_length_is_neither_exceeded_nor_missed_in_silence() {
        let mut output = Queue::default();
        let mut framing = Framing::Length(5);
        framing.push(Bytes::from_static(b"abc"), &mut output);
        assert!(framing.end(None, &mut output).is_err() && !framing.is_whole());
        framing.push(Bytes::from_static(b"defgh"), &mut output);
        assert!(framing.end(None, &mut output).is_ok() && framing.is_whole());
        assert_eq!(output.text(), "abcde");
    }
}
