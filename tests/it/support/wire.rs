//! HTTP/1.1 as bytes: heads, framing and chunks, read loosely and without any HTTP library.
//!
//! Loose on purpose: a reader that is fussier than the worst upstream would hide what was forwarded.

use std::io;

/// Names as they were written and trimmed values, in order.
pub type Fields = Vec<(String, String)>;

/// A start line and the headers below it, as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The request or status line without its line end.
    pub line: String,
    pub headers: Fields,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// Neither header: nothing in a request, until the end in a response.
    Unsaid,
}

/// A message cut out of a stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub head: Head,
    /// With chunks joined.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Whether the body came to its announced end.
    pub complete: bool,
    /// How many bytes of the stream it took.
    pub len: usize,
}

impl Head {
    /// Takes the bytes up to and including the empty line.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
        Self { line: line.trim_end_matches('\r').to_owned(), headers: fields(rest) }
    }

    /// The first value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name).next()
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        find(&self.headers, name).collect()
    }

    pub fn framing(&self) -> Framing {
        if self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return Framing::Chunked;
        }
        match self.header("content-length").map(str::parse) {
            Some(Ok(length)) => Framing::Length(length),
            _ => Framing::Unsaid,
        }
    }
}

/// The first value with that name, in any case.
pub fn find<'a>(fields: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Header lines up to the first empty one.
pub fn fields(text: &str) -> Fields {
    text.split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// Where a head ends, the empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let crlf = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let bare = memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2);
    match (crlf, bare) {
        (Some(crlf), Some(bare)) => Some(crlf.min(bare)),
        (crlf, bare) => crlf.or(bare),
    }
}

/// The size that a chunk's first line announces, extensions ignored.
///
/// # Errors
/// `InvalidData` when it is not hexadecimal.
pub fn chunk_size(line: &[u8]) -> io::Result<usize> {
    let line = String::from_utf8_lossy(line);
    let digits = line.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))
}

/// What is known of a chunked body from its first bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// How many bytes the whole took, once the last line was there.
    pub end: Option<usize>,
}

/// Joins as many chunks as there are.
///
/// # Errors
/// `InvalidData` when a chunk size is not hexadecimal.
pub fn join_chunks(bytes: &[u8]) -> io::Result<Chunks> {
    let mut chunks = Chunks::default();
    let mut at = 0;
    while let Some(line_len) = memchr::memchr(b'\n', &bytes[at..]) {
        let size = chunk_size(&bytes[at..at + line_len])?;
        at += line_len + 1;
        if size == 0 {
            return Ok(end_of_chunks(chunks, bytes, at));
        }
        let Some(data) = bytes.get(at..at.saturating_add(size)) else {
            chunks.body.extend_from_slice(&bytes[at..]);
            return Ok(chunks);
        };
        chunks.body.extend_from_slice(data);
        at = (at + size + 2).min(bytes.len());
    }
    Ok(chunks)
}

fn end_of_chunks(mut chunks: Chunks, bytes: &[u8], at: usize) -> Chunks {
    let rest = &bytes[at..];
    if rest.starts_with(b"\r\n") {
        chunks.end = Some(at + 2);
    } else if let Some(len) = head_end(rest) {
        chunks.trailers = fields(&String::from_utf8_lossy(&rest[..len]));
        chunks.end = Some(at + len);
    }
    chunks
}

/// Cuts everything one connection received into requests; a body that is still coming is `complete: false`.
pub fn requests(mut bytes: &[u8]) -> Vec<Message> {
    let mut requests = Vec::new();
    while let Some(head_len) = head_end(bytes) {
        let head = Head::parse(&bytes[..head_len]);
        let rest = &bytes[head_len..];
        let (body, trailers, body_len) = match head.framing() {
            Framing::Unsaid => (Vec::new(), Vec::new(), Some(0)),
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let there = length.min(rest.len());
                (rest[..there].to_vec(), Vec::new(), (there == length).then_some(length))
            }
            Framing::Chunked => {
                let chunks = join_chunks(rest).unwrap_or_default();
                (chunks.body, chunks.trailers, chunks.end)
            }
        };
        let len = head_len + body_len.unwrap_or(rest.len());
        requests.push(Message { head, body, trailers, complete: body_len.is_some(), len });
        bytes = &bytes[len..];
    }
    requests
}

pub fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[test]
fn requests_are_cut_at_their_framing() {
    let bytes = b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPOST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2;x=y\r\nab\r\n0\r\nX-End: 1\r\n\r\nGET /c HTTP/1.1\r\n\r\nPUT /d HTTP/1.1\r\nContent-Length: 5\r\n\r\nhal";
    let requests = requests(bytes);
    let lines: Vec<_> = requests.iter().map(|request| request.head.line.as_str()).collect();
    assert_eq!(lines, ["POST /a HTTP/1.1", "POST /b HTTP/1.1", "GET /c HTTP/1.1", "PUT /d HTTP/1.1"]);
    let bodies: Vec<_> = requests.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(bodies, [&b"hi"[..], b"ab", b"", b"hal"]);
    assert_eq!(requests[1].trailers, [("X-End".to_owned(), "1".to_owned())]);
    assert_eq!(requests.iter().map(|request| request.complete).collect::<Vec<_>>(), [true, true, true, false]);
}
