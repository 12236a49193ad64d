//! One JSON object a line, every field always there, `null` where there is nothing to say. Only `trace_id` is there or
//! not: it comes last, while tracing is on.
//!
//! Written by hand rather than through serde: the values are bytes, not always UTF-8, and a line allocates nothing.
//! Invalid UTF-8 becomes U+FFFD. Control characters (C0, DEL and C1) and the line separators U+2028 and
//! U+2029 are escaped, so that a line can be shown on a terminal and is one line to every reader.

use std::time::Duration;

use super::combined;
use super::line::{Line, masked, version_text};
use crate::telemetry::clock::Stamp;

/// Appends `line` and its newline.
pub(super) fn write(out: &mut Vec<u8>, line: &Line<'_>, stamp: &mut Stamp) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp.rfc3339(line.unix_ms));
    out.extend_from_slice(b"\",\"client\":\"");
    combined::client(out, line);
    out.extend_from_slice(b"\",\"method\":");
    let is_read = !line.method.is_empty();
    string(out, is_read.then_some(line.method.as_bytes()));
    out.extend_from_slice(b",\"target\":");
    url(out, Some(line.target));
    out.extend_from_slice(b",\"version\":");
    string(out, is_read.then(|| version_text(line.version).as_bytes()));
    out.extend_from_slice(b",\"status\":");
    number(out, u64::from(line.status));
    out.extend_from_slice(b",\"bytes\":");
    number(out, line.body_bytes);
    out.extend_from_slice(b",\"duration_ms\":");
    milliseconds(out, Some(line.duration));
    out.extend_from_slice(b",\"upstream\":");
    string(out, line.upstream.map(str::as_bytes));
    out.extend_from_slice(b",\"endpoint\":");
    string(out, line.endpoint.map(str::as_bytes));
    out.extend_from_slice(b",\"upstream_ms\":");
    milliseconds(out, line.upstream_duration);
    out.extend_from_slice(b",\"route\":");
    string(out, line.route.map(str::as_bytes));
    out.extend_from_slice(b",\"reason\":");
    string(out, line.reason.map(str::as_bytes));
    out.extend_from_slice(b",\"request_id\":");
    string(out, line.request_id.map(str::as_bytes));
    out.extend_from_slice(b",\"referer\":");
    url(out, line.referer);
    out.extend_from_slice(b",\"agent\":");
    string(out, line.user_agent);
    out.extend_from_slice(b",\"host\":");
    string(out, line.host);
    if let Some(trace_id) = &line.trace_id {
        out.extend_from_slice(b",\"trace_id\":");
        string(out, Some(trace_id));
    }
    out.extend_from_slice(b"}\n");
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals, such as `12.345`.
fn milliseconds(out: &mut Vec<u8>, duration: Option<Duration>) {
    let Some(duration) = duration else {
        return out.extend_from_slice(b"null");
    };
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    let rest = (micros % 1000) as u16;
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

fn string(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        return out.extend_from_slice(b"null");
    };
    out.push(b'"');
    escape(out, value);
    out.push(b'"');
}

fn url(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        return out.extend_from_slice(b"null");
    };
    out.push(b'"');
    masked(value).for_each(|piece| escape(out, piece));
    out.push(b'"');
}

/// Appends `bytes` as the inside of a JSON string (RFC 8259 section 7).
pub(in crate::telemetry) fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.iter().fold(false, |dirty, &b| dirty | !(32..=126).contains(&b) | (b == b'"') | (b == b'\\')) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            character(out, c);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn character(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\u{2028}' | '\u{2029}' => unicode_escape(out, c as u32),
        c if c.is_control() => unicode_escape(out, c as u32),
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// `\u` and four hex digits; `code` is below 0x10000 for everything that is escaped here.
fn unicode_escape(out: &mut Vec<u8>, code: u32) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[(code >> shift & 15) as usize]);
    }
}
