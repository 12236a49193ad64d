//! In which form and language an answer that is made here is given.
//!
//! Browsers say `text/html`, API clients say JSON, `curl` says `*/*` or nothing. So HTML and JSON are chosen only
//! when they are named (or by `application/*`), and text is what everyone can read. Nobody is answered with 406.

use smallvec::SmallVec;

/// The kind of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Html,
    /// `application/problem+json` (RFC 9457).
    Json,
    Text,
    /// No body: status and message travel in `grpc-status` and `grpc-message`.
    Grpc,
}

/// What the type of each call of gRPC begins with.
const GRPC: &[u8] = b"application/grpc";

/// The greatest quality, 1.000.
const QUALITY_MAX: u16 = 1000;

/// Language ranges looked at in one request; more are ignored.
const RANGES_MAX: usize = 32;

/// What the client can read best, by the values of its `Content-Type` and `Accept`.
///
/// gRPC goes by `Content-Type`. Otherwise the greatest quality in `Accept` wins, then the one named over `*/*`, then
/// the one named first.
pub fn kind<'a>(content_type: Option<&[u8]>, accept: impl IntoIterator<Item = &'a [u8]>) -> Kind {
    if content_type.is_some_and(|value| starts_with(value, GRPC)) {
        return Kind::Grpc;
    }
    let mut best = (Kind::Text, 0, true);
    for (range, quality) in weighted(accept) {
        let Some((kind, named)) = kind_of_range(range) else {
            continue;
        };
        if (quality, named) > (best.1, best.2) {
            best = (kind, quality, named);
        }
    }
    best.0
}

/// The media type of a call of gRPC, by the value of its `Content-Type`: that of the answer, too. Clients of
/// `application/grpc-web+proto`, say, take what has another one for no answer at all.
pub fn grpc_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a call of this `Content-Type` is one of gRPC, which reads its status in trailers; one of gRPC-Web reads it in
/// the body.
pub fn reads_trailers(content_type: &[u8]) -> bool {
    let own = grpc_type(content_type);
    starts_with(own, GRPC) && matches!(own.get(GRPC.len()), None | Some(b'+'))
}

/// The index of the tag that suits the client best, by lookup (RFC 4647, section 3.4) of the values of its
/// `Accept-Language`: `de-CH` finds `de`, `de` does not find `de-CH`. `None` = nothing suits, or the client does not
/// mind: take the default.
pub fn language<'a, S: AsRef<str>>(accept_language: impl IntoIterator<Item = &'a [u8]>, tags: &[S]) -> Option<usize> {
    if tags.is_empty() {
        return None;
    }
    let mut ranges: SmallVec<[(&[u8], u16); 8]> =
        weighted(accept_language).filter(|&(_, quality)| quality > 0).take(RANGES_MAX).collect();
    // Stable: equal qualities stay in the client's order.
    ranges.sort_by_key(|&(_, quality)| QUALITY_MAX - quality);
    ranges.into_iter().find_map(|(range, _)| look_up(range, tags))
}

/// What a media range asks for, and whether by name.
fn kind_of_range(range: &[u8]) -> Option<(Kind, bool)> {
    let is = |name: &str| range.eq_ignore_ascii_case(name.as_bytes());
    if is("*/*") {
        return Some((Kind::Text, false));
    }
    if is("text/html") || is("application/xhtml+xml") {
        return Some((Kind::Html, true));
    }
    if is("text/plain") || is("text/*") {
        return Some((Kind::Text, true));
    }
    let json = is("application/json")
        || is("application/*")
        || (starts_with(range, b"application/") && ends_with(range, b"+json"));
    json.then_some((Kind::Json, true))
}

fn look_up<S: AsRef<str>>(range: &[u8], tags: &[S]) -> Option<usize> {
    let mut range = range;
    loop {
        if let Some(found) = tags.iter().position(|tag| tag.as_ref().as_bytes().eq_ignore_ascii_case(range)) {
            return Some(found);
        }
        let mut end = range.iter().rposition(|&byte| byte == b'-')?;
        // A single letter or digit goes with what it introduces.
        if end >= 2 && range[end - 2] == b'-' {
            end -= 2;
        }
        range = &range[..end];
    }
}

/// The items of a list field over all its lines with their qualities, in thousandths.
fn weighted<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a [u8], u16)> {
    lines.into_iter().flat_map(|line| line.split(|&byte| byte == b',')).filter_map(weighted_item)
}

/// An item whose quality makes no sense is left out.
fn weighted_item(item: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let value = parts.next().filter(|value| !value.is_empty())?;
    for part in parts {
        if let [b'q' | b'Q', b'=', digits @ ..] = part {
            return Some((value, quality(digits)?));
        }
    }
    Some((value, QUALITY_MAX))
}

