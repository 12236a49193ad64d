//! One line of a head or of trailers: a name, a colon, a value (RFC 9112, section 5).

/// Writes it with its end.
#[inline]
pub(crate) fn write(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.reserve(name.len() + value.len() + 4);
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}
