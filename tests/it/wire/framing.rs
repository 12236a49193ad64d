//! How long a body is: Content-Length, Transfer-Encoding, chunks.

use super::{Bench, Case, Cut, Forwarded, Refused, case};

/// Framing headers that no two parsers agree on. All heads are otherwise good.
const AMBIGUOUS: [(&str, &str); 58] = [
    ("length, then chunked", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
    ("chunked, then length", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
    ("length 0 with chunked", "Content-Length: 0\r\nTransfer-Encoding: chunked"),
    ("length with identity", "Content-Length: 5\r\nTransfer-Encoding: identity"),
    ("length with an unknown coding", "Content-Length: 5\r\nTransfer-Encoding: x"),
    ("two equal lengths", "Content-Length: 5\r\nContent-Length: 5"),
    ("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
    ("length and zero", "Content-Length: 5\r\nContent-Length: 0"),
    ("zero and length", "Content-Length: 0\r\nContent-Length: 5"),
    ("list of equal lengths", "Content-Length: 5, 5"),
    ("list of lengths", "Content-Length: 5, 6"),
    ("list without a space", "Content-Length: 5,5"),
    ("plus sign", "Content-Length: +5"),
    ("minus sign", "Content-Length: -5"),
    ("minus zero", "Content-Length: -0"),
    ("empty length", "Content-Length:"),
    ("blank length", "Content-Length: \t "),
    ("hexadecimal length", "Content-Length: 0x5"),
    ("hexadecimal digits", "Content-Length: a"),
    ("length with a fraction", "Content-Length: 5.0"),
    ("length with an exponent", "Content-Length: 5e0"),
    ("length with an underscore", "Content-Length: 1_0"),
    ("length with a blank inside", "Content-Length: 1 0"),
    ("length with words", "Content-Length: 5 bytes"),
    ("length with a semicolon", "Content-Length: 5;a=b"),
    ("quoted length", "Content-Length: \"5\""),
    ("length over 2^63", "Content-Length: 9223372036854775808"),
    ("length over 2^64", "Content-Length: 18446744073709551621"),
    ("length of twenty digits", "Content-Length: 00000000000000000005"),
    ("length of many digits", "Content-Length: 99999999999999999999999999999999"),
    ("length in other digits", "Content-Length: \u{0665}"),
    ("blank before the colon of a length", "Content-Length : 5"),
    ("tab before the colon of a length", "Content-Length\t: 5"),
    ("folded length", "Content-Length:\r\n 5"),
    ("length folded behind its value", "Content-Length: 5\r\n 6"),
    ("vertical tab in a length", "Content-Length: \x0b5"),
    ("form feed behind a length", "Content-Length: 5\x0c"),
    ("comma before chunked", "Transfer-Encoding: ,chunked"),
    ("comma behind chunked", "Transfer-Encoding: chunked,"),
    ("chunked and identity", "Transfer-Encoding: chunked, identity"),
    ("identity and chunked", "Transfer-Encoding: identity, chunked"),
    ("gzip and chunked", "Transfer-Encoding: gzip, chunked"),
    ("chunked twice", "Transfer-Encoding: chunked, chunked"),
    ("chunked on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("chunked and identity on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    ("identity and chunked on two lines", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    ("empty coding", "Transfer-Encoding:"),
    ("identity", "Transfer-Encoding: identity"),
    ("xchunked", "Transfer-Encoding: xchunked"),
    ("chunkedx", "Transfer-Encoding: chunkedx"),
    ("quoted chunked", "Transfer-Encoding: \"chunked\""),
    ("chunked with a parameter", "Transfer-Encoding: chunked;q=1"),
    ("vertical tab before chunked", "Transfer-Encoding: \x0bchunked"),
    ("form feed behind chunked", "Transfer-Encoding: chunked\x0c"),
    ("non-breaking space before chunked", "Transfer-Encoding: \u{a0}chunked"),
    ("blank before the colon of chunked", "Transfer-Encoding : chunked"),
    ("folded chunked", "Transfer-Encoding:\r\n chunked"),
    ("folded identity behind chunked", "Transfer-Encoding: chunked\r\n , identity"),
];

/// Chunked bodies that are malformed. All are refused although their head was good.
const BROKEN_CHUNKS: [(&str, &str); 30] = [
    ("size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("size with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("size with a minus", "-5\r\nhello\r\n0\r\n\r\n"),
    ("size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("blank behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("tab behind the size", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("blank before an extension", "5 ;a=b\r\nhello\r\n0\r\n\r\n"),
    ("empty size", "\r\nhello\r\n0\r\n\r\n"),
    ("extension without a size", ";a=b\r\nhello\r\n0\r\n\r\n"),
    ("size that is no number", "g\r\nhello\r\n0\r\n\r\n"),
    ("size with a NUL", "5\0\r\nhello\r\n0\r\n\r\n"),
    ("size over 2^64", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size of all ones", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("size with a bare LF", "5\nhello\r\n0\r\n\r\n"),
    ("size with a bare CR", "5\rhello\r\n0\r\n\r\n"),
    ("size with two CRs", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("extension with a bare LF", "5;a\nhello\r\n0\r\n\r\n"),
    ("extension with a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("extension with a NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("data longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
    ("data that ends in a bare LF", "5\r\nhello\n0\r\n\r\n"),
    ("data that ends in CR and no LF", "5\r\nhello\rX0\r\n\r\n"),
    ("data without an end of line", "5\r\nhello0\r\n\r\n"),
    ("last chunk with a bare LF", "5\r\nhello\r\n0\n\n"),
    ("bare LF behind the last chunk", "5\r\nhello\r\n0\r\n\n"),
    ("folded trailer", "5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer with a bare LF", "5\r\nhello\r\n0\r\nA: b\n\r\n"),
    ("trailer with a NUL", "5\r\nhello\r\n0\r\nA: b\0\r\n\r\n"),
    ("trailer that starts with a blank", "5\r\nhello\r\n0\r\n A: b\r\n\r\n"),
];

fn chunked(body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_nothing_of_it_forwarded() {
    let bench = Bench::start().await;
    let bodies = ["hello", "5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n"];
    let mut cases: Vec<Case> = Vec::new();
    for (index, (name, field)) in AMBIGUOUS.iter().enumerate() {
        let body = bodies[index % bodies.len()];
        cases.push(case(*name, format!("POST /a HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{body}"), Refused(400)));
        cases.push(case(
            format!("{name}, in a GET"),
            format!("GET /a HTTP/1.1\r\n{field}\r\nHost: a\r\n\r\n"),
            Refused(400),
        ));
    }
    let http10 = "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    cases.push(case("HTTP/1.0 with chunked", http10, Refused(400)));
    bench.play(cases).await;
}

#[tokio::test]
async fn a_broken_chunk_never_completes_a_request() {
    let bench = Bench::start().await;
    let mut cases: Vec<Case> = BROKEN_CHUNKS.iter().map(|(name, body)| case(*name, chunked(body), Cut)).collect();
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(20_000));
    cases.push(case("huge extension", chunked(&extension), Cut));
    let trailers = format!("5\r\nhello\r\n0\r\n{}\r\n", "A: b\r\n".repeat(20_000));
    cases.push(case("huge trailers", chunked(&trailers), Cut));
    bench.play(cases).await;
}

#[tokio::test]
async fn good_framing_passes_in_one_form() {
    let bench = Bench::start().await;
    let line = "POST /a HTTP/1.1";
    bench
        .play(vec![
            case("no body", "POST /a HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(line, "")),
            case("length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Forwarded(line, "hello")),
            case(
                "leading zeros",
                "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello",
                Forwarded(line, "hello"),
            ),
            case(
                "blanks around",
                "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \t\r\n\r\nhello",
                Forwarded(line, "hello"),
            ),
            case("length zero", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Forwarded(line, "")),
            case("chunks", chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), Forwarded(line, "hello")),
            case("upper-case size", chunked("A\r\n0123456789\r\n0\r\n\r\n"), Forwarded(line, "0123456789")),
            case("size with zeros", chunked("0005\r\nhello\r\n000\r\n\r\n"), Forwarded(line, "hello")),
            case("extensions", chunked("5;a=b;c=\"d e\"\r\nhello\r\n0;last\r\n\r\n"), Forwarded(line, "hello")),
            case("no data", chunked("0\r\n\r\n"), Forwarded(line, "")),
            case("trailers", chunked("5\r\nhello\r\n0\r\nA: b\r\n\r\n"), Forwarded(line, "hello")),
            case(
                "mixed case",
                "POST /a HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                Forwarded(line, "hello"),
            ),
            case(
                "a length that Connection names",
                "POST /a HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
                Forwarded(line, "hello"),
            ),
            case(
                "a body on GET",
                "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                Forwarded("GET /a HTTP/1.1", "hello"),
            ),
        ])
        .await;
}
