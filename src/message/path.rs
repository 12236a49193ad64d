//! The one path of a request: normalised once, then matched and forwarded as it is.
//!
//! Proxies that match one reading of a path and forward another let requests past their routes. Here the path
//! takes its normal form (RFC 3986, section 6.2.2) before anything looks at it:
//!
//! - `//` becomes `/`; `.` and `..` segments are resolved, also when written `%2e`;
//! - escapes of unreserved characters are decoded (`%61` is `a`), all others keep upper-case digits;
//! - characters that may not stand in a path (`{`, `"`, `é`, …) are escaped, so that they have one spelling too.
//!
//! Refused, because upstreams disagree about them: `..` above the root, an encoded slash, backslash or NUL, a raw
//! backslash, control bytes, `#`, `?`, broken escapes, and dot segments with a matrix parameter
//! (`/..;/`), which servlet containers resolve and others do not.
//!
//! `*` of `OPTIONS *` is no path either, as with nginx: no route could be said to have it. Escaped reserved characters stay
//! as they are: `%3B` is not `;` (section 2.2), and a pattern with such a character matches it only as written.

use std::borrow::Cow;

use percent_encoding::percent_encode_byte;

/// `http::Uri` takes no more, whatever the configuration says.
pub const URI_BYTES_MAX: usize = u16::MAX as usize - 1;

/// Why a path is refused; all of them are the client's fault: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not start with a slash")]
    NoSlash,
    #[error("the path leads above the root")]
    AboveRoot,
    #[error("the path contains an encoded slash, backslash or NUL")]
    RefusedEscape,
    #[error("the path contains a `%` without two hexadecimal digits")]
    BadEscape,
    #[error("the path contains a dot segment with a parameter")]
    DotParameter,
    #[error("the path or query contains a byte that may not stand there")]
    InvalidByte,
}

/// Brings a path, without its query, into normal form; borrowed when it already has it.
///
/// Idempotent. The result starts with `/`, is ASCII, and has no `//` and no dot segment.
///
/// # Errors
/// For what is ambiguous or malformed; see [`PathError`].
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NoSlash);
    }
    if is_normal(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let normal = rewrite(raw.as_bytes())?;
    Ok(if normal == raw { Cow::Borrowed(raw) } else { Cow::Owned(normal) })
}

/// Checks a query, which is forwarded as it came.
///
/// # Errors
/// When it contains a control byte, a space or `#`.
pub fn check_query(query: &str) -> Result<(), PathError> {
    let bad = |byte: u8| byte <= b' ' || byte == 0x7f || byte == b'#';
    if query.bytes().any(bad) { Err(PathError::InvalidByte) } else { Ok(()) }
}

/// Whether there is plainly nothing to do. A `false` only means a closer look.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        match CLASS[usize::from(byte)] {
            Class::Plain => {}
            Class::Slash | Class::Dot if previous == b'/' => return false,
            Class::Slash | Class::Dot => {}
            Class::Escape | Class::Encode | Class::Refuse => return false,
        }
        previous = byte;
    }
    true
}

fn rewrite(path: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut segments = path[1..].split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        push_segment(&mut out, segment)?;
        let last = segments.peek().is_none();
        match &out[start + 1..] {
            // An empty or dot segment leaves nothing but, at the end, its slash.
            "" | "." if !last => out.truncate(start),
            "" | "." => out.truncate(start + 1),
            ".." => {
                let parent = out[..start].rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(if last { parent + 1 } else { parent });
            }
            written if is_dot_parameter(written) => return Err(PathError::DotParameter),
            _ => {}
        }
    }
    Ok(out)
}

fn push_segment(out: &mut String, segment: &[u8]) -> Result<(), PathError> {
    let mut bytes = segment.iter();
    while let Some(&byte) = bytes.next() {
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Dot => out.push(byte as char),
            Class::Escape => {
                let high = bytes.next().and_then(|&digit| hex(digit)).ok_or(PathError::BadEscape)?;
                let low = bytes.next().and_then(|&digit| hex(digit)).ok_or(PathError::BadEscape)?;
                push_decoded(out, high << 4 | low)?;
            }
            Class::Encode => out.push_str(percent_encode_byte(byte)),
            Class::Slash | Class::Refuse => return Err(PathError::InvalidByte),
        }
    }
    Ok(())
}

fn push_decoded(out: &mut String, byte: u8) -> Result<(), PathError> {
    match byte {
        0 | b'/' | b'\\' => return Err(PathError::RefusedEscape),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
        byte => out.push_str(percent_encode_byte(byte)),
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// `.` or `..` followed by `;`, raw or encoded; the escapes are already in upper case.
fn is_dot_parameter(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Plain,
    Slash,
    Dot,
    Escape,
    /// Printable or beyond ASCII, but may not stand in a path.
    Encode,
    Refuse,
}

/// RFC 3986, section 3.3: what `pchar` allows is plain.
static CLASS: [Class; 256] = {
    let mut table = [Class::Refuse; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = match byte {
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b'%' => Class::Escape,
            b'\\' | b'#' | b'?' => Class::Refuse,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
            _ => Class::Plain,
        };
        byte += 1;
    }
    let mut byte = 0x80;
    while byte < table.len() {
        table[byte] = Class::Encode;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
