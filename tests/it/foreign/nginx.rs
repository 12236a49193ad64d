//! Debian's nginx serving a site, as the app.

use super::{Nginx, curl_text, flagstone_before, header};
use crate::support::files::Folder;
use crate::support::left_out::program;

const SERVER: &str = r#"
        location = /moved { return 301 /there?x=1; }
        location = /created { return 201 "made\n"; }
        location = /refused { return 403; }
        location = /empty { return 204; }
        location = /trailers {
            add_header Trailer X-Sum always;
            add_trailer X-Sum abc always;
            try_files /plain.bin =404;
        }
"#;

/// A site with a page, a text that is worth compressing and a file of all bytes.
fn site() -> Folder {
    let folder = Folder::new();
    folder.write("site/index.html", "<h1>the site</h1>\n");
    folder.write("site/docs/index.html", "<h1>the docs</h1>\n");
    folder.write("site/long.txt", "all work and no play\n".repeat(1000));
    folder.write("site/plain.bin", (0..=255).collect::<Vec<u8>>());
    folder
}

macro_rules! nginx_behind_flagstone {
    ($nginx:ident, $flagstone:ident, $address:ident) => {
        or_left_out!(program("curl"));
        let $nginx = or_left_out!(Nginx::serve(site(), SERVER).await);
        let ($flagstone, $address) = flagstone_before(&$nginx.endpoint()).await;
        let _alive = (&$nginx, &$flagstone);
    };
}

#[tokio::test]
async fn a_page_arrives_as_nginx_serves_it() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let direct = curl_text(["-i", "--unix-socket", nginx.endpoint().trim_start_matches("unix:"), "http://site/"]).await;
    let through = curl_text(["-i", &format!("http://{address}/")]).await;
    assert!(through.starts_with("HTTP/1.1 200 OK\r\n"), "{through}");
    assert!(through.ends_with("<h1>the site</h1>\n"), "{through}");
    for name in ["Server", "Content-Type", "Content-Length", "Last-Modified", "ETag", "Accept-Ranges"] {
        assert_eq!(header(&through, name), header(&direct, name), "{name}\n{through}");
    }
    assert_eq!(through.matches("\r\nDate:").count() + through.matches("\r\ndate:").count(), 1, "{through}");
}

#[tokio::test]
async fn ranges_are_the_app_s() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let url = format!("http://{address}/long.txt");
    let part = curl_text(["-i", "-r", "4-7", &url]).await;
    assert!(part.starts_with("HTTP/1.1 206 ") && part.ends_with("\r\n\r\nwork"), "{part}");
    assert_eq!(header(&part, "Content-Range"), Some("bytes 4-7/21000"));
    let last = curl_text(["-i", "-r", "-5", &url]).await;
    assert!(last.ends_with("\r\n\r\nplay\n"), "{last}");
    let several = curl_text(["-i", "-r", "0-2,4-7", &url]).await;
    assert!(header(&several, "Content-Type").is_some_and(|kind| kind.starts_with("multipart/byteranges")), "{several}");
    let beyond = curl_text(["-i", "-r", "30000-", &url]).await;
    assert!(beyond.starts_with("HTTP/1.1 416 "), "{beyond}");
    assert_eq!(header(&beyond, "Content-Range"), Some("bytes */21000"));
}

#[tokio::test]
async fn a_download_is_resumed() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let whole = "all work and no play\n".repeat(1000);
    let part = nginx.folder.write("part.txt", &whole[..10_000]);
    let part_name = part.to_str().unwrap();
    curl_text(["-C", "-", "-o", part_name, &format!("http://{address}/long.txt")]).await;
    assert_eq!(nginx.folder.read("part.txt"), whole);
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let url = format!("http://{address}/long.txt");
    let whole = curl_text(["-I", &url]).await;
    let tag = format!("If-None-Match: {}", header(&whole, "ETag").unwrap());
    let date = format!("If-Modified-Since: {}", header(&whole, "Last-Modified").unwrap());
    for condition in [&tag, &date] {
        let answer = curl_text(["-i", "-H", condition, &url]).await;
        assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(header(&answer, "ETag"), header(&whole, "ETag"));
    }
    let answer = curl_text(["-i", "-H", "If-Match: \"other\"", &url]).await;
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
}

#[tokio::test]
async fn redirects_name_the_host_that_the_client_named() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    for (path, to) in [("/docs", "http://shop.example.com/docs/"), ("/moved", "http://shop.example.com/there?x=1")] {
        let answer = curl_text(["-i", "-H", "Host: shop.example.com", &format!("http://{address}{path}")]).await;
        assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
        assert_eq!(header(&answer, "Location"), Some(to), "{answer}");
    }
}

#[tokio::test]
async fn compressed_answers_stay_compressed() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let url = format!("http://{address}/long.txt");
    let head = curl_text(["-D", "-", "-o", "/dev/null", "-H", "Accept-Encoding: gzip", &url]).await;
    assert_eq!(header(&head, "Content-Encoding"), Some("gzip"), "{head}");
    assert_eq!(header(&head, "Vary"), Some("Accept-Encoding"));
    assert_eq!(header(&head, "Content-Length"), None);
    let unpacked = curl_text(["--compressed", &url]).await;
    assert_eq!(unpacked, "all work and no play\n".repeat(1000));
}

#[tokio::test]
async fn head_tells_the_length_and_sends_no_body() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let urls = [format!("http://{address}/long.txt"), format!("http://{address}/")];
    let answer = curl_text(["-I", "-w", "%{num_connects}\n", &urls[0], &urls[1]]).await;
    assert_eq!(header(&answer, "Content-Length"), Some("21000"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n0\n"), "the second request found the connection usable: {answer}");
}

#[tokio::test]
async fn statuses_pass_as_they_are() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    for (path, line) in [
        ("/created", "201 Created"),
        ("/refused", "403 Forbidden"),
        ("/empty", "204 No Content"),
        ("/none", "404 Not Found"),
    ] {
        let answer = curl_text(["-i", &format!("http://{address}{path}")]).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{answer}");
        assert_eq!(header(&answer, "Flagstone-Reason"), None, "{answer}");
    }
}

#[tokio::test]
async fn trailers_of_the_app_reach_the_client() {
    nginx_behind_flagstone!(nginx, flagstone, address);
    let args = ["-D", "-", "-o", "/dev/null", "-H", "TE: trailers", &format!("http://{address}/trailers")];
    let head = curl_text(args).await;
    let (head, trailers) = head.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(head, "Transfer-Encoding"), Some("chunked"), "{head}");
    assert_eq!(header(trailers, "X-Sum"), Some("abc"), "{head}\n--\n{trailers}");
}
