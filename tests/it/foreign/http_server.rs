//! Python's `http.server`, which speaks HTTP/1.0 and closes after every answer.

use std::process::Command;

use super::{curl_text, flagstone_before, header};
use crate::support::files::Folder;
use crate::support::left_out::program;
use crate::support::process::Process;

/// Started as everybody starts it.
async fn http_server(folder: &Folder) -> (Process, String) {
    let mut command = Command::new(program("python3").expect("looked for before"));
    command.args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]).current_dir(folder.path());
    let mut process = Process::start(&mut command);
    let line = process.stdout_line("Serving HTTP on").await;
    let port = line.split(" port ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a port");
    (process, format!("127.0.0.1:{port}"))
}

fn site() -> Folder {
    let folder = Folder::new();
    folder.write("hello.txt", "hello\n");
    folder.write("pages/one.txt", "one\n");
    folder
}

#[tokio::test]
async fn an_http_1_0_app_serves_clients_of_http_1_1() {
    or_left_out!(program("curl"));
    or_left_out!(program("python3"));
    let folder = site();
    let (_server, endpoint) = http_server(&folder).await;
    let (_flagstone, address) = flagstone_before(&endpoint).await;
    let answer = curl_text(["-i", &format!("http://{address}/hello.txt")]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    assert_eq!(header(&answer, "Content-Length"), Some("6"));
    assert_eq!(header(&answer, "Connection"), None, "the app's connection ends, the client's does not: {answer}");
    let listing = curl_text([&format!("http://{address}/pages/")]).await;
    assert!(listing.contains("one.txt"), "{listing}");
    let redirect = curl_text(["-i", &format!("http://{address}/pages")]).await;
    assert!(redirect.starts_with("HTTP/1.1 301 ") && header(&redirect, "Location") == Some("/pages/"), "{redirect}");
}

#[tokio::test]
async fn a_client_keeps_its_connection_before_an_app_that_does_not() {
    or_left_out!(program("curl"));
    or_left_out!(program("python3"));
    let folder = site();
    let (_server, endpoint) = http_server(&folder).await;
    let (_flagstone, address) = flagstone_before(&endpoint).await;
    let url = format!("http://{address}/hello.txt");
    let mut args = vec!["-w", "%{http_code} %{num_connects}\n"];
    args.extend([url.as_str(); 20]);
    let printed = curl_text(args).await;
    let mut expected = "hello\n200 1\n".to_owned();
    expected.push_str(&"hello\n200 0\n".repeat(19));
    assert_eq!(printed, expected);
}

#[tokio::test]
async fn head_and_conditions_work_with_an_http_1_0_app() {
    or_left_out!(program("curl"));
    or_left_out!(program("python3"));
    let folder = site();
    let (_server, endpoint) = http_server(&folder).await;
    let (_flagstone, address) = flagstone_before(&endpoint).await;
    let url = format!("http://{address}/hello.txt");
    let head = curl_text(["-I", &url]).await;
    assert_eq!(header(&head, "Content-Length"), Some("6"), "{head}");
    let since = format!("If-Modified-Since: {}", header(&head, "Last-Modified").expect("a date"));
    let unchanged = curl_text(["-i", "-H", &since, &url]).await;
    assert!(unchanged.starts_with("HTTP/1.1 304 ") && unchanged.ends_with("\r\n\r\n"), "{unchanged}");
    let refused = curl_text(["-i", "-d", "x=1", &url]).await;
    assert!(refused.starts_with("HTTP/1.1 501 "), "{refused}");
}
