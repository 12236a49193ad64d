//! Request lines, header lines and hosts.

use super::{Bench, Case, Forwarded, Refused, case};

/// Whole heads that are refused.
const MALFORMED: [(&str, &[u8]); 65] = [
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("bare LF behind a header", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    ("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare LF before the empty line", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n"),
    ("bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two CRs", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    ("folded header", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"),
    ("header folded with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\tc\r\n\r\n"),
    ("first header starts with a blank", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("blank before a colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("blank in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n"),
    ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nABC\r\n\r\n"),
    ("empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA\0B: c\r\n\r\n"),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n"),
    ("control byte in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x01c\r\n\r\n"),
    ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x7fc\r\n\r\n"),
    ("byte beyond ASCII in a name", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\x84: b\r\n\r\n"),
    ("parenthesis in a name", b"GET / HTTP/1.1\r\nHost: a\r\nA(b): c\r\n\r\n"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two equal Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("Host with a blank", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    ("Host with two ports", b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    ("Host with an escape", b"GET / HTTP/1.1\r\nHost: a%2fb\r\n\r\n"),
    ("Host with a broken bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    ("Host unlike the authority", b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    ("authority and no Host", b"GET http://a/ HTTP/1.1\r\n\r\n"),
    ("authority with a user", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("HTTP/0.9", b"GET /\r\n\r\n"),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/3", b"GET / HTTP/3\r\nHost: a\r\n\r\n"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("HTTP/01.1", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    ("HTTP/1.", b"GET / HTTP/1.\r\nHost: a\r\n\r\n"),
    ("lower-case http", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("another protocol", b"GET / ICY/1.1\r\nHost: a\r\n\r\n"),
    ("words behind the version", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"),
    ("blank behind the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("blank before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two blanks before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two blanks before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tabs for blanks", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no method", b"/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("method with a separator", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("method with a control byte", b"GE\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    ("something like the preface of HTTP/2", b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("the preface of HTTP/2, later", b"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n"),
    ("the beginning of a TLS hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
    ("a single bare LF", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("LF and CR the wrong way round", b"GET / HTTP/1.1\n\rHost: a\n\r\n\r"),
    ("many empty lines", b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("Host in a folded request line", b"GET / HTTP/1.1\r\n\tx\r\nHost: a\r\n\r\n"),
];

#[tokio::test]
async fn a_malformed_head_is_refused_and_nothing_of_it_forwarded() {
    let bench = Bench::start().await;
    let cases: Vec<Case> = MALFORMED.iter().map(|(name, bytes)| case(*name, bytes, Refused(400))).collect();
    bench.play(cases).await;
}

#[tokio::test]
async fn a_malformed_head_in_pieces_is_refused_the_same() {
    let bench = Bench::start().await;
    for piece in [1, 7] {
        bench
            .play_in_pieces(MALFORMED.iter().map(|(name, bytes)| case(*name, bytes, Refused(400))).collect(), piece)
            .await;
    }
}

#[tokio::test]
async fn unusual_but_clear_heads_pass() {
    let bench = Bench::start().await;
    let line = "GET / HTTP/1.1";
    bench
        .play(vec![
            case("empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(line, "")),
            case("mixed-case Host", "GET / HTTP/1.1\r\nHOST: ExAmPlE.com\r\n\r\n", Forwarded(line, "")),
            case("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Forwarded(line, "")),
            case("absolute form", "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded("GET /b?c HTTP/1.1", "")),
            case(
                "absolute form, port",
                "GET http://a:80/b HTTP/1.1\r\nHost: a\r\n\r\n",
                Forwarded("GET /b HTTP/1.1", ""),
            ),
            case("absolute form, no path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded(line, "")),
            case("unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Forwarded("BREW / HTTP/1.1", "")),
            case("IPv6 Host", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Forwarded(line, "")),
            case("no blank behind a colon", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", Forwarded(line, "")),
            case("empty value", "GET / HTTP/1.1\r\nHost: a\r\nA:\r\n\r\n", Forwarded(line, "")),
            case("bytes beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nA: \xc3\xa9\xff\r\n\r\n", Forwarded(line, "")),
        ])
        .await;
}
