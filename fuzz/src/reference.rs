//! Another reader of HTTP/1, to the letter of RFC 9112 and no further. It splits where Flagstone scans, works
//! on the whole text, and knows no forgiveness: what it takes has one reading.

/// One request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case, in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// What follows the last whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    /// The beginning of another.
    Partial,
    /// Something that is none.
    Malformed(&'static str),
}

/// What can come out of reading one part.
#[derive(Debug)]
pub(crate) enum Stop {
    More,
    Wrong(&'static str),
}

/// Names in lower case, in their order.
type Fields = Vec<(String, Vec<u8>)>;
type Read<'a, T> = Result<(T, &'a [u8]), Stop>;

/// All whole requests, what follows them, and the bytes of that.
pub(crate) fn requests(bytes: &[u8]) -> (Vec<Message>, End, &[u8]) {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    loop {
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        if rest.is_empty() {
            return (messages, End::Clean, rest);
        }
        match message(rest) {
            Ok((message, after)) => {
                messages.push(message);
                rest = after;
            }
            Err(Stop::More) => return (messages, End::Partial, rest),
            Err(Stop::Wrong(why)) => return (messages, End::Malformed(why), rest),
        }
    }
}

/// One answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// It ends with the connection.
    pub(crate) is_open: bool,
    pub(crate) is_old: bool,
}

/// The one final answer to a request, and what follows it. Of its head a line may end in a bare line feed.
pub(crate) fn answer(bytes: &[u8], is_for_head: bool) -> Read<'_, Answer> {
    let mut rest = bytes;
    loop {
        while let Some(after) = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")) {
            rest = after;
        }
        let (line, after) = free_line(rest)?;
        let (fields, after) = fields_by(after, free_line)?;
        let (version, text) = line.split_at_checked(9).ok_or(Stop::Wrong("status line"))?;
        let is_old = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Stop::Wrong("version")),
        };
        let (digits, reason) = text.split_at_checked(3).ok_or(Stop::Wrong("status"))?;
        if !digits.iter().all(u8::is_ascii_digit) || !(reason.is_empty() || reason.starts_with(b" ")) {
            return Err(Stop::Wrong("status"));
        }
        let status = std::str::from_utf8(digits).expect("digits").parse().expect("digits");
        rest = after;
        match status {
            0..=99 => return Err(Stop::Wrong("status")),
            100 | 102..=199 => continue,
            _ => {}
        }
        let all =
            |name: &str| fields.iter().filter(|field| field.0 == name).map(|field| &field.1[..]).collect::<Vec<_>>();
        let has_none = is_for_head || matches!(status, 101 | 204 | 304);
        let mut answer =
            Answer { status, fields: fields.clone(), body: Vec::new(), trailers: Vec::new(), is_open: false, is_old };
        match (&all("transfer-encoding")[..], &all("content-length")[..]) {
            _ if has_none => {}
            ([], []) => {
                answer.is_open = true;
                answer.body = std::mem::take(&mut rest).to_vec();
            }
            ([], [length]) => (answer.body, rest) = sized(rest, length)?,
            ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && !is_old => {
                ((answer.body, answer.trailers), rest) = chunks(rest, true)?;
            }
            _ => return Err(Stop::Wrong("framing")),
        }
        return Ok((answer, rest));
    }
}

/// Up to LF, with or without CR before it.
fn free_line(bytes: &[u8]) -> Read<'_, &[u8]> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Err(Stop::More) };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.contains(&b'\r') { Err(Stop::Wrong("line end")) } else { Ok((line, &bytes[end + 1..])) }
}

fn message(bytes: &[u8]) -> Read<'_, Message> {
    let (line, rest) = line(bytes)?;
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Stop::Wrong("the request line has not three words")) };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Stop::Wrong("method or target"));
    }
    let is_old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Stop::Wrong("version")),
    };
    let (fields, rest) = fields(rest)?;
    let all = |name: &str| fields.iter().filter(|field| field.0 == name).map(|field| &field.1[..]).collect::<Vec<_>>();
    let hosts = all("host").len();
    if hosts > 1 || (hosts == 0 && !is_old) {
        return Err(Stop::Wrong("hosts"));
    }
    let (body, rest) = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => (Vec::new(), rest),
        ([], [length]) => sized(rest, length)?,
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && !is_old => chunked(rest)?,
        _ => return Err(Stop::Wrong("framing")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((Message { method: text(method), target: text(target), fields, body }, rest))
}

/// Up to CR LF, which is taken off; neither may stand alone.
fn line(bytes: &[u8]) -> Read<'_, &[u8]> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else { return Err(Stop::More) };
    match bytes[..end].split_last() {
        Some((b'\r', line)) if !line.contains(&b'\r') => Ok((line, &bytes[end + 1..])),
        _ => Err(Stop::Wrong("line end")),
    }
}

fn fields(rest: &[u8]) -> Read<'_, Fields> {
    fields_by(rest, line)
}

fn fields_by<'a>(mut rest: &'a [u8], line: impl Fn(&'a [u8]) -> Read<'a, &'a [u8]>) -> Read<'a, Fields> {
    let mut fields = Vec::new();
    loop {
        let (line, after) = line(rest)?;
        rest = after;
        if line.is_empty() {
            return Ok((fields, rest));
        }
        let mut halves = line.splitn(2, |&byte| byte == b':');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else { return Err(Stop::Wrong("no colon")) };
        let value = value.trim_ascii();
        if !is_token(name) || value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            return Err(Stop::Wrong("field"));
        }
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
}

fn sized<'a>(bytes: &'a [u8], length: &[u8]) -> Read<'a, Vec<u8>> {
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(Stop::Wrong("length"));
    }
    let length = std::str::from_utf8(length).expect("digits").parse::<usize>().map_err(|_| Stop::Wrong("length"))?;
    if bytes.len() < length { Err(Stop::More) } else { Ok((bytes[..length].to_vec(), &bytes[length..])) }
}

fn chunked(rest: &[u8]) -> Read<'_, Vec<u8>> {
    let ((body, _), rest) = chunks(rest, false)?;
    Ok((body, rest))
}

/// The body and its trailers. `pads`: blanks may stand behind a size.
#[allow(clippy::type_complexity, reason = "read in one place")]
fn chunks(mut rest: &[u8], pads: bool) -> Read<'_, (Vec<u8>, Fields)> {
    let mut body = Vec::new();
    loop {
        let (line, after) = line(rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let blank = extension.trim_ascii_start();
        let is_extension = extension.is_empty() || blank.starts_with(b";") || (pads && blank.is_empty());
        if digits == 0 || !is_extension || extension.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)
        {
            return Err(Stop::Wrong("chunk size"));
        }
        let size = std::str::from_utf8(&line[..digits]).expect("digits");
        let size = usize::from_str_radix(size, 16).map_err(|_| Stop::Wrong("chunk size"))?;
        if size == 0 {
            let (trailers, rest) = fields(after)?;
            return Ok(((body, trailers), rest));
        }
        if size > after.len() {
            return Err(Stop::More);
        }
        body.extend_from_slice(&after[..size]);
        rest = match &after[size..] {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Err(Stop::More),
            _ => return Err(Stop::Wrong("chunk end")),
        };
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