/// `0` to `1` with up to three decimals (RFC 9110, section 12.4.2), in thousandths.
fn quality(text: &[u8]) -> Option<u16> {
    let (&whole, rest) = text.split_first()?;
    let decimals = match rest {
        [] => rest,
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    if !whole.is_ascii_digit() || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut thousandths = u16::from(whole - b'0') * 1000;
    for (digit, place) in decimals.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit - b'0') * place;
    }
    (thousandths <= QUALITY_MAX).then_some(thousandths)
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text.len() >= end.len() && text[text.len() - end.len()..].eq_ignore_ascii_case(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepting(lines: &[&str]) -> Kind {
        kind(None, lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn clients_get_what_they_name() {
        let cases: &[(&[&str], Kind)] = &[
            (&[], Kind::Text),
            (&["*/*"], Kind::Text),
            (&[""], Kind::Text),
            (&["image/avif,image/webp,*/*;q=0.8"], Kind::Text),
            // Browsers.
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"], Kind::Html),
            // axios and jQuery.
            (&["application/json, text/plain, */*"], Kind::Json),
            (&["application/json, text/javascript, */*; q=0.01"], Kind::Json),
            (&["*/*, application/json"], Kind::Json),
            (&["application/problem+json"], Kind::Json),
            (&["Application/VND.api+JSON;charset=utf-8"], Kind::Json),
            (&["application/*"], Kind::Json),
            (&["text/plain, text/html"], Kind::Text),
            (&["text/*"], Kind::Text),
            // Qualities.
            (&["text/html;q=0.5, application/json"], Kind::Json),
            (&["text/html; q=0.5", "application/json; q=0.4"], Kind::Html),
            (&["text/html;q=0"], Kind::Text),
            (&["text/html;q=0, application/json;q=0.001"], Kind::Json),
            (&["text/html;q=2, application/json;q=0.1"], Kind::Json),
            (&["text/html;q=x"], Kind::Text),
            (&["text/html;level=1;q=0.7, application/json;q=0.8"], Kind::Json),
            (&["image/png"], Kind::Text),
        ];
        for (lines, expected) in cases {
            assert_eq!(accepting(lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn grpc_goes_by_content_type() {
        for value in ["application/grpc", "application/grpc+proto", "Application/gRPC; x", "application/grpc-web"] {
            assert_eq!(kind(Some(value.as_bytes()), [&b"text/html"[..]]), Kind::Grpc, "{value}");
        }
        assert_eq!(kind(Some(b"application/json"), []), Kind::Text);
    }

    #[test]
    fn the_type_of_a_call_is_without_its_parameters() {
        for (value, expected) in [
            ("application/grpc", "application/grpc"),
            ("application/grpc-web+proto", "application/grpc-web+proto"),
            ("application/grpc-web-text ; charset=utf-8; x=1", "application/grpc-web-text"),
        ] {
            assert_eq!(grpc_type(value.as_bytes()), expected.as_bytes(), "{value}");
        }
    }

    #[test]
    fn only_grpc_itself_reads_trailers() {
        for (value, reads) in [
            ("application/grpc", true),
            ("Application/gRPC+proto; x=1", true),
            ("application/grpc ;x", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(reads_trailers(value.as_bytes()), reads, "{value}");
        }
    }

    #[test]
    fn languages_are_looked_up_by_quality_then_order() {
        let tags = ["en", "de", "pt-BR", "zh-Hant"];
        let cases: &[(&str, Option<usize>)] = &[
            ("de", Some(1)),
            ("DE-at, en;q=0.9", Some(1)),
            ("en;q=0.3, de;q=0.7", Some(1)),
            ("fr, en", Some(0)),
            ("pt-br", Some(2)),
            ("pt", None),
            ("zh-Hant-CN-x-private", Some(3)),
            ("fr", None),
            ("*", None),
            ("*, de;q=0.5", Some(1)),
            ("de;q=0, en;q=0.1", Some(0)),
            ("", None),
            ("-", None),
            ("--", None),
        ];
        for (value, expected) in cases {
            assert_eq!(language([value.as_bytes()], &tags), *expected, "{value}");
        }
        assert_eq!(language::<&str>([&b"de"[..]], &[]), None);
    }

    #[test]
    fn qualities_are_thousandths_up_to_one() {
        let cases: &[(&str, Option<u16>)] = &[
            ("1", Some(1000)),
            ("1.", Some(1000)),
            ("1.000", Some(1000)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
            ("0", Some(0)),
            ("1.001", None),
            ("0.1234", None),
            ("9", None),
            ("", None),
            (".5", None),
            ("-1", None),
            ("0,5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(quality(text.as_bytes()), *expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_an_answer(value in "[ -~]{0,60}") {
            accepting(&[&value]);
            language([value.as_bytes()], &["en", "de"]);
        }
    }
}
