//! What is refused before it is a request is in the access log and the metrics all the same.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::poll::eventually;
use crate::support::process::DEADLINE;
use crate::support::proxy::TestProxy;

const ROUTE: &str = "[[route]]\nname = \"all\"\nrespond = { status = 200, body = \"ok\" }\n";

/// The lines of the log without their times.
fn lines(proxy: &TestProxy) -> Vec<String> {
    let log = std::fs::read_to_string(proxy.folder.join("access.log")).unwrap_or_default();
    log.lines().map(|line| format!("{}{}", line.split(" [").next().unwrap(), line.split(']').nth(1).unwrap())).collect()
}

#[tokio::test]
async fn refused_heads_are_logged_as_nginx_logs_them() {
    let proxy = TestProxy::toml(ROUTE).start().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "l".repeat(9000));
    for (head, line) in [
        ("\x16\x03\x01\x02abc\r\n\r\n", r#""\x16\x03\x01\x02abc" 400"#),
        ("GET\r\n\r\n", r#""GET" 400"#),
        ("\"\\ / HTTP/1.1\r\n\r\n", r#""\x22\x5C / HTTP/1.1" 400"#),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", r#""GET / HTTP/1.1" 400"#),
        (
            "GET /?maintenance_bypass=secret HTTP/1.1\r\nA b: c\r\n\r\n",
            r#""GET /?maintenance_bypass=*** HTTP/1.1" 400"#,
        ),
        (&long, r#"llll"#),
    ] {
        let before = lines(&proxy).len();
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(head).await.unwrap();
        let response = client.read_response().await.unwrap();
        assert!(matches!(response.status, 400 | 414), "{head:?}: {}", response.status);
        assert!(eventually(DEADLINE, || lines(&proxy).len() > before).await, "{head:?} is not in the log");
        let logged = lines(&proxy).pop().unwrap();
        assert!(logged.starts_with("127.0.0.1 - - \"") && logged.contains(line), "{logged}");
        if response.status == 400 {
            assert!(logged.ends_with(&format!("{line} {} \"-\" \"-\"", response.body.len())), "{logged}");
        }
    }
    assert_eq!(lines(&proxy).len(), 6, "one line each");
    let mut admin = Client::connect(proxy.admin()).await.unwrap();
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let metrics = admin.read_response().await.unwrap().text();
    assert!(metrics.contains("flagstone_requests_total{route=\"-\",code=\"400\"} 5\n"), "{metrics}");
    assert!(metrics.contains("flagstone_requests_total{route=\"-\",code=\"414\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_logged_when_its_time_is_up() {
    let log = "[log]\naccess = \"access.log\"\naccess_format = \"json\"\n[timeouts]\nrequest_head = \"200ms\"\n";
    let proxy = TestProxy::toml(format!("{log}{ROUTE}")).start().await;
    let mut client = Client::connect(proxy.address()).await.unwrap();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\nX: ").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 408);
    let log = proxy.folder.join("access.log");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(DEADLINE, || read().ends_with('\n')).await);
    let line: serde_json::Value = serde_json::from_str(read().lines().next().unwrap()).unwrap();
    assert_eq!((&line["method"], &line["target"], &line["status"]), (&"GET".into(), &"/slow".into(), &408.into()));
    assert_eq!((&line["reason"], &line["route"]), (&"bad_request".into(), &serde_json::Value::Null));
    assert!(line["duration_ms"].as_f64().unwrap() >= 100.0, "{line}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_not_logged() {
    let proxy = TestProxy::toml(format!("[timeouts]\nrequest_head = \"100ms\"\n{ROUTE}")).start().await;
    let mut silent = Client::connect(proxy.address()).await.unwrap();
    silent.expect_closed().await.unwrap();
    assert!(proxy.drain(Duration::from_secs(5)).await);
}
