//! Request targets: one reading, or none.

use super::{Bench, Case, Forwarded, Refused, case};

const REFUSED: [&str; 36] = [
    "/..",
    "/../etc/passwd",
    "/a/../../b",
    "/%2e%2e/a",
    "/a/%2E%2e/%2e%2E/b",
    "/a%2fb",
    "/a%2Fb",
    "/..%2fadmin",
    "/a%5cb",
    "/..%5Cadmin",
    "/a\\b",
    "/..\\admin",
    "/a%00",
    "/a%00.html",
    "/..;/admin",
    "/a/..;/admin",
    "/a/..;x=1/b",
    "/a/.;/admin",
    "/a/%2e%2e;/admin",
    "/a/..%3b/admin",
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%u002e",
    "/a#b",
    "/a#/../b",
    "/a?b#c",
    "a",
    "a/b",
    "*",
    "http://",
    "http:///a",
    "//\\a",
    "?a=b",
    "/a\x01b",
    "/a\x7fb",
];

const NORMALISED: [(&str, &str); 20] = [
    ("//", "/"),
    ("//a", "/a"),
    ("//evil.example/x", "/evil.example/x"),
    ("/a//b", "/a/b"),
    ("/a/./b", "/a/b"),
    ("/a/../b", "/b"),
    ("/static/../admin", "/admin"),
    ("/static/%2e%2e/admin", "/admin"),
    ("/static/.%2E/admin", "/admin"),
    ("/%61dmin", "/admin"),
    ("/a%20b", "/a%20b"),
    ("/a%3bb", "/a%3Bb"),
    ("/%252e%252e/a", "/%252e%252e/a"),
    ("/a;v=1/b", "/a;v=1/b"),
    ("/x..;/y", "/x..;/y"),
    ("/.well-known/x", "/.well-known/x"),
    ("/a?x=/../b", "/a?x=/../b"),
    ("/a?x=%2f%00&&y", "/a?x=%2f%00&&y"),
    ("/a?", "/a?"),
    ("/a/../b?c=d", "/b?c=d"),
];

#[tokio::test]
async fn a_target_with_two_readings_is_refused() {
    let bench = Bench::start().await;
    let mut cases: Vec<Case> = REFUSED
        .iter()
        .map(|target| case(*target, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), Refused(400)))
        .collect();
    cases.push(case("bytes that are no text", b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)));
    bench.play(cases).await;
}

#[tokio::test]
async fn what_is_forwarded_is_the_normal_form() {
    let bench = Bench::start().await;
    for (target, forwarded) in NORMALISED {
        let line: &'static str = String::leak(format!("GET {forwarded} HTTP/1.1"));
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        bench.play(vec![case(target, bytes, Forwarded(line, ""))]).await;
    }
}
