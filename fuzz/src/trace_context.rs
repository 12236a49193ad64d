//! The trace of a request: whatever came, what goes on is one well-formed `traceparent`, of the same trace or of a new
//! one.

use flagstone::message::trace_context::{TRACEPARENT, TraceContext};
use http::{HeaderMap, HeaderValue};

/// Lines are values of `traceparent`. Read by hand, position by position, they must mean the same.
pub fn check(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').take(3) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(TRACEPARENT, value);
        }
    }
    let found = TraceContext::of(&headers);
    let lines: Vec<_> = headers.get_all(TRACEPARENT).iter().collect();
    let expected = match lines.as_slice() {
        [line] => read(line.as_bytes()),
        _ => None,
    };
    assert_eq!(found.map(|context| context.to_string()), expected, "{lines:?}");
    if let Some(context) = found {
        assert_eq!(TraceContext::parse(context.value().as_bytes()), Some(context), "what is written is read again");
        assert_eq!(std::str::from_utf8(&context.trace_id_text()).ok(), Some(&context.to_string()[3..35]));
        let child = context.child(7);
        assert_eq!((child.trace_id(), child.is_sampled()), (context.trace_id(), context.is_sampled()));
    }
}

/// What version 00 says of it (W3C Trace Context, section 3.2).
fn read(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let is_hexadecimal = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else { return None };
    let lengths = [(version, 2), (trace, 32), (span, 16), (flags, 2)];
    let is_good = lengths.iter().all(|(part, length)| is_hexadecimal(part, *length))
        && *version != "ff"
        && (*version != "00" || rest.is_empty())
        && trace.bytes().any(|byte| byte != b'0')
        && span.bytes().any(|byte| byte != b'0');
    let flags = u8::from_str_radix(flags, 16).ok()? & 3;
    is_good.then(|| format!("00-{trace}-{span}-{flags:02x}"))
}
