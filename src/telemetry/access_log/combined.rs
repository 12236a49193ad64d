//! nginx's `combined` format, byte for byte:
//! `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"`.
//!
//! Escaping is nginx's default (`ngx_http_log_escape`): bytes below 32 and above 126, `"` and `\` become
//! `\xHH` in upper case; a variable that is not there is `-`, one that is there and empty is empty.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::line::{Line, masked, version_text};
use crate::message::ip_text::IpText;
use crate::telemetry::clock::Stamp;

/// A user name of more than this many base64 characters is shown as `-` rather than decoded.
const CREDENTIALS_MAX: usize = 512;

/// Appends `line` and its newline.
pub(super) fn write(out: &mut Vec<u8>, line: &Line<'_>, stamp: &mut Stamp) {
    client(out, line);
    out.extend_from_slice(b" - ");
    user(out, line.authorization);
    out.extend_from_slice(b" [");
    out.extend_from_slice(stamp.local(line.unix_ms));
    out.extend_from_slice(b"] \"");
    request(out, line);
    out.extend_from_slice(b"\" ");
    let mut number = itoa::Buffer::new();
    out.extend_from_slice(number.format(line.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(number.format(line.body_bytes).as_bytes());
    out.extend_from_slice(b" \"");
    match line.referer {
        Some(referer) => masked(referer).for_each(|piece| escape(out, piece)),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" \"");
    match line.user_agent {
        Some(agent) => escape(out, agent),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\"\n");
}

/// `$request`.
fn request(out: &mut Vec<u8>, line: &Line<'_>) {
    if !line.method.is_empty() {
        escape(out, line.method.as_bytes());
        out.push(b' ');
    }
    for piece in masked(line.target) {
        escape(out, piece);
    }
    if !line.method.is_empty() {
        out.push(b' ');
        out.extend_from_slice(version_text(line.version).as_bytes());
    }
}

/// `$remote_addr`.
pub(super) fn client(out: &mut Vec<u8>, line: &Line<'_>) {
    match line.client {
        Some(ip) => out.extend_from_slice(IpText::new(ip).as_bytes()),
        None => out.extend_from_slice(b"unix:"),
    }
}

/// `$remote_user`: what stands before the colon in `Basic` credentials, else `-`.
fn user(out: &mut Vec<u8>, authorization: Option<&[u8]>) {
    // Most have none, and no need of room to decode it.
    let Some(authorization) = authorization else { return out.push(b'-') };
    let mut decoded = [0; CREDENTIALS_MAX];
    match basic_user(authorization, &mut decoded) {
        Some(user) if !user.is_empty() => escape(out, user),
        _ => out.push(b'-'),
    }
}

/// RFC 7617, read as `ngx_http_auth_basic_user` reads it: credentials without a colon name nobody.
fn basic_user<'b>(value: &[u8], decoded: &'b mut [u8; CREDENTIALS_MAX]) -> Option<&'b [u8]> {
    let (scheme, credentials) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || credentials.len() > CREDENTIALS_MAX {
        return None;
    }
    let decoded_len = STANDARD.decode_slice(credentials.trim_ascii(), decoded).ok()?;
    let colon = memchr::memchr(b':', &decoded[..decoded_len])?;
    Some(&decoded[..colon])
}

/// Appends `bytes` with nginx's escaping.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nearly every value is clean: the scan has no branches, so that it compiles to vector instructions.
    if !bytes.iter().fold(false, |dirty, &b| dirty | must_escape(b)) {
        out.extend_from_slice(bytes);
        return;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if must_escape(byte) {
            let escaped = [b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(&escaped);
        } else {
            out.push(byte);
        }
    }
}

fn must_escape(byte: u8) -> bool {
    !(32..=126).contains(&byte) | (byte == b'"') | (byte == b'\\')
}
