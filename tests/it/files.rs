//! `files = { … }`: static sites, and no way out of their root.

use std::os::unix::fs::symlink;

use crate::support::client::{Client, RawResponse};
use crate::support::files::Folder;
use crate::support::h2::{self, Framed, flag, frame, kind};
use crate::support::proxy::TestProxy;

/// A site in `site/`, a secret beside it.
fn site() -> Folder {
    let folder = Folder::new();
    folder.write("site/index.html", "<p>home");
    folder.write("site/numbers.txt", "0123456789");
    folder.write("site/nothing.txt", "");
    folder.write("site/docs/index.html", "<p>docs");
    folder.write("site/empty/.keep", "");
    folder.write("site/with space/ä.txt", "umlaut");
    folder.write("secret.txt", "secret");
    folder.write("site-secret/secret.txt", "secret");
    symlink(folder.join("secret.txt"), folder.join("site/out.txt")).unwrap();
    symlink("../secret.txt", folder.join("site/out-relative.txt")).unwrap();
    symlink(folder.join("site-secret"), folder.join("site/out")).unwrap();
    symlink("numbers.txt", folder.join("site/in.txt")).unwrap();
    symlink("docs", folder.join("site/manual")).unwrap();
    folder.fifo("site/pipe");
    folder
}

async fn proxy(keys: &str) -> TestProxy {
    let toml = format!("[[route]]\nname = \"site\"\nfiles = {{ root = \"site\"{keys} }}\n");
    TestProxy::toml(toml).in_folder(site()).start().await
}

async fn ask(proxy: &TestProxy, method: &str, path: &str, headers: &str) -> RawResponse {
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request(method, path, &format!("{headers}Connection: close\r\n")).await.unwrap();
    if method == "HEAD" { client.read_head_response().await.unwrap() } else { client.read_response().await.unwrap() }
}

async fn get(proxy: &TestProxy, path: &str) -> RawResponse {
    ask(proxy, "GET", path, "").await
}

#[tokio::test]
async fn files_and_indexes_are_served_with_their_type() {
    let proxy = proxy("").await;
    for (path, body, kind) in [
        ("/", "<p>home", "text/html"),
        ("/index.html", "<p>home", "text/html"),
        ("/numbers.txt", "0123456789", "text/plain"),
        ("/docs/", "<p>docs", "text/html"),
        ("/with%20space/%C3%A4.txt", "umlaut", "text/plain"),
        ("/./docs/../numbers.txt?x=y", "0123456789", "text/plain"),
        ("//numbers.txt", "0123456789", "text/plain"),
    ] {
        let answer = get(&proxy, path).await;
        assert_eq!((answer.status, answer.text()), (200, body.into()), "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}: {answer:?}");
    }
    for path in ["/gone", "/empty/", "/numbers.txt/", "/numbers.txt/more", "/pipe", "/docs/gone/"] {
        let answer = get(&proxy, path).await;
        assert_eq!((answer.status, answer.header("flagstone-reason")), (404, Some("no_route")), "{path}");
    }
}

#[tokio::test]
async fn a_release_is_put_in_place_by_its_link() {
    let folder = Folder::new();
    folder.write("one/index.html", "one");
    folder.write("two/index.html", "two");
    symlink("one", folder.join("site")).unwrap();
    let toml = "[[route]]\nname = \"site\"\nfiles = { root = \"site\" }\n";
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    assert_eq!(get(&proxy, "/").await.text(), "one");
    symlink("two", proxy.folder.join("next")).unwrap();
    std::fs::rename(proxy.folder.join("next"), proxy.folder.join("site")).unwrap();
    assert_eq!(get(&proxy, "/").await.text(), "two");
    std::fs::remove_dir_all(proxy.folder.join("one")).unwrap();
    assert_eq!(get(&proxy, "/").await.text(), "two");
    std::fs::remove_file(proxy.folder.join("site")).unwrap();
    assert_eq!(get(&proxy, "/").await.status, 404);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_breaks_off() {
    let folder = Folder::new();
    folder.write("site/large", "");
    let file = std::fs::OpenOptions::new().write(true).open(folder.join("site/large")).unwrap();
    file.set_len(64 << 20).unwrap();
    let toml = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n\
                [[route]]\nname = \"site\"\nfiles = { root = \"site\" }\n";
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.request("GET", "/large", "").await.unwrap();
    client.read_exactly(1000).await.unwrap();
    file.set_len(1 << 20).unwrap();
    assert!(client.read_to_end().await.unwrap().len() < 64 << 20);
    let line: serde_json::Value = serde_json::from_str(&proxy.log_line("/large").await).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"upstream_error".into()), "{line}");
}

