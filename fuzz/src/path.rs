//! The path normaliser, against another one: decodes first, then folds segments from a list, and never looks back.

use flagstone::message::path::normalise;

/// Whatever is taken has one normal form, and it is the one that RFC 3986 gives it.
pub fn check(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let found = normalise(raw);
    let expected = reference(raw);
    match (&found, &expected) {
        (Ok(found), Some(expected)) => assert_eq!(found, expected, "{raw:?}"),
        (Err(_), None) => {}
        _ => panic!("{raw:?}: {found:?}, but {expected:?}"),
    }
    let Ok(normal) = found else { return };
    assert!(normal.starts_with('/') && normal.is_ascii() && !normal.contains("//"), "{raw:?}: {normal:?}");
    assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."), "{raw:?}: {normal:?}");
    assert_eq!(normalise(&normal).as_deref(), Ok(&*normal), "{raw:?} is not at rest");
    // What a decoder behind us makes of it leads nowhere else.
    let decoded = percent_decoded(&normal);
    assert_eq!(decoded.matches('/').count(), normal.matches('/').count(), "{raw:?}: {normal:?}");
}

/// `None` = refused.
fn reference(raw: &str) -> Option<String> {
    if !raw.starts_with('/') || raw.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || b"\\#?".contains(&byte)) {
        return None;
    }
    let mut kept: Vec<String> = Vec::new();
    let mut ends_in_slash = false;
    for segment in raw.split('/').skip(1) {
        let written = respelled(segment)?;
        ends_in_slash = matches!(written.as_str(), "" | "." | "..");
        match written.as_str() {
            "" | "." => {}
            ".." => drop(kept.pop()?),
            _ => {
                let stem = written.replace("%3B", ";");
                if stem.starts_with(".;") || stem.starts_with("..;") {
                    return None;
                }
                kept.push(written);
            }
        }
    }
    let mut path = kept.iter().map(|segment| format!("/{segment}")).collect::<String>();
    if ends_in_slash || path.is_empty() {
        path.push('/');
    }
    Some(path)
}

/// Every character in its one spelling.
fn respelled(segment: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = segment;
    while let Some(first) = rest.chars().next() {
        let (byte, is_escape, taken) = match rest.strip_prefix('%') {
            Some(digits) => {
                let digits = digits.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
                (u8::from_str_radix(digits, 16).ok()?, true, 3)
            }
            None => (u8::try_from(first).ok()?, false, 1),
        };
        rest = &rest[taken..];
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_allowed = is_unreserved || b"!$&'()*+,;=:@".contains(&byte);
        match byte {
            0 | b'/' | b'\\' if is_escape => return None,
            _ if is_unreserved || (is_allowed && !is_escape) => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    Some(out)
}

fn percent_decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        out.push(char::from(u8::from_str_radix(&rest[at + 1..at + 3], 16).expect("a normal path has whole escapes")));
        rest = &rest[at + 3..];
    }
    out + rest
}
