use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

async fn app() -> SampleApp {
    SampleApp::start(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

/// Sends bytes and reads until `enough` says so, or to the end.
async fn exchange(app: &SampleApp, request: &str, enough: impl Fn(&str) -> bool) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(app.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !enough(&String::from_utf8_lossy(&seen)) && stream.read_buf(&mut seen).await.unwrap() > 0 {}
        String::from_utf8_lossy(&seen).into_owned()
    };
    tokio::time::timeout(DEADLINE, talk).await.expect("an answer in time")
}

async fn call(app: &SampleApp, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n");
    exchange(app, &request, |_| false).await
}

#[tokio::test]
async fn the_page_links_to_every_path() {
    let app = app().await;
    let page = call(&app, "GET", "/").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for path in
        ["/api/time", "/slow?ms=", "/fail", "/fail/on", "/fail/off", "/events", "/ws", "/upload", "/headers", "/health"]
    {
        assert!(page.contains(path), "{path}");
    }
}

#[tokio::test]
async fn failing_is_switched_on_and_off() {
    let app = app().await;
    assert!(call(&app, "GET", "/fail").await.starts_with("HTTP/1.1 200"));
    assert!(call(&app, "POST", "/fail/on").await.contains("\"failing\":true"));
    assert!(call(&app, "GET", "/fail").await.starts_with("HTTP/1.1 500"));
    assert!(call(&app, "POST", "/fail/off").await.contains("\"failing\":false"));
    assert!(call(&app, "GET", "/fail").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let answer = call(&app().await, "GET", "/fail/on").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert!(answer.contains("allow: POST"), "{answer}");
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    assert!(call(&app().await, "GET", "/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn slow_takes_what_it_was_asked_and_refuses_nonsense() {
    let app = app().await;
    assert!(call(&app, "GET", "/slow?x=1&ms=5").await.contains("that took 5 ms"));
    assert!(call(&app, "GET", "/slow?ms=soon").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn upload_counts_and_sums_and_shows_trailers() {
    let request = "POST /upload HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n\
                   2\r\nab\r\n1\r\nc\r\n0\r\nx-end: yes\r\n\r\n";
    let answer = exchange(&app().await, request, |_| false).await;
    assert!(answer.contains("\"bytes\":3"), "{answer}");
    assert!(answer.contains("a9993e364706816aba3e25717850c26c9cd0d89d"), "{answer}");
    assert!(answer.contains(r#"["x-end","yes"]"#), "{answer}");
}

#[tokio::test]
async fn headers_come_back_repeated_ones_too() {
    let request = "DELETE /headers?q HTTP/1.1\r\nhost: demo\r\nx-a: 1\r\nx-a: 2\r\nconnection: close\r\n\r\n";
    let answer = exchange(&app().await, request, |_| false).await;
    assert!(answer.contains(r#"["x-a","1"],["x-a","2"]"#), "{answer}");
    assert!(answer.contains(r#""uri":"/headers?q""#), "{answer}");
}

#[tokio::test]
async fn events_tick_at_once() {
    let request = "GET /events HTTP/1.1\r\nhost: demo\r\n\r\n";
    let answer = exchange(&app().await, request, |seen| seen.contains("event: tick\n")).await;
    assert!(answer.contains("content-type: text/event-stream"), "{answer}");
}

#[tokio::test]
async fn web_socket_echoes_a_masked_text() {
    let app = app().await;
    let request = "GET /ws HTTP/1.1\r\nhost: demo\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let talk = async {
        let mut stream = TcpStream::connect(app.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // A text "hi" under the mask 0, sent before the 101 was seen: the app must not lose it.
        stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(&[0x81, 0x02, b'h', b'i']) && stream.read_buf(&mut seen).await.unwrap() > 0 {}
        seen
    };
    let seen = tokio::time::timeout(DEADLINE, talk).await.expect("an answer in time");
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    assert!(String::from_utf8_lossy(&seen).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

#[tokio::test]
async fn a_plain_request_to_the_web_socket_is_told_to_upgrade() {
    assert!(call(&app().await, "GET", "/ws").await.starts_with("HTTP/1.1 426"));
}

#[tokio::test]
async fn dropping_the_app_closes_its_connections() {
    let app = app().await;
    let mut stream = TcpStream::connect(app.addr).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: demo\r\n\r\n").await.unwrap();
    assert!(stream.read_u8().await.is_ok());
    drop(app);
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
}