/// The end of a stream is no proof of a whole answer, as its client may not count.
#[tokio::test]
async fn over_http2_a_file_that_changes_while_it_is_sent_is_as_long_as_was_said_or_breaks_off() {
    const SAID: u64 = 1 << 20;
    let folder = Folder::new();
    folder.write("site/index.html", "");
    let file = std::fs::OpenOptions::new().write(true).open(folder.join("site/index.html")).unwrap();
    let toml = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n\
                [[route]]\nname = \"site\"\nfiles = { root = \"site\" }\n";
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    for (becomes, is_whole) in [(SAID + 1, true), (SAID / 2, false)] {
        file.set_len(SAID).unwrap();
        let mut client = Framed::connect(proxy.address()).await;
        client.send(&h2::request(1, flag::END_STREAM)).await;
        client.find(|frame| frame.kind == kind::HEADERS).await.expect("an answer");
        file.set_len(becomes).unwrap();
        for stream in [0, 1] {
            client.send(&frame(kind::WINDOW_UPDATE, 0, stream, (2 * SAID as u32).to_be_bytes())).await;
        }
        let (mut bytes, mut last) = (0, None);
        while last.is_none() {
            let frame = client.read().await.expect("an end");
            bytes += if frame.kind == kind::DATA { frame.payload.len() as u64 } else { 0 };
            last = Some(frame).filter(|frame| frame.kind == kind::RST_STREAM || frame.is(kind::DATA, flag::END_STREAM));
        }
        assert_eq!((bytes == SAID, last.unwrap().kind == kind::DATA), (is_whole, is_whole), "{becomes}: {bytes}");
        let line: serde_json::Value = serde_json::from_str(&proxy.log_line("\"GET\"").await).unwrap();
        assert_eq!(line["reason"] == "upstream_error", !is_whole, "{line}");
        std::fs::write(proxy.folder.join("access.log"), "").unwrap();
    }
}

#[tokio::test]
async fn a_folder_without_its_slash_is_sent_there() {
    let proxy = proxy("").await;
    let answer = get(&proxy, "/docs?a=b").await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("/docs/?a=b")));
    assert_eq!(get(&proxy, "/empty").await.status, 404);
}

#[tokio::test]
async fn there_is_no_way_out_of_the_root() {
    let proxy = proxy("").await;
    for path in [
        "/../secret.txt",
        "/docs/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/%2e%2e/%2E%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%252e%252e/secret.txt",
        "/..;/secret.txt",
        "/secret.txt%00.html",
        "/out.txt",
        "/out-relative.txt",
        "/out/secret.txt",
        "/../site-secret/secret.txt",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/etc/passwd",
    ] {
        let answer = get(&proxy, path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(
            !answer.text().contains("secret\n") && answer.text() != "secret" && !answer.text().contains("root:"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn links_within_the_root_are_followed() {
    let proxy = proxy("").await;
    assert_eq!(get(&proxy, "/in.txt").await.text(), "0123456789");
    assert_eq!(get(&proxy, "/manual/").await.text(), "<p>docs");
}

#[tokio::test]
async fn ranges_are_served() {
    let proxy = proxy("").await;
    let whole = get(&proxy, "/numbers.txt").await;
    assert_eq!((whole.header("accept-ranges"), whole.header("content-length")), (Some("bytes"), Some("10")));
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("bytes=0-99999999999999999999", "0123456789", "bytes 0-9/10"),
        ("Bytes=02-4", "234", "bytes 2-4/10"),
    ] {
        let part = ask(&proxy, "GET", "/numbers.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!(
            (part.status, part.text(), part.header("content-range")),
            (206, body.into(), Some(content_range)),
            "{range}"
        );
    }
    for range in ["bytes=10-", "bytes=20-30", "bytes=-0", "bytes=99999999999999999999-"] {
        let beyond = ask(&proxy, "GET", "/numbers.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")), "{range}");
        assert!(beyond.body.is_empty(), "{range}");
    }
}

/// A server may ignore any range, and what it does not understand it must (RFC 9110, sections 14.2 and 14.1.1).
#[tokio::test]
async fn ranges_that_are_none_get_the_whole_file() {
    let proxy = proxy("").await;
    for range in ["lines=1-2", "bytes=5-2", "bytes=a-b", "bytes=", "bytes=-", "bytes", "bytes=0-1,4-5", "bytes=0-1-2"] {
        let whole = ask(&proxy, "GET", "/numbers.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((whole.status, whole.text()), (200, "0123456789".into()), "{range}");
        assert_eq!(whole.header("content-range"), None, "{range}");
    }
    let two = ask(&proxy, "GET", "/numbers.txt", "Range: bytes=0-1\r\nRange: bytes=4-5\r\n").await;
    assert_eq!((two.status, two.text()), (200, "0123456789".into()));
    for range in ["bytes=0-", "bytes=-5"] {
        let empty = ask(&proxy, "GET", "/nothing.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((empty.status, empty.header("content-range")), (200, None), "{range}");
    }
    for range in ["bytes=2-4", "bytes=20-"] {
        let head = ask(&proxy, "HEAD", "/numbers.txt", &format!("Range: {range}\r\n")).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "{range}");
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let proxy = proxy("").await;
    let first = get(&proxy, "/numbers.txt").await;
    let (tag, modified) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    for (headers, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        ("If-None-Match: \"other\"\r\n".to_owned(), 200),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned(), 200),
        // The tag is the better witness (RFC 9110, section 13.2.2).
        (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {modified}\r\n"), 200),
        ("If-Match: \"other\"\r\n".to_owned(), 412),
        // Lists, over several lines.
        (format!("If-None-Match: \"other\"\r\nIf-None-Match: W/\"x\", {tag}\r\n"), 304),
        (format!("If-Match: \"other\"\r\nIf-Match: {tag}\r\n"), 200),
    ] {
        let answer = ask(&proxy, "GET", "/numbers.txt", &headers).await;
        assert_eq!(answer.status, status, "{headers}");
        assert_eq!(answer.body.is_empty(), status != 200, "{headers}");
    }
    let part = ask(&proxy, "GET", "/numbers.txt", &format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")).await;
    assert_eq!((part.status, part.text()), (206, "0".into()));
    let other = ask(&proxy, "GET", "/numbers.txt", "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n").await;
    assert_eq!((other.status, other.text()), (200, "0123456789".into()));
    // Who has another file asks behind its end, not this one's.
    let other = ask(&proxy, "GET", "/numbers.txt", "Range: bytes=20-\r\nIf-Range: \"other\"\r\n").await;
    assert_eq!((other.status, other.text()), (200, "0123456789".into()));
}

#[tokio::test]
async fn head_has_no_body_and_other_methods_are_405() {
    let proxy = proxy("").await;
    let head = ask(&proxy, "HEAD", "/numbers.txt", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(&proxy, method, "/numbers.txt", "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[tokio::test]
async fn a_single_page_app_gets_its_page_for_every_path() {
    let proxy = proxy(", try = [\"$uri\", \"$uri/\", \"/index.html\"]").await;
    assert_eq!(get(&proxy, "/numbers.txt").await.text(), "0123456789");
    assert_eq!(get(&proxy, "/docs/").await.text(), "<p>docs");
    for path in ["/some/view", "/gone", "/out.txt", "/$uri"] {
        assert_eq!(get(&proxy, path).await.text(), "<p>home", "{path}");
    }
}

#[tokio::test]
async fn another_index_may_be_named() {
    let proxy = proxy(", index = \"numbers.txt\"").await;
    assert_eq!(get(&proxy, "/").await.text(), "0123456789");
    assert_eq!(get(&proxy, "/docs/").await.status, 404);
}

/// A prefix is a route's matter, the folder knows nothing of it.
#[tokio::test]
async fn a_stripped_prefix_is_no_part_of_the_file_name() {
    let toml =
        "[[route]]\nname = \"site\"\npath = [\"/static\"]\nstrip_prefix = \"/static\"\nfiles = { root = \"site\" }\n";
    let proxy = TestProxy::toml(toml).in_folder(site()).start().await;
    assert_eq!(get(&proxy, "/static/numbers.txt").await.text(), "0123456789");
    assert_eq!(get(&proxy, "/static/").await.text(), "<p>home");
    let folder = get(&proxy, "/static/docs").await;
    assert_eq!(folder.header("location"), Some("/static/docs/"));
    assert_eq!(get(&proxy, "/static").await.header("location"), Some("/static/"));
}

#[tokio::test]
async fn a_large_file_comes_whole() {
    let folder = site();
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    folder.write("site/large.bin", &large);
    let toml = "[[route]]\nname = \"site\"\nfiles = { root = \"site\" }\n";
    let proxy = TestProxy::toml(toml).in_folder(folder).start().await;
    assert!(get(&proxy, "/large.bin").await.body == large);
}
